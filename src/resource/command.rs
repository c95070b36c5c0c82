//! `command`: what no other type can state: a piece of shell, and how to see that it need not run.

use std::time::Duration;

use serde::Deserialize;

use super::text::check_path;
use super::{Change, Difference, Resource, Verdict};
use crate::probe::{Answers, Question, Unanswered};
use crate::shell::quote;

/// A command that is run until its guard says that its work is done. Afterwards the guard is asked again, as every
/// change is read back: a command whose guard still says no has failed.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// POSIX sh, run as root under `set -e`: the first command that fails ends it. It must be safe to run again
    /// after it was interrupted. Its standard input is empty.
    pub run: String,
    /// Shell that succeeds when nothing is left to do. It is asked in dry runs too, so it must change nothing, and
    /// it should be quick. Exactly one of `unless` and `creates`.
    #[serde(default)]
    pub unless: Option<String>,
    /// A path that exists, whatever it is, when nothing is left to do.
    #[serde(default)]
    pub creates: Option<String>,
    /// What it does, in a few words. Default: the first line of `run`. Needed with `secret = true`.
    #[serde(default)]
    pub name: Option<String>,
    /// Seconds it may take. Default: 120, or 1800 with `long = true`.
    #[serde(default)]
    pub timeout_seconds: Option<u64>,
    /// Let it run on when the connection drops, and pick it up again. Until then its text lies on the node, readable
    /// by root only: not together with `secret`. Default: false.
    #[serde(default)]
    pub long: bool,
    /// Never show `run`, for it holds a secret. Do not hand the secret to a program as an argument, where every
    /// user can see it: let the program read it from its input or a file. What the command prints is shown when it
    /// fails. Default: false.
    #[serde(default)]
    pub secret: bool,
}

/// By hand, for `run` may hold a secret.
impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Command").field("name", &self.name()).finish_non_exhaustive()
    }
}

impl Command {
    fn done(&self, seen: &Answers) -> Result<bool, Unanswered> {
        match (&self.unless, &self.creates) {
            (Some(guard), _) => Ok(*seen.guard(guard)? == 0),
            (None, Some(path)) => Ok(seen.stat(path)?.is_some()),
            // `check` refuses a command without either.
            (None, None) => Ok(false),
        }
    }

    fn difference(&self) -> Difference {
        let run = self.run.trim();
        match (self.secret, run.contains('\n')) {
            (true, _) => Difference::Secret { attribute: "run".into() },
            (false, false) => Difference::value("run", None, Some(run)),
            (false, true) => {
                Difference::Text { path: "run".into(), before: None, after: Some(format!("{run}\n")) }
            }
        }
    }

    /// `eval`: a mistake in its syntax ends the subshell, not the script around it. No `||` after the subshell,
    /// which would switch `set -e` off inside.
    fn shell(&self) -> String {
        format!(
            "(\nset -e\neval {}\n)\nstatus=$?\n[ \"$status\" -eq 0 ] || \
             {{ printf 'the command ended with status %s\\n' \"$status\" >&2; exit \"$status\"; }}\n",
            quote(&self.run)
        )
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds.unwrap_or(if self.long { 1800 } else { 120 }))
    }
}

impl Resource for Command {
    fn name(&self) -> String {
        let first = || self.run.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        match (&self.name, self.secret) {
            (Some(name), _) => name.clone(),
            (None, false) => first().to_owned(),
            (None, true) => "(secret)".into(),
        }
    }

    fn questions(&self) -> Vec<Question> {
        let guard = self.unless.iter().cloned().map(Question::Guard);
        guard.chain(self.creates.iter().cloned().map(Question::Stat)).collect()
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        if self.done(seen)? {
            return Ok(Verdict::Converged);
        }
        let change = Change::new(vec![self.difference()], self.shell());
        // Nobody can tell what it needs, or says.
        let (after_settling, prints) = (true, true);
        Ok(Verdict::Differs(Change {
            timeout: self.timeout(),
            long: self.long,
            after_settling,
            prints,
            ..change
        }))
    }

