//! Asking the person at the keyboard for a secret. `ui` does the asking; this layer only says what for.

use std::sync::{Arc, LazyLock};

use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::printable::deceives;

/// A passphrase or password; wiped from memory when dropped, and without `Display`.
pub type Secret = Zeroizing<String>;

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// One line without control characters: `Password for kim@nas.home.arpa`.
    pub text: String,
    /// Whether the answer may be shown while it is typed.
    pub echo: bool,
}

impl Question {
    pub fn passphrase(path: &std::path::Path) -> Self {
        Self::secret(format!("Passphrase for {}", path.display()))
    }

    pub fn password(user: &str, host: &str) -> Self {
        Self::secret(format!("Password for {user}@{host}"))
    }

    pub fn sudo(user: &str, host: &str) -> Self {
        Self::secret(format!("sudo password for {user} on {host}"))
    }

    /// A prompt the server wrote; shown with the host's name so that it cannot pose as another's.
    pub fn interactive(host: &str, prompt: &str, echo: bool) -> Self {
        Self { text: printable(&format!("{host}: {}", prompt.trim())), echo }
    }

    fn secret(text: String) -> Self {
        Self { text: printable(&text), echo: false }
    }
}

/// Answers questions. Called on a thread that may block, one question at a time.
pub trait Prompter: Send + Sync {
    /// `None` when there is nobody to ask or they declined.
    fn ask(&self, question: &Question) -> Option<Secret>;
}

/// Declines every question: for runs without a terminal.
pub struct NoPrompts;

impl Prompter for NoPrompts {
    fn ask(&self, _: &Question) -> Option<Secret> {
        None
    }
}

/// Text from a node on one line, without what could deceive its reader: controls, direction overrides, characters
/// that cannot be seen.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { ' ' } else { c }).filter(|c| !deceives(*c)).collect()
}

static TURN: LazyLock<Mutex<()>> = LazyLock::new(Mutex::default);

/// Asks without holding up the other nodes' connections.
pub async fn ask(prompter: &Arc<dyn Prompter>, question: Question) -> Option<Secret> {
    let _turn = TURN.lock().await;
    let prompter = prompter.clone();
    tokio::task::spawn_blocking(move || prompter.ask(&question)).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_cannot_pose_as_something_else() {
        let question =
            Question::interactive("nas", "Pass\u{202e}\u{9b}31m\u{200b}word\nfor\u{7}:\u{1b}[2J ", false);
        assert_eq!(question.text, "nas: Pass31mword for:[2J");
    }
}
