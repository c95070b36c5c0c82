//! Resources: what should be. One file a type: its documentation, questions, diff, shell and tests together.
//!
//! A resource never holds a connection. It asks [`Question`]s, compares the [`Answers`] in a pure function,
//! and for what differs says which shell brings it about. To add a type: one file here, one line in the list below.

pub mod absent;
pub mod apt_repository;
pub mod artifact;
pub mod authorized_key;
pub mod block;
pub mod boot_arguments;
pub mod command;
pub mod directory;
pub mod edit;
pub mod file;
pub mod fstab;
pub mod group;
pub mod helm_chart;
pub mod hostname;
pub mod hosts;
pub mod hosts_entry;
pub mod k3s_join;
pub mod kernel_module;
pub mod kube_node;
pub mod kube_object;
pub mod kube_secret;
pub mod line;
pub mod link;
pub mod mount;
mod mount_options;
pub mod package;
pub mod random_file;
pub mod reach;
pub mod swap;
pub mod sysctl;
pub mod systemd;
#[cfg(test)]
mod testing;
pub mod text;
pub mod timer;
pub mod timezone;
pub mod unit;
pub mod user;

use std::time::Duration;

pub use reach::Reach;

use crate::kube::{NodeWanted, ObjectWanted, SecretWanted};
use crate::probe::{Answers, Question, Unanswered};

/// What a comparison came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Converged,
    Differs(Change),
    /// Cannot be told before earlier changes are made (a unit whose package is not there yet); the reason.
    Unknown(String),
    /// Must not be done; the reason and what to do instead.
    Refused(String),
}

impl Verdict {
    /// One verdict about several parts, which are mended in this order: a refusal speaks for the whole, then what
    /// cannot be known.
    pub fn all(parts: impl IntoIterator<Item = Verdict>) -> Self {
        let (mut whole, mut unknown) = (None::<Change>, None);
        for part in parts {
            match part {
                Self::Converged => {}
                Self::Refused(_) => return part,
                Self::Unknown(_) => unknown = unknown.or(Some(part)),
                Self::Differs(change) => match &mut whole {
                    Some(whole) => whole.append(change),
                    None => whole = Some(change),
                },
            }
        }
        unknown.or(whole.map(Self::Differs)).unwrap_or(Self::Converged)
    }

    /// Runs `shell` before the change, if there is one.
    pub fn preceded_by(self, shell: &str) -> Self {
        match self {
            Self::Differs(change) => {
                Self::Differs(Change { shell: format!("{shell}{}", change.shell), ..change })
            }
            other => other,
        }
    }

    /// Runs `shell` after the change, if there is one.
    pub fn followed_by(self, shell: &str) -> Self {
        match self {
            Self::Differs(change) => {
                Self::Differs(Change { shell: format!("{}{shell}", change.shell), ..change })
            }
            other => other,
        }
    }
}

/// What differs and the one script that mends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Never empty. Each is a line (or a text diff) of its own in the plan.
    pub differences: Vec<Difference>,
    /// POSIX sh, run as root. Must be idempotent: it may run again after a lost connection. It ends with a
    /// status other than 0 when it did not succeed, and stderr then says why.
    pub shell: String,
    pub timeout: Duration,
    /// A file that must be on the node before `shell` is run: the engine brings it there.
    pub transfer: Option<Box<Transfer>>,
    /// A secret of another node that `shell` needs.
    pub fetch: Option<Box<Fetch>>,
    /// What is done through the cluster's API, after `shell`.
    pub cluster: Option<Box<ClusterCall>>,
    /// Runs on by itself when the connection drops and is picked up again. Not for scripts that hold secrets.
    pub long: bool,
    /// It runs what somebody else wrote, which may print without end.
    pub prints: bool,
    /// Whether it stays as it is shows only a moment later: shell that fails, and says why, if it has not.
    pub settles: Option<String>,
    /// Only once all that was started before it has settled.
    pub after_settling: bool,
    /// What `shell` starts it starts last, with all that it has changed: a handler need not restart it once more.
    pub starts_last: bool,
}

