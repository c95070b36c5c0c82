//! The port: accepts connections, finds out who calls, hands requests to the API.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::api::{self, ApiError, Caller, Reply, Request};
use super::cluster::Cluster;
use super::pki::{self, Identity};
use super::store::Key;
use super::{Failure, tls, token};

/// A stranger who says nothing is not waited for.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The API's limit for a request's body, in bytes.
const BODY: usize = 3 << 20;

/// Serves until the task is dropped.
pub async fn serve(cluster: Arc<Cluster>, listener: TcpListener) -> Result<(), Failure> {
    let acceptor =
        TlsAcceptor::from(tls::server(&cluster.pki.client_ca.certificate, cluster.serving.clone())?);
    let mut connections = JoinSet::new();
    loop {
        // A connection that ends before it is accepted is its caller's affair.
        let Ok((stream, _)) = listener.accept().await else { continue };
        connections.spawn(connection(cluster.clone(), acceptor.clone(), stream));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(cluster: Arc<Cluster>, acceptor: TlsAcceptor, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else { return };
    let identity =
        stream.get_ref().1.peer_certificates().and_then(|chain| pki::identity(chain.first()?).ok());
    let service = service_fn(move |request| {
        let (cluster, identity) = (cluster.clone(), identity.clone());
        async move { Ok::<_, Infallible>(answer(&cluster, identity, request).await.into_http()) }
    });
    // A caller that hangs up is no error of the server.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(cluster: &Cluster, identity: Option<Identity>, request: hyper::Request<Incoming>) -> Reply {
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY).collect().await else {
        return ApiError::bad_request("the body of the request is too large, or was cut").into();
    };
    let header =
        |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let caller = match identity {
        Some(identity) => Caller::Certificate(identity),
        None => by_credentials(cluster, header("authorization")),
    };
    let request = Request {
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        content_type: header("content-type").to_owned(),
        method: parts.method,
        headers: parts.headers,
        body: body.to_bytes(),
        caller,
    };
    api::answer(cluster, &request)
}

/// Who an `Authorization` header means: basic with a token's password, bearer with a bootstrap token.
fn by_credentials(cluster: &Cluster, header: &str) -> Caller {
    if let Some(bearer) = header.strip_prefix("Bearer ") {
        return if is_bootstrap_token(cluster, bearer.trim()) { Caller::Agent } else { Caller::Anonymous };
    }
    let decoded =
        header.strip_prefix("Basic ").and_then(|text| BASE64.decode(text.trim()).ok()).unwrap_or_default();
    let decoded = String::from_utf8(decoded).unwrap_or_default();
    let Some((user, password)) = decoded.split_once(':') else { return Caller::Anonymous };
    let known = &cluster.credentials;
    match (user, password) {
        ("server", password) if password == known.server => Caller::Server,
        // K3s's documentation lets the server token join agents, too.
        ("node", password) if password == known.agent || password == known.server => Caller::Agent,
        _ => Caller::Anonymous,
    }
}

/// `k3s token create` keeps a token as the Secret `bootstrap-token-<id>`; it may have expired.
fn is_bootstrap_token(cluster: &Cluster, bearer: &str) -> bool {
    if !token::is_bootstrap(bearer) {
        return false;
    }
    let Some((id, secret)) = bearer.split_once('.') else { return false };
    let name = format!("bootstrap-token-{id}");
    let Some(kept) = cluster.store.get(&Key::new("secrets", "kube-system", &name)) else { return false };
    let field = |name: &str| {
        let bytes = BASE64.decode(kept["data"][name].as_str().unwrap_or_default()).unwrap_or_default();
        String::from_utf8(bytes).unwrap_or_default()
    };
    let expired =
        field("expiration").parse::<jiff::Timestamp>().is_ok_and(|end| end < jiff::Timestamp::now());
    field("token-secret") == secret && !expired
}
