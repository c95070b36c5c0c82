//! AppProjects: the default one, what they permit, and how they go.
//!
//! Messages and rules are those of Argo CD's `util/argo` and `app_project_types.go`.

use serde_json::{Value, json};

use super::{APPLICATIONS, Argo, FINALIZER, PROJECTS, release};
use crate::lab::k3s::{glob, object};

/// The cluster Argo CD runs in, and its name there.
const HERE: (&str, &str) = ("https://kubernetes.default.svc", "in-cluster");

pub fn step(argo: &Argo<'_>) {
    if argo.tools.get(PROJECTS, &argo.namespace, "default").is_none() {
        let everything = json!({
            "metadata": {"name": "default"},
            "spec": {
                "sourceRepos": ["*"], "destinations": [{"server": "*", "namespace": "*"}],
                "clusterResourceWhitelist": [{"group": "*", "kind": "*"}],
            },
        });
        argo.tools.create(PROJECTS, &argo.namespace, everything);
    }
    for project in argo.tools.store.list(PROJECTS, &argo.namespace).0 {
        let is_used =
            || argo.tools.list(APPLICATIONS).iter().any(|app| name_of(app) == object::name(&project));
        if object::is_going(&project) && object::has_finalizer(&project, FINALIZER) && !is_used() {
            release(argo, PROJECTS, &project);
        }
    }
}

/// The name of an application's project.
pub fn name_of(app: &Value) -> &str {
    app["spec"]["project"].as_str().filter(|name| !name.is_empty()).unwrap_or("default")
}

/// What is wrong with an application in its project: a condition's type and message.
pub fn objections(argo: &Argo<'_>, app: &Value) -> Vec<(&'static str, String)> {
    let name = name_of(app);
    let Some(project) = argo.tools.get(PROJECTS, &argo.namespace, name) else {
        let why = format!("Application referencing project {name} which does not exist");
        return vec![("InvalidSpecError", why)];
    };
    if !takes_from(&project, object::namespace(app), &argo.namespace) {
        let (app, namespace) = (object::name(app), object::namespace(app));
        let why = format!(
            "application '{app}' in namespace '{namespace}' is not permitted to use project '{name}'"
        );
        return vec![("UnknownError", why)];
    }
    let objections =
        sources(app).into_iter().filter_map(|source| objection_to_source(&project, &source, app));
    let mut found: Vec<String> = objections.collect();
    found.extend(objection_to_destination(&project, &app["spec"]["destination"]));
    found.into_iter().map(|why| ("InvalidSpecError", why)).collect()
}

/// `spec.sources`, or the one `spec.source`.
pub fn sources(app: &Value) -> Vec<Value> {
    match object::items(&app["spec"]["sources"]) {
        [] => vec![app["spec"]["source"].clone()],
        sources => sources.to_vec(),
    }
}

/// Whether applications of a namespace may use the project.
fn takes_from(project: &Value, namespace: &str, own: &str) -> bool {
    let listed = object::items(&project["spec"]["sourceNamespaces"]);
    namespace == own || listed.iter().filter_map(Value::as_str).any(|p| glob::matches(p, namespace, None))
}

fn objection_to_source(project: &Value, source: &Value, app: &Value) -> Option<String> {
    let text = |field: &str| source[field].as_str().unwrap_or_default();
    let several = !object::items(&app["spec"]["sources"]).is_empty();
    if text("repoURL").is_empty() || (text("path").is_empty() && text("chart").is_empty() && !several) {
        return Some(
            "spec.source.repoURL and either spec.source.path or spec.source.chart are required".to_owned(),
        );
    }
    if !text("chart").is_empty() && text("targetRevision").is_empty() {
        let why = "spec.source.targetRevision is required if the manifest source is a helm chart";
        return Some(why.to_owned());
    }
    let repository = text("repoURL");
    let patterns = object::items(&project["spec"]["sourceRepos"]).iter().filter_map(Value::as_str);
    let mut permitted = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(denied) if matches(&normalized(denied), &normalized(repository), Some('/')) => {
                permitted = false;
                break;
            }
            Some(_) => {}
            None => permitted |= matches(&normalized(pattern), &normalized(repository), Some('/')),
        }
    }
    let why =
        || format!("application repo {repository} is not permitted in project '{}'", object::name(project));
    (!permitted).then(why)
}

