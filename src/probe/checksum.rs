//! Checksums of large files, without reading them each time.
//!
//! To read 70 MB costs an ARM board up to two seconds, an image archive more, and a run that finds nothing to do
//! should take none. So whoever has put a file in place and checked it notes its checksum in [`DIR`], together
//! with device, inode, size, and both of its times in nanoseconds; a probe takes the note for true only while all
//! of these are what they were. The change time cannot be set by anybody, so no writer can hide from this; bits
//! that rot on the disk can. A probe never writes a note itself: asking changes nothing.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::checksum::is_sha256;
use crate::shell::{quote, quote_all};

/// Where a node keeps its notes: a file for each path, `/` written `%2F`, its one line `CHECKSUM IDENTITY`.
pub const DIR: &str = "/var/lib/datahub/checksums";

/// What tells a file and its state from any other: device, inode, size, modification and change time.
const IDENTITY: &str = "%D:%i %s %T@ %C@";

fn note(path: &str) -> String {
    format!("{DIR}/{}", path.replace('%', "%25").replace('/', "%2F"))
}

/// Shell that leaves in `$o` a line `CHECKSUM  PATH` for every one of the paths that is a regular file: at most one
/// `find` and one `sha256sum`, however many there are.
pub fn ask(paths: &[&str]) -> String {
    let mut out = format!(
        "nl='\n'\nnow=$(find {} -maxdepth 0 -type f -printf '{IDENTITY} %p\\n' 2>/dev/null </dev/null)\no=\nset --\n",
        quote_all(paths)
    );
    for path in paths {
        let (note, path) = (quote(&note(path)), quote(path));
        let _ = writeln!(
            out,
            "sum= was=; [ -r {note} ] && read -r sum was <{note}\n\
             case \"$nl$now$nl\" in\n\
             *\"$nl$was \"{path}\"$nl\"*) o=\"$o$sum  \"{path}\"$nl\";;\n\
             *\" \"{path}\"$nl\"*) set -- \"$@\" {path};;\n\
             esac"
        );
    }
    out.push_str("[ $# -gt 0 ] && o=\"$o$(sha256sum -- \"$@\" 2>/dev/null </dev/null)\"\n");
    out
}

/// Checksums by path, from what [`ask`] left; the error is a line that is none.
pub fn read(body: &str) -> Result<HashMap<String, String>, String> {
    let line = |line: &str| {
        // sha256sum marks a line whose name it had to escape.
        let (escaped, line) = line.strip_prefix('\\').map_or((false, line), |line| (true, line));
        let (sum, path) = line.split_once("  ").filter(|(sum, _)| is_sha256(sum))?;
        let path = if escaped { path.replace("\\\\", "\\") } else { path.to_owned() };
        Some((path, sum.to_owned()))
    };
    body.lines().map(|text| line(text).ok_or_else(|| text.to_owned())).collect()
}

/// Shell that notes the checksum of a file that was just put in place, reading it once. Where that cannot be
/// noted the next probe takes longer, and that is all.
pub fn remember(path: &str) -> String {
    let (note, path) = (quote(&note(path)), quote(path));
    // The identity is taken first: what changes while it is read makes the note void.
    format!(
        "mkdir -p -m 0755 {DIR} && is=$(find {path} -maxdepth 0 -printf '{IDENTITY}') && \\\n\
         set -- $(sha256sum <{path}) && printf '%s %s\\n' \"$1\" \"$is\" >{note}.new && mv -f -- {note}.new {note} || :\n"
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;
    use crate::checksum::sha256_hex;

    /// Runs shell with the notes in a folder of the test's own; what it leaves in `$o`.
    fn run(shell: &str, notes: &Path) -> String {
        let shell = shell.replace(DIR, &notes.to_string_lossy());
        let out =
            Command::new("sh").arg("-c").arg(format!("{shell}\nprintf %s \"$o\"")).output().expect("runs");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    #[test]
    fn a_note_holds_until_anything_changes() {
        let dir = tempfile::tempdir().expect("a folder");
        let notes = dir.path().join("notes");
        let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        let (file, other) = (path("it's a file"), path("back\\slash"));
        let seen = |names: &[&str]| read(&run(&ask(names), &notes)).expect("checksums");
        std::fs::write(&file, "one").expect("written");
        std::fs::write(&other, "two").expect("written");
        std::os::unix::fs::symlink(&file, path("link")).expect("linked");
        let both = HashMap::from([(file.clone(), sha256_hex(b"one")), (other.clone(), sha256_hex(b"two"))]);
        let all = [&*file, &*other, &*path("link"), &*path("none"), &*path(".")];
        assert_eq!(seen(&all), both);
        assert!(!notes.exists(), "asking changes nothing");

        run(&remember(&file), &notes);
        assert_eq!(seen(&all), both);
        // A false note proves that it is what is read.
        let note = std::fs::read_dir(&notes).expect("notes").flatten().next().expect("a note").path();
        let text = std::fs::read_to_string(&note).expect("a note");
        let lie = "a".repeat(64);
        std::fs::write(&note, text.replace(&sha256_hex(b"one"), &lie)).expect("written");
        assert_eq!(seen(&[&file])[&file], lie);

        // Same size, same modification time: the change time gives it away.
        let times = std::fs::metadata(&file).and_then(|m| m.modified()).expect("a time");
        let open = || std::fs::OpenOptions::new().write(true).open(&file).expect("opened");
        std::io::Write::write_all(&mut open(), b"eno").expect("written");
        open().set_modified(times).expect("set");
        assert_eq!(seen(&[&file])[&file], sha256_hex(b"eno"));
        run(&remember(&file), &notes);
        std::fs::write(path("new"), "eno").expect("written");
        std::fs::rename(path("new"), &file).expect("renamed");
        assert_eq!(seen(&[&file])[&file], sha256_hex(b"eno"));
        for garbage in ["", "\n", "x", "x y z\n"] {
            std::fs::write(&note, garbage).expect("written");
            assert_eq!(seen(&[&file])[&file], sha256_hex(b"eno"), "{garbage:?}");
        }
    }
}
