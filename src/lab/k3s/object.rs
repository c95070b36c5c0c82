//! Small helpers over Kubernetes objects as JSON values.

use serde_json::{Map, Value, json};

/// `metadata.name`.
pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// `metadata.namespace`; empty where there is none.
pub fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or_default()
}

/// `metadata.uid`.
pub fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

/// A label's value.
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["labels"][key].as_str()
}

/// Whether a deletion is under way.
pub fn is_going(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// An annotation's value.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["annotations"][key].as_str()
}

/// Whether a finalizer keeps the object.
pub fn has_finalizer(object: &Value, name: &str) -> bool {
    items(&object["metadata"]["finalizers"]).iter().any(|finalizer| finalizer == name)
}

/// Adds a finalizer that is missing.
pub fn add_finalizer(object: &mut Value, name: &str) {
    if !has_finalizer(object, name) {
        list_mut(&mut object["metadata"], "finalizers").push(json!(name));
    }
}

/// Strikes a finalizer off.
pub fn strike_finalizer(object: &mut Value, name: &str) {
    list_mut(&mut object["metadata"], "finalizers").retain(|finalizer| finalizer != name);
}

/// The value at a path of names with dots between; `Null` where there is none.
pub fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.').filter(|name| !name.is_empty()).fold(object, |value, name| &value[name])
}

/// The items of a list field; none where it is missing.
pub fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// `status` of a condition: `True`, `False`, `Unknown`.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    items(&object["status"]["conditions"]).iter().find(|c| c["type"] == kind)?["status"].as_str()
}

/// Whether a pod's, a node's … `Ready` is `True`.
pub fn is_ready(object: &Value) -> bool {
    condition(object, "Ready") == Some("True")
}

/// Sets a condition; its transition time changes with its status only.
pub fn set_condition(object: &mut Value, kind: &str, status: &str, reason: &str, message: &str) {
    let now = now();
    let mut condition = json!({
        "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now,
    });
    let list = list_mut(&mut object["status"], "conditions");
    match list.iter_mut().find(|c| c["type"] == kind) {
        Some(old) => {
            if old["status"] == status {
                condition["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = condition;
        }
        None => list.push(condition),
    }
}

/// The objects' owner that controls it.
pub fn controller(object: &Value) -> Option<&Value> {
    items(&object["metadata"]["ownerReferences"]).iter().find(|owner| owner["controller"] == true)
}

/// The reference by which `owner` controls an object.
pub fn owned_by(owner: &Value) -> Value {
    json!([{
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": name(owner), "uid": uid(owner),
        "controller": true, "blockOwnerDeletion": true,
    }])
}

/// A map field, made where it is missing.
pub fn map_mut<'a>(object: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    as_map(as_map(object).entry(field).or_insert(Value::Null))
}

/// A list field, made where it is missing.
pub fn list_mut<'a>(object: &'a mut Value, field: &str) -> &'a mut Vec<Value> {
    let value = as_map(object).entry(field).or_insert_with(|| json!([]));
    if !value.is_array() {
        *value = json!([]);
    }
    match value {
        Value::Array(list) => list,
        _ => unreachable!("made an array above"),
    }
}

/// The value as a map; anything else becomes an empty one.
pub fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made a map above"),
    }
}

/// Now, as `metav1.Time` is written.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Now, as `metav1.MicroTime` is written (leases).
pub fn now_micro() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Seconds since a written time.
pub fn age(time: &Value) -> Option<f64> {
    let then: jiff::Timestamp = time.as_str()?.parse().ok()?;
    Some((jiff::Timestamp::now() - then).total(jiff::Unit::Second).unwrap_or(0.0))
}

/// A random version 4 UUID.
pub fn new_uid() -> String {
    let hex = super::token::random_hex(16);
    format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}

/// A short hash of a value, for names (`pod-template-hash`).
pub fn hash(value: &Value) -> String {
    digest(value)[..10].to_owned()
}

/// SHA-256 of a value, in hex.
pub fn digest(value: &Value) -> String {
    use sha2::{Digest as _, Sha256};
    super::token::hex(&Sha256::digest(value.to_string().as_bytes()))
}
