//! Typed, read-only questions to a node, asked all at once, and their typed answers.
//!
//! Questions of a kind are put together, so the number of processes on the node does not grow with the
//! number of resources. [`sh`] writes them out for POSIX sh and reads the answers back.

pub mod accounts;
pub mod checksum;
pub mod facts;
mod files;
pub mod frame;
mod join_token;
mod module;
mod packages;
pub mod sh;
pub mod storage;
pub mod sysctl;
mod units;

use std::collections::{BTreeSet, HashMap};

pub use accounts::{AuthorizedKeys, Password};
pub use facts::Facts;

use crate::kube::secret::KeyRef;
use crate::kube::{ObjectSeen, ObjectWanted, SecretSeen};

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
    /// A kernel setting in dotted form: its live value, and whether it can be set here.
    Sysctl(String),
    /// A kernel module, by its own name (no alias).
    Module(String),
    /// What is mounted at a path.
    Mount(String),
    /// A local account.
    User(String),
    /// A local group and its members.
    Group(String),
    /// The groups that list a user as a member; not the user's own (primary) group.
    GroupsOf(String),
    /// An account's password: whether the SHA-256 (lower-case hex) of its crypt hash is `sha256`. Empty: not asked.
    Password { user: String, sha256: String },
    /// A user's `~/.ssh/authorized_keys`, looked at with that user's rights.
    AuthorizedKeys(String),
    /// The live host name.
    Hostname,
    /// The active swap areas.
    Swaps,
    /// A block device's signature (`blkid -p`).
    Device(String),
    /// Which device the first field of an fstab line (`UUID=…`, `/dev/disk/by-id/…`) means here.
    Source(String),
    /// The only free-form question: a guard's exit status. Must be read-only.
    Guard(String),
    /// Handlers that an earlier run notified and did not live to run.
    PendingHandlers,
    /// Whether the join token at `path` is for the K3s cluster that the agent's data directory belongs to.
    JoinToken { path: String, data_dir: String },
    /// A node of a cluster, as the API on `server` knows it; `server` is a node of the inventory.
    ClusterNode { server: String, node: String },
    /// An object of the cluster that the node is a server of, compared with what is wanted.
    ClusterObject(ObjectWanted),
    /// A Secret of that cluster: checksums, no values.
    ClusterSecret { namespace: String, name: String },
    /// One key of such a Secret.
    ClusterKey(KeyRef),
}

impl Question {
    /// Whether a cluster's API answers it, and not the node.
    pub fn is_of_cluster(&self) -> bool {
        matches!(
            self,
            Self::ClusterNode { .. }
                | Self::ClusterObject(_)
                | Self::ClusterSecret { .. }
                | Self::ClusterKey(_)
        )
    }
}

/// What is asked about, for messages. Never a guard's text or a checksum, which may tell of a secret.
impl std::fmt::Display for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stat(path) | Self::Content { path, .. } => f.write_str(path),
            Self::Checksum(path) => write!(f, "the checksum of {path}"),
            Self::Package(name) => write!(f, "the package {name}"),
            Self::Unit(name) => write!(f, "the unit {name}"),
            Self::Sysctl(key) => write!(f, "the kernel setting {key}"),
            Self::Module(name) => write!(f, "the kernel module {name}"),
            Self::Mount(path) => write!(f, "the mount at {path}"),
            Self::User(name) => write!(f, "the user {name}"),
            Self::Group(name) => write!(f, "the group {name}"),
            Self::GroupsOf(user) => write!(f, "the groups of {user}"),
            Self::Password { user, .. } => write!(f, "the password of {user}"),
            Self::AuthorizedKeys(user) => write!(f, "the authorized keys of {user}"),
            Self::Hostname => f.write_str("the host name"),
            Self::Swaps => f.write_str("swaps"),
            Self::Device(path) => write!(f, "the device {path}"),
            Self::Source(field) => write!(f, "the device {field}"),
            Self::Guard(_) => f.write_str("a command's guard"),
            Self::PendingHandlers => f.write_str("pending handlers"),
            Self::JoinToken { path, .. } => write!(f, "the join token {path}"),
            Self::ClusterNode { node, .. } => write!(f, "the cluster's node {node}"),
            Self::ClusterObject(wanted) => match wanted.reference() {
                Ok(object) => write!(f, "the cluster's {object}"),
                Err(_) => f.write_str("an object of the cluster"),
            },
            Self::ClusterSecret { namespace, name } => write!(f, "the cluster's Secret {namespace}/{name}"),
            Self::ClusterKey(key) => write!(f, "the cluster's Secret key {key}"),
        }
    }
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
    /// Device number and inode: two paths with the same ones are the same thing, as a bind mount and its source are.
    pub identity: (u64, u64),
}

/// A file with a token for joining a K3s cluster. The token itself never leaves the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinToken {
    Absent,
    /// Not in the secure form `K10<hash of the CA>::<credentials>`.
    Insecure,
    /// Secure, and the node has joined no cluster yet that it could be compared with.
    Unproven,
    Matches,
    /// For another cluster than the one the node's data belongs to.
    Foreign,
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
    /// `Id`: its own name, where the one asked for is an alias.
    pub id: String,
    /// `SubState`: `running`, `dead`, `exited`, `auto-restart`, …
    pub sub: String,
    /// `Result` of the last run: `success`, `exit-code`, …
    pub result: String,
    /// `Type=oneshot` without `RemainAfterExit`: inactive again once it has done its work.
    pub oneshot: bool,
    /// Whether its start conditions were met when it was last started. `None`: not tried since the boot, or
    /// forgotten: systemd drops what is inactive and not wanted by an active unit.
    pub condition: Option<bool>,
    /// `CPUUsageNSec`: what its processes have used so far, in ns. `None`: systemd does not count it.
    pub processor: Option<u64>,
}

