//! Which resources the API serves: the built-in ones of the table, and those that definitions in the store add.

use serde_json::{Value, json};

use super::object;
use super::store::Store;

/// One served resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    pub plural: String,
    pub kind: String,
    pub namespaced: bool,
    /// `kubectl`'s short names.
    pub short: Vec<String>,
    /// Whether `status` is a subresource: plain writes leave it alone.
    pub status: bool,
    /// Whether a definition in the store made it.
    pub custom: bool,
}

impl Resource {
    /// The store's name for it: `pods`, `deployments.apps`.
    pub fn id(&self) -> String {
        id(&self.group, &self.plural)
    }

    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// As a discovery document lists it.
    pub fn describe(&self) -> Value {
        let verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
        let mut value = json!({
            "name": self.plural, "singularName": self.kind.to_lowercase(), "namespaced": self.namespaced,
            "kind": self.kind, "verbs": verbs,
        });
        if !self.short.is_empty() {
            value["shortNames"] = json!(self.short);
        }
        value
    }
}

/// `<plural>` or `<plural>.<group>`.
pub fn id(group: &str, plural: &str) -> String {
    match group {
        "" => plural.to_owned(),
        group => format!("{plural}.{group}"),
    }
}

/// `group/version`, `plural/Kind`, namespaced, short names, has a status.
type Row = (&'static str, &'static str, &'static str, bool, &'static str, bool);

const BUILT_IN: &[Row] = &[
    ("v1", "bindings", "Binding", true, "", false),
    ("v1", "configmaps", "ConfigMap", true, "cm", false),
    ("v1", "endpoints", "Endpoints", true, "ep", false),
    ("v1", "events", "Event", true, "ev", false),
    ("v1", "limitranges", "LimitRange", true, "limits", false),
    ("v1", "namespaces", "Namespace", false, "ns", true),
    ("v1", "nodes", "Node", false, "no", true),
    ("v1", "persistentvolumeclaims", "PersistentVolumeClaim", true, "pvc", true),
    ("v1", "persistentvolumes", "PersistentVolume", false, "pv", true),
    ("v1", "pods", "Pod", true, "po", true),
    ("v1", "podtemplates", "PodTemplate", true, "", false),
    ("v1", "replicationcontrollers", "ReplicationController", true, "rc", true),
    ("v1", "resourcequotas", "ResourceQuota", true, "quota", true),
    ("v1", "secrets", "Secret", true, "", false),
    ("v1", "serviceaccounts", "ServiceAccount", true, "sa", false),
    ("v1", "services", "Service", true, "svc", true),
    (
        "admissionregistration.k8s.io/v1",
        "mutatingwebhookconfigurations",
        "MutatingWebhookConfiguration",
        false,
        "",
        false,
    ),
    (
        "admissionregistration.k8s.io/v1",
        "validatingadmissionpolicies",
        "ValidatingAdmissionPolicy",
        false,
        "",
        true,
    ),
    (
        "admissionregistration.k8s.io/v1",
        "validatingadmissionpolicybindings",
        "ValidatingAdmissionPolicyBinding",
        false,
        "",
        false,
    ),
    (
        "admissionregistration.k8s.io/v1",
        "validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
        false,
        "",
        false,
    ),
    (
        "apiextensions.k8s.io/v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        false,
        "crd,crds",
        true,
    ),
    ("apiregistration.k8s.io/v1", "apiservices", "APIService", false, "", true),
    ("apps/v1", "controllerrevisions", "ControllerRevision", true, "", false),
    ("apps/v1", "daemonsets", "DaemonSet", true, "ds", true),
    ("apps/v1", "deployments", "Deployment", true, "deploy", true),
    ("apps/v1", "replicasets", "ReplicaSet", true, "rs", true),
    ("apps/v1", "statefulsets", "StatefulSet", true, "sts", true),
    ("autoscaling/v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", true, "hpa", true),
    ("batch/v1", "cronjobs", "CronJob", true, "cj", true),
    ("batch/v1", "jobs", "Job", true, "", true),
    ("certificates.k8s.io/v1", "certificatesigningrequests", "CertificateSigningRequest", false, "csr", true),
    ("coordination.k8s.io/v1", "leases", "Lease", true, "", false),
    ("discovery.k8s.io/v1", "endpointslices", "EndpointSlice", true, "", false),
    ("events.k8s.io/v1", "events", "Event", true, "ev", false),
    ("networking.k8s.io/v1", "ingressclasses", "IngressClass", false, "", false),
    ("networking.k8s.io/v1", "ingresses", "Ingress", true, "ing", true),
    ("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy", true, "netpol", false),
    ("node.k8s.io/v1", "runtimeclasses", "RuntimeClass", false, "", false),
    ("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget", true, "pdb", true),
    ("rbac.authorization.k8s.io/v1", "clusterrolebindings", "ClusterRoleBinding", false, "", false),
    ("rbac.authorization.k8s.io/v1", "clusterroles", "ClusterRole", false, "", false),
    ("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding", true, "", false),
    ("rbac.authorization.k8s.io/v1", "roles", "Role", true, "", false),
    ("scheduling.k8s.io/v1", "priorityclasses", "PriorityClass", false, "pc", false),
    ("storage.k8s.io/v1", "csidrivers", "CSIDriver", false, "", false),
    ("storage.k8s.io/v1", "csinodes", "CSINode", false, "", false),
    ("storage.k8s.io/v1", "storageclasses", "StorageClass", false, "sc", false),
    ("storage.k8s.io/v1", "volumeattachments", "VolumeAttachment", false, "", true),
];

