//! Secrets of the cluster: compared by checksum, so that no value is ever shown; values that are made up once, here,
//! and then kept; and values taken over from other Secrets.

use std::collections::{BTreeMap, BTreeSet};

use ::kube::api::{Api, DynamicObject};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use k8s_openapi::api::core::v1::Secret as ApiSecret;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::client::Cluster;
use super::error::Error;
use super::object::{applied_keys, object};
use crate::checksum::sha256_hex;
use crate::secret::Secret;

/// Letters of made-up values: none has a meaning in YAML, a shell or a URL.
const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// One key of a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyRef {
    pub namespace: String,
    pub name: String,
    pub key: String,
}

/// `namespace/name/key`
impl std::str::FromStr for KeyRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split('/').collect::<Vec<_>>()[..] {
            [namespace, name, key] if [namespace, name, key].iter().all(|part| !part.is_empty()) => {
                Ok(Self { namespace: namespace.into(), name: name.into(), key: key.into() })
            }
            _ => Err(format!("`{text}` is not namespace/name/key")),
        }
    }
}

impl std::fmt::Display for KeyRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.name, self.key)
    }
}

/// A Secret as it should be. Keys, labels and annotations that others have added stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretWanted {
    pub namespace: String,
    pub name: String,
    /// `Opaque`, `kubernetes.io/basic-auth`. It cannot be changed later.
    pub kind: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub data: BTreeMap<String, Secret>,
    /// Keys whose values are made up where they are not there yet.
    pub generate: BTreeSet<String>,
    /// The number of letters of a made-up value.
    pub length: usize,
    /// Keys whose values are those of other Secrets.
    pub copy: BTreeMap<String, KeyRef>,
}

/// A Secret as it is. Holds no value, only checksums.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretSeen {
    pub kind: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// The SHA-256 of every value, lower-case hex.
    pub data: BTreeMap<String, String>,
    /// Keys that an earlier apply of ours has set.
    pub ours: BTreeSet<String>,
}

impl From<&ApiSecret> for SecretSeen {
    fn from(secret: &ApiSecret) -> Self {
        let data = secret.data.iter().flatten();
        Self {
            kind: secret.type_.clone().unwrap_or_default(),
            labels: secret.metadata.labels.clone().unwrap_or_default(),
            annotations: secret.metadata.annotations.clone().unwrap_or_default(),
            data: data.map(|(key, value)| (key.clone(), sha256_hex(&value.0))).collect(),
            ours: applied_keys(secret.metadata.managed_fields.as_deref().unwrap_or_default(), &["f:data"]),
        }
    }
}

impl Cluster {
    /// What a Secret holds, as checksums; `None`: there is none.
    pub async fn look_at_secret(&self, namespace: &str, name: &str) -> Result<Option<SecretSeen>, Error> {
        Ok(self.read_secret(namespace, name).await?.as_ref().map(SecretSeen::from))
    }

    /// The checksum of one key's value; `None`: it is not there.
    pub async fn look_at_key(&self, which: &KeyRef) -> Result<Option<String>, Error> {
        let secret = self.look_at_secret(&which.namespace, &which.name).await?;
        Ok(secret.and_then(|mut secret| secret.data.remove(&which.key)))
    }

