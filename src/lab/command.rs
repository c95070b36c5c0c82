//! Running programs of this computer: their output, or an error that says what they said.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::Error;
use super::error::tail;

/// Where Debian keeps programs. A root's PATH may lack the second half of it.
const PATH: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// A program of this computer, which speaks English and finds the others.
pub fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", PATH.join(":")).env("LC_ALL", "C.UTF-8");
    command
}

/// Where a tool is, if it is there.
pub fn find(name: &str) -> Option<PathBuf> {
    PATH.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists())
}

/// Runs a program to its end and returns what it printed. `doing` completes "cannot …".
pub fn output(command: &mut Command, doing: &str) -> Result<String, Error> {
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| not_started(command, doing, &error))?;
    checked(command, doing, &output)
}

/// Runs a program that reads `input`, which must be small enough to be held by a pipe's other end.
pub fn feed(command: &mut Command, input: &str, doing: &str) -> Result<String, Error> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| not_started(command, doing, &error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends early says why itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| not_started(command, doing, &error))?;
    checked(command, doing, &output)
}

fn checked(command: &Command, doing: &str, output: &Output) -> Result<String, Error> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said =
        format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(failed(command, doing, output.status, &said))
}

/// The error of a program that ended badly; of `said` only the end is kept.
pub fn failed(command: &Command, doing: &str, status: std::process::ExitStatus, said: &str) -> Error {
    let how = match status.code() {
        Some(code) => format!("ended with status {code}"),
        None => "was killed".to_owned(),
    };
    Error::Command { doing: doing.to_owned(), program: program(command), how, said: tail(said, 8) }
}

pub fn not_started(command: &Command, doing: &str, error: &std::io::Error) -> Error {
    Error::Command {
        doing: doing.to_owned(),
        program: program(command),
        how: format!("could not be started: {error}"),
        said: String::new(),
    }
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}