/// The name of the resource that defines others.
pub const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";
/// What keeps a deleted definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// A row's group and version.
fn place(row: &Row) -> (&'static str, &'static str) {
    row.0.split_once('/').unwrap_or(("", row.0))
}

fn built_in(row: &Row) -> Resource {
    let (_, plural, kind, namespaced, short, status) = *row;
    let (group, version) = place(row);
    Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: plural.to_owned(),
        kind: kind.to_owned(),
        namespaced,
        short: short.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        status,
        custom: false,
    }
}

/// Every served resource, built-in ones first.
pub fn all(store: &Store) -> Vec<Resource> {
    let mut found: Vec<Resource> = BUILT_IN.iter().map(built_in).collect();
    for definition in store.list(DEFINITIONS, "").0 {
        found.extend(defined(&definition));
    }
    found
}

/// A served resource by its place in the API.
pub fn find(store: &Store, group: &str, version: &str, plural: &str) -> Option<Resource> {
    let row = BUILT_IN.iter().find(|row| place(row) == (group, version) && row.1 == plural);
    row.map(built_in).or_else(|| {
        let definition = store.get(&super::store::Key::new(DEFINITIONS, "", &id(group, plural)))?;
        defined(&definition).into_iter().find(|resource| resource.version == version)
    })
}

/// A served resource by its store's name, at the version it is stored in.
pub fn stored(store: &Store, id: &str) -> Option<Resource> {
    let (plural, group) = id.split_once('.').unwrap_or((id, ""));
    if let Some(row) = BUILT_IN.iter().find(|row| place(row).0 == group && row.1 == plural) {
        return Some(built_in(row));
    }
    let definition = store.get(&super::store::Key::new(DEFINITIONS, "", id))?;
    let versions = definition["spec"]["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let stored = versions.iter().find(|version| version["storage"] == true)?["name"].clone();
    defined(&definition).into_iter().find(|resource| stored == resource.version.as_str())
}

/// A served resource by an object's `apiVersion` and `kind`.
pub fn of_object(store: &Store, object: &Value) -> Option<Resource> {
    let (api_version, kind) = (object["apiVersion"].as_str()?, object["kind"].as_str()?);
    all(store).into_iter().find(|resource| resource.kind == kind && resource.api_version() == api_version)
}

/// Whether a definition's resources are served.
pub fn is_established(definition: &Value) -> bool {
    object::condition(definition, "Established") == Some("True")
}

/// Accepts a definition's names; from `Established` on its resources are served.
pub fn accept(definition: &mut Value, established: bool) {
    let names = definition["spec"]["names"].clone();
    object::map_mut(definition, "status").insert("acceptedNames".into(), names);
    object::set_condition(definition, "NamesAccepted", "True", "NoConflicts", "no conflicts found");
    let (status, reason) =
        if established { ("True", "InitialNamesAccepted") } else { ("False", "Installing") };
    let message = "the initial names have been accepted";
    object::set_condition(definition, "Established", status, reason, message);
}

/// The resources a CustomResourceDefinition adds once it is established: one a served version.
fn defined(definition: &Value) -> Vec<Resource> {
    if !is_established(definition) {
        return Vec::new();
    }
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    versions
        .iter()
        .filter(|version| version["served"] == true)
        .map(|version| Resource {
            group: text(&spec["group"]),
            version: text(&version["name"]),
            plural: text(&spec["names"]["plural"]),
            kind: text(&spec["names"]["kind"]),
            namespaced: spec["scope"] == "Namespaced",
            short: spec["names"]["shortNames"].as_array().into_iter().flatten().map(text).collect(),
            status: version["subresources"]["status"].is_object(),
            custom: true,
        })
        .collect()
}
