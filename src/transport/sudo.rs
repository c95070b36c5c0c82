//! Becoming root: which command a script is fed to, and what sudo's refusals mean.
//!
//! Nothing is asked beforehand. The first script simply tries `sudo -n`; only a refusal costs more round
//! trips, so a node with NOPASSWD pays nothing.

use std::sync::Arc;

use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::prompt::{self, Prompter, Question, Secret};
use super::{Error, Output};

/// A line that ends whatever stands before the script: should sudo not have read the password after all
/// (a NOPASSWD rule that came in between), it is skipped rather than run as a command.
const BEGIN: &str = "DATAHUB_BEGIN";

/// How a script becomes root.
#[derive(Clone)]
pub enum Way {
    /// Logged in as root.
    Root,
    /// `sudo -n`: no password needed, or not known yet.
    Sudo,
    /// Tries the password alone. Sudo asks again after a wrong one, and must not take the script's first
    /// lines for further attempts.
    Check(Secret),
    /// The password goes first on standard input.
    Password(Secret),
}

impl Way {
    /// The command a script is fed to. Constant text, understood by sh, csh and fish alike: it is the
    /// login shell that reads it.
    pub fn command(&self) -> &'static str {
        match self {
            Self::Root => "exec env LC_ALL=C sh -s",
            Self::Sudo => "exec env LC_ALL=C sudo -n -H sh -s",
            Self::Check(_) => "exec env LC_ALL=C sudo -k -S -H -p '' true",
            Self::Password(_) => {
                r#"exec env LC_ALL=C sudo -k -S -H -p '' sh -c 'while IFS= read -r l; do [ "$l" = DATAHUB_BEGIN ] && exec sh -s; done; exit 1'"#
            }
        }
    }

    /// What goes to the command's standard input to run `script`.
    pub fn input(&self, script: &str) -> Zeroizing<Vec<u8>> {
        let script = || crate::shell::whole_or_nothing(script);
        Zeroizing::new(match self {
            Self::Root | Self::Sudo => script().into_bytes(),
            Self::Check(password) => format!("{}\n", password.as_str()).into_bytes(),
            Self::Password(password) => format!("{}\n{BEGIN}\n{}", password.as_str(), script()).into_bytes(),
        })
    }

    /// What goes to the input of a shell that has become root already, to run `script` and be there for another one.
    pub fn further_input(script: &str) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(crate::shell::one_of_many(script).into_bytes())
    }

    /// Whether the command's input ends at once, even where a script would keep it open.
    pub fn is_check(&self) -> bool {
        matches!(self, Self::Check(_))
    }
}

/// Why sudo did not run the script.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    NeedsPassword,
    WrongPassword,
    /// Not allowed, or no sudo at all, in words.
    Denied(String),
}

