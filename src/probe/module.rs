//! Where kernel modules are: /sys/module for what is live, the lists in /lib/modules for the rest.

use std::fmt::Write as _;

use super::Module;
use crate::shell::quote;

/// Lines `live NAME` and `builtin NAME` from /sys/module, `folder` if the running kernel has modules, and
/// `FILE:PATH` from its lists: code that takes no parameters is built in without an entry in /sys/module.
pub(super) fn shell(names: &[&str]) -> String {
    let mut out = String::from(
        "nl='\n'\nread -r o </proc/sys/kernel/osrelease; d=/lib/modules/$o\n[ -e \"$d/modules.dep\" ] && o=folder || o=\n",
    );
    let plain = |name: &&&str| name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
    for name in names.iter().filter(plain) {
        let name = name.replace('-', "_");
        let _ = writeln!(
            out,
            "[ -d /sys/module/{name} ] && {{ [ -e /sys/module/{name}/initstate ] && o=\"$o${{nl}}live {name}\" || o=\"$o${{nl}}builtin {name}\"; }}"
        );
    }
    let any: Vec<String> = names.iter().filter(plain).map(|n| n.replace(['-', '_'], "[-_]")).collect();
    let pattern = quote(&format!("^[^:]*/({})\\.ko", any.join("|")));
    let _ = writeln!(
        out,
        "o=\"$o$nl$(grep -HoE {pattern} \"$d/modules.builtin\" \"$d/modules.dep\" 2>/dev/null </dev/null)\""
    );
    out
}

/// What the lines of [`shell`] say about one module.
pub(super) fn read(name: &str, body: &str) -> Module {
    let name = name.replace('-', "_");
    let listed = |line: &str, list: &str| {
        line.split_once(':').is_some_and(|(file, path)| {
            let module = path.rsplit('/').next().and_then(|m| m.strip_suffix(".ko"));
            file.ends_with(list) && module.is_some_and(|m| m.replace('-', "_") == name)
        })
    };
    let any = |wanted: &dyn Fn(&str) -> bool| body.lines().any(wanted);
    if any(&|line| line.strip_prefix("live ") == Some(&name)) {
        Module::Loaded
    } else if any(&|line| line.strip_prefix("builtin ") == Some(&name) || listed(line, "/modules.builtin")) {
        Module::BuiltIn
    } else if any(&|line| listed(line, "/modules.dep")) {
        Module::Available
    } else if any(&|line| line == "folder") {
        Module::Missing
    } else {
        Module::NoModules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_as_the_kernel_lists_them() {
        let body = "folder\nlive overlay\nbuiltin tcp_cubic\n\
                    /lib/modules/6.1/modules.builtin:kernel/net/ipv4/tunnel-4.ko\n\
                    /lib/modules/6.1/modules.dep:kernel/net/bridge/br_netfilter.ko";
        for (name, expected) in [
            ("overlay", Module::Loaded),
            ("tcp-cubic", Module::BuiltIn),
            ("tunnel_4", Module::BuiltIn),
            ("br-netfilter", Module::Available),
            ("netfilter", Module::Missing),
        ] {
            assert_eq!(read(name, body), expected, "{name}");
        }
        assert_eq!(read("br_netfilter", "\n"), Module::NoModules);
    }

    #[test]
    fn the_lists_are_searched_by_whole_names() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
        write("modules.builtin", "kernel/a/datahub-t1.ko\nkernel/a/xdatahub_t2.ko\n");
        write("modules.dep", "kernel/b/datahub_t3.ko.xz: kernel/b/datahub_t4.ko.xz\n");
        let names = ["datahub_t1", "datahub_t2", "datahub-t3", "datahub_t4", "$(reboot)"];
        let script = shell(&names).replace("/lib/modules/$o", folder.path().to_str().expect("UTF-8"));
        let script = format!("{script}printf '%s\n' \"$o\"\n");
        let out = std::process::Command::new("sh").arg("-c").arg(script).output().expect("sh runs");
        let body = String::from_utf8_lossy(&out.stdout).into_owned();
        let expected =
            [Module::BuiltIn, Module::Missing, Module::Available, Module::Missing, Module::Missing];
        assert_eq!(names.map(|name| read(name, &body)), expected, "{body}");
    }
}
