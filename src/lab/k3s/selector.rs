//! Label and field selectors.

use serde_json::Value;

use super::object;

/// One requirement of a label selector.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

/// A parsed label selector; the empty one matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(Vec<Requirement>);

impl Labels {
    /// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    pub fn parse(text: &str) -> Result<Self, String> {
        split(text).iter().map(|part| requirement(part)).collect::<Result<_, _>>().map(Self)
    }

    /// Reads a `LabelSelector` object.
    pub fn from_object(selector: &Value) -> Self {
        let mut found: Vec<Requirement> = selector["matchLabels"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| {
                Requirement::In(key.clone(), vec![value.as_str().unwrap_or_default().to_owned()])
            })
            .collect();
        for expression in object::items(&selector["matchExpressions"]) {
            let key = expression["key"].as_str().unwrap_or_default().to_owned();
            let values = object::items(&expression["values"])
                .iter()
                .map(|value| value.as_str().unwrap_or_default().to_owned())
                .collect();
            found.push(match expression["operator"].as_str().unwrap_or_default() {
                "NotIn" => Requirement::NotIn(key, values),
                "Exists" => Requirement::Exists(key),
                "DoesNotExist" => Requirement::Absent(key),
                _ => Requirement::In(key, values),
            });
        }
        Self(found)
    }

    /// Whether an object's labels satisfy every requirement.
    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => {
                object::label(object, key).is_some_and(|label| values.iter().any(|value| value == label))
            }
            Requirement::NotIn(key, values) => {
                object::label(object, key).is_none_or(|label| values.iter().all(|value| value != label))
            }
            Requirement::Exists(key) => object::label(object, key).is_some(),
            Requirement::Absent(key) => object::label(object, key).is_none(),
        })
    }
}

/// Splits at commas outside of parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn requirement(text: &str) -> Result<Requirement, String> {
    let key = |text: &str| text.trim().to_owned();
    let set = |text: &str| -> Result<Vec<String>, String> {
        let inner = text.trim().strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
        let inner =
            inner.ok_or_else(|| format!("unable to parse requirement: found '{text}', expected: '('"))?;
        Ok(inner.split(',').map(|value| value.trim().to_owned()).collect())
    };
    if let Some((left, right)) = text.split_once(" notin ") {
        return Ok(Requirement::NotIn(key(left), set(right)?));
    }
    if let Some((left, right)) = text.split_once(" in ") {
        return Ok(Requirement::In(key(left), set(right)?));
    }
    if let Some((left, right)) = text.split_once("!=") {
        return Ok(Requirement::NotIn(key(left), vec![key(right)]));
    }
    if let Some((left, right)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Ok(Requirement::In(key(left), vec![key(right)]));
    }
    match text.strip_prefix('!') {
        Some(absent) => Ok(Requirement::Absent(key(absent))),
        None => Ok(Requirement::Exists(key(text))),
    }
}

/// A parsed field selector: `path`, whether it must be equal, and the value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, bool, String)>);

/// The fields that can be selected; a few more are selectable on some kinds of the real API.
const SELECTABLE: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "spec.nodeName",
    "status.phase",
    "spec.unschedulable",
    "type",
    "reason",
    "involvedObject.name",
    "involvedObject.namespace",
    "involvedObject.kind",
    "involvedObject.uid",
];

impl Fields {
    /// Reads `a=b,c!=d`.
    pub fn parse(text: &str) -> Result<Self, String> {
        text.split(',').filter(|part| !part.trim().is_empty()).map(field).collect::<Result<_, _>>().map(Self)
    }

    /// Whether an object's fields satisfy every requirement; a missing field is an empty text.
    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(path, equal, wanted)| {
            let value = path.split('.').fold(object, |value, step| &value[step]);
            let seen = match value {
                Value::String(text) => text.clone(),
                Value::Bool(_) | Value::Number(_) => value.to_string(),
                _ if path == "spec.unschedulable" => "false".to_owned(),
                _ => String::new(),
            };
            (seen == *wanted) == *equal
        })
    }
}

fn field(text: &str) -> Result<(String, bool, String), String> {
    let (path, equal, value) = match (text.split_once("!="), text.split_once("==").or(text.split_once('='))) {
        (Some((path, value)), _) => (path, false, value),
        (None, Some((path, value))) => (path, true, value),
        (None, None) => return Err(format!("invalid selector: '{text}'; can't understand '{text}'")),
    };
    match SELECTABLE.contains(&path.trim()) {
        true => Ok((path.trim().to_owned(), equal, value.trim().to_owned())),
        false => Err(format!("field label not supported: {}", path.trim())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn label_selectors() {
        let object = json!({"metadata": {"labels": {"app": "web", "tier": "front", "empty": ""}}});
        let cases = [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app=web,tier=back", false),
            ("app!=web", false),
            ("gone!=x", true),
            ("app in (db, web),tier", true),
            ("app notin (db, cache)", true),
            ("gone notin (x)", true),
            ("app in (db)", false),
            ("tier", true),
            ("!tier", false),
            ("!gone", true),
            ("empty=", true),
            ("gone=", false),
        ];
        for (text, wanted) in cases {
            assert_eq!(Labels::parse(text).expect("well formed").matches(&object), wanted, "{text:?}");
        }
        assert!(Labels::parse("app in web").is_err());
        let selector = json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["front"]},
                {"key": "gone", "operator": "DoesNotExist"},
                {"key": "app", "operator": "NotIn", "values": ["db"]},
                {"key": "app", "operator": "Exists"},
            ],
        });
        assert!(Labels::from_object(&selector).matches(&object));
        assert!(!Labels::from_object(&selector).matches(&json!({})));
    }

    #[test]
    fn field_selectors() {
        let object =
            json!({"metadata": {"name": "a"}, "spec": {"nodeName": "one"}, "status": {"phase": "Running"}});
        let cases = [
            ("", true),
            ("metadata.name=a", true),
            ("metadata.name!=a", false),
            ("spec.nodeName=one,status.phase!=Succeeded", true),
            ("metadata.namespace=", true),
            ("spec.unschedulable=false", true),
        ];
        for (text, wanted) in cases {
            assert_eq!(Fields::parse(text).expect("well formed").matches(&object), wanted, "{text:?}");
        }
        assert!(Fields::parse("spec.secret=x").is_err());
        assert!(Fields::parse("nonsense").is_err());
    }
}
