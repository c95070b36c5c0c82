//! One change: told, made, read back, and what a long one says meanwhile.

use std::time::{Duration, Instant};

use super::settle::Settling;
use super::{Event, Run, Stop, asking, of_node, step, unsettled};
use crate::probe::sh::Probe;
use crate::probe::{Answers, Question};
use crate::resource::Change;
use crate::role::{Planned, RolePlan};
use crate::transport::prompt::printable;
use crate::transport::{Output, Script};

/// How often a long step is listened to.
const LISTEN_EVERY: Duration = Duration::from_secs(8);
/// Characters of what a long step says that are shown while it goes on.
const SAID_LIMIT: usize = 200;

impl Run<'_> {
    pub(super) fn differs(&self, role: &RolePlan, planned: &Planned, change: &Change) {
        let in_words = |name: &String| step::describe(&role.handlers[name].action);
        self.emit(Event::Differs {
            node: self.node(),
            role: role.name.clone(),
            resource: planned.label(),
            place: planned.place.to_string(),
            differences: change.differences.clone(),
            notify: planned.notify.iter().map(in_words).collect(),
        });
    }

    /// It was made so, and is.
    pub(super) fn has_changed(&mut self, role: &RolePlan, planned: &Planned, milliseconds: u64) {
        // What only shows once the change is made: that a unit does not run in a container.
        self.notes(role, planned);
        self.emit(Event::Changed {
            node: self.node(),
            role: role.name.clone(),
            resource: planned.label(),
            milliseconds,
        });
        self.changed.push(planned.label());
        self.summary.changed += 1;
    }

    /// Makes sure that a change has come to what it was to come to, going by what was seen after it.
    pub(super) fn check_made(&self, role: &RolePlan, planned: &Planned, said: &str) -> Result<(), Stop> {
        match unsettled(self.verdict(role, planned)?) {
            None => Ok(()),
            Some(still) => {
                let message = format!("the change was made, but the node is still not as wanted: {still}");
                let mut failure = self.failure(role, Some(planned), message);
                failure.output = self.last_lines(said);
                Err(failure.into())
            }
        }
    }

    /// What was seen before a change may no longer hold: only what is asked from now on does.
    pub(super) fn forget_seen(&mut self) {
        self.dirty = true;
        let facts = std::mem::take(&mut self.seen.facts);
        let pending = self.seen.pending_handlers().cloned().unwrap_or_default();
        self.seen = Answers::new(facts)
            .with(Question::PendingHandlers, crate::probe::Answer::PendingHandlers(pending));
    }

    /// Makes the change and reads it back in one exec, together with what those next to come ask.
    pub(super) async fn apply(
        &mut self,
        role: &RolePlan,
        planned: &Planned,
        next: &[Planned],
        change: &Change,
    ) -> Result<(), Stop> {
        let started = Instant::now();
        self.emit(Event::Step {
            node: self.node(),
            role: role.name.clone(),
            step: planned.label(),
            says: None,
        });
        self.steps += 1;
        if let Some(transfer) = &change.transfer {
            self.bring(role, planned, transfer).await?;
        }
        let fetched = match &change.fetch {
            Some(fetch) => Some(self.fetch(role, planned, fetch).await?),
            None => None,
        };
        let marked = |shell: &str| step::marked(&role.name, &planned.notify, change.starts_last, shell);
        let long = change.long.then(|| format!("{}-{}", self.run_id(), self.steps));
        let shell = match &long {
            Some(id) => step::long(self.run_id(), &planned.label(), &marked(&change.shell), id),
            None => {
                let shell = step::with_fetched(fetched.as_ref(), &change.shell);
                step::short(self.run_id(), &planned.label(), &marked(&shell))
            }
        };
        let mut questions = planned.resource.questions();
        questions.extend(next.iter().flat_map(|n| n.resource.questions()));
        let probe = Probe::new(of_node(&questions));
        let probe = if change.prints || change.long { probe.after(shell) } else { probe.after_quiet(shell) };
        self.forget_seen();
        let script = asking(&probe).timeout(change.timeout);
        let heard = long.as_ref().map(|id| self.listen(role, planned, id));
        let output = self.run(&script).await;
        drop(heard);
        let output = output.map_err(|e| self.step_failure(role, Some(planned), &e))?;
        if let Some(id) = long {
            // A courtesy, as the next run's lock clears it away too.
            let _ = self.run(&asking(&Probe::new([]).after_quiet(step::forget(&id)))).await;
        }
        let text = self.read_back(role, planned, &probe, &output)?;
        if let Some(call) = &change.cluster {
            self.call(role, planned, call).await?;
        }
        let answers = self.ask_cluster(&planned.resource.questions()).await;
        self.seen.extend(answers);
        self.check_made(role, planned, &text)?;
        let settling =
            change.settles.clone().and_then(|shell| Settling::new(role, planned, shell, &self.seen));
        self.settling.extend(settling);
        self.has_changed(role, planned, started.elapsed().as_millis() as u64);
        Ok(())
    }

    /// What a step printed that has succeeded; what was asked after it is seen from here on.
    pub(super) fn read_back(
        &mut self,
        role: &RolePlan,
        planned: &Planned,
        probe: &Probe,
        output: &Output,
    ) -> Result<String, Stop> {
        let broken = |error| self.broken(Some((role, Some(planned))), output, &error);
        let (status, text) = Probe::step(&output.stdout).map_err(broken)?;
        if status != 0 {
            return Err(self.change_failed(role, planned, status, &text).into());
        }
        let (_, answers) = probe.read(&output.stdout).map_err(broken)?;
        self.seen.extend(answers);
        Ok(text)
    }

    /// Tells, until the guard is dropped, what a long step prints: that apt waits for another program's lock, say.
    fn listen(&self, role: &RolePlan, planned: &Planned, id: &str) -> Listener {
        let (transport, events) = (self.transport.clone(), self.context.events.clone());
        let (node, role, step) = (self.node(), role.name.clone(), planned.label());
        let redact = self.context.redact.clone();
        let script = Script::new(step::last_line(id)).timeout(LISTEN_EVERY);
        Listener(tokio::spawn(async move {
            let mut told = None;
            loop {
                tokio::time::sleep(LISTEN_EVERY).await;
                let Ok(output) = transport.run(&script).await else { continue };
                let line = printable(redact(&String::from_utf8_lossy(&output.stdout)).trim());
                let line: String = line.chars().take(SAID_LIMIT).collect();
                if !line.is_empty() && told.as_ref() != Some(&line) {
                    let (node, role, step) = (node.clone(), role.clone(), step.clone());
                    events.emit(Event::Step { node, role, step, says: Some(line.clone()) });
                    told = Some(line);
                }
            }
        }))
    }
}

/// Ends with its guard.
struct Listener(tokio::task::JoinHandle<()>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}
