//! `datahub status`: how the cluster is, in one table.

use std::collections::HashMap;

use super::cluster::{self, problem};
use super::project::Project;
use super::session::Login;
use super::{Exit, Global, Shape, Ui};
use crate::cluster::status::{Row, look};
use crate::cluster::{AGENT, Member, SERVER};
use crate::inventory::Vars;
use crate::kube::argo::Application;
use crate::probe::{Answer, Answers, Facts, Question};
use crate::resource::{Difference, Resource, Verdict};

/// Show nodes, versions, readiness, drift, disk and memory, and the applications of Argo CD
///
/// Exits with 1 if a node is not Ready or cannot be reached, or an application is not synced and healthy.
#[derive(clap::Args)]
pub struct Status {
    /// How to print
    #[arg(long, value_name = "FORMAT", default_value = "text", help_heading = "Output")]
    pub format: Shape,
    #[command(flatten)]
    login: Login,
}

impl Status {
    pub async fn run(self, global: &Global, ui: &Ui) -> anyhow::Result<Exit> {
        let cluster = cluster::open(global, &self.login, ui).await?;
        let wanted = wanted(&cluster.project, &cluster.access.members.0);
        let picture =
            look(&cluster.access, &|member, object| drift(wanted.get(&member.node)?.as_ref(), object))
                .await
                .map_err(problem)?;
        match self.format {
            Shape::Json => ui.json(&picture),
            Shape::Text => {
                show(&picture.nodes, ui);
                show_applications(&picture.applications, ui);
            }
        }
        Ok(if picture.is_well() { Exit::Done } else { Exit::Failed })
    }
}

/// What each member should be in the cluster: the resource of its role that says so.
fn wanted(project: &Project, members: &[Member]) -> HashMap<String, Box<dyn Resource>> {
    let roles = [SERVER.to_owned(), AGENT.to_owned()];
    let mut wanted = HashMap::new();
    for member in members {
        let plan = project.plan_offline(&member.node, &Vars::new(), Some(&roles), &project.secrets);
        // A plan that cannot be made is provision's to complain of; here its drift stays unknown.
        let resources = plan.ok().into_iter().flat_map(|plan| plan.roles).flat_map(|role| role.resources);
        let node =
            resources.filter(|planned| planned.kind == "kube_node").map(|planned| planned.resource).next();
        wanted.extend(node.map(|resource| (member.node.clone(), resource)));
    }
    wanted
}

/// The names of what differs.
fn drift(wanted: &dyn Resource, object: &serde_json::Value) -> Option<Vec<String>> {
    let question = wanted.questions().into_iter().find(|q| matches!(q, Question::ClusterNode { .. }))?;
    let answer = Answer::ClusterNode(Ok(Some(object.clone())));
    let name = |difference: Difference| match difference {
        // Readiness has a column of its own.
        Difference::Value { attribute, .. } => Some(attribute).filter(|attribute| attribute != "state"),
        Difference::Text { path, .. } => Some(path),
        Difference::Secret { attribute } => Some(attribute),
    };
    match wanted.diff(&Answers::new(Facts::default()).with(question, answer)).ok()? {
        Verdict::Converged => Some(Vec::new()),
        Verdict::Differs(change) => Some(change.differences.into_iter().filter_map(name).collect()),
        Verdict::Refused(reason) => Some(vec![reason]),
        Verdict::Unknown(_) => None,
    }
}

fn show_applications(applications: &[Application], ui: &Ui) {
    if applications.is_empty() {
        return;
    }
    let cells = |application: &Application| -> Vec<String> {
        vec![
            application.name.clone(),
            application.namespace.clone(),
            application.sync.clone(),
            application.health.clone(),
            application.revision.clone(),
            application.message.clone().unwrap_or_default(),
        ]
    };
    ui.line("");
    let rows: Vec<Vec<String>> = applications.iter().map(cells).collect();
    ui.table(&["application", "namespace", "sync", "health", "revision", ""], &rows);
}

fn show(rows: &[Row], ui: &Ui) {
    let cells = |row: &Row| -> Vec<String> {
        let none = || "–".to_owned();
        let drift = match &row.drift {
            None => none(),
            Some(drift) if drift.is_empty() => "none".to_owned(),
            Some(drift) => drift.join(", "),
        };
        vec![
            row.node.clone(),
            row.role.to_owned(),
            row.state.clone(),
            row.version.clone().unwrap_or_else(none),
            row.runtime.clone().map_or_else(none, |runtime| runtime.replace("://", " ")),
            row.machine.disk.map_or_else(none, |disk| disk.to_string()),
            row.machine.memory.map_or_else(none, |memory| memory.to_string()),
            drift,
        ]
    };
    let rows_of_cells: Vec<Vec<String>> = rows.iter().map(cells).collect();
    ui.table(&["node", "role", "state", "version", "runtime", "disk", "memory", "drift"], &rows_of_cells);
    for row in rows {
        if let Some(why) = &row.unreachable {
            ui.warning(&format!("{}: {why}", row.node));
        }
    }
    if rows.iter().any(|row| row.drift.as_ref().is_some_and(|drift| !drift.is_empty())) {
        ui.hint("to mend the drift: datahub provision --all --role k3s-server,k3s-agent");
    }
}
