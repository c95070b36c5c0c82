//! Errors of the API, worded as Kubernetes words them, as `Status` objects.

use serde_json::{Value, json};

use crate::lab::k3s::apply::Conflict;
use crate::lab::k3s::resources::Resource;

/// What went wrong with a request.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// HTTP status.
    pub code: u16,
    /// `NotFound`, `Conflict`, …
    pub reason: &'static str,
    pub message: String,
    pub details: Value,
}

impl ApiError {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Value::Null }
    }

    fn about(mut self, resource: &Resource, name: &str) -> Self {
        self.details = json!({"name": name, "kind": resource.plural});
        if !resource.group.is_empty() {
            self.details["group"] = json!(resource.group);
        }
        self
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub fn forbidden(user: &str, what: &str) -> Self {
        Self::new(403, "Forbidden", format!("forbidden: User {user:?} cannot {what}"))
    }

    /// A path that no resource has.
    pub fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    pub fn not_found(resource: &Resource, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} {name:?} not found", resource.id())).about(resource, name)
    }

    pub fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} {name:?} already exists", resource.id()))
            .about(resource, name)
    }

    pub fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", resource.id());
        Self::new(409, "Conflict", message).about(resource, name)
    }

    /// The object has another `resourceVersion` than the request's.
    pub fn modified(resource: &Resource, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    /// Fields of other managers.
    pub fn apply_conflict(conflicts: &[Conflict]) -> Self {
        let mut error = Self::new(409, "Conflict", apply_message(conflicts));
        let causes: Vec<Value> = conflicts
            .iter()
            .map(|conflict| {
                json!({
                    "reason": "FieldManagerConflict", "field": conflict.field,
                    "message": format!("conflict with {}", conflict.owner),
                })
            })
            .collect();
        error.details = json!({"causes": causes});
        error
    }

    pub fn expired(asked: u64, oldest: u64) -> Self {
        Self::new(410, "Expired", format!("too old resource version: {asked} ({oldest})"))
    }

    pub fn unsupported_media(kind: &str) -> Self {
        Self::new(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {kind}"
            ),
        )
    }

    pub fn invalid(resource: &Resource, name: &str, field: &str, why: &str) -> Self {
        let message = format!("{} {name:?} is invalid: {field}: {why}", group_kind(resource));
        let mut error = Self::new(422, "Invalid", message).about(resource, name);
        error.details["kind"] = json!(resource.kind);
        error.details["causes"] = json!([{"reason": "FieldValueInvalid", "message": why, "field": field}]);
        error
    }

    /// A namespace that is going takes no new objects.
    pub fn terminating(resource: &Resource, name: &str, namespace: &str) -> Self {
        let message = format!(
            "{} {name:?} is forbidden: unable to create new content in namespace {namespace} because it is being terminated",
            resource.id()
        );
        Self::new(403, "Forbidden", message).about(resource, name)
    }

    /// An eviction that a disruption budget does not allow now.
    pub fn disruption(budget: &str, healthy: i64, needed: i64) -> Self {
        let why =
            format!("The disruption budget {budget} needs {needed} healthy pods and has {healthy} currently");
        let message = "Cannot evict pod as it would violate the pod's disruption budget.";
        let mut error = Self::new(429, "TooManyRequests", message);
        error.details = json!({"causes": [{"reason": "DisruptionBudget", "message": why}]});
        error
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {}", message.into()))
    }

    /// The `Status` object.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }
}

fn group_kind(resource: &Resource) -> String {
    match resource.group.as_str() {
        "" => resource.kind.clone(),
        group => format!("{}.{group}", resource.kind),
    }
}

fn apply_message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", one.owner, one.field);
    }
    let mut message = format!("Apply failed with {} conflicts:", conflicts.len());
    let mut last = "";
    for conflict in conflicts {
        if conflict.owner != last {
            message += &format!(" conflicts with {}:", conflict.owner);
            last = &conflict.owner;
        }
        message += &format!("\n- {}", conflict.field);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let deployments = Resource {
            group: "apps".into(),
            version: "v1".into(),
            plural: "deployments".into(),
            kind: "Deployment".into(),
            namespaced: true,
            short: Vec::new(),
            status: true,
            custom: false,
        };
        assert_eq!(ApiError::not_found(&deployments, "a").message, "deployments.apps \"a\" not found");
        let conflict = |owner: &str, field: &str| Conflict { owner: owner.into(), field: field.into() };
        assert_eq!(
            ApiError::apply_conflict(&[conflict("\"a\"", ".data.x")]).message,
            "Apply failed with 1 conflict: conflict with \"a\": .data.x"
        );
        assert_eq!(
            ApiError::apply_conflict(&[conflict("\"a\"", ".data.x"), conflict("\"a\"", ".data.y")]).message,
            "Apply failed with 2 conflicts: conflicts with \"a\":\n- .data.x\n- .data.y"
        );
    }
}
