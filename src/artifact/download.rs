//! Getting the files of a release, from the web or from a folder: with a place to start from, tried again, and
//! given up only when that makes no sense any more.

use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom};
use std::time::Duration;

use ureq::http::{StatusCode, header};
use ureq::tls::{RootCerts, TlsConfig};

use super::Error;
use super::release::Location;

/// How patient a download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For a connection, and for the answer's first bytes.
    pub answer: Duration,
    /// Without a single byte. A slow line may take as long as it needs; one that stands still may not.
    pub silence: Duration,
    /// How often a download is taken up again.
    pub retries: u32,
    /// Before the first retry; doubled for each further one.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(30),
            silence: Duration::from_secs(30),
            retries: 5,
            pause: Duration::from_millis(500),
        }
    }
}

/// Why one attempt came to nothing.
#[derive(Debug)]
pub enum Trouble {
    /// Another attempt may do better; the reason.
    Again(String),
    Final(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// What is being read.
pub struct Body {
    /// The first byte's place in the file: where reading was to start, or 0 where that was not possible.
    pub start: u64,
    /// Of the whole file, in bytes.
    pub total: Option<u64>,
    pub reader: Box<dyn Read>,
}

/// Reads web servers and folders. Proxies are those of the environment (HTTPS_PROXY, NO_PROXY, …), certificates
/// those the system trusts (SSL_CERT_FILE names others).
#[derive(Clone)]
pub struct Client {
    web: ureq::Agent,
    patience: Patience,
}

impl Client {
    pub fn new(patience: Patience) -> Self {
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let config = ureq::Agent::config_builder()
            .timeout_connect(Some(patience.answer))
            .timeout_recv_response(Some(patience.answer))
            .timeout_per_read(Some(patience.silence))
            .http_status_as_error(false)
            .user_agent(concat!("datahub/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build();
        Self { web: config.into(), patience }
    }

    /// Makes attempts until one succeeds, fails for good, or patience is at its end.
    pub fn patiently<T>(
        &self,
        from: &Location,
        mut attempt: impl FnMut() -> Result<T, Trouble>,
    ) -> Result<T, Error> {
        let mut pauses = (0..self.patience.retries).map(|n| self.patience.pause * 2_u32.pow(n));
        loop {
            match (attempt(), pauses.next()) {
                (Ok(done), _) => return Ok(done),
                (Err(Trouble::Final(error)), _) => return Err(error),
                (Err(Trouble::Again(_)), Some(pause)) => std::thread::sleep(pause),
                (Err(Trouble::Again(why)), None) => {
                    return Err(Error::Unreachable { url: from.to_string(), why });
                }
            }
        }
    }

    /// Opens a file, from the byte `start` on if that is possible.
    pub fn open(&self, from: &Location, start: u64) -> Result<Body, Trouble> {
        match from {
            Location::Url(url) => self.get(url, start),
            Location::File(path) => {
                let cannot = |error: std::io::Error| match error.kind() {
                    std::io::ErrorKind::NotFound => Error::Missing(path.display().to_string()),
                    _ => Error::local("read", path, &error),
                };
                let mut file = File::open(path).map_err(cannot)?;
                let total = file.metadata().map_err(cannot)?.len();
                let start = if start <= total { start } else { 0 };
                file.seek(SeekFrom::Start(start)).map_err(cannot)?;
                Ok(Body { start, total: Some(total), reader: Box::new(file) })
            }
        }
    }

    fn get(&self, url: &str, start: u64) -> Result<Body, Trouble> {
        let mut request = self.web.get(url);
        if start > 0 {
            request = request.header(header::RANGE, format!("bytes={start}-"));
        }
        let response = request.call().map_err(|error| trouble(url, &error))?;
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let number = |text: Option<&str>| text.and_then(|text| text.trim().parse::<u64>().ok());
        let (start, total) = match response.status() {
            StatusCode::OK => (0, number(text(header::CONTENT_LENGTH))),
            // `bytes 100-199/200`
            StatusCode::PARTIAL_CONTENT => {
                let range = text(header::CONTENT_RANGE).and_then(|range| range.strip_prefix("bytes "));
                let (first, rest) = range.and_then(|range| range.split_once('-')).unwrap_or_default();
                match number(Some(first)) {
                    Some(first) if first == start => {
                        (start, number(rest.split_once('/').map(|(_, total)| total)))
                    }
                    _ => {
                        return Err(Trouble::Again(
                            "the server sent another part than it was asked for".into(),
                        ));
                    }
                }
            }
            // Nothing left to send: what is here already is all of it, or too much. The checksum will tell.
            StatusCode::RANGE_NOT_SATISFIABLE if start > 0 => {
                return Ok(Body { start, total: Some(start), reader: Box::new(std::io::empty()) });
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => return Err(Error::Missing(url.to_owned()).into()),
            status if status.is_server_error() => return Err(Trouble::Again(answered(status))),
            status @ (StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT) => {
                return Err(Trouble::Again(answered(status)));
            }
            status => {
                return Err(Error::Unreachable { url: url.to_owned(), why: answered(status) }.into());
            }
        };
        Ok(Body { start, total, reader: Box::new(response.into_body().into_reader()) })
    }

    /// A short text, at most `limit` bytes.
    pub fn text(&self, from: &Location, limit: u64) -> Result<String, Error> {
        self.patiently(from, || {
            let body = self.open(from, 0)?;
            let mut bytes = Vec::new();
            body.reader.take(limit + 1).read_to_end(&mut bytes).map_err(|e| Trouble::Again(e.to_string()))?;
            let wrong = |why: &str| Error::NotAList { from: from.to_string(), why: why.to_owned() };
            if bytes.len() as u64 > limit {
                return Err(wrong("it is too long").into());
            }
            if body.total.is_some_and(|total| total != bytes.len() as u64) {
                return Err(Trouble::Again("it broke off".into()));
            }
            String::from_utf8(bytes).map_err(|_| wrong("it is not text").into())
        })
    }

    /// How large a file is, if the server or the folder tells. Asked once: it is a courtesy.
    pub fn size(&self, from: &Location) -> Option<u64> {
        match from {
            Location::File(path) => path.metadata().ok().map(|meta| meta.len()),
            Location::Url(url) => {
                let response = self.web.head(url).call().ok().filter(|r| r.status() == StatusCode::OK)?;
                response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
            }
        }
    }
}

fn answered(status: StatusCode) -> String {
    format!("the server answered {status}")
}

/// Nearly all that goes wrong on the way may go well the next time.
fn trouble(url: &str, error: &ureq::Error) -> Trouble {
    let why = error.to_string();
    match error {
        ureq::Error::BadUri(_)
        | ureq::Error::TooManyRedirects
        | ureq::Error::InvalidProxyUrl
        | ureq::Error::Rustls(_)
        | ureq::Error::Tls(_) => Trouble::Final(Error::Unreachable { url: url.to_owned(), why }),
        _ => Trouble::Again(why),
    }
}
