//! The operator's kubeconfig: K3s's own under a name of its own, merged into what is there without harming
//! it.
//!
//! The existing text is edited in place, so that order, comments and everything unknown stay as they are. The
//! result is read back before it is written: if it does not mean exactly what was there plus the one cluster,
//! because the file is written in a way the edit does not know (JSON, aliases), the whole file is written
//! anew from its meaning.

use serde_json::{Map, Value, json};

use super::kubeconfig_text as text;
use crate::secret::Secret;

/// Why a kubeconfig could not be merged. Shows no line of a file: they hold keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    #[error("the cluster's kubeconfig cannot be used: {0}")]
    Source(String),
    #[error("it is not a kubeconfig: {0}")]
    Broken(String),
    #[error("the name `{name}` is taken: {why}")]
    NameTaken { name: String, why: String },
}

/// A cluster to be in the operator's kubeconfig: one cluster, one user, one context, all of one name.
pub struct Entry {
    name: String,
    cluster: Map<String, Value>,
    user: Map<String, Value>,
}

/// What a merge came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merged {
    Unchanged,
    Changed {
        text: Secret,
        /// The file had to be written anew: its comments and its order are lost.
        rewritten: bool,
    },
}

/// Whether the cluster becomes the current context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Current {
    Always,
    IfNone,
    Never,
}

/// What matters in a kubeconfig that stands among several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survey {
    /// It has a context of the name asked for.
    pub has_context: bool,
    /// It sets a current context.
    pub has_current: bool,
}

/// The lists of a kubeconfig, and what their items call their one field beside `name`.
const LISTS: [(&str, &str); 3] = [("clusters", "cluster"), ("contexts", "context"), ("users", "user")];

/// Fields that say how to trust a server or how to log in: ours take the place of all of them.
const TRUST: [&str; 4] =
    ["server", "certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify"];
const LOGIN: [&str; 10] = [
    "client-certificate",
    "client-certificate-data",
    "client-key",
    "client-key-data",
    "token",
    "tokenFile",
    "username",
    "password",
    "auth-provider",
    "exec",
];

