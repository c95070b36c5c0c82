//! Installing, upgrading and uninstalling a release: its objects and its record.

use serde_json::{Value, json};

use super::release::Revision;
use super::render::{self, KINDS, Part};
use super::{Chart, release};
use crate::lab::k3s::controllers::Tools;
use crate::lab::k3s::resources::DEFINITIONS;
use crate::lab::k3s::{levers, object};

/// Helm's own field manager.
const MANAGER: &str = "helm";

/// Does what klipper-helm does in the state the last release is in. Says whether it is done; on a failure, what it
/// prints last.
pub fn install(tools: &Tools<'_>, chart: &Chart<'_>, values: &Value) -> Result<bool, String> {
    let newest = release::newest(tools, chart);
    let status = newest.as_deref().map(release::status);
    let word = if status.is_none() { "INSTALLATION" } else { "UPGRADE" };
    let failed = |why: &str| Err(format!("Error: {word} FAILED: {why}"));
    let lever = |lever: &str, default: &str| {
        let rule = levers::rule(tools.settings, lever, chart.name())?;
        Some(if rule.is_empty() { format!("{default} (simulated)") } else { rule })
    };
    if let Some(why) = lever(levers::CHART_UNAVAILABLE, "failed to fetch the chart: 404 Not Found") {
        return failed(&why);
    }
    match (status, chart.failure_policy()) {
        (None | Some("deployed"), _) | (Some(_), "retry") => {}
        (Some(status), "abort") => {
            return Err(format!(
                "Release status is '{status}' and failure policy is 'abort'; waiting for operator intervention"
            ));
        }
        (Some(_), _) => return Ok(uninstall(tools, chart) && install(tools, chart, values)?),
    }
    if tools.get("namespaces", "", chart.target()).is_none() {
        if chart.object["spec"]["createNamespace"] != true {
            return failed(&format!("create: failed to create: namespaces {:?} not found", chart.target()));
        }
        tools.create("namespaces", "", json!({"metadata": {"name": chart.target()}}));
    }
    if let Some(why) = lever(levers::CHART_FAILS, "timed out waiting for the condition") {
        release::record(
            tools,
            chart,
            &Revision { status: "failed", values, description: &why, withheld: &[] },
        );
        return failed(&why);
    }
    let parts = render::parts(chart, values);
    prune(tools, chart, &parts);
    let (withheld, parts): (Vec<Part>, Vec<Part>) =
        parts.into_iter().partition(|part| is_withheld(tools, part));
    parts.iter().for_each(|part| bring(tools, part));
    let description = if status.is_none() { "Install complete" } else { "Upgrade complete" };
    let withheld: Vec<&str> = withheld.iter().map(|part| object::name(&part.object)).collect();
    release::record(tools, chart, &Revision { status: "deployed", values, description, withheld: &withheld });
    Ok(true)
}

fn bring(tools: &Tools<'_>, part: &Part) {
    let name = object::name(&part.object);
    if !(part.folder && tools.get(part.id, &part.namespace, name).is_some()) {
        tools.apply(part.id, &part.namespace, MANAGER, &part.object);
    }
}

fn is_withheld(tools: &Tools<'_>, part: &Part) -> bool {
    part.id == DEFINITIONS
        && levers::rule(tools.settings, levers::DEFINITION_MISSING, object::name(&part.object)).is_some()
}

/// Brings the definitions that a lever held back when the release was made. One that somebody deleted stays away.
pub fn bring_withheld(tools: &Tools<'_>, chart: &Chart<'_>, newest: &Value) {
    let withheld = release::withheld(newest);
    if withheld.is_empty() {
        return;
    }
    let Ok(values) = chart.values(tools) else { return };
    let (still, now): (Vec<Part>, Vec<Part>) = render::parts(chart, &values)
        .into_iter()
        .filter(|part| withheld.contains(&object::name(&part.object)))
        .partition(|part| is_withheld(tools, part));
    now.iter().for_each(|part| bring(tools, part));
    let still: Vec<&str> = still.iter().map(|part| object::name(&part.object)).collect();
    tools.modify("secrets", newest, |secret| release::withhold(secret, &still));
}

/// Removes objects of the release that it no longer has.
fn prune(tools: &Tools<'_>, chart: &Chart<'_>, wanted: &[Part]) {
    for (id, found) in objects(tools, chart) {
        let name = object::name(&found);
        if !wanted.iter().any(|part| part.id == id && object::name(&part.object) == name) {
            tools.delete(id, &found);
        }
    }
}

/// Removes the release's objects and, once they are gone, its record. Says whether that is done.
pub fn uninstall(tools: &Tools<'_>, chart: &Chart<'_>) -> bool {
    for (id, found) in objects(tools, chart).iter().filter(|(_, found)| !object::is_going(found)) {
        tools.delete(id, found);
    }
    let done = objects(tools, chart).is_empty();
    if done {
        release::revisions(tools, chart).iter().for_each(|secret| tools.delete("secrets", secret));
    }
    done
}

/// Every object that carries the release's marks and goes with it.
fn objects(tools: &Tools<'_>, chart: &Chart<'_>) -> Vec<(&'static str, Value)> {
    let is_ours = |found: &Value| {
        object::annotation(found, render::RELEASE) == Some(chart.name())
            && object::annotation(found, render::NAMESPACE) == Some(chart.target())
            && object::annotation(found, render::POLICY) != Some("keep")
    };
    KINDS
        .iter()
        .flat_map(|(_, _, id)| tools.list(id).into_iter().map(|found| (*id, found)))
        .filter(|(_, found)| is_ours(found))
        .map(|(id, found)| (id, (*found).clone()))
        .collect()
}
