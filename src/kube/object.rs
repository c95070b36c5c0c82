//! Objects of any kind, custom ones too: reading, applying, showing what an apply would change, deleting.
//!
//! Everything is applied by the server under one field manager and takes conflicts over, as
//! `kubectl apply --server-side --force-conflicts` does. A field left out of a later apply is removed.

use std::borrow::Cow;
use std::collections::BTreeSet;

use ::kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, ValidationDirective};
use ::kube::core::{ApiResource, GroupVersionKind};
use ::kube::discovery::{Scope, pinned_kind};
use ::kube::error::DiscoveryError;
use ::kube::{Error as ClientError, ResourceExt as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};

use super::MANAGER;
use super::client::Cluster;
use super::error::Error;
use crate::resource::Difference;
use crate::transport::prompt::printable;

/// What identifies an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectRef {
    /// `v1`, `apps/v1`.
    pub api_version: String,
    pub kind: String,
    /// `None` for kinds without a namespace, and for the namespace `default`.
    pub namespace: Option<String>,
    pub name: String,
}

impl ObjectRef {
    pub fn new(api_version: &str, kind: &str, namespace: Option<&str>, name: &str) -> Self {
        Self {
            api_version: api_version.into(),
            kind: kind.into(),
            namespace: namespace.map(Into::into),
            name: name.into(),
        }
    }

    fn is_secret(&self) -> bool {
        self.api_version == "v1" && self.kind == "Secret"
    }
}

/// `Deployment argocd/argocd-server`
impl std::fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match &self.namespace {
            Some(namespace) => format!("{} {namespace}/{}", self.kind, self.name),
            None => format!("{} {}", self.kind, self.name),
        };
        f.write_str(&printable(&text))
    }
}

impl From<&DynamicObject> for ObjectRef {
    fn from(object: &DynamicObject) -> Self {
        let types = object.types.clone().unwrap_or_default();
        Self {
            api_version: types.api_version,
            kind: types.kind,
            namespace: object.namespace(),
            name: object.name_any(),
        }
    }
}

/// An object from its JSON; it must say its kind and have a name.
pub fn object(value: Value) -> Result<DynamicObject, Error> {
    // The parser's message could show a value, and so a secret.
    let object: DynamicObject = serde_json::from_value(value)
        .map_err(|_| Error::BadObject { why: "its metadata has another shape".into() })?;
    let which = ObjectRef::from(&object);
    let missing = [("apiVersion", &which.api_version), ("kind", &which.kind), ("metadata.name", &which.name)];
    match missing.iter().find(|(_, value)| value.is_empty()) {
        Some((field, _)) => Err(Error::BadObject { why: format!("it has no {field}") }),
        None => Ok(object),
    }
}

/// The objects of a YAML text of one or more documents; empty documents are skipped.
pub fn objects_from_yaml(text: &str) -> Result<Vec<DynamicObject>, Error> {
    let options = serde_saphyr::options! { strict_booleans: true };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options).map_err(|e| {
        let line = e.location().map_or_else(String::new, |at| format!(" at line {}", at.line()));
        Error::BadObject { why: format!("the YAML cannot be read{line}") }
    })?;
    documents.into_iter().filter(|value| !value.is_null()).map(object).collect()
}

impl Cluster {
    /// The object as it is; `None` if it is not there.
    pub async fn get(&self, which: &ObjectRef) -> Result<Option<DynamicObject>, Error> {
        let api = self.api(which).await?;
        self.call(&format!("read {which}"), || api.get_opt(&which.name)).await
    }

    /// Creates the object or brings it to this form; what the API made of it.
    pub async fn apply(&self, object: &DynamicObject) -> Result<DynamicObject, Error> {
        self.patch(object, false).await
    }

    /// What an apply would change, found out by the API server itself: its defaults and webhooks count, and
    /// what others have set does not. Nothing if all would stay. The values of Secrets are not shown.
    pub async fn diff(&self, object: &DynamicObject) -> Result<Vec<Difference>, Error> {
        let before = self.get(&ObjectRef::from(object)).await?;
        self.diff_from(object, before.as_ref()).await
    }

