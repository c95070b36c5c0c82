//! `hosts`: many addresses and their names in /etc/hosts, in one change.

use serde::Deserialize;

use super::edit::{self, State};
use super::hosts_entry::{Entry, HostsEntry, PATH};
use super::{Resource, Verdict};
use crate::probe::{Answers, Question, Unanswered};

/// Lines that /etc/hosts must have, each as `hosts_entry` would bring it about: a line that gives one of the names
/// another address is corrected, comments and all other names stay as they are.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hosts {
    /// As in hosts(5): an address and its names on each line. In a role, `template = "name"` fills it.
    pub content: String,
}

impl Hosts {
    fn entries(&self) -> Result<Vec<HostsEntry>, String> {
        let lines =
            self.content.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines
            .map(|line| {
                let entry =
                    Entry::parse(line).ok_or_else(|| format!("{line:?} does not begin with an address"))?;
                let names = entry.names.iter().map(|name| (*name).to_owned()).collect();
                let entry = HostsEntry { ip: entry.ip, names, state: State::Present };
                entry.check().map(|()| entry)
            })
            .collect()
    }
}

impl Resource for Hosts {
    fn name(&self) -> String {
        PATH.to_owned()
    }

    fn questions(&self) -> Vec<Question> {
        edit::questions(PATH)
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        edit::diff(PATH, true, seen, |text| {
            Ok(self.entries()?.iter().fold(text.to_owned(), |text, entry| entry.edit(&text)))
        })
    }

    fn check(&self) -> Result<(), String> {
        let entries = self.entries()?;
        let mut names = std::collections::BTreeMap::new();
        for (entry, name) in
            entries.iter().flat_map(|entry| entry.names.iter().map(move |name| (entry, name)))
        {
            let kind = (entry.ip.is_ipv4(), name.to_ascii_lowercase());
            if let Some(other) = names.insert(kind, entry.ip).filter(|other| *other != entry.ip) {
                return Err(format!("`{name}` has two addresses: {other} and {}", entry.ip));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Content;
    use crate::resource::Difference;
    use crate::resource::testing::{build, mistake, seen_text};

    #[test]
    fn all_lines_are_one_change() {
        let fields = "content = '''\n192.0.2.1 a.home.arpa a\n\n# more\n192.0.2.2 b\n'''";
        let hosts = build("hosts", fields);
        let cases = [
            ("192.0.2.1 a.home.arpa a\n192.0.2.2 b\n", None),
            ("127.0.1.1 a\n", Some("192.0.2.1\ta.home.arpa a\n192.0.2.2\tb\n")),
            ("192.0.2.2 b # x\n", Some("192.0.2.2 b # x\n192.0.2.1\ta.home.arpa a\n")),
        ];
        for (before, after) in cases {
            let seen = seen_text(PATH, Content::Differs(before.into()), 0o644);
            match (hosts.diff(&seen).unwrap(), after) {
                (Verdict::Converged, None) => {}
                (Verdict::Differs(change), Some(after)) => {
                    let [Difference::Text { after: seen, .. }] = &change.differences[..] else {
                        panic!("one text")
                    };
                    assert_eq!(seen.as_deref(), Some(after));
                }
                (verdict, _) => panic!("{before:?}: {verdict:?}"),
            }
        }
    }

    #[test]
    fn mistakes_are_found_offline() {
        for (content, wanted) in [
            ("a.home.arpa 192.0.2.1", "does not begin with an address"),
            ("192.0.2.1", "at least one name"),
            ("192.0.2.1 a/b", "not a host name"),
            ("192.0.2.1 a\n192.0.2.2 A", "two addresses"),
        ] {
            let error = mistake("hosts", &format!("content = '''{content}'''"));
            assert!(error.contains(wanted), "{content}: {error}");
        }
    }
}
