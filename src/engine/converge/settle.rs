//! What was started gets a moment to fail in, while the run goes on with what cannot need it.

use std::time::Duration;

use tokio::time::Instant;

use super::{Run, Stop, asking, of_node, step, unsettled};
use crate::probe::sh::Probe;
use crate::role::{Planned, RolePlan};

/// After so long it has settled.
const SETTLED: Duration = Duration::from_secs(1);

/// A change of which it is not known yet whether it stays.
pub(super) struct Settling {
    /// Its place in the role.
    at: usize,
    shell: String,
    due: Instant,
}

impl Settling {
    /// It was made just now.
    pub fn new(role: &RolePlan, planned: &Planned, shell: String) -> Option<Self> {
        let at = role.resources.iter().position(|one| std::ptr::eq(one, planned))?;
        Some(Self { at, shell, due: Instant::now() + SETTLED })
    }
}

impl Run<'_> {
    /// Makes sure that what was started has stayed up, waiting for the moment to pass.
    pub(super) async fn settle(&mut self, role: &RolePlan) -> Result<(), Stop> {
        for Settling { at, shell, due } in std::mem::take(&mut self.settling) {
            let planned = &role.resources[at];
            tokio::time::sleep_until(due).await;
            let questions = planned.resource.questions();
            let probe =
                Probe::new(of_node(&questions)).after(step::short(self.run_id(), &planned.label(), &shell));
            let output = self.run(&asking(&probe)).await;
            let output = output.map_err(|e| self.step_failure(role, Some(planned), &e))?;
            self.read_back(role, planned, &probe, &output)?;
            if let Some(why) = unsettled(self.verdict(role, planned)?) {
                let message = format!("the change was made, and did not stay: {why}");
                return Err(self.failure(role, Some(planned), message).into());
            }
        }
        Ok(())
    }
}
