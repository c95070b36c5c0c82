//! Where the files of K3s releases are, what they are called, and the checksum lists that come with them.
//!
//! From the releases of github.com/k3s-io/k3s: the binaries `k3s` (amd64), `k3s-arm64`, `k3s-armhf`; the lists
//! `sha256sum-{amd64,arm64,arm}.txt`, which name the binary and the image archives of one architecture.

use std::path::{Path, PathBuf};

use super::Error;
use crate::checksum::is_sha256;

/// Where releases come from when the inventory does not say.
pub const DEFAULT_SOURCE: &str = "https://github.com/k3s-io/k3s/releases/download";

/// A list of checksums is a few lines.
pub const LIST_LIMIT: u64 = 1024 * 1024;

/// Where releases are. `{version}` in it stands for the tag; without it the tag is a folder beneath it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `http://…` or `https://…`.
    Url(String),
    Folder(PathBuf),
}

/// Where one file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    Url(String),
    File(PathBuf),
}

impl Source {
    /// Reads what the inventory says; relative folders are those beside it. The error is what is wrong.
    pub fn parse(text: &str, beside: &Path) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return match text {
                "" => Err("it is empty".into()),
                _ => Ok(Self::Folder(crate::secret::expand(Path::new(text), beside))),
            };
        };
        let host = rest.split('/').next().unwrap_or_default();
        match scheme {
            "file" if rest.starts_with('/') => Ok(Self::Folder(rest.into())),
            "file" => Err("a file:// address has an absolute path: file:///srv/releases".into()),
            "http" | "https" if host.is_empty() => Err("it has no host".into()),
            "http" | "https" if host.contains('@') => {
                Err("it holds a name or password: the inventory is no place for these".into())
            }
            "http" | "https" if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"') => {
                Err("it holds blanks".into())
            }
            "http" | "https" => Ok(Self::Url(text.trim_end_matches('/').to_owned())),
            _ => Err(format!("{scheme}:// is not supported")),
        }
    }

    /// Where a file of a release is.
    pub fn locate(&self, version: &str, file: &str) -> Location {
        match self {
            Self::Url(base) => Location::Url(format!("{}/{file}", place(base, &version.replace('+', "%2B")))),
            Self::Folder(base) => {
                Location::File(Path::new(&place(&base.to_string_lossy(), version)).join(file))
            }
        }
    }
}

fn place(base: &str, version: &str) -> String {
    match base.contains("{version}") {
        true => base.replace("{version}", version),
        false => format!("{base}/{version}"),
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// What the files for one architecture are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    pub binary: &'static str,
    /// The image archive for machines that pull nothing.
    pub images: &'static str,
    /// The list of checksums.
    pub list: &'static str,
}

/// By Debian's name of the architecture; `None` where there is no release for it.
pub fn names(arch: &str) -> Option<Names> {
    let (binary, images, list) = match arch {
        "amd64" => ("k3s", "k3s-airgap-images-amd64.tar.zst", "sha256sum-amd64.txt"),
        "arm64" => ("k3s-arm64", "k3s-airgap-images-arm64.tar.zst", "sha256sum-arm64.txt"),
        "armhf" => ("k3s-armhf", "k3s-airgap-images-arm.tar.zst", "sha256sum-arm.txt"),
        _ => return None,
    };
    Some(Names { binary, images, list })
}

/// Whether a text can be a release's tag: `v1.36.3+k3s1`, `v1.37.0-rc2+k3s1`.
pub fn is_version(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    let numbers = text.strip_prefix('v').unwrap_or_default().split(['+', '-']).next().unwrap_or_default();
    let numbers: Vec<&str> = numbers.split('.').collect();
    text.chars().all(plain)
        && numbers.len() == 3
        && numbers.iter().all(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()))
}

/// A release by its numbers, to tell a step forward from one back. Pre-releases come before their release.
///
/// `v1.36.3+k3s1` < `v1.36.3+k3s2` < `v1.37.0-rc1+k3s1` < `v1.37.0+k3s1`
pub fn parse_version(tag: &str) -> Option<semver::Version> {
    semver::Version::parse(tag.strip_prefix('v')?).ok()
}

/// Why one release may not follow another without further ado: another minor, or an older one. `None`: it may, or
/// one of them is no release.
pub fn leap(from: &str, to: &str) -> Option<&'static str> {
    let (from, to) = (parse_version(from)?, parse_version(to)?);
    match (to.major, to.minor).cmp(&(from.major, from.minor)) {
        std::cmp::Ordering::Less => Some("an older minor release"),
        std::cmp::Ordering::Greater => Some("another minor release"),
        std::cmp::Ordering::Equal if to < from => Some("an older release"),
        std::cmp::Ordering::Equal => None,
    }
}

