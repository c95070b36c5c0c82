//! What a release makes of its chart's row in the table: names, conditions, objects.

use serde_json::{Map, Value, json};

use super::Chart;
use super::charts::{self, Definitions, Other, Row, Workload};
use super::values::lay;
use crate::lab::k3s::object;

/// Which release an object is of.
pub const RELEASE: &str = "meta.helm.sh/release-name";
pub const NAMESPACE: &str = "meta.helm.sh/release-namespace";
/// `keep`: the object stays when the release goes.
pub const POLICY: &str = "helm.sh/resource-policy";

/// An object of a release.
pub struct Part {
    /// The resource it is of: `deployments.apps`.
    pub id: &'static str,
    /// Empty for an object without a namespace.
    pub namespace: String,
    pub object: Value,
    /// Whether it is of the chart's `crds/` folder: made where it is missing, and left alone from then on.
    pub folder: bool,
}

/// The kinds a release may have, and their resources.
pub const KINDS: &[(&str, &str, &str)] = &[
    ("CustomResourceDefinition", "apiextensions.k8s.io/v1", "customresourcedefinitions.apiextensions.k8s.io"),
    ("ConfigMap", "v1", "configmaps"),
    ("Secret", "v1", "secrets"),
    ("StorageClass", "storage.k8s.io/v1", "storageclasses.storage.k8s.io"),
    ("IngressClass", "networking.k8s.io/v1", "ingressclasses.networking.k8s.io"),
    ("DaemonSet", "apps/v1", "daemonsets.apps"),
    ("Deployment", "apps/v1", "deployments.apps"),
    ("StatefulSet", "apps/v1", "statefulsets.apps"),
];

const CLUSTER_WIDE: &[&str] = &["CustomResourceDefinition", "StorageClass", "IngressClass"];

/// The objects of a chart with these values, in the order Helm makes them.
pub fn parts(chart: &Chart<'_>, given: &Value) -> Vec<Part> {
    let row = charts::row(chart.chart());
    let mut values = row.values.clone();
    lay(&mut values, given.clone());
    let release = Release { chart, row: &row, values: &values, given };
    let mut parts: Vec<Part> = release.definitions();
    parts.extend(
        row.other.iter().filter(|other| holds(&other.when, &values)).map(|other| release.other(other)),
    );
    let workloads = row.workload.iter().filter(|workload| holds(&workload.when, &values));
    parts.extend(workloads.map(|workload| release.workload(workload)));
    parts
}

/// Whether all conditions hold.
fn holds(conditions: &[String], values: &Value) -> bool {
    let one = |condition: &str| match (condition.strip_prefix('!'), condition.split_once('=')) {
        (Some(path), _) => !is_set(object::at(values, path)),
        (None, Some((path, text))) => object::at(values, path) == text,
        (None, None) => is_set(object::at(values, condition)),
    };
    conditions.iter().all(|condition| condition.split('|').any(one))
}

/// What a template's `if` takes for true.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

struct Release<'a> {
    chart: &'a Chart<'a>,
    row: &'a Row,
    /// The given values over the defaults.
    values: &'a Value,
    given: &'a Value,
}

