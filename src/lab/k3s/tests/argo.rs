//! Argo CD as it is seen once its chart is installed: projects, applications, sets of them, and how they fail.

use hyper::Method;
use serde_json::{Value, json};

use super::VERSION;
use crate::lab::k3s::client::Client;
use crate::lab::k3s::server::Running;
use crate::lab::k3s::testing::*;
use crate::lab::k3s::{levers, object};

const REPOSITORY: &str = "https://git.home.arpa/core.git";

fn path(plural: &str, namespace: &str, name: &str) -> String {
    format!("/apis/argoproj.io/v1alpha1/namespaces/{namespace}/{plural}/{name}")
}

/// A server with an Argo CD in the namespace `automation`, and these parameters.
async fn installed(machine: &Machine, parameters: Value) -> (Running, Client) {
    let running = machine.server("one", &["--disable", "traefik"]).await.expect("started");
    let client = machine.client();
    let chart = json!({
        "apiVersion": "helm.cattle.io/v1", "kind": "HelmChart",
        "metadata": {"name": "argo-cd", "namespace": "kube-system"},
        "spec": {
            "chart": "argo-cd", "targetNamespace": "automation", "createNamespace": true,
            "values": {"configs": {"params": parameters}},
        },
    });
    let charts = "/apis/helm.cattle.io/v1/namespaces/kube-system/helmcharts/argo-cd";
    apply(&client, charts, "datahub", false, chart).await;
    // Its API server makes it when Argo CD is up.
    until(&client, &path("appprojects", "automation", "default"), |seen| seen["kind"] == "AppProject").await;
    (running, client)
}

async fn put(client: &Client, plural: &str, kind: &str, metadata: Value, spec: Value) {
    let wanted =
        json!({"apiVersion": "argoproj.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec});
    let path = path(plural, object::namespace(&wanted), object::name(&wanted));
    let answer = apply(client, &path, "datahub", true, wanted).await;
    assert!(answer.is_success(), "{}", answer.text());
}

async fn put_app(client: &Client, name: &str, more: Value) -> String {
    let mut spec = json!({
        "project": "default", "source": {"repoURL": REPOSITORY, "path": name, "targetRevision": "main"},
        "destination": {"server": "https://kubernetes.default.svc", "namespace": "shop"},
        "syncPolicy": {"automated": {"prune": true}, "syncOptions": ["CreateNamespace=true"]},
    });
    object::as_map(&mut spec).extend(object::as_map(&mut more.clone()).clone());
    let finalizers = json!(["resources-finalizer.argocd.argoproj.io"]);
    let metadata = json!({"name": name, "namespace": "automation", "finalizers": finalizers});
    put(client, "applications", "Application", metadata, spec).await;
    path("applications", "automation", name)
}

fn is_done(app: &Value) -> bool {
    let status = &app["status"];
    status["sync"]["status"] == "Synced"
        && status["health"]["status"] == "Healthy"
        && status["operationState"]["phase"] == "Succeeded"
        && status["operationState"]["syncResult"]["revision"] == status["sync"]["revision"]
        && status["sync"]["comparedTo"]["source"] == app["spec"]["source"]
}

/// The message of a condition.
fn condition<'a>(app: &'a Value, kind: &str) -> Option<&'a str> {
    let conditions = object::items(&app["status"]["conditions"]);
    conditions.iter().find(|condition| condition["type"] == kind)?["message"].as_str()
}

#[tokio::test]
async fn an_application_is_synced_healthy_and_refreshed() {
    let machine = Machine::new(VERSION);
    let (_running, client) = installed(&machine, json!({"controller.resource.health.persist": true})).await;
    let one = put_app(&client, "core", json!({})).await;
    let seen = until(&client, &one, is_done).await;
    let status = &seen["status"];
    let revision = status["sync"]["revision"].as_str().expect("a revision").to_owned();
    assert_eq!(revision.len(), 40);
    assert_eq!(status["sync"]["comparedTo"]["destination"], seen["spec"]["destination"]);
    assert_eq!(status["operationState"]["message"], "successfully synced (all tasks run)");
    assert!(status["operationState"]["finishedAt"].is_string() && status["reconciledAt"].is_string());
    assert_eq!(status["history"][0]["revision"], revision.as_str());
    assert_eq!(status["resources"][1]["health"]["status"], "Healthy");
    assert_eq!(
        status["operationState"]["syncResult"]["resources"][1]["message"],
        "deployment.apps/core created"
    );
    assert!(seen["operation"].is_null() && status["conditions"].is_null());
    assert!(seen["metadata"].get("annotations").is_none(), "what nobody set is not there");
    assert!(seen["metadata"]["generation"].as_i64() > Some(1), "the status is no subresource");
    assert_eq!(get(&client, "/api/v1/namespaces/shop").await["kind"], "Namespace");

    let source = json!({"repoURL": REPOSITORY, "path": "core", "targetRevision": "next"});
    put_app(&client, "core", json!({"source": source})).await;
    let seen =
        until(&client, &one, |seen| is_done(seen) && seen["status"]["sync"]["revision"] != revision).await;
    assert_eq!(seen["status"]["history"].as_array().map(Vec::len), Some(2));

    let refresh = json!({"metadata": {"annotations": {"argocd.argoproj.io/refresh": "hard"}}});
    let before = seen["status"]["reconciledAt"].as_str().expect("a time").to_owned();
    // The times are of whole seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    merge(&client, &one, refresh).await;
    until(&client, &one, |seen| {
        seen["metadata"]["annotations"]["argocd.argoproj.io/refresh"].is_null()
            && seen["status"]["reconciledAt"].as_str() > Some(before.as_str())
            && is_done(seen)
    })
    .await;
    send(&client, Method::DELETE, &one, json!({})).await;
    until(&client, &one, |seen| seen["code"] == 404).await;
}

