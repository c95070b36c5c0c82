//! `hostname`: the machine's own name.

use serde::Deserialize;

use super::edit;
use super::{Change, Difference, Resource, Verdict};
use crate::probe::{Answers, Question, Unanswered};
use crate::shell::quote;

const PATH: &str = "/etc/hostname";

/// The machine's name, in /etc/hostname and live; hostnamectl is not needed. The name's line in /etc/hosts is
/// `hosts_entry`'s affair. Programs that read the name when they start keep the old one until they are restarted.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hostname {
    /// At most 64 characters: letters, digits and `-`, in parts joined by dots. Debian's advice is the short name,
    /// without a domain; Kubernetes wants lower case.
    pub name: String,
}

impl Hostname {
    /// A file that already means this name stays as it is, whatever its comments.
    fn edit(&self, text: &str) -> String {
        let mut names = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        match (names.next(), names.next()) {
            (Some(name), None) if name == self.name => text.to_owned(),
            _ => format!("{}\n", self.name),
        }
    }
}

impl Resource for Hostname {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn questions(&self) -> Vec<Question> {
        edit::questions(PATH).into_iter().chain([Question::Hostname]).collect()
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        let file = edit::diff(PATH, true, seen, |text| Ok(self.edit(text)))?;
        let live = match seen.hostname()? {
            live if *live == self.name => Verdict::Converged,
            live => Verdict::Differs(Change::new(
                vec![Difference::value("live name", Some(live), Some(&self.name))],
                format!("hostname {} || exit 1\n", quote(&self.name)),
            )),
        };
        Ok(Verdict::all([file, live]))
    }

    fn notes(&self, seen: &Answers) -> Vec<String> {
        let differs = seen.hostname().is_ok_and(|live| *live != self.name);
        match seen.facts.wsl && differs {
            true => vec![
                "WSL writes /etc/hostname anew at every start: set `hostname` under [network] in /etc/wsl.conf too"
                    .into(),
            ],
            false => Vec::new(),
        }
    }

    fn check(&self) -> Result<(), String> {
        let label = |part: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
            !part.is_empty()
                && part.len() <= 63
                && part.chars().all(plain)
                && !part.starts_with('-')
                && !part.ends_with('-')
        };
        if self.name.len() > 64 || !self.name.split('.').all(label) {
            return Err(format!(
                "name {:?} is not a host name: letters, digits and `-` within, at most 64 characters",
                self.name
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Answer, Content, Facts};
    use crate::resource::testing::{TextFile, build, mistake, run_as_me, seen_text};

    fn seen(file: &str, live: &str) -> Answers {
        seen_text(PATH, Content::Differs(file.as_bytes().to_vec()), 0o644)
            .with(Question::Hostname, Answer::Hostname(live.into()))
    }

    #[test]
    fn diffs_as_data() {
        let hostname = build("hostname", "name = 'orpi-1'");
        // file, live name; the attributes that differ
        let cases: [(&str, &str, &[&str]); 6] = [
            ("orpi-1\n", "orpi-1", &[]),
            ("# set by hand\norpi-1", "orpi-1", &[]),
            ("orpi-1\n", "localhost", &["live name"]),
            ("localhost\n", "orpi-1", &[PATH]),
            ("orpi-1\norpi-2\n", "orpi-1", &[PATH]),
            ("", "localhost", &[PATH, "live name"]),
        ];
        for (file, live, wanted) in cases {
            let differences = match hostname.diff(&seen(file, live)).unwrap() {
                Verdict::Converged => Vec::new(),
                Verdict::Differs(change) => change.differences,
                other => panic!("{file:?}: {other:?}"),
            };
            let attributes: Vec<&str> = differences
                .iter()
                .map(|difference| match difference {
                    Difference::Value { attribute, .. } => attribute.as_str(),
                    Difference::Text { path, .. } => path.as_str(),
                    Difference::Secret { .. } => panic!("no secret"),
                })
                .collect();
            assert_eq!(attributes, wanted, "{file:?} {live}");
        }
    }

    #[test]
    fn wsl_is_told_of_its_own_file() {
        let hostname = build("hostname", "name = 'laptop'");
        let mut seen = seen("WINDOWS\n", "WINDOWS");
        assert!(hostname.notes(&seen).is_empty());
        seen.facts = Facts { wsl: true, ..Facts::default() };
        assert!(hostname.notes(&seen)[0].contains("/etc/wsl.conf"));
    }

    #[test]
    fn the_shell_writes_the_file_and_sets_the_name() {
        let place = TextFile::with("old\n", 0o644);
        let Verdict::Differs(change) = build("hostname", "name = 'new'").diff(&seen("old\n", "old")).unwrap()
        else {
            panic!("differs")
        };
        let log = place.folder().join("log");
        let script = format!(
            "hostname() {{ printf '%s\\n' \"$*\" >>{}; }}\n{}",
            log.display(),
            change.shell.replace(
                "path=/etc/hostname folder=/etc",
                &format!("path={} folder={}", place.path(), place.folder().display())
            )
        );
        run_as_me(&script).unwrap();
        run_as_me(&script).expect("twice is harmless");
        assert_eq!(
            (place.read().as_str(), std::fs::read_to_string(log).unwrap().as_str()),
            ("new\n", "new\nnew\n")
        );
    }

    #[test]
    fn mistakes_are_found_offline() {
        let long = "a".repeat(64);
        for name in ["", "-a", "a-", "a b", "a_b", "a..b", "ä", "$(reboot)", long.as_str()] {
            let error = mistake("hostname", &format!("name = '{name}'"));
            assert!(error.contains("is not a host name"), "{name}: {error}");
        }
    }
}