impl Release<'_> {
    fn base(&self) -> &str {
        let default = self.row.base.as_deref().unwrap_or(&self.row.name);
        self.values["nameOverride"].as_str().filter(|name| !name.is_empty()).unwrap_or(default)
    }

    /// `<chart>.fullname` of the charts' helpers.
    fn full_name(&self) -> String {
        let (release, base) = (self.chart.name(), self.base());
        let given = self.values["fullnameOverride"].as_str().filter(|name| !name.is_empty());
        let name = match given {
            Some(given) => given.to_owned(),
            None if release.contains(base) && !self.row.joined => release.to_owned(),
            None => format!("{release}-{base}"),
        };
        name.chars().take(63).collect::<String>().trim_end_matches('-').to_owned()
    }

    /// Puts names and values in the place of their names in braces.
    fn filled(&self, text: &str) -> String {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, (path, after))) =
            rest.split_once('{').and_then(|(before, inner)| Some((before, inner.split_once('}')?)))
        {
            filled.push_str(before);
            match path {
                "name" => filled.push_str(&self.full_name()),
                "release" => filled.push_str(self.chart.name()),
                path => filled.push_str(object::at(self.values, path).as_str().unwrap_or_default()),
            }
            rest = after;
        }
        filled + rest
    }

    fn all_filled(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => json!(self.filled(text)),
            Value::Array(list) => list.iter().map(|value| self.all_filled(value)).collect(),
            Value::Object(map) => map
                .iter()
                .map(|(name, value)| (name.clone(), self.all_filled(value)))
                .collect::<Map<_, _>>()
                .into(),
            value => value.clone(),
        }
    }

    fn labels(&self, label: Option<&str>, component: Option<&str>) -> Map<String, Value> {
        let version = self.chart.version().replace('+', "_");
        let mut labels = self.selector(label, component);
        labels.insert("helm.sh/chart".into(), json!(format!("{}-{version}", self.row.name)));
        labels.insert("app.kubernetes.io/managed-by".into(), json!("Helm"));
        if let Some(base) = &self.row.base {
            labels.insert("app.kubernetes.io/part-of".into(), json!(base));
        }
        labels
    }

    fn selector(&self, label: Option<&str>, component: Option<&str>) -> Map<String, Value> {
        let mut labels = Map::new();
        labels.insert("app.kubernetes.io/name".into(), json!(label.unwrap_or(self.base())));
        labels.insert("app.kubernetes.io/instance".into(), json!(self.chart.name()));
        if let Some(component) = component {
            labels.insert("app.kubernetes.io/component".into(), json!(component));
        }
        labels
    }

    /// An object with Helm's marks on it.
    fn part(&self, kind: &str, name: &str, labels: Map<String, Value>, rest: Value) -> Part {
        let (_, api_version, id) =
            KINDS.iter().find(|(known, _, _)| *known == kind).copied().unwrap_or(("", "", ""));
        let namespace = if CLUSTER_WIDE.contains(&kind) { "" } else { self.chart.target() };
        let annotations = json!({RELEASE: self.chart.name(), NAMESPACE: self.chart.target()});
        let mut wanted = json!({
            "apiVersion": api_version, "kind": kind,
            "metadata": {"name": name, "labels": labels, "annotations": annotations},
        });
        lay(&mut wanted, rest);
        Part { id, namespace: namespace.to_owned(), object: wanted, folder: false }
    }

    fn definitions(&self) -> Vec<Part> {
        let Definitions { folder, when, keep, list } = &self.row.definitions;
        if !holds(when, self.values) {
            return Vec::new();
        }
        let keep = keep.as_deref().is_some_and(|path| is_set(object::at(self.values, path)));
        let part = |line: &String| {
            let (name, spec) = charts::definition(line);
            let mut part =
                self.part("CustomResourceDefinition", &name, self.labels(None, None), json!({"spec": spec}));
            if keep {
                part.object["metadata"]["annotations"][POLICY] = json!("keep");
            }
            if *folder {
                object::as_map(&mut part.object["metadata"]).retain(|field, _| field == "name");
            }
            Part { folder: *folder, ..part }
        };
        list.iter().map(part).collect()
    }

    fn other(&self, other: &Other) -> Part {
        let mut rest = self.all_filled(&other.body);
        if let Some(path) = &other.data {
            let members = object::at(self.values, path).as_object().into_iter().flatten();
            // `create` and `annotations` are the chart's own, beside what is configured.
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let data: Map<String, Value> = members
                .filter(|(name, _)| *name != "create" && *name != "annotations")
                .map(|(name, value)| (name.clone(), json!(text(value))))
                .collect();
            rest = json!({"data": data});
        }
        self.part(&other.kind, &self.filled(&other.name), self.labels(None, None), rest)
    }

    fn workload(&self, workload: &Workload) -> Part {
        let name = self.filled(&workload.name);
        let (label, component) = (workload.label.as_deref(), workload.component.as_deref());
        // What has neither is told apart by its name: `app.kubernetes.io/name` alone would take its siblings' pods.
        let is_alone = self.row.workload.len() == 1;
        let component = component.or((!is_alone && label.is_none()).then_some(name.as_str()));
        let mut labels = self.labels(label, component);
        let selector = self.selector(label, component);
        let mut spec = json!({
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {
                    "labels": labels.clone(),
                    // Charts have checksums of their configuration here, so that a change of it rolls the pods.
                    "annotations": {"checksum/config": object::hash(self.given)},
                },
                "spec": self.pod(workload, &name),
            },
        });
        match workload.kind.as_str() {
            "DaemonSet" => {}
            kind => {
                spec["replicas"] = json!(self.replicas(workload));
                if kind == "StatefulSet" {
                    spec["serviceName"] = json!(name);
                }
            }
        }
        labels.insert("app.kubernetes.io/version".into(), json!(self.chart.version().replace('+', "_")));
        self.part(&workload.kind, &name, labels, json!({"spec": spec}))
    }

    fn replicas(&self, workload: &Workload) -> i64 {
        let component = object::at(self.values, &workload.at);
        let found = match &workload.replicas {
            Some(path) => object::at(self.values, path),
            None if component["replicaCount"].is_number() => &component["replicaCount"],
            None => &component["replicas"],
        };
        found.as_i64().unwrap_or(1)
    }

    fn pod(&self, workload: &Workload, name: &str) -> Value {
        let component = object::at(self.values, &workload.at);
        let mut pod = json!({"containers": [{"name": name, "image": self.image(component)}]});
        for field in ["tolerations", "nodeSelector", "affinity"] {
            let value =
                [&component[field], &self.values["global"][field]].into_iter().find(|value| is_set(value));
            if let Some(value) = value {
                pod[field] = value.clone();
            }
        }
        for (key, value) in &workload.selector {
            object::map_mut(&mut pod, "nodeSelector").insert(key.clone(), json!(value));
        }
        pod
    }

    fn image(&self, component: &Value) -> String {
        let image = |field: &str, default: &str| {
            let given = [&component["image"][field], &self.values["image"][field]];
            given
                .into_iter()
                .find_map(Value::as_str)
                .filter(|text| !text.is_empty())
                .unwrap_or(default)
                .to_owned()
        };
        let repository = image("repository", &format!("simulated/{}", self.row.name));
        let version = if self.chart.version().is_empty() { "latest" } else { self.chart.version() };
        format!("{repository}:{}", image("tag", version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(chart: &str, name: &str) -> Value {
        json!({
            "metadata": {"name": name, "namespace": "kube-system"},
            "spec": {"chart": chart, "version": "1.0.0", "targetNamespace": "there"},
        })
    }

    fn made(chart: &str, name: &str, values: Value) -> Vec<Part> {
        let object = release(chart, name);
        parts(&Chart { object: &object, config: None, hash: String::new() }, &values)
    }

    /// `kind/name` of what is no definition.
    fn names(parts: &[Part]) -> Vec<String> {
        let kind = |part: &Part| part.object["kind"].as_str().unwrap_or_default().to_owned();
        let others = parts.iter().filter(|part| kind(part) != "CustomResourceDefinition");
        others.map(|part| format!("{}/{}", kind(part), object::name(&part.object))).collect()
    }

    #[test]
    fn names_are_those_of_the_charts_templates() {
        let argo = |name: &str| {
            let workload = |kind: &str, end: &str| format!("{kind}/{name}-{end}");
            let mut names: Vec<String> = ["argocd-cm", "argocd-cmd-params-cm", "argocd-rbac-cm"]
                .map(|name| format!("ConfigMap/{name}"))
                .to_vec();
            names.push("Secret/argocd-secret".to_owned());
            names.push(workload("StatefulSet", "application-controller"));
            for end in [
                "applicationset-controller",
                "dex-server",
                "notifications-controller",
                "redis",
                "repo-server",
                "server",
            ] {
                names.push(workload("Deployment", end));
            }
            names
        };
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let cases = [
            ("argo-cd", "argo-cd", json!({}), argo("argo-cd-argocd")),
            ("argo-cd", "argocd", json!({}), argo("argocd")),
            ("argo-cd", "argo-cd", json!({"fullnameOverride": "cd"}), argo("cd")),
            ("reloader", "reloader", json!({}), own(&["Deployment/reloader-reloader"])),
            ("dex", "login", json!({}), own(&["Deployment/login-dex"])),
            ("dex", "my-dex", json!({}), own(&["Deployment/my-dex"])),
            (
                "traefik",
                "traefik",
                json!({"deployment": {"kind": "DaemonSet"}, "ingressClass": {"name": "web"}}),
                own(&["IngressClass/web", "DaemonSet/traefik"]),
            ),
            (
                "nfs-subdir-external-provisioner",
                "nfs",
                json!({"storageClass": {"name": "nfs"}}),
                own(&["StorageClass/nfs", "Deployment/nfs-nfs-subdir-external-provisioner"]),
            ),
            (
                "external-secrets",
                "external-secrets",
                json!({"webhook": {"certManager": {"enabled": true}}}),
                own(&["Deployment/external-secrets", "Deployment/external-secrets-webhook"]),
            ),
            ("nobody-knows", "it", json!({}), own(&["Deployment/it"])),
        ];
        for (chart, name, values, wanted) in cases {
            assert_eq!(names(&made(chart, name, values)), wanted, "{chart} as {name}");
        }
    }

    #[test]
    fn values_choose_definitions_replicas_and_nodes() {
        let definitions = |values: Value| {
            let parts = made("cert-manager", "cert-manager", values);
            parts.iter().filter(|part| part.object["kind"] == "CustomResourceDefinition").count()
        };
        assert_eq!(definitions(json!({})), 0);
        assert_eq!(definitions(json!({"installCRDs": true})), 6);
        assert_eq!(definitions(json!({"crds": {"enabled": true}})), 6);

        let values = json!({
            "global": {"tolerations": [{"operator": "Exists"}]},
            "controller": {"replicas": 2, "nodeSelector": {"disk": "ssd"}},
        });
        let parts = made("argo-cd", "argocd", values);
        let set = parts.iter().find(|part| part.object["kind"] == "StatefulSet").expect("a controller");
        let pod = &set.object["spec"]["template"]["spec"];
        assert_eq!((set.namespace.as_str(), &set.object["spec"]["replicas"]), ("there", &json!(2)));
        assert_eq!(pod["nodeSelector"], json!({"disk": "ssd"}));
        assert_eq!(pod["tolerations"], json!([{"operator": "Exists"}]));
        let params =
            json!({"configs": {"params": {"application.namespaces": "a,b", "server.insecure": true}}});
        let parts = made("argo-cd", "argocd", params);
        let map =
            parts.iter().find(|part| object::name(&part.object) == "argocd-cmd-params-cm").expect("a map");
        assert_eq!(map.object["data"], json!({"application.namespaces": "a,b", "server.insecure": "true"}));
    }
}
