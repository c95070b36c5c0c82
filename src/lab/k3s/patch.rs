//! The patches that are no apply: JSON merge (RFC 7386), strategic merge (approximated), JSON patch (RFC 6902).

use serde_json::{Value, json};

use super::lists::{ListType, Types, key_of};
use super::object;

/// Merges a JSON merge patch: `null` removes, maps merge, anything else replaces.
pub fn json_merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    let target = object::as_map(target);
    for (name, value) in patch {
        match value {
            Value::Null => drop(target.remove(name)),
            value => json_merge(target.entry(name.clone()).or_insert(Value::Null), value),
        }
    }
}

/// Merges a strategic merge patch: lists with keys merge by item, `$patch: delete|replace` and
/// `$deleteFromPrimitiveList/<field>` are understood, `$setElementOrder/<field>` is ignored.
pub fn strategic(target: &mut Value, patch: &Value, types: &Types<'_>) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if patch["$patch"] == "replace" {
        let mut new = fields.clone();
        new.remove("$patch");
        *target = Value::Object(new);
        return;
    }
    for (name, value) in fields {
        let below = types.field(name);
        match (name.split_once('/'), value) {
            (Some(("$deleteFromPrimitiveList", field)), Value::Array(gone)) => {
                object::list_mut(target, field).retain(|item| !gone.contains(item));
            }
            (Some(("$setElementOrder" | "$retainKeys", _)), _) => {}
            (_, Value::Null) => drop(object::as_map(target).remove(name)),
            (_, Value::Array(items)) => merge_list(target, name, items, &below),
            _ => {
                let place = object::as_map(target).entry(name.clone()).or_insert(Value::Null);
                match value["$patch"] == "delete" {
                    true => drop(object::as_map(target).remove(name)),
                    false => strategic(place, value, &below),
                }
            }
        }
    }
}

fn merge_list(target: &mut Value, name: &str, items: &[Value], types: &Types<'_>) {
    let keys = match (name, types.list()) {
        // A taint's key tells it apart here, though apply replaces the whole list.
        ("taints", _) => vec!["key".to_owned()],
        (_, ListType::Map(mut keys)) => {
            keys.truncate(1);
            keys
        }
        (_, ListType::Set) => {
            let list = object::list_mut(target, name);
            let new: Vec<Value> = items.iter().filter(|item| !list.contains(item)).cloned().collect();
            list.extend(new);
            return;
        }
        (_, ListType::Atomic) => {
            object::as_map(target).insert(name.to_owned(), Value::Array(items.to_vec()));
            return;
        }
    };
    if items.iter().any(|item| item["$patch"] == "replace") {
        let new = items.iter().filter(|item| item["$patch"].is_null()).cloned().collect();
        object::as_map(target).insert(name.to_owned(), Value::Array(new));
        return;
    }
    let list = object::list_mut(target, name);
    for item in items {
        let key = key_of(item, &keys);
        let at = list.iter().position(|old| key_of(old, &keys) == key);
        match (at, item["$patch"] == "delete") {
            (Some(at), true) => drop(list.remove(at)),
            (None, true) => {}
            (Some(at), false) => strategic(&mut list[at], item, &types.item()),
            (None, false) => {
                let mut new = json!({});
                strategic(&mut new, item, &types.item());
                list.push(new);
            }
        }
    }
}

/// Carries out a JSON patch.
pub fn json_patch(target: &mut Value, operations: &Value) -> Result<(), String> {
    for operation in object::items(operations) {
        let text = |field: &str| operation[field].as_str().ok_or(format!("operation without {field:?}"));
        let (op, path) = (text("op")?, text("path")?);
        match op {
            "add" => add(target, path, operation["value"].clone())?,
            "remove" => drop(take(target, path)?),
            "replace" => {
                let place = target.pointer_mut(path).ok_or_else(|| missing(op, path))?;
                *place = operation["value"].clone();
            }
            "move" => {
                let value = take(target, text("from")?)?;
                add(target, path, value)?;
            }
            "copy" => {
                let from = text("from")?;
                let value = target.pointer(from).cloned().ok_or_else(|| missing(op, from))?;
                add(target, path, value)?;
            }
            "test" if target.pointer(path) == Some(&operation["value"]) => {}
            "test" => return Err(format!("testing value {path} failed: test failed")),
            other => return Err(format!("Unexpected kind: {other}")),
        }
    }
    Ok(())
}

fn missing(op: &str, path: &str) -> String {
    format!("{op} operation does not apply: doc is missing path: {path}: missing value")
}

