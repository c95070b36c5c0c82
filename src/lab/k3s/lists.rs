//! How lists merge: which are atomic, which are sets, which are maps with keys.
//!
//! For built-in kinds a table by field name (Kubernetes has it in its types); for custom ones the definition's
//! `x-kubernetes-list-type`.

use serde_json::Value;

/// How one list merges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListType {
    /// Replaced as a whole.
    Atomic,
    /// Scalars, each its own member.
    Set,
    /// Items are told apart by the values of these fields.
    Map(Vec<String>),
}

/// Knows the list types below one place of an object.
#[derive(Debug, Clone)]
pub struct Types<'a> {
    /// The path so far, without list items.
    path: Vec<String>,
    /// The schema of a custom resource at this place.
    schema: Option<&'a Value>,
    custom: bool,
}

/// Built-in list maps: field, the field above it (empty: any), keys.
const MAPS: &[(&str, &str, &[&str])] = &[
    ("ports", "containers", &["containerPort", "protocol"]),
    ("ports", "initContainers", &["containerPort", "protocol"]),
    ("ports", "spec", &["port", "protocol"]),
    ("containers", "", &["name"]),
    ("initContainers", "", &["name"]),
    ("ephemeralContainers", "", &["name"]),
    ("volumes", "spec", &["name"]),
    ("env", "", &["name"]),
    ("imagePullSecrets", "", &["name"]),
    ("secrets", "", &["name"]),
    ("volumeMounts", "", &["mountPath"]),
    ("volumeDevices", "", &["devicePath"]),
    ("conditions", "status", &["type"]),
    ("addresses", "status", &["type"]),
    ("ownerReferences", "metadata", &["uid"]),
    ("hostAliases", "", &["ip"]),
    ("podIPs", "", &["ip"]),
    ("hostIPs", "", &["ip"]),
    ("topologySpreadConstraints", "", &["topologyKey", "whenUnsatisfiable"]),
    ("webhooks", "", &["name"]),
];

impl<'a> Types<'a> {
    /// Types of a built-in kind.
    pub fn built_in() -> Self {
        Self { path: Vec::new(), schema: None, custom: false }
    }

    /// Types of a custom kind, by its definition and version.
    pub fn custom(definition: Option<&'a Value>, version: &str) -> Self {
        let schema = definition
            .and_then(|definition| definition["spec"]["versions"].as_array())
            .and_then(|versions| versions.iter().find(|v| v["name"] == version))
            .map(|found| &found["schema"]["openAPIV3Schema"]);
        Self { path: Vec::new(), schema, custom: true }
    }

    /// The types below a field.
    pub fn field(&self, name: &str) -> Self {
        let mut path = self.path.clone();
        path.push(name.to_owned());
        let schema = self.schema.map(|schema| match &schema["properties"][name] {
            Value::Null => &schema["additionalProperties"],
            found => found,
        });
        Self { path, schema, custom: self.custom }
    }

    /// The types of a list's items.
    pub fn item(&self) -> Self {
        Self {
            path: self.path.clone(),
            schema: self.schema.map(|schema| &schema["items"]),
            custom: self.custom,
        }
    }

    /// How the list at this place merges.
    pub fn list(&self) -> ListType {
        let name = self.path.last().map(String::as_str).unwrap_or_default();
        let above = self.path.len().checked_sub(2).map(|at| self.path[at].as_str()).unwrap_or_default();
        if self.path.first().is_some_and(|first| first == "metadata") || !self.custom {
            if name == "finalizers" {
                return ListType::Set;
            }
            let found = MAPS
                .iter()
                .find(|(field, parent, _)| *field == name && (parent.is_empty() || *parent == above));
            return match found {
                Some((_, _, keys)) => ListType::Map(keys.iter().map(|key| (*key).to_owned()).collect()),
                None => ListType::Atomic,
            };
        }
        let Some(schema) = self.schema else { return ListType::Atomic };
        match schema["x-kubernetes-list-type"].as_str() {
            Some("set") => ListType::Set,
            Some("map") => ListType::Map(
                super::object::items(&schema["x-kubernetes-list-map-keys"])
                    .iter()
                    .filter_map(|key| key.as_str().map(str::to_owned))
                    .collect(),
            ),
            _ => ListType::Atomic,
        }
    }
}

/// The key values of a list map's item, as an object; `protocol` defaults to `TCP`.
pub fn key_of(item: &Value, keys: &[String]) -> Value {
    keys.iter()
        .map(|key| {
            let value = match &item[key] {
                Value::Null if key == "protocol" => Value::from("TCP"),
                value => value.clone(),
            };
            (key.clone(), value)
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_are_told_apart() {
        let at = |types: Types<'_>, path: &str| {
            path.split('.').fold(types, |types, step| types.field(step)).list()
        };
        let keys = |keys: &[&str]| ListType::Map(keys.iter().map(|key| (*key).to_owned()).collect());
        let cases = [
            ("metadata.finalizers", ListType::Set),
            ("metadata.ownerReferences", keys(&["uid"])),
            ("spec.template.spec.containers", keys(&["name"])),
            ("spec.template.spec.containers.ports", keys(&["containerPort", "protocol"])),
            ("spec.ports", keys(&["port", "protocol"])),
            ("spec.taints", ListType::Atomic),
            ("spec.template.spec.containers.args", ListType::Atomic),
            ("ports", ListType::Atomic),
        ];
        for (path, wanted) in cases {
            assert_eq!(at(Types::built_in(), path), wanted, "{path}");
        }
        let definition = json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": {"properties": {
            "spec": {"properties": {
                "rules": {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["host"]},
                "names": {"x-kubernetes-list-type": "set"},
                "containers": {},
            }},
        }}}}]}});
        let custom = || Types::custom(Some(&definition), "v1");
        assert_eq!(at(custom(), "spec.rules"), keys(&["host"]));
        assert_eq!(at(custom(), "spec.names"), ListType::Set);
        assert_eq!(at(custom(), "spec.containers"), ListType::Atomic);
        assert_eq!(at(custom(), "metadata.finalizers"), ListType::Set);
        assert_eq!(at(Types::custom(None, "v1"), "spec.rules"), ListType::Atomic);
    }
}
