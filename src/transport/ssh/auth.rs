//! Logging in: the agent, key files, keyboard-interactive, password, in the order OpenSSH tries them.

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey};
use russh::{MethodKind, MethodSet};
use tokio::sync::Mutex;

use super::config::Hop;
use super::connect::Client;
use crate::transport::Error;
use crate::transport::prompt::{self, Prompter, Question, Secret};

/// Rounds of keyboard-interactive questions; a server may ask for ever.
const MAX_ROUNDS: usize = 8;

/// Decrypting a key takes long and its passphrase is asked for once: every connection of the process shares
/// the result, also that nobody knew the passphrase.
static KEYS: LazyLock<Mutex<HashMap<PathBuf, Decoded>>> = LazyLock::new(Mutex::default);

/// A key, or why it cannot be used.
type Decoded = Result<Arc<PrivateKey>, String>;

/// Passwords that have worked, by `user@host:port`, so that a reconnect asks nobody.
static PASSWORDS: LazyLock<Mutex<HashMap<String, Secret>>> = LazyLock::new(Mutex::default);

/// Logs in to one hop, or says everything that was tried.
pub async fn log_in(
    handle: &mut Handle<Client>,
    hop: &Hop,
    prompter: &Arc<dyn Prompter>,
    agent: Option<&Path>,
) -> Result<(), Error> {
    let mut attempt = Attempt { handle, hop, prompter, allowed: None, tried: Vec::new() };
    if attempt.all(agent).await? {
        return Ok(());
    }
    let mut tried = attempt.tried;
    if attempt.handle.is_closed() {
        tried.push("then the server hung up (too many attempts?)".into());
    }
    if tried.is_empty() {
        tried.push("nothing: no agent, no key file, nobody to ask for a password".into());
    }
    if let Some(allowed) = attempt.allowed {
        let names: Vec<&str> = allowed.iter().map(<&str>::from).collect();
        tried.push(format!("the server takes {}", names.join(", ")));
    }
    Err(Error::Authentication { user: hop.user.clone(), host: hop.host.clone(), tried: tried.join("; ") })
}

struct Attempt<'a> {
    handle: &'a mut Handle<Client>,
    hop: &'a Hop,
    prompter: &'a Arc<dyn Prompter>,
    /// What the server takes; not known before its first refusal.
    allowed: Option<MethodSet>,
    tried: Vec<String>,
}

