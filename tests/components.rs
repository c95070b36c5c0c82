//! The components of the cluster, planned offline from the shipped inventory: every chart is the one of the table, every
//! variable has its effect, and every manifest is valid by the schemas of the Kubernetes API and of its custom resources.

#[path = "components/table.rs"]
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use datahub::cluster::with_components;
use datahub::inventory::{self, Inventory, Vars};
use datahub::probe::Question;
use datahub::role::{self, Files, Roles};
use datahub::secret::Secrets;
use serde_json::Value;
use table::TABLE;

/// Switches on everything that a variable can.
const EVERYTHING: &str = r#"
certificate_issuer = { acme = { server = "https://acme.home.arpa", privateKeySecretRef = { name = "acme" } } }
certificate_issuer_secret = { api-token = "dns-token" }
service_monitors = true
external_dns_provider = "cloudflare"
external_dns_secret = { CF_API_TOKEN = "dns-token" }
external_dns_values = { sources = ["traefik-proxy"] }
github_organizations = { my-org = ["admins"], other = [] }
dex_clients = [{ id = "my-grafana", redirect = "https://grafana.home.arpa/login" }]
nfs_server = "nfs.home.arpa"
argocd_admins = ["my-org:admins"]
argocd_accounts = ["workflows"]
argocd_ssh_known_hosts = ["forge.home.arpa ssh-ed25519 AAAA", "git.home.arpa ssh-ed25519 BBBB"]
argocd_credentials = [
  { name = "github", url = "https://github.com/my-org", username = "me", password = "token" },
  { name = "forge", url = "ssh://git@forge.home.arpa", ssh_key = "key" },
]
argocd_helm_secrets = { "security.yaml" = "helm-security" }
gitops_secrets = { url = "https://git.home.arpa/secrets.git", path = "release", namespace = "security", revision = "main" }
"#;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn shipped() -> (Inventory, Roles) {
    let mut inventory = inventory::load(&root().join("inventory")).expect("the shipped inventory is valid");
    let version = inventory.k3s.as_ref().expect("it has a release").version.clone();
    inventory.lock.suppose(&version);
    (with_components(&inventory), Roles::load(Files::builtin(), None).expect("the roles are valid"))
}

/// What the components' objects should be, by kind, namespace and name; Secrets are not among them.
fn objects(set: &str) -> BTreeMap<String, Value> {
    let (inventory, roles) = shipped();
    let set: Vars = toml::from_str(set).expect("variables");
    let facts = inventory::claimed(&inventory.nodes["orpi-0"]);
    let secrets = Secrets::placeholder();
    let components = Some(inventory.cluster.components.as_slice());
    let plan = role::plan(&inventory, &roles, "orpi-0", &facts, &set, components, &secrets);
    let plan = plan.unwrap_or_else(|mistakes| panic!("{mistakes:#?}"));
    let resources = plan.roles.iter().flat_map(|role| &role.resources);
    let questions = resources.flat_map(|planned| planned.resource.questions());
    questions
        .filter_map(|question| match question {
            Question::ClusterObject(wanted) => {
                let name = wanted.reference().expect("an object").to_string();
                Some((name, serde_json::from_str(&wanted.json).expect("JSON")))
            }
            _ => None,
        })
        .collect()
}

fn values(objects: &BTreeMap<String, Value>, release: &str) -> Value {
    let chart = &objects[&format!("HelmChart kube-system/{release}")];
    serde_saphyr::from_str(chart["spec"]["valuesContent"].as_str().expect("it has values")).expect("YAML")
}

#[test]
fn every_chart_is_that_of_the_table() {
    for set in ["", EVERYTHING] {
        let objects = objects(set);
        let charts: Vec<[&str; 5]> = objects
            .values()
            .filter(|object| object["kind"] == "HelmChart")
            .map(|object| {
                let spec = |field: &str| object["spec"][field].as_str().unwrap_or_default();
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                assert_eq!(spec("failurePolicy"), "abort", "{name}");
                [name, spec("chart"), spec("repo"), spec("version"), spec("targetNamespace")]
            })
            .collect();
        let mut table = TABLE.to_vec();
        table.sort_unstable();
        assert_eq!(charts, table);
    }
}

