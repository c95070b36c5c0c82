//! A web server on the loopback address that can be told to misbehave, one answer at a time.
#![allow(dead_code)]

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How one request is answered.
#[derive(Debug, Clone)]
pub enum Manner {
    Well,
    /// Breaks off after this many bytes of the body.
    Cut(usize),
    /// Says nothing more after this many bytes of the body, and keeps the connection.
    Stall(usize),
    Status(u16),
    /// As if it knew no ranges.
    Whole,
    /// Another part than was asked for.
    WrongRange,
    /// Another content.
    Lie(Vec<u8>),
    /// Without saying how long it is, and without an end.
    Endless,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    manners: VecDeque<Manner>,
    requests: Vec<String>,
}

/// Answers in another thread until the test ends.
#[derive(Clone)]
pub struct Web {
    pub base: String,
    state: Arc<Mutex<State>>,
}

impl Web {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("bound"));
        let web = Self { base, state: Arc::default() };
        let answering = web.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let web = answering.clone();
                std::thread::spawn(move || web.answer(stream));
            }
        });
        web
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `path` begins with `/`, as in a request.
    pub fn put(&self, path: &str, content: impl Into<Vec<u8>>) {
        self.lock().files.insert(path.to_owned(), content.into());
    }

    /// The next requests for a body are answered so; later ones well.
    pub fn will(&self, manners: impl IntoIterator<Item = Manner>) {
        self.lock().manners = manners.into_iter().collect();
    }

    /// `GET /path 100` with the first byte of its range, if there was one, since this was last asked.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().requests)
    }

    /// One request a connection. A client that has gone away is no failure of the test.
    fn answer(&self, stream: TcpStream) -> Option<()> {
        let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
        let request = lines.next()?.ok()?;
        let headers: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        let mut words = request.split(' ');
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let start = headers.iter().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            let value = value.strip_prefix("bytes=").filter(|_| name.eq_ignore_ascii_case("range"))?;
            value.trim_end_matches('-').parse::<usize>().ok()
        });
        let (file, manner) = {
            let mut state = self.lock();
            let range = start.map(|start| format!(" {start}")).unwrap_or_default();
            state.requests.push(format!("{method} {path}{range}"));
            let manner = if method == "HEAD" { None } else { state.manners.pop_front() };
            (state.files.get(&path).cloned(), manner.unwrap_or(Manner::Well))
        };
        respond(stream, &method, file, start, manner)
    }
}

fn respond(
    mut stream: TcpStream,
    method: &str,
    file: Option<Vec<u8>>,
    start: Option<usize>,
    manner: Manner,
) -> Option<()> {
    let file = match (&manner, file) {
        (Manner::Lie(other), _) => other.clone(),
        (_, Some(file)) => file,
        (_, None) => return head(&mut stream, 404, 0, ""),
    };
    let ranges = !matches!(manner, Manner::Whole | Manner::Lie(_) | Manner::Endless);
    let start = start.filter(|_| ranges);
    match manner {
        Manner::Status(status) => return head(&mut stream, status, 0, ""),
        Manner::Endless => {
            stream.write_all(b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n").ok()?;
            loop {
                stream.write_all(&[7; 4096]).ok()?;
            }
        }
        _ => {}
    }
    if start.is_some_and(|start| start >= file.len()) {
        return head(&mut stream, 416, 0, &format!("Content-Range: bytes */{}\r\n", file.len()));
    }
    let body = &file[start.unwrap_or_default()..];
    match start {
        Some(start) => {
            let said = if matches!(manner, Manner::WrongRange) { start + 1 } else { start };
            let range = format!("Content-Range: bytes {said}-{}/{}\r\n", file.len() - 1, file.len());
            head(&mut stream, 206, body.len(), &range)?;
        }
        None => head(&mut stream, 200, body.len(), "")?,
    }
    if method == "HEAD" {
        return Some(());
    }
    match manner {
        Manner::Cut(bytes) => stream.write_all(&body[..bytes.min(body.len())]).ok(),
        Manner::Stall(bytes) => {
            stream.write_all(&body[..bytes.min(body.len())]).ok()?;
            std::thread::sleep(Duration::from_secs(60));
            None
        }
        _ => stream.write_all(body).ok(),
    }
}

fn head(stream: &mut TcpStream, status: u16, length: usize, more: &str) -> Option<()> {
    let text = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n{more}\r\n");
    stream.write_all(text.as_bytes()).ok()
}
