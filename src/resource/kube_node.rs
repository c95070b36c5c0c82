//! `kube_node`: a node of a Kubernetes cluster, its labels, taints and annotations.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node as ApiNode;
use serde::Deserialize;

use super::{Change, ClusterCall, Difference, Resource, Verdict};
use crate::kube::NodeWanted;
use crate::kube::maintenance::CORDONED_ANNOTATION;
use crate::kube::node::{Node, Ready, Taint};
use crate::kube::node_settings::node_drift;
use crate::probe::{Answers, Question, Unanswered};

/// A node that has joined its cluster and is Ready, with these labels, taints and annotations. What others have set
/// stays; what was set here and is no longer named is taken away. Asked and changed through the cluster's API, over
/// the SSH connection to `server`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KubeNode {
    /// The node's name in the cluster.
    pub name: String,
    /// The node of the inventory that is a server of the cluster.
    pub server: String,
    /// Labels by key. Default: none.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Annotations by key. Default: none.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Taints as `key=value:Effect` or `key:Effect`. Default: none.
    #[serde(default)]
    pub taints: Vec<String>,
    /// The oldest containerd that will do: `2.2`. What the node runs is compared. Default: any.
    #[serde(default)]
    pub containerd_minimum: Option<String>,
    /// How long to wait until it is Ready, in seconds. Default: 300.
    #[serde(default = "patience")]
    pub timeout_seconds: u64,
}

fn patience() -> u64 {
    300
}

impl KubeNode {
    fn wanted(&self) -> Result<NodeWanted, String> {
        let taints: Result<Vec<Taint>, _> = self.taints.iter().map(|taint| taint.parse()).collect();
        Ok(NodeWanted {
            labels: self.labels.clone(),
            annotations: self.annotations.clone(),
            taints: taints.map_err(|e| e.to_string())?,
        })
    }

    /// `containerd://2.1.5-k3s1`, as the kubelet reports it. Another runtime is somebody's choice.
    fn containerd_too_old(&self, runtime: &str) -> Option<String> {
        let (minimum, version) = (self.containerd_minimum.as_ref()?, runtime.strip_prefix("containerd://")?);
        (numbers(version) < numbers(minimum)).then(|| {
            format!(
                "{} runs containerd {version}, and the inventory wants {minimum} at least: take a newer release of K3s, \
                 or lower k3s_containerd_minimum",
                self.name
            )
        })
    }

    fn change(&self, differences: Vec<Difference>, wanted: NodeWanted) -> Verdict {
        let call = ClusterCall::Node {
            server: self.server.clone(),
            node: self.name.clone(),
            wanted,
            limit: Duration::from_secs(self.timeout_seconds),
        };
        Verdict::Differs(Change { cluster: Some(Box::new(call)), ..Change::new(differences, ":") })
    }
}

/// The leading numbers of a version: `2.1.5-k3s1` is 2, 1, 5.
fn numbers(version: &str) -> Vec<u64> {
    let plain = version.split(['-', '+']).next().unwrap_or_default();
    plain.trim_start_matches('v').split('.').map_while(|number| number.parse().ok()).collect()
}

impl Resource for KubeNode {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn questions(&self) -> Vec<Question> {
        vec![Question::ClusterNode { server: self.server.clone(), node: self.name.clone() }]
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        let wanted = match self.wanted() {
            Ok(wanted) => wanted,
            Err(reason) => return Ok(Verdict::Refused(reason)),
        };
        let object = match seen.cluster_node(&self.server, &self.name)? {
            Err(reason) => return Ok(Verdict::Unknown(format!("the cluster cannot be asked: {reason}"))),
            Ok(object) => object.clone().unwrap_or_default(),
        };
        let joined = !object.is_null();
        let node: ApiNode = match object {
            serde_json::Value::Null => ApiNode::default(),
            object => match serde_json::from_value(object) {
                Ok(node) => node,
                Err(error) => {
                    return Ok(Verdict::Unknown(format!("the cluster's answer makes no sense: {error}")));
                }
            },
        };
        let mut differences = node_drift(&node, &wanted);
        let summary = joined.then(|| Node::from(&node));
        if let Some(missing) = Ready::default().missing(summary.as_ref()) {
            differences.insert(0, Difference::value("state", Some(&missing), Some("Ready")));
        }
        if let Some(node) = &summary {
            if let Some(refusal) = self.containerd_too_old(&node.container_runtime) {
                return Ok(Verdict::Refused(refusal));
            }
            if node.annotations.contains_key(CORDONED_ANNOTATION) {
                // By a run that was cut off between the restart and this.
                differences.push(Difference::value("scheduling", Some("cordoned by datahub"), Some("open")));
            }
        }
        Ok(match differences.is_empty() {
            true => Verdict::Converged,
            false => self.change(differences, wanted),
        })
    }

