//! The HTTPS client of agents, joining servers and `k3s kubectl`.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;

use super::pki::Pair;
use super::token::{Credentials, Token};
use super::{Failure, tls};

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server, and who we are for it.
pub struct Client {
    /// `https://<host>:<port>`
    url: String,
    host: String,
    port: u16,
    tls: Arc<rustls::ClientConfig>,
    authorization: Option<String>,
    agent: String,
    open: tokio::sync::Mutex<Option<SendRequest<Full<Bytes>>>>,
}

/// A request to be sent.
pub struct Call<'a> {
    pub method: Method,
    /// With its query.
    pub path: &'a str,
    pub content_type: &'a str,
    pub headers: &'a [(&'a str, String)],
    pub body: Vec<u8>,
}

impl<'a> Call<'a> {
    pub fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, content_type: "application/json", headers: &[], body: Vec::new() }
    }

    pub fn json(method: Method, path: &'a str, body: &Value) -> Self {
        Self { method, body: body.to_string().into_bytes(), ..Self::get(path) }
    }
}

/// A response.
pub struct Answer {
    pub code: u16,
    pub body: Bytes,
}

impl Answer {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.code)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `Null` where it is none.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl Client {
    /// A client of `https://<host>[:<port>]`; without an authority the server's certificate is not checked.
    pub fn new(url: &str, server_ca: Option<&str>, own: Option<&Pair>, agent: &str) -> Result<Self, Failure> {
        let authority = url
            .strip_prefix("https://")
            .ok_or_else(|| Failure::said(format!("only https:// URLs are supported, invalid scheme: {url}")))?
            .trim_end_matches('/');
        let (host, port) = split_port(authority).unwrap_or((authority, 443));
        Ok(Self {
            url: format!("https://{authority}"),
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            tls: tls::client(server_ca, own)?,
            authorization: None,
            agent: agent.to_owned(),
            open: tokio::sync::Mutex::default(),
        })
    }

    /// Authenticates with a token; `user` stands in for the token's own, as agents do it.
    #[must_use]
    pub fn with_token(mut self, token: &Token, user: &str) -> Self {
        self.authorization = Some(match &token.credentials {
            Credentials::Bootstrap(token) => format!("Bearer {token}"),
            Credentials::Password { password, .. } => {
                format!("Basic {}", BASE64.encode(format!("{user}:{password}")))
            }
        });
        self
    }

    /// Sends a request and reads the whole response. One connection is kept open.
    pub async fn send(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let exchange = async {
            let mut open = self.open.lock().await;
            let kept = open.take().filter(|connection| !connection.is_closed());
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.connect(call).await?,
            };
            connection.ready().await.map_err(|error| self.failed(call, &error))?;
            let response = connection
                .send_request(self.request(call)?)
                .await
                .map_err(|error| self.failed(call, &error))?;
            let code = response.status().as_u16();
            let body =
                response.into_body().collect().await.map_err(|error| self.failed(call, &error))?.to_bytes();
            *open = Some(connection);
            Ok(Answer { code, body })
        };
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(self.failed(call, &"context deadline exceeded")),
        }
    }

    /// Opens a stream, a watch, on a connection of its own.
    pub async fn stream(&self, path: &str) -> Result<Response<Incoming>, Failure> {
        let call = Call::get(path);
        let mut connection = self.connect(&call).await?;
        connection.send_request(self.request(&call)?).await.map_err(|error| self.failed(&call, &error))
    }

    async fn connect(&self, call: &Call<'_>) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|error| {
            let why = match error.kind() {
                std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
                _ => error.to_string(),
            };
            self.failed(call, &format!("dial tcp {}:{}: {why}", self.host, self.port))
        })?;
        let _ = stream.set_nodelay(true);
        let name = ServerName::try_from(self.host.clone()).map_err(|error| self.failed(call, &error))?;
        let stream = tokio_rustls::TlsConnector::from(self.tls.clone())
            .connect(name, stream)
            .await
            .map_err(|error| self.failed(call, &format!("tls: {error}")))?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.failed(call, &error))?;
        // Its end shows when the next request is sent.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    fn request(&self, call: &Call<'_>) -> Result<hyper::Request<Full<Bytes>>, Failure> {
        let mut request = hyper::Request::builder()
            .method(&call.method)
            .uri(call.path)
            .header("host", format!("{}:{}", self.host, self.port))
            .header("user-agent", &self.agent)
            .header("content-type", call.content_type);
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        for (name, value) in call.headers {
            request = request.header(*name, value);
        }
        request.body(Full::new(Bytes::from(call.body.clone()))).map_err(Failure::request)
    }

    /// As Go's client says it.
    fn failed(&self, call: &Call<'_>, why: &dyn std::fmt::Display) -> Failure {
        let method = call.method.as_str();
        let shown = format!("{}{}", &method[..1], method[1..].to_lowercase());
        Failure::Request(format!("{shown} \"{}{}\": {why}", self.url, call.path))
    }
}

fn split_port(authority: &str) -> Option<(&str, u16)> {
    let (host, port) = authority.rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}

/// Asks a server for its CA and checks it against the token, as every node does before it says who it is.
pub async fn fetch_ca(url: &str, token: &Token, agent: &str) -> Result<String, Failure> {
    let stranger = Client::new(url, None, None, agent)?;
    let answer = stranger.send(&Call::get("/cacerts")).await;
    let answer = answer.map_err(|error| Failure::said(format!("failed to get CA certs: {error}")))?;
    if !answer.is_success() {
        return Err(Failure::said(format!(
            "failed to get CA certs: {}/cacerts: {}",
            stranger.url, answer.code
        )));
    }
    let pem = answer.text();
    token.check_ca(&pem)?;
    if token.ca_hash.is_none() {
        super::log::warn(
            "Cluster CA certificate is not trusted by the host CA bundle, but the token does not include a CA hash. \
             Use the full token from the server's node-token file to enable Cluster CA validation.",
        );
    }
    Ok(pem)
}
