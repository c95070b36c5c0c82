//! `package`: Debian packages, any number in one apt call.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;

use super::edit::State;
use super::{Change, Difference, Resource, Verdict};
use crate::probe::{Answers, Question, Unanswered};
use crate::shell::{quote, quote_all};

/// Packages that must, or must not, be installed. Those that are already right are not touched, not even upgraded.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Names as in the archive, without an architecture.
    pub names: Vec<String>,
    /// `present` (default) or `absent`.
    #[serde(default)]
    pub state: State,
    /// The version to have, up or down; only with one name. A `*` at its end stands for any rest: `8.14.*`.
    #[serde(default)]
    pub version: Option<String>,
    /// Whether upgrades are held back. Left as it is if not given.
    #[serde(default)]
    pub hold: Option<bool>,
    /// Also install what the packages recommend. Default: false.
    #[serde(default)]
    pub recommends: bool,
    /// With `state = "absent"`: remove configuration files too. Default: false.
    #[serde(default)]
    pub purge: bool,
    /// Seconds to wait for another program that holds apt's or dpkg's lock, for each kind of lock. Default: 300.
    #[serde(default = "lock_seconds")]
    pub lock_timeout_seconds: u64,
}

fn lock_seconds() -> u64 {
    LOCK_SECONDS
}

/// For each kind of lock, where nothing else is said.
const LOCK_SECONDS: u64 = 300;

/// Defines `apt` (apt-get that asks nothing, keeps changed configuration files, waits for locks), `repair` (finishes
/// what an interrupted dpkg left), and what they need. Each kind of lock is waited for as long as `patience` says (s).
///
/// `DPkg::Lock::Timeout` does not cover the locks on lists and archives, nor dpkg itself; hence the loops.
/// needrestart only lists: a restart is an event that a handler decides on.
pub(super) const APT: &str = r#"export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l APT_LISTCHANGES_FRONTEND=none LC_ALL=C
patience=300
messages=$(mktemp) || exit 1
trap 'rm -f -- "$messages"' EXIT
trap 'exit 1' HUP INT TERM
waiting() {
    tries=0
    while :; do
        "$@" </dev/null 2>"$messages"
        status=$?
        cat -- "$messages" >&2
        [ "$status" -ne 0 ] && grep -q "$held" "$messages" && [ "$((tries * 5))" -lt "$patience" ] || return "$status"
        tries=$((tries + 1))
        sleep 5
    done
}
apt() {
    held='Could not get lock /var/\(lib/apt/lists\|cache/apt/archives\)'
    waiting apt-get -q -y -o DPkg::Lock::Timeout="$patience" -o Dpkg::Options::=--force-confold "$@"
}
interrupted() {
    for update in /var/lib/dpkg/updates/[0-9]*; do
        [ ! -e "$update" ] || return 0
    done
    [ -n "$(dpkg --audit)" ]
}
repair() {
    interrupted || return 0
    held='locked by another process'
    waiting dpkg --force-confold --configure -a
    interrupted || return 0
    apt --fix-broken --no-remove install
}
"#;

/// `refresh`: brings the package lists up to date unless they are younger than an hour and than every source.
const REFRESH: &str = r#"refreshed=
refresh() {
    refreshed=yes
    apt update && touch /var/lib/apt/lists
}
fresh() {
    [ -n "$(find /var/lib/apt/lists -maxdepth 0 -mmin -60)" ] &&
        [ -n "$(find /var/lib/apt/lists -maxdepth 1 -name '*Release' | head -n 1)" ] &&
        [ -z "$(find /etc/apt/sources.list /etc/apt/sources.list.d -newer /var/lib/apt/lists 2>/dev/null)" ]
}
"#;

/// Time an apt step may take.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// A long step that runs `commands` after [`APT`], in a subshell so that its trap ends with it.
pub(super) fn apt_step(differences: Vec<Difference>, commands: &str) -> Change {
    Change::new(differences, format!("(\n{APT}{commands}) || exit 1\n")).long(PATIENCE)
}

