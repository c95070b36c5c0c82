//! A run of the engine as the commands start it: projects and targets in, what happens on the screen and in the
//! record, and what it came to.

use std::sync::Arc;

use super::problem::Problem;
use super::project::{Project, all_plans};
use super::session;
use super::{Exit, Ui};
use crate::diagnostic::Diagnostics;
use crate::engine::event::{Events, Failure};
use crate::engine::record::Record;
use crate::engine::{self, Outcome, Target};
use crate::inventory::{self, Node, Vars};
use crate::probe::Facts;
use crate::role::{self, NodePlan};
use crate::transport::ssh;

/// What a run's targets share.
struct Job {
    project: Project,
    set: Vars,
    roles: Option<Vec<String>>,
    login: ssh::Options,
}

/// What a run is to do.
#[derive(Default)]
pub struct Wanted {
    pub nodes: Vec<String>,
    /// `None`: all roles of each node.
    pub roles: Option<Vec<String>>,
    /// Variables that win over the inventory's.
    pub set: Vars,
    pub dry_run: bool,
    /// Begin nothing on other nodes once one has failed.
    pub stop_at_failure: bool,
    /// Nodes worked on at the same time; 0 means 1.
    pub forks: usize,
    /// How many nodes may be out of service at the same time; 0 means 1.
    pub out_at_once: usize,
}

/// Runs the engine on nodes and shows what happens.
pub async fn converge(
    mut project: Project,
    wanted: Wanted,
    login: ssh::Options,
    ui: &Ui,
) -> anyhow::Result<Outcome> {
    session::look_up_addresses(&mut project.inventory, &login).await;
    let Wanted { nodes, roles, set, dry_run, stop_at_failure, forks, out_at_once } = wanted;
    let job = Arc::new(Job { project, set, roles, login });

    let plans =
        all_plans(nodes.iter().map(|node| {
            job.project.plan_offline(node, &job.set, job.roles.as_deref(), &job.project.secrets)
        }))?;
    nothing_to_run(&job, &plans)?;
    let targets: Vec<Target> = plans.into_iter().filter_map(|plan| target(&job, plan)).collect();
    if let Some(circle) = engine::circle(&targets) {
        return Err(Problem::usage(
            format!("these wait for each other: {}", circle.join(", ")),
            "take one of the roles out of an `after`, or change the order of a node's roles",
        ));
    }

    let holder = session::holder();
    let record = record(ui, &holder.run);
    let interrupt = session::interrupts(ui);
    let secrets = job.project.secrets.clone();
    let options = engine::Options {
        dry_run,
        forks: forks.max(1),
        holder,
        interrupt,
        redact: Arc::new(move |text| secrets.redact(text)),
        artifacts: Arc::new(job.project.artifacts()),
        peers: session::connector(Arc::new(job.project.inventory.clone()), job.login.clone()),
        stop_at_failure,
        out_at_once: out_at_once.max(1),
    };
    let (events, receiver) = Events::new();
    let (outcome, ()) = tokio::join!(engine::run(targets, options, events), ui.follow(receiver, record));
    Ok(outcome)
}

/// How a command ends whose run came to this. `detailed`: what is left to do has an exit code of its own.
pub fn exit(outcome: &Outcome, detailed: bool) -> Exit {
    match outcome {
        Outcome { interrupted: true, .. } => Exit::Interrupted,
        Outcome { failed: 1.., .. } => Exit::Failed,
        Outcome { changed, unknown, .. } if detailed && changed + unknown > 0 => Exit::Pending,
        _ => Exit::Done,
    }
}

fn nothing_to_run(job: &Job, plans: &[NodePlan]) -> anyhow::Result<()> {
    if plans.iter().any(|plan| !plan.roles.is_empty()) {
        return Ok(());
    }
    let which = match &job.roles {
        Some(roles) => format!("no node of these has the role {}", roles.join(", ")),
        None => "no node of these has a role".to_owned(),
    };
    Err(Problem::usage(which, "see what each node has: datahub inventory"))
}

/// `None` for a node that the inventory does not have: plans are only made of nodes that it has.
fn target(job: &Arc<Job>, plan: NodePlan) -> Option<Target> {
    let node = job.project.inventory.nodes.get(&plan.node)?.clone();
    let expected = engine::questions(&plan);
    let roles = plan.roles.into_iter().map(|role| (role.name, role.after)).collect();
    let (planning, planned) = (job.clone(), node.name.clone());
    let (connecting, reached) = (job.clone(), node.clone());
    Some(Target {
        address: session::address(&node),
        hostname: node.hostname.clone(),
        ip: node.address,
        node: node.name,
        connect: Box::new(move || connecting.connect(&reached)),
        plan: Box::new(move |facts| planning.plan(&planned, facts)),
        expected,
        roles,
    })
}

impl Job {
    fn connect(self: &Arc<Self>, node: &Node) -> engine::Connecting {
        let (job, node) = (self.clone(), node.clone());
        Box::pin(async move { session::connect(&node, &job.login).await })
    }

    /// The plan of a node as it really is; a machine that is not the one meant is refused.
    fn plan(&self, node: &str, facts: &Facts) -> Result<NodePlan, Box<Failure>> {
        let Project { inventory, roles, secrets } = &self.project;
        if let Some(claims) = inventory.nodes.get(node) {
            inventory::check_claims(inventory, claims, facts).map_err(|refusal| {
                let (message, hint) = refusal.split_once(": ").unwrap_or((&refusal, ""));
                Box::new(Failure::new(message).hint(hint))
            })?;
        }
        role::plan(inventory, roles, node, facts, &self.set, self.roles.as_deref(), secrets)
            .map_err(|mistakes| Box::new(as_failure(&mistakes)))
    }
}

/// Mistakes that only the node's facts brought out.
fn as_failure(mistakes: &Diagnostics) -> Failure {
    let line = |error: &crate::diagnostic::Diagnostic| match &error.place {
        Some(place) => format!("{place}: {}", error.message),
        None => error.message.clone(),
    };
    let mut failure = Failure::new(format!("the roles cannot be planned for this node: {mistakes}"));
    if let [first, rest @ ..] = mistakes.0.as_slice() {
        failure.place = first.place.as_ref().map(ToString::to_string);
        failure.hint = first.help.clone();
        failure.output = rest.iter().map(line).collect();
    }
    failure
}

/// The run's record in the user's state folder; a run goes on without one.
fn record(ui: &Ui, run: &str) -> Option<Record> {
    use etcetera::BaseStrategy as _;
    let folder = etcetera::choose_base_strategy().ok()?;
    let folder = folder.state_dir().unwrap_or_else(|| folder.data_dir()).join("datahub/runs");
    Record::create(&folder, run)
        .inspect_err(|error| ui.warning(&format!("no record of this run in {}: {error}", folder.display())))
        .ok()
}
