//! What a lab tells while it works. Each displays as one sentence without a full stop.

use std::fmt;
use std::path::PathBuf;

/// Where progress goes. Called from several threads.
pub type Report<'a> = &'a (dyn Fn(Progress) + Sync);

/// Something that is happening, or has just happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Tools are missing and being installed on this computer.
    Installing {
        packages: Vec<String>,
    },
    /// Another process is at work on the same thing; this one waits for it.
    Waiting {
        on: String,
    },
    /// A base image is being made, which is needed once.
    Building {
        release: String,
        log: PathBuf,
    },
    Built {
        release: String,
    },
    /// The lab's network is there; `subnet` in CIDR notation.
    Network {
        subnet: String,
    },
    Starting {
        node: String,
        address: String,
    },
    /// The machine takes SSH logins.
    Ready {
        node: String,
        address: String,
    },
    Stopping {
        lab: String,
    },
    /// What plays a release of K3s.
    K3s {
        version: String,
        from: String,
    },
    /// Something a person should know, about a node or about the lab.
    Note {
        node: Option<String>,
        text: String,
    },
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installing { packages } => write!(f, "installing {} on this computer", packages.join(", ")),
            Self::Waiting { on } => write!(f, "waiting for another process: {on}"),
            Self::Building { release, log } => write!(
                f,
                "building the base image of {release}, once, about a minute (log: {})",
                log.display()
            ),
            Self::Built { release } => write!(f, "the base image of {release} is ready"),
            Self::Network { subnet } => write!(f, "the lab's network is {subnet}"),
            Self::Starting { node, address } => write!(f, "{node}: starting at {address}"),
            Self::Ready { node, address } => write!(f, "{node}: ready at {address}"),
            Self::Stopping { lab } => write!(f, "stopping the lab {lab}"),
            Self::K3s { version, from } => write!(f, "K3s {version} {from}"),
            Self::Note { node: Some(node), text } => write!(f, "{node}: {text}"),
            Self::Note { node: None, text } => f.write_str(text),
        }
    }
}
