//! One script over one channel: reading and writing side by side, to the end of both.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelOpenFailure, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::connect::Session;
use crate::transport::collect::Collected;
use crate::transport::{self, Error, Hold, Input, Output, Stream, address};

/// Input goes in pieces of this size, each of which must get through within the time a dead peer is given.
const PIECE: usize = 128 * 1024;
/// After the exit status, a child that keeps the channel open is waited for this long.
const GRACE: Duration = Duration::from_secs(2);
/// A script told to end by the end of its input gets this long.
const END_GRACE: Duration = Duration::from_secs(5);

/// What became of a script that is to be held.
pub enum Held {
    /// Its first line, and what keeps it alive.
    Line(String, Hold),
    Ended(Output),
}

/// Runs a command with `input` on its standard input, up to the end of its output by `whole` if that is given.
pub async fn run(
    session: &Session,
    command: &str,
    input: &[u8],
    whole: Option<fn(&[u8]) -> bool>,
    limit: Duration,
) -> Result<Output, Error> {
    let finished = async {
        let Started { mut read, write, mut collected } = start(session, command).await?;
        let mut reading = Reading { session, read: &mut read, collected: &mut collected, whole };
        beside(reading.until_end(), send(session, &write, input, true)).await
    };
    timeout(limit, finished).await.unwrap_or(Err(Error::Timeout(limit)))
}

/// Gives a shell a script and reads up to the end of its answer. The shell then waits for the next one, unless it
/// ended before its answer was whole.
pub async fn ask(
    session: &Session,
    shell: &mut Started,
    script: &[u8],
    whole: fn(&[u8]) -> bool,
    limit: Duration,
) -> Result<Output, Error> {
    let Started { read, write, collected } = shell;
    let mut reading = Reading { session, read, collected, whole: Some(whole) };
    let answered = beside(reading.until_end(), send(session, write, script, false));
    timeout(limit, answered).await.unwrap_or(Err(Error::Timeout(limit)))
}

/// What became of a script that is to be fed.
pub enum Fed {
    /// It was ready, and took what it wanted.
    Taken(Output),
    /// It ended before it was ready.
    Refused(Output),
}

/// Runs a command with `script` on its standard input and, once it has printed a line, with `input`.
pub async fn feed(
    session: &Session,
    command: &str,
    script: &[u8],
    input: &dyn Input,
    limit: Duration,
) -> Result<Fed, Error> {
    timeout(limit, async {
        let Started { mut read, write, mut collected } = start(session, command).await?;
        let mut reading = Reading { session, read: &mut read, collected: &mut collected, whole: None };
        match beside(reading.until_line(), send(session, &write, script, false)).await? {
            First::Ended(output) => Ok(Fed::Refused(output)),
            First::Line(line) => {
                let sending = async { send(session, &write, input.open(&line).await?, true).await };
                beside(reading.until_end(), sending).await.map(Fed::Taken)
            }
        }
    })
    .await
    .unwrap_or(Err(Error::Timeout(limit)))
}

/// Starts a command and keeps its input open.
pub async fn hold(
    session: Arc<Session>,
    command: &str,
    input: &[u8],
    limit: Duration,
) -> Result<Held, Error> {
    let started = timeout(limit, async {
        let Started { mut read, write, mut collected } = start(&session, command).await?;
        let mut reading =
            Reading { session: &session, read: &mut read, collected: &mut collected, whole: None };
        let first = beside(reading.until_line(), send(&session, &write, input, false)).await?;
        Ok::<_, Error>((first, read, write))
    });
    let (first, read, write) = started.await.unwrap_or(Err(Error::Timeout(limit)))?;
    Ok(match first {
        First::Ended(output) => Held::Ended(output),
        First::Line(line) => {
            let (stop, stopped) = oneshot::channel::<()>();
            tokio::spawn(keep(session, read, write, stopped));
            Held::Line(line, Hold(Box::new(stop)))
        }
    })
}