#[tokio::test]
async fn what_is_not_automated_waits_for_an_operation() {
    let machine = Machine::new(VERSION);
    let (_running, client) = installed(&machine, json!({})).await;
    let one = put_app(&client, "manual", json!({"syncPolicy": null})).await;
    let seen = until(&client, &one, |seen| seen["status"]["sync"]["status"] == "OutOfSync").await;
    assert_eq!((&seen["status"]["health"]["status"], &seen["operation"]), (&json!("Missing"), &Value::Null));
    assert_eq!(seen["status"]["resourceHealthSource"], "appTree");
    assert!(seen["status"]["resources"][0]["health"].is_null(), "as since 3.0");

    merge(&client, &one, json!({"operation": {"sync": {"revision": "main"}}})).await;
    let failed = |seen: &Value| seen["status"]["operationState"]["phase"] == "Failed";
    let seen = until(&client, &one, failed).await;
    let message = "one or more objects failed to apply, reason: namespaces \"shop\" not found";
    assert_eq!(seen["status"]["operationState"]["message"], message);
    let options = json!({"operation": {"sync": {"syncOptions": ["CreateNamespace=true"]}}});
    merge(&client, &one, options).await;
    until(&client, &one, is_done).await;
}

#[tokio::test]
async fn projects_and_namespaces_limit_applications() {
    let machine = Machine::new(VERSION);
    let (_running, client) = installed(&machine, json!({"application.namespaces": "security,me*"})).await;
    for namespace in ["security", "media", "other"] {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        send(&client, Method::POST, "/api/v1/namespaces", namespace).await;
    }
    let one = put_app(&client, "core", json!({"project": "namespace-shop"})).await;
    let refused = |kind: &'static str, words: &'static str| {
        move |seen: &Value| condition(seen, kind).is_some_and(|message| message.contains(words))
    };
    let missing =
        refused("InvalidSpecError", "Application referencing project namespace-shop which does not exist");
    let seen = until(&client, &one, missing).await;
    assert_eq!(seen["status"]["sync"]["status"], "Unknown");
    assert_eq!(seen["status"]["health"]["status"], "Unknown");

    let project = |repository: &str, namespace: &str| {
        json!({
            "sourceRepos": [repository], "sourceNamespaces": ["media"],
            "destinations": [{"server": "https://kubernetes.default.svc", "namespace": namespace}],
        })
    };
    let put_project = async |spec: Value| {
        let metadata = json!({"name": "namespace-shop", "namespace": "automation"});
        put(&client, "appprojects", "AppProject", metadata, spec).await;
    };
    put_project(project("https://git.home.arpa/else", "shop")).await;
    until(&client, &one, refused("InvalidSpecError", "is not permitted in project 'namespace-shop'")).await;
    put_project(project("https://git.home.arpa/*", "bank")).await;
    until(&client, &one, refused("InvalidSpecError", "and namespace 'shop' do not match any")).await;
    put_project(project("https://git.home.arpa/*", "shop")).await;
    let seen = until(&client, &one, is_done).await;
    assert!(seen["status"]["conditions"].is_null());

    for namespace in ["security", "media", "other"] {
        let mut spec = seen["spec"].clone();
        spec["source"]["path"] = json!(namespace);
        let metadata = json!({"name": "elsewhere", "namespace": namespace});
        put(&client, "applications", "Application", metadata, spec).await;
    }
    until(&client, &path("applications", "media", "elsewhere"), is_done).await;
    let foreign = refused(
        "UnknownError",
        "application 'elsewhere' in namespace 'security' is not permitted to use project 'namespace-shop'",
    );
    until(&client, &path("applications", "security", "elsewhere"), foreign).await;
    let unwatched = get(&client, &path("applications", "other", "elsewhere")).await;
    assert!(unwatched["status"].is_null(), "{unwatched}");
}

