//! What was started gets a moment to fail in, while the run goes on with what cannot need it.

use std::time::Duration;

use tokio::time::Instant;

use super::{Run, Stop, asking, step, unsettled};
use crate::probe::sh::Probe;
use crate::probe::{Answers, Question};
use crate::role::{Planned, RolePlan};

/// After so long it has settled.
const SETTLED: Duration = Duration::from_secs(1);
/// Sooner, if its processes have done nothing for so long: who still starts, and may fail, works at it.
const AT_REST: Duration = Duration::from_millis(100);

/// A change of which it is not known yet whether it stays.
pub(super) struct Settling {
    /// Its place in the role.
    at: usize,
    /// Fails, and says why, once it has not stayed.
    shell: String,
    used: Option<Vec<u64>>,
    looked: Instant,
    due: Instant,
}

impl Settling {
    /// It was made just now, and `seen` since.
    pub fn new(role: &RolePlan, planned: &Planned, shell: String, seen: &Answers) -> Option<Self> {
        let at = role.resources.iter().position(|one| std::ptr::eq(one, planned))?;
        let now = Instant::now();
        Some(Self { at, shell, used: used(planned, seen), looked: now, due: now + SETTLED })
    }

    fn next_look(&self) -> Instant {
        (self.looked + AT_REST).min(self.due)
    }
}

/// The processor time of the units that a resource is about, if systemd counts it.
fn used(planned: &Planned, seen: &Answers) -> Option<Vec<u64>> {
    let units = planned.resource.questions().into_iter().filter_map(|question| match question {
        Question::Unit(name) => Some(name),
        _ => None,
    });
    units.map(|name| seen.unit(&name).ok()?.processor).collect()
}

impl Run<'_> {
    /// Makes sure that what was started has stayed up: until it has come to rest, or the moment has passed.
    pub(super) async fn settle(&mut self, role: &RolePlan) -> Result<(), Stop> {
        let mut settling = std::mem::take(&mut self.settling);
        while let Some(next) = settling.iter().map(Settling::next_look).max() {
            tokio::time::sleep_until(next).await;
            let asked = Instant::now();
            let questions: Vec<Question> =
                settling.iter().flat_map(|one| role.resources[one.at].resource.questions()).collect();
            self.ask(&questions).await?;
            for mut one in std::mem::take(&mut settling) {
                let planned = &role.resources[one.at];
                if let Some(why) = unsettled(self.verdict(role, planned)?) {
                    return Err(self.has_fallen(role, planned, &one.shell, &why).await);
                }
                let used = used(planned, &self.seen);
                let at_rest = used.is_some() && used == one.used;
                if !at_rest && asked < one.due {
                    (one.used, one.looked) = (used, Instant::now());
                    settling.push(one);
                }
            }
        }
        Ok(())
    }

    /// Lets the node say why a change has not stayed.
    async fn has_fallen(&mut self, role: &RolePlan, planned: &Planned, shell: &str, why: &str) -> Stop {
        let probe = Probe::new([]).after(step::short(self.run_id(), &planned.label(), shell));
        let output = match self.run(&asking(&probe)).await {
            Ok(output) => output,
            Err(error) => return self.step_failure(role, Some(planned), &error),
        };
        match self.read_back(role, planned, &probe, &output) {
            Err(said) => said,
            // It is up again by now.
            Ok(_) => {
                let message = format!("the change was made, and did not stay: {why}");
                self.failure(role, Some(planned), message).into()
            }
        }
    }
}
