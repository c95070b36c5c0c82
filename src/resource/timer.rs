//! `timer`: a command that systemd runs by the clock.

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, de};

use super::edit::State;
use super::group::check_account;
use super::systemd::{UNIT_FOLDER, check_name, script};
use super::unit::Unit;
use super::{Change, Difference, Resource, Verdict};
use crate::probe::{Answers, Question, Unanswered};
use crate::shell::{quote, quote_all};

/// A command that runs by the clock: `/etc/systemd/system/NAME.service` (a oneshot) and `NAME.timer`, enabled and
/// started. What it prints is in the journal (`journalctl -u NAME`). A change takes effect at once, but is no
/// reason to run the command.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timer {
    /// Without `.timer`: `datahub-prune`.
    pub name: String,
    /// What to run: a string is a script for `sh`, a list is a program and its arguments, as they are. Needed unless
    /// `state = "absent"`. It may not hold a secret: everybody can read it.
    #[serde(default)]
    pub command: Option<Command>,
    /// When, as systemd.time(7) writes it: `daily`, `Mon..Fri 03:30`, `*-*-01 04:00:00`. Needed unless
    /// `state = "absent"`.
    #[serde(default)]
    pub on_calendar: Option<String>,
    /// Make up for a run that was missed while the machine was off. Default: true.
    #[serde(default = "yes")]
    pub persistent: bool,
    /// Wait a random time up to this before each run, so that not all machines run it at once: `15min`, `1h 30s`.
    #[serde(default)]
    pub randomized_delay: Option<String>,
    /// One line for people. Default: the name.
    #[serde(default)]
    pub description: Option<String>,
    /// The account it runs as. Default: `root`.
    #[serde(default)]
    pub user: Option<String>,
    /// `present` (default) or `absent`: the timer is stopped and both files are removed; a run under way ends by itself.
    #[serde(default)]
    pub state: State,
}

fn yes() -> bool {
    true
}

/// A script for sh, or a program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Shell(String),
    Arguments(Vec<String>),
}

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> Visitor<'de> for Words {
            type Value = Command;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a script (a string), or a program and its arguments (a list of strings)")
            }

            fn visit_str<E: de::Error>(self, script: &str) -> Result<Command, E> {
                Ok(Command::Shell(script.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Command, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = list.next_element()? {
                    words.push(word);
                }
                Ok(Command::Arguments(words))
            }
        }
        deserializer.deserialize_any(Words)
    }
}

impl Command {
    /// As `ExecStart=` takes it. The `:` turns `$` into a plain character: systemd expands no variables.
    fn exec_start(&self) -> String {
        let words: Vec<&str> = match self {
            Self::Shell(script) => vec!["/bin/sh", "-c", script],
            Self::Arguments(words) => words.iter().map(String::as_str).collect(),
        };
        format!(":{}", words.into_iter().map(exec_word).collect::<Vec<_>>().join(" "))
    }

    fn check(&self) -> Result<(), String> {
        let (program, words) = match self {
            Self::Shell(script) => ("/bin/sh", std::slice::from_ref(script)),
            Self::Arguments(words) => (words.first().map_or("", String::as_str), &words[..]),
        };
        if !program.starts_with('/') {
            return Err(format!("`command` must start with a program's whole path, not {program:?}"));
        }
        match words.iter().any(|word| word.contains('\0')) || words.iter().all(|word| word.trim().is_empty())
        {
            true => Err("`command` must not be empty".into()),
            false => Ok(()),
        }
    }
}

