//! The POSIX sh dialect: questions written out as one script, its output read back.
//!
//! Every kind of question is one process on the node, or none where the shell itself can look.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;

use super::accounts;
use super::checksum;
use super::frame::{self, Frame, FrameError};
use super::join_token;
use super::module;
use super::{
    Answer, CONTENT_LIMIT, Content, Facts, FileType, Group, Mount, Package, Question, Source, Stat, Sysctl,
    Unit, User,
};
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
/// The status that stands for a device that is not there or cannot be read.
const NO_DEVICE: i32 = 255;

/// A probe: the questions in their order, deduplicated.
pub struct Probe {
    questions: BTreeSet<Question>,
    facts: bool,
    step: Option<String>,
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
        Self { questions: questions.into_iter().collect(), facts: false, step: None }
    }

    /// Asks for the node's facts too.
    pub fn with_facts(mut self) -> Self {
        self.facts = true;
        self
    }

    /// Runs `shell` first, in a subshell; only if it succeeds are the questions asked. So a change and its
    /// read-back are one exec.
    pub fn after(mut self, shell: impl Into<String>) -> Self {
        self.step = Some(shell.into());
        self
    }

    /// What the step of [`Probe::after`] came to: its status and what it printed.
    pub fn step(output: &[u8]) -> Result<(i32, String), ReadError> {
        let frames = frame::parse(output)?;
        let frame = frames.iter().find(|f| f.id == STEP).ok_or(FrameError::Cut(0))?;
        Ok((frame.status, text(frame.body).trim_end_matches('\n').to_owned()))
    }

    /// The facts alone. They tell whether this is the machine that was meant, before anything else is read.
    pub fn facts(output: &[u8]) -> Result<Facts, ReadError> {
        let frames = frame::parse(output)?;
        let frame = frames.iter().find(|f| f.id == FACTS).ok_or(FrameError::Cut(0))?;
        Ok(read_facts(&text(frame.body)))
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
        if let Some(step) = &self.step {
            let _ = write!(
                out,
                "datahub_step() {{ (\n{step}\n) }}\n{STEP_SHELL}f {STEP} $r \"$o\"\n[ $r = 0 ] || {{ {}exit 0; }}\n",
                frame::SHELL_END.replace('\n', "; ")
            );
        }
        if self.facts {
            out.push_str(FACTS_SHELL);
        }
        // Side by side, as those that wait for another process are the slow ones. What one of them prints goes through
        // the next, whole: frames say by themselves what they answer.
        let mut beside = [String::new(), String::new(), self.content_shell()];
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

    /// Defines `c` and the checksums it compares with, if a file's content is asked for.
    fn content_shell(&self) -> String {
        let questions = self.questions.iter();
        let contents: Vec<(&String, &String)> = questions
            .filter_map(|question| match question {
                Question::Content { path, unless } => Some((path, unless)),
                _ => None,
            })
            .collect();
        if contents.is_empty() {
            return String::new();
        }
        let mut out = CONTENT_SHELL.replace("LIMIT", &CONTENT_LIMIT.to_string());
        out.push_str("set --\n");
        for (path, _) in contents.iter().filter(|(_, unless)| !unless.is_empty()) {
            let path = quote(path);
            let _ = writeln!(out, "[ -f {path} ] && set -- \"$@\" {path}");
        }
        out.push_str("sums=; [ $# -gt 0 ] && sums=$(sha256sum -- \"$@\" 2>/dev/null </dev/null)\n");
        out
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
            Part::Stats(paths) => {
                quiet(format!("find {} -maxdepth 0 -printf '{STAT_FORMAT}%l\\n'", quote_all(paths)))
            }
            Part::Packages(names) => quiet(format!(
                "dpkg-query -W -f='${{Package}}\\t${{db:Status-Abbrev}}\\t${{Version}}\\n' {}",
                quote_all(names)
            )),
            Part::Units(names) => run(format!(
                "systemctl show {} -- {}",
                UNIT_PROPERTIES.map(|property| format!("-p {property}")).join(" "),
                quote_all(names)
            )),
            Part::Sysctls(keys) => {
                // Not the shell's `read`: it goes byte by byte, and a number in /proc/sys ends after the first.
                let paths = quote_all(keys.iter().map(|key| live_path(key)));
                format!(
                    "nl='\n'\no=$(grep -Hsm1 '' {paths} </dev/null)\n\
                     for p in {paths}; do [ ! -w \"$p\" ] || o=\"$o${{nl}}w $p\"; done; f {id} 0 \"$o\""
                )
            }
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
            Part::Each(Question::Device(path)) => {
                let path = quote(path);
                format!(
                    // blkid's 2 stands for "no signature" and for "cannot be read": only reading tells which.
                    "if [ -e {path} ]; then o=$(blkid -p -o export {path} 2>&1 </dev/null); r=$?\n\
                     [ $r != 2 ] || head -c 1048576 {path} >/dev/null 2>&1 || r={NO_DEVICE}\n\
                     f {id} $r \"$o\"; else f {id} {NO_DEVICE} ''; fi"
                )
            }
            Part::Each(Question::Source(field)) => {
                // The mount table knows a device-mapper device by its name, /dev/mapper/…, not by its number.
                format!(
                    "{}t=\n\
                     if [ -n \"$o\" ] && [ -e \"$o\" ]; then o=$(readlink -f -- \"$o\"); t=$(stat -c '%t %T' -- \"$o\"); else o=; fi\n\
                     n=/sys/block/${{o##*/}}/dm/name; [ ! -r \"$n\" ] || {{ read -r n <\"$n\"; o=/dev/mapper/$n; }}\n\
                     f {id} 0 \"$t $o\"",
                    match field.split_once('=') {
                        Some(_) if !field.starts_with('/') =>
                            format!("o=$(findfs {} 2>/dev/null </dev/null)\n", quote(field)),
                        _ => format!("o={}\n", quote(field)),
                    }
                )
            }
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
                    let (path, stat) = read_stat(line).ok_or_else(|| unexpected("stat", line))?;
                    seen.insert(path, stat);
                }
                for path in paths {
                    answers.insert(Question::Stat((*path).into()), Answer::Stat(seen.remove(*path)));
                }
            }
            Part::Packages(names) => {
                let mut seen: HashMap<&str, Package> = HashMap::new();
                for line in body.lines() {
                    let (name, package) = read_package(line).ok_or_else(|| unexpected("dpkg-query", line))?;
                    // Of several architectures the installed one counts.
                    let entry = seen.entry(name).or_default();
                    if !entry.installed {
                        *entry = package;
                    }
                }
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
                    answers.insert(Question::Unit((*name).into()), Answer::Unit(read_unit(block)));
                }
            }
            Part::Sysctls(keys) => {
                for key in keys {
                    let path = live_path(key);
                    let value = body.lines().find_map(|line| line.strip_prefix(&path)?.strip_prefix(':'));
                    let sysctl = value.map(|value| Sysctl {
                        value: value.split_whitespace().collect::<Vec<_>>().join(" "),
                        writable: body.lines().any(|line| line.strip_prefix("w ") == Some(&path)),
                    });
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
                    let mount = body.lines().filter_map(read_mount).rfind(|(at, _)| at == path);
                    answers.insert(Question::Mount((*path).into()), Answer::Mount(mount.map(|(_, m)| m)));
                }
            }
            Part::Users(names) => {
                let seen: HashMap<&str, User> = body.lines().filter_map(read_user).collect();
                for name in names {
                    answers.insert(Question::User((*name).into()), Answer::User(seen.get(name).cloned()));
                }
            }
            Part::Groups { names, users } => {
                must("groups")?;
                let seen: HashMap<&str, Group> = body.lines().filter_map(read_group).collect();
                for name in names {
                    answers.insert(Question::Group((*name).into()), Answer::Group(seen.get(name).cloned()));
                }
                for user in users {
                    let groups = body.lines().filter_map(read_group);
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
                    Question::Content { path, .. } => Answer::Content(read_content(frame, &body, path)?),
                    Question::Swaps => {
                        must("swaps")?;
                        let names = body.lines().skip(1).filter_map(|l| l.split_whitespace().next());
                        Answer::Swaps(names.map(unescape).collect())
                    }
                    Question::Hostname => Answer::Hostname(body),
                    Question::Device(path) => match frame.status {
                        0 => Answer::Device(Some(
                            body.lines()
                                .filter_map(|l| l.split_once('='))
                                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                                .collect(),
                        )),
                        2 => Answer::Device(Some(HashMap::new())),
                        8 => Answer::Device(Some(HashMap::from([("AMBIVALENT".into(), first_line(&body))]))),
                        NO_DEVICE => Answer::Device(None),
                        _ => return must(path),
                    },
                    Question::Source(_) => Answer::Source(read_source(&body)),
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

/// The path of a sysctl under /proc/sys. In a key `/` stands for a dot inside a name, as sysctl(8) has it.
pub fn sysctl_path(key: &str) -> String {
    key.chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            c => c,
        })
        .collect()
}

