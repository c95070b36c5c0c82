//! Typed, read-only questions to a node, asked all at once, and their typed answers.
//!
//! Questions of a kind are put together, so the number of processes on the node does not grow with the
//! number of resources. [`sh`] writes them out for POSIX sh and reads the answers back.

pub mod checksum;
pub mod facts;
pub mod frame;
pub mod sh;

use std::collections::{BTreeSet, HashMap};

pub use facts::Facts;

/// Something to ask of a node. Asking changes nothing there. Paths are absolute and without a newline.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Question {
    /// What stands at a path; links are not followed.
    Stat(String),
    /// A file's content, sent only if its SHA-256 (lower-case hex) is not `unless`. An empty `unless` always sends.
    Content { path: String, unless: String },
    /// The SHA-256 of a file too large for [`Question::Content`]; see [`checksum`].
    Checksum(String),
    /// A Debian package's state, by its name without architecture.
    Package(String),
    /// A systemd unit, with its suffix: `ssh.service`.
    Unit(String),
    /// A kernel setting in dotted form: its live value.
    Sysctl(String),
    /// Whether a kernel module is loaded or built in.
    Module(String),
    /// What is mounted at a path.
    Mount(String),
    /// A local account.
    User(String),
    /// A local group and its members.
    Group(String),
    /// The live host name.
    Hostname,
    /// The active swap areas.
    Swaps,
    /// A block device's signature (`blkid -p`).
    Device(String),
    /// The only free-form question: a guard's exit status. Must be read-only.
    Guard(String),
    /// Handlers that an earlier run notified and did not live to run.
    PendingHandlers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileType {
    File,
    Directory,
    Link,
    Other,
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    pub file_type: FileType,
    /// Permission bits, e.g. `0o644`.
    pub mode: u32,
    pub owner: String,
    pub group: String,
    /// Bytes.
    pub size: u64,
    /// Where a link points; empty for anything else.
    pub target: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Absent,
    /// The checksum is the one given in the question.
    Same,
    Differs(Vec<u8>),
    /// Larger than [`CONTENT_LIMIT`]; its size in bytes.
    TooLarge(u64),
    /// There is something, but not a regular file.
    NotAFile,
}

/// Files above this many bytes are compared by checksum and not shown.
pub const CONTENT_LIMIT: u64 = 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Package {
    /// Installed and configured.
    pub installed: bool,
    /// Known to dpkg in a state between (half-configured, unpacked, triggers pending).
    pub broken: bool,
    pub held: bool,
    /// Only its configuration files are left.
    pub config_files: bool,
    pub version: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unit {
    /// `loaded`, `not-found`, `masked`, `bad-setting`, `error`.
    pub load: String,
    /// `active`, `inactive`, `failed`, `activating`, …
    pub active: String,
    /// `enabled`, `disabled`, `static`, `masked`, `indirect`, … or empty.
    pub enabled: String,
    pub needs_daemon_reload: bool,
    /// `FragmentPath`.
    pub path: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// As in /proc/self/mounts, escapes decoded.
    pub device: String,
    pub fstype: String,
    pub options: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub gecos: String,
    pub home: String,
    pub shell: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub gid: u32,
    pub members: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Stat(Option<Stat>),
    Content(Content),
    /// Lower-case hex; `None`: no regular file, or one that cannot be read.
    Checksum(Option<String>),
    Package(Package),
    Unit(Unit),
    /// `None`: the kernel has no such setting.
    Sysctl(Option<String>),
    Module(bool),
    Mount(Option<Mount>),
    User(Option<User>),
    Group(Option<Group>),
    Hostname(String),
    /// Device or file names.
    Swaps(Vec<String>),
    /// Keys of `blkid -p -o export`; empty: no signature; `None`: no such device.
    Device(Option<HashMap<String, String>>),
    /// Exit status.
    Guard(i32),
    /// `role/handler`, sorted.
    PendingHandlers(Vec<String>),
}

/// The answers of one node, and its facts. A resource's `diff` reads these and nothing else.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    pub facts: Facts,
    map: HashMap<Question, Answer>,
}

/// A question that was not answered: a resource read what it had not asked, or the node left something out.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the node gave no answer about {0}")]
pub struct Unanswered(pub String);

macro_rules! accessors {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $argty:ty),*) -> $out:ty = $question:expr, $variant:ident;)*) => {
        impl Answers {
            $($(#[$doc])* pub fn $name(&self, $($arg: $argty),*) -> Result<&$out, Unanswered> {
                let question = $question;
                match self.map.get(&question) {
                    Some(Answer::$variant(answer)) => Ok(answer),
                    _ => Err(Unanswered(format!("{question:?}"))),
                }
            })*
        }
    };
}

accessors! {
    stat(path: &str) -> Option<Stat> = Question::Stat(path.into()), Stat;
    content(path: &str, unless: &str) -> Content = Question::Content { path: path.into(), unless: unless.into() }, Content;
    checksum(path: &str) -> Option<String> = Question::Checksum(path.into()), Checksum;
    package(name: &str) -> Package = Question::Package(name.into()), Package;
    unit(name: &str) -> Unit = Question::Unit(name.into()), Unit;
    sysctl(key: &str) -> Option<String> = Question::Sysctl(key.into()), Sysctl;
    module(name: &str) -> bool = Question::Module(name.into()), Module;
    mount(path: &str) -> Option<Mount> = Question::Mount(path.into()), Mount;
    user(name: &str) -> Option<User> = Question::User(name.into()), User;
    group(name: &str) -> Option<Group> = Question::Group(name.into()), Group;
    hostname() -> String = Question::Hostname, Hostname;
    swaps() -> Vec<String> = Question::Swaps, Swaps;
    device(path: &str) -> Option<HashMap<String, String>> = Question::Device(path.into()), Device;
    guard(script: &str) -> i32 = Question::Guard(script.into()), Guard;
    pending_handlers() -> Vec<String> = Question::PendingHandlers, PendingHandlers;
}

impl Answers {
    pub fn new(facts: Facts) -> Self {
        Self { facts, map: HashMap::new() }
    }

    pub fn insert(&mut self, question: Question, answer: Answer) {
        self.map.insert(question, answer);
    }

    /// Builder form of [`Answers::insert`], for tests that state what was seen.
    pub fn with(mut self, question: Question, answer: Answer) -> Self {
        self.insert(question, answer);
        self
    }

    /// Newer answers replace older ones.
    pub fn extend(&mut self, newer: HashMap<Question, Answer>) {
        self.map.extend(newer);
    }

    pub fn has(&self, question: &Question) -> bool {
        self.map.contains_key(question)
    }
}
