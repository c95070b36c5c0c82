//! `helm_chart`: a release of a Helm chart, installed by K3s's own Helm controller.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::kube_object::{patience, verdict};
use super::{Resource, Verdict};
use crate::kube::{Expectation, ObjectWanted};
use crate::probe::{Answers, Question, Unanswered};

/// A release of a Helm chart in the cluster that the node is a server of. K3s's Helm controller installs it from a
/// HelmChart object of the release's name in `kube-system`. It is done when Helm has deployed this very version with
/// these values, its definitions are served, and its workloads are rolled out. One that has failed says why, and is
/// tried again by the next run.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HelmChart {
    /// The release's name.
    pub name: String,
    /// The chart's name in its repository, or an `oci://` address.
    pub chart: String,
    /// The repository's address; none for an `oci://` chart.
    #[serde(default)]
    pub repo: Option<String>,
    /// The chart's version.
    pub version: String,
    /// Where its objects go; made if it is missing.
    pub namespace: String,
    /// Its values, in YAML: what differs from the chart's own. In a role, `template = "name"` fills it. They are
    /// shown in plans, so they may hold no secret: let the chart read a Secret (`kube_secret`). Default: none.
    #[serde(default)]
    pub content: String,
    /// CustomResourceDefinitions, by name, that the API must serve before this is done. Default: none.
    #[serde(default)]
    pub crds: Vec<String>,
    /// How often Helm tries before it gives up. Default: 2.
    #[serde(default = "attempts")]
    pub attempts: u32,
    /// How long all of it may take, in seconds. Default: 1800.
    #[serde(default = "patience")]
    pub timeout_seconds: u64,
}

fn attempts() -> u32 {
    2
}

/// Where K3s's own charts are, and these.
const NAMESPACE: &str = "kube-system";

impl HelmChart {
    /// The values in one form, so that a comment or another order of writing is no change; empty for none.
    fn values(&self) -> Result<String, String> {
        let values: Option<Value> = serde_saphyr::from_str(&self.content).map_err(|error| {
            let line = error.location().map_or_else(String::new, |at| format!(" at line {}", at.line()));
            format!("the values are not YAML{line}")
        })?;
        match values {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::Object(map)) if map.is_empty() => Ok(String::new()),
            Some(map @ Value::Object(_)) => serde_saphyr::to_string(&map).map_err(|error| error.to_string()),
            Some(_) => Err("the values must be a mapping".into()),
        }
    }

    fn wanted(&self) -> Result<ObjectWanted, String> {
        let mut spec = json!({
            "chart": self.chart, "version": self.version,
            "targetNamespace": self.namespace, "createNamespace": true,
            // Never uninstalled because an upgrade has failed: its volumes could go with it.
            "failurePolicy": "abort",
            "backOffLimit": self.attempts.saturating_sub(1),
        });
        if let Some(repo) = &self.repo {
            spec["repo"] = json!(repo);
        }
        let values = self.values()?;
        if !values.is_empty() {
            spec["valuesContent"] = json!(values);
        }
        let object = json!({
            "apiVersion": "helm.cattle.io/v1", "kind": "HelmChart",
            "metadata": { "name": self.name, "namespace": NAMESPACE }, "spec": spec,
        });
        let mut expects = vec![Expectation::Released];
        if !self.crds.is_empty() {
            expects.push(Expectation::Established(self.crds.clone()));
        }
        Ok(ObjectWanted { json: object.to_string(), expects, existing: false })
    }
}

impl Resource for HelmChart {
    fn name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn questions(&self) -> Vec<Question> {
        self.wanted().map(Question::ClusterObject).into_iter().collect()
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        match self.wanted() {
            Ok(wanted) => {
                let limit = Duration::from_secs(self.timeout_seconds);
                Ok(verdict(seen.cluster_object(&wanted)?, &wanted, limit))
            }
            Err(reason) => Ok(Verdict::Refused(reason)),
        }
    }

    fn check(&self) -> Result<(), String> {
        for (field, value) in [
            ("name", &self.name),
            ("chart", &self.chart),
            ("version", &self.version),
            ("namespace", &self.namespace),
        ] {
            if value.is_empty() {
                return Err(format!("`{field}` must not be empty"));
            }
        }
        match (self.chart.starts_with("oci://"), &self.repo) {
            (true, Some(_)) => return Err("an oci:// chart has no `repo`".into()),
            (false, None) if !self.chart.starts_with("https://") => {
                return Err("`repo` is missing: the address of the chart's repository".into());
            }
            _ => {}
        }
        if self.attempts == 0 {
            return Err("`attempts` must be at least 1".into());
        }
        self.wanted().map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::testing::{build, mistake};

    const CHART: &str =
        "name = 'a'\nchart = 'c'\nrepo = 'https://charts.home.arpa'\nversion = '1.2.3'\nnamespace = 'n'";

    fn object(fields: &str) -> Value {
        let chart = build("helm_chart", &format!("{CHART}\n{fields}"));
        match chart.questions().remove(0) {
            Question::ClusterObject(wanted) => serde_json::from_str(&wanted.json).expect("JSON"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_chart_is_an_object_of_k3s() {
        let wanted = object("content = \"# a comment\\nb: {c: 1}\\na: 'on'\\n\"");
        assert_eq!(wanted["metadata"], json!({ "name": "a", "namespace": "kube-system" }));
        let spec = &wanted["spec"];
        assert_eq!((&spec["failurePolicy"], &spec["backOffLimit"]), (&json!("abort"), &json!(1)));
        let values: Value =
            serde_saphyr::from_str(spec["valuesContent"].as_str().expect("text")).expect("YAML");
        assert_eq!(values, json!({ "a": "on", "b": { "c": 1 } }));
        assert!(!spec["valuesContent"].as_str().expect("text").contains('#'));
        for none in ["content = ''", "content = '# nothing'", "content = '{}'", ""] {
            assert!(object(none)["spec"].get("valuesContent").is_none(), "{none}");
        }
    }

    #[test]
    fn mistakes_are_found_offline() {
        for (from, to, wanted) in [
            ("version = '1.2.3'", "version = ''", "`version` must not be empty"),
            ("repo = 'https://charts.home.arpa'\n", "", "`repo` is missing"),
            ("chart = 'c'", "chart = 'oci://registry.home.arpa/c'", "has no `repo`"),
            ("namespace = 'n'", "namespace = 'n'\ncontent = 'a: ['", "not YAML"),
            ("namespace = 'n'", "namespace = 'n'\ncontent = '- a'", "must be a mapping"),
            ("namespace = 'n'", "namespace = 'n'\nattempts = 0", "at least 1"),
        ] {
            let error = mistake("helm_chart", &CHART.replace(from, to));
            assert!(error.contains(wanted), "{to}: {error}");
        }
    }
}
