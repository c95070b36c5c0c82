//! `datahub provision` brings nodes to the state the inventory describes; `datahub plan` shows what that would do.

use std::sync::Arc;

use super::problem::Problem;
use super::project::{Project, all_plans};
use super::selection::Selection;
use super::session::{self, Login};
use super::{Exit, Global, Ui};
use crate::diagnostic::Diagnostics;
use crate::engine::event::{Events, Failure};
use crate::engine::record::Record;
use crate::engine::{self, Target};
use crate::inventory::{self, Node, Vars};
use crate::probe::Facts;
use crate::role::{self, NodePlan};
use crate::transport::{self, ssh};
use crate::ui::Format;

/// Bring nodes to the state that the inventory describes
///
/// Every change is read back, and a second run changes nothing. See what it would do with --dry-run.
#[derive(clap::Args)]
pub struct Provision {
    #[command(flatten)]
    pub run: Run,
    /// Only show what would be changed, as a diff
    #[arg(long, help_heading = "Run")]
    dry_run: bool,
    /// With --dry-run: exit with 2 if changes are pending
    #[arg(long, requires = "dry_run", help_heading = "Run")]
    detailed_exitcode: bool,
}

/// Show what `provision` would change, as a diff (the same as `provision --dry-run`)
#[derive(clap::Args)]
pub struct Plan {
    #[command(flatten)]
    pub run: Run,
    /// Exit with 2 if changes are pending
    #[arg(long, help_heading = "Run")]
    detailed_exitcode: bool,
}

#[derive(clap::Args)]
pub struct Run {
    #[command(flatten)]
    selection: Selection,
    /// Only these roles of the nodes; may be given several times
    #[arg(short, long, value_name = "ROLE", value_delimiter = ',', help_heading = "Run")]
    role: Vec<String>,
    /// Set a variable for this run; VALUE is read as TOML, else taken as a string
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = assignment, help_heading = "Run")]
    set: Vec<(String, toml::Value)>,
    /// How to print: text for people, json for an event a line, markdown for a pull request
    #[arg(long, value_name = "FORMAT", default_value = "text", help_heading = "Run")]
    pub format: Format,
    #[command(flatten)]
    login: Login,
}

impl Provision {
    pub async fn run(self, global: &Global, ui: &Ui) -> anyhow::Result<Exit> {
        let pending = if self.detailed_exitcode { Exit::Pending } else { Exit::Done };
        self.run.run(global, ui, self.dry_run, pending).await
    }
}

impl Plan {
    pub async fn run(self, global: &Global, ui: &Ui) -> anyhow::Result<Exit> {
        let pending = if self.detailed_exitcode { Exit::Pending } else { Exit::Done };
        self.run.run(global, ui, true, pending).await
    }
}

/// What a run's targets share.
struct Job {
    project: Project,
    set: Vars,
    roles: Option<Vec<String>>,
    login: ssh::Options,
}

impl Run {
    /// `pending`: how a dry run ends that has found something to change.
    async fn run(self, global: &Global, ui: &Ui, dry_run: bool, pending: Exit) -> anyhow::Result<Exit> {
        let project = Project::load(global, ui)?;
        let nodes = self.selection.nodes(&project.inventory)?;
        let mut project = project.in_lab(global, ui).await?;
        let login = self.login.options(ui)?;
        session::look_up_addresses(&mut project.inventory, &login).await;
        let roles = (!self.role.is_empty()).then_some(self.role);
        let job = Arc::new(Job { project, set: self.set.into_iter().collect(), roles, login });

        let plans = all_plans(nodes.iter().map(|node| {
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

        let run = run_id();
        let record = record(ui, &run);
        let interrupt = session::interrupts(ui);
        let secrets = job.project.secrets.clone();
        let options = engine::Options {
            dry_run,
            forks: self.login.forks,
            run,
            owner: owner(),
            interrupt,
            redact: Arc::new(move |text| secrets.redact(text)),
            artifacts: Arc::new(job.project.artifacts()),
            peers: peers(job.clone()),
        };
        let (events, receiver) = Events::new();
        let (outcome, ()) = tokio::join!(engine::run(targets, options, events), ui.follow(receiver, record));
        Ok(if outcome.interrupted {
            Exit::Interrupted
        } else if outcome.failed > 0 {
            Exit::Failed
        } else if dry_run && outcome.changed + outcome.unknown > 0 {
            pending
        } else {
            Exit::Done
        })
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
        node: node.name,
        connect: Box::new(move || connecting.connect(&reached)),
        plan: Box::new(move |facts| planning.plan(&planned, facts)),
        expected,
        roles,
    })
}

/// The way to a node that another one has to ask.
fn peers(job: Arc<Job>) -> engine::peers::Connector {
    Arc::new(move |name| match job.project.inventory.nodes.get(name) {
        Some(node) => job.connect(node),
        None => {
            let error = format!("`{name}` is no node of the inventory");
            Box::pin(async move { Err(transport::Error::Other(error)) })
        }
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

fn assignment(text: &str) -> Result<(String, toml::Value), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    if name.is_empty() {
        return Err("the name is missing before `=`".into());
    }
    let read = toml::from_str::<toml::Table>(&format!("v = {value}")).ok();
    let read = read.filter(|table| table.len() == 1).and_then(|mut table| table.remove("v"));
    Ok((name.to_owned(), read.unwrap_or_else(|| value.into())))
}

/// Sorts by time and is unique on this machine.
fn run_id() -> String {
    let now = jiff::Timestamp::now();
    format!("{}-{:x}", now.strftime("%Y%m%dT%H%M%SZ"), std::process::id())
}

/// `user@machine`, for the record, the node's lock and its journal.
fn owner() -> String {
    let user =
        std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "somebody".into());
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{user}@{machine}")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_reads_toml_and_falls_back_to_a_string() {
        for (text, name, value) in [
            ("zone=Etc/UTC", "zone", toml::Value::from("Etc/UTC")),
            ("n=3", "n", 3.into()),
            ("on=true", "on", true.into()),
            ("list=['a', 'b']", "list", vec!["a", "b"].into()),
            ("text='3'", "text", "3".into()),
            ("empty=", "empty", "".into()),
            ("tricky=1\nx = 2", "tricky", "1\nx = 2".into()),
        ] {
            assert_eq!(assignment(text), Ok((name.to_owned(), value)), "{text}");
        }
        assert!(assignment("zone").is_err() && assignment("=x").is_err());
    }
}
