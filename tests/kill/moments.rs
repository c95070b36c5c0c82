//! When to kill: moments of an undisturbed run, counted in its events, and times between two of them.

use std::io::{BufRead as _, BufReader, Read};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use serde_json::Value;

/// A run that ended, by itself or not.
pub struct Ended {
    pub status: ExitStatus,
    pub timeline: Timeline,
    /// What it wrote to stderr.
    pub said: String,
    pub took: Duration,
}

/// After so many events, and then so much time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    pub events: usize,
    pub delay: Duration,
    /// For people: where in the run that is.
    pub what: String,
}

/// The events of a run, each with the time since its start.
#[derive(Debug, Default)]
pub struct Timeline(Vec<(Duration, Value)>);

impl Timeline {
    /// Reads events to their end; calls `kill` at the moment, if the run gets there.
    pub fn read(
        events: impl Read,
        started: Instant,
        moment: Option<&Moment>,
        mut kill: impl FnMut(),
    ) -> Self {
        let mut timeline = Self::default();
        let mut lines = BufReader::new(events).lines();
        let due = |timeline: &Self| moment.is_some_and(|moment| moment.events == timeline.0.len());
        loop {
            if let Some(moment) = moment.filter(|_| due(&timeline)) {
                std::thread::sleep(moment.delay);
                kill();
            }
            // The last line of a run that was killed may be half a line.
            let Some(Ok(line)) = lines.next() else { return timeline };
            let Ok(event) = serde_json::from_str(&line) else { return timeline };
            timeline.0.push((started.elapsed(), event));
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    fn events(&self) -> impl Iterator<Item = &Value> {
        self.0.iter().map(|(_, event)| event)
    }

    /// How many resources the run changed, and how many handlers it ran.
    pub fn summary(&self) -> Option<(u64, u64)> {
        let end = self.events().find(|event| event["event"] == "node-finished")?;
        Some((end["summary"]["changed"].as_u64()?, end["summary"]["handlers"].as_u64()?))
    }

    pub fn failure(&self) -> Option<String> {
        let end = self.events().find(|event| event["event"] == "node-failed")?;
        Some(end["failure"].to_string())
    }

    /// For people: what the run did.
    pub fn work(&self) -> String {
        let count = |kind: &str| self.events().filter(|event| event["event"] == kind).count();
        format!("{} changes, {} handlers", count("changed"), count("handler-run"))
    }

    /// For people: the last thing it said.
    pub fn last(&self) -> String {
        match self.0.last() {
            None => "before its first event".into(),
            Some((at, event)) => format!("({} ms: {})", at.as_millis(), describe(event)),
        }
    }

    /// Moments of a run like this one: within every handler and every long step, between every change that notifies
    /// and what comes next, and the rest spread over all others.
    pub fn moments(&self, count: usize) -> Vec<Moment> {
        let (mut wanted, mut others) = (Vec::new(), Vec::new());
        let mut notifies = false;
        let ends = self.0.iter().skip(1).map(|(at, _)| *at).chain([Duration::ZERO]);
        for (at, ((time, event), end)) in self.0.iter().zip(ends).enumerate() {
            let lasts = end.saturating_sub(*time);
            let moment = |part: u32| Moment {
                events: at + 1,
                delay: lasts * part / 4,
                what: match part {
                    0 => format!("at {}", describe(event)),
                    _ => format!("{} ms into {}", (lasts * part / 4).as_millis(), describe(event)),
                },
            };
            let kind = event["event"].as_str().unwrap_or_default();
            let next = self.0.get(at + 1).map(|(_, next)| &next["event"]);
            match kind {
                "differs" => notifies = event["notify"].as_array().is_some_and(|notify| !notify.is_empty()),
                "step" if next.is_some_and(|next| next == "handler-run") => {
                    wanted.extend([moment(1)]);
                    others.extend([moment(0), moment(3)]);
                    continue;
                }
                "step" if lasts > Duration::from_millis(300) => {
                    wanted.extend([moment(1), moment(3)]);
                    others.extend([moment(0), moment(2)]);
                    continue;
                }
                "step" => {
                    others.extend([moment(0), moment(1), moment(2), moment(3)]);
                    continue;
                }
                "changed" if notifies => {
                    wanted.push(moment(0));
                    continue;
                }
                _ => {}
            }
            others.push(moment(0));
            if lasts > Duration::from_millis(40) {
                others.push(moment(2));
            }
        }
        let mut moments = spread(wanted, count);
        moments.extend(spread(others, count - moments.len()));
        moments.sort();
        moments
    }
}

/// So many of all, at equal distances.
fn spread(all: Vec<Moment>, count: usize) -> Vec<Moment> {
    match all.len() <= count {
        true => all,
        false => (0..count).map(|at| all[at * all.len() / count].clone()).collect(),
    }
}

fn describe(event: &Value) -> String {
    let about = ["step", "resource", "handler"].iter().find_map(|field| event[*field].as_str());
    format!("{} {}", event["event"].as_str().unwrap_or_default(), about.unwrap_or_default())
        .trim_end()
        .to_owned()
}
