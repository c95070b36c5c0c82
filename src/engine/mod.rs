//! The engine: plans become converged nodes. Emits [`event::Event`]s and never prints.
//!
//! The unit of scheduling is (node, role). Nodes run side by side; a node's own roles run in their order, and a
//! role waits for the roles it names in `after` on every other node. A failure stops only what depends on it.

mod converge;
pub mod event;
pub mod lock;
pub mod peers;
pub mod record;
pub mod step;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::sync::{Semaphore, watch};

use crate::artifact::store::Store;
use crate::probe::{Facts, Question};
use crate::role::{After, NodePlan};
use crate::transport::{self, Transport};
pub(crate) use converge::questions;
use converge::{Run, Stop};
use event::{Event, Events, Failure, Summary};
use lock::Holder;
use peers::Peers;

/// A connection that is being opened.
pub type Connecting = Pin<Box<dyn Future<Output = Result<Arc<dyn Transport>, transport::Error>> + Send>>;

/// Makes a node's plan from its facts.
pub type Planner = Box<dyn Fn(&Facts) -> Result<NodePlan, Box<Failure>> + Send + Sync>;

/// One node of a run.
pub struct Target {
    pub node: String,
    /// For people: where it is reached.
    pub address: String,
    /// As the inventory claims it.
    pub hostname: String,
    /// Numeric, where it is known.
    pub ip: Option<IpAddr>,
    pub connect: Box<dyn Fn() -> Connecting + Send + Sync>,
    /// Checks what the inventory claims against the facts and makes the plan.
    pub plan: Planner,
    /// What the plan asks if the machine is what the inventory claims. It is asked together with the facts, so that
    /// a node on which nothing is to be done costs one round trip.
    pub expected: Vec<Question>,
    /// Its roles in order, each with what it waits for on other nodes.
    pub roles: Vec<(String, Vec<After>)>,
}

/// How far an interrupt goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Interrupt {
    #[default]
    None,
    /// Finish the running step, then stop.
    AfterStep,
    Now,
}

pub struct Options {
    pub dry_run: bool,
    /// Nodes worked on at a time; at least 1.
    pub forks: usize,
    /// Who runs it.
    pub holder: Holder,
    pub interrupt: watch::Receiver<Interrupt>,
    /// Takes known secrets out of what a node printed.
    pub redact: Arc<dyn Fn(&str) -> String + Send + Sync>,
    /// Where files that are brought to nodes come from.
    pub artifacts: Arc<Store>,
    /// Reaches the servers of a cluster, also those that are not part of the run.
    pub peers: peers::Connector,
    /// Begin nothing on other nodes once one has failed.
    pub stop_at_failure: bool,
    /// How many nodes of a cluster may be out of service at the same time; at least 1.
    pub out_at_once: usize,
}

/// What a run came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    pub nodes: usize,
    /// Changes made, or pending in a dry run; handlers left over from an earlier run count.
    pub changed: usize,
    pub unknown: usize,
    pub failed: usize,
    pub interrupted: bool,
}

struct Context {
    dry_run: bool,
    holder: Holder,
    interrupt: watch::Receiver<Interrupt>,
    redact: Arc<dyn Fn(&str) -> String + Send + Sync>,
    artifacts: Arc<Store>,
    peers: Peers,
    events: Events,
    stop_at_failure: bool,
    /// The node that failed first.
    failed: OnceLock<String>,
}

impl Context {
    fn interrupt(&self) -> Interrupt {
        *self.interrupt.borrow()
    }

    /// The node because of whose failure nothing may be begun any more.
    fn failed_elsewhere(&self, node: &str) -> Option<&str> {
        self.failed.get().map(String::as_str).filter(|failed| self.stop_at_failure && *failed != node)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    Done,
    Failed,
}

/// The stages of every (node, role), to wait on.
struct Stages(HashMap<(String, String), watch::Sender<Stage>>);

impl Stages {
    fn new(targets: &[Target]) -> Self {
        Self(
            targets
                .iter()
                .flat_map(|t| t.roles.iter().map(|(role, _)| (t.node.clone(), role.clone())))
                .map(|key| (key, watch::Sender::new(Stage::Open)))
                .collect(),
        )
    }