/// One word of `ExecStart=`: quoted where it is not plain, with systemd's specifiers (`%h`) made plain text.
fn exec_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in word.chars() {
        match c {
            '%' => quoted.push_str("%%"),
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

const HEADER: &str = "# Written by datahub: changes made here are undone.\n";

impl Timer {
    fn unit_name(&self, kind: &str) -> String {
        format!("{}.{kind}", self.name)
    }

    fn path(&self, kind: &str) -> String {
        format!("{UNIT_FOLDER}/{}.{kind}", self.name)
    }

    fn service(&self) -> Unit {
        let exec = self.command.as_ref().map(Command::exec_start).unwrap_or_default();
        let user = self.user.as_deref().filter(|user| *user != "root");
        let user = user.map_or_else(String::new, |user| format!("User={user}\n"));
        let content = format!(
            "{HEADER}[Unit]\nDescription={}\n\n[Service]\nType=oneshot\n{user}ExecStart={exec}\n",
            self.description()
        );
        Unit { name: self.unit_name("service"), content: Some(content), ..Unit::default() }
    }

    fn timer(&self) -> Unit {
        let delay = self.randomized_delay.as_ref();
        let delay = delay.map_or_else(String::new, |delay| format!("RandomizedDelaySec={delay}\n"));
        let content = format!(
            "{HEADER}[Unit]\nDescription={}\n\n[Timer]\nOnCalendar={}\nPersistent={}\n{delay}\n[Install]\nWantedBy=timers.target\n",
            self.description(),
            self.on_calendar.as_deref().unwrap_or_default(),
            self.persistent,
        );
        Unit {
            name: self.unit_name("timer"),
            content: Some(content),
            enabled: Some(true),
            started: Some(true),
            restart: true,
            ..Unit::default()
        }
    }

    fn description(&self) -> String {
        self.description.as_ref().unwrap_or(&self.name).replace('%', "%%")
    }

    /// Has systemd itself read the times before anything is written: it would only warn of those it does not know.
    fn times(&self) -> String {
        let time = |command: &str, field: &str, value: &Option<String>| {
            value.as_ref().map_or_else(String::new, |value| {
                format!(
                    "systemd-analyze {command} -- {} >/dev/null || fail '{field} is not a time that systemd knows'\n",
                    quote(value)
                )
            })
        };
        time("calendar", "on_calendar", &self.on_calendar)
            + &time("timespan", "randomized_delay", &self.randomized_delay)
    }

    fn present(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        let mut all = Change::new(Vec::new(), script(&self.unit_name("timer"), false, &self.times()));
        for unit in [self.service(), self.timer()] {
            match unit.diff(seen)? {
                Verdict::Converged => {}
                Verdict::Differs(change) => {
                    all.differences.extend(change.differences);
                    all.shell.push_str(&change.shell);
                    all.long |= change.long;
                    all.timeout = all.timeout.max(change.timeout);
                }
                other => return Ok(other),
            }
        }
        Ok(if all.differences.is_empty() { Verdict::Converged } else { Verdict::Differs(all) })
    }

    fn absent(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        let timer = self.unit_name("timer");
        let mut differences = Vec::new();
        for kind in ["service", "timer"] {
            if seen.stat(&self.path(kind))?.is_some() {
                differences.push(Difference::value(self.path(kind), Some("present"), None));
            }
        }
        let unit = seen.unit(&timer)?;
        let ours = unit.path.is_empty() || unit.path == self.path("timer");
        let running = ours && unit.active == "active";
        if running {
            differences.push(Difference::value("active", Some(&unit.active), None));
        }
        if differences.is_empty() {
            return Ok(Verdict::Converged);
        }
        let files = [self.path("service"), self.path("timer")];
        let stamp = format!("/var/lib/systemd/timers/stamp-{timer}");
        let stop = if running { "systemctl stop -- \"$unit\" || explain 'cannot be stopped'\n" } else { "" };
        let commands = format!(
            "{stop}[ ! -e {own} ] || systemctl disable -- \"$unit\" || fail 'cannot be disabled'\n\
             rm -f -- {files} {stamp} || fail 'cannot be removed'\n\
             reload\n",
            own = quote(&files[1]),
            files = quote_all(&files),
            stamp = quote(&stamp),
        );
        Ok(Verdict::Differs(Change::new(differences, script(&timer, false, &commands))))
    }
}

impl Resource for Timer {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn questions(&self) -> Vec<Question> {
        match self.state {
            State::Present => [self.service(), self.timer()].iter().flat_map(Unit::questions).collect(),
            State::Absent => vec![
                Question::Stat(self.path("service")),
                Question::Stat(self.path("timer")),
                Question::Unit(self.unit_name("timer")),
            ],
        }
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        match self.state {
            State::Present => self.present(seen),
            State::Absent => self.absent(seen),
        }
    }

    fn check(&self) -> Result<(), String> {
        if self.name.ends_with(".timer") || self.name.ends_with(".service") {
            return Err(format!("name {:?}: write it without its type", self.name));
        }
        check_name(&self.unit_name("timer"))?;
        if self.name.contains('@') {
            return Err("`name` cannot be that of a template or an instance".into());
        }
        if self.state == State::Absent {
            return Ok(());
        }
        let Some(command) = &self.command else { return Err("`command` is needed".into()) };
        command.check()?;
        let Some(calendar) = &self.on_calendar else { return Err("`on_calendar` is needed".into()) };
        check_time("on_calendar", calendar, " -*:/,.~_+")?;
        self.randomized_delay.as_ref().map_or(Ok(()), |delay| check_time("randomized_delay", delay, " ."))?;
        let description = self.description.as_deref().unwrap_or("-");
        if description.trim().is_empty()
            || description.chars().any(char::is_control)
            || description.ends_with('\\')
        {
            return Err("`description` must be one line, not empty".into());
        }
        self.user.as_ref().map_or(Ok(()), |user| check_account("user", user))
    }
}

/// Only what a time can be made of; systemd on the node reads the rest.
fn check_time(field: &str, value: &str, marks: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || marks.contains(c);
    match value.trim().is_empty() || value.starts_with('-') || !value.chars().all(fits) {
        true => {
            Err(format!("`{field}` {value:?} is not a time; try it with: systemd-analyze calendar 'daily'"))
        }
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Answer, Content, Facts, FileType, Unit as Seen};
    use crate::resource::testing::{build, mistake, run, stat};

    const FIELDS: &str = "name = 'prune'\ncommand = 'echo $HOME 100%'\non_calendar = 'daily'\nrandomized_delay = '1h'\n\
        description = '50% off'\nuser = 'ops'";

    fn timer(fields: &str) -> Timer {
        let timer: Timer = toml::from_str(fields).expect("fields are right");
        timer.check().expect("fields are right");
        timer
    }

    /// What is seen: the files with the wanted content, or not there, or other; and the timer's state.
    fn answers(resource: &dyn Resource, content: &Content, active: &str, enabled: &str) -> Answers {
        let mut answers = Answers::new(Facts::default());
        for question in resource.questions() {
            let answer = match &question {
                Question::Unit(name) => Answer::Unit(Seen {
                    load: "loaded".into(),
                    id: name.clone(),
                    active: active.into(),
                    enabled: enabled.into(),
                    ..Seen::default()
                }),
                Question::Stat(path) if path.starts_with("/run/") => Answer::Stat(None),
                Question::Stat(_) => Answer::Stat(match content {
                    Content::Absent => None,
                    _ => Some(stat(FileType::File, 0o644)),
                }),
                Question::Content { .. } => Answer::Content(content.clone()),
                other => panic!("{other:?}"),
            };
            answers.insert(question, answer);
        }
        answers
    }

    #[test]
    fn words_of_exec_start() {
        for (word, expected) in [
            ("/bin/x", "/bin/x"),
            ("", "\"\""),
            ("a b", "\"a b\""),
            ("100%", "\"100%%\""),
            ("$HOME", "\"$HOME\""),
            (";", "\";\""),
            ("a\"b\\c", "\"a\\\"b\\\\c\""),
            ("a\nb\u{1}", "\"a\\nb\\x01\""),
            ("it's ä", "\"it's ä\""),
        ] {
            assert_eq!(exec_word(word), expected);
        }
        let words = Command::Arguments(vec!["/bin/echo".into(), "a b".into()]);
        assert_eq!(words.exec_start(), ":/bin/echo \"a b\"");
    }

    #[test]
    fn the_two_files() {
        let timer = timer(FIELDS);
        assert_eq!(
            timer.service().content.expect("given"),
            "# Written by datahub: changes made here are undone.\n[Unit]\nDescription=50%% off\n\n[Service]\n\
             Type=oneshot\nUser=ops\nExecStart=:/bin/sh -c \"echo $HOME 100%%\"\n"
        );
        assert_eq!(
            timer.timer().content.expect("given"),
            "# Written by datahub: changes made here are undone.\n[Unit]\nDescription=50%% off\n\n[Timer]\n\
             OnCalendar=daily\nPersistent=true\nRandomizedDelaySec=1h\n\n[Install]\nWantedBy=timers.target\n"
        );
        for unit in [timer.service(), timer.timer()] {
            assert_eq!(unit.check(), Ok(()));
        }
    }

    #[test]
    fn it_is_made_mended_and_then_left_alone() {
        let resource = build("timer", FIELDS);
        let other = Content::Differs(b"[Timer]\n".to_vec());
        // content, active, enabled, number of differences, what is run
        let cases = [
            (Content::Same, "active", "enabled", 0, vec![]),
            (Content::Same, "inactive", "disabled", 2, vec!["systemctl enable", "start start"]),
            (Content::Absent, "inactive", "", 4, vec!["systemctl reenable", "start start", "calendar"]),
            (other, "active", "enabled", 2, vec!["reload\n", "start restart", "systemd-analyze timespan"]),
        ];
        for (content, active, enabled, count, parts) in cases {
            match resource.diff(&answers(&*resource, &content, active, enabled)).expect("answered") {
                Verdict::Converged => assert_eq!(count, 0),
                Verdict::Differs(change) => {
                    assert_eq!(change.differences.len(), count, "{content:?}");
                    for part in parts {
                        assert!(change.shell.contains(part), "{content:?}: {part}");
                    }
                    let check = format!("exit 0\n{}", change.shell);
                    assert_eq!(run(&check), Ok(()), "dash reads it");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_time_that_systemd_does_not_know_stops_before_anything_is_written() {
        let resource = build("timer", FIELDS);
        let seen = answers(&*resource, &Content::Absent, "inactive", "");
        let Verdict::Differs(change) = resource.diff(&seen).expect("answered") else { panic!("differs") };
        let stand_in =
            "systemd_analyze() { [ \"$1\" = timespan ] || { echo \"no time: $3\" >&2; return 1; }; }";
        let error =
            run(&format!("{stand_in}\n{}", change.shell.replace("systemd-analyze", "systemd_analyze")))
                .expect_err("stops");
        assert!(error.contains("no time: daily\nprune.timer: on_calendar is not"), "{error}");
    }

    #[test]
    fn an_absent_one_is_stopped_and_removed() {
        let resource = build("timer", "name = 'prune'\nstate = 'absent'");
        let gone = answers(&*resource, &Content::Absent, "inactive", "");
        assert_eq!(resource.diff(&gone).expect("answered"), Verdict::Converged);
        let there = answers(&*resource, &Content::Same, "active", "enabled");
        let Verdict::Differs(change) = resource.diff(&there).expect("answered") else { panic!("differs") };
        assert_eq!(change.differences.len(), 3);
        let wanted = "rm -f -- /etc/systemd/system/prune.service /etc/systemd/system/prune.timer \
                      /var/lib/systemd/timers/stamp-prune.timer ";
        assert!(change.shell.contains(wanted), "{}", change.shell);
    }

    #[test]
    fn mistakes_are_found_offline() {
        let when = "on_calendar = 'daily'";
        for (fields, wanted) in [
            ("name = 'x.timer'\ncommand = 'y'", "without its type"),
            ("name = 'a b'", "are allowed"),
            ("name = 'x'", "`command` is needed"),
            ("name = 'x'\ncommand = 'y'", "`on_calendar` is needed"),
            (&format!("name = 'x'\ncommand = ''\n{when}"), "must not be empty"),
            (&format!("name = 'x'\ncommand = []\n{when}"), "whole path"),
            (&format!("name = 'x'\ncommand = ['echo']\n{when}"), "whole path, not \"echo\""),
            (&format!("name = 'x'\ncommand = 3\n{when}"), "a script (a string), or a program"),
            ("name = 'x'\ncommand = 'y'\non_calendar = 'daily\"'", "is not a time"),
            (&format!("name = 'x'\ncommand = 'y'\n{when}\nuser = 'A B'"), "user \"A B\""),
            (&format!("name = 'x'\ncommand = 'y'\n{when}\ndescription = ''"), "`description`"),
            (&format!("name = 'x'\ncommand = 'y'\n{when}\nrandomized_delay = '1h;'"), "is not a time"),
        ] {
            let error = mistake("timer", fields);
            assert!(error.contains(wanted), "{fields}: {error}");
        }
    }
}