/// Reads on, as a channel nobody reads blocks the whole connection, until the guard is dropped.
async fn keep(
    session: Arc<Session>,
    mut read: ChannelReadHalf,
    write: Writer,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut deadline: Option<Instant> = None;
    let mut beats = tokio::time::interval(transport::BEAT_EVERY);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let late = deadline.unwrap_or_else(Instant::now);
        tokio::select! {
            // A beat that does not get through in time is left out: reading must go on.
            _ = beats.tick(), if deadline.is_none() => {
                let _ = timeout(END_GRACE, write.data(transport::BEAT.to_vec())).await;
            }
            message = read.wait() => if message.is_none() { break },
            _ = &mut stopped, if deadline.is_none() => {
                deadline = Some(Instant::now() + END_GRACE);
                write.eof().await;
            }
            () = sleep_until(late), if deadline.is_some() => break,
        }
    }
    drop((write, session));
}

/// The sending side. Dropping it closes the channel, also when a step is given up or cancelled: the server
/// allows few at a time, and counts this one until its command has ended too. The command is not killed:
/// half a dpkg is worse than a late one, and what hangs is there to be looked at.
struct Writer(Option<ChannelWriteHalf<Msg>>);

impl Writer {
    async fn data(&self, piece: Vec<u8>) -> Result<(), russh::Error> {
        match &self.0 {
            Some(write) => write.data_bytes(piece).await,
            None => Ok(()),
        }
    }

    /// Ends the command's input. That it has ended meanwhile is no failure.
    async fn eof(&self) {
        if let Some(write) = &self.0 {
            let _ = write.eof().await;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let (Some(write), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            // Closing what the server has closed already does nothing.
            runtime.spawn(async move { write.close().await });
        }
    }
}

/// A command that waits for input, and what it has printed so far.
pub struct Started {
    read: ChannelReadHalf,
    write: Writer,
    collected: Collected,
}

impl Started {
    /// Whether it still waits. Takes what has arrived meanwhile.
    pub async fn waits(&mut self, session: &Session) -> bool {
        let Self { read, collected, .. } = self;
        let mut reading = Reading { session, read, collected, whole: None };
        while let Ok(message) = timeout(Duration::ZERO, reading.step()).await {
            if !matches!(message, Ok(true)) {
                return false;
            }
        }
        self.collected.status.is_none()
    }
}

/// Starts a command that reads its input.
pub async fn start(session: &Session, command: &str) -> Result<Started, Error> {
    let (read, write) = open(session).await?.split();
    write.exec(true, command).await.map_err(|e| session.lost(&e.to_string()))?;
    Ok(Started { read, write: Writer(Some(write)), collected: Collected::default() })
}

/// sshd allows ten channels at a time and refuses the next one; then a little patience helps.
async fn open(session: &Session) -> Result<Channel<Msg>, Error> {
    let mut pause = Duration::from_millis(5);
    loop {
        match session.handle.channel_open_session().await {
            Ok(channel) => return Ok(channel),
            Err(russh::Error::ChannelOpenFailure(ChannelOpenFailure::ConnectFailed))
                if pause < Duration::from_secs(3) =>
            {
                sleep(pause).await;
                pause *= 2;
            }
            Err(russh::Error::ChannelOpenFailure(why)) => {
                return Err(Error::Other(format!(
                    "the server refuses another channel ({why:?}); see MaxSessions in its sshd_config"
                )));
            }
            Err(e) => return Err(session.lost(&e.to_string())),
        }
    }
}

/// A TCP connection from the node to `host:port`. It outlives the session's handle, should another session
/// take its place, and closes the channel when dropped.
pub async fn tunnel(session: &Session, host: &str, port: u16) -> Result<impl Stream + use<>, Error> {
    match session.handle.channel_open_direct_tcpip(host, u32::from(port), "127.0.0.1", 0).await {
        Ok(channel) => Ok(channel.into_stream()),
        Err(russh::Error::ChannelOpenFailure(ChannelOpenFailure::AdministrativelyProhibited)) => {
            Err(Error::NotForwarded { address: address(host, port) })
        }
        Err(russh::Error::ChannelOpenFailure(_)) => {
            Err(Error::Refused { address: address(host, port), why: "connection refused".into() })
        }
        Err(e) => Err(session.lost(&e.to_string())),
    }
}

async fn send(
    session: &Session,
    write: &Writer,
    mut input: impl AsyncRead + Unpin,
    close: bool,
) -> Result<(), Error> {
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        if input.read_buf(&mut piece).await.map_err(|e| transport::unreadable(&e))? == 0 {
            break;
        }
        match timeout(super::INACTIVITY, write.data(piece)).await {
            Ok(Ok(())) => {}
            // The command has ended without reading everything: how it ended says more.
            Ok(Err(_)) => return Ok(()),
            Err(_) => return Err(session.lost("the node takes no input")),
        }
    }
    if close {
        write.eof().await;
    }
    Ok(())
}

