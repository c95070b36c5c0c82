//! The node's lock: taken before the first change, and again whenever the connection is a new one.

use std::time::{Duration, Instant};

use super::failure::transport_failure;
use super::{Event, Failure, Interrupt, RETRIES, Run, Stop};
use crate::engine::lock::{self, Answer};
use crate::probe::Question;
use crate::role::RolePlan;
use crate::transport;

/// How long a step that an earlier run left running is waited for: as long as the longest of apt's may take.
const LEFT_OVER_LIMIT: Duration = Duration::from_secs(1800);

impl Run<'_> {
    /// Takes the node for this run. A step that an earlier run left running is waited for, and told of.
    pub(super) async fn take_lock(&mut self, role: &RolePlan) -> Result<(), Stop> {
        let started = Instant::now();
        let mut told = None;
        loop {
            let asked = lock::ask(&*self.transport, &self.context.holder).await;
            let (answer, hold) = asked.map_err(|e| transport_failure("lock the node", &e))?;
            match answer {
                Answer::Ours => {
                    self.lock = Some(hold);
                    return Ok(());
                }
                Answer::Busy(holder) => {
                    return Err(Failure {
                        message: lock::busy(&holder),
                        hint: Some(lock::BUSY_HINT.into()),
                        ..Failure::default()
                    }
                    .into());
                }
                Answer::LeftOver(step) => {
                    let (process, what) = step.split_once(' ').unwrap_or((&step, "a step"));
                    if started.elapsed() > LEFT_OVER_LIMIT {
                        let message =
                            format!("an earlier run's step is still running: {what} (process {process})");
                        let hint = format!(
                            "see what it waits for, or end it: datahub exec --node NAME -- kill {process}"
                        );
                        return Err(self.failure(role, None, message).hint(hint).into());
                    }
                    if self.context.interrupt() >= Interrupt::AfterStep {
                        return Err(Stop::Interrupted);
                    }
                    let waits = format!("waiting for an earlier run's {what} (process {process})");
                    if told.as_ref() != Some(&waits) {
                        let (node, role) = (self.node(), role.name.clone());
                        self.emit(Event::Step { node, role, step: waits.clone(), says: None });
                        told = Some(waits);
                    }
                }
            }
        }
    }

    /// Takes the node's lock and asks all that is still to be decided once more: a run that is dead by now may have
    /// left a step, which the lock waits for, and what was seen before may be from the middle of it.
    pub(super) async fn lock_and_look(
        &mut self,
        role: &RolePlan,
        mut questions: Vec<Question>,
    ) -> Result<(), Stop> {
        self.take_lock(role).await?;
        // Those of this role are not among them: it is taken out while it is worked on.
        questions.extend(super::questions(&self.plan));
        self.ask(&questions).await
    }

    /// Opens a new connection in place of one that was lost, and takes the node's lock again if it was held.
    /// Counts its own attempts too.
    pub(super) async fn reconnect(
        &mut self,
        mut reason: transport::Error,
        attempt: &mut u32,
    ) -> Result<(), transport::Error> {
        loop {
            *attempt += 1;
            self.emit(Event::Retrying { node: self.node(), reason: reason.to_string() });
            tokio::time::sleep(Duration::from_millis(500 << *attempt)).await;
            match self.transport.reconnect().await {
                Ok(()) => break,
                Err(error) if *attempt < RETRIES => reason = error,
                Err(error) => return Err(error),
            }
        }
        if self.lock.take().is_some() {
            match lock::ask_again(&*self.transport, &self.context.holder).await? {
                (Answer::Ours, hold) => self.lock = Some(hold),
                (Answer::Busy(who) | Answer::LeftOver(who), _) => {
                    return Err(transport::Error::Other(format!(
                        "the connection was lost, and meanwhile another run took the node: {who}"
                    )));
                }
            }
        }
        Ok(())
    }
}
