//! Mount options: those in the table compared with those that are live.

use crate::probe::Mount;

/// The generic options, as set and as not set. All file systems have them and /proc/self/mounts shows those that
/// are set, so only these can be compared with what is live.
const FLAGS: &[(&str, &str)] = &[
    ("ro", "rw"),
    ("nosuid", "suid"),
    ("nodev", "dev"),
    ("noexec", "exec"),
    ("noatime", "relatime"),
    ("nodiratime", "diratime"),
    ("sync", "async"),
];

/// File systems that are read-only whatever the table says.
const READ_ONLY: &[&str] = &["erofs", "iso9660", "squashfs"];

/// Options that mount(8) and systemd keep to themselves; the kernel is not told.
const KEPT: &[&str] = &["_netdev", "auto", "defaults", "noauto", "nofail"];

pub fn has(options: &str, option: &str) -> bool {
    options.split(',').any(|word| word == option)
}

/// The options a remount can matter to, in their order.
pub fn effective(options: &str) -> Vec<&str> {
    options.split(',').filter(|word| !KEPT.contains(word) && !word.starts_with("x-")).collect()
}

/// With `nofail`, mount(8) calls it a success that a device is not there.
pub fn without_nofail(options: &str) -> String {
    let words: Vec<&str> = options.split(',').filter(|word| *word != "nofail").collect();
    if words.is_empty() { "defaults".into() } else { words.join(",") }
}

/// A generic option that is live in another form than wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Differing {
    pub live: &'static str,
    pub wanted: &'static str,
}

/// The generic options that differ from what is live. A bind mount takes over those of what it shows, so there only
/// the options that are named count.
pub fn differing(options: &str, mount: &Mount, bind: bool) -> Vec<Differing> {
    let fixed = |set: &str| set == "ro" && READ_ONLY.contains(&mount.fstype.as_str());
    FLAGS
        .iter()
        .filter(|(set, _)| !fixed(set))
        .filter_map(|(set, unset)| {
            let wanted = wanted(options, set, unset).or((!bind).then_some(false))?;
            match (has(&mount.options, set), wanted) {
                (false, true) => Some(Differing { live: unset, wanted: set }),
                (true, false) => Some(Differing { live: set, wanted: unset }),
                _ => None,
            }
        })
        .collect()
}

/// What the last word about a generic option says; `None` if there is none.
fn wanted(options: &str, set: &str, unset: &str) -> Option<bool> {
    let says = |word: &str| match word {
        word if word == set => Some(true),
        word if word == unset => Some(false),
        "atime" | "strictatime" if set == "noatime" => Some(false),
        "user" | "users" if set == "noexec" => Some(true),
        "user" | "users" | "owner" | "group" if set == "nosuid" || set == "nodev" => Some(true),
        _ => None,
    };
    options.split(',').filter_map(says).next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generic_options_as_data() {
        // wanted, live, bind; live → wanted
        let cases = [
            ("defaults,nofail", "rw,relatime", false, ""),
            ("noatime", "rw,noatime,discard", false, ""),
            ("noatime,x-y", "rw,relatime", false, "relatime→noatime"),
            ("defaults", "ro,nosuid,noatime", false, "ro→rw nosuid→suid noatime→relatime"),
            ("ro", "rw", false, "rw→ro"),
            ("noexec,exec", "rw", false, ""),
            ("user", "rw,nosuid,nodev,noexec", false, ""),
            ("user,exec", "rw,nosuid,nodev", false, ""),
            ("strictatime", "rw", false, ""),
            ("errors=remount-ro", "rw,errors=remount-ro", false, ""),
            ("bind", "rw,nosuid,noatime", true, ""),
            ("bind,ro", "rw,nosuid", true, "rw→ro"),
        ];
        for (wanted, live, bind, expected) in cases {
            let mount = Mount { device: "/dev/x".into(), fstype: "ext4".into(), options: live.into() };
            let found = differing(wanted, &mount, bind);
            let shown: Vec<String> = found.iter().map(|d| format!("{}→{}", d.live, d.wanted)).collect();
            assert_eq!(shown.join(" "), expected, "{wanted} on {live}");
        }
        let image = Mount { device: "/dev/x".into(), fstype: "squashfs".into(), options: "ro".into() };
        assert_eq!(differing("defaults", &image, false), []);
    }

    #[test]
    fn what_the_kernel_is_not_told_is_not_effective() {
        assert_eq!(effective("defaults,nofail,_netdev,x-systemd.automount,discard,ro"), ["discard", "ro"]);
        for (options, given) in [("defaults,nofail,ro", "defaults,ro"), ("nofail", "defaults")] {
            assert_eq!(without_nofail(options), given);
        }
    }
}
