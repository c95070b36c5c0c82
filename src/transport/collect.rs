//! Gathers what a script prints, up to [`OUTPUT_LIMIT`].

use super::{Error, OUTPUT_LIMIT, Output};

/// How much of an endless output its error shows, in bytes.
const SHOWN: usize = 200;

#[derive(Default)]
pub struct Collected {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    pub status: Option<i32>,
}

impl Collected {
    pub fn stdout(&mut self, data: &[u8]) -> Result<(), Error> {
        self.stdout.extend_from_slice(data);
        self.check()
    }

    pub fn stderr(&mut self, data: &[u8]) -> Result<(), Error> {
        self.stderr.extend_from_slice(data);
        self.check()
    }

    /// The first line of standard output without its end, once it is whole.
    pub fn first_line(&self) -> Option<String> {
        let end = self.stdout.iter().position(|byte| *byte == b'\n')?;
        Some(String::from_utf8_lossy(&self.stdout[..end]).into_owned())
    }

    /// Whether standard output is a whole answer by itself.
    pub fn is(&self, whole: fn(&[u8]) -> bool) -> bool {
        whole(&self.stdout)
    }

    /// `None` without an exit status.
    pub fn finish(self) -> Option<Output> {
        Some(Output { status: self.status?, stdout: self.stdout, stderr: self.stderr })
    }

    fn check(&self) -> Result<(), Error> {
        if self.stdout.len() + self.stderr.len() <= OUTPUT_LIMIT {
            return Ok(());
        }
        let began = if self.stdout.is_empty() { &self.stderr } else { &self.stdout };
        let first = String::from_utf8_lossy(&began[..began.len().min(SHOWN)]).into_owned();
        Err(Error::TooMuch { first })
    }
}
