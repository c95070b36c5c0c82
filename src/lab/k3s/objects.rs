//! Reading and writing objects: what the API's requests and the cluster's own controllers have in common.
//!
//! Every write goes one way: what is wanted → metadata and defaults → field ownership → the store, or nowhere in a
//! dry run. Not kept of Kubernetes: validation against schemas, admission plugins, quotas.

use serde_json::{Value, json};

use super::api::ApiError;
use super::apply::{self, Manager};
use super::defaults;
use super::lists::Types;
use super::object;
use super::patch;
use super::resources::{self, Resource};
use super::store::{Key, Object, Store, Write, WriteError};

/// The manager under which the cluster's own controllers write.
pub const CONTROLLER: &str = "k3s";

/// One write's circumstances.
#[derive(Clone)]
pub struct Writer<'a> {
    pub store: &'a Store,
    pub resource: &'a Resource,
    pub namespace: &'a str,
    /// Empty for a creation with `generateName`.
    pub name: &'a str,
    /// `status` or empty.
    pub subresource: &'a str,
    pub manager: &'a str,
    pub dry_run: bool,
}

/// A patch's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply { force: bool },
}

/// What became of a deletion.
#[derive(Debug, Clone)]
pub enum Deleted {
    /// It is gone.
    Gone(Object),
    /// Something has to finish first: a finalizer, a running pod.
    Going(Object),
}

/// `DeleteOptions`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeleteOptions {
    /// Seconds.
    pub grace: Option<i64>,
    /// `Background`, `Foreground`, `Orphan`.
    pub propagation: Option<String>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

impl DeleteOptions {
    pub fn from_object(options: &Value) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Self {
            grace: options["gracePeriodSeconds"].as_i64(),
            propagation: text(&options["propagationPolicy"]),
            uid: text(&options["preconditions"]["uid"]),
            resource_version: text(&options["preconditions"]["resourceVersion"]),
        }
    }
}

