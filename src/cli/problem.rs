//! What a command that cannot go on says, and the exit codes.

use crate::diagnostic::Diagnostics;
use crate::transport;
use crate::ui::Ui;

/// How datahub ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or nothing to do.
    Done = 0,
    Failed = 1,
    /// Changes are pending: only when asked for with `--detailed-exitcode`.
    Pending = 2,
    /// A mistake in the command line, the inventory or a role.
    Usage = 64,
    /// By Ctrl-C.
    Interrupted = 130,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A reason to stop, with what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    message: String,
    hint: Option<String>,
    exit: Exit,
}

impl Problem {
    /// Something was asked for that cannot be.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
        Self { message: message.into(), hint: Some(hint.into()), exit: Exit::Usage }.into()
    }

    pub fn failed(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
        Self { message: message.into(), hint: Some(hint.into()), exit: Exit::Failed }.into()
    }
}

/// Shows an error once, whatever it is.
pub fn report(ui: &Ui, error: &anyhow::Error) -> Exit {
    if let Some(mistakes) = error.downcast_ref::<Diagnostics>() {
        ui.diagnostics(mistakes);
        return Exit::Usage;
    }
    let details: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
    let problem = error.downcast_ref::<Problem>();
    let hint = problem
        .and_then(|problem| problem.hint.clone())
        .or_else(|| error.downcast_ref::<transport::Error>().and_then(transport::Error::hint));
    ui.error(&error.to_string(), &details, hint.as_deref());
    problem.map_or(Exit::Failed, |problem| problem.exit)
}
