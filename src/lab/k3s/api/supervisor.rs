//! K3s's supervisor: what nodes ask before they have a certificate (`/cacerts`, `/ping`, `/v1-k3s/…`).
//!
//! Kept: the CA, the token's and the node password's check, the certificates a node gets, what a joining server
//! gets. Left out: the reverse tunnel, the etcd member list.

use std::collections::BTreeSet;

use hyper::Method;
use serde_json::json;

use super::{Caller, Query, Reply, Request};
use crate::lab::k3s::cluster::Cluster;
use crate::lab::k3s::{Failure, files, log, machine, node_password};

const PREFIX: &str = "/v1-k3s/";

pub fn answer(cluster: &Cluster, request: &Request, query: &Query) -> Option<Reply> {
    match request.path.as_str() {
        "/cacerts" => return Some(Reply::text(200, cluster.pki.server_ca.certificate.clone())),
        "/ping" => return Some(Reply::text(200, "pong")),
        _ => {}
    }
    let server_only = match request.path.as_str() {
        "/db/snapshot" => true,
        path => path.strip_prefix(PREFIX)? == "server-bootstrap",
    };
    let known = match &request.caller {
        Caller::Server => true,
        Caller::Agent => !server_only,
        Caller::Certificate(identity) => {
            let group = if server_only { "system:masters" } else { "system:nodes" };
            identity.groups.iter().any(|name| name == group)
        }
        Caller::Anonymous => false,
    };
    if !known {
        let code = if request.caller == Caller::Anonymous { 401 } else { 403 };
        return Some(Reply::text(code, if code == 401 { "Unauthorized" } else { "Forbidden" }));
    }
    let answered = match request.path.as_str() {
        "/db/snapshot" if request.method == Method::POST => snapshot(cluster, query),
        path => authenticated(cluster, request, path.strip_prefix(PREFIX).unwrap_or_default()),
    };
    Some(answered.unwrap_or_else(|failure| {
        log::error(failure.to_string());
        Reply::text(500, failure.to_string())
    }))
}

fn authenticated(cluster: &Cluster, request: &Request, name: &str) -> Result<Reply, Failure> {
    Ok(match name {
        "config" => Reply::json(200, &cluster.for_agents),
        "readyz" if cluster.is_ready() => Reply::text(200, "ok"),
        "readyz" => Reply::text(503, "not ready"),
        "apiservers" => Reply::json(200, &json!([cluster.address()])),
        "client-ca.crt" => Reply::text(200, cluster.pki.client_ca.certificate.clone()),
        "server-ca.crt" => Reply::text(200, cluster.pki.server_ca.certificate.clone()),
        "client-kubelet.crt" => return node_certificate(cluster, request, Usage::Client),
        "serving-kubelet.crt" => return node_certificate(cluster, request, Usage::Serving),
        "server-bootstrap" => return bootstrap(cluster, request),
        _ => Reply::text(404, "404 page not found"),
    })
}

#[derive(Clone, Copy)]
enum Usage {
    Client,
    Serving,
}

/// A node's certificate and key, once its password is the one it came with first.
fn node_certificate(cluster: &Cluster, request: &Request, usage: Usage) -> Result<Reply, Failure> {
    let (Some(name), Some(password)) = (request.header("k3s-node-name"), request.header("k3s-node-password"))
    else {
        return Ok(Reply::text(500, "node name not set"));
    };
    let name = name.to_lowercase();
    if let Some(version) = request.header("user-agent").and_then(agent_version)
        && machine::minor(version) > machine::minor(&cluster.settings.version)
    {
        // K3s itself lets such a node in; Kubernetes does not support it. A rehearsal should not overlook it.
        let why = format!(
            "kubelet {version} is newer than the API server {}: the version skew policy forbids it (simulated check)",
            cluster.settings.version
        );
        log::error(&why);
        return Ok(Reply::text(400, why));
    }
    if !node_password::check(&cluster.store, &name, password)? {
        log::error(format!("unable to verify hash for node '{name}': hash does not match"));
        return Ok(Reply::text(
            403,
            format!("unable to verify password for node {name}: hash does not match"),
        ));
    }
    let pair = match usage {
        Usage::Client => cluster.pki.client(&format!("system:node:{name}"), "system:nodes")?,
        Usage::Serving => {
            let mut names = BTreeSet::from([name.clone(), "localhost".to_owned(), "127.0.0.1".to_owned()]);
            names.extend(addresses(request));
            cluster.pki.serving(&name, &names)?
        }
    };
    Ok(Reply::text(200, pair.certificate + &pair.key))
}

fn addresses(request: &Request) -> Vec<String> {
    let list = request.header("k3s-node-ip").unwrap_or_default();
    list.split(',').map(str::trim).filter(|address| !address.is_empty()).map(str::to_owned).collect()
}

/// `k3s/<version>` of a user agent.
fn agent_version(agent: &str) -> Option<&str> {
    agent.strip_prefix("k3s/")?.split_whitespace().next()
}

/// What a joining server needs: the authorities. Its names are added to the serving certificate.
fn bootstrap(cluster: &Cluster, request: &Request) -> Result<Reply, Failure> {
    let mut names: BTreeSet<String> = addresses(request).into_iter().collect();
    names.extend(request.header("k3s-node-name").map(str::to_lowercase));
    cluster.serve_as(names)?;
    Ok(Reply::json(200, &json!({"files": cluster.pki.files(), "agentToken": cluster.credentials.agent})))
}

/// Saves a snapshot under `server/db/snapshots`, as `k3s etcd-snapshot save` asks for.
fn snapshot(cluster: &Cluster, query: &Query) -> Result<Reply, Failure> {
    if !cluster.is_etcd {
        return Ok(Reply::text(500, "etcd datastore disabled"));
    }
    let folder = cluster.data.join("server/db/snapshots");
    files::make_folder(&folder, 0o700)?;
    let base = query.get("name").unwrap_or("on-demand");
    let name = format!("{base}-{}-{}", cluster.node_name, jiff::Timestamp::now().as_second());
    cluster.store.snapshot(&folder.join(&name))?;
    log::info(format!("Saving snapshot {name} (simulated)"));
    Ok(Reply::json(200, &json!({"created": [name]})))
}
