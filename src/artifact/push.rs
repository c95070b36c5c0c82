//! From the cache to a node, over the connection that is open already. The node says how much of the file it has
//! and that part's checksum; if it is the beginning of this file, only the rest is sent.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncSeekExt as _, ReadBuf};

use super::node::Place;
use super::store::Cached;
use super::{Artifact, Error, Progress, Report};
use crate::checksum::Hasher;
use crate::transport::prompt::printable;
use crate::transport::{self, Feed, Feeding, Input, Script, Transport};

/// A transfer that stands still is given up much earlier, by the transport; this one is for the slowest line.
const LIMIT: Duration = Duration::from_secs(4 * 3600);

/// Bytes that are read from the disk at a time: every time costs a turn on another thread.
const READ_AHEAD: usize = 1024 * 1024;

/// Brings a file to a node, whole and checked there, but not in its place yet: [`Place::install`] does that.
/// May be called again after a lost connection; what has arrived is not sent twice.
pub async fn push(
    transport: &dyn Transport,
    artifact: &Artifact,
    cached: &Cached,
    path: &str,
    report: &Report,
) -> Result<(), Error> {
    let place = Place { path, sha256: &artifact.sha256 };
    let script = Script::new(place.take_in(cached.size)).timeout(LIMIT);
    let upload = Upload { cached, report, kept: Mutex::new(0) };
    loop {
        let output = transport.feed(&script, &upload).await?;
        let failed = |why: String| Err(Error::Node { artifact: artifact.to_string(), why });
        if output.status != 0 {
            let stderr = printable(String::from_utf8_lossy(&output.stderr).trim());
            return failed(format!("{stderr} (status {})", output.status));
        }
        let stdout = String::from_utf8_lossy(&output.stdout);
        match stdout.lines().last().unwrap_or_default().split_once(' ') {
            None if stdout.ends_with("whole\n") => return Ok(()),
            // What was there already looked right and is not: the node has removed it, so this ends.
            Some(("broken", _)) if upload.kept() > 0 => {}
            Some(("broken", actual)) => {
                return Err(Error::ArrivedBroken {
                    artifact: artifact.to_string(),
                    expected: artifact.sha256.clone(),
                    actual: printable(actual),
                });
            }
            _ => return failed(format!("the node answered {}", printable(&stdout))),
        }
    }
}

/// The file as input for the node's script.
struct Upload<'a> {
    cached: &'a Cached,
    report: &'a Report,
    /// Bytes that were not sent, for the node had them.
    kept: Mutex<u64>,
}

impl Upload<'_> {
    fn kept(&self) -> u64 {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn begin(&self, ready: &str) -> Result<Feed, transport::Error> {
        let answer = ready.split_once(' ').and_then(|(have, sum)| Some((have.parse().ok()?, sum)));
        let Some((have, sum)) = answer else {
            return Err(transport::Error::Other(format!("the node answered {}", printable(ready))));
        };
        let path = self.cached.path.clone();
        let same = have > 0 && have <= self.cached.size && beginning(path, have).await? == sum;
        let keep = if same { have } else { 0 };
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = keep;
        let mut file = tokio::fs::File::open(&self.cached.path).await.map_err(unreadable)?;
        file.seek(std::io::SeekFrom::Start(keep)).await.map_err(unreadable)?;
        let rest = tokio::io::BufReader::with_capacity(READ_AHEAD, file).take(self.cached.size - keep);
        let counted =
            Counted { inner: rest, done: keep, total: self.cached.size, report: self.report.clone() };
        Ok(Box::new(std::io::Cursor::new(format!("{keep}\n").into_bytes()).chain(counted)))
    }
}

impl Input for Upload<'_> {
    fn open<'a>(&'a self, ready: &'a str) -> Feeding<'a> {
        Box::pin(self.begin(ready))
    }
}

/// The checksum of a file's first bytes.
async fn beginning(path: PathBuf, bytes: u64) -> Result<String, transport::Error> {
    let summing = tokio::task::spawn_blocking(move || sum_of_beginning(&path, bytes));
    summing.await.map_err(|e| transport::Error::Other(e.to_string()))?.map_err(unreadable)
}

fn sum_of_beginning(path: &Path, bytes: u64) -> std::io::Result<String> {
    let mut hasher = Hasher::default();
    hasher.add_all(std::io::Read::take(std::fs::File::open(path)?, bytes))?;
    Ok(hasher.finish())
}

fn unreadable(error: std::io::Error) -> transport::Error {
    transport::Error::Other(format!("cannot read the cached file: {error}"))
}

/// Tells how far reading is.
struct Counted<R> {
    inner: R,
    done: u64,
    total: u64,
    report: Report,
}

impl<R: AsyncRead + Unpin> AsyncRead for Counted<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        let read = (buf.filled().len() - before) as u64;
        if read > 0 {
            self.done += read;
            (self.report)(Progress { done: self.done, total: Some(self.total) });
        }
        polled
    }
}
