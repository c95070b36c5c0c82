//! `kube_secret`: a Secret of a Kubernetes cluster.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{Change, ClusterCall, Difference, Resource, Verdict};
use crate::checksum::sha256_hex;
use crate::kube::secret::KeyRef;
use crate::kube::{SecretSeen, SecretWanted};
use crate::probe::{Answers, Question, Unanswered};
use crate::secret::{HIDDEN, Secret};

/// A Secret of the cluster that the node is a server of. Its values are compared by checksum and never shown. Keys,
/// labels and annotations that others have added stay; a key that is no longer named is taken away.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KubeSecret {
    /// Made if it is missing.
    pub namespace: String,
    /// The Secret's name.
    pub name: String,
    /// Its type, which cannot be changed later. Default: `Opaque`.
    #[serde(default = "opaque", rename = "type")]
    pub kind: String,
    /// Labels by key. Default: none.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Annotations by key. Default: none.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Values by key, as text. Default: none.
    #[serde(default)]
    pub data: BTreeMap<String, String>,
    /// Keys whose values are made up once, and then kept. Default: none.
    #[serde(default)]
    pub generate: BTreeSet<String>,
    /// How many letters and digits a made-up value has. Default: 32.
    #[serde(default = "letters")]
    pub length: usize,
    /// Keys whose values are those of other Secrets: `{ client-secret = "security/dex-clients/argo-cd" }`. Default:
    /// none.
    #[serde(default)]
    pub copy: BTreeMap<String, String>,
    // Set where a value comes from secret(); nothing of a Secret is ever shown.
    #[serde(default, rename = "secret")]
    pub(super) _secret: bool,
}

/// By hand, for its values are secrets.
impl std::fmt::Debug for KubeSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys: Vec<&String> = self.data.keys().collect();
        f.debug_struct("KubeSecret").field("name", &self.name()).field("keys", &keys).finish_non_exhaustive()
    }
}

fn letters() -> usize {
    32
}

fn opaque() -> String {
    "Opaque".into()
}

impl KubeSecret {
    fn copies(&self) -> Result<BTreeMap<String, KeyRef>, String> {
        self.copy.iter().map(|(key, source)| Ok((key.clone(), source.parse()?))).collect()
    }

    fn wanted(&self, copy: BTreeMap<String, KeyRef>) -> SecretWanted {
        let hidden = |(key, value): (&String, &String)| (key.clone(), Secret::new(value.clone()));
        SecretWanted {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            kind: self.kind.clone(),
            labels: self.labels.clone(),
            annotations: self.annotations.clone(),
            data: self.data.iter().map(hidden).collect(),
            generate: self.generate.clone(),
            length: self.length,
            copy,
        }
    }

    fn differences(
        &self,
        seen: Option<&SecretSeen>,
        copied: &BTreeMap<&String, Option<String>>,
    ) -> Vec<Difference> {
        let empty = SecretSeen::default();
        let there = seen.unwrap_or(&empty);
        let mut differences = Vec::new();
        let hidden = |key: &str| match there.data.contains_key(key) {
            true => Difference::Secret { attribute: format!("data.{key}") },
            false => Difference::value(format!("data.{key}"), None, Some(HIDDEN)),
        };
        for (key, value) in &self.data {
            if there.data.get(key) != Some(&sha256_hex(value.as_bytes())) {
                differences.push(hidden(key));
            }
        }
        for key in self.generate.iter().filter(|key| !there.data.contains_key(*key)) {
            differences.push(Difference::value(format!("data.{key}"), None, Some("made up once")));
        }
        for (key, sum) in copied {
            // What it is taken from may only be made later in the same run.
            if sum.is_none() || there.data.get(*key) != sum.as_ref() {
                differences.push(hidden(key));
            }
        }
        let named: BTreeSet<&String> =
            self.data.keys().chain(&self.generate).chain(self.copy.keys()).collect();
        for key in there.ours.iter().filter(|key| !named.contains(key)) {
            differences.push(Difference::value(format!("data.{key}"), Some("there"), None));
        }
        for (what, seen, wanted) in
            [("label", &there.labels, &self.labels), ("annotation", &there.annotations, &self.annotations)]
        {
            for (key, value) in wanted.iter().filter(|(key, value)| seen.get(*key) != Some(value)) {
                let before = seen.get(key).map(String::as_str);
                differences.push(Difference::value(format!("{what} {key}"), before, Some(value)));
            }
        }
        if seen.is_none() && differences.is_empty() {
            differences.push(Difference::value("state", Some("absent"), Some("present")));
        }
        differences
    }
}

