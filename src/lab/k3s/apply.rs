//! Server-side apply and field ownership (`metadata.managedFields`, FieldsV1).
//!
//! Applying: a field another manager owns with another value is a conflict; forcing takes it over; a field the
//! manager applied before and no longer applies is removed unless someone else owns it. Other writes own what they
//! change. Follows sigs.k8s.io/structured-merge-diff without its
//! schemas: see `lists`. Maps are never owned as a whole, except empty ones.

use serde_json::{Value, json};

use super::fields::{Fields, position, remove};
use super::lists::{ListType, Types, key_of};
use super::object;

/// Lays an applied value over a live one.
fn merge(live: &mut Value, applied: &Value, types: &Types<'_>) {
    match (live, applied) {
        (Value::Object(live), Value::Object(applied)) => {
            for (name, value) in applied {
                merge(live.entry(name.clone()).or_insert(Value::Null), value, &types.field(name));
            }
        }
        (live @ Value::Array(_), Value::Array(applied)) => match types.list() {
            ListType::Map(keys) => {
                for item in applied {
                    match position(live, &key_of(item, &keys).to_string()) {
                        Some(at) => merge(&mut live[at], item, &types.item()),
                        None => drop(live.as_array_mut().map(|list| list.push(item.clone()))),
                    }
                }
            }
            ListType::Set => {
                if let Some(list) = live.as_array_mut() {
                    let new: Vec<Value> =
                        applied.iter().filter(|item| !list.contains(item)).cloned().collect();
                    list.extend(new);
                }
            }
            ListType::Atomic => *live = Value::Array(applied.clone()),
        },
        (live, applied) => *live = applied.clone(),
    }
}

/// Who writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manager {
    pub name: String,
    /// `Apply` or `Update`.
    pub operation: &'static str,
    pub api_version: String,
    /// `status`, or empty.
    pub subresource: String,
}

/// An entry of `managedFields`.
struct Entry {
    manager: Manager,
    time: String,
    fields: Fields,
}

/// A field that belongs to someone else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// `"name"` or `"name" using v1`.
    pub owner: String,
    /// `.data.key`
    pub field: String,
}

fn entries(object: &Value) -> Vec<Entry> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    object::items(&object["metadata"]["managedFields"])
        .iter()
        .map(|entry| Entry {
            manager: Manager {
                name: text(&entry["manager"]),
                operation: if entry["operation"] == "Apply" { "Apply" } else { "Update" },
                api_version: text(&entry["apiVersion"]),
                subresource: text(&entry["subresource"]),
            },
            time: text(&entry["time"]),
            fields: Fields::parse(&entry["fieldsV1"]),
        })
        .collect()
}

fn put_entries(object: &mut Value, entries: Vec<Entry>) {
    let list: Vec<Value> = entries
        .into_iter()
        .filter(|entry| !entry.fields.is_empty())
        .map(|entry| {
            let mut value = json!({
                "manager": entry.manager.name, "operation": entry.manager.operation,
                "apiVersion": entry.manager.api_version, "time": entry.time,
                "fieldsType": "FieldsV1", "fieldsV1": entry.fields.write(),
            });
            if !entry.manager.subresource.is_empty() {
                value["subresource"] = json!(entry.manager.subresource);
            }
            value
        })
        .collect();
    let metadata = object::map_mut(object, "metadata");
    match list.is_empty() {
        true => metadata.remove("managedFields"),
        false => metadata.insert("managedFields".to_owned(), Value::Array(list)),
    };
}

/// Applies a configuration on what is there. The result has the manager's new field set.
pub fn apply(
    live: &Value,
    applied: &Value,
    manager: &Manager,
    force: bool,
    types: &Types<'_>,
) -> Result<Value, Vec<Conflict>> {
    let set = Fields::ownable(applied, types);
    let mut entries = entries(live);
    let is_ours = |entry: &Entry| {
        entry.manager.name == manager.name
            && entry.manager.operation == manager.operation
            && entry.manager.subresource == manager.subresource
    };
    let contested = set.differing(live, applied);
    let mut conflicts = Vec::new();
    for entry in entries.iter_mut().filter(|entry| !is_ours(entry)) {
        let lost = entry.fields.and(&contested);
        match force {
            true => entry.fields = entry.fields.without(&lost),
            false => conflicts.extend(
                lost.paths().into_iter().map(|field| Conflict { owner: owner(&entry.manager), field }),
            ),
        }
    }
    if !conflicts.is_empty() {
        return Err(conflicts);
    }
    let mut result = live.clone();
    let ours = entries.iter().position(is_ours);
    if let Some(at) = ours {
        let others = entries.iter().enumerate().filter(|(other, _)| *other != at);
        let kept = others.fold(Fields::default(), |kept, (_, entry)| kept.or(&entry.fields));
        remove(&mut result, &entries[at].fields.without(&set).without(&kept));
    }
    merge(&mut result, applied, types);
    let changed = ours.is_none_or(|at| entries[at].fields != set) || result != *live;
    let entry = |time: String| Entry { manager: manager.clone(), time, fields: set.clone() };
    match ours {
        Some(at) if changed => entries[at] = entry(object::now()),
        Some(_) => {}
        None => entries.push(entry(object::now())),
    }
    put_entries(&mut result, entries);
    Ok(result)
}

fn owner(manager: &Manager) -> String {
    match manager.operation {
        "Apply" => format!("\"{}\"", manager.name),
        _ => format!("\"{}\" using {}", manager.name, manager.api_version),
    }
}

