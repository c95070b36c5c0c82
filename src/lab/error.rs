//! What can go wrong in a lab: what happened, where, and what to do next.

use std::path::{Path, PathBuf};

/// Why no lab can run on this computer, in a sentence that ends with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no lab can run on this computer: {0}")]
pub struct Unavailable(pub String);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error("there is no lab `{name}`: bring it up first with `datahub lab up`, or name another one")]
    NoLab { name: String },
    #[error("`{name}` cannot be a lab's name: use small letters, digits and inner hyphens, at most 32")]
    BadName { name: String },
    #[error("the lab {lab} has no machine for the node `{node}`; it has: {}", list(.known))]
    NoMachine { lab: String, node: String, known: Vec<String> },
    #[error("the inventory has no node `{node}`; it has: {}", list(.known))]
    NoNode { node: String, known: Vec<String> },
    #[error("{node}: a machine cannot be made with the login `{user}`: {why}")]
    BadUser { node: String, user: String, why: &'static str },
    #[error("the network of the lab {lab} is gone: bring the lab up again")]
    NoNetwork { lab: String },
    #[error("no room for another {what}: take a lab down first (`datahub lab list`)")]
    Full { what: &'static str },
    /// `file` says what the state of a lab is and cannot be understood.
    #[error(
        "{} is not readable as a lab's state ({why}): remove the lab with `datahub lab down` and bring it up again",
        file.display()
    )]
    BadState { file: PathBuf, why: String },
    #[error("{} cannot be written out for the lab: {why}", file.display())]
    BadInventory { file: PathBuf, why: String },
    #[error("cannot {doing} {}: {source}{}", path.display(), remedy(source))]
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },
    /// A program of this computer failed; `said` is the end of what it printed.
    #[error("cannot {doing}: {program} {how}{}", indented(.said))]
    Command { doing: String, program: String, how: String, said: String },
    #[error("the machine did not take SSH logins within {seconds} s; its console is in {}{}", log.display(), indented(.last))]
    NotReady { seconds: u64, log: PathBuf, last: String },
    #[error("the machine stopped while it was starting; its console is in {}{}", log.display(), indented(.last))]
    Died { log: PathBuf, last: String },
    #[error("{what} did not end within {seconds} s: run `datahub lab down` again")]
    StillThere { what: String, seconds: u64 },
    /// Every machine that failed, by node.
    #[error("{}", each(.0))]
    Machines(Vec<(String, Error)>),
}

impl Error {
    /// For `map_err`: an input or output error with what was being done to which path.
    pub(crate) fn io<'p>(doing: &'static str, path: &'p Path) -> impl FnOnce(std::io::Error) -> Self + 'p {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}

fn remedy(source: &std::io::Error) -> &'static str {
    use std::io::ErrorKind::{PermissionDenied, StorageFull};
    match source.kind() {
        PermissionDenied => "; labs are for root only: run datahub with sudo",
        StorageFull => "; make room there: an image takes 300 MB, a machine what is written on it",
        _ => "",
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// What a program said, below the message and set off from it; nothing when it said nothing.
fn indented(text: &str) -> String {
    text.lines().filter(|line| !line.trim().is_empty()).map(|line| format!("\n  {line}")).collect()
}

fn each(failed: &[(String, Error)]) -> String {
    failed.iter().map(|(node, error)| format!("{node}: {error}")).collect::<Vec<_>>().join("\n")
}

/// The last lines of what a program or a console printed, without control characters.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = &all[all.len().saturating_sub(lines)..];
    last.join("\n").chars().filter(|c| *c == '\n' || !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_output_is_shown_without_escapes() {
        assert_eq!(tail("one\n\ntwo\n\u{1b}[31mthree\u{7}\n", 2), "two\n[31mthree");
        let error = Error::Command {
            doing: "make the network".into(),
            program: "ip".into(),
            how: "ended with status 2".into(),
            said: "no such device\n".into(),
        };
        assert_eq!(error.to_string(), "cannot make the network: ip ended with status 2\n  no such device");
    }
}
