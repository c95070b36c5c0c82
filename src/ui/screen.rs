//! The two streams and the picture that is redrawn in place. Everything that is printed goes through here, in one
//! piece at a time, so that nothing is torn and a reader that has gone away (`datahub plan | head`) ends nothing.

use std::io::{Error, ErrorKind, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::line::Line;
use super::style::Style;

/// What is assumed of a terminal that does not tell its size.
const COLUMNS: usize = 80;
const ROWS: usize = 24;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Results.
    Out,
    /// What happens meanwhile, and mistakes.
    Err,
}

/// A stream with what is known of it.
pub struct Channel {
    pub writer: Box<dyn Write + Send>,
    pub terminal: bool,
    pub color: bool,
    /// Rows and columns; asked each time, for a window changes its size.
    pub size: fn() -> Option<(u16, u16)>,
    /// What was written can be drawn over.
    pub live: bool,
    /// Nothing more is written after a first mistake.
    pub closed: Option<Error>,
}

impl Channel {
    pub fn new(writer: impl Write + Send + 'static, terminal: bool, color: bool) -> Self {
        Self { writer: Box::new(writer), terminal, color, size: || None, live: false, closed: None }
    }

    fn columns(&self) -> usize {
        (self.size)().map_or(COLUMNS, |(_, columns)| columns.max(1).into())
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.closed.is_none() {
            self.closed = self.writer.write_all(bytes).and_then(|()| self.writer.flush()).err();
        }
    }

    /// Why not all was written. A reader that has gone away has seen all it wanted.
    fn lost(&self) -> Option<&Error> {
        self.closed.as_ref().filter(|e| e.kind() != ErrorKind::BrokenPipe)
    }
}

pub struct Screen(Mutex<Inner>);

struct Inner {
    out: Channel,
    err: Channel,
    picture: Option<Picture>,
    /// What was to be written while somebody is being asked something.
    held: Option<Vec<(Stream, Vec<u8>)>>,
    interrupted: bool,
}

/// What is drawn at the foot of the terminal.
struct Picture {
    bar: ProgressBar,
    lines: usize,
    /// Of the terminal when it was drawn.
    columns: usize,
}

impl Inner {
    fn channel(&mut self, stream: Stream) -> &mut Channel {
        match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        }
    }

    fn write(&mut self, stream: Stream, bytes: Vec<u8>) {
        self.fit();
        if let Some(held) = &mut self.held {
            held.push((stream, bytes));
        } else if let Some(bar) = self.picture.as_ref().map(|picture| picture.bar.clone()) {
            bar.suspend(|| self.put(stream, &bytes));
        } else {
            self.put(stream, &bytes);
        }
    }

    fn put(&mut self, stream: Stream, bytes: &[u8]) {
        let known = self.out.lost().is_some();
        self.channel(stream).write(bytes);
        if let (false, Some(e)) = (known, self.out.lost()) {
            let line =
                Line::new().styled(Style::Bad, "error").text(format!(": cannot write the result: {e}"));
            let line = line.painted(self.err.color) + "\n";
            self.err.write(line.as_bytes());
        }
    }

    fn draw(&mut self, lines: &[Line]) {
        self.fit();
        let columns = self.err.columns();
        let text: Vec<String> = lines.iter().map(|line| line.painted(self.err.color)).collect();
        let picture = self.picture.get_or_insert_with(|| Picture { bar: bar(), lines: 0, columns });
        picture.lines = lines.len();
        picture.bar.set_message(text.join("\n"));
    }

    /// Takes the picture away if the window has another width than when it was drawn. indicatif fills every line
    /// up to the edge and lets the terminal wrap it, so what it drew is one long line to the terminal, which is
    /// now wrapped elsewhere; indicatif would erase as many rows as before: too few, or some that must stay.
    fn fit(&mut self) {
        let columns = self.err.columns();
        let Some(picture) = self.picture.take_if(|picture| picture.columns != columns) else { return };
        picture.bar.set_draw_target(ProgressDrawTarget::hidden());
        let rows = (picture.lines * picture.columns).div_ceil(columns);
        // Line by line: tmux keeps what is cleared as a whole screen in its history.
        let erase = "\x1b[2K\x1b[A".repeat(rows.saturating_sub(1));
        self.err.write(format!("\r{erase}\x1b[2K").as_bytes());
    }

    fn clear(&mut self) {
        self.fit();
        if let Some(picture) = self.picture.take() {
            picture.bar.finish_and_clear();
        }
    }
}

/// One bar whose message is all of the picture.
fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style)
}

impl Screen {
    pub fn new(out: Channel, err: Channel) -> Self {
        Self(Mutex::new(Inner { out, err, picture: None, held: None, interrupted: false }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A thread that died while printing must not silence the others.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_terminal(&self, stream: Stream) -> bool {
        self.lock().channel(stream).terminal
    }

    pub fn color(&self, stream: Stream) -> bool {
        self.lock().channel(stream).color
    }

    /// Whether a picture can be drawn.
    pub fn is_live(&self) -> bool {
        self.lock().err.live
    }

    pub fn interrupt(&self) {
        self.lock().interrupted = true;
    }

    pub fn is_interrupted(&self) -> bool {
        self.lock().interrupted
    }

    pub fn lost_output(&self) -> bool {
        self.lock().out.lost().is_some()
    }

    /// Columns of a terminal; `None` for anything else, where nothing is to be cut.
    pub fn columns(&self, stream: Stream) -> Option<usize> {
        let mut inner = self.lock();
        let channel = inner.channel(stream);
        channel.terminal.then(|| channel.columns())
    }

    pub fn rows(&self, stream: Stream) -> usize {
        (self.lock().channel(stream).size)().map_or(ROWS, |(rows, _)| rows.into())
    }

    /// Writes lines, above the picture if there is one.
    pub fn lines<'a>(&self, stream: Stream, lines: impl IntoIterator<Item = &'a Line>) {
        let mut inner = self.lock();
        let color = inner.channel(stream).color;
        let text: String = lines.into_iter().map(|line| line.painted(color) + "\n").collect();
        if !text.is_empty() {
            inner.write(stream, text.into_bytes());
        }
    }

    /// Writes bytes as they are; only for what was made clean before.
    pub fn bytes(&self, stream: Stream, bytes: impl Into<Vec<u8>>) {
        self.lock().write(stream, bytes.into());
    }

    /// Draws lines at the foot of the terminal in place of those drawn before. They are no wider than it.
    pub fn draw(&self, lines: &[Line]) {
        let mut inner = self.lock();
        if inner.held.is_some() {
            return;
        }
        inner.draw(lines);
    }

    /// Takes the picture away.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Writes a prompt although the screen is paused.
    pub fn now(&self, prompt: String) {
        self.lock().err.write(prompt.as_bytes());
    }

    /// Takes the picture away and holds back what is printed, until the guard is dropped.
    pub fn pause(&self) -> Pause<'_> {
        let mut inner = self.lock();
        inner.clear();
        inner.held.get_or_insert_default();
        Pause(self)
    }
}

/// The screen is somebody else's.
pub struct Pause<'a>(&'a Screen);

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        for (stream, bytes) in inner.held.take().unwrap_or_default() {
            inner.write(stream, bytes);
        }
    }
}
