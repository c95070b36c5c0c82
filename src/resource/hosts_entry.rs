//! `hosts_entry`: names of one address in /etc/hosts.

use std::net::IpAddr;

use serde::Deserialize;

use super::edit::{self, State};
use super::{Resource, Verdict};
use crate::probe::{Answers, Question, Unanswered};

pub(super) const PATH: &str = "/etc/hosts";

/// An address and its names in /etc/hosts. A line that gives one of the names another address of the same kind
/// (IPv4 or IPv6) is corrected; comments and all other names stay as they are.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostsEntry {
    /// IPv4 or IPv6.
    pub ip: IpAddr,
    /// The full name first, then its short forms.
    pub names: Vec<String>,
    /// `present` (default) or `absent`: none of the names leads to this address.
    #[serde(default)]
    pub state: State,
}

/// A line of /etc/hosts that holds an address: the parts before its comment.
pub(super) struct Entry<'a> {
    pub ip: IpAddr,
    pub names: Vec<&'a str>,
    /// With its `#`; empty if there is none.
    comment: &'a str,
}

impl<'a> Entry<'a> {
    pub fn parse(line: &'a str) -> Option<Self> {
        let (entry, comment) = line.split_at(line.find('#').unwrap_or(line.len()));
        let mut words = entry.split_whitespace();
        let ip = words.next()?.parse().ok()?;
        Some(Self { ip, names: words.collect(), comment })
    }

    fn line(&self) -> String {
        let comment = if self.comment.is_empty() { String::new() } else { format!(" {}", self.comment) };
        format!("{}\t{}{comment}", self.ip, self.names.join(" "))
    }
}

impl HostsEntry {
    /// Host names do not differ by case.
    fn owns(&self, name: &str) -> bool {
        self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    pub(super) fn edit(&self, text: &str) -> String {
        let lines: Vec<&str> = text.split_terminator('\n').collect();
        let entries: Vec<Option<Entry>> = lines.iter().map(|line| Entry::parse(line)).collect();
        let first = |wanted: &dyn Fn(&Entry) -> bool| {
            entries.iter().position(|entry| {
                entry.as_ref().is_some_and(|e| {
                    e.ip.is_ipv4() == self.ip.is_ipv4() && e.names.iter().any(|n| self.owns(n)) && wanted(e)
                })
            })
        };
        let complete =
            |e: &Entry| self.names.iter().all(|own| e.names.iter().any(|n| n.eq_ignore_ascii_case(own)));
        let keeper = match self.state {
            State::Absent => None,
            State::Present => first(&|e| e.ip == self.ip && complete(e))
                .or_else(|| first(&|e| e.ip == self.ip))
                .or_else(|| first(&|e| e.names.iter().all(|n| self.owns(n)))),
        };
        let mut after: Vec<String> = Vec::with_capacity(lines.len() + 1);
        for (at, (line, entry)) in lines.iter().zip(&entries).enumerate() {
            let concerned = entry.as_ref().filter(|e| {
                e.names.iter().any(|n| self.owns(n))
                    && match self.state {
                        // The same address twice does no harm: it is left alone.
                        State::Present => e.ip != self.ip && e.ip.is_ipv4() == self.ip.is_ipv4(),
                        State::Absent => e.ip == self.ip,
                    }
            });
            match (entry, concerned) {
                (Some(e), _) if keeper == Some(at) => {
                    if e.ip == self.ip && complete(e) {
                        after.push((*line).to_owned());
                    } else {
                        let others = e.names.iter().copied().filter(|n| !self.owns(n));
                        let names = self.names.iter().map(String::as_str).chain(others).collect();
                        after.push(Entry { ip: self.ip, names, comment: e.comment }.line());
                    }
                }
                (_, Some(e)) => {
                    let names: Vec<&str> = e.names.iter().copied().filter(|n| !self.owns(n)).collect();
                    if !names.is_empty() {
                        after.push(Entry { ip: e.ip, names, comment: e.comment }.line());
                    }
                }
                _ => after.push((*line).to_owned()),
            }
        }
        if self.state == State::Present && keeper.is_none() {
            let names = self.names.iter().map(String::as_str).collect();
            after.push(Entry { ip: self.ip, names, comment: "" }.line());
        }
        if after == lines { text.to_owned() } else { edit::join(&after) }
    }
}

impl Resource for HostsEntry {
    fn name(&self) -> String {
        format!("{} {}", self.ip, self.names.join(" "))
    }

    fn questions(&self) -> Vec<Question> {
        edit::questions(PATH)
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        edit::diff(PATH, true, seen, |text| Ok(self.edit(text)))
    }

    fn check(&self) -> Result<(), String> {
        if self.names.is_empty() {
            return Err("`names` must hold at least one name".into());
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        match self.names.iter().find(|name| name.is_empty() || !name.chars().all(plain)) {
            Some(name) => Err(format!("`names` holds {name:?}, which is not a host name")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Content;
    use crate::resource::testing::seen_text;

    #[test]
    fn edits_as_data() {
        let cases = [
            ("present", "192.0.2.1 a.home.arpa a\n", "192.0.2.1 a.home.arpa a\n"),
            ("present", "192.0.2.1  A  x a.home.arpa # kept\n", "192.0.2.1  A  x a.home.arpa # kept\n"),
            ("present", "# 192.0.2.1 a", "# 192.0.2.1 a\n192.0.2.1\ta.home.arpa a\n"),
            ("present", "192.0.2.11 aa ab\n", "192.0.2.11 aa ab\n192.0.2.1\ta.home.arpa a\n"),
            ("present", "192.0.2.9 a # old\n::1 a\n", "192.0.2.1\ta.home.arpa a # old\n::1 a\n"),
            ("present", "192.0.2.1 a x\n", "192.0.2.1\ta.home.arpa a x\n"),
            (
                "present",
                "127.0.0.1 localhost a\n127.0.1.1 a\n",
                "127.0.0.1\tlocalhost\n192.0.2.1\ta.home.arpa a\n",
            ),
            ("present", "192.0.2.9 a\n192.0.2.1 a a.home.arpa\n", "192.0.2.1 a a.home.arpa\n"),
            ("absent", "192.0.2.9 a\n", "192.0.2.9 a\n"),
            ("absent", "192.0.2.1 a x\n192.0.2.1 a\n", "192.0.2.1\tx\n"),
        ];
        for (state, before, after) in cases {
            let fields = format!("ip = '192.0.2.1'\nnames = ['a.home.arpa', 'a']\nstate = '{state}'");
            let entry: HostsEntry = toml::from_str(&fields).unwrap();
            entry.check().unwrap();
            assert_eq!(entry.edit(before), after, "{state} on {before:?}");
            assert_eq!(entry.edit(after), after, "{state} twice on {before:?}");
        }
    }

    #[test]
    fn the_change_is_one_guarded_write() {
        let entry: HostsEntry = toml::from_str("ip = '192.0.2.1'\nnames = ['a']").unwrap();
        let seen = seen_text(PATH, Content::Differs(b"127.0.0.1 localhost\n".to_vec()), 0o644);
        let Verdict::Differs(change) = entry.diff(&seen).unwrap() else { panic!("differs") };
        assert_eq!(change.differences.len(), 1);
        assert!(change.shell.contains("changed since it was looked at"));
    }
}
