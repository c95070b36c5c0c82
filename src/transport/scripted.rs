//! A transport for tests: it knows what it will be asked and fails on anything else.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use tokio::io::AsyncReadExt as _;

use super::{Answer, Error, Hold, Holding, Input, Opening, Output, Script, Stream, Transport, address};

/// Expects scripts in order, each by a text it contains.
#[derive(Default)]
pub struct Scripted {
    expected: Mutex<VecDeque<(String, Result<Output, Error>)>>,
    seen: Mutex<Vec<String>>,
    streams: Mutex<VecDeque<Box<dyn Stream>>>,
    fed: Mutex<Vec<Vec<u8>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scripted {
    pub fn new() -> Self {
        Self::default()
    }

    /// The next script contains `part` and is answered with `output`.
    pub fn expect(self, part: impl Into<String>, output: Output) -> Self {
        self.push(part.into(), Ok(output))
    }

    /// The next script contains `part`, succeeds and prints `stdout`.
    pub fn prints(self, part: impl Into<String>, stdout: impl Into<Vec<u8>>) -> Self {
        self.expect(part, Output { stdout: stdout.into(), ..Output::default() })
    }

    /// The next script contains `part` and does not come through.
    pub fn fails(self, part: impl Into<String>, error: Error) -> Self {
        self.push(part.into(), Err(error))
    }

    /// What the next `open_stream` gives; without one it is an error.
    pub fn stream(self, stream: impl Stream + 'static) -> Self {
        lock(&self.streams).push_back(Box::new(stream));
        self
    }

    /// The scripts that came, in order.
    pub fn seen(&self) -> Vec<String> {
        lock(&self.seen).clone()
    }

    /// What scripts were fed with, in order.
    pub fn fed(&self) -> Vec<Vec<u8>> {
        lock(&self.fed).clone()
    }

    /// An error that names the first script which was expected and did not come.
    pub fn finish(&self) -> Result<(), Error> {
        match lock(&self.expected).front() {
            None => Ok(()),
            Some((part, _)) => Err(Error::Other(format!("no script came with {part:?}"))),
        }
    }

    fn push(self, part: String, answer: Result<Output, Error>) -> Self {
        lock(&self.expected).push_back((part, answer));
        self
    }

    fn answer(&self, script: &Script) -> Result<Output, Error> {
        lock(&self.seen).push(script.text.clone());
        let mut expected = lock(&self.expected);
        match expected.pop_front() {
            Some((part, answer)) if script.text.contains(&part) => answer,
            Some((part, answer)) => {
                let error = Error::Other(format!("expected a script with {part:?}, got {:?}", script.text));
                expected.push_front((part, answer));
                Err(error)
            }
            None => Err(Error::Other(format!("expected no script, got {:?}", script.text))),
        }
    }
}

impl Transport for Scripted {
    fn run<'a>(&'a self, script: &'a Script) -> Answer<'a> {
        Box::pin(async move { self.answer(script) })
    }

    fn hold<'a>(&'a self, script: &'a Script) -> Holding<'a> {
        Box::pin(async move {
            let output = self.answer(script)?;
            let text = String::from_utf8_lossy(&output.stdout);
            match text.split_once('\n') {
                Some((line, _)) => Ok((line.to_owned(), Hold(Box::new(())))),
                None => Err(super::ended_early(&output)),
            }
        })
    }

    fn open_stream<'a>(&'a self, host: &'a str, port: u16) -> Opening<'a> {
        Box::pin(async move {
            lock(&self.streams)
                .pop_front()
                .ok_or_else(|| Error::Other(format!("expected no connection to {}", address(host, port))))
        })
    }

    /// Feeds a script whose output has a whole line.
    fn feed<'a>(&'a self, script: &'a Script, input: &'a dyn Input) -> Answer<'a> {
        Box::pin(async move {
            let output = self.answer(script)?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if let Some((ready, _)) = text.split_once('\n') {
                let mut bytes = Vec::new();
                let mut stream = input.open(ready).await?;
                stream.read_to_end(&mut bytes).await.map_err(|e| super::unreadable(&e))?;
                lock(&self.fed).push(bytes);
            }
            Ok(output)
        })
    }

    fn reconnect<'a>(&'a self) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>> {
        Box::pin(async { Ok(()) })
    }

    fn log_in_anew<'a>(&'a self) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>> {
        self.reconnect()
    }

    fn round_trips(&self) -> usize {
        lock(&self.seen).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_not_told_is_an_error() {
        let node = Scripted::new().prints("uname", "Linux\n").prints("id", "0\n");
        assert_eq!(node.run(&Script::new("uname -s")).await.expect("told").stdout, b"Linux\n");
        assert!(node.run(&Script::new("rm -rf /")).await.is_err());
        assert!(node.finish().is_err());
        assert_eq!(node.hold(&Script::new("id -u")).await.map(|(line, _)| line).expect("told"), "0");
        assert!(node.finish().is_ok());
        assert_eq!(node.round_trips(), 3);
    }
}