    fn set(&self, node: &str, role: &str, stage: Stage) {
        if let Some(sender) = self.0.get(&(node.to_owned(), role.to_owned())) {
            sender.send_replace(stage);
        }
    }

    /// What `node` waits for, by node.
    fn awaited<'a>(
        &'a self,
        node: &'a str,
        after: &'a After,
    ) -> impl Iterator<Item = (&'a String, &'a watch::Sender<Stage>)> {
        let stages = self.0.iter().filter(move |((other, role), _)| after.concerns(node, other, role));
        stages.map(|((other, _), stage)| (other, stage))
    }

    /// Whether there is anything to wait for still; waits for nothing.
    fn is_open(&self, node: &str, after: &After) -> bool {
        self.awaited(node, after).any(|(_, stage)| *stage.borrow() == Stage::Open)
    }

    /// Waits until all of it is done; an error names the node where it failed.
    async fn wait(&self, node: &str, after: &After) -> Result<(), String> {
        let mut awaited: Vec<_> = self.awaited(node, after).collect();
        awaited.sort_by_key(|(other, _)| *other);
        for (other, sender) in awaited {
            let mut receiver = sender.subscribe();
            let stage = receiver.wait_for(|s| *s != Stage::Open).await.map_or(Stage::Failed, |s| *s);
            if stage == Stage::Failed {
                return Err(other.clone());
            }
        }
        Ok(())
    }
}

/// A circle of waiting among (node, role) pairs, as `node/role` in order; `None` if every pair can be reached.
pub fn circle(targets: &[Target]) -> Option<Vec<String>> {
    let mut open: BTreeMap<(usize, usize), Vec<(usize, usize)>> = BTreeMap::new();
    for (n, target) in targets.iter().enumerate() {
        for (r, (_, after)) in target.roles.iter().enumerate() {
            let mut needs: Vec<(usize, usize)> = if r > 0 { vec![(n, r - 1)] } else { Vec::new() };
            for (m, other) in targets.iter().enumerate() {
                let is_needed =
                    |role: &str| after.iter().any(|after| after.concerns(&target.node, &other.node, role));
                let needed = other.roles.iter().enumerate().filter(|(_, (role, _))| is_needed(role));
                needs.extend(needed.map(|(i, _)| (m, i)));
            }
            open.insert((n, r), needs);
        }
    }
    let mut done = BTreeSet::new();
    loop {
        let ready: Vec<_> = open
            .iter()
            .filter(|(_, needs)| needs.iter().all(|n| done.contains(n)))
            .map(|(k, _)| *k)
            .collect();
        if ready.is_empty() {
            break;
        }
        for key in ready {
            open.remove(&key);
            done.insert(key);
        }
    }
    (!open.is_empty()).then(|| {
        open.keys().map(|(n, r)| format!("{}/{}", targets[*n].node, targets[*n].roles[*r].0)).collect()
    })
}

/// Runs all targets to their end and says what it came to. Call [`circle`] first.
pub async fn run(targets: Vec<Target>, options: Options, events: Events) -> Outcome {
    let started = Instant::now();
    events.emit(Event::RunStarted {
        run: options.holder.run.clone(),
        owner: options.holder.owner.clone(),
        at: jiff::Timestamp::now().strftime("%FT%TZ").to_string(),
        dry_run: options.dry_run,
        nodes: targets.iter().map(|t| t.node.clone()).collect(),
    });
    let stages = Arc::new(Stages::new(&targets));
    let forks = Arc::new(Semaphore::new(options.forks.max(1)));
    let context = Arc::new(Context {
        dry_run: options.dry_run,
        holder: options.holder,
        interrupt: options.interrupt,
        redact: options.redact,
        artifacts: options.artifacts,
        peers: Peers::with_places(options.peers, options.out_at_once),
        events: events.clone(),
        stop_at_failure: options.stop_at_failure,
        failed: OnceLock::new(),
    });
    let mut outcome = Outcome { nodes: targets.len(), ..Outcome::default() };
    let mut tasks = tokio::task::JoinSet::new();
    for target in targets {
        let (stages, forks, context) = (stages.clone(), forks.clone(), context.clone());
        tasks.spawn(async move { node(&target, &stages, &forks, &context).await });
    }
    let mut round_trips = 0;
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(End { summary, failed, interrupted }) => {
                outcome.changed += summary.changed + if context.dry_run { summary.handlers } else { 0 };
                outcome.unknown += summary.unknown;
                outcome.failed += usize::from(failed);
                outcome.interrupted |= interrupted;
                round_trips += summary.round_trips;
            }
            Err(_) => outcome.failed += 1,
        }
    }
    events.emit(Event::RunFinished { milliseconds: started.elapsed().as_millis() as u64, round_trips });
    outcome
}