fn live_path(key: &str) -> String {
    format!("/proc/sys/{}", sysctl_path(key))
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(200).collect::<String>().escape_debug().to_string()
}

fn unexpected(about: &str, text: &str) -> ReadError {
    ReadError::Unexpected { about: about.into(), text: first_line(text) }
}

/// What [`read_stat`] reads, in the words of find's `-printf`; a link's target follows.
pub(super) const STAT_FORMAT: &str = "%y\\t%m\\t%u\\t%g\\t%s\\t%D\\t%i\\t%p\\t";

pub(super) fn read_stat(line: &str) -> Option<(String, Stat)> {
    let mut fields = line.split('\t');
    let file_type = match fields.next()? {
        "f" => FileType::File,
        "d" => FileType::Directory,
        "l" => FileType::Link,
        _ => FileType::Other,
    };
    let mode = u32::from_str_radix(fields.next()?, 8).ok()?;
    let owner = fields.next()?.to_owned();
    let group = fields.next()?.to_owned();
    let size = fields.next()?.parse().ok()?;
    let identity = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let path = fields.next()?.to_owned();
    let target = fields.next()?.to_owned();
    Some((path, Stat { file_type, mode, owner, group, size, target, identity }))
}

fn read_package(line: &str) -> Option<(&str, Package)> {
    let mut fields = line.split('\t');
    let name = fields.next()?;
    let mut status = fields.next()?.chars();
    let (want, is) = (status.next()?, status.next()?);
    let version = fields.next()?.to_owned();
    Some((
        name,
        Package {
            installed: is == 'i',
            broken: "HUFWt".contains(is),
            held: want == 'h',
            config_files: is == 'c',
            version,
        },
    ))
}