#[test]
fn components_are_installed_in_the_order_of_the_table() {
    let (inventory, _) = shipped();
    let order: Vec<&str> = inventory.cluster.components.iter().map(String::as_str).collect();
    let mut table: Vec<&str> = TABLE.iter().map(|row| row[0]).collect();
    table.push("gitops");
    assert_eq!(order, table);
    assert!(inventory.nodes["orpi-0"].roles.ends_with(&inventory.cluster.components));
}

#[test]
fn variables_reach_the_values() {
    let plain = objects("");
    let pointers = |release: &str, set: &BTreeMap<String, Value>, wanted: &[(&str, Value)]| {
        let values = values(set, release);
        for (pointer, expected) in wanted {
            assert_eq!(values.pointer(pointer), Some(expected), "{release} {pointer}: {values:#}");
        }
    };
    let hostnames = serde_json::json!(["datahublocal-orpi-1", "datahublocal-orpi-2", "datahublocal-orpi-3"]);
    let terms = "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    pointers(
        "traefik",
        &plain,
        &[
            (&format!("{terms}/0/matchExpressions/0/values"), hostnames),
            ("/api/insecure", false.into()),
            ("/metrics/prometheus/serviceMonitor/enabled", false.into()),
        ],
    );
    pointers(
        "nfs-subdir-external-provisioner",
        &plain,
        &[("/nfs/server", "datahublocal-nas.home.arpa".into())],
    );
    let all = objects(EVERYTHING);
    pointers("nfs-subdir-external-provisioner", &all, &[("/nfs/server", "nfs.home.arpa".into())]);
    pointers(
        "dex",
        &all,
        &[
            ("/config/connectors/0/config/orgs/0/teams/0", "admins".into()),
            ("/config/staticClients/2/secretEnv", "CLIENT_MY_GRAFANA".into()),
            ("/envVars/2/valueFrom/secretKeyRef/key", "my-grafana".into()),
        ],
    );
    pointers(
        "external-dns",
        &all,
        &[
            ("/provider/name", "cloudflare".into()),
            ("/env/0/valueFrom/secretKeyRef/key", "CF_API_TOKEN".into()),
            ("/sources/0", "traefik-proxy".into()),
        ],
    );
    pointers(
        "argo-cd",
        &all,
        &[
            (
                "/configs/rbac/policy.csv",
                "g, my-org:admins, role:admin\n# Everybody else who can log in may look.\n".into(),
            ),
            ("/server/metrics/serviceMonitor/enabled", true.into()),
            ("/configs/cm/accounts.workflows", "apiKey".into()),
            (
                "/configs/ssh/extraHosts",
                "forge.home.arpa ssh-ed25519 AAAA\ngit.home.arpa ssh-ed25519 BBBB\n".into(),
            ),
        ],
    );
    for name in ["core", "workflows"] {
        let kind = if name == "core" { "ApplicationSet" } else { "Application" };
        assert!(plain.contains_key(&format!("{kind} automation/datahub-local-{name}")), "{name}");
    }
    assert!(!plain.contains_key("Application automation/datahub-local-secrets"));
    assert_eq!(
        all["Application automation/datahub-local-secrets"].pointer("/spec/source/targetRevision"),
        Some(&"main".into())
    );
    let parts =
        all["ApplicationSet automation/datahub-local-core"].pointer("/spec/generators/0/list/elements");
    let parts: Vec<(&str, &str)> = parts
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|part| (part["name"].as_str().unwrap_or_default(), part["ns"].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(parts.len(), 7, "{parts:?}");
    assert!(parts.contains(&("common", "kube-system")), "{parts:?}");
}

