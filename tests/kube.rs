//! The cluster's API against a server with real TLS: what is asked, what is done again, what is given up and
//! why. Through a real sshd too, whose connection drops.

#[path = "kube/server.rs"]
mod server;
#[path = "support/sshd.rs"]
mod sshd;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use datahub::kube::drain::{DrainOptions, Progress};
use datahub::kube::node::Ready;
use datahub::kube::node_settings::NodeWanted;
use datahub::kube::object::{ObjectRef, object};
use datahub::kube::wait::{Check, Condition};
use datahub::kube::{Cluster, Error, Options, Readyz};
use datahub::resource::Difference;
use datahub::transport::local::Local;
use datahub::transport::prompt::NoPrompts;
use datahub::transport::{self, Script, Transport};
use serde_json::{Value, json};
use server::{Api, Reply, Request, list, refusal};
use tokio::sync::mpsc;

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(700);

fn options(api: &Api) -> Options {
    Options { kubeconfig: api.kubeconfig("k3s.yaml"), request: Duration::from_secs(5), patience: LONG }
}

async fn connect_with(options: Options) -> Cluster {
    let local = Local::new(Arc::new(NoPrompts), None);
    Cluster::connect(Arc::new(local), options).await.expect("connects")
}

async fn connect(api: &Api) -> Cluster {
    connect_with(options(api)).await
}

/// Root alone may read the kubeconfig; without sudo there is nothing to test.
fn may_run() -> bool {
    rustix::process::geteuid().is_root()
}

fn node(name: &str, version: &str, ready: bool) -> Value {
    json!({
        "kind": "Node", "apiVersion": "v1",
        "metadata": { "name": name, "uid": format!("uid-{name}"), "resourceVersion": version },
        "status": { "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" },
            "reason": "KubeletNotReady", "message": "the network is not ready" }] },
    })
}

fn event(kind: &str, object: &Value) -> Value {
    json!({ "type": kind, "object": object })
}

fn silent(_: &str) {}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_decide_on_both_sides() {
    if !may_run() {
        return;
    }
    let api = Api::start(|request| match request.line.as_str() {
        "GET /version" => Reply::Json(200, version()),
        _ => Reply::Text(500, "[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n".into()),
    })
    .await;
    let cluster = connect(&api).await;
    assert_eq!(cluster.server_version().await.expect("a version"), "v1.36.2+k3s1");
    let readyz = Readyz { ready: false, failing: vec!["etcd".into()] };
    assert_eq!(cluster.readyz().await.expect("an answer"), readyz);

    let error = cluster.wait_readyz(SHORT, &silent).await.expect_err("not ready");
    assert_eq!(error.to_string(), "the API server was not ready within 0 s: its checks fail: etcd");

    for kubeconfig in ["other-authority.yaml", "other-client.yaml"] {
        let options = Options { kubeconfig: api.kubeconfig(kubeconfig), ..options(&api) };
        let error = connect_with(options).await.server_version().await.expect_err("not trusted");
        assert!(matches!(error, Error::Tls { .. }), "{kubeconfig} {error:?}");
        assert!(error.hint().is_some());
    }
    // A node that has been broken into must not have commands run here.
    let planted = Options { kubeconfig: api.kubeconfig("planted.yaml"), ..options(&api) };
    connect_with(planted).await.server_version().await.expect_err("no certificate");
    assert!(!std::path::Path::new(&api.kubeconfig("ran")).exists());

    let missing = Options { kubeconfig: api.kubeconfig("none.yaml"), ..options(&api) };
    let local = Local::new(Arc::new(NoPrompts), None);
    let error = Cluster::connect(Arc::new(local), missing).await.err().expect("no kubeconfig");
    assert!(matches!(error, Error::NoKubeconfig { .. }), "{error:?}");
}

