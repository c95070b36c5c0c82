//! Opening a session: hop by hop, each with its own host-key check and login.

use std::borrow::Cow;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use russh::ChannelOpenFailure;
use russh::client::{self, DisconnectReason, Handle};
use russh::keys::PublicKeyOrCertificate;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::config::Hop;
use super::host_key::HostKey;
use super::{Options, auth};
use crate::transport::Error;
use crate::transport::prompt::printable;

/// A logged-in connection. The jump hosts' handles keep its tunnel open.
pub struct Session {
    pub handle: Handle<Client>,
    _jumps: Vec<Handle<Client>>,
    ended: Arc<Mutex<Option<String>>>,
}

impl Session {
    /// Why the connection ended, as far as it is known.
    pub fn lost(&self, otherwise: &str) -> Error {
        Error::Lost(take(&self.ended).unwrap_or_else(|| otherwise.to_owned()))
    }
}

/// Answers the library's questions for one connection.
pub struct Client {
    host_key: HostKey,
    /// Why the host key was refused: the library only takes yes or no.
    refused: Arc<Mutex<Option<Error>>>,
    ended: Arc<Mutex<Option<String>>>,
}

fn put<T>(slot: &Mutex<Option<T>>, value: T) {
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
}

fn take<T: Clone>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let checked = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => self.host_key.check(key),
            PublicKeyOrCertificate::Certificate(_) => {
                Err(Error::Other("the server shows a host certificate, which is not supported".into()))
            }
        };
        let good = checked.is_ok();
        if let Err(error) = checked {
            put(&self.refused, error);
        }
        Ok(good)
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Self::Error>) -> Result<(), Self::Error> {
        match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                put(&self.ended, printable(&info.message));
                Ok(())
            }
            DisconnectReason::Error(e) => {
                put(&self.ended, e.to_string());
                Err(e)
            }
        }
    }
}

/// Connects and logs in along the route.
pub async fn open(route: &[Hop], options: &Options) -> Result<Session, Error> {
    let mut handles: Vec<Handle<Client>> = Vec::new();
    let mut ended = Arc::default();
    for (position, hop) in route.iter().enumerate() {
        let connected = AtomicBool::new(false);
        let reaching = reach(hop, handles.last(), options, &connected);
        let reached = timeout(options.connect_timeout, reaching).await;
        let reached = reached.map_err(|_| {
            let why = format!("no answer within {} s", options.connect_timeout.as_secs());
            unreachable_hop(hop, why, connected.load(Ordering::Relaxed))
        });
        let (mut handle, end) = reached.flatten().map_err(|error| match error {
            // It says nothing of the machine that was meant.
            Error::Unreachable { address, why, .. } if position + 1 < route.len() => {
                Error::Unreachable { address, why: format!("the jump host: {why}"), may_be_on: true }
            }
            other => other,
        })?;
        auth::log_in(&mut handle, hop, &options.prompter, options.agent.as_deref()).await?;
        handles.push(handle);
        ended = end;
    }
    let handle = handles.pop().ok_or_else(|| Error::Other("a route without a host".into()))?;
    Ok(Session { handle, _jumps: handles, ended })
}

type Reached = (Handle<Client>, Arc<Mutex<Option<String>>>);

/// The connection up to the agreed keys, through `before` if there is one. Notes in `connected` that the machine has
/// answered.
async fn reach(
    hop: &Hop,
    before: Option<&Handle<Client>>,
    options: &Options,
    connected: &AtomicBool,
) -> Result<Reached, Error> {
    let host_key =
        HostKey::new(&hop.host, hop.port, hop.policy, hop.pinned.as_deref(), &options.known_hosts)?;
    let config = Arc::new(settings(&host_key));
    let refused = Arc::new(Mutex::new(None));
    let ended = Arc::new(Mutex::new(None));
    let client = Client { host_key, refused: refused.clone(), ended: ended.clone() };
    let agreed = match before {
        None => {
            let stream = TcpStream::connect((hop.host.as_str(), hop.port)).await.map_err(|e| {
                // A name that is not known, say, tells nothing of the machine.
                let is_silent = matches!(e.kind(), ErrorKind::TimedOut | ErrorKind::HostUnreachable);
                unreachable_hop(hop, e.to_string(), !is_silent)
            })?;
            connected.store(true, Ordering::Relaxed);
            stream.set_nodelay(true).map_err(|e| unreachable_hop(hop, e.to_string(), true))?;
            client::connect_stream(config, stream, client).await
        }
        Some(jump) => {
            let tunnel = jump
                .channel_open_direct_tcpip(&hop.host, u32::from(hop.port), "127.0.0.1", 0)
                .await
                .map_err(|e| {
                    // Whatever else it says is of the jump host itself.
                    let is_silent =
                        matches!(e, russh::Error::ChannelOpenFailure(ChannelOpenFailure::ConnectFailed));
                    unreachable_hop(hop, tunnel_refused(&e), !is_silent)
                })?;
            connected.store(true, Ordering::Relaxed);
            client::connect_stream(config, tunnel.into_stream(), client).await
        }
    };
    match agreed {
        Ok(handle) => Ok((handle, ended)),
        Err(e) => Err(take(&refused).unwrap_or_else(|| unreachable_hop(hop, e.to_string(), true))),
    }
}

fn settings(host_key: &HostKey) -> client::Config {
    let mut preferred = russh::Preferred::DEFAULT;
    preferred.key = host_key.preferred(&preferred.key);
    // In hardware on nearly every machine; ChaCha20 takes twice the processor time.
    let mut ciphers = preferred.cipher.to_vec();
    ciphers.sort_by_key(|cipher| *cipher != russh::cipher::AES_256_GCM);
    preferred.cipher = Cow::Owned(ciphers);
    client::Config {
        nodelay: true,
        window_size: 8 * 1024 * 1024,
        maximum_packet_size: 32768,
        keepalive_interval: Some(super::KEEPALIVE),
        keepalive_max: super::KEEPALIVES,
        inactivity_timeout: Some(super::INACTIVITY),
        preferred,
        ..client::Config::default()
    }
}

fn unreachable_hop(hop: &Hop, why: String, may_be_on: bool) -> Error {
    Error::Unreachable { address: crate::transport::address(&hop.host, hop.port), why, may_be_on }
}

fn tunnel_refused(error: &russh::Error) -> String {
    match error {
        russh::Error::ChannelOpenFailure(ChannelOpenFailure::AdministrativelyProhibited) => {
            "the jump host does not forward (AllowTcpForwarding in its sshd_config)".into()
        }
        russh::Error::ChannelOpenFailure(ChannelOpenFailure::ConnectFailed) => {
            "the jump host cannot connect to it".into()
        }
        other => format!("through the jump host: {other}"),
    }
}

/// Where OpenSSH keeps known hosts; new ones go to the first.
pub fn default_known_hosts() -> Vec<PathBuf> {
    let own = std::env::home_dir().map(|home| home.join(".ssh/known_hosts"));
    own.into_iter().chain([PathBuf::from("/etc/ssh/ssh_known_hosts")]).collect()
}
