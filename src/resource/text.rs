//! What every type that writes files shares: the atomic write, checks of paths and modes, and how a content's
//! difference is shown.

use super::Difference;
pub use crate::checksum::sha256_hex;
use crate::checksum::short;
use crate::probe::Stat;
use crate::shell::{emit, emit_plainly, quote};

/// Texts from this size on (bytes, either side) are shown as a checksum, not as a diff.
pub const SHOWN_LIMIT: usize = 64 * 1024;

/// What the file to be replaced must still hold when the write happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen<'a> {
    /// It does not matter: the new content does not derive from the old one.
    Any,
    /// There was no file.
    Absent,
    /// This content. If it is another one by now (and not the new one either), the write refuses.
    Bytes(&'a [u8]),
}

/// Where a new content comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'a> {
    Bytes(&'a [u8]),
    /// Stands in the script encoded, so that no shell can show it with a line it stumbles over.
    Secret(&'a [u8]),
    /// A command of sh that fills the file `"$tmp"`.
    Shell(&'a str),
}

/// An atomic write of a whole file, as POSIX sh. See [`Write::shell`].
#[derive(Debug, Clone)]
pub struct Write<'a> {
    pub path: &'a str,
    pub source: Source<'a>,
    /// Octal, as `chmod` takes it: `0644`.
    pub mode: &'a str,
    pub owner: &'a str,
    pub group: &'a str,
    /// Keeps the content that is replaced at [`backup_path`]; always exactly one.
    pub backup: bool,
    /// A command that must succeed before the file is put in place; `{}`, a word of its own, is the new file.
    pub validate: Option<&'a str>,
    pub seen: Seen<'a>,
}

/// Where the one backup of a file lies.
pub fn backup_path(path: &str) -> String {
    format!("{path}.datahub-backup")
}

impl Write<'_> {
    /// A fragment of POSIX sh, in a subshell of its own, that ends the script with status 1 and a reason on
    /// stderr if it fails; more commands may follow it. The file is complete or untouched at any moment: a
    /// temporary file beside it, mode 0600 from its first byte, gets content, owner and mode, is synced and renamed.
    /// Nothing is left behind by a failure, and what a killed run left behind is removed.
    pub fn shell(&self) -> String {
        let (folder, name) = self.path.rsplit_once('/').unwrap_or((".", self.path));
        let folder = if folder.is_empty() { "/" } else { folder };
        let fill = match self.source {
            // The shell's own printf does not say why it cannot write.
            Source::Bytes(bytes) => format!(
                "{{\n{}}} >\"$tmp\" || {{ head -c {} /dev/zero >\"$tmp\"; false; }}",
                emit_plainly(bytes),
                bytes.len()
            ),
            Source::Secret(bytes) => format!("{{\n{}}} >\"$tmp\"", emit(bytes)),
            Source::Shell(command) => command.to_owned(),
        };
        let mut sh = format!(
            "(\n\
             umask 077\n\
             path={path} folder={folder} prefix={prefix} tmp= old=\n\
             fail() {{ printf '%s\\n' \"$path: $1\" >&2; exit 1; }}\n\
             [ -d \"$folder\" ] || fail 'its folder does not exist; declare it before the file'\n\
             [ ! -d \"$path\" ] || fail 'is a directory'\n\
             for stale in \"$folder/$prefix\"??????; do\n\
             {{ [ ! -e \"$stale\" ] && [ ! -L \"$stale\" ]; }} || rm -f -- \"$stale\"\n\
             done\n\
             trap '[ -z \"$tmp$old\" ] || rm -f -- \"$tmp\" \"$old\"' EXIT\n\
             trap 'exit 1' HUP INT TERM\n\
             tmp=$(mktemp -- \"$folder/$prefix\"XXXXXX) || fail 'cannot make a temporary file beside it'\n\
             {{\n{fill}\n}} || fail 'cannot write its new content'\n",
            path = quote(self.path),
            folder = quote(folder),
            prefix = quote(&format!(".{name}.datahub.")),
        );
        let unchanged = match self.seen {
            Seen::Any => None,
            Seen::Absent => Some("[ ! -e \"$path\" ] && [ ! -L \"$path\" ]".to_owned()),
            Seen::Bytes(bytes) => {
                Some(format!("[ \"$(sha256sum <\"$path\" | cut -c1-64)\" = {} ]", sha256_hex(bytes)))
            }
        };
        if let Some(unchanged) = unchanged {
            // The new content counts too: the step may run twice after a lost connection.
            sh.push_str(&format!(
                "{{ {unchanged}; }} || cmp -s -- \"$tmp\" \"$path\" || fail 'changed since it was looked at; run again'\n"
            ));
        }
        // It is root's already, but for the group in a folder that gives its own.
        let owned = match (self.owner, self.group) {
            ("root", "root") => "[ ! -g \"$folder\" ] || ",
            _ => "",
        };
        sh.push_str(&format!(
            "{owned}chown -- {} \"$tmp\" || fail 'cannot set its owner'\n\
             chmod -- {} \"$tmp\" || fail 'cannot set its mode'\n",
            quote(&format!("{}:{}", self.owner, self.group)),
            quote(self.mode),
        ));
        if let Some(command) = self.validate {
            sh.push_str(&format!(
                "(\n{}\n) </dev/null >&2 || fail {}\n",
                command.replace("{}", "\"$tmp\""),
                quote(&format!("its new content was refused by: {command}")),
            ));
        }
        if self.backup {
            // Not when the content is already the new one: a second run of the step would lose the old one.
            sh.push_str(&format!(
                "if [ -f \"$path\" ] && ! cmp -s -- \"$tmp\" \"$path\"; then\n\
                 old=$(mktemp -- \"$folder/$prefix\"XXXXXX) && cp -p -- \"$path\" \"$old\" && sync -- \"$old\" &&\n\
                 mv -fT -- \"$old\" {} || fail 'cannot keep a backup'\n\
                 fi\n",
                quote(&backup_path(self.path)),
            ));
        }
        sh.push_str(
            "sync -- \"$tmp\" || fail 'cannot write its new content to the disk'\n\
             mv -fT -- \"$tmp\" \"$path\" || fail 'cannot put its new content in place'\n\
             tmp= old=\n\
             ) || exit 1\n",
        );
        sh
    }
}

