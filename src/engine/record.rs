//! The run's record on the operator's machine: every event as one JSON line, in a file only they may read.
//!
//! Events hold no secrets, so neither does the record.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::event::Event;

/// Writes a run's events as they happen.
pub struct Record {
    file: File,
    pub path: PathBuf,
}

impl Record {
    /// Creates `<dir>/<run>.jsonl` (0600), and `dir` (0700) if it is missing.
    pub fn create(dir: &Path, run: &str) -> std::io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let path = dir.join(format!("{run}.jsonl"));
        let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path)?;
        Ok(Self { file, path })
    }

    pub fn write(&mut self, event: &Event) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.file.write_all(&line)
    }
}
