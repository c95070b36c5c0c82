//! /etc/fstab as data: what `mount` and `swap` share. A line is touched only if its meaning changes.

use crate::probe::storage::unescape;

pub const PATH: &str = "/etc/fstab";

/// systemd makes its mount and swap units from the table; without this it keeps those of the old one.
pub const RELOAD: &str = "[ ! -d /run/systemd/system ] || systemctl daemon-reload || exit 1\n";

/// One line, its escapes undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub device: String,
    /// Without a slash at its end.
    pub path: String,
    pub fstype: String,
    pub options: String,
    pub dump: u32,
    pub pass: u32,
}

impl Entry {
    /// `None` for comments, blank lines and what is not an entry. Fields at the end may be missing, as fstab(5) says.
    pub fn parse(line: &str) -> Option<Self> {
        if line.trim_start().starts_with('#') {
            return None;
        }
        let mut fields = line.split_whitespace();
        let mut next = || fields.next().map(unescape);
        let (device, path, fstype) = (next()?, next()?, next()?);
        let path = if path.len() > 1 { path.trim_end_matches('/').to_owned() } else { path };
        let options = next().unwrap_or_else(|| "defaults".into());
        let mut number = || next().and_then(|n| n.parse().ok()).unwrap_or_default();
        Some(Self { device, path, fstype, options, dump: number(), pass: number() })
    }

    pub fn line(&self) -> String {
        let fields = [&self.device, &self.path, &self.fstype, &self.options].map(|field| escape(field));
        format!("{} {} {}", fields.join(" "), self.dump, self.pass)
    }
}

/// The lines of a table, each with what it means.
pub fn lines(text: &str) -> impl Iterator<Item = (&str, Option<Entry>)> {
    text.split_terminator('\n').map(|line| (line, Entry::parse(line)))
}

/// The entry of a mount point, the first if there are several.
pub fn entry(text: &str, path: &str) -> Option<Entry> {
    lines(text).find_map(|(_, entry)| entry.filter(|e| e.path == path))
}

fn escape(field: &str) -> String {
    field
        .chars()
        .map(|c| match c {
            ' ' | '\t' | '\n' | '\\' | '#' => format!("\\{:03o}", u32::from(c)),
            c => c.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_written() {
        let entry = |device: &str, path: &str, options: &str, dump, pass| Entry {
            device: device.into(),
            path: path.into(),
            fstype: "ext4".into(),
            options: options.into(),
            dump,
            pass,
        };
        for (line, expected) in [
            ("UUID=1 / ext4 defaults 0 1", Some(entry("UUID=1", "/", "defaults", 0, 1))),
            (" /dev/sdb1\t/mnt/data/ ext4 noatime", Some(entry("/dev/sdb1", "/mnt/data", "noatime", 0, 0))),
            ("LABEL=a\\040b /m\\043 ext4", Some(entry("LABEL=a b", "/m#", "defaults", 0, 0))),
            ("# UUID=1 / ext4 defaults 0 1", None),
            ("  #x / ext4", None),
            ("/dev/sdb1 /mnt", None),
            ("", None),
        ] {
            let read = Entry::parse(line);
            assert_eq!(read, expected, "{line:?}");
            assert!(read.is_none_or(|e| Entry::parse(&e.line()) == Some(e)), "{line:?}");
        }
        assert_eq!(entry("LABEL=a b", "/m", "defaults", 0, 2).line(), "LABEL=a\\040b /m ext4 defaults 0 2");
    }
}