impl Entry {
    /// K3s's kubeconfig with `server` for its address (`https://nas.home.arpa:6443`) and `name` for all its
    /// names.
    pub fn new(k3s: &Secret, server: &str, name: &str) -> Result<Self, MergeError> {
        let bad = |why: &str| MergeError::Source(why.into());
        let whole = parse(k3s.expose()).map_err(MergeError::Source)?;
        let current = whole["current-context"].as_str().ok_or_else(|| bad("it has no current context"))?;
        let part = |list: &str, field: &str, name: &Value| {
            find(&whole, list, name.as_str().unwrap_or_default()).map(|item| item[field].clone())
        };
        let context = part("contexts", "context", &current.into()).unwrap_or_default();
        let cluster = part("clusters", "cluster", &context["cluster"]);
        let user = part("users", "user", &context["user"]);
        let (Some(Value::Object(mut cluster)), Some(Value::Object(mut user))) = (cluster, user) else {
            return Err(bad("its current context has no cluster and user"));
        };
        // Anything else would be the node's to choose: a command that kubectl runs here (exec), a file it
        // reads.
        cluster.retain(|key, _| key == "certificate-authority-data");
        user.retain(|key, _| ["client-certificate-data", "client-key-data", "token"].contains(&key.as_str()));
        if cluster.is_empty() {
            return Err(bad("its cluster has no certificate authority"));
        }
        if user.is_empty() {
            return Err(bad("its user has no certificate and no token"));
        }
        if !server.starts_with("https://") {
            return Err(bad("the server's address does not begin with https://"));
        }
        cluster.insert("server".into(), server.into());
        Ok(Self { name: name.into(), cluster, user })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A kubeconfig of this cluster alone.
    pub fn alone(&self, current: Current) -> Secret {
        Secret::new(text::render(&self.merged(&json!({ "apiVersion": "v1", "kind": "Config" }), current)))
    }

    /// Merges the cluster into a kubeconfig's text, which may be empty.
    pub fn merge(&self, existing: &str, current: Current) -> Result<Merged, MergeError> {
        let before = parse(existing).map_err(MergeError::Broken)?;
        if before.is_null() {
            return Ok(Merged::Changed { text: self.alone(current), rewritten: false });
        }
        check_shape(&before)?;
        self.check_name(&before)?;
        let after = self.merged(&before, current);
        if after == before {
            return Ok(Merged::Unchanged);
        }
        let edited = text::edit(existing, &before, &after);
        let kept = parse(&edited).is_ok_and(|meaning| meaning == after);
        let text = if kept { edited } else { text::render(&after) };
        Ok(Merged::Changed { text: Secret::new(text), rewritten: !kept })
    }

    /// Entries of this name are ours if all three are there and belong together.
    fn check_name(&self, whole: &Value) -> Result<(), MergeError> {
        let name = self.name.as_str();
        let taken = |why: String| Err(MergeError::NameTaken { name: name.into(), why });
        if let Some(item) = find(whole, "contexts", name) {
            let context = &item["context"];
            if context["cluster"] == name && context["user"] == name {
                return Ok(());
            }
            return taken("a context of that name leads to another cluster or user".into());
        }
        match LISTS.iter().find(|(list, _)| find(whole, list, name).is_some()) {
            None => Ok(()),
            Some((_, kind)) => taken(format!("a {kind} of that name belongs to no context of that name")),
        }
    }

    fn merged(&self, before: &Value, current: Current) -> Value {
        let mut after = before.clone();
        let context = Map::from_iter([
            ("cluster".to_owned(), self.name.clone().into()),
            ("user".to_owned(), self.name.clone().into()),
        ]);
        let parts: [(&Map<String, Value>, &[&str]); 3] =
            [(&self.cluster, &TRUST), (&context, &["cluster", "user"]), (&self.user, &LOGIN)];
        for ((list, field), (ours, replaced)) in LISTS.into_iter().zip(parts) {
            let items = match &mut after[list] {
                Value::Array(items) => items,
                other => {
                    *other = Value::Array(Vec::new());
                    let Value::Array(items) = other else { continue };
                    items
                }
            };
            let at = items.iter().position(|item| item["name"] == self.name.as_str()).unwrap_or_else(|| {
                items.push(json!({ "name": self.name, field: {} }));
                items.len() - 1
            });
            let mut fields = items[at][field].as_object().cloned().unwrap_or_default();
            fields.retain(|key, _| !replaced.contains(&key.as_str()));
            fields.extend(ours.clone());
            items[at][field] = Value::Object(fields);
        }
        let set = match current {
            Current::Always => true,
            Current::IfNone => !has_current(before),
            Current::Never => false,
        };
        if set {
            after["current-context"] = self.name.clone().into();
        }
        after
    }
}

/// The item of that name in one of the lists.
fn find<'a>(whole: &'a Value, list: &str, name: &str) -> Option<&'a Value> {
    whole[list].as_array()?.iter().find(|item| item["name"] == name)
}

fn has_current(whole: &Value) -> bool {
    whole["current-context"].as_str().is_some_and(|name| !name.is_empty())
}

/// Looks a kubeconfig over; one that is broken is an error, as it is for kubectl.
pub fn survey(text: &str, name: &str) -> Result<Survey, MergeError> {
    let whole = parse(text).map_err(MergeError::Broken)?;
    if !whole.is_null() {
        check_shape(&whole)?;
    }
    Ok(Survey { has_context: find(&whole, "contexts", name).is_some(), has_current: has_current(&whole) })
}

/// The error says where, never what.
fn parse(text: &str) -> Result<Value, String> {
    let options = serde_saphyr::options! { strict_booleans: true };
    match serde_saphyr::from_multiple_with_options::<Value>(text, options) {
        Ok(mut documents) if documents.len() < 2 => Ok(documents.pop().unwrap_or_default()),
        Ok(_) => Err("it holds several YAML documents".into()),
        Err(e) => Err(match e.location() {
            Some(at) => format!("its YAML is broken at line {}", at.line()),
            None => "its YAML is broken".into(),
        }),
    }
}

/// Refuses what kubectl would not take for a kubeconfig either.
fn check_shape(whole: &Value) -> Result<(), MergeError> {
    let broken = |why: String| Err(MergeError::Broken(why));
    if !whole.is_object() {
        return broken("it is not a map".into());
    }
    if !matches!(whole["kind"].as_str(), None | Some("Config" | "")) {
        return broken("its kind is not Config".into());
    }
    for (list, field) in LISTS {
        match &whole[list] {
            Value::Null => {}
            Value::Array(items) if items.iter().all(|item| item["name"].is_string()) => {
                if items.iter().any(|item| !matches!(item[field], Value::Object(_) | Value::Null)) {
                    return broken(format!("an item of `{list}` has no {field}"));
                }
            }
            _ => return broken(format!("`{list}` is not a list of named items")),
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "kubeconfig_tests.rs"]
mod tests;