/// The map or list a path ends in, and its last step unescaped.
fn parent<'a>(target: &'a mut Value, op: &str, path: &str) -> Result<(&'a mut Value, String), String> {
    let (above, last) = path.rsplit_once('/').ok_or_else(|| missing(op, path))?;
    let parent = target.pointer_mut(above).ok_or_else(|| missing(op, path))?;
    Ok((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), String> {
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    let (parent, last) = parent(target, "add", path)?;
    match parent {
        Value::Object(map) => drop(map.insert(last, value)),
        Value::Array(list) if last == "-" => list.push(value),
        Value::Array(list) => {
            let at = last.parse().ok().filter(|at| *at <= list.len()).ok_or_else(|| missing("add", path))?;
            list.insert(at, value);
        }
        _ => return Err(missing("add", path)),
    }
    Ok(())
}

fn take(target: &mut Value, path: &str) -> Result<Value, String> {
    let (parent, last) = parent(target, "remove", path)?;
    let taken = match parent {
        Value::Object(map) => map.remove(&last),
        Value::Array(list) => {
            last.parse().ok().filter(|at| *at < list.len()).map(|at: usize| list.remove(at))
        }
        _ => None,
    };
    taken.ok_or_else(|| missing("remove", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_patches() {
        let cases = [
            (json!({"a": 1}), json!({"a": 2}), json!({"a": 2})),
            (json!({"a": 1, "b": 1}), json!({"a": null}), json!({"b": 1})),
            (json!({"a": {"b": 1, "c": 1}}), json!({"a": {"b": null}}), json!({"a": {"c": 1}})),
            (json!({"a": [1, 2]}), json!({"a": [3]}), json!({"a": [3]})),
            (json!({"a": 1}), json!({"b": {"c": null, "d": 1}}), json!({"a": 1, "b": {"d": 1}})),
        ];
        for (mut target, patch, wanted) in cases {
            json_merge(&mut target, &patch);
            assert_eq!(target, wanted, "{patch}");
        }
    }

    #[test]
    fn strategic_patches() {
        let taints = json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
        let cases = [
            (
                taints.clone(),
                json!({"spec": {"taints": [{"key": "b", "effect": "NoExecute"}], "unschedulable": true}}),
                json!({"spec": {"unschedulable": true, "taints": [
                    {"key": "a", "effect": "NoSchedule"}, {"key": "b", "effect": "NoExecute"},
                ]}}),
            ),
            (
                taints,
                json!({"spec": {"taints": [{"$patch": "delete", "key": "a"}]}}),
                json!({"spec": {"taints": []}}),
            ),
            (
                json!({"spec": {"containers": [{"name": "x", "image": "1", "args": ["a"]}]}}),
                json!({"spec": {"containers": [{"name": "x", "image": "2"}], "$setElementOrder/containers": []}}),
                json!({"spec": {"containers": [{"name": "x", "image": "2", "args": ["a"]}]}}),
            ),
            (
                json!({"metadata": {"finalizers": ["a", "b"]}}),
                json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}),
                json!({"metadata": {"finalizers": ["b"]}}),
            ),
            (json!({"a": {"b": 1}}), json!({"a": {"$patch": "replace", "c": 1}}), json!({"a": {"c": 1}})),
        ];
        for (mut target, patch, wanted) in cases {
            strategic(&mut target, &patch, &Types::built_in());
            assert_eq!(target, wanted, "{patch}");
        }
    }

    #[test]
    fn json_patches() {
        let cases = [
            (
                json!([{"op": "add", "path": "/l/-", "value": 3}]),
                Some(json!({"l": [1, 2, 3], "m": {"a/b": 1}})),
            ),
            (
                json!([{"op": "add", "path": "/l/0", "value": 0}]),
                Some(json!({"l": [0, 1, 2], "m": {"a/b": 1}})),
            ),
            (json!([{"op": "remove", "path": "/m/a~1b"}]), Some(json!({"l": [1, 2], "m": {}}))),
            (
                json!([{"op": "replace", "path": "/l/1", "value": 9}]),
                Some(json!({"l": [1, 9], "m": {"a/b": 1}})),
            ),
            (
                json!([{"op": "move", "from": "/m", "path": "/n"}]),
                Some(json!({"l": [1, 2], "n": {"a/b": 1}})),
            ),
            (
                json!([{"op": "test", "path": "/l/0", "value": 1}]),
                Some(json!({"l": [1, 2], "m": {"a/b": 1}})),
            ),
            (json!([{"op": "test", "path": "/l/0", "value": 2}]), None),
            (json!([{"op": "remove", "path": "/gone"}]), None),
            (json!([{"op": "add", "path": "/gone/x", "value": 1}]), None),
        ];
        for (operations, wanted) in cases {
            let mut target = json!({"l": [1, 2], "m": {"a/b": 1}});
            let done = json_patch(&mut target, &operations);
            assert_eq!(done.ok().map(|()| target), wanted, "{operations}");
        }
    }
}