fn version() -> Value {
    json!({ "major": "1", "minor": "36", "gitVersion": "v1.36.2+k3s1", "gitCommit": "", "gitTreeState": "",
        "buildDate": "", "goVersion": "", "compiler": "", "platform": "" })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_starting_server_is_asked_until_it_is_ready() {
    if !may_run() {
        return;
    }
    let asked = AtomicUsize::new(0);
    let api = Api::start(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::Text(401, "Unauthorized".into()),
        1 => Reply::Cut,
        2 => Reply::Text(500, "[-]poststarthook/crd-informer-synced failed: reason withheld\n".into()),
        _ => Reply::Text(200, "[+]ping ok\nreadyz check passed\n".into()),
    })
    .await;
    let cluster = connect(&api).await;
    let heard = Mutex::new(Vec::new());
    cluster
        .wait_readyz(LONG, &|why| heard.lock().expect("no panic").push(why.to_owned()))
        .await
        .expect("ready");
    let heard = heard.into_inner().expect("no panic");
    assert_eq!(heard[0], "its checks fail: it answers 401 Unauthorized");
    assert_eq!(heard[2], "its checks fail: poststarthook/crd-informer-synced");
    assert!(cluster.readyz().await.expect("an answer").ready);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarting_server_is_waited_for() {
    if !may_run() {
        return;
    }
    let asked = AtomicUsize::new(0);
    let api = Api::start(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::Cut,
        1 => Reply::WatchThenCut(vec![json!("half of an answer")]),
        2 => Reply::Text(503, "starting".into()),
        3 => refusal(429, "TooManyRequests", "later"),
        _ => list("Node", "1", &[node("b", "1", true), node("a", "1", false)]),
    })
    .await;
    let cluster = connect(&api).await;
    let nodes = cluster.nodes().await.expect("nodes in the end");
    assert_eq!(
        nodes.iter().map(|node| (node.name.as_str(), node.ready)).collect::<Vec<_>>(),
        [("a", false), ("b", true)]
    );
    assert_eq!(api.count("GET /api/v1/nodes"), 5);

    // Gone, with the connection that was kept; and back while it is asked.
    api.stop();
    let (nodes, ()) = tokio::join!(cluster.nodes(), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        api.resume().await;
    });
    assert_eq!(nodes.expect("nodes in the end").len(), 2);

    api.stop();
    let impatient = connect_with(Options { patience: SHORT, ..options(&api) }).await;
    match impatient.nodes().await.expect_err("nobody there") {
        Error::Unreachable { what, last, .. } => {
            assert_eq!(what, "list the nodes");
            assert!(last.contains(&format!("127.0.0.1:{}", api.port)), "{last}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_told_at_once() {
    if !may_run() {
        return;
    }
    let api = Api::start(|_| refusal(403, "Forbidden", "nodes is forbidden\u{1b}[2J")).await;
    match connect(&api).await.nodes().await.expect_err("forbidden") {
        Error::Refused { code: 403, message, .. } => assert_eq!(message, "nodes is forbidden[2J"),
        other => panic!("{other:?}"),
    }
    assert_eq!(api.seen().len(), 1);
}

/// A node that becomes ready in the third watch: the first is cut, the second too old.
fn third_time_lucky() -> impl Fn(&Request) -> Reply + Send + Sync {
    let watches = AtomicUsize::new(0);
    let lists = AtomicUsize::new(0);
    move |request| {
        if !request.is_watch() {
            let version = 10 * (1 + lists.fetch_add(1, Ordering::Relaxed));
            return list("Node", &version.to_string(), &[node("nas", "5", false)]);
        }
        match watches.fetch_add(1, Ordering::Relaxed) {
            0 => Reply::WatchThenCut(vec![event("MODIFIED", &node("nas", "11", false))]),
            1 => {
                let expired =
                    json!({ "kind": "Status", "apiVersion": "v1", "code": 410, "reason": "Expired" });
                Reply::WatchThenCut(vec![event("ERROR", &expired)])
            }
            _ => {
                let (sender, events) = mpsc::unbounded_channel();
                sender.send(event("MODIFIED", &node("nas", "21", true))).expect("open");
                Reply::Watch(events)
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_watch_goes_on_where_it_was() {
    if !may_run() {
        return;
    }
    let api = Api::start(third_time_lucky()).await;
    let cluster = connect(&api).await;
    let heard = Mutex::new(Vec::new());
    let progress = |text: &str| heard.lock().expect("no panic").push(text.to_owned());
    let node = cluster.wait_ready("nas", &Ready::default(), LONG, &progress).await.expect("ready");
    assert_eq!((node.name.as_str(), node.ready), ("nas", true));
    assert_eq!(heard.into_inner().expect("no panic"), ["KubeletNotReady: the network is not ready"]);
    let versions: Vec<String> = api
        .seen()
        .iter()
        .filter(|line| line.contains("watch=true"))
        .map(|line| {
            line.split("resourceVersion=")
                .nth(1)
                .unwrap_or_default()
                .split('&')
                .next()
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    assert_eq!(versions, ["10", "11", "20"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_become_ready_says_why() {
    if !may_run() {
        return;
    }
    let api = Api::start(|request| match (request.line.as_str(), request.is_watch()) {
        ("GET /api/v1/events", _) => list(
            "Event",
            "1",
            &[
                happening("Warning", "InvalidDiskCapacity", "invalid capacity 0", "2026-01-01T00:00:02Z"),
                happening("Normal", "Starting", "Starting kubelet.", "2026-01-01T00:00:01Z"),
            ],
        ),
        (_, true) => Reply::Watch(pending()),
        _ => list("Node", "1", &[node("nas", "1", false)]),
    })
    .await;
    let cluster = connect(&api).await;
    let error = cluster.wait_ready("nas", &Ready::default(), SHORT, &silent).await.expect_err("not ready");
    match &error {
        Error::NotReady { why, events, .. } => {
            assert_eq!(why, "KubeletNotReady: the network is not ready");
            assert_eq!(
                events,
                &["Normal Starting: Starting kubelet.", "Warning InvalidDiskCapacity: invalid capacity 0"]
            );
        }
        other => panic!("{other:?}"),
    }
    let gone = api;
    gone.stop();
    let error = cluster.wait_ready("nas", &Ready::default(), SHORT, &silent).await.expect_err("nobody there");
    assert!(error.to_string().contains("the API server does not answer"), "{error}");
}

/// An event object, as the kubelet writes them about its node.
fn happening(kind: &str, reason: &str, message: &str, at: &str) -> Value {
    json!({
        "metadata": { "name": at }, "involvedObject": {},
        "type": kind, "reason": reason, "message": message, "lastTimestamp": at,
    })
}

/// The events of a watch in which nothing happens.
fn pending() -> mpsc::UnboundedReceiver<Value> {
    let (sender, events) = mpsc::unbounded_channel();
    // Kept open for as long as the test runs.
    std::mem::forget(sender);
    events
}

fn owner(kind: &str) -> Value {
    json!([{ "apiVersion": "apps/v1", "kind": kind, "name": "r", "uid": "r", "controller": true }])
}

fn pod(name: &str, more: Value) -> Value {
    let mut pod = json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {
            "name": name, "namespace": "web", "uid": format!("uid-{name}"), "resourceVersion": "1",
            "labels": { "app": name }, "ownerReferences": owner("ReplicaSet"),
        },
        "spec": { "containers": [] },
    });
    for (key, value) in more.as_object().expect("a map") {
        match key.as_str() {
            "owner" => pod["metadata"]["ownerReferences"] = value.clone(),
            "annotations" => pod["metadata"]["annotations"] = value.clone(),
            field => pod[field] = value.clone(),
        }
    }
    pod
}

fn budget(name: &str, app: &str) -> Value {
    let counts =
        json!({ "currentHealthy": 1, "desiredHealthy": 1, "disruptionsAllowed": 0, "expectedPods": 1 });
    json!({
        "metadata": { "name": name, "namespace": "web" },
        "spec": { "selector": { "matchLabels": { "app": app } } },
        "status": counts,
    })
}

/// A node with pods whose evictions the test answers; an accepted one ends its pod.
struct Evictions {
    pods: Mutex<BTreeMap<String, Value>>,
    watch: Mutex<Watch>,
}

/// What has happened, for a watch that begins later, and the watch.
#[derive(Default)]
struct Watch {
    past: Vec<Value>,
    watcher: Option<mpsc::UnboundedSender<Value>>,
}

impl Evictions {
    fn new(pods: &[Value]) -> Arc<Self> {
        let name = |pod: &Value| pod["metadata"]["name"].as_str().expect("a name").to_owned();
        let pods = pods.iter().map(|pod| (name(pod), pod.clone())).collect();
        Arc::new(Self { pods: Mutex::new(pods), watch: Mutex::default() })
    }

    fn answer(&self, request: &Request, held: impl Fn(&str) -> bool) -> Reply {
        match request.line.as_str() {
            "GET /api/v1/nodes/nas" | "PATCH /api/v1/nodes/nas" => Reply::Json(200, node("nas", "1", true)),
            "GET /api/v1/pods" if request.is_watch() => {
                let mut watch = self.watch.lock().expect("no panic");
                let (sender, events) = mpsc::unbounded_channel();
                for event in &watch.past {
                    sender.send(event.clone()).expect("open");
                }
                watch.watcher = Some(sender);
                Reply::Watch(events)
            }
            "GET /api/v1/pods" => {
                let pods: Vec<Value> = self.pods.lock().expect("no panic").values().cloned().collect();
                list("Pod", "1", &pods)
            }
            line if line.ends_with("/poddisruptionbudgets") => {
                list("PodDisruptionBudget", "1", &[budget("other", "plain"), budget("budget", "held")])
            }
            line => {
                let name = line.trim_end_matches("/eviction").rsplit('/').next().unwrap_or_default();
                if held(name) {
                    return refusal(
                        429,
                        "TooManyRequests",
                        "Cannot evict pod as it would violate the pod's disruption budget.",
                    );
                }
                self.end(name);
                Reply::Json(
                    201,
                    json!({ "kind": "Status", "apiVersion": "v1", "status": "Success", "code": 201 }),
                )
            }
        }
    }

    fn end(&self, name: &str) {
        let Some(pod) = self.pods.lock().expect("no panic").remove(name) else { return };
        let mut watch = self.watch.lock().expect("no panic");
        watch.past.push(event("DELETED", &pod));
        if let Some(watcher) = &watch.watcher {
            let _ = watcher.send(event("DELETED", &pod));
        }
    }
}

fn patient() -> DrainOptions {
    DrainOptions { timeout: LONG, pause: Duration::from_millis(50), ..DrainOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_evicts_what_may_go_and_waits_until_it_is_gone() {
    if !may_run() {
        return;
    }
    let evictions = Evictions::new(&[
        pod("plain", json!({})),
        pod("held", json!({})),
        pod("finished", json!({ "owner": [], "status": { "phase": "Succeeded" } })),
        pod("agent", json!({ "owner": owner("DaemonSet") })),
        pod("static", json!({ "owner": [], "annotations": { "kubernetes.io/config.mirror": "x" } })),
    ]);
    let (hub, tries) = (evictions.clone(), AtomicUsize::new(0));
    let api = Api::start(move |request| {
        hub.answer(request, |name| name == "held" && tries.fetch_add(1, Ordering::Relaxed) < 2)
    })
    .await;
    let cluster = connect(&api).await;
    let heard = Mutex::new(Vec::new());
    let progress = |step: Progress| heard.lock().expect("no panic").push(step);
    cluster.drain("nas", &patient(), &progress).await.expect("drained");
    let left: Vec<String> = evictions.pods.lock().expect("no panic").keys().cloned().collect();
    assert_eq!(left, ["agent", "static"]);
    let heard = heard.into_inner().expect("no panic");
    assert_eq!(heard[0], Progress::Begun { pods: 3 });
    let held =
        heard.iter().filter(|step| matches!(step, Progress::Held { pod, .. } if pod == "web/held")).count();
    let gone = heard.iter().filter(|step| matches!(step, Progress::Gone { .. })).count();
    assert_eq!((held, gone), (1, 3), "{heard:?}");
    assert!(api.seen().iter().any(|line| line.starts_with("PATCH /api/v1/nodes/nas?")), "not cordoned");
    assert_eq!(api.count("POST /api/v1/namespaces/web/pods/held/eviction"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_would_lose_something_is_refused_with_names() {
    if !may_run() {
        return;
    }
    let evictions = Evictions::new(&[
        pod("alone", json!({ "owner": [] })),
        pod("cache", json!({ "spec": { "containers": [], "volumes": [{ "name": "v", "emptyDir": {} }] } })),
        pod("plain", json!({})),
    ]);
    let hub = evictions.clone();
    let api = Api::start(move |request| hub.answer(request, |_| false)).await;
    let cluster = connect(&api).await;
    let error = cluster.drain("nas", &patient(), &|_| ()).await.expect_err("refused");
    let text = error.to_string();
    assert!(
        text.contains("pod web/alone has no controller") && text.contains("pod web/cache has data"),
        "{text}"
    );
    assert!(
        error.hint().is_some_and(|hint| hint.contains("emptyDir") && hint.contains("without a controller"))
    );
    assert_eq!(evictions.pods.lock().expect("no panic").len(), 3);

    let told = DrainOptions { delete_emptydir: true, force_unmanaged: true, ..patient() };
    cluster.drain("nas", &told, &|_| ()).await.expect("drained");
    assert!(evictions.pods.lock().expect("no panic").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_is_held_names_the_budget() {
    if !may_run() {
        return;
    }
    let evictions = Evictions::new(&[pod("held", json!({})), pod("plain", json!({}))]);
    let hub = evictions.clone();
    let api = Api::start(move |request| hub.answer(request, |name| name == "held")).await;
    let cluster = connect(&api).await;
    let options = DrainOptions { timeout: SHORT, ..patient() };
    match cluster.drain("nas", &options, &|_| ()).await.expect_err("held") {
        Error::DrainTimeout { pods, .. } => {
            assert_eq!(pods.len(), 1);
            assert_eq!((pods[0].pod.as_str(), pods[0].budget.as_deref()), ("web/held", Some("web/budget")));
            assert!(pods[0].why.contains("disruption budget"), "{}", pods[0].why);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_given_what_is_wanted_and_a_conflict_is_met_anew() {
    if !may_run() {
        return;
    }
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let noted = bodies.clone();
    let api = Api::start(move |request| {
        if request.line.starts_with("PATCH") {
            let mut bodies = noted.lock().expect("no panic");
            bodies.push((request.query.clone(), request.body.clone()));
            if bodies.len() == 2 {
                return refusal(409, "Conflict", "the object has been modified");
            }
        }
        Reply::Json(200, node("nas", "7", true))
    })
    .await;
    let cluster = connect(&api).await;
    let wanted = NodeWanted {
        labels: BTreeMap::from([("zone".into(), "a".into())]),
        taints: vec!["gpu=yes:NoSchedule".parse().expect("a taint")],
        ..NodeWanted::default()
    };
    let changed = cluster.apply_node("nas", &wanted).await.expect("applied");
    let value = |attribute: &str, after: &str| Difference::value(attribute, None, Some(after));
    assert_eq!(changed, [value("label zone", "a"), value("taint gpu:NoSchedule", "yes")]);
    let bodies = bodies.lock().expect("no panic").clone();
    let [(query, labels), (_, first), (_, second)] = &bodies[..] else { panic!("{bodies:?}") };
    assert!(query.contains("force=true") && query.contains("fieldManager=datahub"), "{query}");
    assert_eq!(
        (&labels["metadata"]["uid"], &labels["metadata"]["labels"]),
        (&json!("uid-nas"), &json!({ "zone": "a" }))
    );
    assert_eq!(first, second);
    assert_eq!(first["metadata"]["resourceVersion"], "7");
    assert_eq!(first["spec"]["taints"], json!([{ "key": "gpu", "value": "yes", "effect": "NoSchedule" }]));

    let before = api.seen().len();
    assert_eq!(cluster.apply_node("nas", &NodeWanted::default()).await.expect("nothing to do"), []);
    assert_eq!(api.seen()[before..].iter().filter(|line| line.starts_with("PATCH")).count(), 0);
}

fn widgets(request: &Request, dry: &Value) -> Reply {
    let resource = |kind: &str| {
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "x.io/v1", "resources": [
            { "name": "widgets", "singularName": "widget", "namespaced": true, "kind": kind, "verbs": ["get"] },
        ]})
    };
    let widget = |size: u8| {
        let metadata = json!({ "name": "w", "namespace": "web", "resourceVersion": "1" });
        json!({ "apiVersion": "x.io/v1", "kind": "Widget", "metadata": metadata, "spec": { "size": size } })
    };
    match request.line.as_str() {
        "GET /apis/x.io/v1" => Reply::Json(200, resource("Widget")),
        "PATCH /apis/x.io/v1/namespaces/web/widgets/w" if request.query.contains("dryRun=All") => {
            Reply::Json(200, dry.clone())
        }
        "GET /apis/x.io/v1/namespaces/web/widgets/w" => Reply::Json(200, widget(1)),
        "PATCH /apis/x.io/v1/namespaces/web/widgets/w" => Reply::Json(200, request.body.clone()),
        "GET /apis/x.io/v1/namespaces/web/widgets" if request.is_watch() => {
            let (sender, events) = mpsc::unbounded_channel();
            sender.send(event("MODIFIED", &widget(2))).expect("open");
            Reply::Watch(events)
        }
        "GET /apis/x.io/v1/namespaces/web/widgets" => list("Widget", "1", &[widget(1)]),
        _ => Reply::Text(404, "404 page not found".into()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_any_kind() {
    if !may_run() {
        return;
    }
    let metadata = json!({ "name": "w", "namespace": "web" });
    let wanted =
        json!({ "apiVersion": "x.io/v1", "kind": "Widget", "metadata": metadata, "spec": { "size": 2 } });
    let wanted = object(wanted).expect("an object");
    let mut dry = serde_json::to_value(&wanted).expect("JSON");
    dry["metadata"]["resourceVersion"] = "1".into();
    let api = Api::start(move |request| widgets(request, &dry)).await;
    let cluster = connect(&api).await;
    match &cluster.diff(&wanted).await.expect("a diff")[..] {
        [Difference::Text { path, before: Some(before), after: Some(after) }] => {
            assert_eq!(path, "Widget web/w");
            assert_eq!(before.replace("size: 1", "size: 2"), *after);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(cluster.apply(&wanted).await.expect("applied").data["spec"]["size"], 2);
    assert_eq!(api.count("GET /apis/x.io/v1?"), 1, "a kind is looked up once");
    let applied = api.seen().into_iter().rfind(|line| line.starts_with("PATCH")).expect("applied");
    for part in ["force=true", "fieldManager=datahub", "fieldValidation=Strict"] {
        assert!(applied.contains(part), "{applied}");
    }

    let which = ObjectRef::from(&wanted);
    let grown = Condition::of("large", |widget| match widget.data["spec"]["size"].as_u64() {
        Some(2) => Check::Done,
        size => Check::NotYet(format!("its size is {size:?}")),
    });
    let found = cluster.wait(&which, &grown, LONG, &silent).await.expect("large").expect("there");
    assert_eq!(found.data["spec"]["size"], 2);
    let failing = Condition::of("well", |_| Check::Failed("broken".into()));
    let error = cluster.wait(&which, &failing, LONG, &silent).await.expect_err("failed");
    assert_eq!(error.to_string(), "Widget web/w has failed: broken");
    let never = Condition::of("red", |_| Check::NotYet("it is green".into()));
    let error = cluster.wait(&which, &never, SHORT, &silent).await.expect_err("too late");
    assert_eq!(error.to_string(), "Widget web/w was not red within 0 s: it is green");

    let unknown = ObjectRef::new("y.io/v1", "Gadget", None, "g");
    assert!(matches!(cluster.get(&unknown).await, Err(Error::UnknownKind { .. })));
    let unknown = ObjectRef::new("x.io/v1", "Gadget", None, "g");
    assert!(matches!(cluster.get(&unknown).await, Err(Error::UnknownKind { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_survives_the_ssh_connection() {
    let Some(ssh) = sshd::Server::start() else { return };
    let ready = Arc::new(AtomicUsize::new(0));
    let state = ready.clone();
    let api = Api::start(move |request| {
        let ready = state.load(Ordering::Relaxed) > 0;
        match (request.is_watch(), ready) {
            (true, false) => Reply::Watch(pending()),
            (true, true) => {
                let (sender, events) = mpsc::unbounded_channel();
                sender.send(event("MODIFIED", &node("nas", "2", true))).expect("open");
                Reply::Watch(events)
            }
            _ => list("Node", "1", &[node("nas", "1", ready)]),
        }
    })
    .await;
    let transport: Arc<dyn Transport> = Arc::new(ssh.connect().await);
    let cluster = Cluster::connect(transport.clone(), options(&api)).await.expect("connects");
    let cut = async {
        while !api.seen().iter().any(|line| line.contains("watch=true")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // The parent of the login shell is this connection's own sshd.
        let killed = transport.run(&Script::new("kill -9 $PPID; sleep 5")).await;
        assert!(matches!(killed, Err(transport::Error::Lost(_))), "{killed:?}");
        ready.store(1, Ordering::Relaxed);
    };
    let wanted = Ready::default();
    let (node, ()) = tokio::join!(cluster.wait_ready("nas", &wanted, LONG, &silent), cut);
    assert!(node.expect("ready").ready);
    // The connection that was opened anew serves everybody.
    assert_eq!(transport.run(&Script::new("echo back")).await.expect("runs").stdout, b"back\n");

    // An API server that is down is not a lost connection.
    api.stop();
    let impatient = Options { patience: SHORT, ..options(&api) };
    let cluster = Cluster::connect(transport.clone(), impatient).await.expect("connects");
    match cluster.nodes().await.expect_err("nobody there") {
        Error::Unreachable { last, .. } => assert!(last.contains("nothing answers at 127.0.0.1"), "{last}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_forward_is_told_at_once() {
    let Some(ssh) = sshd::Server::start_with("AllowTcpForwarding no") else { return };
    let api = Api::start(|_| Reply::Cut).await;
    let cluster = Cluster::connect(Arc::new(ssh.connect().await), options(&api)).await.expect("connects");
    let error = cluster.nodes().await.expect_err("no way");
    assert!(matches!(error, Error::Transport(transport::Error::NotForwarded { .. })), "{error:?}");
    assert!(error.hint().is_some_and(|hint| hint.contains("AllowTcpForwarding")));
    assert!(api.seen().is_empty());
}
