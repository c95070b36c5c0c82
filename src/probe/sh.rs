//! The POSIX sh dialect: questions written out as one script, its output read back.
//!
//! Every kind of question is one process on the node, or none where the shell itself can look.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;

use super::frame::{self, Frame, FrameError};
use super::{Answer, Facts, Group, Question, User};
use super::{accounts, checksum, facts, files, join_token, module, packages, storage, sysctl, units};
use crate::shell::{quote, quote_all};

/// Where a node keeps what must outlive a run: notified handlers.
pub const PENDING_DIR: &str = "/var/lib/datahub/pending";

/// Why the answers could not be read.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum ReadError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the node answered {about} with something unexpected: {text}")]
    Unexpected { about: String, text: String },
    #[error("the node could not answer about {about} (status {status}): {text}")]
    Failed { about: String, status: i32, text: String },
}

const FACTS: usize = 0;
const STEP: usize = usize::MAX;

/// A probe: the questions in their order, deduplicated.
pub struct Probe {
    questions: BTreeSet<Question>,
    facts: bool,
    before: Before,
}

/// What is run before anything is asked.
enum Before {
    Nothing,
    Step {
        shell: String,
        /// It may print without end.
        prints: bool,
    },
    Steps {
        opening: &'static str,
        steps: Vec<String>,
        closing: &'static str,
    },
}