    /// Brings a Secret to the wanted form. What is made up is only made up where it is not there yet.
    pub async fn apply_secret(&self, wanted: &SecretWanted) -> Result<(), Error> {
        let seen = self.read_secret(&wanted.namespace, &wanted.name).await?;
        let kept = seen.and_then(|secret| secret.data).unwrap_or_default();
        let mut data = Map::new();
        for key in &wanted.generate {
            let value = match kept.get(key) {
                Some(value) => BASE64.encode(&value.0),
                None => BASE64.encode(made_up(wanted.length)?.as_bytes()),
            };
            data.insert(key.clone(), value.into());
        }
        for (key, source) in &wanted.copy {
            let secret = self.read_secret(&source.namespace, &source.name).await?;
            let value = secret.and_then(|secret| secret.data?.remove(&source.key));
            let value = value.ok_or_else(|| Error::NotFound { what: format!("Secret key {source}") })?;
            data.insert(key.clone(), BASE64.encode(value.0).into());
        }
        for (key, value) in &wanted.data {
            data.insert(key.clone(), BASE64.encode(value.expose()).into());
        }
        let secret = formed(wanted, data)?;
        match self.apply(&secret).await {
            // Charts make their namespaces, and some need their Secrets before.
            Err(error) if error.is_not_found() => {
                self.apply(&namespace(&wanted.namespace)?).await?;
                self.apply(&secret).await.map(|_| ())
            }
            applied => applied.map(|_| ()),
        }
    }

    async fn read_secret(&self, namespace: &str, name: &str) -> Result<Option<ApiSecret>, Error> {
        let api: Api<ApiSecret> = Api::namespaced(self.client.clone(), namespace);
        self.call(&format!("read Secret {namespace}/{name}"), || api.get_opt(name)).await
    }
}

fn formed(wanted: &SecretWanted, data: Map<String, Value>) -> Result<DynamicObject, Error> {
    let mut metadata = json!({ "name": wanted.name, "namespace": wanted.namespace });
    for (field, map) in [("labels", &wanted.labels), ("annotations", &wanted.annotations)] {
        if !map.is_empty() {
            metadata[field] = json!(map);
        }
    }
    object(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": wanted.kind, "data": data,
    }))
}

fn namespace(name: &str) -> Result<DynamicObject, Error> {
    object(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }))
}

/// Letters from the operating system's random numbers.
fn made_up(length: usize) -> Result<Zeroizing<String>, Error> {
    let mut letters = Zeroizing::new(String::with_capacity(length));
    // Below this every letter is as likely as every other.
    let fair = (256 / LETTERS.len() * LETTERS.len()) as u8;
    while letters.len() < length {
        let mut bytes = Zeroizing::new([0; 64]);
        getrandom::fill(&mut *bytes).map_err(|error| Error::NoRandom { why: error.to_string() })?;
        let drawn = bytes.iter().filter(|byte| **byte < fair);
        let drawn = drawn.map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]));
        let missing = length - letters.len();
        letters.extend(drawn.take(missing));
    }
    Ok(letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_values_are_letters_and_never_the_same() {
        let one = made_up(40).expect("random numbers");
        assert_eq!(one.len(), 40);
        assert!(one.bytes().all(|byte| LETTERS.contains(&byte)));
        assert_ne!(*one, *made_up(40).expect("random numbers"));
    }

    #[test]
    fn what_is_seen_holds_checksums_and_no_values() {
        let secret = serde_json::from_value(json!({
            "metadata": { "name": "a", "managedFields": [
                { "manager": "datahub", "operation": "Apply", "fieldsV1": { "f:data": { "f:one": {} } } },
                { "manager": "other", "operation": "Apply", "fieldsV1": { "f:data": { "f:two": {} } } },
            ] },
            "type": "Opaque", "data": { "one": "Z2VoZWlt", "two": "" },
        }));
        let seen = SecretSeen::from(&secret.expect("a Secret"));
        assert_eq!(seen.data["one"], sha256_hex(b"geheim"));
        assert_eq!(seen.ours, ["one".to_owned()].into());
        assert!(!format!("{seen:?}").contains("geheim"));
    }

    #[test]
    fn keys_of_other_secrets_are_named_in_full() {
        let key: KeyRef = "security/dex-clients/argo-cd".parse().expect("a key");
        assert_eq!(key.to_string(), "security/dex-clients/argo-cd");
        for bad in ["security/dex", "a//b", "a/b/c/d", ""] {
            assert!(bad.parse::<KeyRef>().is_err(), "{bad}");
        }
    }
}