/// Waits for `reading`; `writing` goes on beside it and need not finish.
async fn beside<T>(
    reading: impl Future<Output = Result<T, Error>>,
    writing: impl Future<Output = Result<(), Error>>,
) -> Result<T, Error> {
    let mut reading = std::pin::pin!(reading);
    tokio::select! {
        ended = &mut reading => return ended,
        written = writing => written?,
    }
    reading.await
}

enum First {
    Line(String),
    Ended(Output),
}

struct Reading<'a> {
    session: &'a Session,
    read: &'a mut ChannelReadHalf,
    collected: &'a mut Collected,
    /// See [`transport::Script::whole`].
    whole: Option<fn(&[u8]) -> bool>,
}

impl Reading<'_> {
    async fn until_end(&mut self) -> Result<Output, Error> {
        while self.step().await? {
            if self.whole.is_some_and(|whole| self.collected.is(whole)) {
                self.collected.status.get_or_insert(0);
                break;
            }
        }
        self.output()
    }

    async fn until_line(&mut self) -> Result<First, Error> {
        loop {
            if let Some(line) = self.collected.first_line() {
                return Ok(First::Line(line));
            }
            if !self.step().await? {
                return self.output().map(First::Ended);
            }
        }
    }

    /// Takes one message; `false` at the end of the channel.
    async fn step(&mut self) -> Result<bool, Error> {
        let message = if self.collected.status.is_none() {
            self.read.wait().await
        } else {
            match timeout(GRACE, self.read.wait()).await {
                Ok(message) => message,
                // Messages come in order: an answer now proves that no output is still under way.
                Err(_) => match self.session.handle.send_ping().await {
                    Ok(()) => match timeout(Duration::ZERO, self.read.wait()).await {
                        Ok(message) => message,
                        Err(_) => return Ok(false),
                    },
                    Err(e) => return Err(self.session.lost(&e.to_string())),
                },
            }
        };
        match message {
            Some(ChannelMsg::Data { data }) => self.collected.stdout(&data)?,
            Some(ChannelMsg::ExtendedData { data, .. }) => self.collected.stderr(&data)?,
            Some(ChannelMsg::ExitStatus { exit_status }) => {
                self.collected.status = Some(i32::try_from(exit_status).unwrap_or(i32::MAX));
            }
            Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                self.collected.status = Some(128 + number(&signal_name));
            }
            Some(ChannelMsg::Failure) => {
                return Err(Error::Other(
                    "the server refuses to run commands; see ForceCommand and the key's options there".into(),
                ));
            }
            Some(ChannelMsg::Close) | None => return Ok(false),
            Some(_) => {}
        }
        Ok(true)
    }

    fn output(&mut self) -> Result<Output, Error> {
        std::mem::take(self.collected)
            .finish()
            .ok_or_else(|| self.session.lost("it ended in the middle of a step"))
    }
}

fn number(signal: &russh::Sig) -> i32 {
    use russh::Sig;
    match signal {
        Sig::HUP => 1,
        Sig::INT => 2,
        Sig::QUIT => 3,
        Sig::ILL => 4,
        Sig::ABRT => 6,
        Sig::FPE => 8,
        Sig::KILL => 9,
        Sig::USR1 => 10,
        Sig::SEGV => 11,
        Sig::PIPE => 13,
        Sig::ALRM => 14,
        Sig::TERM => 15,
        // Standing for one that has no number in the protocol.
        Sig::Custom(_) => 127,
    }
}