fn objection_to_destination(project: &Value, destination: &Value) -> Option<String> {
    let text = |field: &str| destination[field].as_str().unwrap_or_default();
    let (server, name, namespace) = (text("server").trim_end_matches('/'), text("name"), text("namespace"));
    match (server, name) {
        ("", "") => return Some("Destination server missing from app spec".to_owned()),
        ("", name) if name != HERE.1 => {
            return Some(format!("there are no clusters with this name: {name}"));
        }
        (server, "") if server != HERE.0 => {
            return Some(format!(
                "error getting cluster by server {server:?}: rpc error: code = NotFound desc = cluster {server:?} not found"
            ));
        }
        (server, name) if !server.is_empty() && !name.is_empty() => {
            return Some(format!(
                "application destination can't have both name and server defined: {name} {server}"
            ));
        }
        _ => {}
    }
    let takes = |field: &str, value: &str, item: &Value| {
        item[field].as_str().is_some_and(|pattern| match pattern.strip_prefix('!') {
            Some(denied) => !matches(denied, value, None),
            None => matches(pattern, value, None),
        })
    };
    let mut permitted = false;
    for item in object::items(&project["spec"]["destinations"]) {
        let cluster = takes("server", HERE.0, item) || takes("name", HERE.1, item);
        let there = takes("namespace", namespace, item);
        let denies = |field: &str| item[field].as_str().is_some_and(|pattern| pattern.starts_with('!'));
        permitted |= cluster && there;
        if cluster && !there && denies("namespace")
            || !cluster && there && (denies("server") || denies("name"))
        {
            permitted = false;
            break;
        }
    }
    let shown = if name.is_empty() { HERE.0 } else { name };
    (!permitted).then(|| {
        format!(
            "application destination server '{shown}' and namespace '{namespace}' do not match any of the allowed \
             destinations in project '{}'",
            object::name(project)
        )
    })
}

/// `*` alone stands for everything, also across separators.
fn matches(pattern: &str, text: &str, separator: Option<char>) -> bool {
    pattern == "*" || glob::matches(pattern, text, separator)
}

/// One form of the many that mean the same repository.
fn normalized(repository: &str) -> String {
    let lower = repository.trim().to_lowercase();
    let plain = lower.strip_prefix("ssh://").unwrap_or(&lower);
    let plain = match plain.split_once('@') {
        // `git@host:path`
        Some((user, rest)) if !plain.contains("://") && !lower.starts_with("ssh://") => {
            format!("{user}@{}", rest.replacen(':', "/", 1))
        }
        _ => plain.to_owned(),
    };
    plain.strip_suffix(".git").unwrap_or(&plain).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projects_permit_sources() {
        let cases = [
            (&["*"][..], "https://git.home.arpa/a/b.git", true),
            (&[], "https://git.home.arpa/a/b", false),
            (&["https://git.home.arpa/a/*"], "https://git.home.arpa/a/b.git", true),
            (&["https://git.home.arpa/a/*"], "https://git.home.arpa/c/b.git", false),
            (&["https://git.home.arpa/A/b"], "https://GIT.home.arpa/a/b.git", true),
            (&["git@git.home.arpa:a/b"], "ssh://git@git.home.arpa/a/b.git", true),
            (&["*", "!https://git.home.arpa/a/*"], "https://git.home.arpa/a/b", false),
            (&["*", "!https://git.home.arpa/a/*"], "https://git.home.arpa/c/b", true),
        ];
        for (repositories, repository, wanted) in cases {
            let project = json!({"metadata": {"name": "p"}, "spec": {"sourceRepos": repositories}});
            let source = json!({"repoURL": repository, "path": "."});
            let seen = objection_to_source(&project, &source, &json!({}));
            assert_eq!(seen.is_none(), wanted, "{repositories:?} {repository}: {seen:?}");
        }
    }

    #[test]
    fn projects_permit_destinations() {
        let here = "https://kubernetes.default.svc";
        let item = |server: &str, namespace: &str| json!({"server": server, "namespace": namespace});
        let cases = [
            (json!([item("*", "*")]), json!({"server": here, "namespace": "a"}), ""),
            (json!([item(here, "a")]), json!({"name": "in-cluster", "namespace": "a"}), ""),
            (
                json!([{"name": "in-cluster", "namespace": "a*"}]),
                json!({"server": here, "namespace": "ab"}),
                "",
            ),
            (json!([item(here, "a")]), json!({"server": here, "namespace": "b"}), "do not match any"),
            (
                json!([item("*", "*"), item("*", "!a")]),
                json!({"server": here, "namespace": "a"}),
                "do not match any",
            ),
            (json!([item("*", "*")]), json!({"namespace": "a"}), "Destination server missing"),
            (
                json!([item("*", "*")]),
                json!({"name": "far", "namespace": "a"}),
                "no clusters with this name: far",
            ),
            (
                json!([item("*", "*")]),
                json!({"server": "https://far", "namespace": "a"}),
                "\"https://far\" not found",
            ),
        ];
        for (destinations, destination, wanted) in cases {
            let project = json!({"metadata": {"name": "p"}, "spec": {"destinations": destinations}});
            let seen = objection_to_destination(&project, &destination).unwrap_or_default();
            assert!(seen.contains(wanted) && seen.is_empty() == wanted.is_empty(), "{destination}: {seen}");
        }
    }
}
