//! The release artifact: this very binary with a trailer that says which version it plays.
//!
//! The trailer is the file's last line, `K3S-SIM v1.36.3+k3s1`, so artifacts of different versions have different
//! checksums, as real ones have. Started under the name `k3s`, the binary is that version of the simulation.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

const MARK: &str = "\nK3S-SIM ";
/// No trailer is longer, in bytes.
const LONGEST: u64 = 128;

/// Writes the artifact of a version, mode 0755. `binary` is the one to copy; by default the running one.
///
/// # Errors
/// A version that is not of the form `v1.2.3+k3s4`, or a file that cannot be read or written.
pub fn artifact(version: &str, binary: Option<&Path>, to: &Path) -> io::Result<()> {
    if !is_version(version) {
        let message = format!("{version:?} is no K3s version; one looks like v1.36.3+k3s1");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let running = std::env::current_exe()?;
    let mut from = File::open(binary.unwrap_or(&running))?;
    let length = trailer(&mut from)?.map_or(from.metadata()?.len(), |(start, _)| start);
    from.seek(SeekFrom::Start(0))?;
    let mut out = File::options().write(true).create(true).truncate(true).mode(0o755).open(to)?;
    io::copy(&mut from.take(length), &mut out)?;
    writeln!(out, "{MARK}{version}")?;
    out.flush()
}

/// The version a file plays, if it is an artifact.
pub fn version_of(path: &Path) -> io::Result<Option<String>> {
    Ok(trailer(&mut File::open(path)?)?.map(|(_, version)| version))
}

/// Where the trailer starts, and the version it names.
fn trailer(file: &mut File) -> io::Result<Option<(u64, String)>> {
    let length = file.metadata()?.len();
    let start = length.saturating_sub(LONGEST);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(LONGEST).read_to_end(&mut tail)?;
    let Some(at) = tail.windows(MARK.len()).rposition(|window| window == MARK.as_bytes()) else {
        return Ok(None);
    };
    let version = String::from_utf8_lossy(&tail[at + MARK.len()..]).into_owned();
    let found = version.strip_suffix('\n').filter(|version| is_version(version));
    Ok(found.map(|version| (start + at as u64, version.to_owned())))
}

/// `v1.36.3+k3s1`, also with a pre-release as in `v1.36.3-rc1+k3s1`.
fn is_version(text: &str) -> bool {
    let plain = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-".contains(&b))
    };
    let Some((version, build)) = text.strip_prefix('v').and_then(|rest| rest.split_once('+')) else {
        return false;
    };
    text.len() < 64
        && plain(version)
        && version.split('.').count() >= 3
        && plain(build)
        && build.starts_with("k3s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn artifacts_play_versions() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("binary"), b"\x7fELF and so on").expect("written");
        artifact("v1.36.3+k3s1", Some(&path("binary")), &path("a")).expect("made");
        artifact("v1.36.4+k3s1", Some(&path("a")), &path("b")).expect("made of another one");
        artifact("v1.36.3+k3s1", Some(&path("b")), &path("c")).expect("and back");
        assert_eq!(version_of(&path("binary")).expect("read"), None);
        assert_eq!(version_of(&path("b")).expect("read").as_deref(), Some("v1.36.4+k3s1"));
        let bytes = |name: &str| std::fs::read(path(name)).expect("read");
        assert_eq!(bytes("a"), bytes("c"));
        assert_ne!(bytes("a"), bytes("b"));
        for wrong in ["", "1.36.3+k3s1", "v1.36.3", "v1.36+k3s1", "v1.36.3+rke2r1", "v1.36.3+k3s1\n"] {
            assert!(artifact(wrong, Some(&path("binary")), &path("d")).is_err(), "{wrong:?}");
        }
    }
}
