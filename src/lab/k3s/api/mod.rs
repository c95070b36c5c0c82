//! The server's HTTPS interface: the Kubernetes API and K3s's supervisor, on one port.

mod discovery;
mod error;
mod health;
mod operation;
mod path;
mod read;
mod reply;
mod request;
mod subresource;
mod supervisor;
mod write;

use hyper::Method;

pub use error::ApiError;
pub use path::{Query, Target};
pub use reply::Reply;
pub use request::{Caller, Request};

use operation::Operation;

use super::cluster::Cluster;
use super::resources;

/// Answers a request.
pub fn answer(cluster: &Cluster, request: &Request) -> Reply {
    let query = Query::parse(&request.query);
    if let Some(reply) = supervisor::answer(cluster, request, &query) {
        return reply;
    }
    if !request.caller.may_use_api() {
        return match request.caller {
            Caller::Anonymous => ApiError::unauthorized().into(),
            _ => ApiError::forbidden(
                request.caller.user(),
                &format!("{} path {:?}", request.method, request.path),
            )
            .into(),
        };
    }
    health::answer(cluster, request, &query)
        .or_else(|| discovery::answer(cluster, request))
        .unwrap_or_else(|| resource(cluster, request, &query).unwrap_or_else(Reply::from))
}

/// Answers a request for a resource.
fn resource(cluster: &Cluster, request: &Request, query: &Query) -> Result<Reply, ApiError> {
    let store = &cluster.store;
    let target = Target::parse(&request.path).ok_or_else(ApiError::no_such_path)?;
    let resource = resources::find(store, &target.group, &target.version, &target.plural)
        .filter(|resource| resource.namespaced || target.namespace.is_empty())
        .ok_or_else(ApiError::no_such_path)?;
    if resource.namespaced && target.namespace.is_empty() && !target.name.is_empty() {
        return Err(ApiError::no_such_path());
    }
    let operation = Operation { store, resource: &resource, target: &target, query, request };
    match target.subresource.as_str() {
        "" => {}
        "status" if resource.status => {}
        "status" => return Err(ApiError::no_such_path()),
        _ => return subresource::answer(operation),
    }
    match (&request.method, target.name.is_empty()) {
        (&Method::GET, _) if query.on("watch") => read::watch(operation),
        (&Method::GET, true) => read::list(operation),
        (&Method::GET, false) => read::get(operation).map(|object| operation.object(200, &object)),
        (&Method::POST, true) => write::create(operation),
        (&Method::PUT, false) => write::replace(operation),
        (&Method::PATCH, false) => write::patch(operation),
        (&Method::DELETE, true) => write::delete_collection(operation),
        (&Method::DELETE, false) => write::delete(operation),
        _ => Err(ApiError::method_not_allowed()),
    }
}
