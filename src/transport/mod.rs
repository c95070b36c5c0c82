//! How a script reaches a machine and its output comes back. The only layer that knows connections.
//!
//! A script goes to `sh` on standard input, as root; nothing it holds is ever in an argument list.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

mod collect;
pub mod local;
pub mod prompt;
pub mod scripted;
pub mod ssh;
pub mod sudo;

/// At most this much of a script's output is kept; more is an error ([`Error::TooMuch`]), never a hang.
pub const OUTPUT_LIMIT: usize = 32 * 1024 * 1024;

/// How often a held script is given a [`BEAT`].
pub const BEAT_EVERY: Duration = Duration::from_secs(10);
/// One byte on the input of a held script: its holder lives. A node may believe in a dead connection for hours.
const BEAT: &[u8] = b".";

/// What to run. The text is POSIX sh.
#[derive(Clone)]
pub struct Script {
    pub text: String,
    /// After this long without an end the step is given up.
    pub timeout: Duration,
    /// Whether standard output is the whole answer. Then the shell's own end need not be waited for, and the status
    /// is 0.
    pub whole: Option<fn(&[u8]) -> bool>,
}

impl Script {
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), timeout: Duration::from_secs(120), whole: None }
    }

    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// A script whose output says by itself where it ends; nothing may be left to do after that.
    pub fn until(mut self, whole: fn(&[u8]) -> bool) -> Self {
        self.whole = Some(whole);
        self
    }
}

/// What came back. Bytes, not text: a node may print anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Exit status; 128 + signal number for a signal.
    pub status: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// Why a node could not be spoken to. Each says what to do next in `hint`.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// `may_be_on`: something answered there but takes no connections, or it is the way to it that is at fault.
    #[error("cannot reach {address}: {why}")]
    Unreachable { address: String, why: String, may_be_on: bool },
    #[error("the host key of {host} has changed: expected {expected}, got {actual}")]
    HostKeyChanged { host: String, expected: String, actual: String, pinned: bool },
    #[error("the host key of {host} is not known ({fingerprint})")]
    HostKeyUnknown { host: String, fingerprint: String },
    #[error("the host key of {host} is revoked")]
    HostKeyRevoked { host: String },
    #[error("{user}@{host} refused to log in: tried {tried}")]
    Authentication { user: String, host: String, tried: String },
    #[error("{user} may not become root on {host}: {why}")]
    Sudo { user: String, host: String, why: String },
    #[error("the connection was lost: {0}")]
    Lost(String),
    #[error("nothing answers at {address} on the node: {why}")]
    Refused { address: String, why: String },
    #[error("the SSH server does not let connections through to {address}")]
    NotForwarded { address: String },
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("the node printed more than {} MiB; it began with {first:?}", OUTPUT_LIMIT / 1024 / 1024)]
    TooMuch { first: String },
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// Whether the same idempotent step may be tried again over a new connection.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Lost(_))
    }

    /// What the person at the keyboard can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unreachable { .. } => {
                "is the machine on, and is `host` right in the inventory? Try: ssh with the same address"
                    .into()
            }
            Self::HostKeyChanged { pinned: true, .. } => {
                "if the machine was installed anew, check its key on its own console, then correct `host_key` in the inventory; otherwise someone may be listening"
                    .into()
            }
            Self::HostKeyChanged { host, .. } => format!(
                "if the machine was installed anew, check its key on its own console, then run: ssh-keygen -R {host}; otherwise someone may be listening"
            ),
            Self::HostKeyUnknown { host, .. } => format!(
                "compare the fingerprint on the machine's console, then log in once with ssh {host}, pin `host_key` in the inventory, or set host_keys = \"accept-new\" under [ssh]"
            ),
            Self::HostKeyRevoked { .. } => {
                "the key is marked @revoked in known_hosts: do not log in there".into()
            }
            Self::Authentication { .. } => {
                "load the right key (ssh-add), or set `user` and `identity_file` under [ssh] or the node"
                    .into()
            }
            Self::Sudo { .. } => {
                "give the user a sudo right (a file in /etc/sudoers.d), or pass --ask-become-pass".into()
            }
            Self::Lost(_) => "run again: what was done stays done".into(),
            Self::Refused { .. } => "is the service running there? Try: systemctl status k3s".into(),
            Self::NotForwarded { .. } => {
                "set `AllowTcpForwarding local` in the node's sshd_config, allow the port in PermitOpen if that is set, and reload ssh"
                    .into()
            }
            Self::Timeout(_) => "see what hangs there: datahub exec --node NAME -- systemd-cgls".into(),
            Self::TooMuch { .. } => {
                "a login script may print without end: look at the shell's start-up files".into()
            }
            Self::Other(_) => return None,
        })
    }
}

pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Output, Error>> + Send + 'a>>;

/// The first line of a held script, and what keeps it alive.
pub type Holding<'a> = Pin<Box<dyn Future<Output = Result<(String, Hold), Error>> + Send + 'a>>;

/// A connection's two directions. Dropping it closes the connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A stream that is being opened.
pub type Opening<'a> = Pin<Box<dyn Future<Output = Result<Box<dyn Stream>, Error>> + Send + 'a>>;

/// What a script is fed with.
pub type Feed = Box<dyn AsyncRead + Send + Unpin>;

/// A stream that is being opened.
pub type Feeding<'a> = Pin<Box<dyn Future<Output = Result<Feed, Error>> + Send + 'a>>;

/// Input for [`Transport::feed`], opened when the script is ready for it.
pub trait Input: Send + Sync {
    /// `ready` is the first line the script printed: it may say what it has already.
    fn open<'a>(&'a self, ready: &'a str) -> Feeding<'a>;
}

/// A machine that scripts can be run on. Reconnects by itself when [`Transport::reconnect`] is asked for.
pub trait Transport: Send + Sync {
    /// Runs a script as root, its text on standard input, and waits for its end.
    fn run<'a>(&'a self, script: &'a Script) -> Answer<'a>;

    /// Starts a script as root that lives until the returned guard is dropped or the connection ends, and
    /// resolves with its first line of output. For locks: the script must end when its input does; every
    /// [`BEAT_EVERY`] a byte comes, so that it can end too when its holder has gone without a word.
    fn hold<'a>(&'a self, script: &'a Script) -> Holding<'a>;

    /// Opens a TCP connection from the machine to `host:port`: over SSH a direct-tcpip channel, so the port
    /// need not be open to anybody. [`Error::Refused`] when nothing listens there.
    fn open_stream<'a>(&'a self, host: &'a str, port: u16) -> Opening<'a>;

    /// Runs a script as root that prints a line once it is ready for input, and then gives it what `input` opens
    /// for that line. Waiting for the line is what keeps the shell, which reads ahead, and sudo, which may want
    /// a password first, from taking the input for theirs. A script that ends without a line is given nothing.
    fn feed<'a>(&'a self, script: &'a Script, input: &'a dyn Input) -> Answer<'a>;

    /// Opens a new connection in place of one that was lost.
    fn reconnect<'a>(&'a self) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

    /// Opens a further connection, becomes root over it and closes it: whether one can still log in.
    fn log_in_anew<'a>(&'a self) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

    /// How many scripts have been run: each is one round trip.
    fn round_trips(&self) -> usize;
}

/// Does what may be done twice; over a new connection if the old one was lost, as by a reboot of the machine.
pub async fn renewing<T, F>(transport: &dyn Transport, attempt: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    match attempt().await {
        Err(error) if error.retryable() => {
            transport.reconnect().await?;
            attempt().await
        }
        other => other,
    }
}

/// Keeps a held script alive; dropping it ends the script.
pub struct Hold(pub Box<dyn std::any::Any + Send + Sync>);

/// `127.0.0.1:6443`, `[::1]:6443`.
fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The error for an input that broke off on this side.
fn unreadable(error: &std::io::Error) -> Error {
    Error::Other(format!("cannot read what is to be sent: {error}"))
}

/// The error for a script that was to be held and ended instead.
fn ended_early(output: &Output) -> Error {
    let stderr = prompt::printable(String::from_utf8_lossy(&output.stderr).trim());
    Error::Other(format!("the script ended with status {} before its first line: {stderr}", output.status))
}
