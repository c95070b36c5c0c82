//! Create, update, patch, delete, and the subresources that write.

use serde_json::{Value, json};

use super::error::ApiError;
use super::operation::Operation;
use super::path::{Query, Target};
use super::read;
use super::reply::Reply;
use super::request::Request;
use crate::lab::k3s::object;
use crate::lab::k3s::objects::{DeleteOptions, Deleted, PatchKind};
use crate::lab::k3s::resources::Resource;
use crate::lab::k3s::yaml;

/// `POST` to a collection.
pub fn create(operation: Operation<'_>) -> Result<Reply, ApiError> {
    let wanted = body(operation.resource, operation.request)?;
    let created = operation.writer().create(wanted)?;
    Ok(operation.object(201, &created))
}

/// `PUT` of an object or its status.
pub fn replace(operation: Operation<'_>) -> Result<Reply, ApiError> {
    let wanted = body(operation.resource, operation.request)?;
    let written = operation.writer().replace(wanted)?;
    Ok(operation.object(200, &written))
}

/// `PATCH` of an object or its status.
pub fn patch(operation: Operation<'_>) -> Result<Reply, ApiError> {
    let Operation { resource, query, request, .. } = operation;
    let content_type = request.content_type.split(';').next().unwrap_or_default().trim();
    let kind = match content_type {
        "application/json-patch+json" => PatchKind::Json,
        "application/merge-patch+json" => PatchKind::Merge,
        // Real custom resources refuse strategic merges, too.
        "application/strategic-merge-patch+json" if !resource.custom => PatchKind::Strategic,
        "application/apply-patch+yaml" => PatchKind::Apply { force: query.on("force") },
        _ => {
            let accepted =
                "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
            return Err(ApiError::unsupported_media(accepted));
        }
    };
    let apply = matches!(kind, PatchKind::Apply { .. });
    if apply && query.get("fieldManager").is_none() {
        return Err(ApiError::bad_request(
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ));
    }
    let patch = parse(request)?;
    if apply {
        check_kind(resource, &patch)?;
    }
    let (written, created) = operation.writer().patch(kind, &patch)?;
    Ok(operation.object(if created { 201 } else { 200 }, &written))
}

/// `DELETE` of an object.
pub fn delete(operation: Operation<'_>) -> Result<Reply, ApiError> {
    let options = delete_options(operation.query, operation.request)?;
    let mut writer = operation.writer();
    writer.dry_run |=
        object::items(&parse_optional(operation.request)?["dryRun"]).iter().any(|value| value == "All");
    Ok(match writer.delete(&options)? {
        Deleted::Going(object) => operation.object(200, &object),
        Deleted::Gone(object) => Reply::json(
            200,
            &json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                "details": {
                    "name": object::name(&object), "uid": object::uid(&object),
                    "kind": operation.resource.plural, "group": operation.resource.group,
                },
            }),
        ),
    })
}

/// `DELETE` of a collection: each object on its own.
pub fn delete_collection(operation: Operation<'_>) -> Result<Reply, ApiError> {
    let options = delete_options(operation.query, operation.request)?;
    let objects = read::matching(operation)?;
    for found in &objects {
        let one = Target {
            name: object::name(found).to_owned(),
            namespace: object::namespace(found).to_owned(),
            ..operation.target.clone()
        };
        match operation.on(&one).writer().delete(&options) {
            Ok(_) => {}
            Err(error) if error.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(operation.list(&json!({"resourceVersion": operation.store.revision().to_string()}), &objects))
}

fn delete_options(query: &Query, request: &Request) -> Result<DeleteOptions, ApiError> {
    let mut options = DeleteOptions::from_object(&parse_optional(request)?);
    if let Some(policy) = query.get("propagationPolicy") {
        options.propagation = Some(policy.to_owned());
    }
    if let Some(grace) = query.get("gracePeriodSeconds") {
        options.grace = grace.parse().ok();
    }
    Ok(options)
}

/// The object in a request's body; its kind must be the path's.
fn body(resource: &Resource, request: &Request) -> Result<Value, ApiError> {
    let value = parse(request)?;
    check_kind(resource, &value)?;
    Ok(value)
}

fn check_kind(resource: &Resource, value: &Value) -> Result<(), ApiError> {
    let sent = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let (kind, api_version) = (sent("kind"), sent("apiVersion"));
    if (kind.is_empty() || kind == resource.kind)
        && (api_version.is_empty() || api_version == resource.api_version())
    {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "the API version in the data ({api_version}, Kind={kind}) does not match the expected API version ({}, Kind={})",
        resource.api_version(),
        resource.kind
    )))
}

/// A body as JSON, or YAML where it says so (apply patches do, and are JSON nearly always).
pub fn parse(request: &Request) -> Result<Value, ApiError> {
    if request.content_type.contains("protobuf") {
        return Err(ApiError::unsupported_media("application/json, application/yaml"));
    }
    let decoding = |error: String| ApiError::bad_request(format!("error decoding: {error}"));
    match serde_json::from_slice(&request.body) {
        Err(_) if request.content_type.contains("yaml") => {
            let text = std::str::from_utf8(&request.body).map_err(|error| decoding(error.to_string()))?;
            yaml::one(text).map(Option::unwrap_or_default).map_err(decoding)
        }
        read => read.map_err(|error| decoding(error.to_string())),
    }
}

fn parse_optional(request: &Request) -> Result<Value, ApiError> {
    if request.body.is_empty() { Ok(Value::Null) } else { parse(request) }
}