/// Owner and mode of what stands at `path`, as sh that ends the script on failure. Owner first: a change of owner clears setuid.
pub fn set_attributes(path: &str, mode: &str, owner: &str, group: &str) -> String {
    let path = quote(path);
    format!(
        "chown -- {} {path} && chmod -- {} {path} || exit 1\n",
        quote(&format!("{owner}:{group}")),
        quote(mode)
    )
}

/// How mode, owner and group differ from what was seen; empty if they do not.
pub fn attribute_differences(stat: &Stat, mode: &str, owner: &str, group: &str) -> Vec<Difference> {
    let mut differences = Vec::new();
    if parse_mode(mode) != Ok(stat.mode) {
        differences.push(Difference::value("mode", Some(&octal(stat.mode)), Some(mode)));
    }
    for (attribute, seen, wanted) in [("owner", &*stat.owner, owner), ("group", &*stat.group, group)] {
        if seen != wanted {
            differences.push(Difference::value(attribute, Some(seen), Some(wanted)));
        }
    }
    differences
}

/// How a content differs: a text diff if both sides are short UTF-8 text, else sizes and checksums.
pub fn content_difference(path: &str, before: Option<&[u8]>, after: &[u8]) -> Difference {
    let text = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).ok()?;
        (bytes.len() < SHOWN_LIMIT && !text.contains('\0')).then(|| text.to_owned())
    };
    match (before.map(text), text(after)) {
        (None, Some(after)) => Difference::Text { path: path.to_owned(), before: None, after: Some(after) },
        (Some(Some(before)), Some(after)) => {
            Difference::Text { path: path.to_owned(), before: Some(before), after: Some(after) }
        }
        _ => Difference::value("content", before.map(describe).as_deref(), Some(&describe(after))),
    }
}

/// `12 B, sha256 2cf24dba5fb0…`
pub fn describe(bytes: &[u8]) -> String {
    format!("{} B, sha256 {}", bytes.len(), short(&sha256_hex(bytes)))
}

/// Four octal digits: `0644`.
pub fn octal(mode: u32) -> String {
    format!("{mode:04o}")
}

/// Reads `0644` or `644`: three or four octal digits.
pub fn parse_mode(mode: &str) -> Result<u32, String> {
    let digits = (3..=4).contains(&mode.len()) && mode.bytes().all(|b| (b'0'..=b'7').contains(&b));
    match u32::from_str_radix(mode, 8) {
        Ok(bits) if digits => Ok(bits),
        _ => Err(format!("mode {mode:?} is not three or four octal digits in quotes, as \"0644\"")),
    }
}

/// An absolute path in its plainest form: no newline, no `.` or `..`, no doubled or trailing slash.
pub fn check_path(path: &str) -> Result<(), String> {
    let reason = if !path.starts_with('/') {
        "it must be absolute"
    } else if path.contains(['\n', '\0']) {
        "it must not hold a newline"
    } else if path.len() > 1 && path[1..].split('/').any(|part| matches!(part, "" | "." | "..")) {
        "it must not hold `.`, `..`, or an empty part"
    } else {
        return Ok(());
    };
    Err(format!("path {path:?} cannot be used: {reason}"))
}

/// Path, mode, owner and group together. Owner and group are names: numbers are not compared.
pub fn check_attributes(path: &str, mode: &str, owner: &str, group: &str) -> Result<(), String> {
    check_path(path)?;
    parse_mode(mode)?;
    for (what, name) in [("owner", owner), ("group", group)] {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.$".contains(c);
        let first = name.chars().next();
        if !name.chars().all(plain) || !first.is_some_and(|c| c.is_ascii_alphabetic() || c == '_') {
            return Err(format!("{what} {name:?} is not the name of a {what}"));
        }
    }
    Ok(())
}
