//! `kernel_module`: a kernel module, at boot and now.

use serde::Deserialize;

use super::absent::Absent;
use super::edit::State;
use super::file::File;
use super::{Change, Difference, Resource, Verdict};
use crate::probe::{Answers, Content, Module, Question, Unanswered};
use crate::shell::quote;

/// A kernel module that is loaded now and at every boot, or kept from being loaded.
///
/// A module that is built into the kernel counts as loaded. A container, and a WSL whose kernel has no modules,
/// cannot load one: there the files are written and a note says that the module is not loaded. A module that
/// /lib/modules does not hold (yet) is unknown.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelModule {
    /// The module's own name, no alias; `-` and `_` are the same: `br_netfilter`.
    pub name: String,
    /// `present` (default): loaded now, and at boot by /etc/modules-load.d/datahub-NAME.conf. `absent`: unloaded
    /// now (an error while it is in use) and blacklisted in /etc/modprobe.d/datahub-NAME.conf, so that only an
    /// explicit modprobe loads it. What the initramfs loads needs `update-initramfs -u` as well, by a handler.
    #[serde(default)]
    pub state: State,
    /// Options, as `key=value` words, kept in /etc/modprobe.d/datahub-NAME.conf. They take effect when the module is
    /// loaded the next time: a loaded one is not reloaded, and a note says which differ. Those of a module that is
    /// built in belong on the kernel's command line as `NAME.key=value`.
    #[serde(default)]
    pub options: Option<String>,
}

impl KernelModule {
    fn load_path(&self) -> String {
        format!("/etc/modules-load.d/datahub-{}.conf", self.name)
    }

    fn modprobe_path(&self) -> String {
        format!("/etc/modprobe.d/datahub-{}.conf", self.name)
    }

    /// The file at `path` with its content, or `None` if nothing may stand there.
    fn files(&self) -> [(String, Option<String>); 2] {
        let (load, modprobe) = match (self.state, &self.options) {
            (State::Present, None) => (Some(format!("{}\n", self.name)), None),
            (State::Present, Some(options)) => {
                (Some(format!("{}\n", self.name)), Some(format!("options {} {options}\n", self.name)))
            }
            (State::Absent, _) => (None, Some(format!("blacklist {}\n", self.name))),
        };
        // Options first: they must be there when the module is loaded.
        [(self.modprobe_path(), modprobe), (self.load_path(), load)]
    }

    /// `key`, `value` and the question for the live value, which sysfs shows for most parameters.
    fn parameters(&self) -> impl Iterator<Item = (&str, &str, String)> {
        let folder = format!("/sys/module/{}/parameters", self.name.replace('-', "_"));
        self.options.as_deref().unwrap_or_default().split_whitespace().filter_map(move |word| {
            let (key, value) = word.split_once('=')?;
            Some((key, value, format!("{folder}/{key}")))
        })
    }

    fn live(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        let (name, module) = (&self.name, *seen.module(&self.name)?);
        let facts = &seen.facts;
        Ok(match (self.state, module) {
            (State::Present, Module::BuiltIn | Module::Loaded) => Verdict::Converged,
            (State::Absent, Module::Available | Module::Missing | Module::NoModules) => Verdict::Converged,
            _ if facts.container || (facts.wsl && module == Module::NoModules) => Verdict::Converged,
            (State::Present, Module::Available) => Verdict::Differs(Change::new(
                vec![Difference::value("module", None, Some("loaded"))],
                modprobe("", name),
            )),
            (State::Present, Module::Missing) => Verdict::Unknown(format!(
                "kernel {} has no module {name}; correct the name, or install the package that brings it first",
                facts.kernel
            )),
            (State::Present, Module::NoModules) => Verdict::Refused(format!(
                "the running kernel {} has no modules in /lib/modules any more; reboot into the installed one",
                facts.kernel
            )),
            (State::Absent, Module::Loaded) => Verdict::Differs(Change::new(
                vec![Difference::value("module", Some("loaded"), None)],
                modprobe("-r ", name),
            )),
            (State::Absent, Module::BuiltIn) => {
                Verdict::Refused(format!("{name} is built into the kernel and cannot be unloaded"))
            }
        })
    }
}