struct End {
    summary: Summary,
    failed: bool,
    interrupted: bool,
}

/// One node from beginning to end. Whatever happens, every one of its stages is closed, so nobody waits forever.
async fn node(target: &Target, stages: &Stages, forks: &Semaphore, context: &Context) -> End {
    let mut now = context.interrupt.clone();
    let mut run = None;
    let result = tokio::select! {
        result = converge_node(target, stages, forks, context, &mut run) => result,
        _ = now.wait_for(|i| *i == Interrupt::Now) => Err(Stop::Interrupted),
    };
    let summary = run.map(Run::finish).unwrap_or_default();
    for (role, _) in &target.roles {
        if stages.0.get(&(target.node.clone(), role.clone())).is_some_and(|s| *s.borrow() == Stage::Open) {
            stages.set(&target.node, role, Stage::Failed);
        }
    }
    let node = target.node.clone();
    let (failed, interrupted) = match result {
        Ok(()) => {
            context.events.emit(Event::NodeFinished { node, summary: summary.clone() });
            (false, false)
        }
        Err(Stop::Interrupted) => {
            context.events.emit(Event::Interrupted { node, summary: summary.clone() });
            (false, true)
        }
        Err(Stop::Failed(failure)) => {
            // Only the first is remembered; the others failed because of it, or are told of it.
            let _ = context.failed.set(node.clone());
            let failed = Event::NodeFailed { node, failure: *failure, summary: summary.clone() };
            context.events.emit(failed);
            (true, false)
        }
    };
    End { summary, failed, interrupted }
}

/// Leaves what it has done in `run`, also when it is dropped halfway.
async fn converge_node<'a>(
    target: &'a Target,
    stages: &Stages,
    forks: &Semaphore,
    context: &'a Context,
    run: &mut Option<Run<'a>>,
) -> Result<(), Stop> {
    let mut permit = forks.acquire().await.ok();
    if context.interrupt() >= Interrupt::AfterStep {
        return Err(Stop::Interrupted);
    }
    let run = run.insert(Run::open(target, context).await?);
    for (role, after) in &target.roles {
        for needed in after {
            if stages.is_open(&target.node, needed) {
                context.events.emit(Event::Waiting {
                    node: target.node.clone(),
                    role: role.clone(),
                    on: needed.role.clone(),
                });
                // Somebody else may need the place to finish what this one waits for.
                drop(permit.take());
            }
            if let Err(failed) = stages.wait(&target.node, needed).await {
                let reason = format!("role {} failed on {failed}", needed.role);
                context.events.emit(Event::NodeSkipped {
                    node: target.node.clone(),
                    role: role.clone(),
                    reason: reason.clone(),
                });
                return Err(Failure {
                    message: format!("role {role} was skipped: {reason}"),
                    role: Some(role.clone()),
                    hint: Some(format!("mend {failed} first, then run again")),
                    ..Failure::default()
                }
                .into());
            }
            if permit.is_none() {
                permit = forks.acquire().await.ok();
            }
        }
        if let Err(stop) = run.role(role).await {
            stages.set(&target.node, role, Stage::Failed);
            return Err(stop);
        }
        stages.set(&target.node, role, Stage::Done);
    }
    run.prove().await
}