    fn check(&self) -> Result<(), String> {
        if self.run.trim().is_empty() {
            return Err("`run` must not be empty".into());
        }
        let guard = match (&self.unless, &self.creates) {
            (Some(guard), None) if guard.trim().is_empty() => Err("`unless` must not be empty".into()),
            (Some(_), None) => Ok(()),
            (None, Some(path)) => check_path(path).map_err(|e| e.replacen("path", "creates", 1)),
            _ => Err("give exactly one of `unless` (shell that succeeds when nothing is left to do) and `creates` \
                      (a path that exists then): without it the command would run every time"
                .into()),
        };
        guard?;
        let name = self.name();
        if name.trim().is_empty() || name.contains('\n') {
            return Err("`name` must be one line, not empty".into());
        }
        if self.secret && self.name.is_none() {
            return Err("`secret` needs `name`: nothing of `run` is shown then".into());
        }
        if self.secret && self.long {
            return Err(
                "`secret` and `long` do not go together: the text of a long command lies on the node".into(),
            );
        }
        match self.timeout_seconds {
            Some(seconds) if !(1..=86_400).contains(&seconds) => {
                Err("`timeout_seconds` must be between 1 and 86400 (a day)".into())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Answer, Facts, FileType};
    use crate::resource::testing::{TextFile, build, mistake, run, stat};

    fn change(fields: &str, seen: &Answers) -> Option<Change> {
        match build("command", fields).diff(seen).unwrap() {
            Verdict::Converged => None,
            Verdict::Differs(change) => Some(change),
            other => panic!("{other:?}"),
        }
    }

    fn guarded(status: i32) -> Answers {
        Answers::new(Facts::default()).with(Question::Guard("test -e /x".into()), Answer::Guard(status))
    }

    fn made(there: bool) -> Answers {
        let file = there.then(|| stat(FileType::Directory, 0o755));
        Answers::new(Facts::default()).with(Question::Stat("/x".into()), Answer::Stat(file))
    }

    #[test]
    fn guards_as_data() {
        let unless = "run = 'touch /x'\nunless = 'test -e /x'";
        let creates = "run = 'touch /x'\ncreates = '/x'";
        for (fields, seen, runs) in [
            (unless, guarded(0), false),
            (unless, guarded(1), true),
            (unless, guarded(127), true),
            (creates, made(true), false),
            (creates, made(false), true),
        ] {
            let change = change(fields, &seen);
            assert_eq!(change.is_some(), runs, "{fields}");
            if let Some(change) = change {
                assert_eq!(change.differences, [Difference::value("run", None, Some("touch /x"))]);
                assert_eq!((change.timeout.as_secs(), change.long), (120, false));
            }
        }
        let long = change(&format!("{creates}\nlong = true"), &made(false)).unwrap();
        assert_eq!((long.timeout.as_secs(), long.long), (1800, true));
    }

    #[test]
    fn a_secret_is_shown_nowhere_but_in_the_script() {
        let fields =
            "run = '''\nprintf hunter2 >/x'''\ncreates = '/x'\nsecret = true\nname = 'password of x'";
        let command = build("command", fields);
        let change = change(fields, &made(false)).unwrap();
        assert_eq!(change.differences, [Difference::Secret { attribute: "run".into() }]);
        assert!(!format!("{command:?} {} {:?}", command.name(), change.differences).contains("hunter"));
        assert!(change.shell.contains("hunter2"));
    }

    #[test]
    fn the_name_is_the_first_line() {
        let command = build("command", "run = '''\n\n  echo a\necho b'''\ncreates = '/x'");
        assert_eq!(command.name(), "echo a");
    }

    #[test]
    fn the_shell_stops_at_the_first_failure_and_says_its_status() {
        let place = TextFile::missing();
        let script = |lines: &str| {
            let fields = format!("run = '''\ncd {}\n{lines}'''\ncreates = '/x'", place.folder().display());
            change(&fields, &made(false)).unwrap().shell
        };
        run(&script("cat >file <<'END'\nit's (here\nEND")).unwrap();
        assert_eq!(place.read(), "it's (here\n");

        let error = run(&script("(exit 3)\necho on >>file")).unwrap_err();
        assert!(error.contains("ended with status 3"), "{error}");
        assert_eq!(place.read(), "it's (here\n", "it went on after a failure");

        let error = run(&script("if then")).unwrap_err();
        assert!(error.contains("yntax error") && error.contains("status 2"), "{error}");
        run(&format!("{}touch {}2\n", script("exit 0"), place.path())).unwrap();
        assert_eq!(place.neighbours(), ["file", "file2"], "what follows runs after an `exit 0`");
    }

    #[test]
    fn mistakes_are_found_offline() {
        let cases = [
            ("run = 'true'", "exactly one of `unless`"),
            ("run = 'true'\nunless = 'true'\ncreates = '/x'", "exactly one of `unless`"),
            ("run = ' '\ncreates = '/x'", "`run` must not be empty"),
            ("run = 'true'\nunless = ' '", "`unless` must not be empty"),
            ("run = 'true'\ncreates = 'x'", "creates \"x\" cannot be used: it must be absolute"),
            ("run = 'true'\ncreates = '/x'\nsecret = true", "`secret` needs `name`"),
            ("run = 'true'\ncreates = '/x'\nsecret = true\nname = 'x'\nlong = true", "do not go together"),
            ("run = 'true'\ncreates = '/x'\ntimeout_seconds = 0", "between 1 and 86400"),
            ("run = 'true'\ncreates = '/x'\nname = ''", "`name` must be"),
        ];
        for (fields, wanted) in cases {
            let error = mistake("command", fields);
            assert!(error.contains(wanted), "{fields}: {error}");
        }
    }
}