const UNIT_PROPERTIES: [&str; 12] = [
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "NeedDaemonReload",
    "FragmentPath",
    "Result",
    "Type",
    "RemainAfterExit",
    "ConditionResult",
    "ConditionTimestampMonotonic",
];

fn read_unit(block: &str) -> Unit {
    let mut unit = Unit::default();
    let (mut remains, mut met, mut tried) = (false, false, false);
    for (key, value) in block.lines().filter_map(|l| l.split_once('=')) {
        let value = value.to_owned();
        match key {
            "LoadState" => unit.load = value,
            "ActiveState" => unit.active = value,
            "UnitFileState" => unit.enabled = value,
            "NeedDaemonReload" => unit.needs_daemon_reload = value == "yes",
            "FragmentPath" => unit.path = value,
            "Id" => unit.id = value,
            "SubState" => unit.sub = value,
            "Result" => unit.result = value,
            "Type" => unit.oneshot = value == "oneshot",
            "RemainAfterExit" => remains = value == "yes",
            "ConditionResult" => met = value == "yes",
            "ConditionTimestampMonotonic" => tried = value != "0",
            _ => {}
        }
    }
    unit.oneshot &= !remains;
    unit.condition = tried.then_some(met);
    unit
}

fn read_mount(line: &str) -> Option<(String, Mount)> {
    let mut fields = line.split(' ');
    let device = unescape(fields.next()?);
    let path = unescape(fields.next()?);
    let fstype = fields.next()?.to_owned();
    let options = fields.next()?.to_owned();
    Some((path, Mount { device, fstype, options }))
}

/// Undoes the octal escapes (`\\040` for a blank) of /proc/self/mounts, /proc/swaps and /etc/fstab.
pub fn unescape(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(u8::is_ascii);
        match byte {
            Some(byte) => {
                text.push(char::from(byte));
                text.push_str(&part[3..]);
            }
            None => {
                text.push('\\');
                text.push_str(part);
            }
        }
    }
    text
}