#[tokio::test]
async fn applications_fail_as_levers_say_and_get_well() {
    let machine = Machine::new(VERSION);
    machine.write(levers::APP_DEGRADED, "sick Job/init it has failed twice\n");
    machine.write(levers::APP_COMPARISON_ERROR, "automation/lost repository not found\n");
    machine.write(levers::APP_SYNC_FAILS, "refused Deployment/refused admission webhook denied it\n");
    let (_running, client) = installed(&machine, json!({"controller.resource.health.persist": true})).await;
    let sick = put_app(&client, "sick", json!({})).await;
    let lost = put_app(&client, "lost", json!({})).await;
    let policy = json!({"automated": {}, "retry": {"limit": 1}, "syncOptions": ["CreateNamespace=true"]});
    let refused = put_app(&client, "refused", json!({"syncPolicy": policy})).await;

    let seen = until(&client, &sick, |seen| seen["status"]["health"]["status"] == "Degraded").await;
    let resources = object::items(&seen["status"]["resources"]);
    let fault = resources.iter().find(|resource| resource["name"] == "init").expect("the resource at fault");
    assert_eq!(fault["health"], json!({"status": "Degraded", "message": "it has failed twice"}));
    assert_eq!((&fault["kind"], &fault["group"]), (&json!("Job"), &json!("batch")));
    assert_eq!(seen["status"]["operationState"]["phase"], "Succeeded");

    let seen = until(&client, &lost, |seen| condition(seen, "ComparisonError").is_some()).await;
    assert!(
        condition(&seen, "ComparisonError").is_some_and(|text| text.ends_with("desc = repository not found"))
    );
    assert_eq!(seen["status"]["sync"]["status"], "Unknown");

    let seen = until(&client, &refused, |seen| condition(seen, "SyncError").is_some()).await;
    let state = &seen["status"]["operationState"];
    let message =
        "one or more objects failed to apply, reason: admission webhook denied it (retried 1 times).";
    assert_eq!((&state["phase"], &state["message"]), (&json!("Failed"), &json!(message)));
    let results = object::items(&state["syncResult"]["resources"]);
    let fault =
        results.iter().find(|result| result["status"] == "SyncFailed").expect("the resource at fault");
    assert_eq!(
        (&fault["kind"], &fault["message"]),
        (&json!("Deployment"), &json!("admission webhook denied it"))
    );

    for lever in [levers::APP_DEGRADED, levers::APP_COMPARISON_ERROR, levers::APP_SYNC_FAILS] {
        std::fs::remove_file(machine.settings.path(lever)).expect("removed");
    }
    for app in [&sick, &lost, &refused] {
        let seen = until(&client, app, is_done).await;
        assert!(seen["status"]["conditions"].is_null(), "{seen:#}");
    }
}

#[tokio::test]
async fn a_set_keeps_its_applications() {
    let machine = Machine::new(VERSION);
    let (_running, client) = installed(&machine, json!({})).await;
    let set = path("applicationsets", "automation", "core");
    let put_set = async |names: &[&str], project: &str| {
        let elements: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        let spec = json!({
            "goTemplate": true, "goTemplateOptions": ["missingkey=error"],
            "generators": [{"list": {"elements": elements}}],
            "template": {
                "metadata": {"name": "core-{{ .name }}"},
                "spec": {
                    "project": project, "source": {"repoURL": REPOSITORY, "path": "releases/{{ .name }}"},
                    "destination": {"name": "in-cluster", "namespace": "{{ .name }}"},
                    "syncPolicy": {"automated": {}, "syncOptions": ["CreateNamespace=true"]},
                },
            },
        });
        let metadata = json!({"name": "core", "namespace": "automation"});
        put(&client, "applicationsets", "ApplicationSet", metadata, spec).await;
    };
    put_set(&["data", "media"], "none").await;
    until(&client, &set, |seen| object::condition(seen, "ErrorOccurred") == Some("True")).await;
    put_set(&["data", "media"], "default").await;
    let seen = until(&client, &set, |seen| {
        object::condition(seen, "ResourcesUpToDate") == Some("True") && seen["status"]["resourcesCount"] == 2
    })
    .await;
    assert_eq!(object::condition(&seen, "ErrorOccurred"), Some("False"));
    assert_eq!(object::condition(&seen, "ParametersGenerated"), Some("True"));
    let data = path("applications", "automation", "core-data");
    let app = until(&client, &data, is_done).await;
    assert_eq!(object::controller(&app).expect("an owner")["name"], "core");
    assert_eq!(app["metadata"]["finalizers"], json!(["resources-finalizer.argocd.argoproj.io"]));

    // Its own spec comes back, what others noted stays.
    merge(&client, &data, json!({"spec": {"source": {"path": "by-hand"}}})).await;
    until(&client, &data, |seen| seen["spec"]["source"]["path"] == "releases/data").await;
    put_set(&["data", "security"], "default").await;
    until(&client, &path("applications", "automation", "core-media"), |seen| seen["code"] == 404).await;
    until(&client, &path("applications", "automation", "core-security"), is_done).await;
    send(&client, Method::DELETE, &set, json!({})).await;
    until(&client, &data, |seen| seen["code"] == 404).await;
}
