//! A request for a resource, with everything it takes to answer it.

use serde_json::{Value, json};

use super::path::{Query, Target};
use super::reply::Reply;
use super::request::Request;
use crate::lab::k3s::objects::Writer;
use crate::lab::k3s::resources::Resource;
use crate::lab::k3s::store::{Object, Store};

#[derive(Clone, Copy)]
pub struct Operation<'a> {
    pub store: &'a Store,
    pub resource: &'a Resource,
    pub target: &'a Target,
    pub query: &'a Query,
    pub request: &'a Request,
}

impl<'a> Operation<'a> {
    /// The same request, for another object.
    pub fn on(self, target: &'a Target) -> Self {
        Self { target, ..self }
    }

    /// Answers with an object, at the version that was asked for; custom resources are not converted.
    pub fn object(self, code: u16, object: &Value) -> Reply {
        Reply::json(code, &self.at_version(object))
    }

    pub fn at_version(self, object: &Value) -> Value {
        let mut object = object.clone();
        object["apiVersion"] = json!(self.resource.api_version());
        object
    }

    /// Answers with a list; `metadata` holds its `resourceVersion`.
    pub fn list(self, metadata: &Value, objects: &[Object]) -> Reply {
        let items: Vec<Value> = objects.iter().map(|object| self.at_version(object)).collect();
        Reply::json(
            200,
            &json!({
                "kind": format!("{}List", self.resource.kind), "apiVersion": self.resource.api_version(),
                "metadata": metadata, "items": items,
            }),
        )
    }

    /// Writes as the request says: its manager, and whether it is a dry run.
    pub fn writer(self) -> Writer<'a> {
        Writer {
            store: self.store,
            resource: self.resource,
            namespace: &self.target.namespace,
            name: &self.target.name,
            subresource: &self.target.subresource,
            manager: self.query.get("fieldManager").unwrap_or_else(|| self.request.agent()),
            dry_run: self.query.get("dryRun") == Some("All"),
        }
    }
}