/// Major and minor number, hexadecimal, and the name.
fn read_source(body: &str) -> Option<Source> {
    let mut fields = body.splitn(3, ' ');
    let mut number = || u32::from_str_radix(fields.next()?, 16).ok();
    let number = rustix::fs::makedev(number()?, number()?);
    Some(Source { name: fields.next().filter(|name| !name.is_empty())?.to_owned(), number })
}

fn read_user(line: &str) -> Option<(&str, User)> {
    let f: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, gecos, home, shell] = f.as_slice() else { return None };
    let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
    Some((
        name,
        User { uid, gid, gecos: (*gecos).to_owned(), home: (*home).to_owned(), shell: (*shell).to_owned() },
    ))
}

fn read_group(line: &str) -> Option<(&str, Group)> {
    let f: Vec<&str> = line.split(':').collect();
    let [name, _, gid, members] = f.as_slice() else { return None };
    let members = members.split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect();
    Some((name, Group { gid: gid.parse().ok()?, members }))
}

fn read_content(frame: &Frame<'_>, body: &str, path: &str) -> Result<Content, ReadError> {
    use base64::Engine as _;
    Ok(match frame.status {
        0 => {
            let packed: String = body.split_whitespace().collect();
            let bytes = base64::engine::general_purpose::STANDARD.decode(packed);
            Content::Differs(bytes.map_err(|_| unexpected(path, body))?)
        }
        1 => Content::Absent,
        2 => Content::Same,
        3 => Content::TooLarge(body.trim().parse().map_err(|_| unexpected(path, body))?),
        4 => Content::NotAFile,
        status => {
            return Err(ReadError::Failed { about: path.into(), status, text: first_line(body) });
        }
    })
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

/// `c ID PATH SHA`: no process where the checksum is the wanted one.
const CONTENT_SHELL: &str = r#"nl='
'
c() {
  if [ ! -e "$2" ]; then [ -L "$2" ] && f "$1" 4 '' || f "$1" 1 ''; return; fi
  [ -f "$2" ] || { f "$1" 4 ''; return; }
  if [ -n "$3" ]; then case "$nl$sums$nl" in *"$nl$3  $2$nl"*) f "$1" 2 ''; return;; esac; fi
  n=$(wc -c <"$2"); [ "$n" -le LIMIT ] || { f "$1" 3 "$n"; return; }
  o=$(base64 <"$2" 2>&1) && f "$1" 0 "$o" || f "$1" 9 "$o"
}
"#;

/// Facts as `key=value` lines; nearly all looked up by the shell itself. That this is a container is known from
/// where systemd-detect-virt knows it: process 1 was told so. A /.dockerenv says nothing: it travels with images.
const FACTS_SHELL: &str = r#"nl='
'
o="machine=$(uname -m)"
k() { [ -r "$2" ] && read -r v <"$2" 2>/dev/null && o="$o$nl$1=$v"; }
k hostname /proc/sys/kernel/hostname
k kernel /proc/sys/kernel/osrelease
k boot_id /proc/sys/kernel/random/boot_id
k memory /proc/meminfo
k cpus /sys/devices/system/cpu/online
k controllers /sys/fs/cgroup/cgroup.controllers
k container /run/systemd/container || { grep -qz '^container=.' /proc/1/environ 2>/dev/null && o="$o${nl}container=1"; }
[ -e /run/reboot-required ] && o="$o${nl}reboot=1"
for l in /etc/os-release /etc/ufw/ufw.conf; do
  [ -r "$l" ] && while read -r v; do case "$v" in ID=*|VERSION_ID=*|VERSION_CODENAME=*|ENABLED=*) o="$o${nl}$v";; esac; done <"$l"
done
[ -r /proc/cgroups ] && while read -r v a b e; do [ "$v" = memory ] && o="$o${nl}cgroup1=$e"; done </proc/cgroups
for l in /boot/dietpiEnv.txt /boot/armbianEnv.txt /boot/orangepiEnv.txt /boot/firmware/cmdline.txt /boot/cmdline.txt; do
  [ -f "$l" ] && { o="$o${nl}boot=$l"; break; }
done
o="$o${nl}user=${SUDO_USER:-root}"
f 0 0 "$o"
"#;

