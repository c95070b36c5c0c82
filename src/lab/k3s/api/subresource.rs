//! Subresources other than `status`: eviction, scale, log, a namespace's finalize.

use hyper::Method;
use serde_json::{Value, json};

use super::error::ApiError;
use super::operation::Operation;
use super::path::Target;
use super::read;
use super::reply::Reply;
use super::write;
use crate::lab::k3s::controllers::disruption;
use crate::lab::k3s::object;
use crate::lab::k3s::objects::DeleteOptions;
use crate::lab::k3s::resources::Resource;

pub fn answer(operation: Operation<'_>) -> Result<Reply, ApiError> {
    let Operation { resource, target, request, .. } = operation;
    let plain = Target { subresource: String::new(), ..target.clone() };
    let operation = operation.on(&plain);
    match (resource.id().as_str(), target.subresource.as_str(), &request.method) {
        ("pods", "eviction", &Method::POST) => evict(operation),
        ("pods", "log", &Method::GET) => {
            let pod = read::get(operation)?;
            let node = pod["spec"]["nodeName"].as_str().unwrap_or("none");
            Ok(Reply::text(200, format!("simulated: no container of {} runs on {node}\n", target.name)))
        }
        ("namespaces", "finalize", &Method::PUT) => write::replace(operation),
        (_, "scale", &Method::GET) if has_scale(resource) => {
            read::get(operation).map(|object| Reply::json(200, &scale(&object)))
        }
        (_, "scale", &Method::PUT | &Method::PATCH) if has_scale(resource) => {
            let wanted = write::parse(request)?["spec"]["replicas"].clone();
            if !operation.writer().modify(|object| object["spec"]["replicas"] = wanted)? {
                return Err(ApiError::not_found(resource, &target.name));
            }
            read::get(operation).map(|object| Reply::json(200, &scale(&object)))
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
fn evict(operation: Operation<'_>) -> Result<Reply, ApiError> {
    let eviction = write::parse(operation.request)?;
    let pod = read::get(operation)?;
    if let Some(refusal) = disruption::refusal(operation.store, &pod) {
        return Err(ApiError::disruption(&refusal.budget, refusal.healthy, refusal.needed));
    }
    let mut writer = operation.writer();
    writer.dry_run |= object::items(&eviction["deleteOptions"]["dryRun"]).iter().any(|value| value == "All");
    writer.delete(&DeleteOptions::from_object(&eviction["deleteOptions"]))?;
    Ok(Reply::json(
        201,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}