    fn check(&self) -> Result<(), String> {
        if self.name.is_empty() || self.server.is_empty() {
            return Err("`name` and `server` must not be empty".into());
        }
        if self.containerd_minimum.as_ref().is_some_and(|minimum| numbers(minimum).is_empty()) {
            return Err("`containerd_minimum` must be a version, as 2.2".into());
        }
        self.wanted().map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::probe::{Answer, Facts};
    use crate::resource::testing::{build, mistake};

    #[test]
    fn diffs_as_data() {
        let node = build(
            "kube_node",
            "name = 'a'\nserver = 's'\nlabels = { role = 'nas' }\ntaints = ['dedicated=nas:NoSchedule']\n\
             containerd_minimum = '2.2'",
        );
        let question = node.questions().remove(0);
        let diff = |answer| {
            node.diff(&Answers::new(Facts::default()).with(question.clone(), Answer::ClusterNode(answer)))
                .unwrap()
        };
        let object = |labels: serde_json::Value, ready: &str| {
            let condition = json!({ "type": "Ready", "status": ready, "reason": "R", "message": "m" });
            Ok(Some(json!({
                "metadata": { "name": "a", "labels": labels },
                "spec": { "taints": [{ "key": "dedicated", "value": "nas", "effect": "NoSchedule" }] },
                "status": { "conditions": [condition] },
            })))
        };
        let value = |name: &str, before: Option<&str>, after| Difference::value(name, before, Some(after));
        assert_eq!(diff(object(json!({ "role": "nas", "other": "x" }), "True")), Verdict::Converged);
        for (answer, wanted) in [
            (object(json!({ "role": "x" }), "True"), vec![value("label role", Some("x"), "nas")]),
            (object(json!({ "role": "nas" }), "False"), vec![value("state", Some("R: m"), "Ready")]),
        ] {
            let Verdict::Differs(change) = diff(answer) else { panic!("differs") };
            assert_eq!(change.differences, wanted);
            assert!(change.cluster.is_some());
        }
        let running = |version: &str, cordoned: bool| {
            let mut node = object(json!({ "role": "nas" }), "True").unwrap().unwrap();
            node["status"]["nodeInfo"] =
                json!({ "containerRuntimeVersion": format!("containerd://{version}") });
            if cordoned {
                node["metadata"]["annotations"] = json!({ CORDONED_ANNOTATION: "true" });
            }
            Ok(Some(node))
        };
        for version in ["2.2.0", "2.10.1-k3s1", "3.0"] {
            assert_eq!(diff(running(version, false)), Verdict::Converged, "{version}");
        }
        assert!(matches!(diff(running("2.1.5-k3s1", false)), Verdict::Refused(_)));
        let Verdict::Differs(open) = diff(running("2.2.0", true)) else { panic!("differs") };
        assert_eq!(open.differences, [value("scheduling", Some("cordoned by datahub"), "open")]);
        let Verdict::Differs(change) = diff(Ok(None)) else { panic!("differs") };
        assert_eq!(change.differences.len(), 3, "{:?}", change.differences);
        assert!(matches!(diff(Err("no server".into())), Verdict::Unknown(_)));
    }

    #[test]
    fn mistakes_are_found_offline() {
        for (fields, wanted) in [
            ("name = ''\nserver = 's'", "must not be empty"),
            ("name = 'a'\nserver = 's'\ntaints = ['x']", "is not a taint"),
            ("name = 'a'\nserver = 's'\ncontainerd_minimum = 'new'", "must be a version"),
        ] {
            let error = mistake("kube_node", fields);
            assert!(error.contains(wanted), "{fields}: {error}");
        }
    }
}
