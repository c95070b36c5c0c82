//! Artifacts: files of a release (a binary, an image archive) that are too large for a script. Pinned by checksum
//! in `datahub.lock`, kept in a cache on the operator's machine, and brought to nodes.
//!
//! [`lock`] is what is pinned, [`release`] where a release's files are, [`pins`] what its lists say, [`download`]
//! how all this is read, [`store`] the cache, [`push`] the way to a node, [`node`] the shell that runs there. No checksum is ever made up: each
//! comes from the release's own list, and a file that is not pinned is not used.

pub mod download;
pub mod lock;
pub mod node;
pub mod pins;
pub mod push;
pub mod release;
pub mod store;

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::checksum::short;
use crate::transport;

/// A file of a release, pinned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Its name in the release: `k3s-arm64`.
    pub file: String,
    /// The release's tag: `v1.36.3+k3s1`.
    pub version: String,
    /// Lower-case hex.
    pub sha256: String,
    /// Bytes, if the lock file knows.
    pub size: Option<u64>,
}

impl std::fmt::Display for Artifact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.file, self.version)
    }
}

/// How far something is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub done: u64,
    pub total: Option<u64>,
}

/// Told every few hundred kilobytes; must be quick.
pub type Report = Arc<dyn Fn(Progress) + Send + Sync>;

/// Why an artifact could not be had or brought.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("{0} is not in the cache, and the inventory has no [k3s] that says where releases are")]
    NoSource(String),
    #[error("cannot get {url}: {why}")]
    Unreachable { url: String, why: String },
    #[error("there is no {0}")]
    Missing(String),
    #[error("{from} is not a list of checksums: {why}")]
    NotAList { from: String, why: String },
    #[error("{artifact}, got from {from}, has the checksum {actual}, but {expected} is pinned")]
    Mismatch { artifact: String, from: String, expected: String, actual: String },
    #[error("{artifact}, got from {from}, is larger than the {} that are pinned", size(*.expected))]
    TooLarge { artifact: String, from: String, expected: u64 },
    #[error("cannot {doing}: {why}")]
    Local { doing: String, why: String },
    #[error("{artifact} could not be brought to the node: {why}")]
    Node { artifact: String, why: String },
    #[error("{artifact} arrived broken: the node says {}, not {}", short(.actual), short(.expected))]
    ArrivedBroken { artifact: String, expected: String, actual: String },
    #[error(transparent)]
    Transport(#[from] transport::Error),
}

impl Error {
    /// What the person at the keyboard can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoSource(_) => "add [k3s] with `version` to the inventory, then run: datahub lock".into(),
            Self::Unreachable { .. } => {
                "is this machine online, and is a proxy needed (HTTPS_PROXY)? What has arrived is kept: run again"
                    .into()
            }
            Self::Missing(_) => "check `version` and `source` under [k3s] in the inventory".into(),
            Self::NotAList { .. } => {
                "open it in a browser: a proxy or a log-in page may have answered instead".into()
            }
            Self::Mismatch { .. } | Self::TooLarge { .. } => {
                "do not use it. Somebody replaced the file, or changes it on the way; compare the checksums with those on the project's own page. If the release itself was replaced: datahub lock --force".into()
            }
            Self::Local { .. } => return None,
            Self::Node { .. } => "make room on the node if its disk is full, then run again".into(),
            Self::ArrivedBroken { .. } => {
                "its disk or memory may be failing: look at `dmesg` there, then run again".into()
            }
            Self::Transport(error) => return error.hint(),
        })
    }

    fn local(doing: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::Local { doing: format!("{doing} {}", path.display()), why: error.to_string() }
    }
}

/// A size for people: `512 B`, `70.2 MiB`.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}