impl Resource for KubeSecret {
    fn name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn questions(&self) -> Vec<Question> {
        let own = Question::ClusterSecret { namespace: self.namespace.clone(), name: self.name.clone() };
        let copies = self.copies().unwrap_or_default().into_values().map(Question::ClusterKey);
        std::iter::once(own).chain(copies).collect()
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        let unknown = |reason: &String| Verdict::Unknown(format!("the cluster cannot be asked: {reason}"));
        let secret = match seen.cluster_secret(&self.namespace, &self.name)? {
            Ok(secret) => secret.as_ref(),
            Err(reason) => return Ok(unknown(reason)),
        };
        if let Some(secret) = secret.filter(|secret| secret.kind != self.kind) {
            return Ok(Verdict::Refused(format!(
                "the Secret {} is of type {}, not {}, which cannot be changed: delete it, and run again",
                self.name(),
                secret.kind,
                self.kind
            )));
        }
        let copies = match self.copies() {
            Ok(copies) => copies,
            Err(reason) => return Ok(Verdict::Refused(reason)),
        };
        let mut copied = BTreeMap::new();
        for (key, source) in &copies {
            match seen.cluster_key(source)? {
                Ok(sum) => copied.insert(key, sum.clone()),
                Err(reason) => return Ok(unknown(reason)),
            };
        }
        let differences = self.differences(secret, &copied);
        if differences.is_empty() {
            return Ok(Verdict::Converged);
        }
        let call = ClusterCall::Secret(self.wanted(copies));
        Ok(Verdict::Differs(Change { cluster: Some(Box::new(call)), ..Change::new(differences, ":") }))
    }

    fn check(&self) -> Result<(), String> {
        if self.name.is_empty() || self.namespace.is_empty() {
            return Err("`name` and `namespace` must not be empty".into());
        }
        let mut keys = BTreeSet::new();
        for key in self.data.keys().chain(&self.generate).chain(self.copy.keys()) {
            if !keys.insert(key) {
                return Err(format!("`{key}` has two values: name it in one of data, generate and copy"));
            }
        }
        if !(16..=1024).contains(&self.length) {
            return Err("`length` must be 16 at least, and 1024 at most".into());
        }
        self.copies().map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Answer, Facts};
    use crate::resource::testing::{build, mistake};

    const SECRET: &str = "namespace = 'n'\nname = 'a'\nlabels = { l = '1' }\ndata = { user = 'geheim' }\n\
        generate = ['password']\ncopy = { token = 'n/other/token' }";

    fn seen() -> SecretSeen {
        let sum = |text: &str| sha256_hex(text.as_bytes());
        SecretSeen {
            kind: "Opaque".into(),
            labels: [("l".into(), "1".into()), ("theirs".into(), "2".into())].into(),
            data: [
                ("user".into(), sum("geheim")),
                ("password".into(), sum("made up")),
                ("token".into(), sum("token")),
                ("theirs".into(), sum("")),
            ]
            .into(),
            ours: ["user".into(), "password".into(), "token".into()].into(),
            ..SecretSeen::default()
        }
    }

    #[test]
    fn diffs_as_data() {
        let secret = build("kube_secret", SECRET);
        let questions = secret.questions();
        let diff = |seen: Option<SecretSeen>, token: Option<&str>| {
            let token = token.map(|token| sha256_hex(token.as_bytes()));
            let answers = Answers::new(Facts::default())
                .with(questions[0].clone(), Answer::ClusterSecret(Ok(seen)))
                .with(questions[1].clone(), Answer::ClusterKey(Ok(token)));
            match secret.diff(&answers).expect("answered") {
                Verdict::Differs(change) => {
                    assert!(!format!("{change:?}").contains("geheim"), "{change:?}");
                    change.differences
                }
                Verdict::Converged => Vec::new(),
                other => panic!("{other:?}"),
            }
        };
        let hidden = |key: &str| Difference::Secret { attribute: format!("data.{key}") };
        assert_eq!(diff(Some(seen()), Some("token")), []);
        assert_eq!(diff(Some(seen()), Some("new")), [hidden("token")]);
        type Drift = fn(&mut SecretSeen);
        let cases: [(Drift, Difference); 4] = [
            (|s| drop(s.data.insert("user".into(), "x".into())), hidden("user")),
            (
                |s| drop(s.data.remove("password")),
                Difference::value("data.password", None, Some("made up once")),
            ),
            (|s| s.ours.extend(["old".into()]), Difference::value("data.old", Some("there"), None)),
            (|s| drop(s.labels.remove("l")), Difference::value("label l", None, Some("1"))),
        ];
        for (drift, expected) in cases {
            let mut drifted = seen();
            drift(&mut drifted);
            assert_eq!(diff(Some(drifted), Some("token")), [expected]);
        }
        assert_eq!(diff(None, None).len(), 4);
    }

    #[test]
    fn a_secret_of_another_type_is_refused() {
        let secret = build("kube_secret", "namespace = 'n'\nname = 'a'\ntype = 'kubernetes.io/basic-auth'");
        let answers = Answers::new(Facts::default())
            .with(secret.questions().remove(0), Answer::ClusterSecret(Ok(Some(seen()))));
        assert!(matches!(secret.diff(&answers), Ok(Verdict::Refused(_))));
    }

    #[test]
    fn mistakes_are_found_offline() {
        for (from, to, wanted) in [
            ("name = 'a'", "name = ''", "must not be empty"),
            ("'password'", "'user'", "`user` has two values"),
            ("generate", "length = 8\ngenerate", "16 at least"),
            ("n/other/token", "other/token", "is not namespace/name/key"),
        ] {
            let error = mistake("kube_secret", &SECRET.replace(from, to));
            assert!(error.contains(wanted), "{to}: {error}");
        }
    }
}