/// Records what a write that is no apply has changed. `old` is `Null` for a creation.
pub fn track(old: &Value, new: &mut Value, manager: &Manager, types: &Types<'_>) {
    let (before, after) = (Fields::ownable(old, types), Fields::ownable(new, types));
    let changed = after.differing(old, new).or(&after.without(&before));
    let removed = before.without(&after);
    let mut entries = entries(old);
    if changed.is_empty() && removed.is_empty() {
        return put_entries(new, entries);
    }
    let gone = changed.clone().or(&removed);
    let mut ours = None;
    for entry in &mut entries {
        if entry.manager == *manager {
            ours = Some(std::mem::take(&mut entry.fields));
        } else {
            entry.fields = entry.fields.without(&gone);
        }
    }
    let fields = ours.unwrap_or_default().without(&removed).or(&changed);
    entries.push(Entry { manager: manager.clone(), time: object::now(), fields });
    put_entries(new, entries);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(name: &str, operation: &'static str) -> Manager {
        Manager { name: name.into(), operation, api_version: "v1".into(), subresource: String::new() }
    }

    fn applied(live: &Value, by: &str, configuration: &Value, force: bool) -> Result<Value, Vec<Conflict>> {
        apply(live, configuration, &manager(by, "Apply"), force, &Types::built_in())
    }

    fn plain(mut object: Value) -> Value {
        object["metadata"].as_object_mut().expect("metadata").remove("managedFields");
        object
    }

    fn data(data: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
    }

    #[test]
    fn a_manager_adds_changes_and_removes_its_own() {
        let one = applied(&Value::Null, "a", &data(json!({"x": "1", "y": "1"})), false).expect("new");
        let two = applied(&one, "a", &data(json!({"x": "2"})), false).expect("own fields");
        assert_eq!(plain(two.clone()), data(json!({"x": "2"})));
        let again = applied(&two, "a", &data(json!({"x": "2"})), false).expect("the same");
        assert_eq!(again, two, "nothing changes, the time neither");
        let empty = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
        assert_eq!(plain(applied(&two, "a", &empty, false).expect("emptied")), empty);
    }

    #[test]
    fn conflicts_name_owner_and_field_and_force_takes_over() {
        let one = applied(&Value::Null, "a", &data(json!({"x": "1", "y": "1"})), false).expect("new");
        let shared =
            applied(&one, "b", &data(json!({"x": "1"})), false).expect("the same value is no conflict");
        let conflicts =
            applied(&one, "b", &data(json!({"x": "2", "z": "1"})), false).expect_err("a conflict");
        assert_eq!(conflicts, [Conflict { owner: "\"a\"".into(), field: ".data.x".into() }]);
        let forced = applied(&one, "b", &data(json!({"x": "2"})), true).expect("forced");
        assert_eq!(plain(forced.clone()), data(json!({"x": "2", "y": "1"})));
        let later = applied(&forced, "a", &data(json!({"y": "1"})), false).expect("x is not a's any more");
        assert_eq!(plain(later)["data"]["x"], "2");
        let dropped = applied(&shared, "a", &data(json!({"y": "1"})), false).expect("b keeps x");
        assert_eq!(plain(dropped)["data"]["x"], "1");
    }

    #[test]
    fn other_writes_own_what_they_change() {
        let one = applied(&Value::Null, "a", &data(json!({"x": "1", "y": "1"})), false).expect("new");
        let mut edited = one.clone();
        edited["data"]["x"] = json!("9");
        track(&one, &mut edited, &manager("edit", "Update"), &Types::built_in());
        let conflicts = applied(&edited, "a", &data(json!({"x": "1", "y": "1"})), false).expect_err("edited");
        assert_eq!(conflicts, [Conflict { owner: "\"edit\" using v1".into(), field: ".data.x".into() }]);
        let kept = applied(&edited, "a", &data(json!({"y": "1"})), false).expect("given up");
        assert_eq!(plain(kept)["data"], json!({"x": "9", "y": "1"}));
    }

    #[test]
    fn lists_merge_by_key() {
        let pod = |containers: Value| json!({"metadata": {"name": "a"}, "spec": {"containers": containers}});
        let one = applied(&Value::Null, "a", &pod(json!([{"name": "x", "image": "1"}])), false).expect("new");
        let two =
            applied(&one, "b", &pod(json!([{"name": "y", "image": "1"}])), false).expect("another item");
        assert_eq!(two["spec"]["containers"].as_array().expect("a list").len(), 2);
        let conflicts =
            applied(&two, "b", &pod(json!([{"name": "x", "image": "2"}])), false).expect_err("a's item");
        assert_eq!(conflicts[0].field, ".spec.containers[name=\"x\"].image");
        let gone = applied(&two, "b", &json!({"metadata": {"name": "a"}}), false).expect("given up");
        assert_eq!(plain(gone), plain(one));
        let finalizers = |list: Value| json!({"metadata": {"name": "a", "finalizers": list}});
        let one = applied(&Value::Null, "a", &finalizers(json!(["x"])), false).expect("new");
        let two = applied(&one, "b", &finalizers(json!(["y"])), false).expect("a set");
        assert_eq!(plain(two.clone())["metadata"]["finalizers"], json!(["x", "y"]));
        let gone = applied(&two, "a", &json!({"metadata": {"name": "a"}}), false).expect("given up");
        assert_eq!(plain(gone)["metadata"]["finalizers"], json!(["y"]));
    }
}
