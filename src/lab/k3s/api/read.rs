//! Get, list and watch.

use bytes::Bytes;
use serde_json::{Value, json};

use super::error::ApiError;
use super::operation::Operation;
use super::reply::{Body, Reply};
use crate::lab::k3s::resources::Resource;
use crate::lab::k3s::selector::{Fields, Labels};
use crate::lab::k3s::store::{Event, Key, Object, Store};

/// How often an idle watch gets a bookmark, where bookmarks are asked for. Kubernetes: about once a minute.
const BOOKMARK: std::time::Duration = std::time::Duration::from_secs(30);

/// Which objects of a resource are meant.
#[derive(Debug, Clone)]
struct Filter {
    resource: String,
    namespace: String,
    labels: Labels,
    fields: Fields,
}

impl Filter {
    fn new(operation: Operation<'_>) -> Result<Self, ApiError> {
        let Operation { resource, target, query, .. } = operation;
        let mut fields = query.get("fieldSelector").unwrap_or_default().to_owned();
        if !target.name.is_empty() {
            fields = format!("metadata.name={}", target.name);
        }
        Ok(Self {
            resource: resource.id(),
            namespace: target.namespace.clone(),
            labels: Labels::parse(query.get("labelSelector").unwrap_or_default())
                .map_err(ApiError::bad_request)?,
            fields: Fields::parse(&fields).map_err(ApiError::bad_request)?,
        })
    }

    /// The objects that are there, and the revision they are of.
    fn list(&self, store: &Store) -> (Vec<Object>, u64) {
        let (mut objects, revision) = store.list(&self.resource, &self.namespace);
        objects.retain(|object| self.takes(object));
        (objects, revision)
    }

    fn takes(&self, object: &Value) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }

    /// What a watcher is told of a change, if anything.
    fn told(&self, event: &Event) -> Option<(&'static str, Object)> {
        if event.key.resource != self.resource
            || !(self.namespace.is_empty() || event.key.namespace == self.namespace)
        {
            return None;
        }
        let before = event.old.as_ref().is_some_and(|old| self.takes(old));
        let now = event.new.as_ref().is_some_and(|new| self.takes(new));
        match (before, now) {
            (false, false) => None,
            (false, true) => event.new.clone().map(|new| ("ADDED", new)),
            (true, true) => event.new.clone().map(|new| ("MODIFIED", new)),
            // An object that no longer matches is deleted for this watcher.
            (true, false) => event.new.clone().or(event.old.clone()).map(|last| ("DELETED", last)),
        }
    }
}

/// One object.
pub fn get(operation: Operation<'_>) -> Result<Object, ApiError> {
    let Operation { store, resource, target, .. } = operation;
    store
        .get(&Key::new(&resource.id(), &target.namespace, &target.name))
        .ok_or_else(|| ApiError::not_found(resource, &target.name))
}

/// The objects a request's selectors take.
pub fn matching(operation: Operation<'_>) -> Result<Vec<Object>, ApiError> {
    Filter::new(operation).map(|filter| filter.list(operation.store).0)
}

/// The objects of a collection. `limit` and `continue` are understood; the token is the place of the next object.
pub fn list(operation: Operation<'_>) -> Result<Reply, ApiError> {
    let (objects, revision) = Filter::new(operation)?.list(operation.store);
    let start: usize = match operation.query.get("continue") {
        Some(token) => token.parse().map_err(|_| ApiError::bad_request("continue key is not valid"))?,
        None => 0,
    };
    let limit = operation.query.get("limit").and_then(|limit| limit.parse().ok()).filter(|limit| *limit > 0);
    let end = limit.map_or(objects.len(), |limit: usize| objects.len().min(start.saturating_add(limit)));
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    if end < objects.len() {
        metadata["continue"] = json!(end.to_string());
        metadata["remainingItemCount"] = json!(objects.len() - end);
    }
    Ok(operation.list(&metadata, objects.get(start..end).unwrap_or_default()))
}

/// A stream of changes: from a revision on, or what is there first.
pub fn watch(operation: Operation<'_>) -> Result<Reply, ApiError> {
    let Operation { store, resource, query, .. } = operation;
    let filter = Filter::new(operation)?;
    let (initial, from) = match query.get("resourceVersion").filter(|version| *version != "0") {
        Some(version) => {
            let invalid = |_| ApiError::bad_request(format!("invalid resource version {version:?}"));
            (Vec::new(), version.parse().map_err(invalid)?)
        }
        None => filter.list(store),
    };
    let bookmarks = query.on("allowWatchBookmarks");
    let initial_end = query.on("sendInitialEvents");
    let seconds = query.get("timeoutSeconds").and_then(|seconds| seconds.parse().ok()).unwrap_or(3600);
    let (sender, body) = Body::stream();
    let (store, resource) = (store.clone(), resource.clone());
    tokio::spawn(async move {
        let mut watcher = Watcher { store, resource, filter, from, sender };
        let timeout = std::time::Duration::from_secs(seconds);
        // A client that is gone, or the end of the time: both just end the stream.
        let _ = tokio::time::timeout(timeout, watcher.run(initial, initial_end, bookmarks)).await;
    });
    Ok(Reply { code: 200, content_type: "application/json", body })
}

struct Watcher {
    store: Store,
    resource: Resource,
    filter: Filter,
    /// The revision the client knows.
    from: u64,
    sender: super::reply::Sender,
}

/// The client is gone.
struct Closed;

impl Watcher {
    async fn run(&mut self, initial: Vec<Object>, initial_end: bool, bookmarks: bool) -> Result<(), Closed> {
        let mut changed = self.store.subscribe();
        for object in initial {
            self.send("ADDED", &object).await?;
        }
        if initial_end {
            self.bookmark(true).await?;
        }
        loop {
            match self.store.events_after(self.from) {
                Ok((events, revision)) => {
                    let told: Vec<_> = events.iter().filter_map(|event| self.filter.told(event)).collect();
                    for (kind, object) in told {
                        self.send(kind, &object).await?;
                    }
                    self.from = revision;
                }
                Err(gone) => {
                    let status = ApiError::expired(gone.asked, gone.oldest).status();
                    return self.line(&json!({"type": "ERROR", "object": status})).await;
                }
            }
            tokio::select! {
                news = changed.changed() => if news.is_err() { return Ok(()) },
                () = tokio::time::sleep(BOOKMARK) => match bookmarks {
                    true => self.bookmark(false).await?,
                    // Nothing is said, but it shows whether anyone still listens.
                    false => self.sender.send_data(Bytes::new()).await.map_err(|_| Closed)?,
                },
            }
        }
    }

    async fn bookmark(&mut self, initial_end: bool) -> Result<(), Closed> {
        let mut metadata = json!({"resourceVersion": self.from.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = json!({
            "kind": self.resource.kind, "apiVersion": self.resource.api_version(), "metadata": metadata,
        });
        self.line(&json!({"type": "BOOKMARK", "object": object})).await
    }

    async fn send(&mut self, kind: &str, object: &Value) -> Result<(), Closed> {
        let mut object = object.clone();
        object["apiVersion"] = json!(self.resource.api_version());
        self.line(&json!({"type": kind, "object": object})).await
    }

    async fn line(&mut self, event: &Value) -> Result<(), Closed> {
        self.sender.send_data(Bytes::from(format!("{event}\n"))).await.map_err(|_| Closed)
    }
}