fn read_facts(body: &str) -> Facts {
    let mut facts = Facts::default();
    let mut cgroup1 = false;
    let mut cgroup2 = None;
    for (key, value) in body.lines().filter_map(|l| l.split_once('=')) {
        let value = value.trim().trim_matches('"');
        let own = || value.to_owned();
        match key {
            "machine" => facts.arch = debian_arch(value),
            "hostname" => facts.hostname = own(),
            "kernel" => {
                facts.kernel = own();
                facts.wsl = value.to_lowercase().contains("microsoft");
            }
            "boot_id" => facts.boot_id = own(),
            "memory" => {
                let kib: Option<u64> = value.split_whitespace().nth(1).and_then(|n| n.parse().ok());
                facts.memory_mib = kib.unwrap_or_default() / 1024;
            }
            "cpus" => facts.cpus = count_cpus(value),
            "controllers" => cgroup2 = Some(value.split(' ').any(|c| c == "memory")),
            "cgroup1" => cgroup1 = value == "1",
            "container" => facts.container = !value.is_empty(),
            "reboot" => facts.reboot_required = true,
            "ID" => facts.os = own(),
            "VERSION_ID" => facts.os_version = own(),
            "VERSION_CODENAME" => facts.os_codename = own(),
            "ENABLED" => facts.ufw_active = value == "yes",
            "boot" => facts.boot_file = own(),
            "user" => facts.login_user = own(),
            _ => {}
        }
    }
    facts.cgroup_memory = cgroup2.unwrap_or(cgroup1);
    facts
}

/// Debian's name of what `uname -m` says.
fn debian_arch(machine: &str) -> String {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" => "armhf",
        "i686" | "i586" => "i386",
        other => other,
    }
    .to_owned()
}

