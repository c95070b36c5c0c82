//! What every node is doing now, and since when. Times are counted from the run's start.

use std::time::Duration;

use indexmap::IndexMap;

use crate::engine::event::Event;

/// A step that takes this long is worth a line in a log, and again each time it has passed.
const LONG: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub struct Progress {
    pub dry_run: bool,
    pub nodes: IndexMap<String, Activity>,
    pub interrupted: bool,
}

#[derive(Debug, Default)]
pub struct Activity {
    pub state: State,
    pub role: Option<String>,
    pub doing: String,
    /// When what it is doing began.
    pub since: Duration,
    pub started: Option<Duration>,
    pub ended: Option<Duration>,
    pub changed: usize,
    /// How often it was said that the step goes on.
    said: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// No free place among those worked on at a time.
    #[default]
    Queued,
    Working,
    /// Waits for a role on other nodes.
    Waiting,
    Done,
    Failed,
    Skipped,
    Interrupted,
}

impl State {
    pub fn is_end(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Skipped | Self::Interrupted)
    }
}

impl Progress {
    pub fn take(&mut self, event: &Event, now: Duration) {
        match event {
            Event::RunStarted { dry_run, nodes, .. } => {
                self.dry_run = *dry_run;
                self.nodes = nodes.iter().map(|node| (node.clone(), Activity::default())).collect();
            }
            Event::Connecting { node, address, .. } => {
                self.at(node).works(None, format!("connecting to {address}"), now);
            }
            Event::Connected { node, .. } => self.at(node).works(None, "asking what is there".into(), now),
            Event::Waiting { node, role, on } => {
                let activity = self.at(node);
                activity.works(Some(role), format!("waits for role {on} on other nodes"), now);
                activity.state = State::Waiting;
            }
            Event::RoleStarted { node, role, .. } => {
                self.at(node).works(Some(role), "comparing".into(), now);
            }
            Event::Step { node, role, step, says: None } => {
                self.at(node).works(Some(role), step.clone(), now)
            }
            // The same step goes on: its time does too.
            Event::Step { node, step, says: Some(says), .. } => {
                self.at(node).doing = format!("{step}: {says}")
            }
            Event::Retrying { node, .. } => {
                let activity = self.at(node);
                let role = activity.role.clone();
                activity.works(role.as_deref(), "connecting again".into(), now);
            }
            Event::Changed { node, .. } => {
                let activity = self.at(node);
                activity.changed += 1;
                activity.compares(now);
            }
            Event::Differs { node, .. } if self.dry_run => self.at(node).changed += 1,
            Event::HandlerRun { node, .. } => self.at(node).compares(now),
            Event::RoleFinished { node, .. } => self.at(node).compares(now),
            Event::NodeFinished { node, .. } => self.at(node).ends(State::Done, now),
            Event::Interrupted { node, .. } => self.at(node).ends(State::Interrupted, now),
            Event::NodeSkipped { node, role, reason } => {
                let activity = self.at(node);
                activity.works(Some(role), reason.clone(), now);
                activity.ends(State::Skipped, now);
            }
            Event::NodeFailed { node, failure, .. } => {
                let activity = self.at(node);
                if activity.state != State::Skipped {
                    activity.works(failure.role.as_deref(), super::failure::message(failure), now);
                    activity.ends(State::Failed, now);
                }
            }
            Event::Differs { .. }
            | Event::Unknown { .. }
            | Event::Note { .. }
            | Event::HandlerPending { .. }
            | Event::RunFinished { .. } => {}
        }
    }

    /// Nodes that have been at one thing for so long that a log should say so, each with how long.
    pub fn long(&mut self, now: Duration) -> Vec<(&str, &Activity, Duration)> {
        let mut long = Vec::new();
        for (name, activity) in &mut self.nodes {
            let passed = now.saturating_sub(activity.since);
            let times = (passed.as_millis() / LONG.as_millis()) as u32;
            if activity.state == State::Working && times > activity.said {
                activity.said = times;
                long.push((name.as_str(), &*activity, LONG * times));
            }
        }
        long
    }

    fn at(&mut self, node: &str) -> &mut Activity {
        self.nodes.entry(node.to_owned()).or_default()
    }
}

impl Activity {
    fn works(&mut self, role: Option<&str>, doing: String, now: Duration) {
        self.state = State::Working;
        self.role = role.map(str::to_owned);
        self.doing = doing;
        self.since = now;
        self.started.get_or_insert(now);
        self.said = 0;
    }

    fn compares(&mut self, now: Duration) {
        let role = self.role.clone();
        self.works(role.as_deref(), "comparing".into(), now);
    }

    fn ends(&mut self, state: State, now: Duration) {
        self.state = state;
        self.started.get_or_insert(now);
        self.ended = Some(now);
    }

    /// How long the node has been worked on.
    pub fn elapsed(&self, now: Duration) -> Duration {
        self.started.map_or(Duration::ZERO, |started| self.ended.unwrap_or(now).saturating_sub(started))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_step_is_told_every_thirty_seconds() {
        let seconds = Duration::from_secs;
        let mut progress = Progress::default();
        let step =
            Event::Step { node: "nas".into(), role: "base".into(), step: "package curl".into(), says: None };
        progress.take(&step, seconds(5));
        let mut told =
            |at| progress.long(seconds(at)).iter().map(|(_, _, d)| d.as_secs()).collect::<Vec<u64>>();
        assert!(told(34).is_empty());
        assert_eq!(told(36), [30]);
        assert!(told(40).is_empty());
        assert_eq!(told(97), [90]);
        progress.take(&step, seconds(100));
        assert_eq!(progress.long(seconds(101)).len(), 0);
    }
}