impl Attempt<'_> {
    async fn all(&mut self, agent: Option<&Path>) -> Result<bool, Error> {
        if self.agent(agent).await? || self.files().await? {
            return Ok(true);
        }
        if self.allowed.is_none() {
            let answer = self.handle.authenticate_none(&self.hop.user).await;
            if self.note(answer)? {
                return Ok(true);
            }
        }
        Ok(self.interactive().await? || self.password().await?)
    }

    fn may(&self, method: MethodKind) -> bool {
        !self.handle.is_closed() && self.allowed.as_ref().is_none_or(|allowed| allowed.contains(&method))
    }

    fn note(&mut self, answer: Result<AuthResult, russh::Error>) -> Result<bool, Error> {
        match answer.map_err(|e| Error::Lost(format!("while logging in to {}: {e}", self.hop.host)))? {
            AuthResult::Success => Ok(true),
            AuthResult::Failure { remaining_methods, .. } => {
                // A server that hangs up comes back as a refusal of everything.
                if !self.handle.is_closed() {
                    self.allowed = Some(remaining_methods);
                }
                Ok(false)
            }
        }
    }

    async fn agent(&mut self, socket: Option<&Path>) -> Result<bool, Error> {
        let Some(socket) = socket else { return Ok(false) };
        let listed = async {
            let mut agent = AgentClient::connect_uds(socket).await?;
            let identities = agent.request_identities().await?;
            Ok::<_, russh::keys::Error>((agent, identities))
        };
        let (mut agent, mut identities) = match tokio::time::timeout(Duration::from_secs(5), listed).await {
            Ok(Ok(found)) => found,
            Ok(Err(e)) => {
                self.tried.push(format!("agent ({e})"));
                return Ok(false);
            }
            Err(_) => {
                self.tried.push("agent (no answer)".into());
                return Ok(false);
            }
        };
        // Servers allow few attempts: the keys asked for by name go first.
        let wanted: Vec<PublicKey> =
            self.hop.identity_files.iter().filter_map(|path| public_half(path)).collect();
        let is_wanted = |identity: &AgentIdentity| {
            wanted.iter().any(|key| key.key_data() == identity.public_key().key_data())
        };
        if self.hop.identities_only {
            identities.retain(is_wanted);
        }
        identities.sort_by_key(|identity| !is_wanted(identity));
        for identity in identities {
            if !self.may(MethodKind::PublicKey) {
                break;
            }
            let hash = self.hash(&identity.public_key()).await;
            let user = &self.hop.user;
            let (comment, answer) = match identity {
                AgentIdentity::PublicKey { key, comment } => {
                    let answer = self.handle.authenticate_publickey_with(user, key, hash, &mut agent).await;
                    (comment, answer)
                }
                AgentIdentity::Certificate { certificate, comment } => {
                    let answer =
                        self.handle.authenticate_certificate_with(user, certificate, hash, &mut agent).await;
                    (comment, answer)
                }
            };
            match answer {
                Ok(answer) => {
                    if self.note(Ok(answer))? {
                        return Ok(true);
                    }
                    self.tried.push(format!("agent key {}", prompt::printable(&comment)));
                }
                Err(e) => self.tried.push(format!("agent key {} ({e})", prompt::printable(&comment))),
            }
        }
        Ok(false)
    }

    async fn files(&mut self) -> Result<bool, Error> {
        let hop = self.hop;
        for (at, path) in hop.identity_files.iter().enumerate() {
            if !self.may(MethodKind::PublicKey) {
                break;
            }
            if !path.exists() {
                if at < hop.named {
                    self.tried.push(format!("{} (no such file)", path.display()));
                }
                continue;
            }
            match patiently(self.handle, load(path, self.prompter)).await {
                Ok(key) => {
                    let hash = self.hash(key.public_key()).await;
                    let key = PrivateKeyWithHashAlg::new(key, hash);
                    let answer = self.handle.authenticate_publickey(&hop.user, key).await;
                    if self.note(answer)? {
                        return Ok(true);
                    }
                    self.tried.push(path.display().to_string());
                }
                Err(why) => self.tried.push(format!("{} ({why})", path.display())),
            }
        }
        Ok(false)
    }

    /// RSA keys sign with SHA-512 unless the server only knows SHA-256; never with SHA-1.
    async fn hash(&self, key: &PublicKey) -> Option<HashAlg> {
        if !key.algorithm().is_rsa() {
            return None;
        }
        match self.handle.best_supported_rsa_hash().await {
            Ok(Some(Some(hash))) => Some(hash),
            _ => Some(HashAlg::Sha512),
        }
    }

    async fn interactive(&mut self) -> Result<bool, Error> {
        use KeyboardInteractiveAuthResponse as Response;
        if !self.may(MethodKind::KeyboardInteractive) {
            return Ok(false);
        }
        let lost = |e: russh::Error| Error::Lost(format!("while logging in: {e}"));
        let user = self.hop.user.clone();
        let mut response =
            self.handle.authenticate_keyboard_interactive_start(user, None::<String>).await.map_err(lost)?;
        for _ in 0..MAX_ROUNDS {
            let prompts = match response {
                Response::Success => return Ok(true),
                Response::Failure { remaining_methods, partial_success } => {
                    self.tried.push("keyboard-interactive".into());
                    return self.note(Ok(AuthResult::Failure { remaining_methods, partial_success }));
                }
                Response::InfoRequest { prompts, .. } => prompts,
            };
            // The last round has no prompts, and wants an empty answer.
            let mut answers = Vec::new();
            for asked in prompts {
                let question = Question::interactive(&self.hop.host, &asked.prompt, asked.echo);
                match patiently(self.handle, prompt::ask(self.prompter, question)).await {
                    Some(answer) => answers.push(answer.to_string()),
                    None => {
                        self.tried.push("keyboard-interactive (nobody to ask)".into());
                        return Ok(false);
                    }
                }
            }
            response = self.handle.authenticate_keyboard_interactive_respond(answers).await.map_err(lost)?;
        }
        self.tried.push("keyboard-interactive (the server does not stop asking)".into());
        Ok(false)
    }

    async fn password(&mut self) -> Result<bool, Error> {
        if !self.may(MethodKind::Password) {
            return Ok(false);
        }
        let Hop { host, user, port, .. } = self.hop;
        let login = format!("{user}@{host}:{port}");
        let known = PASSWORDS.lock().await.get(&login).cloned();
        let password = match known {
            Some(password) => Some(password),
            None => patiently(self.handle, prompt::ask(self.prompter, Question::password(user, host))).await,
        };
        let Some(password) = password else {
            self.tried.push("password (nobody to ask)".into());
            return Ok(false);
        };
        let answer = self.handle.authenticate_password(user, password.as_str()).await;
        let done = self.note(answer)?;
        if done {
            PASSWORDS.lock().await.insert(login, password);
        } else {
            self.tried.push("password".into());
        }
        Ok(done)
    }
}

/// Waits for a person without the connection being given up as idle: before the login there are no
/// keepalives of its own.
async fn patiently<T>(handle: &Handle<Client>, waiting: impl Future<Output = T>) -> T {
    let mut waiting = std::pin::pin!(waiting);
    loop {
        tokio::select! {
            answer = &mut waiting => return answer,
            () = tokio::time::sleep(super::KEEPALIVE) => {
                // A failure shows at the next use of the handle.
                let _ = handle.send_keepalive(false).await;
            }
        }
    }
}

fn public_half(path: &Path) -> Option<PublicKey> {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    russh::keys::load_public_key(PathBuf::from(name)).ok()
}

async fn load(path: &Path, prompter: &Arc<dyn Prompter>) -> Decoded {
    // Held while asking, so that nodes side by side ask once.
    let mut keys = KEYS.lock().await;
    if let Some(known) = keys.get(path) {
        return known.clone();
    }
    let key = match decode(path, None).await {
        Err(russh::keys::Error::KeyIsEncrypted) => {
            match prompt::ask(prompter, Question::passphrase(path)).await {
                None => Err("encrypted, and nobody to ask for the passphrase".into()),
                Some(passphrase) => {
                    decode(path, Some(passphrase)).await.map_err(|_| "wrong passphrase".into())
                }
            }
        }
        plain => plain.map_err(|e| e.to_string()),
    };
    let key = key.map(Arc::new);
    keys.insert(path.to_owned(), key.clone());
    key
}

async fn decode(path: &Path, passphrase: Option<Secret>) -> Result<PrivateKey, russh::keys::Error> {
    let path = path.to_owned();
    let work = move || russh::keys::load_secret_key(path, passphrase.as_ref().map(|p| p.as_str()));
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(russh::keys::Error::CouldNotReadKey))
}