/// `0-3,5` → 5.
fn count_cpus(ranges: &str) -> u32 {
    ranges
        .split(',')
        .filter_map(|range| {
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            Some(to.parse::<u32>().ok()?.saturating_sub(from.parse().ok()?) + 1)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_runs_before_the_questions_and_stops_them_when_it_fails() {
        for (shell, expected) in [("echo hi; exit 3", (3, "hi")), ("cat <<'X'\nin (\nX\n", (0, "in ("))] {
            let probe = Probe::new([Question::Hostname]).after(shell);
            let out =
                std::process::Command::new("sh").arg("-c").arg(probe.script()).output().expect("sh runs");
            let (status, text) = Probe::step(&out.stdout).expect("framed");
            assert_eq!((status, text.as_str()), expected);
            assert_eq!(probe.read(&out.stdout).is_ok(), status == 0);
        }
    }

    #[test]
    fn a_step_that_prints_without_end_is_stopped() {
        let probe = Probe::new([Question::Hostname]).after("yes on");
        let out = std::process::Command::new("sh").arg("-c").arg(probe.script()).output().expect("sh runs");
        let (status, text) = Probe::step(&out.stdout).expect("framed");
        assert_eq!(status, 141);
        assert!(text.len() < 70_000 && text.ends_with("it printed more than 32 MiB and was stopped"));
    }

    fn ask(questions: Vec<Question>) -> (Option<Facts>, HashMap<Question, Answer>) {
        let probe = Probe::new(questions).with_facts();
        let out = std::process::Command::new("sh").arg("-c").arg(probe.script()).output().expect("sh runs");
        probe.read(&out.stdout).expect("readable")
    }

    #[test]
    fn this_machine_answers() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        std::fs::write(path("it's a file"), b"a\0b\n\n").expect("written");
        std::os::unix::fs::symlink("/dev/null", path("null")).expect("linked");
        std::os::unix::fs::symlink("/nowhere", path("link")).expect("linked");
        let inode =
            std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path("it's a file")).expect("there"));
        let mut swap = vec![0; 65536];
        std::fs::write(path("zero"), &swap).expect("written");
        // What mkswap writes: its version and page count at 1024, its magic at the end of the first page.
        swap[1024..1032].copy_from_slice(&[1, 0, 0, 0, 15, 0, 0, 0]);
        swap[4086..4096].copy_from_slice(b"SWAPSPACE2");
        std::fs::write(path("swap"), swap).expect("written");
        let sha = "ec0f3e2a1a5a5d1e8cf9d1a4f2cf6bc9c2b6a6f9bb5b1bb56a5cf0d1e7e1f0aa";
        let content =
            |name: &str, unless: &str| Question::Content { path: path(name), unless: unless.into() };
        let (facts, seen) = ask(vec![
            Question::Stat(path("it's a file")),
            Question::Stat(path("link")),
            Question::Stat(path("none")),
            content("it's a file", ""),
            content("it's a file", sha),
            content("none", sha),
            content(".", ""),
            Question::Checksum(path("it's a file")),
            Question::Checksum(path("link")),
            Question::Hostname,
            Question::Group("root".into()),
            Question::User("root".into()),
            Question::User("no-such-user".into()),
            Question::GroupsOf("no-such-user".into()),
            Question::Mount("/proc".into()),
            Question::Sysctl("kernel.ostype".into()),
            Question::Sysctl("no.such".into()),
            Question::Sysctl("kernel.pid_max".into()),
            Question::Swaps,
            Question::Guard("exit 3".into()),
            Question::Guard("if then".into()),
            Question::Guard("[ -z \"$(command -v f)\" ]".into()),
            Question::Module("no_such_module".into()),
            Question::Source("UUID=no such".into()),
            Question::Source(path("null")),
            Question::Device(path("zero")),
            Question::Device(path("swap")),
            Question::Device(path("none")),
            Question::Device("/proc/self/mem".into()),
        ]);
        let facts = facts.expect("asked for");
        assert!(!facts.kernel.is_empty() && facts.cpus > 0 && facts.memory_mib > 0, "{facts:?}");
        let get = |q: Question| seen.get(&q).cloned().expect("answered");
        let Answer::Stat(Some(stat)) = get(Question::Stat(path("it's a file"))) else { panic!() };
        assert_eq!((stat.file_type, stat.size), (FileType::File, 5));
        let Answer::Stat(Some(link)) = get(Question::Stat(path("link"))) else { panic!() };
        assert_eq!((link.file_type, link.target.as_str()), (FileType::Link, "/nowhere"));
        assert_eq!(get(Question::Stat(path("none"))), Answer::Stat(None));
        let bytes = Answer::Content(Content::Differs(b"a\0b\n\n".to_vec()));
        assert_eq!(get(content("it's a file", "")), bytes);
        assert_eq!(get(content("it's a file", sha)), bytes);
        let sum = crate::checksum::sha256_hex(b"a\0b\n\n");
        assert_eq!(get(Question::Checksum(path("it's a file"))), Answer::Checksum(Some(sum)));
        assert_eq!(get(Question::Checksum(path("link"))), Answer::Checksum(None));
        assert_eq!(get(content("none", sha)), Answer::Content(Content::Absent));
        assert_eq!(get(content(".", "")), Answer::Content(Content::NotAFile));
        assert_eq!((stat.identity.1, stat.identity.0 > 0), (inode, true));
        let ostype = Sysctl { value: "Linux".into(), writable: false };
        assert_eq!(get(Question::Sysctl("kernel.ostype".into())), Answer::Sysctl(Some(ostype)));
        assert_eq!(get(Question::Sysctl("no.such".into())), Answer::Sysctl(None));
        let Answer::Sysctl(Some(number)) = get(Question::Sysctl("kernel.pid_max".into())) else { panic!() };
        let whole = std::fs::read_to_string("/proc/sys/kernel/pid_max").expect("readable");
        assert_eq!(number.value, whole.trim());
        assert_eq!(get(Question::User("no-such-user".into())), Answer::User(None));
        assert_eq!(get(Question::GroupsOf("no-such-user".into())), Answer::GroupsOf(BTreeSet::new()));
        assert!(matches!(get(Question::User("root".into())), Answer::User(Some(User { uid: 0, .. }))));
        assert!(matches!(get(Question::Group("root".into())), Answer::Group(Some(Group { gid: 0, .. }))));
        assert!(matches!(get(Question::Mount("/proc".into())), Answer::Mount(Some(_))));
        assert_eq!(get(Question::Guard("exit 3".into())), Answer::Guard(3));
        assert_eq!(get(Question::Guard("if then".into())), Answer::Guard(2));
        assert_eq!(get(Question::Guard("[ -z \"$(command -v f)\" ]".into())), Answer::Guard(0));
        let Answer::Module(module) = get(Question::Module("no_such_module".into())) else { panic!() };
        assert!(
            matches!(module, crate::probe::Module::Missing | crate::probe::Module::NoModules),
            "{module:?}"
        );
        assert_eq!(get(Question::Source("UUID=no such".into())), Answer::Source(None));
        let null = Source { name: "/dev/null".into(), number: rustix::fs::makedev(1, 3) };
        assert_eq!(get(Question::Source(path("null"))), Answer::Source(Some(null)), "a link is followed");
        let Answer::Device(Some(swap)) = get(Question::Device(path("swap"))) else { panic!() };
        assert_eq!(swap["TYPE"], "swap");
        assert_eq!(get(Question::Device(path("zero"))), Answer::Device(Some(HashMap::new())));
        assert_eq!(get(Question::Device(path("none"))), Answer::Device(None));
        assert_eq!(
            get(Question::Device("/proc/self/mem".into())),
            Answer::Device(None),
            "unreadable is not empty"
        );
    }

    #[test]
    fn a_file_with_the_wanted_checksum_is_not_sent() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("f").to_string_lossy().into_owned();
        std::fs::write(&path, b"").expect("written");
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let question = Question::Content { path, unless: empty.into() };
        let (_, seen) = ask(vec![question.clone()]);
        assert_eq!(seen.get(&question), Some(&Answer::Content(Content::Same)));
    }

    #[test]
    fn packages_as_dpkg_writes_them() {
        let cases = [
            ("curl\tii \t8.1", Package { installed: true, version: "8.1".into(), ..Package::default() }),
            (
                "curl\thi \t8.1",
                Package { installed: true, held: true, version: "8.1".into(), ..Package::default() },
            ),
            ("curl\trc \t8.1", Package { config_files: true, version: "8.1".into(), ..Package::default() }),
            ("curl\tiF \t8.1", Package { broken: true, version: "8.1".into(), ..Package::default() }),
            ("curl\tun \t", Package::default()),
        ];
        for (line, expected) in cases {
            assert_eq!(read_package(line), Some(("curl", expected)), "{line:?}");
        }
    }

    #[test]
    fn every_module_in_sysfs_is_live() {
        let live: Vec<String> = std::fs::read_dir("/sys/module")
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        let (_, seen) = ask(live.iter().cloned().map(Question::Module).collect());
        for name in live {
            assert!(
                matches!(seen[&Question::Module(name.clone())], Answer::Module(m) if m.is_live()),
                "{name}"
            );
        }
    }

    #[test]
    fn octal_escapes_are_undone() {
        for (field, text) in
            [("/mnt/a\\040b", "/mnt/a b"), ("\\134040", "\\040"), ("a\\043\\", "a#\\"), ("\\0é", "\\0é")]
        {
            assert_eq!(unescape(field), text);
        }
    }

    #[test]
    fn units_as_systemctl_writes_them() {
        let seen = read_unit(
            "Type=oneshot\nRemainAfterExit=no\nResult=success\nId=a.service\nLoadState=loaded\nActiveState=inactive\n\
             SubState=dead\nFragmentPath=/etc/systemd/system/a.service\nUnitFileState=static\nNeedDaemonReload=yes\n\
             ConditionResult=no\nConditionTimestampMonotonic=545022520",
        );
        let expected = Unit {
            load: "loaded".into(),
            active: "inactive".into(),
            enabled: "static".into(),
            needs_daemon_reload: true,
            path: "/etc/systemd/system/a.service".into(),
            id: "a.service".into(),
            sub: "dead".into(),
            result: "success".into(),
            oneshot: true,
            condition: Some(false),
        };
        assert_eq!(seen, expected);
        let never =
            read_unit("Type=oneshot\nRemainAfterExit=yes\nConditionResult=no\nConditionTimestampMonotonic=0");
        assert_eq!((never.oneshot, never.condition), (false, None));
    }

    #[test]
    fn cpus_are_counted_from_ranges() {
        for (ranges, count) in [("0", 1), ("0-3", 4), ("0-3,5", 5), ("", 0)] {
            assert_eq!(count_cpus(ranges), count);
        }
    }
}