/// One of the two files is not to be there.
fn removed(path: String, seen: &Answers) -> Result<Verdict, Unanswered> {
    let difference = Difference::value(path.as_str(), Some("file"), None);
    Ok(match (Absent { path, recursive: false }).diff(seen)? {
        Verdict::Differs(change) => Verdict::Differs(Change { differences: vec![difference], ..change }),
        other => other,
    })
}

fn modprobe(option: &str, name: &str) -> String {
    format!(
        "command -v modprobe >/dev/null || {{ echo 'modprobe is missing: install the package kmod' >&2; exit 1; }}\n\
         modprobe {option}-- {} || exit 1\n",
        quote(name)
    )
}

/// Booleans read back as `Y` and `N`.
fn same(live: &str, wanted: &str) -> bool {
    let plain = |value: &str| match value.trim().trim_matches('"') {
        "Y" | "y" | "on" => "1".to_owned(),
        "N" | "n" | "off" => "0".to_owned(),
        other => other.to_owned(),
    };
    plain(live) == plain(wanted)
}

impl Resource for KernelModule {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn questions(&self) -> Vec<Question> {
        let mut questions = vec![Question::Module(self.name.clone())];
        for (path, content) in self.files() {
            questions.extend(match content {
                Some(content) => File::text(path, content).questions(),
                None => vec![Question::Stat(path)],
            });
        }
        questions
            .extend(self.parameters().map(|(_, _, path)| Question::Content { path, unless: String::new() }));
        questions
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        let mut parts = Vec::new();
        for (path, content) in self.files() {
            parts.push(match content {
                Some(content) => File::text(path, content).diff_in_new_folder(seen)?,
                None => removed(path, seen)?,
            });
        }
        parts.push(self.live(seen)?);
        Ok(Verdict::all(parts))
    }

    fn notes(&self, seen: &Answers) -> Vec<String> {
        let Ok(module) = seen.module(&self.name) else { return Vec::new() };
        if module.is_live() != (self.state == State::Present) {
            let facts = &seen.facts;
            let is = if module.is_live() { "loaded" } else { "not loaded" };
            return match (facts.container, facts.wsl && *module == Module::NoModules) {
                (true, _) => {
                    vec![format!("{} is {is}, and a container cannot change that: its host can", self.name)]
                }
                (_, true) => vec![format!("{} is not loaded: WSL's kernel has no modules here", self.name)],
                _ => Vec::new(),
            };
        }
        let differing: Vec<String> = self
            .parameters()
            .filter_map(|(key, wanted, path)| match seen.content(&path, "") {
                Ok(Content::Differs(live)) => {
                    let live = String::from_utf8_lossy(live).trim().to_owned();
                    (!same(&live, wanted)).then(|| format!("{key} is {live}, not {wanted}"))
                }
                _ => None,
            })
            .collect();
        match (differing.is_empty(), module) {
            (true, _) => Vec::new(),
            (_, Module::BuiltIn) => vec![format!(
                "built into the kernel, whose command line alone sets its options: {}",
                differing.join(", ")
            )],
            _ => vec![format!("loaded with other options until the next boot: {}", differing.join(", "))],
        }
    }

    fn check(&self) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        if !self.name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !self.name.chars().all(plain) {
            return Err(format!("name {:?} is not a module's name; give it without path and .ko", self.name));
        }
        match &self.options {
            Some(_) if self.state == State::Absent => {
                Err("`options` makes no sense with state = \"absent\"".into())
            }
            Some(options) if options.trim().is_empty() || options.contains(['\n', '\0']) => {
                Err("`options` must be one line of key=value words".into())
            }
            Some(options) => match options.split_whitespace().find(|word| {
                let key = word.split('=').next().unwrap_or_default();
                key.is_empty() || !key.chars().all(|c| plain(c) || c == '.')
            }) {
                Some(word) => Err(format!("`options` holds {word:?}, which is not key=value")),
                None => Ok(()),
            },
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Answer, Facts};
    use crate::resource::testing::{TextFile, build, look_at_files, mistake, run_as_me};

