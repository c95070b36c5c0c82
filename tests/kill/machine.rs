//! One machine of the test: made ready, put back, looked at with plain ssh.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use super::moments::{Ended, Moment, Timeline};
use super::support::Fixture;

/// Everything a run may change, by what it is about.
pub type State = BTreeMap<String, String>;

/// What must have been started after what: a unit and the files it reads.
const READS: &[(&str, &[&str])] = &[
    (
        "kill-agent.service",
        &["/etc/kill-agent.conf", "/etc/systemd/system/kill-agent.service.d/10-flavour.conf"],
    ),
    ("kill-own.service", &["/etc/kill/own.conf", "/srv/kill/built", "/etc/kill/last.conf"]),
    ("kill-plain.service", &["/etc/kill/plain.conf"]),
    ("kill-late.service", &["/etc/kill/late.conf"]),
];

pub struct Machine<'a> {
    lab: &'a Fixture,
    pub node: &'a str,
    /// As it was before any run.
    fresh: State,
}

impl<'a> Machine<'a> {
    pub fn set_up(lab: &'a Fixture, node: &'a str) -> Self {
        lab.sh(node, include_str!("setup.sh"));
        let mut machine = Self { lab, node, fresh: State::new() };
        machine.put_back();
        machine.fresh = machine.look();
        machine
    }

    /// Makes it what it was before any run.
    pub fn put_back(&self) {
        self.lab.sh(self.node, include_str!("reset.sh"));
    }

    pub fn look(&self) -> State {
        let text = self.lab.sh(self.node, include_str!("look.sh"));
        let line = |line: &str| line.split_once('\t').map(|(key, value)| (key.to_owned(), value.to_owned()));
        text.lines().filter_map(line).collect()
    }

    /// Runs datahub for some roles, to its end or to the moment at which it is killed.
    pub fn run(&self, roles: &str, moment: Option<&Moment>) -> Ended {
        let said = self.lab.dir().join(format!("{}.stderr", self.node));
        let file = std::fs::File::create(&said).expect("made");
        let mut command =
            self.lab.command(&["provision", "--node", self.node, "--role", roles, "--format", "json"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
        let started = Instant::now();
        let mut child = command.spawn().expect("datahub runs");
        let timeline = Timeline::read(child.stdout.take().expect("piped"), started, moment, || {
            child.kill().expect("killed");
        });
        let status = child.wait().expect("ends");
        Ended { status, timeline, said: read(&said), took: started.elapsed() }
    }

    /// Kills a run, lets the next one finish, and says all that is not as on the machine that was never disturbed.
    pub fn survives(&self, roles: &str, moment: &Moment, model: &State) -> (String, Vec<String>) {
        self.put_back();
        let before = self.look();
        let rest = differences(&self.fresh, &before);
        let mut problems: Vec<String> = rest.iter().map(|what| format!("not put back: {what}")).collect();

        let killed = self.run(roles, Some(moment));
        let next = self.run(roles, None);
        problems.extend(next.failure().map(|failure| format!("the next run failed: {failure}")));
        let third = self.run(roles, None);
        problems.extend(third.failure().map(|failure| format!("the third run failed: {failure}")));
        match third.timeline.summary() {
            Some((0, 0)) => {}
            summary => problems.push(format!("the third run changed something: {summary:?}")),
        }
        let after = self.look();
        problems.extend(differences(model, &after));
        problems.extend(started_too_early(&after));
        for unit in ["id kill-still.service", "id kill-lister.service"] {
            if before.get(unit) != after.get(unit) {
                problems.push(format!("{unit}: restarted, and nothing notified that"));
            }
        }
        let line = format!(
            "{} {roles}: {}; killed after {} ms {}; next run {} ms, {}",
            self.node,
            moment.what,
            killed.took.as_millis(),
            killed.timeline.last(),
            next.took.as_millis(),
            next.timeline.work(),
        );
        (line, problems)
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Units that run with an older form of a file they read.
pub fn started_too_early(state: &State) -> Vec<String> {
    let time = |what: &str| state.get(&format!("time {what}")).and_then(|time| time.parse::<u64>().ok());
    let mut problems = Vec::new();
    for (unit, files) in READS {
        for file in *files {
            match (time(unit), time(file)) {
                (Some(started), Some(changed)) if started > changed => {}
                (None, None) => {}
                (started, changed) => {
                    problems.push(format!("{unit} started at {started:?}, {file} changed at {changed:?}"));
                }
            }
        }
    }
    problems
}

/// What differs between two machines, or between two looks at one.
pub fn differences(wanted: &State, seen: &State) -> Vec<String> {
    let varies = |key: &str| key.starts_with("time ") || key.starts_with("id ");
    let keys: std::collections::BTreeSet<&String> = wanted.keys().chain(seen.keys()).collect();
    keys.into_iter()
        .filter(|key| !varies(key) && wanted.get(*key) != seen.get(*key))
        .map(|key| format!("{key}: {:?}, not {:?}", seen.get(key), wanted.get(key)))
        .collect()
}

impl Ended {
    /// Why a run that was not killed is no success.
    pub fn failure(&self) -> Option<String> {
        let failure = || self.timeline.failure().unwrap_or_else(|| self.said.clone());
        (!self.status.success()).then(|| format!("{}: {}", self.status, failure()))
    }
}