impl Change {
    pub fn new(differences: Vec<Difference>, shell: impl Into<String>) -> Self {
        let timeout = Duration::from_secs(120);
        let shell = shell.into();
        Self {
            differences,
            shell,
            timeout,
            transfer: None,
            fetch: None,
            cluster: None,
            long: false,
            prints: false,
            settles: None,
            after_settling: false,
            starts_last: false,
        }
    }

    fn append(&mut self, next: Self) {
        self.differences.extend(next.differences);
        self.shell.push_str(&next.shell);
        self.timeout = self.timeout.max(next.timeout);
        self.long |= next.long;
        self.prints |= next.prints;
        self.starts_last &= next.starts_last;
        self.after_settling |= next.after_settling;
        self.settles = match (self.settles.take(), next.settles) {
            (Some(own), Some(next)) => Some(own + &next),
            (own, next) => own.or(next),
        };
        self.transfer = self.transfer.take().or(next.transfer);
        self.fetch = self.fetch.take().or(next.fetch);
        self.cluster = self.cluster.take().or(next.cluster);
    }

    /// A change that needs a file brought to the node first.
    pub fn transfer(mut self, transfer: Transfer) -> Self {
        self.transfer = Some(Box::new(transfer));
        self
    }

    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// A long step, with the time it may take.
    pub fn long(mut self, timeout: Duration) -> Self {
        self.long = true;
        self.timeout = timeout;
        self
    }
}

/// A file too large for a script, to be brought to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    pub artifact: crate::artifact::Artifact,
    /// Its destination. It arrives beside it; putting it in place is for the change's `shell`.
    pub path: String,
}

/// A secret that only another node has. The engine reads it there and hands it to the change's `shell` in the
/// variable `fetched`, which is not exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// A node of the inventory.
    pub node: String,
    /// POSIX sh that prints it, and fails with a reason on stderr when there is none.
    pub script: String,
    /// For messages: "the join token".
    pub what: &'static str,
}

/// A change that is not the node's own to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterCall {
    /// Waits until a node has joined and is Ready, and gives it what is wanted.
    Node { server: String, node: String, wanted: NodeWanted, limit: Duration },
    /// Brings an object of the cluster that the node is a server of to this form, and waits for what is expected.
    Object { wanted: ObjectWanted, limit: Duration },
    /// The same for a Secret.
    Secret(SecretWanted),
}

/// One thing that differs, for people and for JSON.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case", tag = "difference")]
pub enum Difference {
    /// `mode: 0600 → 0644`; `before` or `after` is `None` for what is absent.
    Value { attribute: String, before: Option<String>, after: Option<String> },
    /// Text, shown as a unified diff.
    Text { path: String, before: Option<String>, after: Option<String> },
    /// Something that must not be shown: "differs (secret)".
    Secret { attribute: String },
}

impl Difference {
    pub fn value(attribute: impl Into<String>, before: Option<&str>, after: Option<&str>) -> Self {
        Self::Value {
            attribute: attribute.into(),
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
        }
    }
}

/// A thing that should be. `diff` is pure: the same answers give the same verdict.
pub trait Resource: std::fmt::Debug + Send + Sync {
    /// What identifies it among those of its type: a path, a name. Shown as `file /etc/hosts`.
    fn name(&self) -> String;

    fn questions(&self) -> Vec<Question>;

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered>;

    /// What is true but worth a line, whether or not anything differs: a live value a container cannot have.
    fn notes(&self, _seen: &Answers) -> Vec<String> {
        Vec::new()
    }

    /// What a change of it may change besides itself.
    fn reach(&self) -> Reach {
        Reach::Anything
    }

    /// What the log of a unit says when that will never get up, if this is what starts the unit.
    fn fails_on(&self, _unit: &str) -> Option<&systemd::FailsOn> {
        None
    }

