//! `/readyz`, `/livez`, `/healthz` and `/version`.

use serde_json::json;

use super::{Query, Reply, Request};
use crate::lab::k3s::cluster::Cluster;

/// What `?verbose` lists; the last one is what a node that never gets ready fails.
const CHECKS: &[&str] = &[
    "ping",
    "log",
    "etcd",
    "informer-sync",
    "poststarthook/start-apiextensions-controllers",
    "poststarthook/crd-informer-synced",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
];

pub fn answer(cluster: &Cluster, request: &Request, query: &Query) -> Option<Reply> {
    match request.path.as_str() {
        "/version" => Some(version(cluster)),
        "/readyz" => Some(checks("readyz", cluster.is_ready(), query.has("verbose"))),
        "/livez" => Some(checks("livez", true, query.has("verbose"))),
        "/healthz" => Some(checks("healthz", cluster.is_ready(), query.has("verbose"))),
        _ => None,
    }
}

fn checks(name: &str, passed: bool, verbose: bool) -> Reply {
    if passed && !verbose {
        return Reply::text(200, "ok");
    }
    let mut text = String::new();
    for (at, check) in CHECKS.iter().enumerate() {
        match passed || at + 1 < CHECKS.len() {
            true => text += &format!("[+]{check} ok\n"),
            false => text += &format!("[-]{check} failed: reason withheld\n"),
        }
    }
    text += &format!("{name} check {}\n", if passed { "passed" } else { "failed" });
    Reply::text(if passed { 200 } else { 500 }, text)
}

fn version(cluster: &Cluster) -> Reply {
    let version = &cluster.settings.version;
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    Reply::json(
        200,
        &json!({
            "major": major, "minor": minor, "gitVersion": version, "gitCommit": "simulated",
            "gitTreeState": "clean", "buildDate": "2026-01-01T00:00:00Z", "goVersion": "none",
            "compiler": "rustc", "platform": format!("linux/{}", crate::lab::k3s::machine::architecture()),
        }),
    )
}
