//! SSH: one connection a node, opened once and kept, every script a channel of its own.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, RwLock};

use super::prompt::{NoPrompts, Prompter, Secret};
use super::sudo::{Root, Way};
use super::{Answer, Error, Holding, Input, Opening, Output, Script, Stream, Transport};

mod auth;
mod channel;
pub mod config;
mod connect;
pub mod host_key;

use channel::{Fed, Held};
use connect::Session;

/// A peer that is silent for this long is asked for a sign of life.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// This many may go unanswered; a dead peer is noticed after `KEEPALIVE` × (`KEEPALIVES` + 1).
const KEEPALIVES: usize = 2;
/// For what keepalives do not see, a write that blocks. Their answers count as activity, so a script that
/// is silent for long is not cut off.
const INACTIVITY: Duration = Duration::from_secs(18);

/// What to do about a host key that is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Policy {
    #[default]
    Strict,
    /// Trust on first use: it is written to known_hosts. A changed key is refused all the same.
    AcceptNew,
}

/// Where to log in. What is `None` comes from ~/.ssh/config, then from the defaults of ssh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// An address, a name, or a Host of ~/.ssh/config.
    pub host: String,
    pub user: Option<String>,
    pub port: Option<u16>,
    /// May begin with `~/`.
    pub identity_file: Option<PathBuf>,
    /// `[user@]host[:port]`, comma-separated; `none` overrides ~/.ssh/config.
    pub proxy_jump: Option<String>,
    pub policy: Policy,
    /// A pinned key, `ssh-ed25519 AAAA…`; known_hosts is then not asked.
    pub host_key: Option<String>,
}

/// What holds for every connection of a run.
#[derive(Clone)]
pub struct Options {
    pub prompter: Arc<dyn Prompter>,
    /// For each hop: until its keys are agreed. The login is not counted, a person may be typing.
    pub connect_timeout: Duration,
    /// New keys go to the first.
    pub known_hosts: Vec<PathBuf>,
    /// The ssh_config file; `None` for none.
    pub config: Option<PathBuf>,
    /// The agent's socket; `None` for none.
    pub agent: Option<PathBuf>,
    /// Known beforehand (`--ask-become-pass`); used only where sudo wants one.
    pub sudo_password: Option<Secret>,
}

impl Default for Options {
    /// The files and the agent that `ssh` uses, and nobody to ask.
    fn default() -> Self {
        Self {
            prompter: Arc::new(NoPrompts),
            connect_timeout: Duration::from_secs(12),
            known_hosts: connect::default_known_hosts(),
            config: std::env::home_dir().map(|home| home.join(".ssh/config")),
            agent: std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).map(Into::into),
            sudo_password: None,
        }
    }
}

/// A machine reached over SSH.
pub struct Ssh {
    route: Vec<config::Hop>,
    options: Options,
    session: RwLock<Arc<Session>>,
    root: Root,
    round_trips: AtomicUsize,
    /// Something is being changed: one script follows the other.
    busy: AtomicBool,
    /// The shell that has run the script before, and waits for the next one.
    kept: Mutex<Option<Kept>>,
}

/// A shell that has become root. To start one for each of many small changes would take longer than they do.
struct Kept {
    session: Arc<Session>,
    command: &'static str,
    shell: channel::Started,
}

impl Ssh {
    /// Connects through all jump hosts and logs in.
    pub async fn connect(target: &Target, options: &Options) -> Result<Self, Error> {
        let route = config::route(target, options)?;
        let last = route.last().ok_or_else(|| Error::Other("a route without a host".into()))?;
        let root = Root::new(&last.user, &last.host, options.prompter.clone(), options.sudo_password.clone());
        let session = RwLock::new(Arc::new(connect::open(&route, options).await?));
        Ok(Self {
            route,
            options: options.clone(),
            session,
            root,
            round_trips: AtomicUsize::new(0),
            busy: AtomicBool::new(false),
            kept: Mutex::default(),
        })
    }

    async fn session(&self) -> Arc<Session> {
        self.round_trips.fetch_add(1, Ordering::Relaxed);
        self.session.read().await.clone()
    }

