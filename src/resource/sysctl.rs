//! `sysctl`: kernel settings, lasting and live.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Deserializer};

use super::file::File;
use super::text::check_path;
use super::{Change, Difference, Reach, Resource, Verdict};
use crate::probe::sysctl::sysctl_path;
use crate::probe::{Answers, Question, Sysctl as Seen, Unanswered};
use crate::shell::quote;

/// Kernel settings: one file that sets them at every boot, and their live values.
///
/// In a container only what belongs to the container is set live (`net.*` and the IPC limits, where /proc/sys
/// is not read-only); for the rest the file is written and a note says that the live value stays. A setting the
/// kernel does not have is refused, unless `optional`; one that a module or a network interface will bring is
/// unknown until then.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sysctl {
    /// Names the file: /etc/sysctl.d/90-NAME.conf. A file there whose name sorts later wins at boot; on Debian 12
    /// that includes /etc/sysctl.conf, which is read as 99-sysctl.conf.
    pub name: String,
    /// Settings in dotted form and their values, as numbers or strings: `"fs.inotify.max_user_instances" = 1024`.
    /// White space in values is compared folded. A dot inside an interface's name is written `/`, as sysctl(8)
    /// has it: `net.ipv4.conf.eth0/100.forwarding`.
    #[serde(deserialize_with = "values")]
    pub values: BTreeMap<String, String>,
    /// The file, instead of /etc/sysctl.d/90-NAME.conf.
    #[serde(default)]
    pub path: Option<String>,
    /// Leave out settings that this kernel does not have; the file marks all of them with the prefix `-`, so that
    /// they may fail at boot. Default: false.
    #[serde(default)]
    pub optional: bool,
}