/// One part of the script and what its frame answers.
enum Part<'a> {
    Each(&'a Question),
    Stats(Vec<&'a str>),
    Packages(Vec<&'a str>),
    Units(Vec<&'a str>),
    Sysctls(Vec<&'a str>),
    Modules(Vec<&'a str>),
    Mounts(Vec<&'a str>),
    Users(Vec<&'a str>),
    /// Groups by name, and the groups of users: the same list answers both.
    Groups {
        names: Vec<&'a str>,
        users: Vec<&'a str>,
    },
    Checksums(Vec<&'a str>),
}

impl Probe {
    pub fn new(questions: impl IntoIterator<Item = Question>) -> Self {
        Self { questions: questions.into_iter().collect(), facts: false, before: Before::Nothing }
    }

    /// Asks for the node's facts too.
    pub fn with_facts(mut self) -> Self {
        self.facts = true;
        self
    }

    /// Runs `shell` first, in a subshell; only if it succeeds are the questions asked. So a change and its
    /// read-back are one exec.
    pub fn after(mut self, shell: impl Into<String>) -> Self {
        self.before = Before::Step { shell: shell.into(), prints: true };
        self
    }

    /// The same for shell that prints a few lines at most: two processes fewer.
    pub fn after_quiet(mut self, shell: impl Into<String>) -> Self {
        self.before = Before::Step { shell: shell.into(), prints: false };
        self
    }

    /// The same for several such pieces of shell, up to the first that fails. What opens and closes them is run
    /// around them all.
    pub fn after_each(mut self, opening: &'static str, steps: Vec<String>, closing: &'static str) -> Self {
        self.before = Before::Steps { opening, steps, closing };
        self
    }

    /// What the step of [`Probe::after`] came to: its status and what it printed.
    pub fn step(output: &[u8]) -> Result<(i32, String), ReadError> {
        let frames = frame::parse(output)?;
        let frame = frames.iter().find(|f| f.id == STEP).ok_or(FrameError::Cut(0))?;
        Ok(said(frame))
    }

    /// The same of each step of [`Probe::after_each`] that was run.
    pub fn steps(output: &[u8]) -> Result<Vec<(i32, String)>, ReadError> {
        let frames = frame::parse(output)?;
        let steps = frames.iter().enumerate().take_while(|(at, frame)| frame.id == STEP - at);
        Ok(steps.map(|(_, frame)| said(frame)).collect())
    }

    /// The facts alone. They tell whether this is the machine that was meant, before anything else is read.
    pub fn facts(output: &[u8]) -> Result<Facts, ReadError> {
        let frames = frame::parse(output)?;
        let frame = frames.iter().find(|f| f.id == FACTS).ok_or(FrameError::Cut(0))?;
        Ok(facts::read_facts(&text(frame.body)))
    }

    pub fn is_empty(&self) -> bool {
        self.questions.is_empty() && !self.facts
    }

    fn parts(&self) -> Vec<Part<'_>> {
        let mut grouped: BTreeMap<u8, Vec<&str>> = BTreeMap::new();
        let mut parts = Vec::new();
        let mut pending = None;
        for question in &self.questions {
            let (group, name) = match question {
                Question::Stat(path) => (0, path),
                Question::Package(name) => (1, name),
                Question::Unit(name) => (2, name),
                Question::Sysctl(key) => (3, key),
                Question::Module(name) => (4, name),
                Question::Mount(path) => (5, path),
                Question::User(name) => (6, name),
                Question::Group(name) => (7, name),
                Question::GroupsOf(name) => (8, name),
                Question::Checksum(path) => (9, path),
                Question::PendingHandlers => {
                    pending = Some(Part::Each(question));
                    continue;
                }
                each => {
                    parts.push(Part::Each(each));
                    continue;
                }
            };
            grouped.entry(group).or_default().push(name);
        }
        let (names, users) = (grouped.remove(&7), grouped.remove(&8));
        if names.is_some() || users.is_some() {
            parts.push(Part::Groups { names: names.unwrap_or_default(), users: users.unwrap_or_default() });
        }
        parts.extend(grouped.into_iter().map(|(group, names)| match group {
            0 => Part::Stats(names),
            1 => Part::Packages(names),
            2 => Part::Units(names),
            3 => Part::Sysctls(names),
            4 => Part::Modules(names),
            5 => Part::Mounts(names),
            6 => Part::Users(names),
            _ => Part::Checksums(names),
        }));
        // Last: a step of a dead run may be at work meanwhile. What it has changed it has marked before, so whoever
        // sees the change sees the mark too.
        parts.extend(pending);
        parts
    }

    /// The whole probe as one script.
    pub fn script(&self) -> String {
        let mut out = String::from("LC_ALL=C; export LC_ALL\n");
        out.push_str(frame::SHELL);
        self.before.write(&mut out);
        if self.facts {
            out.push_str(facts::FACTS_SHELL);
        }
        // Side by side, as those that wait for another process are the slow ones. What one of them prints goes through
        // the next, whole: frames say by themselves what they answer.
        let mut beside = [String::new(), String::new(), files::contents_shell(&self.contents())];
        for (at, part) in self.parts().iter().enumerate() {
            let group = match part {
                Part::Units(_) => 0,
                Part::Packages(_) => 1,
                _ => 2,
            };
            let _ = writeln!(beside[group], "{}", part.shell(at + 1));
        }
        let beside: Vec<&String> = beside.iter().filter(|group| !group.is_empty()).collect();
        for (at, group) in beside.iter().enumerate() {
            out.push_str(if at == 0 { "{\n" } else { "} | {\n" });
            out.push_str(group);
            out.push_str(if at == 0 { "" } else { "cat\n" });
        }
        out.push_str(if beside.is_empty() { "" } else { "}\n" });
        out.push_str(frame::SHELL_END);
        out
    }

    /// The contents that are asked for: path, and the checksum with which it is not sent.
    fn contents(&self) -> Vec<(&str, &str)> {
        let contents = self.questions.iter().filter_map(|question| match question {
            Question::Content { path, unless } => Some((path.as_str(), unless.as_str())),
            _ => None,
        });
        contents.collect()
    }

    /// Reads what the script printed.
    pub fn read(&self, output: &[u8]) -> Result<(Option<Facts>, HashMap<Question, Answer>), ReadError> {
        let frames: HashMap<usize, Frame<'_>> =
            frame::parse(output)?.into_iter().map(|f| (f.id, f)).collect();
        let mut answers = HashMap::new();
        for (at, part) in self.parts().iter().enumerate() {
            let frame = frames.get(&(at + 1)).ok_or(FrameError::Cut(at))?;
            part.read(frame, &mut answers)?;
        }
        let facts = self.facts.then(|| Self::facts(output)).transpose()?;
        Ok((facts, answers))
    }
}

impl Before {
    fn write(&self, out: &mut String) {
        let end = frame::SHELL_END.replace('\n', "; ");
        let step = |id: usize, shell: &str, prints: bool| {
            let run = match prints {
                true => format!("datahub_step() {{ (\n{shell}\n) }}\n{STEP_SHELL}"),
                false => format!("datahub_step() {{\n{shell}\n}}\no=$(datahub_step 2>&1 </dev/null); r=$?\n"),
            };
            format!("{run}f {id} $r \"$o\"\n[ $r = 0 ] || {{ {end}exit 0; }}\n")
        };
        match self {
            Self::Nothing => {}
            Self::Step { shell, prints } => out.push_str(&step(STEP, shell, *prints)),
            Self::Steps { opening, steps, closing } => {
                out.push_str(opening);
                out.extend(steps.iter().enumerate().map(|(at, shell)| step(STEP - at, shell, false)));
                out.push_str(closing);
            }
        }
    }
}

impl Part<'_> {
    fn shell(&self, id: usize) -> String {
        // Each assigns `o` and leaves its status in `$?`.
        // Warnings would stand among the answers; of a failure they are all that is known.
        let run = |command: String| {
            format!(
                "o=$({command} 2>/dev/null </dev/null); r=$?; [ $r = 0 ] || o=$({command} 2>&1 </dev/null); f {id} $r \"$o\""
            )
        };
        let quiet = |command: String| format!("o=$({command} 2>/dev/null </dev/null); f {id} 0 \"$o\"");
        match self {
            Part::Stats(paths) => quiet(files::stat_command(paths)),
            Part::Packages(names) => quiet(packages::command(names)),
            Part::Units(names) => run(units::command(names)),
            Part::Sysctls(keys) => format!("{}f {id} 0 \"$o\"", sysctl::shell(keys)),
            Part::Modules(names) => format!("{}f {id} 0 \"$o\"", module::shell(names)),
            Part::Mounts(_) => run("cat /proc/self/mounts".into()),
            Part::Users(names) => quiet(format!("getent passwd {}", quote_all(names))),
            Part::Groups { .. } => run("getent group".into()),
            Part::Checksums(paths) => format!("{}f {id} 0 \"$o\"", checksum::ask(paths)),
            Part::Each(Question::Content { path, unless }) => {
                format!("c {id} {} {}", quote(path), quote(unless))
            }
            Part::Each(Question::Password { user, sha256 }) => {
                accounts::password_shell(id, user, sha256, "/etc/shadow")
            }
            Part::Each(Question::AuthorizedKeys(user)) => accounts::keys_shell(id, user),
            Part::Each(Question::Swaps) => run("cat /proc/swaps".into()),
            Part::Each(Question::Hostname) => {
                format!("read -r o </proc/sys/kernel/hostname; f {id} $? \"$o\"")
            }
            Part::Each(Question::Device(path)) => storage::device_shell(id, path),
            Part::Each(Question::Source(field)) => storage::source_shell(id, field),
            Part::Each(Question::Guard(script)) => {
                // Not `sh -c`: what a guard holds is nothing for the process list.
                format!("(unset -f f c k; eval {}) >/dev/null 2>&1 </dev/null; f {id} $? ''", quote(script))
            }
            Part::Each(Question::JoinToken { path, data_dir }) => join_token::shell(id, path, data_dir),
            Part::Each(Question::PendingHandlers) => format!(
                "o=; for p in {PENDING_DIR}/*/*; do [ -e \"$p\" ] && o=\"$o ${{p#{PENDING_DIR}/}}\"; done; f {id} 0 \"$o\""
            ),
            Part::Each(_) => unreachable!("grouped above"),
        }
    }

    fn read(&self, frame: &Frame<'_>, answers: &mut HashMap<Question, Answer>) -> Result<(), ReadError> {
        let body = text(frame.body);
        let must = |about: &str| {
            if frame.status == 0 {
                return Ok(());
            }
            Err(ReadError::Failed { about: about.into(), status: frame.status, text: first_line(&body) })
        };
        match self {
            Part::Stats(paths) => {
                let mut seen = HashMap::new();
                for line in body.lines() {
                    let (path, stat) = files::read_stat(line).ok_or_else(|| unexpected("stat", line))?;
                    seen.insert(path, stat);
                }
                for path in paths {
                    answers.insert(Question::Stat((*path).into()), Answer::Stat(seen.remove(*path)));
                }
            }
            Part::Packages(names) => {
                let mut seen = packages::read(&body)?;
                for name in names {
                    let package = seen.remove(name).unwrap_or_default();
                    answers.insert(Question::Package((*name).into()), Answer::Package(package));
                }
            }
            Part::Units(names) => {
                must("units")?;
                let blocks: Vec<&str> = body.split("\n\n").collect();
                if blocks.len() != names.len() {
                    return Err(unexpected("systemctl show", &body));
                }
                for (name, block) in names.iter().zip(blocks) {
                    answers.insert(Question::Unit((*name).into()), Answer::Unit(units::read_unit(block)));
                }
            }
            Part::Sysctls(keys) => {
                for key in keys {
                    let sysctl = sysctl::read(key, &body);
                    answers.insert(Question::Sysctl((*key).into()), Answer::Sysctl(sysctl));
                }
            }
            Part::Modules(names) => {
                for name in names {
                    answers
                        .insert(Question::Module((*name).into()), Answer::Module(module::read(name, &body)));
                }
            }
            Part::Mounts(paths) => {
                must("mounts")?;
                for path in paths {
                    // The last one on a path is the one that shows.
                    let mount = body.lines().filter_map(storage::read_mount).rfind(|(at, _)| at == path);
                    answers.insert(Question::Mount((*path).into()), Answer::Mount(mount.map(|(_, m)| m)));
                }
            }
            Part::Users(names) => {
                let seen: HashMap<&str, User> = body.lines().filter_map(accounts::read_user).collect();
                for name in names {
                    answers.insert(Question::User((*name).into()), Answer::User(seen.get(name).cloned()));
                }
            }
            Part::Groups { names, users } => {
                must("groups")?;
                let seen: HashMap<&str, Group> = body.lines().filter_map(accounts::read_group).collect();
                for name in names {
                    answers.insert(Question::Group((*name).into()), Answer::Group(seen.get(name).cloned()));
                }
                for user in users {
                    let groups = body.lines().filter_map(accounts::read_group);
                    let of = groups.filter(|(_, group)| group.members.contains(*user));
                    let of = of.map(|(name, _)| name.to_owned()).collect();
                    answers.insert(Question::GroupsOf((*user).into()), Answer::GroupsOf(of));
                }
            }
            Part::Checksums(paths) => {
                let mut seen = checksum::read(&body).map_err(|line| unexpected("sha256sum", &line))?;
                for path in paths {
                    answers.insert(Question::Checksum((*path).into()), Answer::Checksum(seen.remove(*path)));
                }
            }
            Part::Each(question) => {
                let answer = match question {
                    Question::Password { user, .. } => {
                        must(&format!("the password of {user}"))?;
                        Answer::Password(accounts::read_password(&body))
                    }
                    Question::AuthorizedKeys(user) => Answer::AuthorizedKeys(
                        accounts::read_keys(frame, &body).ok_or_else(|| unexpected(user, &body))?,
                    ),
                    Question::Content { path, .. } => {
                        Answer::Content(files::read_content(frame, &body, path)?)
                    }
                    Question::Swaps => {
                        must("swaps")?;
                        let names = body.lines().skip(1).filter_map(|l| l.split_whitespace().next());
                        Answer::Swaps(names.map(storage::unescape).collect())
                    }
                    Question::Hostname => Answer::Hostname(body),
                    Question::Device(path) => match storage::read_device(frame, &body) {
                        Some(device) => Answer::Device(device),
                        None => return must(path),
                    },
                    Question::Source(_) => Answer::Source(storage::read_source(&body)),
                    Question::JoinToken { path, .. } => {
                        Answer::JoinToken(join_token::read(&body).ok_or_else(|| unexpected(path, &body))?)
                    }
                    Question::Guard(_) => Answer::Guard(frame.status),
                    _ => {
                        let mut names: Vec<String> = body.split_whitespace().map(str::to_owned).collect();
                        names.sort();
                        Answer::PendingHandlers(names)
                    }
                };
                answers.insert((*question).clone(), answer);
            }
        }
        Ok(())
    }
}

/// A step's status and what it printed.
fn said(frame: &Frame<'_>) -> (i32, String) {
    (frame.status, text(frame.body).trim_end_matches('\n').to_owned())
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

pub(super) fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(200).collect::<String>().escape_debug().to_string()
}

pub(super) fn unexpected(about: &str, text: &str) -> ReadError {
    ReadError::Unexpected { about: about.into(), text: first_line(text) }
}

/// Runs the step. Its status comes last through the same pipe; a step that prints without end is cut off, which
/// ends it, and has none. What is kept is the end of what it printed: neither the node's memory nor ours fills up.
const STEP_SHELL: &str = r#"nl='
'
o=$( { datahub_step 2>&1 </dev/null; printf '\ndatahub-status %s' "$?"; } | head -c 33554432 | tail -c 65536)
case "${o##*"$nl"}" in
  "datahub-status "*) r=${o##* }; o=${o%"$nl"*};;
  *) r=141; o="$o${nl}it printed more than 32 MiB and was stopped";;
esac
"#;

#[cfg(test)]
#[path = "sh_tests.rs"]
mod tests;