    fn facts(container: bool, wsl: bool) -> Facts {
        Facts { container, wsl, kernel: "6.12.0-1".into(), ..Facts::default() }
    }

    /// The live half alone; the files are those of the module.
    fn live(fields: &str, module: Module, facts: Facts) -> (Verdict, Vec<String>) {
        let resource: KernelModule = toml::from_str(&format!("name = 'br_netfilter'\n{fields}")).unwrap();
        let seen = Answers::new(facts).with(Question::Module("br_netfilter".into()), Answer::Module(module));
        (resource.live(&seen).unwrap(), resource.notes(&seen))
    }

    #[test]
    fn live_states_as_data() {
        use Module as M;
        let absent = "state = 'absent'";
        let (host, container, wsl) = (facts(false, false), facts(true, false), facts(false, true));
        // fields, seen, facts; the difference, or a part of the reason; a part of the note
        type Case<'a> = (&'a str, Module, &'a Facts, Result<&'a str, &'a str>, &'a str);
        let cases: Vec<Case> = vec![
            ("", M::Loaded, &host, Ok(""), ""),
            ("", M::BuiltIn, &host, Ok(""), ""),
            ("", M::Available, &host, Ok("modprobe -- br_netfilter"), ""),
            ("", M::Missing, &host, Err("kernel 6.12.0-1 has no module"), ""),
            ("", M::NoModules, &host, Err("reboot"), ""),
            ("", M::NoModules, &wsl, Ok(""), "WSL's kernel has no modules"),
            ("", M::Available, &wsl, Ok("modprobe -- br_netfilter"), ""),
            ("", M::NoModules, &container, Ok(""), "is not loaded, and a container"),
            ("", M::Available, &container, Ok(""), "is not loaded, and a container"),
            ("", M::Loaded, &container, Ok(""), ""),
            (absent, M::Available, &host, Ok(""), ""),
            (absent, M::Loaded, &host, Ok("modprobe -r -- br_netfilter"), ""),
            (absent, M::BuiltIn, &host, Err("is built into the kernel"), ""),
            (absent, M::Loaded, &container, Ok(""), "is loaded, and a container"),
        ];
        for (fields, module, facts, wanted, note) in cases {
            let label = format!("{fields} {module:?} {facts:?}");
            let (verdict, notes) = live(fields, module, facts.clone());
            match (verdict, wanted) {
                (Verdict::Converged, Ok(part)) => assert!(part.is_empty(), "{label}"),
                (Verdict::Differs(change), Ok(part)) => {
                    assert!(!part.is_empty() && change.shell.contains(part), "{label}: {}", change.shell);
                }
                (Verdict::Refused(why) | Verdict::Unknown(why), Err(part)) => {
                    assert!(why.contains(part), "{label}: {why}");
                }
                (verdict, _) => panic!("{label}: {verdict:?}"),
            }
            assert_eq!(notes.len(), usize::from(!note.is_empty()), "{label}: {notes:?}");
            assert!(notes.iter().all(|n| n.contains(note)), "{label}: {notes:?}");
        }
    }

    #[test]
    fn options_that_are_not_live_are_noted() {
        let resource: KernelModule =
            toml::from_str("name = 'zram'\noptions = 'num_devices=4 debug=1'").unwrap();
        let parameter = |key: &str, value: &str| {
            (
                Question::Content {
                    path: format!("/sys/module/zram/parameters/{key}"),
                    unless: String::new(),
                },
                Answer::Content(Content::Differs(value.as_bytes().to_vec())),
            )
        };
        for (module, devices, note) in [
            (Module::Loaded, "4\n", None),
            (Module::Loaded, "1\n", Some("until the next boot: num_devices is 1, not 4")),
            (Module::BuiltIn, "1\n", Some("command line alone sets its options: num_devices is 1, not 4")),
        ] {
            let mut seen = Answers::new(facts(false, false))
                .with(Question::Module("zram".into()), Answer::Module(module));
            for (question, answer) in [parameter("num_devices", devices), parameter("debug", "Y\n")] {
                assert!(resource.questions().contains(&question));
                seen.insert(question, answer);
            }
            let notes = resource.notes(&seen);
            assert_eq!(notes.len(), usize::from(note.is_some()));
            assert!(notes.iter().all(|n| note.is_some_and(|note| n.ends_with(note))), "{notes:?}");
        }
    }

    /// A root folder of its own for the files, and a modprobe that writes down how it was called.
    fn rehearse(place: &TextFile, fields: &str, module: Module) -> Vec<Difference> {
        let root = place.folder().to_str().unwrap();
        let resource = build("kernel_module", fields);
        // Seen in the folder, asked for under /etc.
        let asked = resource.questions();
        let moved: Vec<Question> = asked
            .iter()
            .map(|question| match question.clone() {
                Question::Stat(path) => Question::Stat(format!("{root}{path}")),
                Question::Content { path, unless } => {
                    Question::Content { path: format!("{root}{path}"), unless }
                }
                other => other,
            })
            .collect();
        let looked = look_at_files(&moved, Answers::default());
        let mut seen = Answers::new(facts(false, false));
        for (asked, moved) in asked.into_iter().zip(&moved) {
            let answer = match moved {
                Question::Stat(path) => Answer::Stat(looked.stat(path).unwrap().clone().map(|mut stat| {
                    (stat.owner, stat.group) = ("root".into(), "root".into());
                    stat
                })),
                Question::Content { path, unless } => {
                    Answer::Content(looked.content(path, unless).unwrap().clone())
                }
                _ => Answer::Module(module),
            };
            seen.insert(asked, answer);
        }
        match resource.diff(&seen).unwrap() {
            Verdict::Converged => Vec::new(),
            Verdict::Differs(change) => {
                let script = change.shell.replace("/etc/mod", &format!("{root}/etc/mod"));
                let script = format!("modprobe() {{ echo modprobe \"$@\" >>{}; }}\n{script}", place.path());
                run_as_me(&script).unwrap();
                run_as_me(&script).expect("twice is harmless");
                change.differences
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_files_follow_the_state() {
        let place = TextFile::missing();
        let read = |name: &str| std::fs::read_to_string(place.folder().join("etc").join(name)).ok();
        let (load, modprobe) = ("modules-load.d/datahub-nct6775.conf", "modprobe.d/datahub-nct6775.conf");
        let name = "name = 'nct6775'";
        let options = format!("{name}\noptions = 'force_id=0xd420'");

        assert_eq!(rehearse(&place, &options, Module::Available).len(), 3);
        assert_eq!(read(load).unwrap(), "nct6775\n");
        assert_eq!(read(modprobe).unwrap(), "options nct6775 force_id=0xd420\n");
        assert!(place.read().starts_with("modprobe -- nct6775\n"));
        assert_eq!(rehearse(&place, &options, Module::Loaded), []);

        let gone = Difference::value("/etc/modprobe.d/datahub-nct6775.conf", Some("file"), None);
        assert_eq!(rehearse(&place, name, Module::Loaded), [gone]);
        assert_eq!((read(load).is_some(), read(modprobe)), (true, None));

        let absent = format!("{name}\nstate = 'absent'");
        assert_eq!(rehearse(&place, &absent, Module::Loaded).len(), 3);
        assert_eq!((read(load), read(modprobe).unwrap().as_str()), (None, "blacklist nct6775\n"));
        assert!(place.read().contains("modprobe -r -- nct6775\n"));
    }

    #[test]
    fn mistakes_are_found_offline() {
        let cases = [
            ("name = 'br netfilter'", "not a module's name"),
            ("name = '../x'", "not a module's name"),
            ("name = 'x.ko'", "not a module's name"),
            ("name = 'x'\noptions = \"a=1\\ninstall x /bin/sh\"", "one line"),
            ("name = 'x'\noptions = '=1'", "not key=value"),
            ("name = 'x'\nstate = 'absent'\noptions = 'a=1'", "makes no sense"),
            ("name = 'x'\nstate = 'loaded'", "state"),
        ];
        for (fields, wanted) in cases {
            let error = mistake("kernel_module", fields);
            assert!(error.contains(wanted), "{fields}: {error}");
        }
    }
}
