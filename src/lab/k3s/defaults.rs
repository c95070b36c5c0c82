//! What the API fills in on a write: the defaults of built-in kinds that something reads.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::object;
use super::resources::Resource;

/// Completes an object. `new` says whether it is being created.
pub fn complete(resource: &Resource, object: &mut Value, new: bool) {
    match resource.id().as_str() {
        "secrets" => secret(object),
        "namespaces" if new => namespace(object),
        "pods" if new => pod(object),
        "services" => service(object),
        "persistentvolumes" if new => object["status"] = json!({"phase": "Available"}),
        "persistentvolumeclaims" if new => object["status"] = json!({"phase": "Pending"}),
        "deployments.apps" => deployment(object),
        "statefulsets.apps" => stateful_set(object),
        "daemonsets.apps" => daemon_set(object),
        "replicasets.apps" => default(&mut object["spec"], "replicas", json!(1)),
        "jobs.batch" => job(object),
        super::resources::DEFINITIONS => definition(object),
        _ => {}
    }
}

/// Sets a field that is missing.
fn default(object: &mut Value, field: &str, value: Value) {
    let place = object::as_map(object).entry(field).or_insert(Value::Null);
    if place.is_null() {
        *place = value;
    }
}

fn defaults(object: &mut Value, fields: Value) {
    if let Value::Object(fields) = fields {
        for (field, value) in fields {
            default(object, &field, value);
        }
    }
}

fn secret(object: &mut Value) {
    default(object, "type", json!("Opaque"));
    let Some(Value::Object(plain)) = object::as_map(object).remove("stringData") else { return };
    let data = object::map_mut(object, "data");
    for (key, value) in plain {
        data.insert(key, json!(BASE64.encode(value.as_str().unwrap_or_default())));
    }
}

fn namespace(object: &mut Value) {
    let name = object::name(object).to_owned();
    object::map_mut(&mut object["metadata"], "labels")
        .insert("kubernetes.io/metadata.name".into(), json!(name));
    defaults(object, json!({"spec": {"finalizers": ["kubernetes"]}}));
    object["status"] = json!({"phase": "Active"});
}

fn pod(object: &mut Value) {
    pod_spec(&mut object["spec"]);
    let spec = &mut object["spec"];
    defaults(spec, json!({"serviceAccountName": "default", "enableServiceLinks": true}));
    let tolerations = object::list_mut(spec, "tolerations");
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        if !tolerations.iter().any(|toleration| toleration["key"] == key || toleration["key"].is_null()) {
            tolerations.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300,
            }));
        }
    }
    object["status"] = json!({"phase": "Pending", "qosClass": "BestEffort"});
}

fn pod_spec(spec: &mut Value) {
    defaults(
        spec,
        json!({
            "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
            "terminationGracePeriodSeconds": 30, "securityContext": {},
        }),
    );
}

fn service(object: &mut Value) {
    let place = format!("{}/{}", object::namespace(object), object::name(object));
    let spec = &mut object["spec"];
    defaults(spec, json!({"type": "ClusterIP", "sessionAffinity": "None"}));
    if spec["type"] != "ExternalName" {
        let address = cluster_address(&place);
        defaults(spec, json!({"clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"]}));
    }
    for port in object::list_mut(spec, "ports") {
        let number = port["port"].clone();
        defaults(port, json!({"protocol": "TCP", "targetPort": number}));
    }
    defaults(object, json!({"status": {"loadBalancer": {}}}));
}

/// An address of the service network, from the service's name. Two names can meet in one; nothing routes there.
fn cluster_address(place: &str) -> String {
    let hash = object::hash(&json!(place));
    let byte = |at: usize| u8::from_str_radix(&hash[at..at + 2], 16).unwrap_or(1);
    format!("10.43.{}.{}", byte(0), byte(2).clamp(11, 254))
}

fn deployment(object: &mut Value) {
    let rolling = json!({"maxSurge": "25%", "maxUnavailable": "25%"});
    let spec = &mut object["spec"];
    defaults(
        spec,
        json!({
            "replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
        }),
    );
    pod_spec(&mut spec["template"]["spec"]);
}

fn stateful_set(object: &mut Value) {
    let spec = &mut object["spec"];
    defaults(
        spec,
        json!({
            "replicas": 1, "revisionHistoryLimit": 10, "podManagementPolicy": "OrderedReady",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        }),
    );
    pod_spec(&mut spec["template"]["spec"]);
}

fn daemon_set(object: &mut Value) {
    let spec = &mut object["spec"];
    let rolling = json!({"maxSurge": 0, "maxUnavailable": 1});
    defaults(
        spec,
        json!({"revisionHistoryLimit": 10, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}),
    );
    pod_spec(&mut spec["template"]["spec"]);
}

fn job(object: &mut Value) {
    let uid = object::uid(object).to_owned();
    let name = object::name(object).to_owned();
    let spec = &mut object["spec"];
    defaults(spec, json!({"parallelism": 1, "completions": 1, "backoffLimit": 6, "suspend": false}));
    let label = "batch.kubernetes.io/controller-uid";
    defaults(spec, json!({"selector": {"matchLabels": {label: uid}}}));
    let labels = object::map_mut(&mut spec["template"]["metadata"], "labels");
    labels.insert(label.into(), json!(uid));
    labels.insert("batch.kubernetes.io/job-name".into(), json!(name));
    labels.insert("job-name".into(), json!(name));
}

/// The versions its objects may be stored in. The rest of its status comes later: see `controllers::definition`.
fn definition(object: &mut Value) {
    let stored: Vec<Value> = object::items(&object["spec"]["versions"])
        .iter()
        .filter(|version| version["storage"] == true)
        .map(|version| version["name"].clone())
        .collect();
    let known = object::list_mut(&mut object["status"], "storedVersions");
    for version in stored {
        if !known.contains(&version) {
            known.push(version);
        }
    }
}