    /// [`Cluster::diff`] where the object has been read already.
    pub(super) async fn diff_from(
        &self,
        object: &DynamicObject,
        before: Option<&DynamicObject>,
    ) -> Result<Vec<Difference>, Error> {
        let after = match self.patch(object, true).await {
            // In a namespace that will be there by then, but is not yet.
            Err(Error::Refused { code: 404, .. }) if before.is_none() => object.clone(),
            other => other?,
        };
        Ok(differences(&ObjectRef::from(object), before, &after))
    }

    async fn patch(&self, object: &DynamicObject, dry_run: bool) -> Result<DynamicObject, Error> {
        let which = ObjectRef::from(object);
        let api = self.api(&which).await?;
        let how = PatchParams {
            dry_run,
            force: true,
            field_manager: Some(MANAGER.into()),
            field_validation: Some(ValidationDirective::Strict),
        };
        let object = if which.is_secret() { Cow::Owned(encoded(object)) } else { Cow::Borrowed(object) };
        let patch = Patch::Apply(&*object);
        let applied = self.call(&format!("apply {which}"), || api.patch(&which.name, &how, &patch)).await;
        applied.map_err(|error| if which.is_secret() { discreet(error) } else { error })
    }

    /// Deletes the object, and in the background what belongs to it. Whether it was there.
    pub async fn delete(&self, which: &ObjectRef) -> Result<bool, Error> {
        let api = self.api(which).await?;
        self.remove(&which.to_string(), &api, &which.name, &DeleteParams::background()).await
    }

    /// The way to an object's kind, which the API server is asked for once.
    pub(super) async fn api(&self, which: &ObjectRef) -> Result<Api<DynamicObject>, Error> {
        let (resource, scope) = self.kind(which).await?;
        let client = self.client.clone();
        Ok(match scope {
            Scope::Cluster => Api::all_with(client, &resource),
            Scope::Namespaced => {
                let namespace = which.namespace.as_deref().unwrap_or("default");
                Api::namespaced_with(client, namespace, &resource)
            }
        })
    }

    /// The way to all objects of a kind, in every namespace.
    pub(super) async fn everywhere(&self, which: &ObjectRef) -> Result<Api<DynamicObject>, Error> {
        let (resource, _) = self.kind(which).await?;
        Ok(Api::all_with(self.client.clone(), &resource))
    }

    async fn kind(&self, which: &ObjectRef) -> Result<(ApiResource, Scope), Error> {
        let (group, version) = which.api_version.split_once('/').unwrap_or(("", &which.api_version));
        let gvk = GroupVersionKind::gvk(group, version, &which.kind);
        let kinds = || self.kinds.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(known) = kinds().get(&gvk) {
            return Ok(known.clone());
        }
        let what = format!("look up the kind {}", which.kind);
        let found = self.call(&what, || async {
            match pinned_kind(&self.client, &gvk).await {
                Ok((resource, capabilities)) => Ok(Some((resource, capabilities.scope))),
                Err(ClientError::Api(status)) if status.code == 404 => Ok(None),
                Err(ClientError::Discovery(DiscoveryError::MissingKind(_))) => Ok(None),
                Err(error) => Err(error),
            }
        });
        let found = found.await?.ok_or_else(|| Error::UnknownKind {
            api_version: printable(&which.api_version),
            kind: printable(&which.kind),
        })?;
        kinds().insert(gvk, found.clone());
        Ok(found)
    }
}

/// When the API server last took a change of an object from us; `None`: never. Applying what is there already is none.
pub(super) fn applied_at(object: &DynamicObject) -> Option<Timestamp> {
    let ours = object.metadata.managed_fields.iter().flatten().filter(|entry| is_ours(entry));
    ours.filter_map(|entry| entry.time.as_ref()).map(|time| time.0).max()
}