impl Package {
    fn wanted_version(&self, have: &str) -> bool {
        match self.version.as_deref() {
            None => true,
            Some(wanted) => match wanted.strip_suffix('*') {
                Some(start) => have.starts_with(start),
                None => have == wanted,
            },
        }
    }

    fn install(&self, names: &[&str]) -> String {
        let mut options =
            vec![if self.recommends { "--install-recommends" } else { "--no-install-recommends" }];
        let words = match &self.version {
            Some(version) => {
                options.extend(["--allow-downgrades", "--allow-change-held-packages"]);
                names.iter().map(|name| format!("{name}={version}")).collect()
            }
            None => names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(),
        };
        format!(
            "{REFRESH}\
             install() {{ apt install {} -- {}; }}\n\
             fresh || refresh\n\
             install || {{ [ -z \"$refreshed\" ] && ! grep -q 'dpkg frontend lock\\|get lock /var/' \"$messages\" && refresh && install; }} || exit 1\n",
            options.join(" "),
            quote_all(words),
        )
    }

    /// The differences, and the shell after [`APT`] that mends them.
    fn compare(&self, seen: &Answers) -> Result<(Vec<Difference>, String), Unanswered> {
        let mut differences = Vec::new();
        let (mut change, mut mark) = (Vec::new(), Vec::new());
        for name in self.names.iter().collect::<indexmap::IndexSet<_>>() {
            let package = seen.package(name)?;
            let state = match package {
                p if p.broken => Some("broken"),
                p if p.installed => Some("installed"),
                p if p.config_files => Some("configuration files"),
                _ => None,
            };
            let mut differs = |before: Option<&str>, after: Option<&str>| {
                differences.push(Difference::value(name, before, after));
                change.push(name.as_str());
            };
            match self.state {
                State::Absent if package.installed || package.broken => differs(state, None),
                State::Absent if self.purge && package.config_files => differs(state, None),
                State::Absent => {}
                State::Present if package.broken || !package.installed => {
                    let after = self.version.as_ref().map(|v| format!("installed {v}"));
                    // Left-over configuration files are nothing that installing replaces.
                    let before = state.filter(|_| package.broken);
                    differs(before, Some(after.as_deref().unwrap_or("installed")));
                }
                State::Present if !self.wanted_version(&package.version) => {
                    differs(Some(&package.version), self.version.as_deref());
                }
                State::Present => {}
            }
            if let Some(hold) = self.hold.filter(|hold| *hold != package.held) {
                let word = |held| Some(if held { "held" } else { "not held" });
                differences.push(Difference::value(
                    format!("{name} upgrades"),
                    word(package.held),
                    word(hold),
                ));
                mark.push(name.as_str());
            }
        }
        let mut shell = String::new();
        if self.lock_timeout_seconds != LOCK_SECONDS {
            shell.push_str(&format!("patience={}\n", self.lock_timeout_seconds));
        }
        if !change.is_empty() {
            shell.push_str("repair || exit 1\n");
            shell.push_str(&match (self.state, self.purge) {
                (State::Present, _) => self.install(&change),
                (State::Absent, false) => format!("apt remove -- {} || exit 1\n", quote_all(&change)),
                (State::Absent, true) => format!("apt purge -- {} || exit 1\n", quote_all(&change)),
            });
        }
        if !mark.is_empty() {
            let verb = if self.hold == Some(true) { "hold" } else { "unhold" };
            shell.push_str(&format!("apt-mark {verb} -- {} || exit 1\n", quote_all(&mark)));
        }
        Ok((differences, shell))
    }
}

impl Resource for Package {
    fn name(&self) -> String {
        self.names.join(" ")
    }

    fn questions(&self) -> Vec<Question> {
        let names: BTreeSet<&String> = self.names.iter().collect();
        names.into_iter().map(|name| Question::Package(name.clone())).collect()
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        let (differences, shell) = self.compare(seen)?;
        Ok(match differences.is_empty() {
            true => Verdict::Converged,
            false => Verdict::Differs(apt_step(differences, &shell)),
        })
    }