/// Tells sudo's own refusal from a script that failed. Sudo speaks before the script can, so a script that
/// has printed anything has run.
pub fn refusal(output: &Output) -> Option<Refusal> {
    if !output.stdout.is_empty() || output.status == 0 {
        return None;
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let says = |text: &str| stderr.contains(text);
    match output.status {
        127 if says("env: ") && says("sudo") => {
            Some(Refusal::Denied("sudo is not installed; log in as root or install it".into()))
        }
        1 if says("incorrect password attempt") || says("no password was provided") => {
            Some(Refusal::WrongPassword)
        }
        1 if says("sudo: a password is required") => Some(Refusal::NeedsPassword),
        1 if says("is not in the sudoers file")
            || says("may not run sudo")
            || says("is not allowed to execute")
            || says("is not allowed to run sudo") =>
        {
            Some(Refusal::Denied("the user is not in the sudoers file, or not for this command".into()))
        }
        1 if says("sudo: sorry, you must have a tty") => {
            Some(Refusal::Denied("sudoers has requiretty; take it out for this user".into()))
        }
        // "unable to resolve host" is a warning: sudo goes on, and the script's own failure follows.
        1 => stderr
            .lines()
            .filter(|line| !line.contains("unable to resolve host"))
            .find_map(|line| line.strip_prefix("sudo: "))
            .map(|why| Refusal::Denied(prompt::printable(why))),
        _ => None,
    }
}

/// What is known about becoming root on one machine; shared by all its scripts.
pub struct Root {
    user: String,
    host: String,
    prompter: Arc<dyn Prompter>,
    /// Given or asked for; several scripts ask once.
    password: Mutex<Option<Secret>>,
    /// The way, and whether it has been seen to work: then a failure is the script's own.
    state: Mutex<(Way, bool)>,
}

impl Root {
    /// `given` is a password known beforehand; it is used only where sudo wants one.
    pub fn new(user: &str, host: &str, prompter: Arc<dyn Prompter>, given: Option<Secret>) -> Self {
        let state = if user == "root" { (Way::Root, true) } else { (Way::Sudo, false) };
        Self {
            user: user.into(),
            host: host.into(),
            prompter,
            password: Mutex::new(given),
            state: Mutex::new(state),
        }
    }

    pub async fn way(&self) -> Way {
        self.state.lock().await.0.clone()
    }

    /// The script printed something and goes on: it runs as root.
    pub async fn worked(&self) {
        self.state.lock().await.1 = true;
    }

    /// Looks at how a command ended: `None` when that was the script itself, else the way to try next.
    pub async fn judge(&self, way: &Way, output: &Output) -> Result<Option<Way>, Error> {
        let mut state = self.state.lock().await;
        if let (Way::Check(password), 0) = (way, output.status) {
            *state = (Way::Password(password.clone()), true);
            return Ok(Some(state.0.clone()));
        }
        // Another script may have found the way while this one was refused.
        let found_since = state.1 && matches!((way, &state.0), (Way::Sudo, Way::Password(_)));
        if state.1 && !found_since {
            return Ok(None);
        }
        match refusal(output) {
            None => {
                state.1 = true;
                Ok(None)
            }
            Some(Refusal::NeedsPassword) if found_since => Ok(Some(state.0.clone())),
            Some(Refusal::NeedsPassword) => Ok(Some(Way::Check(self.password().await?))),
            Some(Refusal::WrongPassword) => {
                *self.password.lock().await = None;
                Err(self.error("the password is wrong"))
            }
            Some(Refusal::Denied(why)) => Err(self.error(&why)),
        }
    }

    async fn password(&self) -> Result<Secret, Error> {
        let mut password = self.password.lock().await;
        if password.is_none() {
            *password = prompt::ask(&self.prompter, Question::sudo(&self.user, &self.host)).await;
        }
        password.clone().ok_or_else(|| self.error("sudo wants a password"))
    }

    fn error(&self, why: &str) -> Error {
        Error::Sudo { user: self.user.clone(), host: self.host.clone(), why: why.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_from_failing_scripts() {
        use Refusal::{NeedsPassword, WrongPassword};
        let table: &[(i32, &str, &str, Option<Refusal>)] = &[
            (0, "", "sudo: a password is required\n", None),
            (1, "", "sudo: a password is required\n", Some(NeedsPassword)),
            (1, "output", "sudo: a password is required\n", None),
            (2, "", "sudo: a password is required\n", None),
            (1, "", "Sorry, try again.\nsudo: no password was provided\n", Some(WrongPassword)),
            (1, "", "Sorry, try again.\nsudo: 3 incorrect password attempts\n", Some(WrongPassword)),
            (
                1,
                "",
                "kim is not in the sudoers file.\n",
                Some(Refusal::Denied("the user is not in the sudoers file, or not for this command".into())),
            ),
            (
                1,
                "",
                "sudo: unable to resolve host nas\nsudo: account \u{1b}expired\n",
                Some(Refusal::Denied("account expired".into())),
            ),
            (
                127,
                "",
                "env: 'sudo': No such file or directory\n",
                Some(Refusal::Denied("sudo is not installed; log in as root or install it".into())),
            ),
            (127, "", "sh: 3: foo: not found\n", None),
            (1, "", "grep: no match\n", None),
            (1, "", "sudo: unable to resolve host nas: Name or service not known\n", None),
        ];
        for (status, stdout, stderr, expected) in table {
            let output = Output {
                status: *status,
                stdout: stdout.as_bytes().to_vec(),
                stderr: stderr.as_bytes().to_vec(),
            };
            assert_eq!(refusal(&output), *expected, "{status} {stderr:?}");
        }
    }

    #[test]
    fn an_unread_password_is_skipped_not_run() {
        use std::io::Write as _;
        let way = Way::Password(Secret::new("echo leaked".into()));
        let shell = way.command().split_once("-p '' ").expect("sudo's options end there").1;
        let mut child = std::process::Command::new("sh")
            .args(["-c", shell])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("sh runs");
        child.stdin.take().expect("piped").write_all(&way.input("echo ran")).expect("written");
        let output = child.wait_with_output().expect("ends");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "ran\n");
    }

    #[tokio::test]
    async fn a_password_is_checked_before_it_is_used() {
        let root = Root::new(
            "kim",
            "nas.home.arpa",
            Arc::new(prompt::NoPrompts),
            Some(Secret::new("secret".into())),
        );
        let refused =
            Output { status: 1, stderr: b"sudo: a password is required\n".to_vec(), ..Output::default() };
        let next = root.judge(&Way::Sudo, &refused).await.expect("a way").expect("another one");
        assert!(next.is_check());
        let next = root.judge(&next, &Output::default()).await.expect("a way").expect("another one");
        assert!(matches!(next, Way::Password(_)));
        assert_eq!(root.judge(&next, &refused).await.expect("proven").map(|_| ()), None);
    }

    #[tokio::test]
    async fn without_a_password_the_refusal_names_user_and_host() {
        let root = Root::new("kim", "nas.home.arpa", Arc::new(prompt::NoPrompts), None);
        let refused =
            Output { status: 1, stderr: b"sudo: a password is required\n".to_vec(), ..Output::default() };
        let error = root.judge(&Way::Sudo, &refused).await.err().expect("refused");
        assert_eq!(error.to_string(), "kim may not become root on nas.home.arpa: sudo wants a password");
    }
}
