//! A stretch of changes that do not feel one another is decided, made and read back together: one exec, in which each
//! is a step of its own. What turns out not to go together is done one by one.

use std::time::{Duration, Instant};

use super::{Event, Failure, Run, Stop, asking, of_node, step};
use crate::probe::Question;
use crate::probe::sh::Probe;
use crate::resource::{Change, Reach, Verdict};
use crate::role::{Planned, RolePlan};

/// Resources of a stretch, at most: an interrupt waits for its end.
const LENGTH: usize = 16;

/// What may be done together.
pub(super) struct Stretch<'r> {
    changes: Vec<(usize, &'r Planned, Change)>,
    /// The place of the resource that comes after it.
    end: usize,
}

/// Those of the resources still to come that are worth asking about with a change before them: the next one, and what
/// may be changed together with it.
pub(super) fn ahead(later: &[Planned]) -> &[Planned] {
    let together =
        later.iter().take(LENGTH).take_while(|one| one.resource.reach() != Reach::Anything).count();
    &later[..together.max(1).min(later.len())]
}

/// Whether a change is nothing but a few commands.
fn is_plain(change: &Change) -> bool {
    let brought = change.transfer.is_some() || change.fetch.is_some() || change.cluster.is_some();
    let waits = change.long || change.after_settling || change.settles.is_some();
    !(brought || waits || change.prints)
}

impl Run<'_> {
    /// The longest stretch from a place of a role on for which all is known; `None` where that is no more than one
    /// change.
    pub(super) fn stretch<'r>(&self, role: &'r RolePlan, from: usize) -> Result<Option<Stretch<'r>>, Stop> {
        let mut stretch = Stretch { changes: Vec::new(), end: from };
        // Before the first difference nothing is locked, and nothing may be changed.
        if self.context.dry_run || self.lock.is_none() {
            return Ok(None);
        }
        for (at, planned) in role.resources.iter().enumerate().skip(from).take(LENGTH) {
            let (reach, asked) = (planned.resource.reach(), planned.resource.questions());
            let is_apart =
                |before: &Planned| before.resource.reach().apart(&before.resource.questions(), reach, &asked);
            if reach == Reach::Anything
                || !asked.iter().all(|question| self.seen.has(question))
                || !stretch.changes.iter().all(|(_, before, _)| is_apart(before))
            {
                break;
            }
            match self.verdict(role, planned)? {
                Verdict::Converged => {}
                Verdict::Differs(change) if is_plain(&change) => stretch.changes.push((at, planned, change)),
                _ => break,
            }
            stretch.end = at + 1;
        }
        Ok((stretch.changes.len() > 1).then_some(stretch))
    }

    /// Makes the changes of a stretch and reads them back. Returns where to go on: that of a change that has failed, if
    /// it was not the first, for it may be one that does feel another after all, and is tried once more by itself.
    pub(super) async fn make_together<'r>(
        &mut self,
        role: &'r RolePlan,
        stretch: &Stretch<'r>,
    ) -> Result<(usize, Vec<&'r Planned>), Stop> {
        let started = Instant::now();
        let (first, count) = (stretch.changes[0].1, stretch.changes.len());
        self.differs(role, first, &stretch.changes[0].2);
        let label = format!("{} and {} more", first.label(), count - 1);
        self.emit(Event::Step {
            node: self.node(),
            role: role.name.clone(),
            step: label.clone(),
            says: None,
        });
        self.steps += count;
        let shell = |(_, planned, change): &(usize, &Planned, Change)| {
            let marked = step::marked(&role.name, &planned.notify, change.starts_last, &change.shell);
            step::one_of_stretch(self.run_id(), &planned.label(), &marked)
        };
        let shells = stretch.changes.iter().map(shell).collect();
        let changed = stretch.changes.iter().map(|(_, planned, _)| *planned);
        let questions: Vec<Question> = changed
            .chain(ahead(&role.resources[stretch.end..]))
            .flat_map(|p| p.resource.questions())
            .collect();
        let probe =
            Probe::new(of_node(&questions)).after_each(step::OPEN_STRETCH, shells, step::CLOSE_STRETCH);
        self.forget_seen();
        let limit: Duration = stretch.changes.iter().map(|(_, _, change)| change.timeout).sum();
        let output = self.run(&asking(&probe).timeout(limit)).await.map_err(|error| {
            match self.step_failure(role, Some(first), &error) {
                Stop::Failed(failure) => Stop::from(Failure { resource: Some(label), ..*failure }),
                stop => stop,
            }
        })?;
        let broken = |error| self.broken(Some((role, Some(first))), &output, &error);
        let steps = Probe::steps(&output.stdout).map_err(broken)?;
        let failed = steps.iter().enumerate().find(|(_, (status, _))| *status != 0);
        let end = match failed {
            None => {
                self.seen.extend(probe.read(&output.stdout).map_err(broken)?.1);
                stretch.end
            }
            Some((0, (status, said))) => {
                return Err(self.change_failed(role, first, *status, said).into());
            }
            Some((at, _)) => {
                let again = stretch.changes[at].0;
                let made = stretch.changes[..at].iter().map(|(_, planned, _)| *planned);
                let asked = made.chain(ahead(&role.resources[again..])).flat_map(|p| p.resource.questions());
                self.ask(&asked.collect::<Vec<_>>()).await?;
                again
            }
        };
        let made = &stretch.changes[..failed.map_or(count, |(at, _)| at)];
        let milliseconds = started.elapsed().as_millis() as u64 / made.len() as u64;
        for ((at, planned, change), (_, said)) in made.iter().zip(&steps) {
            if *at != stretch.changes[0].0 {
                self.differs(role, planned, change);
            }
            self.check_made(role, planned, said)?;
            self.has_changed(role, planned, milliseconds);
        }
        Ok((end, made.iter().map(|(_, planned, _)| *planned).collect()))
    }
}
