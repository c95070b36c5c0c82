//! YAML as Kubernetes reads it: into JSON values, `true` and `false` the only booleans.

use serde::de::DeserializeOwned;
use serde_json::Value;

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! { strict_booleans: true }
}

/// One document; an empty text is `None`.
pub fn one<T: DeserializeOwned>(text: &str) -> Result<Option<T>, String> {
    if is_empty(text) {
        return Ok(None);
    }
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| error.to_string())
}

/// Every document that is not empty; a `List`'s items stand for themselves.
pub fn objects(text: &str) -> Result<Vec<Value>, String> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple_with_options(text, options()).map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    for document in documents {
        match (document["kind"].as_str(), document["items"].as_array()) {
            (Some(kind), Some(items)) if kind.ends_with("List") => found.extend(items.iter().cloned()),
            (Some(_), _) => found.push(document),
            (None, _) if document.is_null() => {}
            (None, _) => return Err("Object 'Kind' is missing".to_owned()),
        }
    }
    Ok(found)
}

/// YAML text of a value.
pub fn text(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap_or_default()
}

fn is_empty(text: &str) -> bool {
    text.lines().map(str::trim).all(|line| line.is_empty() || line == "---" || line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_documents() {
        let text = "---\n# first\nkind: A\nx: no\n---\n---\nkind: BList\nitems:\n- kind: B\n  n: 1\n- kind: B\n---\n# end\n";
        let objects = objects(text).expect("well formed");
        assert_eq!(
            objects.iter().map(|o| o["kind"].as_str()).collect::<Vec<_>>(),
            [Some("A"), Some("B"), Some("B")]
        );
        assert_eq!(objects[0]["x"], "no");
        assert_eq!(objects[1]["n"], 1);
        assert!(super::objects("x: 1").is_err());
        assert_eq!(one::<Value>("# only a comment\n"), Ok(None));
    }
}
