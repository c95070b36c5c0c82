//! The cache on the operator's machine: `<cache>/sha256/<checksum>`, each file under its own checksum, so a file
//! is there or it is not, whatever it was called. Only the owner may look into it.
//!
//! A download goes to `<checksum>.part`, is checked as it arrives, and gets its name when it is whole and right.
//! What breaks off is continued, by the next attempt or the next run. The unfinished file is locked: of several
//! processes one downloads and the others wait. A file is checked again before a run uses it for the first time.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};
use tokio::sync::OnceCell;

use super::download::{Client, Patience, Trouble};
use super::release::{Location, Source};
use super::{Artifact, Error, Progress, Report};
use crate::checksum::{Hasher, PIECE};

/// A file in the cache, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached {
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
}

/// What became of an artifact in this run; whoever asks later gets the same answer.
type Cell = Arc<OnceCell<Result<Cached, Error>>>;

/// The cache, and where to get what is not in it.
pub struct Store {
    cache: Cache,
    cells: Mutex<HashMap<String, Cell>>,
}

impl Store {
    /// `dir` is created when it is needed. Without a source only what is there already can be used.
    pub fn new(dir: PathBuf, source: Option<Source>) -> Self {
        Self::with_patience(dir, source, Patience::default())
    }

    pub fn with_patience(dir: PathBuf, source: Option<Source>, patience: Patience) -> Self {
        let cache = Cache { dir: dir.join("sha256"), source, client: Client::new(patience) };
        Self { cache, cells: Mutex::default() }
    }

    /// Whether a file is in the cache already. It is only checked when it is fetched.
    pub fn has(&self, artifact: &Artifact) -> bool {
        self.cache.dir.join(&artifact.sha256).is_file()
    }

    /// The file of an artifact: from the cache, else downloaded. Several callers at once cause one download, and
    /// only the first of them has it reported.
    pub async fn fetch(&self, artifact: &Artifact, report: Report) -> Result<Cached, Error> {
        let cell = {
            let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
            cells.entry(artifact.sha256.clone()).or_default().clone()
        };
        cell.get_or_init(|| async {
            let (cache, artifact) = (self.cache.clone(), artifact.clone());
            let fetching = tokio::task::spawn_blocking(move || cache.fetch(&artifact, &report));
            fetching.await.unwrap_or_else(|error| {
                Err(Error::Local { doing: "download".into(), why: error.to_string() })
            })
        })
        .await
        .clone()
    }
}

#[derive(Clone)]
struct Cache {
    dir: PathBuf,
    source: Option<Source>,
    client: Client,
}

impl Cache {
    fn fetch(&self, artifact: &Artifact, report: &Report) -> Result<Cached, Error> {
        let path = self.dir.join(&artifact.sha256);
        if let Some(cached) = self.whole(&path, artifact)? {
            return Ok(cached);
        }
        let Some(source) = &self.source else { return Err(Error::NoSource(artifact.to_string())) };
        let from = source.locate(&artifact.version, &artifact.file);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(|e| Error::local("create", &self.dir, &e))?;
        let part = self.dir.join(format!("{}.part", artifact.sha256));
        let mut unfinished = lock(&part)?;
        // Another process may have finished it while this one waited.
        if let Some(cached) = self.whole(&path, artifact)? {
            let _ = std::fs::remove_file(&part);
            return Ok(cached);
        }
        let downloading = Download { artifact, from: &from, report, path: &part };
        let downloaded = self.client.patiently(&from, || downloading.attempt(&self.client, &mut unfinished));
        if let Err(Error::Mismatch { .. } | Error::TooLarge { .. } | Error::Missing(_)) = downloaded {
            let _ = std::fs::remove_file(&part);
        }
        let size = downloaded?;
        let kept = unfinished.sync_all().and_then(|()| std::fs::rename(&part, &path));
        kept.map_err(|e| Error::local("write", &path, &e))?;
        Ok(Cached { path, size })
    }

    /// The finished file if it is there and what its name says; one that is not is taken away.
    fn whole(&self, path: &Path, artifact: &Artifact) -> Result<Option<Cached>, Error> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::local("read", path, &error)),
        };
        let mut hasher = Hasher::default();
        let size = hasher.add_all(file).map_err(|e| Error::local("read", path, &e))?;
        if hasher.finish() == artifact.sha256 {
            return Ok(Some(Cached { path: path.to_owned(), size }));
        }
        std::fs::remove_file(path).map_err(|e| Error::local("remove", path, &e))?;
        Ok(None)
    }
}

/// Opens an unfinished file and locks it until it is closed.
fn lock(path: &Path) -> Result<File, Error> {
    let cannot = |error: std::io::Error| Error::local("write", path, &error);
    loop {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(cannot)?;
        flock(&file, FlockOperation::LockExclusive).map_err(|e| cannot(e.into()))?;
        // Who held it before may have given the file its name, or taken it away: then this one is nobody's.
        let still =
            std::fs::metadata(path).is_ok_and(|now| file.metadata().is_ok_and(|m| m.ino() == now.ino()));
        if still {
            return Ok(file);
        }
    }
}

struct Download<'a> {
    artifact: &'a Artifact,
    from: &'a Location,
    report: &'a Report,
    path: &'a Path,
}

impl Download<'_> {
    /// Goes on from what is there already; the size of the whole file once it is right.
    fn attempt(&self, client: &Client, part: &mut File) -> Result<u64, Trouble> {
        let mut hasher = Hasher::default();
        part.rewind().map_err(|e| self.local("read", &e))?;
        let mut done = hasher.add_all(&mut *part).map_err(|e| self.local("read", &e))?;
        if self.artifact.size.is_some_and(|size| done > size) {
            (done, hasher) = self.empty(part)?;
        }
        let mut resumed = done > 0;
        if !resumed || self.artifact.size != Some(done) {
            let mut body = client.open(self.from, done)?;
            if body.start != done {
                (done, hasher) = self.empty(part)?;
                resumed = false;
            }
            let mut piece = vec![0; PIECE];
            loop {
                let count = match body.reader.read(&mut piece) {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(Trouble::Again(error.to_string())),
                };
                done += count as u64;
                if let Some(expected) = self.artifact.size.filter(|size| done > *size) {
                    let (artifact, from) = (self.artifact.to_string(), self.from.to_string());
                    return Err(Error::TooLarge { artifact, from, expected }.into());
                }
                hasher.add(&piece[..count]);
                part.write_all(&piece[..count]).map_err(|e| self.local("write", &e))?;
                (self.report)(Progress { done, total: self.artifact.size.or(body.total) });
            }
            if let Some(total) = body.total.or(self.artifact.size).filter(|total| done < *total) {
                return Err(Trouble::Again(format!("it broke off after {done} of {total} bytes")));
            }
        }
        let actual = hasher.finish();
        if actual == self.artifact.sha256 {
            return Ok(done);
        }
        self.empty(part)?;
        if resumed {
            return Err(Trouble::Again("what had arrived before was no part of it".into()));
        }
        Err(Error::Mismatch {
            artifact: self.artifact.to_string(),
            from: self.from.to_string(),
            expected: self.artifact.sha256.clone(),
            actual,
        }
        .into())
    }

    fn empty(&self, part: &mut File) -> Result<(u64, Hasher), Error> {
        part.set_len(0).and_then(|()| part.rewind()).map_err(|e| self.local("write", &e))?;
        Ok((0, Hasher::default()))
    }

    fn local(&self, doing: &str, error: &std::io::Error) -> Error {
        Error::local(doing, self.path, error)
    }
}
