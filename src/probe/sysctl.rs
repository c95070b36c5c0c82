//! Kernel settings, as /proc/sys has them.

use super::Sysctl;
use crate::shell::quote_all;

/// The path of a sysctl under /proc/sys. In a key `/` stands for a dot inside a name, as sysctl(8) has it.
pub fn sysctl_path(key: &str) -> String {
    key.chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            c => c,
        })
        .collect()
}

fn live_path(key: &str) -> String {
    format!("/proc/sys/{}", sysctl_path(key))
}

/// Leaves lines `PATH:VALUE` in `$o`, and `w PATH` for what can be written.
pub(super) fn shell(keys: &[&str]) -> String {
    // Not the shell's `read`: it goes byte by byte, and a number in /proc/sys ends after the first.
    let paths = quote_all(keys.iter().map(|key| live_path(key)));
    format!(
        "nl='\n'\no=$(grep -Hsm1 '' {paths} </dev/null)\n\
         for p in {paths}; do [ ! -w \"$p\" ] || o=\"$o${{nl}}w $p\"; done; "
    )
}

/// What the lines of [`shell`] say about one key.
pub(super) fn read(key: &str, body: &str) -> Option<Sysctl> {
    let path = live_path(key);
    let value = body.lines().find_map(|line| line.strip_prefix(&path)?.strip_prefix(':'))?;
    Some(Sysctl {
        value: value.split_whitespace().collect::<Vec<_>>().join(" "),
        writable: body.lines().any(|line| line.strip_prefix("w ") == Some(&path)),
    })
}
