//! One node: connect, gather facts, ask everything at once, then role by role decide, change and read back,
//! run handlers, and prove at the end that the node is what it should be.

mod change;
mod cluster;
mod failure;
mod handler;
mod lock;
mod settle;
mod stretch;
mod transfer;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use failure::transport_failure;
use settle::Settling;

use super::event::{Event, Failure, Summary};
use super::{Context, Interrupt, Target, step};
use crate::probe::frame;
use crate::probe::sh::Probe;
use crate::probe::{Answers, Question};
use crate::resource::{Change, Verdict};
use crate::role::{Action, NodePlan, Planned, RolePlan};
use crate::transport::{self, Hold, Output, Script, Transport};

/// How often a step is sent again over a new connection.
const RETRIES: u32 = 3;

/// Why a node's run ended early.
pub(super) enum Stop {
    Failed(Box<Failure>),
    Interrupted,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

/// A run on one node. Created connected; knows what it has seen and what it has done.
pub(super) struct Run<'a> {
    target: &'a Target,
    context: &'a Context,
    transport: Arc<dyn Transport>,
    plan: NodePlan,
    seen: Answers,
    /// Something has been changed since everything was asked.
    dirty: bool,
    changed: Vec<String>,
    /// Label and text of every note given.
    noted: BTreeSet<(String, String)>,
    /// What was started a moment ago.
    settling: Vec<Settling>,
    lock: Option<Hold>,
    started: Instant,
    pub summary: Summary,
    steps: usize,
}

