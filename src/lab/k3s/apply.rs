//! Server-side apply and field ownership (`metadata.managedFields`, FieldsV1).
//!
//! A field set is a tree in FieldsV1's notation. Applying: a field another manager owns with another value is a
//! conflict; forcing takes it over; a field the manager applied before and no longer applies is removed unless
//! someone else owns it. Other writes own what they change. Follows sigs.k8s.io/structured-merge-diff without its
//! schemas: see `lists`. Maps are never owned as a whole, except empty ones.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::lists::{ListType, Types, key_of};
use super::object;

/// A set of fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    /// Whether this place itself is in the set.
    here: bool,
    /// `f:<field>`, `k:<keys>`, `v:<value>`.
    below: BTreeMap<String, Fields>,
}

impl Fields {
    fn leaf() -> Self {
        Self { here: true, below: BTreeMap::new() }
    }

    fn is_empty(&self) -> bool {
        !self.here && self.below.is_empty()
    }

    /// The fields of a value.
    pub fn of(value: &Value, types: &Types<'_>) -> Self {
        match value {
            Value::Object(map) if !map.is_empty() => {
                let below = map
                    .iter()
                    .map(|(name, value)| (format!("f:{name}"), Self::of(value, &types.field(name))));
                Self { here: false, below: below.collect() }
            }
            Value::Array(list) => match types.list() {
                ListType::Map(keys) => {
                    let item = |value: &Value| {
                        let fields = Self { here: true, ..Self::of(value, &types.item()) };
                        (format!("k:{}", key_of(value, &keys)), fields)
                    };
                    Self { here: list.is_empty(), below: list.iter().map(item).collect() }
                }
                ListType::Set => {
                    let member = |value: &Value| (format!("v:{value}"), Self::leaf());
                    Self { here: list.is_empty(), below: list.iter().map(member).collect() }
                }
                ListType::Atomic => Self::leaf(),
            },
            _ => Self::leaf(),
        }
    }

    /// Reads FieldsV1.
    pub fn parse(value: &Value) -> Self {
        let Some(map) = value.as_object() else { return Self::default() };
        let below: BTreeMap<String, Fields> = map
            .iter()
            .filter(|(key, _)| *key != ".")
            .map(|(key, value)| (key.clone(), Self::parse(value)))
            .collect();
        Self { here: below.is_empty() || map.contains_key("."), below }
    }

    /// Writes FieldsV1.
    pub fn write(&self) -> Value {
        let mut map: Map<String, Value> =
            self.below.iter().map(|(key, fields)| (key.clone(), fields.write())).collect();
        if self.here && !self.below.is_empty() {
            map.insert(".".to_owned(), json!({}));
        }
        Value::Object(map)
    }

    /// What is in `self` and not in `other`.
    pub fn without(&self, other: &Self) -> Self {
        let below = self.below.iter().filter_map(|(key, fields)| {
            let left = other.below.get(key).map_or_else(|| fields.clone(), |other| fields.without(other));
            (!left.is_empty()).then(|| (key.clone(), left))
        });
        Self { below: below.collect(), here: self.here && !other.here }
    }

    /// What is in both.
    pub fn and(&self, other: &Self) -> Self {
        let below = self.below.iter().filter_map(|(key, fields)| {
            let common = fields.and(other.below.get(key)?);
            (!common.is_empty()).then(|| (key.clone(), common))
        });
        Self { below: below.collect(), here: self.here && other.here }
    }

    /// What is in either.
    pub fn or(mut self, other: &Self) -> Self {
        self.here |= other.here;
        for (key, fields) in &other.below {
            let mine = self.below.remove(key).unwrap_or_default();
            self.below.insert(key.clone(), mine.or(fields));
        }
        self
    }

    /// The members whose values differ between two objects, or are in one only. Membership of a list item alone
    /// has no value.
    fn differing(&self, one: &Value, other: &Value) -> Self {
        if self.below.is_empty() {
            return if self.here && one != other { Self::leaf() } else { Self::default() };
        }
        let below = self.below.iter().filter_map(|(step, fields)| {
            let (one, other) = (child(one, step), child(other, step));
            let found = match fields.below.is_empty() && (step.starts_with("k:") || step.starts_with("v:")) {
                true if one.is_null() == other.is_null() => Self::default(),
                true => Self::leaf(),
                false => {
                    let mut found = fields.differing(one, other);
                    found.here |= fields.here && one.is_null() != other.is_null();
                    found
                }
            };
            (!found.is_empty()).then(|| (step.clone(), found))
        });
        Self { here: false, below: below.collect() }
    }

