//! The values of a chart, merged as klipper-helm hands them to Helm: `valuesContent`, `values` and `valuesSecrets` of
//! the HelmChart, then those of its HelmChartConfig, then `set`. A later one wins; `null` takes a value away.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use crate::lab::k3s::{object, yaml};

/// Why there are no values.
#[derive(Debug, PartialEq, Eq)]
pub enum Unusable {
    /// A Secret that has to be there is not; the Job's pod waits for it.
    Missing(String),
    /// Helm cannot read them.
    Malformed(String),
}

/// Merges the values of a chart and its configuration. `secret` finds a Secret of the chart's namespace.
pub fn merged(
    chart: &Value,
    config: Option<&Value>,
    secret: impl Fn(&str) -> Option<Value>,
) -> Result<Value, Unusable> {
    let mut values = json!({});
    for spec in [Some(&chart["spec"]), config.map(|config| &config["spec"])].into_iter().flatten() {
        lay(&mut values, read(spec["valuesContent"].as_str().unwrap_or_default())?);
        lay(&mut values, spec["values"].clone());
        for reference in object::items(&spec["valuesSecrets"]) {
            for text in texts(reference, &secret)? {
                lay(&mut values, read(&text)?);
            }
        }
    }
    for (path, value) in chart["spec"]["set"].as_object().into_iter().flatten() {
        set(&mut values, path, typed(value));
    }
    Ok(values)
}

/// The Secrets a chart's values come from, whose changes are a change of the chart.
pub fn watched<'a>(chart: &'a Value, config: Option<&'a Value>) -> impl Iterator<Item = &'a str> {
    let specs = [Some(&chart["spec"]), config.map(|config| &config["spec"])];
    specs
        .into_iter()
        .flatten()
        .flat_map(|spec| object::items(&spec["valuesSecrets"]))
        .filter(|reference| reference["ignoreUpdates"] != true)
        .filter_map(|reference| reference["name"].as_str())
}

fn texts(reference: &Value, secret: &impl Fn(&str) -> Option<Value>) -> Result<Vec<String>, Unusable> {
    let keys = object::items(&reference["keys"]);
    let name = reference["name"].as_str().unwrap_or_default();
    let optional = reference["ignoreUpdates"] == true;
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let Some(found) = secret(name) else {
        let why = format!("MountVolume.SetUp failed for volume \"values\" : secret {name:?} not found");
        return if optional { Ok(Vec::new()) } else { Err(Unusable::Missing(why)) };
    };
    let mut texts = Vec::new();
    for key in keys.iter().filter_map(Value::as_str) {
        let value = found["data"][key].as_str().and_then(|text| BASE64.decode(text).ok());
        match value {
            Some(bytes) => texts.push(String::from_utf8_lossy(&bytes).into_owned()),
            None if optional => {}
            None => {
                let why = format!(
                    "MountVolume.SetUp failed for volume \"values\" : references non-existent secret key: {key}"
                );
                return Err(Unusable::Missing(why));
            }
        }
    }
    Ok(texts)
}

fn read(text: &str) -> Result<Value, Unusable> {
    let malformed = |why: String| Unusable::Malformed(format!("Error: failed to parse values: {why}"));
    match yaml::one::<Value>(text).map_err(malformed)? {
        Some(value) if value.is_object() => Ok(value),
        None | Some(Value::Null) => Ok(json!({})),
        Some(_) => Err(malformed("not a map".to_owned())),
    }
}

/// Lays values over others, map by map.
pub fn lay(under: &mut Value, over: Value) {
    let Value::Object(over) = over else { return };
    let under = object::as_map(under);
    for (name, value) in over {
        match (under.get_mut(&name), value) {
            (_, Value::Null) => drop(under.remove(&name)),
            (Some(old @ Value::Object(_)), value @ Value::Object(_)) => lay(old, value),
            (_, Value::Object(map)) => {
                let mut clean = Value::Object(Map::new());
                lay(&mut clean, Value::Object(map));
                under.insert(name, clean);
            }
            (_, value) => drop(under.insert(name, value)),
        }
    }
}

/// `--set`'s path: names with dots between; `\.` is a dot in a name.
fn set(values: &mut Value, path: &str, value: Value) {
    let names = path.replace("\\.", "\0");
    let mut names: Vec<String> = names.split('.').map(|name| name.replace('\0', ".")).collect();
    let Some(last) = names.pop() else { return };
    let place = names
        .iter()
        .fold(values, |place, name| object::as_map(place).entry(name.as_str()).or_insert(Value::Null));
    match value {
        Value::Null => drop(object::as_map(place).remove(&last)),
        value => drop(object::as_map(place).insert(last, value)),
    }
}

/// `--set` takes what looks like a number, a boolean or null as such.
fn typed(value: &Value) -> Value {
    match value.as_str() {
        Some("true") => json!(true),
        Some("false") => json!(false),
        Some("null") => Value::Null,
        _ => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str) -> Option<Value> {
        (name == "there").then(|| json!({"data": {"values.yaml": BASE64.encode("a:\n  c: secret\n")}}))
    }

    #[test]
    fn later_values_win() {
        let chart = json!({"spec": {
            "valuesContent": "a:\n  b: text\n  c: text\nlist: [1, 2]\ngone: 1\n",
            "values": {"list": [3], "gone": null, "new": {"x": null, "y": 1}},
            "valuesSecrets": [{"name": "there", "keys": ["values.yaml"]}, {"name": "there"}],
            "set": {"a.d": "true", "a.e\\.f": 1},
        }});
        let config = json!({"spec": {"valuesContent": "a:\n  b: config\n"}});
        let wanted = json!({
            "a": {"b": "config", "c": "secret", "d": true, "e.f": 1}, "list": [3], "new": {"y": 1},
        });
        assert_eq!(merged(&chart, Some(&config), secret), Ok(wanted));
    }

    #[test]
    fn what_is_missing_is_waited_for_unless_it_may_be() {
        let values =
            |reference: Value| merged(&json!({"spec": {"valuesSecrets": [reference]}}), None, secret);
        let missing = |why: &str| {
            Err(Unusable::Missing(format!("MountVolume.SetUp failed for volume \"values\" : {why}")))
        };
        assert_eq!(values(json!({"name": "gone", "keys": ["x"]})), missing("secret \"gone\" not found"));
        assert_eq!(
            values(json!({"name": "there", "keys": ["x"]})),
            missing("references non-existent secret key: x")
        );
        assert_eq!(values(json!({"name": "gone", "keys": ["x"], "ignoreUpdates": true})), Ok(json!({})));
        let text = json!({"spec": {"valuesContent": "only words"}});
        assert!(matches!(merged(&text, None, secret), Err(Unusable::Malformed(_))));
    }
}