impl<'a> Run<'a> {
    /// Connects, gathers facts, makes the plan and asks every question: one round trip after the login, a second one
    /// if the facts bring up what the inventory's claims did not foresee.
    pub async fn open(target: &'a Target, context: &'a Context) -> Result<Run<'a>, Stop> {
        let started = Instant::now();
        let node = || target.node.clone();
        context.events.emit(Event::Connecting {
            node: node(),
            address: target.address.clone(),
            hostname: target.hostname.clone(),
            ip: target.ip.map(|ip| ip.to_string()),
        });
        let transport = (target.connect)().await.map_err(|e| transport_failure("connect", &e))?;
        context
            .events
            .emit(Event::Connected { node: node(), milliseconds: started.elapsed().as_millis() as u64 });
        let mut run = Run {
            target,
            context,
            transport,
            plan: NodePlan { node: node(), roles: Vec::new() },
            seen: Answers::default(),
            dirty: false,
            changed: Vec::new(),
            noted: BTreeSet::new(),
            settling: Vec::new(),
            lock: None,
            started,
            summary: Summary::default(),
            steps: 0,
        };
        run.look().await?;
        run.summary.resources = run.plan.roles.iter().map(|r| r.resources.len()).sum();
        Ok(run)
    }

    pub fn finish(mut self) -> Summary {
        self.summary.milliseconds = self.started.elapsed().as_millis() as u64;
        self.summary.round_trips = self.transport.round_trips();
        self.summary
    }

    /// Brings one role about, or in a dry run says what would be done.
    pub async fn role(&mut self, name: &str) -> Result<(), Stop> {
        let Some(index) = self.plan.roles.iter().position(|r| r.name == name) else { return Ok(()) };
        // Taken out so that its resources can be read while `self` asks and changes.
        let role = std::mem::replace(
            &mut self.plan.roles[index],
            RolePlan {
                name: name.to_owned(),
                after: Vec::new(),
                resources: Vec::new(),
                handlers: Default::default(),
            },
        );
        self.emit(Event::RoleStarted {
            node: self.node(),
            role: name.to_owned(),
            resources: role.resources.len(),
        });
        let before = self.summary.changed;
        let result = self.role_inner(&role).await;
        self.plan.roles[index] = role;
        result?;
        let changed = self.summary.changed - before;
        self.emit(Event::RoleFinished { node: self.node(), role: name.to_owned(), changed });
        Ok(())
    }

    async fn role_inner(&mut self, role: &RolePlan) -> Result<(), Stop> {
        let mut notified = BTreeSet::new();
        let mut at = 0;
        while let Some(planned) = role.resources.get(at) {
            self.go_on(role)?;
            let changed = match self.stretch(role, at)? {
                Some(stretch) => {
                    let (next, changed) = self.make_together(role, &stretch).await?;
                    at = next;
                    changed
                }
                None => {
                    at += 1;
                    let differed = self.resource(role, planned, &role.resources[at..]).await?;
                    differed.then_some(planned).into_iter().collect()
                }
            };
            notified.extend(changed.iter().flat_map(|planned| planned.notify.iter().cloned()));
        }
        self.settle(role).await?;
        let mut left_over = self.left_over(role)?;
        if !left_over.is_empty() && !self.context.dry_run && self.lock.is_none() {
            self.lock_and_look(role, Vec::new()).await?;
            left_over = self.left_over(role)?;
        }
        notified.extend(left_over.iter().cloned());
        for name in &notified {
            let handler = &role.handlers[name];
            self.emit(Event::HandlerPending {
                node: self.node(),
                role: role.name.clone(),
                handler: step::describe(&handler.action),
                left_over: left_over.contains(name),
            });
        }
        self.summary.handlers += notified.len();
        if self.context.dry_run {
            return Ok(());
        }
        // A reboot comes last: it may make a restart unnecessary, never the other way round.
        let (reboots, others): (Vec<_>, Vec<_>) =
            notified.iter().map(|n| &role.handlers[n]).partition(|h| h.action == Action::Reboot);
        for handler in others.into_iter().chain(reboots) {
            self.go_on(role)?;
            self.handler(role, handler).await?;
        }
        Ok(())
    }

    /// The role's handlers that an earlier run has notified and not run.
    fn left_over(&self, role: &RolePlan) -> Result<BTreeSet<String>, Stop> {
        let prefix = format!("{}/", role.name);
        let pending = self.seen.pending_handlers().map_err(|e| self.failure(role, None, e.to_string()))?;
        let names = pending.iter().filter_map(|pending| pending.strip_prefix(&prefix));
        Ok(names.filter(|name| role.handlers.contains_key(*name)).map(str::to_owned).collect())
    }

    /// Whether the next thing may be begun.
    fn go_on(&self, role: &RolePlan) -> Result<(), Stop> {
        if self.context.interrupt() >= Interrupt::AfterStep {
            return Err(Stop::Interrupted);
        }
        match self.context.failed_elsewhere(&self.target.node) {
            None => Ok(()),
            Some(failed) => Err(self
                .failure(role, None, format!("stopped here, because {failed} failed"))
                .hint(format!("mend {failed}, then run again: what is done stays done"))
                .into()),
        }
    }

    /// Whether it differed.
    async fn resource(
        &mut self,
        role: &RolePlan,
        planned: &Planned,
        later: &[Planned],
    ) -> Result<bool, Stop> {
        let questions = planned.resource.questions();
        if self.dirty && questions.iter().any(|q| !self.seen.has(q)) {
            // The rest of the role too: until the next change those answers hold.
            let mut all = questions.clone();
            all.extend(later.iter().flat_map(|l| l.resource.questions()));
            self.ask(&all).await?;
        }
        let mut verdict = self.verdict(role, planned)?;
        if matches!(verdict, Verdict::Differs(_)) && !self.context.dry_run && self.lock.is_none() {
            let mut open = questions;
            open.extend(later.iter().flat_map(|l| l.resource.questions()));
            self.lock_and_look(role, open).await?;
            verdict = self.verdict(role, planned)?;
        }
        self.notes(role, planned);
        let change = match verdict {
            Verdict::Converged => return Ok(false),
            Verdict::Refused(reason) => return Err(self.failure(role, Some(planned), reason).into()),
            Verdict::Unknown(reason) if self.context.dry_run => {
                self.summary.unknown += 1;
                self.emit(Event::Unknown {
                    node: self.node(),
                    role: role.name.clone(),
                    resource: planned.label(),
                    place: planned.place.to_string(),
                    reason,
                });
                return Ok(false);
            }
            Verdict::Unknown(reason) => return Err(self.failure(role, Some(planned), reason).into()),
            Verdict::Differs(change) => change,
        };
        self.differs(role, planned, &change);
        if self.context.dry_run {
            self.summary.changed += 1;
            return Ok(true);
        }
        if change.after_settling {
            self.settle(role).await?;
        }
        self.apply(role, planned, stretch::ahead(later), &change).await?;
        Ok(true)
    }

    /// Says what is true of a resource but no difference, each once.
    fn notes(&mut self, role: &RolePlan, planned: &Planned) {
        for note in planned.resource.notes(&self.seen) {
            if self.noted.insert((planned.label(), note.clone())) {
                self.emit(Event::Note {
                    node: self.node(),
                    role: role.name.clone(),
                    resource: planned.label(),
                    place: planned.place.to_string(),
                    note,
                });
            }
        }
    }

    fn verdict(&self, role: &RolePlan, planned: &Planned) -> Result<Verdict, Stop> {
        planned.resource.diff(&self.seen).map_err(|e| self.failure(role, Some(planned), e.to_string()).into())
    }

    /// After the last change: one full probe. Whatever still differs is an error that names who undid it.
    pub async fn prove(&mut self) -> Result<(), Stop> {
        if !self.dirty {
            return Ok(());
        }
        self.ask_everything().await?;
        for role in &self.plan.roles {
            for planned in &role.resources {
                let Some(why) = unsettled(self.verdict(role, planned)?) else { continue };
                let message = format!("it was as wanted and is not any more: {why}");
                let mut failure = self.failure(role, Some(planned), message);
                let label = planned.label();
                let later: Vec<&str> =
                    self.changed.iter().skip_while(|c| **c != label).skip(1).map(String::as_str).collect();
                if !later.is_empty() {
                    failure.hint =
                        Some(format!("one of these, done after it, undid it: {}", later.join(", ")));
                }
                return Err(failure.into());
            }
        }
        let line = format!(
            "run {} by {}: {} changed, {} handlers",
            self.run_id(),
            self.context.holder.owner,
            self.summary.changed,
            self.summary.handlers
        );
        let logging =
            Probe::new([]).after_quiet(format!("logger -t datahub -- {}", crate::shell::quote(&line)));
        // The node's journal is a courtesy; the operator's record is the one that counts.
        let _ = self.transport.run(&asking(&logging)).await;
        Ok(())
    }

    /// Gathers facts, makes the plan from them, and asks what it needs to know.
    async fn look(&mut self) -> Result<(), Stop> {
        let target = self.target;
        let probe = Probe::new(of_node(&target.expected)).with_facts();
        let output = match self.run(&asking(&probe)).await {
            Ok(output) => output,
            Err(error) => return Err(self.unanswered(&error).await),
        };
        let facts = Probe::facts(&output.stdout).map_err(|e| self.broken(None, &output, &e))?;
        self.plan = (target.plan)(&facts).map_err(Stop::Failed)?;
        self.seen = Answers::new(facts);
        // What cannot be read may be about something that this machine need not have: a real lack shows again when
        // the plan's own questions are asked.
        if let Ok((_, answers)) = probe.read(&output.stdout) {
            self.seen.extend(answers);
        }
        let missing: Vec<Question> =
            questions(&self.plan).into_iter().filter(|question| !self.seen.has(question)).collect();
        self.ask(&missing).await
    }

    async fn ask_everything(&mut self) -> Result<(), Stop> {
        self.ask(&questions(&self.plan)).await
    }

    async fn ask(&mut self, questions: &[Question]) -> Result<(), Stop> {
        let of_cluster = self.ask_cluster(questions).await;
        self.seen.extend(of_cluster);
        let probe = Probe::new(of_node(questions));
        if probe.is_empty() {
            return Ok(());
        }
        let output = self.run(&asking(&probe)).await.map_err(|e| self.unasked(questions, &e))?;
        let (_, answers) = probe.read(&output.stdout).map_err(|e| self.broken(None, &output, &e))?;
        self.seen.extend(answers);
        Ok(())
    }

    /// Runs an idempotent script; over a new connection if the old one was lost.
    async fn run(&mut self, script: &Script) -> Result<Output, transport::Error> {
        let mut attempt = 0;
        loop {
            match self.transport.run(script).await {
                Err(error) if error.retryable() && attempt < RETRIES => {
                    self.reconnect(error, &mut attempt).await?
                }
                other => return other,
            }
        }
    }

    fn emit(&self, event: Event) {
        self.context.events.emit(event);
    }

    fn node(&self) -> String {
        self.target.node.clone()
    }

    fn run_id(&self) -> &str {
        &self.context.holder.run
    }
}

