//! An API server for tests: real HTTP over real TLS with client certificates, its answers given by the test.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// What was asked.
pub struct Request {
    /// `GET /api/v1/nodes`
    pub line: String,
    /// As it came: `watch=true&resourceVersion=5`.
    pub query: String,
    /// Null for none.
    pub body: Value,
}

impl Request {
    pub fn is_watch(&self) -> bool {
        self.query.contains("watch=true")
    }
}

pub enum Reply {
    Json(u16, Value),
    Text(u16, String),
    /// The events of a watch, after which the connection is cut.
    WatchThenCut(Vec<Value>),
    /// The events of a watch, as they come.
    Watch(UnboundedReceiver<Value>),
    /// The connection is cut before an answer.
    Cut,
}

/// An error as the API words it.
pub fn refusal(code: u16, reason: &str, message: &str) -> Reply {
    Reply::Json(
        code,
        json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure",
            "code": code, "reason": reason, "message": message,
        }),
    )
}

pub fn list(kind: &str, version: &str, items: &[Value]) -> Reply {
    Reply::Json(
        200,
        json!({
            "kind": format!("{kind}List"), "apiVersion": "v1",
            "metadata": { "resourceVersion": version }, "items": items,
        }),
    )
}

type Handler = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

pub struct Api {
    pub port: u16,
    dir: tempfile::TempDir,
    tls: TlsAcceptor,
    handler: Handler,
    seen: Arc<Mutex<Vec<String>>>,
    running: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

struct Identity {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

fn identity(authority: &CertifiedIssuer<'static, KeyPair>, name: &str) -> Identity {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
    Identity { certificate: params.signed_by(&key, authority).expect("signed"), key }
}

fn acceptor(authority: &CertifiedIssuer<'static, KeyPair>) -> TlsAcceptor {
    let server = identity(authority, "127.0.0.1");
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).expect("a root");
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().expect("a verifier");
    let key = PrivateKeyDer::Pkcs8(server.key.serialize_der().into());
    let config = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![server.certificate.der().clone()], key)
        .expect("a configuration");
    TlsAcceptor::from(Arc::new(config))
}

fn data(pem: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(pem)
}

fn user(client: &Identity) -> Value {
    json!({
        "client-certificate-data": data(&client.certificate.pem()),
        "client-key-data": data(&client.key.serialize_pem()),
    })
}

fn kubeconfig(port: u16, authority: &str, user: &Value) -> String {
    json!({
        "kind": "Config",
        "clusters": [{ "name": "default", "cluster": {
            "server": format!("https://127.0.0.1:{port}"), "certificate-authority-data": data(authority) } }],
        "users": [{ "name": "default", "user": user }],
        "contexts": [{ "name": "default", "context": { "cluster": "default", "user": "default" } }],
        "current-context": "default",
    })
    .to_string()
}

impl Api {
    pub async fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let (ours, foreign) = (authority(), authority());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let dir = tempfile::tempdir().expect("a folder");
        let client = user(&identity(&ours, "admin"));
        let stranger = user(&identity(&foreign, "admin"));
        let command = json!({ "exec": { "apiVersion": "client.authentication.k8s.io/v1", "command": "touch",
            "args": [dir.path().join("ran")], "interactiveMode": "Never" } });
        let write = |name: &str, authority: &CertifiedIssuer<'_, KeyPair>, user: &Value| {
            std::fs::write(dir.path().join(name), kubeconfig(port, &authority.pem(), user)).expect("written");
        };
        write("k3s.yaml", &ours, &client);
        write("other-authority.yaml", &foreign, &client);
        write("other-client.yaml", &ours, &stranger);
        write("planted.yaml", &ours, &command);
        let api = Self {
            port,
            dir,
            tls: acceptor(&ours),
            handler: Arc::new(handler),
            seen: Arc::default(),
            running: Mutex::default(),
        };
        api.serve(listener);
        api
    }

    /// The path of a kubeconfig: `k3s.yaml` is good; `other-authority.yaml` and `other-client.yaml` are not,
    /// and `planted.yaml` logs in by a command that makes a file `ran` beside it.
    pub fn kubeconfig(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Method, path and query of every request so far.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("no panic").clone()
    }

    /// How many requests began like this.
    pub fn count(&self, start: &str) -> usize {
        self.seen().iter().filter(|line| line.starts_with(start)).count()
    }

    /// Ends the server and all its connections, as a restart does.
    pub fn stop(&self) {
        if let Some(running) = self.running.lock().expect("no panic").take() {
            running.abort();
        }
    }

    /// Starts it again on the same port.
    pub async fn resume(&self) {
        loop {
            match TcpListener::bind(("127.0.0.1", self.port)).await {
                Ok(listener) => return self.serve(listener),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    }

    fn serve(&self, listener: TcpListener) {
        let (tls, handler, seen) = (self.tls.clone(), self.handler.clone(), self.seen.clone());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, handler, seen) = (tls.clone(), handler.clone(), seen.clone());
                connections.spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let service = service_fn(|request| answer(request, handler.clone(), seen.clone()));
                    // A cut connection is what some tests are about.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        *self.running.lock().expect("no panic") = Some(task);
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop();
    }
}

type Body = Either<Full<Bytes>, Channel<Bytes, std::io::Error>>;

async fn answer(
    request: hyper::Request<Incoming>,
    handler: Handler,
    seen: Arc<Mutex<Vec<String>>>,
) -> Result<hyper::Response<Body>, std::io::Error> {
    let (head, body) = request.into_parts();
    let line = format!("{} {}", head.method, head.uri.path());
    let query = head.uri.query().unwrap_or_default().to_owned();
    seen.lock().expect("no panic").push(format!("{line}?{query}"));
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let (status, kind, body) = match handler(&Request { line, query, body }) {
        Reply::Json(status, value) => (status, "application/json", full(value.to_string())),
        Reply::Text(status, text) => (status, "text/plain", full(text)),
        Reply::WatchThenCut(events) => (200, "application/json", cut_after(events)),
        Reply::Watch(events) => (200, "application/json", live(events)),
        Reply::Cut => return Err(std::io::Error::other("cut")),
    };
    let response = hyper::Response::builder().status(status).header("content-type", kind).body(body);
    Ok(response.expect("a response"))
}

fn full(text: String) -> Body {
    Either::Left(Full::from(text))
}

/// A client that has gone away has seen enough.
async fn send(sender: &mut Sender<Bytes, std::io::Error>, event: &Value) {
    let _ = sender.send_data(Bytes::from(format!("{event}\n"))).await;
}

fn cut_after(events: Vec<Value>) -> Body {
    let (mut sender, body) = Channel::new(16);
    tokio::spawn(async move {
        for event in &events {
            send(&mut sender, event).await;
        }
        // What has been sent must get through before the cut.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        sender.abort(std::io::Error::other("cut"));
    });
    Either::Right(body)
}

fn live(mut events: UnboundedReceiver<Value>) -> Body {
    let (mut sender, body) = Channel::new(16);
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            send(&mut sender, &event).await;
        }
    });
    Either::Right(body)
}