/// The keys of a map that were set by an earlier apply of ours; `path` in the notation of managed fields.
pub(super) fn applied_keys(managed: &[ManagedFieldsEntry], path: &[&str]) -> BTreeSet<String> {
    let ours = managed.iter().filter(|entry| is_ours(entry));
    ours.filter_map(|entry| {
        let fields = entry.fields_v1.as_ref()?;
        path.iter().try_fold(&fields.0, |fields, name| fields.get(name))?.as_object()
    })
    .flat_map(|keys| keys.keys().filter_map(|key| key.strip_prefix("f:")))
    .map(str::to_owned)
    .collect()
}

fn is_ours(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(MANAGER)
        && entry.operation.as_deref() == Some("Apply")
        && entry.subresource.is_none()
}

/// What there is to say of an object that is all new.
pub(super) fn creation(object: &DynamicObject) -> Vec<Difference> {
    differences(&ObjectRef::from(object), None, object)
}

/// A Secret with its `stringData` in `data`. The API server would do the same, but remember `stringData` as what is
/// ours, and so never remove a key that is left out later (kubernetes/kubernetes#70281).
fn encoded(secret: &DynamicObject) -> DynamicObject {
    let mut secret = secret.clone();
    let Some(fields) = secret.data.as_object_mut() else { return secret };
    if let Some(Value::Object(plain)) = fields.remove("stringData") {
        let data = fields.entry("data").or_insert_with(|| Value::Object(Map::new()));
        let Some(data) = data.as_object_mut() else { return secret };
        for (key, value) in plain {
            // What is not text is left as it is for the API server to refuse.
            let value = value.as_str().map_or(value.clone(), |text| BASE64.encode(text).into());
            data.insert(key, value);
        }
    }
    secret
}

/// An API server that finds fault with a value quotes it.
fn discreet(error: Error) -> Error {
    match error {
        Error::Refused { what, code, reason, .. } => {
            let message = format!("{reason} ({code}); the message is not shown, it may hold a secret");
            Error::Refused { what, code, reason, message }
        }
        other => other,
    }
}

/// Set by the API server alone, and different in every answer.
const GENERATED: [&str; 6] =
    ["managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink"];

/// kubectl's own copy of the whole object, secrets included.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What a person would write: without status and generated fields.
fn normalise(object: &DynamicObject) -> Map<String, Value> {
    let Ok(Value::Object(mut all)) = serde_json::to_value(object) else { return Map::new() };
    all.remove("status");
    if let Some(Value::Object(metadata)) = all.get_mut("metadata") {
        metadata.retain(|key, _| !GENERATED.contains(&key.as_str()));
        if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
            annotations.remove(LAST_APPLIED);
            if annotations.is_empty() {
                metadata.remove("annotations");
            }
        }
    }
    all
}

/// One text diff for the object; for a Secret's values one line each that shows nothing of them.
fn differences(which: &ObjectRef, before: Option<&DynamicObject>, after: &DynamicObject) -> Vec<Difference> {
    let mut before = before.map(normalise);
    let mut after = normalise(after);
    let mut differences = Vec::new();
    if which.is_secret() {
        for field in ["data", "stringData"] {
            let old = before.as_mut().and_then(|before| before.remove(field));
            let new = after.remove(field);
            differences.extend(secret_differences(field, old, new));
        }
    }
    if before.as_ref() != Some(&after) {
        let text = |object: Map<String, Value>| serde_saphyr::to_string(&object).unwrap_or_default();
        differences.push(Difference::Text {
            path: which.to_string(),
            before: before.map(text),
            after: Some(text(after)),
        });
    }
    differences
}