/// Everything that has to be known of a node to bring a plan about.
pub(crate) fn questions(plan: &NodePlan) -> Vec<Question> {
    let resources = plan.roles.iter().flat_map(|role| &role.resources);
    let asked = resources.flat_map(|planned| planned.resource.questions());
    std::iter::once(Question::PendingHandlers).chain(asked).collect()
}

/// The script of a probe: over when its answer is.
fn asking(probe: &Probe) -> Script {
    Script::new(probe.script()).until(frame::is_whole)
}

/// The questions that the node itself answers.
fn of_node(questions: &[Question]) -> impl Iterator<Item = Question> {
    questions.iter().filter(|question| !question.is_of_cluster()).cloned()
}

/// Why a resource that should be converged is not.
fn unsettled(verdict: Verdict) -> Option<String> {
    match verdict {
        Verdict::Converged => None,
        Verdict::Differs(change) => Some(list(&change)),
        Verdict::Unknown(reason) | Verdict::Refused(reason) => Some(reason),
    }
}

fn list(change: &Change) -> String {
    use crate::resource::Difference;
    change
        .differences
        .iter()
        .map(|d| match d {
            Difference::Value { attribute, before, after } => format!(
                "{attribute} is {}, not {}",
                before.as_deref().unwrap_or("absent"),
                after.as_deref().unwrap_or("absent")
            ),
            Difference::Text { path, .. } => format!("the content of {path}"),
            Difference::Secret { attribute } => format!("{attribute} (secret)"),
        })
        .collect::<Vec<_>>()
        .join("; ")
}
