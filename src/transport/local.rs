//! This machine, without SSH: the scripts go to a shell of its own, through sudo when not root already.

use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::collect::Collected;
use super::prompt::{Prompter, Secret};
use super::sudo::{Root, Way};
use super::{Answer, Error, Hold, Holding, Input, Opening, Output, Script, Stream, Transport, address};

/// After the shell's end, a child that keeps its output open is waited for this long.
const GRACE: Duration = Duration::from_secs(2);

/// The machine datahub runs on.
pub struct Local {
    root: Root,
    round_trips: AtomicUsize,
}

impl Local {
    /// `sudo_password` is used only where sudo wants one; without it the prompter is asked.
    pub fn new(prompter: Arc<dyn Prompter>, sudo_password: Option<Secret>) -> Self {
        let user = if rustix::process::geteuid().is_root() {
            "root".to_owned()
        } else {
            std::env::var("USER").ok().filter(|user| user != "root").unwrap_or_else(|| "you".into())
        };
        Self {
            root: Root::new(&user, "this machine", prompter, sudo_password),
            round_trips: AtomicUsize::new(0),
        }
    }

    fn start(&self, way: &Way) -> Result<Running, Error> {
        self.round_trips.fetch_add(1, Ordering::Relaxed);
        let mut child = Command::new("sh")
            .args(["-c", way.command()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            // A Ctrl-C is for datahub, which lets the running step end.
            .process_group(0)
            .spawn()
            .map_err(|e| Error::Other(format!("cannot start sh: {e}")))?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Error::Other("cannot start sh: no pipes".into()));
        };
        let collected = Collected::default();
        Ok(Running { child, stdin: Some(stdin), stdout, stderr, collected, exited: false })
    }
}

/// A started shell and what it has printed.
struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    stderr: ChildStderr,
    collected: Collected,
    exited: bool,
}

/// Input goes in pieces of this size.
const PIECE: usize = 128 * 1024;

impl Running {
    /// Feeds the input and reads to the end, or to the first line if `to_line`; then the input stays open.
    async fn drive(
        &mut self,
        mut input: impl AsyncRead + Unpin,
        to_line: bool,
    ) -> Result<Option<String>, Error> {
        let mut stdin = self.stdin.take();
        let (mut piece, mut sent, mut input_open) = (Vec::with_capacity(PIECE), 0, true);
        let (mut out, mut err) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
        let (mut out_open, mut err_open) = (true, true);
        while out_open || err_open {
            if to_line && let Some(line) = self.collected.first_line() {
                self.stdin = stdin;
                return Ok(Some(line));
            }
            if !input_open && !to_line {
                stdin = None;
            }
            let feeding = async {
                match stdin.as_mut().filter(|_| input_open) {
                    None => std::future::pending().await,
                    Some(stdin) if sent < piece.len() => Fed::Wrote(stdin.write(&piece[sent..]).await),
                    Some(_) => {
                        (sent, _) = (0, piece.clear());
                        Fed::Read(input.read_buf(&mut piece).await)
                    }
                }
            };
            tokio::select! {
                fed = feeding => match fed {
                    Fed::Read(count) => input_open = count.map_err(|e| super::unreadable(&e))? > 0,
                    Fed::Wrote(Ok(count)) => sent += count,
                    // The script has ended without reading everything: how it ended says more.
                    Fed::Wrote(Err(_)) => { input_open = false; stdin = None; }
                },
                count = self.stdout.read(&mut out), if out_open => {
                    let count = count.map_err(broken)?;
                    out_open = count > 0;
                    self.collected.stdout(&out[..count])?;
                }
                count = self.stderr.read(&mut err), if err_open => {
                    let count = count.map_err(broken)?;
                    err_open = count > 0;
                    self.collected.stderr(&err[..count])?;
                }
                status = self.child.wait(), if !self.exited => {
                    self.exited = true;
                    self.collected.status = Some(code(status.map_err(broken)?));
                }
                () = tokio::time::sleep(GRACE), if self.exited => break,
            }
        }
        if !self.exited {
            self.collected.status = Some(code(self.child.wait().await.map_err(broken)?));
        }
        Ok(None)
    }

    fn output(self) -> Result<Output, Error> {
        self.collected.finish().ok_or_else(|| Error::Other("sh ended without a status".into()))
    }
}

/// One move of input on its way.
enum Fed {
    Read(std::io::Result<usize>),
    Wrote(std::io::Result<usize>),
}

fn broken(error: std::io::Error) -> Error {
    Error::Other(format!("cannot follow a local shell: {error}"))
}

fn code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255)
}

impl Transport for Local {
    fn run<'a>(&'a self, script: &'a Script) -> Answer<'a> {
        Box::pin(async move {
            let mut way = self.root.way().await;
            loop {
                let mut running = self.start(&way)?;
                let input = way.input(&script.text);
                timeout(script.timeout, running.drive(&input[..], false))
                    .await
                    .unwrap_or(Err(Error::Timeout(script.timeout)))?;
                let output = running.output()?;
                match self.root.judge(&way, &output).await? {
                    Some(next) => way = next,
                    None => return Ok(output),
                }
            }
        })
    }

