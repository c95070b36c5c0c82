//! Questions to the person at the terminal. The picture is taken away while they answer.

use std::io::{BufRead as _, IsTerminal as _};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::line::Line;
use super::screen::{Screen, Stream};
use super::style::Style;
use crate::transport::prompt::{Prompter, Question, Secret};

/// Asks on the terminal.
pub struct Terminal(pub Arc<Screen>);

impl Prompter for Terminal {
    fn ask(&self, question: &Question) -> Option<Secret> {
        let _pause = self.0.pause();
        let prompt =
            Line::new().text(&question.text).text(if question.text.ends_with(':') { "" } else { ":" });
        let prompt = prompt.painted(false) + " ";
        match question.echo {
            false => rpassword::prompt_password(prompt)
                .map(Zeroizing::new)
                .map_err(|_| self.0.now("\n".into()))
                .ok(),
            true => {
                self.0.now(prompt);
                read_line()
            }
        }
    }
}

/// Asks a yes-or-no question; only `y` and `yes` are a yes. `None` when there is nobody to ask.
pub fn confirm(screen: &Screen, question: &str) -> Option<bool> {
    if !std::io::stdin().is_terminal() || !screen.is_terminal(Stream::Err) {
        return None;
    }
    let _pause = screen.pause();
    let prompt = Line::new().styled(Style::Strong, question).text(" [y/N]");
    screen.now(prompt.painted(screen.color(Stream::Err)) + " ");
    let answer = read_line()?;
    Some(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// `None` at the end of the input: Ctrl-D declines.
fn read_line() -> Option<Secret> {
    let mut line = Zeroizing::new(String::new());
    let read = std::io::stdin().lock().read_line(&mut line).ok()?;
    (read > 0).then(|| Zeroizing::new(line.trim_end_matches(['\n', '\r']).to_owned()))
}
