//! Why the simulation could not do what it was started for.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use super::config::ConfigError;
use super::token::TokenError;

/// An error of the whole process; its text ends the log as `level=fatal`.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: std::io::Error },
    #[error("certificate: {0}")]
    Certificate(String),
    #[error("database: {0}")]
    Database(#[from] rusqlite::Error),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("{0}")]
    Request(String),
    /// The end of `--cluster-reset`: no failure.
    #[error(
        "Managed etcd cluster membership has been reset, restart without --cluster-reset flag now. Backup and delete \
         ${{datadir}}/server/db on each peer etcd server and rejoin the nodes"
    )]
    Reset,
    /// In K3s's own words.
    #[error("{0}")]
    Said(String),
}

impl Failure {
    pub fn file(path: &Path, error: std::io::Error) -> Self {
        Self::File { path: path.to_owned(), error }
    }

    pub fn certificate(error: impl Display) -> Self {
        Self::Certificate(error.to_string())
    }

    pub fn request(error: impl Display) -> Self {
        Self::Request(error.to_string())
    }

    pub fn said(words: impl Into<String>) -> Self {
        Self::Said(words.into())
    }
}