    fn check(&self) -> Result<(), String> {
        if self.names.is_empty() {
            return Err("`names` must hold at least one package".into());
        }
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+.-".contains(c);
        for name in &self.names {
            let first = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
            // apt takes a name with a dash at its end for one to remove.
            if !first || !name.chars().all(plain) || name.ends_with('-') {
                return Err(format!("`names` holds {}, which is not a package's name", quote(name)));
            }
        }
        let version_fits = |v: &String| {
            !v.is_empty() && v.chars().all(|c| c.is_ascii_alphanumeric() || ".+~:-*".contains(c))
        };
        if self.lock_timeout_seconds > PATIENCE.as_secs() / 3 {
            return Err(format!("`lock_timeout_seconds` must be at most {}", PATIENCE.as_secs() / 3));
        }
        match (&self.version, self.state) {
            (Some(_), _) if self.names.len() != 1 => {
                Err("`version` needs exactly one name in `names`".into())
            }
            (Some(version), _) if !version_fits(version) => {
                Err(format!("`version` {version:?} is not a version"))
            }
            (Some(_), State::Absent) => Err("`version` makes no sense with state = \"absent\"".into()),
            (None, State::Absent) if self.hold.is_some() => {
                Err("`hold` makes no sense with state = \"absent\"".into())
            }
            (_, State::Present) if self.purge => Err("`purge` needs state = \"absent\"".into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Answer, Facts, Package as Seen};
    use crate::resource::testing::{build, mistake, run};

    fn diff(fields: &str, seen: &[(&str, Seen)]) -> Verdict {
        let mut answers = Answers::new(Facts::default());
        for (name, package) in seen {
            answers.insert(Question::Package((*name).into()), Answer::Package(package.clone()));
        }
        build("package", fields).diff(&answers).unwrap()
    }

    fn installed(version: &str) -> Seen {
        Seen { installed: true, version: version.into(), ..Seen::default() }
    }

    #[test]
    fn diffs_as_data() {
        let value = |name: &str, before, after| Difference::value(name, before, after);
        let gone = Seen::default;
        let broken = || Seen { broken: true, version: "1".into(), ..gone() };
        let left = || Seen { config_files: true, ..gone() };
        let held = || Seen { held: true, ..installed("1.2-3") };
        // fields, what is seen of `curl`, differences, a part of the shell
        let cases = [
            ("", installed("1"), vec![], ""),
            (
                "",
                gone(),
                vec![value("curl", None, Some("installed"))],
                "apt install --no-install-recommends -- curl;",
            ),
            ("", left(), vec![value("curl", None, Some("installed"))], "apt install"),
            ("", broken(), vec![value("curl", Some("broken"), Some("installed"))], "repair || exit 1"),
            (
                "recommends = true",
                gone(),
                vec![value("curl", None, Some("installed"))],
                "--install-recommends --",
            ),
            ("version = '1.2-3'", installed("1.2-3"), vec![], ""),
            ("version = '1.2*'", installed("1.2-3"), vec![], ""),
            (
                "version = '1.1-1'",
                installed("1.2-3"),
                vec![value("curl", Some("1.2-3"), Some("1.1-1"))],
                "-- curl=1.1-1;",
            ),
            ("hold = true", held(), vec![], ""),
            (
                "hold = false",
                held(),
                vec![value("curl upgrades", Some("held"), Some("not held"))],
                "apt-mark unhold -- curl",
            ),
            ("state = 'absent'", gone(), vec![], ""),
            ("state = 'absent'", left(), vec![], ""),
            (
                "state = 'absent'",
                installed("1"),
                vec![value("curl", Some("installed"), None)],
                "apt remove -- curl",
            ),
            (
                "state = 'absent'\npurge = true",
                left(),
                vec![value("curl", Some("configuration files"), None)],
                "apt purge -- curl",
            ),
        ];
        for (fields, seen, differences, part) in cases {
            match diff(&format!("names = ['curl']\n{fields}"), &[("curl", seen)]) {
                Verdict::Converged => assert!(differences.is_empty(), "{fields}"),
                Verdict::Differs(change) => {
                    assert_eq!(change.differences, differences, "{fields}");
                    assert!(change.shell.contains(part), "{fields}: {}", change.shell);
                    assert!(change.long);
                }
                other => panic!("{fields}: {other:?}"),
            }
        }
    }

    #[test]
    fn only_what_is_missing_is_installed_all_of_it_at_once() {
        let seen = [("a1", Seen::default()), ("b1", installed("1")), ("c1", Seen::default())];
        let Verdict::Differs(change) = diff("names = ['c1', 'b1', 'a1', 'c1']", &seen) else {
            panic!("differs")
        };
        assert_eq!(change.differences.len(), 2);
        assert!(change.shell.contains("-- c1 a1;"), "{}", change.shell);
    }

    /// Stand-ins for apt-get and dpkg that write down how they were called.
    fn rehearse(fields: &str, stand_ins: &str) -> (Result<(), String>, String) {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let Verdict::Differs(change) = diff(fields, &[("curl", Seen::default())]) else { panic!("differs") };
        let log_word = quote(log.to_str().unwrap());
        let script = format!(
            "log={log_word}\ndpkg() {{ :; }}\nsleep() {{ :; }}\ntouch() {{ :; }}\nfind() {{ echo found; }}\n{stand_ins}\n{}",
            change.shell
        );
        // dash allows no hyphen in a function's name.
        let script = script.replace("apt-get", "apt_get");
        (run(&script), std::fs::read_to_string(log).unwrap_or_default())
    }

    #[test]
    fn the_shell_refreshes_installs_and_tells_of_failure() {
        let ok = "apt-get() { echo \"$@\" >>\"$log\"; }";
        let (result, log) = rehearse("names = ['curl']", ok);
        result.unwrap();
        let verbs: Vec<&str> = log.lines().filter_map(|l| l.split("--force-confold ").nth(1)).collect();
        assert_eq!(verbs, ["update", "install --no-install-recommends -- curl"]);

        let bad = "apt-get() { echo \"$@\" >>\"$log\"; echo 'E: Unable to locate package' >&2; return 100; }";
        let (result, log) = rehearse("names = ['curl']", bad);
        assert!(result.unwrap_err().contains("Unable to locate"));
        assert_eq!(log.lines().count(), 2, "no second refresh: {log}");
    }

    #[test]
    fn the_shell_waits_for_a_lock_on_the_lists_and_repairs_first() {
        let locked = "apt-get() { echo \"$@\" >>\"$log\"; [ \"$(wc -l <\"$log\")\" -ge 3 ] || \
            { echo 'E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7' >&2; return 100; }; }";
        let (result, log) = rehearse("names = ['curl']", locked);
        result.unwrap();
        assert_eq!(log.lines().filter(|l| l.ends_with(" update")).count(), 3, "{log}");

        let interrupted = "apt-get() { echo apt \"$@\" >>\"$log\"; }\n\
            dpkg() { [ \"$*\" = --audit ] || { echo dpkg \"$@\" >>\"$log\"; return; }; [ -s \"$log\" ] || echo half; }";
        let (result, log) = rehearse("names = ['curl']", interrupted);
        result.unwrap();
        assert!(log.starts_with("dpkg --force-confold --configure -a\napt "), "{log}");
    }

    #[test]
    fn mistakes_are_found_offline() {
        let cases = [
            ("names = []", "at least one"),
            ("names = ['Curl']", "not a package's name"),
            ("names = ['curl-']", "not a package's name"),
            ("names = ['-y']", "not a package's name"),
            ("names = ['a1', 'b1']\nversion = '1'", "exactly one name"),
            ("names = ['a1']\nstate = 'absent'\nhold = true", "`hold`"),
            ("names = ['a1']\npurge = true", "`purge`"),
            ("names = ['a1']\nstate = 'latest'", "state"),
            ("names = ['a1']\nlock_timeout_seconds = 601", "at most 600"),
        ];
        for (fields, wanted) in cases {
            let error = mistake("package", fields);
            assert!(error.contains(wanted), "{fields}: {error}");
        }
    }
}