    /// Runs a script in a shell of its own, or between the others of a run.
    async fn run_way(&self, session: &Arc<Session>, way: &Way, script: &Script) -> Result<Output, Error> {
        let command = way.command();
        // Not where sudo waits for a password: one that it is never given counts as a failed attempt.
        if let (Some(whole), Way::Root | Way::Sudo) = (script.whole, way)
            && self.busy.load(Ordering::Relaxed)
        {
            let mut shell = self.shell(session, command).await?;
            let input = Way::further_input(&script.text);
            match channel::ask(session, &mut shell, &input, whole, script.timeout).await {
                Ok(output) if whole(&output.stdout) => {
                    *self.kept.lock().await = Some(Kept { session: session.clone(), command, shell });
                    return Ok(output);
                }
                // Something has ended the shell: a new one says what is the matter.
                Ok(_) | Err(Error::Lost(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let whole = script.whole.filter(|_| !way.is_check());
        channel::run(session, command, &way.input(&script.text), whole, script.timeout).await
    }

    /// The shell that waits for a script, or a new one. It is nobody else's until it is put back.
    async fn shell(&self, session: &Arc<Session>, command: &'static str) -> Result<channel::Started, Error> {
        let kept = self.kept.lock().await.take();
        if let Some(mut kept) =
            kept.filter(|kept| Arc::ptr_eq(&kept.session, session) && kept.command == command)
            && kept.shell.waits(session).await
        {
            return Ok(kept.shell);
        }
        channel::start(session, command).await
    }
}

impl Transport for Ssh {
    fn run<'a>(&'a self, script: &'a Script) -> Answer<'a> {
        Box::pin(async move {
            let mut way = self.root.way().await;
            loop {
                let session = self.session().await;
                let output = self.run_way(&session, &way, script).await?;
                match self.root.judge(&way, &output).await? {
                    Some(next) => way = next,
                    None => return Ok(output),
                }
            }
        })
    }

    fn hold<'a>(&'a self, script: &'a Script) -> Holding<'a> {
        Box::pin(async move {
            let mut way = self.root.way().await;
            loop {
                let session = self.session().await;
                let input = way.input(&script.text);
                let output = if way.is_check() {
                    channel::run(&session, way.command(), &input, None, script.timeout).await?
                } else {
                    match channel::hold(session, way.command(), &input, script.timeout).await? {
                        Held::Line(line, hold) => {
                            self.root.worked().await;
                            self.busy.store(true, Ordering::Relaxed);
                            return Ok((line, hold));
                        }
                        Held::Ended(output) => output,
                    }
                };
                match self.root.judge(&way, &output).await? {
                    Some(next) => way = next,
                    None => return Err(super::ended_early(&output)),
                }
            }
        })
    }

    fn open_stream<'a>(&'a self, host: &'a str, port: u16) -> Opening<'a> {
        Box::pin(async move {
            let session = self.session.read().await.clone();
            let limit = self.options.connect_timeout;
            let opened = tokio::time::timeout(limit, channel::tunnel(&session, host, port)).await;
            Ok(Box::new(opened.unwrap_or(Err(Error::Timeout(limit)))?) as Box<dyn Stream>)
        })
    }

    fn feed<'a>(&'a self, script: &'a Script, input: &'a dyn Input) -> Answer<'a> {
        Box::pin(async move {
            let mut way = self.root.way().await;
            loop {
                let session = self.session().await;
                let text = way.input(&script.text);
                let output = if way.is_check() {
                    channel::run(&session, way.command(), &text, None, script.timeout).await?
                } else {
                    match channel::feed(&session, way.command(), &text, input, script.timeout).await? {
                        Fed::Taken(output) => {
                            self.root.worked().await;
                            return Ok(output);
                        }
                        Fed::Refused(output) => output,
                    }
                };
                match self.root.judge(&way, &output).await? {
                    Some(next) => way = next,
                    None => return Ok(output),
                }
            }
        })
    }

    fn reconnect<'a>(&'a self) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>> {
        Box::pin(async move {
            // Held while connecting: of several scripts that lost the connection, one opens the new one.
            let before = Arc::as_ptr(&*self.session.read().await) as usize;
            let mut session = self.session.write().await;
            if Arc::as_ptr(&session) as usize == before {
                *session = Arc::new(connect::open(&self.route, &self.options).await?);
            }
            Ok(())
        })
    }

    fn log_in_anew<'a>(&'a self) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>> {
        Box::pin(async move {
            let session = connect::open(&self.route, &self.options).await?;
            let way = self.root.way().await;
            let limit = self.options.connect_timeout;
            let output = channel::run(&session, way.command(), &way.input("true"), None, limit).await?;
            match output.status {
                0 => Ok(()),
                _ => Err(super::ended_early(&output)),
            }
        })
    }

    fn round_trips(&self) -> usize {
        self.round_trips.load(Ordering::Relaxed)
    }
}