    fn hold<'a>(&'a self, script: &'a Script) -> Holding<'a> {
        Box::pin(async move {
            let mut way = self.root.way().await;
            loop {
                let mut running = self.start(&way)?;
                let input = way.input(&script.text);
                let line = timeout(script.timeout, running.drive(&input[..], !way.is_check()))
                    .await
                    .unwrap_or(Err(Error::Timeout(script.timeout)))?;
                if let Some(line) = line {
                    self.root.worked().await;
                    return Ok((line, keep(running)));
                }
                let output = running.output()?;
                match self.root.judge(&way, &output).await? {
                    Some(next) => way = next,
                    None => return Err(super::ended_early(&output)),
                }
            }
        })
    }

    fn open_stream<'a>(&'a self, host: &'a str, port: u16) -> Opening<'a> {
        Box::pin(async move {
            match TcpStream::connect((host, port)).await {
                Ok(stream) => Ok(Box::new(stream) as Box<dyn Stream>),
                Err(e) => Err(Error::Refused { address: address(host, port), why: e.to_string() }),
            }
        })
    }

    fn feed<'a>(&'a self, script: &'a Script, input: &'a dyn Input) -> Answer<'a> {
        Box::pin(async move {
            let mut way = self.root.way().await;
            loop {
                let mut running = self.start(&way)?;
                let text = way.input(&script.text);
                let fed = timeout(script.timeout, async {
                    let Some(ready) = running.drive(&text[..], !way.is_check()).await? else {
                        return Ok(false);
                    };
                    running.drive(input.open(&ready).await?, false).await.map(|_| true)
                });
                let fed = fed.await.unwrap_or(Err(Error::Timeout(script.timeout)))?;
                let output = running.output()?;
                if fed {
                    self.root.worked().await;
                    return Ok(output);
                }
                match self.root.judge(&way, &output).await? {
                    Some(next) => way = next,
                    None => return Ok(output),
                }
            }
        })
    }

    fn reconnect<'a>(&'a self) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>> {
        Box::pin(async { Ok(()) })
    }

    fn log_in_anew<'a>(&'a self) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>> {
        self.reconnect()
    }

    fn round_trips(&self) -> usize {
        self.round_trips.load(Ordering::Relaxed)
    }
}

/// A task has the shell's input until the guard is dropped; another reads on, so that the shell never blocks on
/// its output.
fn keep(running: Running) -> Hold {
    let Running { mut child, stdin, mut stdout, mut stderr, .. } = running;
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        let Some(mut stdin) = stdin else { return };
        loop {
            tokio::select! {
                _ = &mut stopped => return,
                () = tokio::time::sleep(super::BEAT_EVERY) => {
                    // A script that has ended has no use for it.
                    let _ = stdin.write_all(super::BEAT).await;
                }
            }
        }
    });
    tokio::spawn(async move {
        let (mut out, mut err) = (tokio::io::sink(), tokio::io::sink());
        // What a held script prints later is of no use, nor is a failure to read it.
        let _ = tokio::join!(
            tokio::io::copy(&mut stdout, &mut out),
            tokio::io::copy(&mut stderr, &mut err),
            child.wait()
        );
    });
    Hold(Box::new(stop))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::OUTPUT_LIMIT;
    use crate::transport::prompt::NoPrompts;

    fn local() -> Local {
        let prompter = Arc::new(NoPrompts);
        Local { root: Root::new("root", "this machine", prompter, None), round_trips: AtomicUsize::new(0) }
    }

    #[tokio::test]
    async fn output_status_and_limits() {
        let node = local();
        let output = node.run(&Script::new("echo out; echo err >&2; exit 3")).await.expect("runs");
        assert_eq!(output, Output { status: 3, stdout: b"out\n".to_vec(), stderr: b"err\n".to_vec() });
        let big = format!(": {}\necho done", "x".repeat(1024 * 1024));
        assert_eq!(node.run(&Script::new(big)).await.expect("runs").stdout, b"done\n");
        let slow = Script::new("sleep 5").timeout(Duration::from_millis(100));
        assert!(matches!(node.run(&slow).await, Err(Error::Timeout(_))));
        let endless = Script::new(format!("head -c {} /dev/zero", OUTPUT_LIMIT + 1));
        assert!(matches!(node.run(&endless).await, Err(Error::TooMuch { .. })));
        assert_eq!(node.round_trips(), 4);
    }

    #[tokio::test]
    async fn a_held_script_ends_with_its_guard() {
        let dir = tempfile::tempdir().expect("a folder");
        let gone = dir.path().join("gone");
        let text = format!("echo held; cat >/dev/null; : >{}", crate::shell::quote(&gone.to_string_lossy()));
        let (line, hold) = local().hold(&Script::new(text)).await.expect("held");
        assert_eq!(line, "held");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!gone.exists());
        drop(hold);
        for _ in 0..100 {
            if gone.exists() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the held script goes on");
    }
}