    /// Kubernetes's way of writing each member: `.spec.replicas`, `.spec.containers[name="x"].image`.
    fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.collect_paths("", &mut found);
        found
    }

    fn collect_paths(&self, at: &str, found: &mut Vec<String>) {
        if self.here {
            found.push(at.to_owned());
        }
        for (step, fields) in &self.below {
            let shown = match step.split_at(2) {
                ("f:", name) => format!("{at}.{name}"),
                ("k:", keys) => format!("{at}[{}]", shown_keys(keys)),
                (_, value) => format!("{at}[={value}]"),
            };
            fields.collect_paths(&shown, found);
        }
    }
}

/// `{"name":"x"}` as `name="x"`.
fn shown_keys(keys: &str) -> String {
    let Ok(Value::Object(keys)) = serde_json::from_str(keys) else { return keys.to_owned() };
    let shown: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
    shown.join(",")
}

/// The value one step below.
fn child<'a>(value: &'a Value, step: &str) -> &'a Value {
    match step.split_at(2) {
        ("f:", name) => &value[name],
        ("k:", keys) => position(value, keys).map_or(&Value::Null, |at| &value[at]),
        (_, text) => {
            let member = member(text);
            object::items(value).iter().find(|item| **item == member).unwrap_or(&Value::Null)
        }
    }
}

/// The scalar a set's step means.
fn member(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

/// Where in a list the item with these keys is.
fn position(list: &Value, keys: &str) -> Option<usize> {
    let Ok(Value::Object(wanted)) = serde_json::from_str::<Value>(keys) else { return None };
    let names: Vec<String> = wanted.keys().cloned().collect();
    let wanted = Value::Object(wanted);
    object::items(list).iter().position(|item| key_of(item, &names) == wanted)
}

/// Takes fields out of an object; what is left empty goes too.
fn remove(value: &mut Value, fields: &Fields) {
    for (step, below) in &fields.below {
        match step.split_at(2) {
            ("f:", name) => {
                let Some(map) = value.as_object_mut() else { continue };
                let Some(inner) = map.get_mut(name) else { continue };
                remove(inner, below);
                if below.here || is_hollow(inner) {
                    map.remove(name);
                }
            }
            ("k:", keys) => {
                let Some(at) = position(value, keys) else { continue };
                match below.here {
                    true => drop(value.as_array_mut().map(|list| list.remove(at))),
                    false => remove(&mut value[at], below),
                }
            }
            (_, text) => {
                let member = member(text);
                if let Some(list) = value.as_array_mut() {
                    list.retain(|item| *item != member);
                }
            }
        }
    }
}

fn is_hollow(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

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

/// Fields nobody owns.
const UNOWNED: &[&str] = &[
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// The fields of an object that someone can own.
fn ownable(object: &Value, types: &Types<'_>) -> Fields {
    let mut fields = Fields::of(object, types);
    fields.below.remove("f:apiVersion");
    fields.below.remove("f:kind");
    if let Some(metadata) = fields.below.get_mut("f:metadata") {
        for name in UNOWNED {
            metadata.below.remove(&format!("f:{name}"));
        }
        if metadata.below.is_empty() {
            fields.below.remove("f:metadata");
        }
    }
    fields
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
    let set = ownable(applied, types);
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
    let (before, after) = (ownable(old, types), ownable(new, types));
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

    #[test]
    fn field_sets_are_written_as_kubernetes_writes_them() {
        let object = json!({"spec": {"containers": [{"name": "x", "image": "1"}], "args": ["a"]}});
        let written = Fields::of(&object, &Types::built_in()).write();
        assert_eq!(
            written,
            json!({"f:spec": {
                "f:args": {},
                "f:containers": {"k:{\"name\":\"x\"}": {".": {}, "f:image": {}, "f:name": {}}},
            }})
        );
        assert_eq!(Fields::parse(&written).write(), written);
    }
}