/// A value as it stands in TOML.
struct Value(String);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Value;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a whole number or a string")
            }
            fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
                Ok(Value(number.to_string()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                Ok(Value(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

fn values<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let values = BTreeMap::<String, Value>::deserialize(deserializer)?;
    Ok(values.into_iter().map(|(key, Value(value))| (key, value)).collect())
}

/// Settings that exist only while a module is loaded.
const MODULES: &[(&str, &str)] = &[
    ("dev.raid.", "md_mod"),
    ("net.bridge.", "br_netfilter"),
    ("net.ipv4.vs.", "ip_vs"),
    ("net.ipv6.", "ipv6"),
    ("net.netfilter.nf_conntrack", "nf_conntrack"),
    ("net.nf_conntrack_max", "nf_conntrack"),
    ("sunrpc.", "sunrpc"),
];

/// Settings that a container has of its own, by its network and IPC namespaces. All others are its host's, even
/// where it could write them.
const NAMESPACED: &[&str] = &["net.", "fs.mqueue.", "kernel.msg", "kernel.sem", "kernel.shm"];

/// What to do about one live value.
enum Live<'a> {
    Right,
    Set(&'a Seen),
    /// The container cannot set it; the value it has, if it sees one.
    NotHere(Option<&'a Seen>),
    LeftOut,
    ReadOnly,
    NotYet(String),
    Missing,
}

impl Sysctl {
    fn path(&self) -> String {
        self.path.clone().unwrap_or_else(|| format!("/etc/sysctl.d/90-{}.conf", self.name))
    }

    fn file(&self) -> File {
        let prefix = if self.optional { "-" } else { "" };
        let lines = self.values.iter().map(|(key, value)| format!("{prefix}{key} = {}\n", folded(value)));
        File::text(self.path(), lines.collect::<String>())
    }

    fn live<'a>(&self, key: &str, value: &str, seen: &'a Answers) -> Result<Live<'a>, Unanswered> {
        let container = seen.facts.container;
        Ok(match seen.sysctl(key)? {
            Some(live) if live.value == folded(value) => Live::Right,
            Some(live) if container && !(live.writable && own(key)) => Live::NotHere(Some(live)),
            Some(live) if live.writable => Live::Set(live),
            Some(_) => Live::ReadOnly,
            None if self.optional => Live::LeftOut,
            None if container => Live::NotHere(None),
            None => brought_by(key).map_or(Live::Missing, Live::NotYet),
        })
    }

    fn live_verdict(&self, key: &str, value: &str, seen: &Answers) -> Result<Verdict, Unanswered> {
        Ok(match self.live(key, value, seen)? {
            Live::Right | Live::NotHere(_) | Live::LeftOut => Verdict::Converged,
            Live::Set(live) => Verdict::Differs(Change::new(
                vec![Difference::value(format!("live {key}"), Some(&live.value), Some(&folded(value)))],
                set(key, &folded(value)),
            )),
            Live::ReadOnly => Verdict::Refused(format!("the kernel lets nobody change {key}; remove it")),
            Live::NotYet(what) => Verdict::Unknown(format!("{key} is not there yet: {what}")),
            Live::Missing => Verdict::Refused(format!(
                "the kernel has no setting {key}; correct the name, or set optional = true to leave it out here"
            )),
        })
    }
}

fn folded(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn own(key: &str) -> bool {
    NAMESPACED.iter().any(|prefix| key.starts_with(prefix))
}

/// What will bring a setting that is not there, and how to have it sooner.
fn brought_by(key: &str) -> Option<String> {
    let parts: Vec<&str> = key.split('.').collect();
    match parts.as_slice() {
        ["net", "ipv4" | "ipv6", "conf" | "neigh", interface, _] => Some(format!(
            "there is no network interface {} (or no such setting)",
            interface.replace('/', ".")
        )),
        _ => MODULES.iter().find(|(prefix, _)| key.starts_with(prefix)).map(|(_, module)| {
            format!("load the module {module} first, with `kernel_module` and name = \"{module}\"")
        }),
    }
}

/// procps need not be there: the shell writes the value itself, in one write as the kernel wants it.
fn set(key: &str, value: &str) -> String {
    format!(
        "printf '%s\\n' {} >{} || {{ printf '%s\\n' {} >&2; exit 1; }}\n",
        quote(value),
        quote(&format!("/proc/sys/{}", sysctl_path(key))),
        quote(&format!("{key}: the kernel did not take {value}")),
    )
}

impl Resource for Sysctl {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn questions(&self) -> Vec<Question> {
        let live = self.values.keys().map(|key| Question::Sysctl(key.clone()));
        self.file().questions().into_iter().chain(live).collect()
    }

    fn reach(&self) -> Reach {
        Reach::Below
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        let mut parts = vec![self.file().diff_in_new_folder(seen)?];
        for (key, value) in &self.values {
            parts.push(self.live_verdict(key, value, seen)?);
        }
        Ok(Verdict::all(parts))
    }

    fn notes(&self, seen: &Answers) -> Vec<String> {
        let not_here: Vec<String> = self
            .values
            .iter()
            .filter_map(|(key, value)| match self.live(key, value, seen) {
                Ok(Live::NotHere(Some(live))) => Some(format!("{key} ({}, not {value})", live.value)),
                Ok(Live::NotHere(None)) => Some(format!("{key} (not visible)")),
                _ => None,
            })
            .collect();
        match not_here.is_empty() {
            true => Vec::new(),
            false => vec![format!("live values a container cannot set: {}", not_here.join(", "))],
        }
    }

    fn check(&self) -> Result<(), String> {
        check_path(&self.path())?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if self.name.is_empty() || !self.name.chars().all(plain) {
            return Err(format!("name {:?} must be letters, digits, `_`, `-` and `.`", self.name));
        }
        if Path::new(&self.path()).extension().is_none_or(|e| e != "conf") {
            return Err("path must end with .conf, or nothing reads the file at boot".into());
        }
        if self.values.is_empty() {
            return Err("`values` must hold at least one setting".into());
        }
        self.values.iter().try_for_each(|(key, value)| check_setting(key, value))
    }
}

fn check_setting(key: &str, value: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@".contains(c);
    let parts = || key.split('.');
    // `/` stands for a dot: a part of dots alone would climb out of /proc/sys.
    let climbs = parts().any(|part| part.chars().all(|c| c == '/'));
    if !key.chars().all(plain)
        || parts().count() < 2
        || parts().next().is_some_and(|p| p.contains('/'))
        || climbs
    {
        return Err(format!(
            "`values` holds {key:?}, which is not a setting's whole name in dotted form, as \"vm.swappiness\""
        ));
    }
    if value.contains(['\n', '\0']) {
        return Err(format!("the value of {key} must be one line"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Answer, Facts};
    use crate::resource::testing::{TextFile, build, look_at_files, mistake, run_as_me};

    const KEY: &str = "fs.inotify.max_user_instances";

    fn value(live: &str) -> Option<Seen> {
        Some(Seen { value: live.into(), writable: true })
    }

    fn read_only(live: &str) -> Option<Seen> {
        Some(Seen { value: live.into(), writable: false })
    }

    /// The file is as it should be; only the live value is in question.
    fn seen(resource: &dyn Resource, key: &str, live: Option<Seen>, container: bool) -> Answers {
        let file = File::text("/etc/sysctl.d/90-x.conf", "");
        let mut answers = Answers::new(Facts { container, ..Facts::default() })
            .with(Question::Sysctl(key.into()), Answer::Sysctl(live));
        for question in resource.questions() {
            let answer = match &question {
                Question::Stat(_) => {
                    Answer::Stat(Some(crate::resource::testing::stat(crate::probe::FileType::File, 0o644)))
                }
                Question::Content { .. } => Answer::Content(crate::probe::Content::Same),
                _ => continue,
            };
            answers.insert(question, answer);
        }
        assert_eq!(resource.questions()[0], file.questions()[0]);
        answers
    }

    #[test]
    fn live_values_as_data() {
        let bridge = "net.bridge.bridge-nf-call-iptables";
        // key, live value, in a container, extra field; difference, or a part of the reason; a part of the note
        type Case<'a> = (&'a str, Option<Seen>, bool, &'a str, Result<Option<&'a str>, &'a str>, &'a str);
        let cases: Vec<Case> = vec![
            (KEY, value("1024"), false, "", Ok(None), ""),
            (KEY, value("128"), false, "", Ok(Some("128")), ""),
            (KEY, read_only("128"), false, "", Err("lets nobody change"), ""),
            (KEY, None, false, "", Err("no setting fs.inotify"), ""),
            (KEY, None, false, "optional = true", Ok(None), ""),
            (KEY, read_only("1024"), true, "", Ok(None), ""),
            (KEY, read_only("128"), true, "", Ok(None), "fs.inotify.max_user_instances (128, not 1024)"),
            // A container that could write its host's settings does not.
            ("vm.swappiness", value("60"), true, "", Ok(None), "vm.swappiness (60, not 1024)"),
            ("vm.swappiness", None, true, "", Ok(None), "vm.swappiness (not visible)"),
            ("net.core.somaxconn", value("128"), true, "", Ok(Some("128")), ""),
            ("net.core.somaxconn", read_only("128"), true, "", Ok(None), "(128, not 1024)"),
            (bridge, None, false, "", Err("load the module br_netfilter"), ""),
            ("net.ipv4.conf.eth0/100.forwarding", None, false, "", Err("interface eth0.100"), ""),
        ];
        for (key, live, container, more, wanted, note) in cases {
            let label = format!("{key} {live:?} {container} {more}");
            let resource = build("sysctl", &format!("name = 'x'\n{more}\n[values]\n'{key}' = 1024"));
            let seen = seen(&*resource, key, live, container);
            match (resource.diff(&seen).unwrap(), wanted) {
                (Verdict::Converged, Ok(None)) => {}
                (Verdict::Differs(change), Ok(Some(before))) => {
                    let live = Difference::value(format!("live {key}"), Some(before), Some("1024"));
                    assert_eq!(change.differences, [live], "{label}");
                    assert!(change.shell.contains("/proc/sys/"), "{label}");
                }
                (Verdict::Refused(why) | Verdict::Unknown(why), Err(part)) => {
                    assert!(why.contains(part), "{label}: {why}")
                }
                (verdict, _) => panic!("{label}: {verdict:?}"),
            }
            let notes = resource.notes(&seen);
            assert_eq!(notes.len(), usize::from(!note.is_empty()), "{label}: {notes:?}");
            assert!(notes.iter().all(|n| n.contains(note)), "{label}: {notes:?}");
        }
    }

    #[test]
    fn white_space_is_folded_on_both_sides() {
        let key = "net.ipv4.tcp_rmem";
        let resource = build("sysctl", &format!("name = 'x'\n[values]\n'{key}' = '4096  131072 6291456'"));
        let seen = seen(&*resource, key, value("4096 131072 6291456"), false);
        assert_eq!(resource.diff(&seen).unwrap(), Verdict::Converged);
    }

    #[test]
    fn the_file_holds_all_values_in_key_order() {
        let fields = "name = 'x'\noptional = true\n[values]\n'vm.swappiness' = '10'\n'fs.file-max' = 9";
        let resource: Sysctl = toml::from_str(fields).unwrap();
        assert_eq!(resource.file().content.unwrap(), "-fs.file-max = 9\n-vm.swappiness = 10\n");
        assert_eq!(resource.path(), "/etc/sysctl.d/90-x.conf");
    }

    #[test]
    fn the_shell_makes_the_folder_and_the_file_and_sets_the_value() {
        let place = TextFile::missing();
        let proc = place.folder().join("proc");
        std::fs::create_dir_all(proc.join("fs/inotify")).unwrap();
        let conf = place.folder().join("new.d/90-x.conf");
        let fields = format!("name = 'x'\npath = '{}'\n[values]\n'{KEY}' = 1024", conf.display());
        let resource = build("sysctl", &fields);
        let answers =
            Answers::new(Facts::default()).with(Question::Sysctl(KEY.into()), Answer::Sysctl(value("128")));
        let answers = look_at_files(&resource.questions(), answers);
        let Verdict::Differs(change) = resource.diff(&answers).unwrap() else { panic!("differs") };
        assert_eq!(change.differences.len(), 2);
        let script = change.shell.replace("/proc/sys", proc.to_str().unwrap());
        run_as_me(&script).unwrap();
        run_as_me(&script).expect("twice is harmless");
        assert_eq!(std::fs::read_to_string(proc.join("fs/inotify/max_user_instances")).unwrap(), "1024\n");
        assert_eq!(std::fs::read_to_string(&conf).unwrap(), format!("{KEY} = 1024\n"));

        std::fs::remove_dir_all(&proc).unwrap();
        assert!(run_as_me(&script).unwrap_err().contains("the kernel did not take 1024"));
    }

    #[test]
    fn mistakes_are_found_offline() {
        let cases = [
            ("name = 'x'\nvalues = {}", "at least one setting"),
            ("name = 'a b'\nvalues = { 'vm.swappiness' = 1 }", "name \"a b\""),
            ("name = 'x'\nvalues = { swappiness = 1 }", "not a setting's whole name"),
            ("name = 'x'\nvalues = { 'vm/swappiness' = 1 }", "not a setting's whole name"),
            ("name = 'x'\nvalues = { 'net.ipv4.conf.*.rp_filter' = 1 }", "not a setting's whole name"),
            ("name = 'x'\nvalues = { 'net.//.x' = 1 }", "not a setting's whole name"),
            ("name = 'x'\nvalues = { 'vm.swappiness' = true }", "a whole number or a string"),
            ("name = 'x'\nvalues = { 'vm.swappiness' = \"1\\n2\" }", "one line"),
            ("name = 'x'\npath = '/etc/sysctl.d/x'\nvalues = { 'vm.swappiness' = 1 }", "must end with .conf"),
        ];
        for (fields, wanted) in cases {
            let error = mistake("sysctl", fields);
            assert!(error.contains(wanted), "{fields}: {error}");
        }
    }
}
