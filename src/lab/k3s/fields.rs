//! Sets of fields, in the notation of `managedFields` (FieldsV1).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::lists::{ListType, Types, key_of};
use super::object;

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

    pub fn is_empty(&self) -> bool {
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

    /// The fields of an object that someone can own.
    pub fn ownable(object: &Value, types: &Types<'_>) -> Self {
        let mut fields = Self::of(object, types);
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
    pub fn differing(&self, one: &Value, other: &Value) -> Self {
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
    pub fn paths(&self) -> Vec<String> {
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
pub fn position(list: &Value, keys: &str) -> Option<usize> {
    let Ok(Value::Object(wanted)) = serde_json::from_str::<Value>(keys) else { return None };
    let names: Vec<String> = wanted.keys().cloned().collect();
    let wanted = Value::Object(wanted);
    object::items(list).iter().position(|item| key_of(item, &names) == wanted)
}

/// Takes fields out of an object; what is left empty goes too.
pub fn remove(value: &mut Value, fields: &Fields) {
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

#[cfg(test)]
mod tests {
    use super::*;

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