fn secret_differences(field: &str, before: Option<Value>, after: Option<Value>) -> Vec<Difference> {
    let map = |value: Option<Value>| match value {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (before, after) = (map(before), map(after));
    let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| Difference::Secret { attribute: printable(&format!("{field}.{key}")) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn made(value: Value) -> DynamicObject {
        object(value).expect("an object")
    }

    #[test]
    fn objects_say_what_they_are() {
        let all = objects_from_yaml(
            "---\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: b}\ndata: {on: \"off\"}\n\
             ---\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: c\n",
        )
        .expect("objects");
        let names: Vec<String> = all.iter().map(|object| ObjectRef::from(object).to_string()).collect();
        assert_eq!(names, ["ConfigMap b/a", "Deployment c"]);
        assert_eq!(all[0].data["data"], json!({ "on": "off" }));
        for bad in [
            "apiVersion: v1\nkind: Secret",
            "kind: Secret\nmetadata: {name: geheim}",
            "[geheim",
            "geheim",
            "{metadata: [geheim], kind: a, apiVersion: b}",
        ] {
            let error = objects_from_yaml(bad).expect_err("refused");
            assert!(matches!(error, Error::BadObject { .. }), "{error}");
            assert!(!error.to_string().contains("geheim"), "{error}");
        }
    }

    #[test]
    fn only_what_people_write_is_compared() {
        let map = |data: &str, version: &str| {
            made(json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": { "name": "a", "namespace": "b", "resourceVersion": version, "uid": version,
                    "annotations": { LAST_APPLIED: version }, "managedFields": [{ "manager": version }] },
                "data": { "key": data }, "status": { "seen": version },
            }))
        };
        let which = ObjectRef::from(&map("", ""));
        assert_eq!(differences(&which, Some(&map("one", "1")), &map("one", "2")), []);
        match &differences(&which, Some(&map("one", "1")), &map("two", "2"))[..] {
            [Difference::Text { path, before: Some(before), after: Some(after) }] => {
                assert_eq!(path, "ConfigMap b/a");
                assert_eq!(before.replace("key: one", "key: two"), *after);
                assert!(after.contains("key: two") && !after.contains("uid"), "{after}");
            }
            other => panic!("{other:?}"),
        }
        let new = differences(&which, None, &map("one", "1"));
        assert!(matches!(&new[..], [Difference::Text { before: None, .. }]), "{new:?}");
    }

    #[test]
    fn values_of_secrets_are_not_shown() {
        let secret = |data: Value, label: &str| {
            made(json!({ "apiVersion": "v1", "kind": "Secret", "data": data,
                "metadata": { "name": "a", "namespace": "b", "labels": { "l": label } } }))
        };
        let before = secret(json!({ "same": "Z2VoZWlt", "other": "Z2VoZWlt", "gone": "Z2VoZWlt" }), "1");
        let after = secret(json!({ "same": "Z2VoZWlt", "other": "b2ZmZW4=", "new": "b2ZmZW4=" }), "2");
        let all = differences(&ObjectRef::from(&after), Some(&before), &after);
        let hidden = |name: &str| Difference::Secret { attribute: format!("data.{name}") };
        assert_eq!(all[..3], [hidden("gone"), hidden("new"), hidden("other")]);
        assert!(matches!(&all[3..], [Difference::Text { .. }]), "{all:?}");
        let shown = format!("{all:?}");
        assert!(!shown.contains("Z2Vo") && !shown.contains("b2Zm"), "{shown}");
        assert_eq!(differences(&ObjectRef::from(&after), Some(&after), &after), []);
    }

    #[test]
    fn plain_values_of_secrets_are_encoded() {
        let secret = made(json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "a" },
            "data": { "a": "QQ==", "b": "QQ==" }, "stringData": { "b": "B", "c": "" } }));
        let encoded = encoded(&secret);
        assert_eq!(encoded.data, json!({ "data": { "a": "QQ==", "b": "Qg==", "c": "" } }));
    }

    #[test]
    fn a_refused_secret_is_not_quoted() {
        let refused = Error::Refused {
            what: "apply Secret b/a".into(),
            code: 422,
            reason: "Invalid".into(),
            message: "Invalid value: geheim".into(),
        };
        assert!(!format!("{:?}", discreet(refused)).contains("geheim"));
    }
}