/// No value of a secret may stand in an object that plans show.
#[test]
fn secrets_are_in_secrets_only() {
    for (name, object) in objects(EVERYTHING) {
        assert!(!object.to_string().contains("placeholder-"), "{name} holds a secret");
    }
}

#[test]
fn every_manifest_is_valid() {
    let mut kinds = BTreeMap::new();
    for set in ["", EVERYTHING] {
        for (name, object) in objects(set) {
            let kind = object["kind"].as_str().expect("a kind").to_owned();
            let faults = faults(&object);
            assert!(faults.is_empty(), "{name}: {faults:#?}\n{object:#}");
            *kinds.entry(kind).or_insert(0) += 1;
        }
    }
    assert_eq!(
        kinds.keys().map(String::as_str).collect::<Vec<_>>(),
        [
            "AppProject",
            "Application",
            "ApplicationSet",
            "Certificate",
            "ClusterIssuer",
            "ConfigMap",
            "HelmChart",
            "IngressRoute",
            "Middleware",
            "Namespace",
            "Node",
        ]
    );
}

/// The check finds what it is for.
#[test]
fn a_wrong_manifest_is_found() {
    let good = objects("")["HelmChart kube-system/dex"].clone();
    assert_eq!(faults(&good), Vec::<String>::new());
    for (pointer, value) in [
        ("/spec/failurePolicy", "explode".into()),
        ("/spec/backOffLimit", "two".into()),
        ("/spec", serde_json::json!({ "chartt": "dex" })),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).expect("it is there") = value;
        assert!(!faults(&bad).is_empty(), "{pointer}");
    }
    let map = serde_json::json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "dat": {} });
    assert!(!faults(&map).is_empty());
}

/// What is wrong with an object, by the schema of its kind.
fn faults(object: &Value) -> Vec<String> {
    let part = |name: &str| object[name].as_str().unwrap_or_default();
    match (part("apiVersion"), part("kind")) {
        ("v1", "Namespace") => as_typed::<k8s_openapi::api::core::v1::Namespace>(object),
        ("v1", "ConfigMap") => as_typed::<k8s_openapi::api::core::v1::ConfigMap>(object),
        (version, kind) => {
            let file: PathBuf =
                root().join(format!("tests/schemas/{}_{kind}.json", version.replace('/', "_")));
            let Ok(text) = std::fs::read_to_string(&file) else {
                return vec![format!("there is no schema {}", file.display())];
            };
            let mut definition: Value = serde_json::from_str(&text).expect("a schema is JSON");
            close(&mut definition["schema"]);
            let validator = jsonschema::validator_for(&definition["schema"]).expect("a schema");
            validator.iter_errors(object).map(|error| format!("{}: {error}", error.instance_path())).collect()
        }
    }
}

/// The API drops what a schema does not name; here it is a fault.
fn close(schema: &mut Value) {
    let Value::Object(map) = schema else {
        if let Value::Array(list) = schema {
            list.iter_mut().for_each(close);
        }
        return;
    };
    let open = map.get("x-kubernetes-preserve-unknown-fields").is_some_and(|open| *open == true);
    if map.get("properties").is_some_and(Value::is_object)
        && !open
        && !map.contains_key("additionalProperties")
    {
        map.insert("additionalProperties".into(), false.into());
    }
    map.values_mut().for_each(close);
}

/// What an object loses, or cannot be read as, when it goes through its typed form.
fn as_typed<T: serde::Serialize + serde::de::DeserializeOwned>(object: &Value) -> Vec<String> {
    match serde_json::from_value::<T>(object.clone()) {
        Err(error) => vec![error.to_string()],
        Ok(typed) => {
            let again = serde_json::to_value(typed).expect("it has a JSON form");
            if again == *object { Vec::new() } else { vec![format!("only this of it is known: {again}")] }
        }
    }
}
