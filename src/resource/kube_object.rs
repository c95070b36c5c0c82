//! `kube_object`: an object of a Kubernetes cluster, of any kind.

use std::time::Duration;

use serde::Deserialize;

use super::{Change, ClusterCall, Difference, Resource, Verdict};
use crate::kube::object::{ObjectRef, objects_from_yaml};
use crate::kube::{Expectation, ObjectSeen, ObjectWanted};
use crate::probe::{Answers, Question, Unanswered};

/// An object of the cluster that the node is a server of, applied by the API server under one field manager: what it
/// names is so, what others have added stays, and what is no longer named is taken away. What would change is what the
/// API server itself says of it. Not for Secrets: see `kube_secret`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KubeObject {
    /// The manifest of one object, in YAML. In a role, `template = "name"` fills it.
    pub content: String,
    /// Somebody else makes the object: wait for it, and then give it what is named here. Default: false.
    #[serde(default)]
    pub existing: bool,
    /// CustomResourceDefinitions, by name, that the API must serve before this is done. Default: none.
    #[serde(default)]
    pub crds: Vec<String>,
    /// What else must hold: `rolled-out` (a workload's pods), `synced` (an Application of Argo CD, or all that an
    /// ApplicationSet makes: synced, healthy, the last operation a success). Default: nothing.
    #[serde(default)]
    pub wait: Option<Wait>,
    /// How long to wait for that, in seconds. Default: 1800.
    #[serde(default = "patience")]
    pub timeout_seconds: u64,
}

/// What an object is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wait {
    RolledOut,
    Synced,
}

pub(super) fn patience() -> u64 {
    1800
}

impl KubeObject {
    /// What the cluster is asked; checked when the resource was built.
    fn wanted(&self) -> Result<(ObjectRef, ObjectWanted), String> {
        let objects = objects_from_yaml(&self.content).map_err(|error| error.to_string())?;
        let [object] = &objects[..] else {
            return Err(format!("give the manifest of one object, not of {}", objects.len()));
        };
        let mut expects = Vec::new();
        if !self.crds.is_empty() {
            expects.push(Expectation::Established(self.crds.clone()));
        }
        expects.extend(self.wait.map(|wait| match wait {
            Wait::RolledOut => Expectation::RolledOut,
            Wait::Synced => Expectation::Synced,
        }));
        let json = serde_json::to_string(object).map_err(|error| error.to_string())?;
        Ok((ObjectRef::from(object), ObjectWanted { json, expects, existing: self.existing }))
    }
}

impl Resource for KubeObject {
    fn name(&self) -> String {
        self.wanted().map(|(object, _)| object.to_string()).unwrap_or_default()
    }

    fn questions(&self) -> Vec<Question> {
        self.wanted().map(|(_, wanted)| Question::ClusterObject(wanted)).into_iter().collect()
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        match self.wanted() {
            Ok((_, wanted)) => {
                let limit = Duration::from_secs(self.timeout_seconds);
                Ok(verdict(seen.cluster_object(&wanted)?, &wanted, limit))
            }
            Err(reason) => Ok(Verdict::Refused(reason)),
        }
    }

    fn check(&self) -> Result<(), String> {
        let (object, _) = self.wanted()?;
        if (object.api_version.as_str(), object.kind.as_str()) == ("v1", "Secret") {
            return Err(
                "a Secret is not written here, where its values would be shown: use kube_secret".into()
            );
        }
        Ok(())
    }
}

/// What a look at an object comes to.
pub(super) fn verdict(seen: &Result<ObjectSeen, String>, wanted: &ObjectWanted, limit: Duration) -> Verdict {
    let seen = match seen {
        Ok(seen) => seen,
        Err(reason) => return Verdict::Unknown(format!("the cluster cannot be asked: {reason}")),
    };
    let mut differences = seen.differences.clone();
    differences.extend(
        seen.missing.as_ref().map(|missing| Difference::value("state", Some(missing), Some("ready"))),
    );
    if differences.is_empty() {
        return Verdict::Converged;
    }
    let call = ClusterCall::Object { wanted: wanted.clone(), limit };
    Verdict::Differs(Change { cluster: Some(Box::new(call)), ..Change::new(differences, ":") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Answer, Facts};
    use crate::resource::testing::{build, mistake};

    const PROJECT: &str =
        "content = '''\napiVersion: v1\nkind: Namespace\nmetadata: {name: data}\n'''\nwait = 'rolled-out'";

    #[test]
    fn diffs_as_data() {
        let object = build("kube_object", PROJECT);
        assert_eq!(object.name(), "Namespace data");
        let question = object.questions().remove(0);
        let diff = |answer| {
            let answers =
                Answers::new(Facts::default()).with(question.clone(), Answer::ClusterObject(answer));
            object.diff(&answers).unwrap()
        };
        let text = Difference::Text { path: "Namespace data".into(), before: None, after: Some("x".into()) };
        let seen = |differences: &[Difference], missing: Option<&str>| {
            Ok(ObjectSeen { differences: differences.to_vec(), missing: missing.map(Into::into) })
        };
        assert_eq!(diff(seen(&[], None)), Verdict::Converged);
        let waits = Difference::value("state", Some("0 of 1 pods"), Some("ready"));
        for (answer, expected) in
            [(seen(std::slice::from_ref(&text), None), text.clone()), (seen(&[], Some("0 of 1 pods")), waits)]
        {
            let Verdict::Differs(change) = diff(answer) else { panic!("differs") };
            assert_eq!(change.differences, [expected]);
            assert!(change.cluster.is_some());
        }
        assert!(matches!(diff(Err("no answer".into())), Verdict::Unknown(_)));
    }

    #[test]
    fn mistakes_are_found_offline() {
        for (content, wanted) in [
            ("kind: Namespace", "has no apiVersion"),
            ("", "of one object, not of 0"),
            ("apiVersion: v1\nkind: Secret\nmetadata: {name: a}", "use kube_secret"),
            ("a: [", "YAML cannot be read"),
        ] {
            let error = mistake("kube_object", &format!("content = '''\n{content}\n'''"));
            assert!(error.contains(wanted), "{content}: {error}");
        }
    }
}
