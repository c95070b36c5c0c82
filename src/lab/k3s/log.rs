//! Log lines as K3s writes them: logrus's text form, on standard error.
//!
//! The simulation is a program of its own under the name `k3s`; its log is not this project's output.

use std::io::Write as _;

/// `level=info`.
pub fn info(message: impl AsRef<str>) {
    line("info", message.as_ref());
}

/// `level=warning`.
pub fn warn(message: impl AsRef<str>) {
    line("warning", message.as_ref());
}

/// `level=error`.
pub fn error(message: impl AsRef<str>) {
    line("error", message.as_ref());
}

/// `level=fatal`: the last line before the process ends with a failure.
pub fn fatal(message: impl AsRef<str>) {
    line("fatal", message.as_ref());
}

fn line(level: &str, message: &str) {
    // A test's own report is read by people.
    if cfg!(test) {
        return;
    }
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
    // A closed stream is no reason to end.
    let _ = writeln!(std::io::stderr(), "time=\"{now}\" level={level} msg={}", quoted(message));
}

/// A message in quotes; control characters are escaped.
fn quoted(message: &str) -> String {
    format!("{message:?}").replace("\\'", "'")
}

#[cfg(test)]
mod tests {
    #[test]
    fn messages_stay_on_one_line() {
        assert_eq!(super::quoted("a \"b\" isn't\n\x1b[31m"), "\"a \\\"b\\\" isn't\\n\\u{1b}[31m\"");
    }
}
