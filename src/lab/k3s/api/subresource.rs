//! Subresources other than `status`: eviction, scale, log, a namespace's finalize.

use hyper::Method;
use serde_json::{Value, json};

use super::error::ApiError;
use super::path::{Query, Target};
use super::read;
use super::reply::Reply;
use super::request::Request;
use super::write;
use crate::lab::k3s::controllers::disruption;
use crate::lab::k3s::object;
use crate::lab::k3s::objects::{DeleteOptions, Writer};
use crate::lab::k3s::resources::Resource;
use crate::lab::k3s::store::Store;

pub fn answer(
    store: &Store,
    resource: &Resource,
    target: &Target,
    query: &Query,
    request: &Request,
) -> Result<Reply, ApiError> {
    let plain = Target { subresource: String::new(), ..target.clone() };
    match (resource.id().as_str(), target.subresource.as_str(), &request.method) {
        ("pods", "eviction", &Method::POST) => evict(store, resource, &plain, query, request),
        ("pods", "log", &Method::GET) => {
            let pod = read::get(store, resource, &plain)?;
            let node = pod["spec"]["nodeName"].as_str().unwrap_or("none");
            Ok(Reply::text(200, format!("simulated: no container of {} runs on {node}\n", target.name)))
        }
        ("namespaces", "finalize", &Method::PUT) => write::replace(store, resource, &plain, query, request),
        (_, "scale", &Method::GET) if has_scale(resource) => {
            read::get(store, resource, &plain).map(|object| Reply::json(200, &scale(&object)))
        }
        (_, "scale", &Method::PUT | &Method::PATCH) if has_scale(resource) => {
            let wanted = write::parse(request)?["spec"]["replicas"].clone();
            let writer = Writer {
                store,
                resource,
                namespace: &target.namespace,
                name: &target.name,
                subresource: "",
                manager: query.get("fieldManager").unwrap_or_else(|| request.agent()),
                dry_run: query.get("dryRun") == Some("All"),
            };
            if !writer.modify(|object| object["spec"]["replicas"] = wanted)? {
                return Err(ApiError::not_found(resource, &target.name));
            }
            read::get(store, resource, &plain).map(|object| Reply::json(200, &scale(&object)))
        }
        _ => Err(ApiError::no_such_path()),
    }
}

fn has_scale(resource: &Resource) -> bool {
    matches!(resource.id().as_str(), "deployments.apps" | "replicasets.apps" | "statefulsets.apps")
}

fn scale(object: &Value) -> Value {
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": object::name(object), "namespace": object::namespace(object),
            "resourceVersion": object["metadata"]["resourceVersion"],
        },
        "spec": {"replicas": object["spec"]["replicas"]},
        "status": {"replicas": object["status"]["replicas"].as_i64().unwrap_or(0)},
    })
}

/// Evicts a pod where its disruption budgets allow that.
fn evict(
    store: &Store,
    resource: &Resource,
    target: &Target,
    query: &Query,
    request: &Request,
) -> Result<Reply, ApiError> {
    let eviction = write::parse(request)?;
    let pod = read::get(store, resource, target)?;
    let refused = disruption::refusal(store, &pod);
    if let Some(refusal) = refused {
        return Err(ApiError::disruption(&refusal.budget, refusal.healthy, refusal.needed));
    }
    let options = DeleteOptions::from_object(&eviction["deleteOptions"]);
    let dry_run = query.get("dryRun") == Some("All")
        || object::items(&eviction["deleteOptions"]["dryRun"]).iter().any(|value| value == "All");
    let writer = Writer {
        store,
        resource,
        namespace: &target.namespace,
        name: &target.name,
        subresource: "",
        manager: request.agent(),
        dry_run,
    };
    writer.delete(&options)?;
    Ok(Reply::json(
        201,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}