impl Writer<'_> {
    fn key(&self) -> Key {
        Key::new(&self.resource.id(), self.namespace, self.name)
    }

    /// Creates an object.
    pub fn create(&self, mut wanted: Value) -> Result<Object, ApiError> {
        if object::name(&wanted).is_empty() {
            let Some(prefix) = wanted["metadata"]["generateName"].as_str() else {
                let why = "Required value: name or generateName is required";
                return Err(ApiError::invalid(self.resource, "", "metadata.name", why));
            };
            wanted["metadata"]["name"] = json!(format!("{prefix}{}", suffix()));
        }
        let name = object::name(&wanted).to_owned();
        let writer = Writer { name: &name, ..self.clone() };
        writer.check_namespace()?;
        writer.write(|old, types| match old {
            Some(_) => Err(ApiError::already_exists(self.resource, &name)),
            None => writer.finish(None, wanted, types),
        })
    }

    /// Replaces an object.
    pub fn replace(&self, wanted: Value) -> Result<Object, ApiError> {
        if object::name(&wanted) != self.name {
            let why = format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                object::name(&wanted),
                self.name
            );
            return Err(ApiError::bad_request(why));
        }
        self.write(|old, types| {
            let old = old.ok_or_else(|| ApiError::not_found(self.resource, self.name))?;
            self.finish(Some(old), wanted, types)
        })
    }

    /// Changes what a closure changes in a copy; `false` where the object is not there.
    pub fn modify(&self, change: impl FnOnce(&mut Value)) -> Result<bool, ApiError> {
        let mut found = false;
        self.write(|old, types| {
            let Some(old) = old else { return Ok(Write::Nothing) };
            found = true;
            let mut new = old.clone();
            change(&mut new);
            // The controllers look again and again; what changes nothing has to cost nothing.
            if new == *old {
                return Ok(Write::Nothing);
            }
            self.finish(Some(old), new, types)
        })
        .map(|_| found)
        .or_else(|error| if found { Err(error) } else { Ok(false) })
    }

    /// Patches an object. An apply may create it; the flag says whether it did.
    pub fn patch(&self, kind: PatchKind, patch: &Value) -> Result<(Object, bool), ApiError> {
        if let PatchKind::Apply { .. } = kind {
            self.check_namespace()?;
        }
        let mut created = false;
        let written = self.write(|old, types| {
            let mut new = match (old, kind) {
                (Some(old), _) => old.clone(),
                (None, PatchKind::Apply { .. }) if self.subresource.is_empty() => Value::Null,
                (None, _) => return Err(ApiError::not_found(self.resource, self.name)),
            };
            created = old.is_none();
            match kind {
                PatchKind::Json => patch::json_patch(&mut new, patch)
                    .map_err(|why| ApiError::invalid(self.resource, self.name, "patch", &why))?,
                PatchKind::Merge => patch::json_merge(&mut new, patch),
                PatchKind::Strategic => patch::strategic(&mut new, patch, types),
                PatchKind::Apply { force } => {
                    let mut applied = patch.clone();
                    let metadata = object::map_mut(&mut applied, "metadata");
                    if metadata.get("managedFields").is_some_and(|fields| !object::items(fields).is_empty()) {
                        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
                    }
                    for field in
                        ["managedFields", "resourceVersion", "creationTimestamp", "uid", "generation"]
                    {
                        metadata.remove(field);
                    }
                    if self.subresource.is_empty() && self.resource.status {
                        object::as_map(&mut applied).remove("status");
                    }
                    new = apply::apply(&new, &applied, &self.manager_as("Apply"), force, types)
                        .map_err(|conflicts| ApiError::apply_conflict(&conflicts))?;
                    return self.finish_owned(old, new);
                }
            }
            self.finish(old, new, types)
        })?;
        Ok((written, created))
    }

    /// Deletes an object, or marks it for deletion.
    pub fn delete(&self, options: &DeleteOptions) -> Result<Deleted, ApiError> {
        let mut going = false;
        let before =
            self.store.get(&self.key()).ok_or_else(|| ApiError::not_found(self.resource, self.name))?;
        let written = self.write(|old, _| {
            let old = old.ok_or_else(|| ApiError::not_found(self.resource, self.name))?;
            self.check_preconditions(old, options)?;
            let grace = self.grace(old, options);
            let mut new = old.clone();
            self.add_propagation(&mut new, options);
            if self.resource.id() == resources::DEFINITIONS {
                object::add_finalizer(&mut new, resources::CLEANUP);
            }
            if grace == 0 && !has_finalizers(&new) {
                return Ok(Write::Delete);
            }
            going = true;
            let metadata = object::map_mut(&mut new, "metadata");
            if !metadata.contains_key("deletionTimestamp") {
                metadata.insert("deletionTimestamp".into(), json!(object::now()));
            }
            metadata.insert("deletionGracePeriodSeconds".into(), json!(grace));
            if self.resource.id() == "namespaces" {
                new["status"]["phase"] = json!("Terminating");
            }
            Ok(Write::Put(new))
        });
        match (written, going) {
            (Ok(object), true) => Ok(Deleted::Going(object)),
            (Ok(_), false) => Ok(Deleted::Gone(before)),
            (Err(error), _) => Err(error),
        }
    }

    /// How long the object stays after it was deleted, in seconds: a running pod, until its node has stopped it.
    fn grace(&self, old: &Value, options: &DeleteOptions) -> i64 {
        let runs = self.resource.id() == "pods"
            && old["spec"]["nodeName"].is_string()
            && !matches!(old["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        match runs {
            true => options.grace.or(old["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30),
            false => 0,
        }
    }

    fn check_preconditions(&self, old: &Value, options: &DeleteOptions) -> Result<(), ApiError> {
        let check = |wanted: &Option<String>, found: &str, what: &str| match wanted {
            Some(wanted) if wanted != found => {
                let why = format!(
                    "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
                );
                Err(ApiError::conflict(self.resource, self.name, &why))
            }
            _ => Ok(()),
        };
        check(&options.uid, object::uid(old), "UID")?;
        let version = old["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        check(&options.resource_version, version, "ResourceVersion")
    }

    fn add_propagation(&self, new: &mut Value, options: &DeleteOptions) {
        let finalizer = match options.propagation.as_deref() {
            Some("Foreground") => "foregroundDeletion",
            Some("Orphan") => "orphan",
            _ => return,
        };
        object::add_finalizer(new, finalizer);
    }

    /// Takes an object that is going out of the store for good.
    pub fn remove(&self) -> Result<(), ApiError> {
        self.write(|_, _| Ok(Write::Delete))
            .map(drop)
            .or_else(|error| if error.code == 404 { Ok(()) } else { Err(error) })
    }

    /// An object can only be made in a namespace that is there and stays.
    fn check_namespace(&self) -> Result<(), ApiError> {
        if self.namespace.is_empty() || self.store.get(&self.key()).is_some() {
            return Ok(());
        }
        let Some(namespace) = self.store.get(&Key::new("namespaces", "", self.namespace)) else {
            let namespaces = resources::find(self.store, "", "v1", "namespaces");
            return Err(namespaces.map_or_else(ApiError::no_such_path, |namespaces| {
                ApiError::not_found(&namespaces, self.namespace)
            }));
        };
        match object::is_going(&namespace) {
            true => Err(ApiError::terminating(self.resource, self.name, self.namespace)),
            false => Ok(()),
        }
    }

    /// Runs a decision in the store, or beside it in a dry run.
    fn write(
        &self,
        decide: impl FnOnce(Option<&Value>, &Types<'_>) -> Result<Write, ApiError>,
    ) -> Result<Object, ApiError> {
        let definition = self.definition();
        let types = self.types(definition.as_deref());
        if self.dry_run {
            let old = self.store.get(&self.key());
            return match decide(old.as_deref(), &types)? {
                Write::Put(new) => Ok(new.into()),
                Write::Delete | Write::Nothing => {
                    old.ok_or_else(|| ApiError::not_found(self.resource, self.name))
                }
            };
        }
        let mut last = None;
        let written = self.store.update(&self.key(), |old| {
            last = old.cloned();
            decide(old, &types)
        });
        match written {
            Ok(Some(object)) => Ok(object),
            // It was the last of its finalizers that went.
            Ok(None) => last.map(Into::into).ok_or_else(|| ApiError::not_found(self.resource, self.name)),
            Err(WriteError::Refused(error)) => Err(error),
            Err(WriteError::Database(error)) => Err(ApiError::internal(error.to_string())),
        }
    }

    fn manager_as(&self, operation: &'static str) -> Manager {
        Manager {
            name: self.manager.to_owned(),
            operation,
            api_version: self.resource.api_version(),
            subresource: self.subresource.to_owned(),
        }
    }

    /// The definition of a custom resource.
    fn definition(&self) -> Option<Object> {
        let key = Key::new(resources::DEFINITIONS, "", &self.resource.id());
        self.resource.custom.then(|| self.store.get(&key)).flatten()
    }

    fn types<'t>(&self, definition: Option<&'t Value>) -> Types<'t> {
        match self.resource.custom {
            true => Types::custom(definition, &self.resource.version),
            false => Types::built_in(),
        }
    }

    /// Completes a write that is no apply, and records who owns what it changed.
    fn finish(&self, old: Option<&Value>, new: Value, types: &Types<'_>) -> Result<Write, ApiError> {
        let mut new = self.complete(old, new)?;
        apply::track(old.unwrap_or(&Value::Null), &mut new, &self.manager_as("Update"), types);
        Ok(settled(new))
    }

    /// Completes an apply, which has recorded its owners itself.
    fn finish_owned(&self, old: Option<&Value>, new: Value) -> Result<Write, ApiError> {
        self.complete(old, new).map(settled)
    }

    fn complete(&self, old: Option<&Value>, mut new: Value) -> Result<Value, ApiError> {
        object::as_map(&mut new).insert("apiVersion".into(), json!(self.resource.api_version()));
        new["kind"] = json!(self.resource.kind);
        self.complete_metadata(old, &mut new)?;
        if self.resource.status && !(old.is_none() && self.resource.id() == "nodes") {
            self.part_status(old, &mut new);
        }
        defaults::complete(self.resource, &mut new, old.is_none());
        self.count_generation(old, &mut new);
        Ok(new)
    }

    fn complete_metadata(&self, old: Option<&Value>, new: &mut Value) -> Result<(), ApiError> {
        let given = new["metadata"].clone();
        let metadata = object::map_mut(new, "metadata");
        metadata.insert("name".into(), json!(self.name));
        match self.namespace {
            "" => drop(metadata.remove("namespace")),
            namespace => drop(metadata.insert("namespace".into(), json!(namespace))),
        }
        if given["namespace"].as_str().is_some_and(|given| !given.is_empty() && given != self.namespace) {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        let Some(old) = old else {
            check_name(self.resource, self.name)?;
            metadata.insert("uid".into(), json!(object::new_uid()));
            metadata.insert("creationTimestamp".into(), json!(object::now()));
            for field in ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
                metadata.remove(field);
            }
            return Ok(());
        };
        let sent = |field: &str| given[field].as_str().filter(|text| !text.is_empty());
        if sent("resourceVersion").is_some_and(|sent| old["metadata"]["resourceVersion"] != sent) {
            return Err(ApiError::modified(self.resource, self.name));
        }
        if let Some(uid) = sent("uid").filter(|sent| object::uid(old) != *sent) {
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                object::uid(old)
            );
            return Err(ApiError::conflict(self.resource, self.name, &why));
        }
        let kept = [
            "uid",
            "creationTimestamp",
            "resourceVersion",
            "generation",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        ];
        for field in kept {
            match old["metadata"].get(field) {
                Some(value) => drop(metadata.insert(field.into(), value.clone())),
                None => drop(metadata.remove(field)),
            }
        }
        Ok(())
    }

    /// Plain writes leave the status alone, status writes leave the rest alone.
    fn part_status(&self, old: Option<&Value>, new: &mut Value) {
        let old_status = old.and_then(|old| old.get("status")).cloned();
        match (self.subresource, old) {
            ("status", Some(old)) => {
                let status = object::as_map(new).remove("status");
                let managed = new["metadata"]["managedFields"].take();
                *new = old.clone();
                if !managed.is_null() {
                    new["metadata"]["managedFields"] = managed;
                }
                match status {
                    Some(status) => drop(object::as_map(new).insert("status".into(), status)),
                    None => drop(object::as_map(new).remove("status")),
                }
            }
            _ => match old_status {
                Some(status) => drop(object::as_map(new).insert("status".into(), status)),
                None => drop(object::as_map(new).remove("status")),
            },
        }
    }

    /// `metadata.generation` grows when something other than metadata changes, and other than a status that is a
    /// subresource.
    fn count_generation(&self, old: Option<&Value>, new: &mut Value) {
        const WITHOUT: &[&str] = &[
            "namespaces",
            "nodes",
            "persistentvolumeclaims",
            "persistentvolumes",
            "resourcequotas",
            "services",
        ];
        if !(self.resource.status || self.resource.custom) || WITHOUT.contains(&self.resource.id().as_str()) {
            return;
        }
        let content = |object: &Value| {
            let mut object = object.clone();
            let map = object::as_map(&mut object);
            map.remove("metadata");
            if self.resource.status {
                map.remove("status");
            }
            object
        };
        let generation = match old {
            None => 1,
            Some(old) => {
                let before = old["metadata"]["generation"].as_i64().unwrap_or(1);
                if content(old) == content(new) { before } else { before + 1 }
            }
        };
        new["metadata"]["generation"] = json!(generation);
    }
}

/// An object that was only waiting for its finalizers goes with the last one.
fn settled(new: Value) -> Write {
    let waits_for_node = new["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) > 0;
    match object::is_going(&new) && !has_finalizers(&new) && !waits_for_node {
        true => Write::Delete,
        false => Write::Put(new),
    }
}

fn has_finalizers(object: &Value) -> bool {
    !object::items(&object["metadata"]["finalizers"]).is_empty()
        || (object["kind"] == "Namespace" && !object::items(&object["spec"]["finalizers"]).is_empty())
}

/// A name is a lower-case RFC 1123 subdomain; RBAC objects may have any path segment.
fn check_name(resource: &Resource, name: &str) -> Result<(), ApiError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.first().is_some_and(|byte| plain(*byte))
            && bytes.last().is_some_and(|byte| plain(*byte))
            && bytes.iter().all(|byte| plain(*byte) || *byte == b'-')
    };
    if resource.group == "rbac.authorization.k8s.io" || (name.len() <= 253 && name.split('.').all(label)) {
        return Ok(());
    }
    let why = format!(
        "Invalid value: {name:?}: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
         '-' or '.', and must start and end with an alphanumeric character"
    );
    Err(ApiError::invalid(resource, name, "metadata.name", &why))
}

/// Five letters as Kubernetes makes them for generated names.
fn suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let random = super::token::random_hex(5);
    let letter = |at: usize| {
        let byte = usize::from_str_radix(&random[at..at + 2], 16).unwrap_or(0);
        char::from(LETTERS[byte % LETTERS.len()])
    };
    (0..10).step_by(2).map(letter).collect()
}