/// A kernel setting's live value, its white space folded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    pub value: String,
    /// The kernel would let this process write it; not so in a container whose /proc/sys is read-only.
    pub writable: bool,
}

/// Where a kernel module is, for the kernel that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Module {
    /// Part of the kernel itself.
    BuiltIn,
    Loaded,
    /// Not loaded; its file is in /lib/modules.
    Available,
    /// Neither loaded nor in /lib/modules.
    Missing,
    /// Not loaded, and the running kernel has no folder in /lib/modules: WSL, a container, or a kernel package
    /// that was replaced and waits for a reboot.
    NoModules,
}

impl Module {
    /// Its code is in the running kernel.
    pub fn is_live(self) -> bool {
        matches!(self, Self::BuiltIn | Self::Loaded)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// As in /proc/self/mounts, escapes decoded.
    pub device: String,
    pub fstype: String,
    pub options: String,
}

/// The device that is meant by the first field of an fstab line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// As the mount table writes it: links followed, device-mapper devices by their name.
    pub name: String,
    /// What [`Stat::identity`] begins with for everything on it; 0 if it is not a device.
    pub number: u64,
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
    /// `None`: the kernel has no such setting, or none that can be read.
    Sysctl(Option<Sysctl>),
    Module(Module),
    Mount(Option<Mount>),
    User(Option<User>),
    Group(Option<Group>),
    GroupsOf(BTreeSet<String>),
    /// `None`: no such account.
    Password(Option<Password>),
    /// `None`: no such user.
    AuthorizedKeys(Option<AuthorizedKeys>),
    Hostname(String),
    /// Device or file names.
    Swaps(Vec<String>),
    /// Keys of `blkid -p -o export`; empty: it was read and has no signature. With several signatures that
    /// contradict each other the only key is `AMBIVALENT`. `None`: no such device, or it cannot be read.
    Device(Option<HashMap<String, String>>),
    /// `None`: no such device.
    Source(Option<Source>),
    /// Exit status.
    Guard(i32),
    /// `role/handler`, sorted.
    PendingHandlers(Vec<String>),
    JoinToken(JoinToken),
    /// The Node object, `None` if there is none. An error says why the API could not be asked.
    ClusterNode(Result<Option<serde_json::Value>, String>),
    /// An error says why the API could not be asked; likewise below.
    ClusterObject(Result<ObjectSeen, String>),
    /// `None`: there is no such Secret.
    ClusterSecret(Result<Option<SecretSeen>, String>),
    /// The value's SHA-256, lower-case hex; `None`: there is no such key.
    ClusterKey(Result<Option<String>, String>),
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
                    _ => Err(Unanswered(question.to_string())),
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
    sysctl(key: &str) -> Option<Sysctl> = Question::Sysctl(key.into()), Sysctl;
    module(name: &str) -> Module = Question::Module(name.into()), Module;
    mount(path: &str) -> Option<Mount> = Question::Mount(path.into()), Mount;
    user(name: &str) -> Option<User> = Question::User(name.into()), User;
    group(name: &str) -> Option<Group> = Question::Group(name.into()), Group;
    groups_of(user: &str) -> BTreeSet<String> = Question::GroupsOf(user.into()), GroupsOf;
    password(user: &str, sha256: &str) -> Option<Password> = Question::Password { user: user.into(), sha256: sha256.into() }, Password;
    authorized_keys(user: &str) -> Option<AuthorizedKeys> = Question::AuthorizedKeys(user.into()), AuthorizedKeys;
    hostname() -> String = Question::Hostname, Hostname;
    swaps() -> Vec<String> = Question::Swaps, Swaps;
    device(path: &str) -> Option<HashMap<String, String>> = Question::Device(path.into()), Device;
    source(field: &str) -> Option<Source> = Question::Source(field.into()), Source;
    guard(script: &str) -> i32 = Question::Guard(script.into()), Guard;
    pending_handlers() -> Vec<String> = Question::PendingHandlers, PendingHandlers;
    join_token(path: &str, data_dir: &str) -> JoinToken
        = Question::JoinToken { path: path.into(), data_dir: data_dir.into() }, JoinToken;
    cluster_node(server: &str, node: &str) -> Result<Option<serde_json::Value>, String>
        = Question::ClusterNode { server: server.into(), node: node.into() }, ClusterNode;
    cluster_object(wanted: &ObjectWanted) -> Result<ObjectSeen, String>
        = Question::ClusterObject(wanted.clone()), ClusterObject;
    cluster_secret(namespace: &str, name: &str) -> Result<Option<SecretSeen>, String>
        = Question::ClusterSecret { namespace: namespace.into(), name: name.into() }, ClusterSecret;
    cluster_key(key: &KeyRef) -> Result<Option<String>, String> = Question::ClusterKey(key.clone()), ClusterKey;
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