/// Reads the output of sha256sum: checksum and name of every file. Anything else in it is an error; a list that
/// was cut or a page that says "log in first" must not pass for one.
pub fn read_list(text: &str, from: &str) -> Result<Vec<(String, String)>, Error> {
    let wrong = |why: String| Error::NotAList { from: from.to_owned(), why };
    let mut files: Vec<(String, String)> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (sum, name) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let name = name.trim_start().trim_start_matches('*').trim_end();
        if !is_sha256(sum) || !is_file_name(name) {
            let shown: String = line.chars().take(80).collect();
            return Err(wrong(format!("a line of it is {}", shown.escape_debug())));
        }
        match files.iter().find(|(_, known)| known == name) {
            Some((other, _)) if other != sum => return Err(wrong(format!("it names {name} twice"))),
            Some(_) => {}
            None => files.push((sum.to_owned(), name.to_owned())),
        }
    }
    if files.is_empty() { Err(wrong("it is empty".into())) } else { Ok(files) }
}

/// A plain name, without a folder.
pub fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(['.', '-'])
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._+-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        let beside = Path::new("/inventory");
        let cases = [
            ("https://a.example/k3s/", Ok("https://a.example/k3s/v1.2.3%2Bk3s1/f")),
            ("http://a.example/{version}/bin", Ok("http://a.example/v1.2.3%2Bk3s1/bin/f")),
            ("releases", Ok("/inventory/releases/v1.2.3+k3s1/f")),
            ("/srv/{version}", Ok("/srv/v1.2.3+k3s1/f")),
            ("file:///srv", Ok("/srv/v1.2.3+k3s1/f")),
            ("file://srv", Err("absolute")),
            ("ftp://a.example", Err("ftp:// is not supported")),
            ("https:///x", Err("no host")),
            ("https://kim:pw@a.example", Err("a name or password")),
            ("https://a.example/a b", Err("blanks")),
            ("", Err("empty")),
        ];
        for (text, wanted) in cases {
            let seen = Source::parse(text, beside).map(|s| s.locate("v1.2.3+k3s1", "f").to_string());
            match (seen, wanted) {
                (Ok(seen), Ok(wanted)) => assert_eq!(seen, wanted, "{text}"),
                (Err(seen), Err(wanted)) => assert!(seen.contains(wanted), "{text}: {seen}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn leaps() {
        for (from, to, wanted) in [
            ("v1.36.3+k3s1", "v1.36.3+k3s1", None),
            ("v1.36.3+k3s1", "v1.36.3+k3s2", None),
            ("v1.36.3+k3s1", "v1.36.10+k3s1", None),
            ("v1.36.10+k3s1", "v1.36.9+k3s1", Some("an older release")),
            ("v1.36.3+k3s1", "v1.36.3-rc1+k3s1", Some("an older release")),
            ("v1.35.4+k3s1", "v1.36.3+k3s1", Some("another minor release")),
            ("v1.36.3+k3s1", "v1.35.4+k3s1", Some("an older minor release")),
            ("v1.36.3+k3s1", "main", None),
        ] {
            assert_eq!(leap(from, to), wanted, "{from} {to}");
        }
    }

    #[test]
    fn versions() {
        for good in ["v1.36.3+k3s1", "v1.37.0-rc2+k3s1", "v1.36.3"] {
            assert!(is_version(good), "{good}");
        }
        for bad in ["1.36.3+k3s1", "v1.36", "v1.36.x", "latest", "", "v1.36.3/../x", "v1..3+k3s1"] {
            assert!(!is_version(bad), "{bad}");
        }
    }

    #[test]
    fn lists() {
        let sum = "a".repeat(64);
        let other = "b".repeat(64);
        let good = [
            (format!("{sum}  k3s\n{other} *k3s-images.txt\n"), 2),
            (format!("{sum}  k3s\n\n{sum}  k3s\n"), 1),
            (format!("{sum}  k3s\r\n"), 1),
        ];
        for (text, count) in good {
            assert_eq!(read_list(&text, "list").map(|l| l.len()).map_err(|e| e.to_string()), Ok(count));
        }
        let bad = [
            (String::new(), "it is empty"),
            ("<html>\u{1b}[31mlog in</html>".into(), "<html>\\u{1b}[31mlog in"),
            (format!("{}  k3s", &sum[1..]), "a line of it"),
            (format!("{sum}  k3s\n{}", &other[..30]), "a line of it"),
            (format!("{sum}  ../k3s"), "a line of it"),
            (format!("{sum}  k3s\n{other}  k3s"), "names k3s twice"),
        ];
        for (text, wanted) in bad {
            let error = read_list(&text, "list").expect_err("refused").to_string();
            assert!(error.contains(wanted) && !error.contains('\u{1b}'), "{error}");
        }
    }
}