    /// What is wrong with its fields taken together (`content` and `template` both given), found offline.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Why a table of a role could not become a resource: the field's path (`mode`, `names[2]`) and the reason.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{path}: {message}")]
pub struct BuildError {
    pub path: String,
    pub message: String,
}

macro_rules! resource_types {
    ($($module:ident::$type:ident as $kind:literal;)*) => {
        /// The names of all types, as they stand in a role's `[[resource]]` tables.
        pub const KINDS: &[&str] = &[$($kind),*];

        /// Builds a resource of type `kind` from its table, whose strings are no longer templates.
        pub fn build(kind: &str, table: toml::Value) -> Result<Box<dyn Resource>, BuildError> {
            match kind {
                $($kind => typed::<$module::$type>(table),)*
                _ => Err(BuildError { path: String::new(), message: format!("unknown resource type `{kind}`") }),
            }
        }
    };
}

resource_types! {
    absent::Absent as "absent";
    apt_repository::AptRepository as "apt_repository";
    artifact::Artifact as "artifact";
    authorized_key::AuthorizedKey as "authorized_key";
    block::Block as "block";
    boot_arguments::BootArguments as "boot_arguments";
    command::Command as "command";
    directory::Directory as "directory";
    file::File as "file";
    group::Group as "group";
    helm_chart::HelmChart as "helm_chart";
    hostname::Hostname as "hostname";
    hosts::Hosts as "hosts";
    hosts_entry::HostsEntry as "hosts_entry";
    k3s_join::K3sJoin as "k3s_join";
    kernel_module::KernelModule as "kernel_module";
    kube_node::KubeNode as "kube_node";
    kube_object::KubeObject as "kube_object";
    kube_secret::KubeSecret as "kube_secret";
    line::Line as "line";
    link::Link as "link";
    mount::Mount as "mount";
    package::Package as "package";
    random_file::RandomFile as "random_file";
    swap::Swap as "swap";
    sysctl::Sysctl as "sysctl";
    timer::Timer as "timer";
    timezone::Timezone as "timezone";
    unit::Unit as "unit";
    user::User as "user";
}

fn typed<T: Resource + serde::de::DeserializeOwned + 'static>(
    table: toml::Value,
) -> Result<Box<dyn Resource>, BuildError> {
    let resource: T = serde_path_to_error::deserialize(table).map_err(|e| BuildError {
        path: e.path().to_string(),
        message: e.inner().to_string().trim().to_owned(),
    })?;
    resource.check().map_err(|message| BuildError { path: String::new(), message })?;
    Ok(Box::new(resource))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differs(name: &str) -> Verdict {
        Verdict::Differs(Change::new(vec![Difference::value(name, None, None)], format!("{name}\n")))
    }

    #[test]
    fn a_verdict_about_parts_is_the_gravest_of_theirs() {
        let (unknown, refused) = (|| Verdict::Unknown("why".into()), || Verdict::Refused("why".into()));
        assert_eq!(Verdict::all([]), Verdict::Converged);
        assert_eq!(Verdict::all([Verdict::Converged, Verdict::Converged]), Verdict::Converged);
        assert_eq!(Verdict::all([differs("a"), unknown(), differs("b")]), unknown());
        assert_eq!(Verdict::all([unknown(), differs("a"), refused()]), refused());

        let long = match differs("b") {
            Verdict::Differs(change) => Verdict::Differs(change.long(Duration::from_secs(600))),
            other => other,
        };
        let Verdict::Differs(both) = Verdict::all([differs("a"), Verdict::Converged, long]) else {
            panic!("differs")
        };
        assert_eq!((both.shell.as_str(), both.differences.len()), ("a\nb\n", 2));
        assert_eq!((both.timeout, both.long), (Duration::from_secs(600), true));
    }

    #[test]
    fn shell_around_a_change_runs_only_with_it() {
        assert_eq!(Verdict::Converged.preceded_by("x\n").followed_by("y\n"), Verdict::Converged);
        let Verdict::Differs(change) = differs("a").preceded_by("x\n").followed_by("y\n") else {
            panic!("differs")
        };
        assert_eq!(change.shell, "x\na\ny\n");
    }
}
