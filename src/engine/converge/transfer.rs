//! Bringing a change's file to the node before the change itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Event, RETRIES, Run, Stop};
use crate::artifact::push::push;
use crate::artifact::{self, Progress, Report};
use crate::resource::Transfer;
use crate::role::{Planned, RolePlan};

/// Progress is told this often, in hundredths of the whole: the run's record keeps every event.
const TOLD: u64 = 10;

impl Run<'_> {
    /// From the release to the cache on this machine, once for all nodes; from there to the node, going on where
    /// a lost connection broke it off.
    pub(super) async fn bring(
        &mut self,
        role: &RolePlan,
        planned: &Planned,
        transfer: &Transfer,
    ) -> Result<(), Stop> {
        let Transfer { artifact, path } = transfer;
        let fetching = self.telling(role, planned, "downloading");
        let fetched = self.context.artifacts.fetch(artifact, fetching).await;
        let cached = fetched.map_err(|e| self.not_brought(role, planned, &e))?;
        let sending = self.telling(role, planned, "sending");
        let mut attempt = 0;
        loop {
            let transport = self.transport.clone();
            match push(&*transport, artifact, &cached, path, &sending).await {
                Ok(()) => return Ok(()),
                Err(artifact::Error::Transport(error)) if error.retryable() && attempt < RETRIES => {
                    let back = self.reconnect(error, &mut attempt).await;
                    back.map_err(|e| self.step_failure(role, Some(planned), &e))?;
                }
                Err(error) => return Err(self.not_brought(role, planned, &error)),
            }
        }
    }

    fn telling(&self, role: &RolePlan, planned: &Planned, doing: &'static str) -> Report {
        let (events, node, role) = (self.context.events.clone(), self.node(), role.name.clone());
        let label = planned.label();
        let told = AtomicU64::new(0);
        Arc::new(move |Progress { done, total }| {
            let Some(total) = total.filter(|total| *total > 0) else { return };
            let part = done.saturating_mul(100) / total / TOLD * TOLD;
            if told.fetch_max(part, Ordering::Relaxed) < part {
                let step = format!("{label}: {doing}, {part} % of {}", artifact::size(total));
                events.emit(Event::Step { node: node.clone(), role: role.clone(), step, says: None });
            }
        })
    }

    fn not_brought(&self, role: &RolePlan, planned: &Planned, error: &artifact::Error) -> Stop {
        let mut failure = self.failure(role, Some(planned), error.to_string());
        failure.hint = error.hint();
        failure.into()
    }
}
