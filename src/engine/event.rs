//! What happens during a run, as it happens. The screen, the record and the exit code are all made from these.

use serde::Serialize;

use crate::resource::Difference;

/// An event of a run. `--format json` prints each as one line; fields are only ever added.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    RunStarted {
        run: String,
        /// Who runs it: `user@machine`.
        owner: String,
        /// RFC 3339, UTC.
        at: String,
        dry_run: bool,
        nodes: Vec<String>,
    },
    Connecting {
        node: String,
        address: String,
        /// As the inventory claims it.
        hostname: String,
        /// Numeric, where it is known.
        #[serde(skip_serializing_if = "Option::is_none")]
        ip: Option<String>,
    },
    Connected {
        node: String,
        milliseconds: u64,
    },
    /// A role waits for another one on other nodes.
    Waiting {
        node: String,
        role: String,
        on: String,
    },
    RoleStarted {
        node: String,
        role: String,
        resources: usize,
    },
    /// What the node is doing now; for the live line.
    Step {
        node: String,
        role: String,
        step: String,
        /// What a long step printed last, when it has gone on for a while.
        #[serde(skip_serializing_if = "Option::is_none")]
        says: Option<String>,
    },
    /// A resource differs. In a dry run nothing follows; else `Changed` or `NodeFailed`.
    Differs {
        node: String,
        role: String,
        resource: String,
        place: String,
        differences: Vec<Difference>,
        /// The handlers it notifies, in words: `restart ssh.service`.
        notify: Vec<String>,
    },
    /// Made so, and read back.
    Changed {
        node: String,
        role: String,
        resource: String,
        milliseconds: u64,
    },
    /// Cannot be told in a dry run.
    Unknown {
        node: String,
        role: String,
        resource: String,
        place: String,
        reason: String,
    },
    Note {
        node: String,
        role: String,
        resource: String,
        place: String,
        note: String,
    },
    /// A handler will run (dry run) or was notified.
    HandlerPending {
        node: String,
        role: String,
        handler: String,
        left_over: bool,
    },
    HandlerRun {
        node: String,
        role: String,
        handler: String,
        milliseconds: u64,
    },
    RoleFinished {
        node: String,
        role: String,
        changed: usize,
    },
    NodeFinished {
        node: String,
        summary: Summary,
    },
    NodeFailed {
        node: String,
        failure: Failure,
        summary: Summary,
    },
    /// Not started because something it depends on failed.
    NodeSkipped {
        node: String,
        role: String,
        reason: String,
    },
    Retrying {
        node: String,
        reason: String,
    },
    Interrupted {
        node: String,
        summary: Summary,
    },
    RunFinished {
        milliseconds: u64,
        round_trips: usize,
    },
}

/// What a node's run came to.
#[derive(Debug, Clone, Default, Serialize, PartialEq, Eq)]
pub struct Summary {
    /// Resources looked at.
    pub resources: usize,
    /// Resources changed, or, in a dry run, that would be.
    pub changed: usize,
    pub unknown: usize,
    pub handlers: usize,
    pub milliseconds: u64,
    pub round_trips: usize,
}

/// What went wrong on a node: what, where, why, and what to do next.
#[derive(Debug, Clone, Default, Serialize, PartialEq, Eq)]
pub struct Failure {
    /// `cannot apply package curl`
    pub message: String,
    pub role: Option<String>,
    pub resource: Option<String>,
    /// `builtin:roles/base/role.toml:12`
    pub place: Option<String>,
    /// The last lines the node printed, made printable, without secrets.
    pub output: Vec<String>,
    pub hint: Option<String>,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What the node printed last. A last line `hint: …` is what the step itself advises.
    pub fn printed(mut self, mut lines: Vec<String>) -> Self {
        if let Some(hint) = lines.last().and_then(|line| line.strip_prefix("hint: ")) {
            self.hint = Some(hint.to_owned());
            lines.pop();
        }
        self.output = lines;
        self
    }
}

/// Takes events; cheap to clone, usable from every task.
#[derive(Clone)]
pub struct Events(tokio::sync::mpsc::UnboundedSender<Event>);

impl Events {
    pub fn new() -> (Self, tokio::sync::mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    pub fn emit(&self, event: Event) {
        // A screen that has gone away must not stop a run.
        let _ = self.0.send(event);
    }
}
