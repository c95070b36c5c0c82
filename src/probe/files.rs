//! Files: what stands at a path, and the content of those small enough to be shown.

use std::fmt::Write as _;

use super::frame::Frame;
use super::sh::{ReadError, first_line, unexpected};
use super::{CONTENT_LIMIT, Content, FileType, Stat};
use crate::shell::{quote, quote_all};

/// What [`read_stat`] reads, in the words of find's `-printf`; a link's target follows.
pub(super) const STAT_FORMAT: &str = "%y\\t%m\\t%u\\t%g\\t%s\\t%D\\t%i\\t%p\\t";

pub(super) fn read_stat(line: &str) -> Option<(String, Stat)> {
    let mut fields = line.split('\t');
    let file_type = match fields.next()? {
        "f" => FileType::File,
        "d" => FileType::Directory,
        "l" => FileType::Link,
        _ => FileType::Other,
    };
    let mode = u32::from_str_radix(fields.next()?, 8).ok()?;
    let owner = fields.next()?.to_owned();
    let group = fields.next()?.to_owned();
    let size = fields.next()?.parse().ok()?;
    let identity = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let path = fields.next()?.to_owned();
    let target = fields.next()?.to_owned();
    Some((path, Stat { file_type, mode, owner, group, size, target, identity }))
}

/// The command that prints a line for [`read_stat`] about each of the paths where something stands.
pub(super) fn stat_command(paths: &[&str]) -> String {
    format!("find {} -maxdepth 0 -printf '{STAT_FORMAT}%l\\n'", quote_all(paths))
}

/// `c ID PATH SHA`: no process where the checksum is the wanted one.
const CONTENT_SHELL: &str = r#"nl='
'
c() {
  if [ ! -e "$2" ]; then [ -L "$2" ] && f "$1" 4 '' || f "$1" 1 ''; return; fi
  [ -f "$2" ] || { f "$1" 4 ''; return; }
  if [ -n "$3" ]; then case "$nl$sums$nl" in *"$nl$3  $2$nl"*) f "$1" 2 ''; return;; esac; fi
  n=$(wc -c <"$2"); [ "$n" -le LIMIT ] || { f "$1" 3 "$n"; return; }
  o=$(base64 <"$2" 2>&1) && f "$1" 0 "$o" || f "$1" 9 "$o"
}
"#;

/// Defines `c` and the checksums it compares with, for the contents that are asked for: their paths, and the checksums
/// with which they are not sent.
pub(super) fn contents_shell(contents: &[(&str, &str)]) -> String {
    if contents.is_empty() {
        return String::new();
    }
    let mut out = CONTENT_SHELL.replace("LIMIT", &CONTENT_LIMIT.to_string());
    out.push_str("set --\n");
    for (path, _) in contents.iter().filter(|(_, unless)| !unless.is_empty()) {
        let path = quote(path);
        let _ = writeln!(out, "[ -f {path} ] && set -- \"$@\" {path}");
    }
    out.push_str("sums=; [ $# -gt 0 ] && sums=$(sha256sum -- \"$@\" 2>/dev/null </dev/null)\n");
    out
}

pub(super) fn read_content(frame: &Frame<'_>, body: &str, path: &str) -> Result<Content, ReadError> {
    use base64::Engine as _;
    Ok(match frame.status {
        0 => {
            let packed: String = body.split_whitespace().collect();
            let bytes = base64::engine::general_purpose::STANDARD.decode(packed);
            Content::Differs(bytes.map_err(|_| unexpected(path, body))?)
        }
        1 => Content::Absent,
        2 => Content::Same,
        3 => Content::TooLarge(body.trim().parse().map_err(|_| unexpected(path, body))?),
        4 => Content::NotAFile,
        status => {
            return Err(ReadError::Failed { about: path.into(), status, text: first_line(body) });
        }
    })
}
