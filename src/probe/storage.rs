//! Storage: mounts, block devices, and what the kernel's tables write about them.

use std::collections::HashMap;

use super::frame::Frame;
use super::sh::first_line;
use super::{Mount, Source};
use crate::shell::quote;

/// The status that stands for a device that is not there or cannot be read.
const NO_DEVICE: i32 = 255;

pub(super) fn read_mount(line: &str) -> Option<(String, Mount)> {
    let mut fields = line.split(' ');
    let device = unescape(fields.next()?);
    let path = unescape(fields.next()?);
    let fstype = fields.next()?.to_owned();
    let options = fields.next()?.to_owned();
    Some((path, Mount { device, fstype, options }))
}

/// Undoes the octal escapes (`\\040` for a blank) of /proc/self/mounts, /proc/swaps and /etc/fstab.
pub fn unescape(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(u8::is_ascii);
        match byte {
            Some(byte) => {
                text.push(char::from(byte));
                text.push_str(&part[3..]);
            }
            None => {
                text.push('\\');
                text.push_str(part);
            }
        }
    }
    text
}

/// Asks for a device's signature.
pub(super) fn device_shell(id: usize, path: &str) -> String {
    let path = quote(path);
    format!(
        // blkid's 2 stands for "no signature" and for "cannot be read": only reading tells which.
        "if [ -e {path} ]; then o=$(blkid -p -o export {path} 2>&1 </dev/null); r=$?\n\
         [ $r != 2 ] || head -c 1048576 {path} >/dev/null 2>&1 || r={NO_DEVICE}\n\
         f {id} $r \"$o\"; else f {id} {NO_DEVICE} ''; fi"
    )
}

/// `None`: blkid could not do its work.
pub(super) fn read_device(frame: &Frame<'_>, body: &str) -> Option<Option<HashMap<String, String>>> {
    let own = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    match frame.status {
        0 => Some(Some(body.lines().filter_map(|line| line.split_once('=')).map(own).collect())),
        2 => Some(Some(HashMap::new())),
        8 => Some(Some(HashMap::from([("AMBIVALENT".into(), first_line(body))]))),
        NO_DEVICE => Some(None),
        _ => None,
    }
}

/// Asks which device a field of fstab means. The mount table knows a device-mapper device by its name, /dev/mapper/…,
/// not by its number.
pub(super) fn source_shell(id: usize, field: &str) -> String {
    let find = match field.split_once('=') {
        Some(_) if !field.starts_with('/') => {
            format!("o=$(findfs {} 2>/dev/null </dev/null)\n", quote(field))
        }
        _ => format!("o={}\n", quote(field)),
    };
    format!(
        "{find}t=\n\
         if [ -n \"$o\" ] && [ -e \"$o\" ]; then o=$(readlink -f -- \"$o\"); t=$(stat -c '%t %T' -- \"$o\"); else o=; fi\n\
         n=/sys/block/${{o##*/}}/dm/name; [ ! -r \"$n\" ] || {{ read -r n <\"$n\"; o=/dev/mapper/$n; }}\n\
         f {id} 0 \"$t $o\""
    )
}

/// Major and minor number, hexadecimal, and the name.
pub(super) fn read_source(body: &str) -> Option<Source> {
    let mut fields = body.splitn(3, ' ');
    let mut number = || u32::from_str_radix(fields.next()?, 16).ok();
    let number = rustix::fs::makedev(number()?, number()?);
    Some(Source { name: fields.next().filter(|name| !name.is_empty())?.to_owned(), number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_escapes_are_undone() {
        for (field, text) in
            [("/mnt/a\\040b", "/mnt/a b"), ("\\134040", "\\040"), ("a\\043\\", "a#\\"), ("\\0é", "\\0é")]
        {
            assert_eq!(unescape(field), text);
        }
    }
}
