//! Connecting: the kubeconfig is read from the server, and every connection goes through its SSH session.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ::kube::client::{Body, Client, ConfigExt as _};
use ::kube::config::{AuthInfo, Cluster as ClusterInfo, KubeConfigOptions, Kubeconfig};
use ::kube::core::{ApiResource, GroupVersionKind};
use ::kube::discovery::Scope;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower::ServiceBuilder;

use super::error::{Error, Failure, classify};
use crate::secret::Secret;
use crate::shell;
use crate::transport::prompt::printable;
use crate::transport::{self, Script, Stream, Transport};

/// Where K3s writes its admin kubeconfig.
pub const K3S_KUBECONFIG: &str = "/etc/rancher/k3s/k3s.yaml";

/// How the API is reached and how long it may be silent.
#[derive(Debug, Clone)]
pub struct Options {
    /// Path of the admin kubeconfig on the server.
    pub kubeconfig: String,
    /// One attempt of a request takes at most this long.
    pub request: Duration,
    /// A request is tried again for this long: a K3s server needs half a minute to restart on a small board.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kubeconfig: K3S_KUBECONFIG.into(),
            request: Duration::from_secs(30),
            patience: Duration::from_secs(90),
        }
    }
}

/// A cluster's API. Clones share its connections.
#[derive(Clone)]
pub struct Cluster {
    pub(super) client: Client,
    pub(super) kinds: Arc<Mutex<HashMap<GroupVersionKind, (ApiResource, Scope)>>>,
    options: Arc<Options>,
}

/// What the API server says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readyz {
    pub ready: bool,
    /// The checks that fail, by name: `etcd`, `poststarthook/rbac/bootstrap-roles`.
    pub failing: Vec<String>,
}

/// Reads the admin kubeconfig as it is on the server: it names 127.0.0.1, and it holds a private key.
pub async fn read_kubeconfig(transport: &dyn Transport, path: &str) -> Result<Secret, Error> {
    let quoted = shell::quote(path);
    let script = Script::new(format!("[ -e {quoted} ] || exit 66\nexec cat -- {quoted}"));
    let output = transport::renewing(transport, || transport.run(&script)).await?;
    let bad = |why: String| Error::BadKubeconfig { path: path.into(), why };
    match output.status {
        0 => String::from_utf8(output.stdout).map(Secret::new).map_err(|_| bad("it is not text".into())),
        66 => Err(Error::NoKubeconfig { path: path.into() }),
        _ => Err(bad(printable(String::from_utf8_lossy(&output.stderr).trim()))),
    }
}

impl Cluster {
    /// Reads the kubeconfig and makes ready to connect to the API server it names, as the server sees it.
    /// Asks nothing of the API yet: see [`Cluster::readyz`].
    pub async fn connect(transport: Arc<dyn Transport>, options: Options) -> Result<Self, Error> {
        let bad = |why: &str| Error::BadKubeconfig { path: options.kubeconfig.clone(), why: why.into() };
        let text = read_kubeconfig(&*transport, &options.kubeconfig).await?;
        // The parser's own message shows lines of the file, and with them the key.
        let parsed = Kubeconfig::from_yaml(text.expose()).map_err(|_| bad("it is not a kubeconfig"))?;
        let current = KubeConfigOptions::default();
        let config = ::kube::Config::from_custom_kubeconfig(self_contained(parsed), &current)
            .await
            .map_err(|_| bad("its current context has no usable cluster and user"))?;
        if config.cluster_url.scheme_str() != Some("https") || config.root_cert.is_none() {
            return Err(bad("it names no https server with an authority of its own"));
        }
        let connector = tower::service_fn(move |uri| dial(transport.clone(), uri));
        let tls = config
            .rustls_https_connector_with_connector(connector)
            .map_err(|_| bad("its certificates or its key cannot be used"))?;
        let http: legacy::Client<_, Body> = legacy::Client::builder(TokioExecutor::new()).build(tls);
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer().map_err(|_| bad("its way to log in cannot be used"))?)
            .map_err(tower::BoxError::from)
            .service(http);
        let client = Client::new(service, config.default_namespace);
        Ok(Self { client, kinds: Arc::default(), options: Arc::new(options) })
    }

    /// Whether the API server is ready to serve, and if not, which of its checks fail. An API server that
    /// does not answer at all is an error.
    pub async fn readyz(&self) -> Result<Readyz, Error> {
        self.call("ask the API server whether it is ready", || self.ask_readyz()).await
    }

    /// Waits until the API server is ready. It is asked again and again: there is nothing yet that could
    /// tell. `progress` hears what is missing, each time that changes.
    pub async fn wait_readyz(
        &self,
        limit: Duration,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<(), Error> {
        let end = Instant::now() + limit;
        let mut pauses = Pauses::default();
        let mut missing = String::new();
        loop {
            let why =
                match self.attempt("ask the API server whether it is ready", || self.ask_readyz()).await? {
                    Ok(Readyz { ready: true, .. }) => return Ok(()),
                    Ok(Readyz { failing, .. }) => format!("its checks fail: {}", failing.join(", ")),
                    Err(why) => why,
                };
            if why != missing {
                progress(&why);
                missing = why;
            }
            let pause = pauses.after();
            if Instant::now() + pause > end {
                let (what, wanted) = ("the API server".into(), "ready".into());
                return Err(Error::Timeout { what, wanted, limit, last: missing });
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// The API server's version: `v1.36.2+k3s1`.
    pub async fn server_version(&self) -> Result<String, Error> {
        let info = self.call("ask for the server's version", || self.client.apiserver_version()).await?;
        Ok(printable(&info.git_version))
    }

    /// Makes a request, again and again while the API server or the way to it is gone. Only for what may
    /// happen twice: nothing tells whether a request that was cut off was carried out.
    pub(super) async fn call<T, F>(&self, what: &str, request: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = ::kube::Result<T>>,
    {
        let begun = Instant::now();
        let mut pauses = Pauses::default();
        loop {
            let last = match self.attempt(what, &request).await? {
                Ok(answer) => return Ok(answer),
                Err(why) => why,
            };
            let pause = pauses.after();
            if begun.elapsed() + pause > self.options.patience {
                let patience = self.options.patience;
                return Err(Error::Unreachable { what: what.into(), patience, last });
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Makes a request once; the inner error is why it may go better the next time.
    async fn attempt<T, F>(&self, what: &str, request: impl Fn() -> F) -> Result<Result<T, String>, Error>
    where
        F: Future<Output = ::kube::Result<T>>,
    {
        match tokio::time::timeout(self.options.request, request()).await {
            Ok(Ok(answer)) => Ok(Ok(answer)),
            Ok(Err(error)) => match classify(what, &error) {
                Failure::Permanent(error) => Err(error),
                Failure::Transient(why) => Ok(Err(why)),
            },
            Err(_) => Ok(Err(format!("no answer within {} s", self.options.request.as_secs()))),
        }
    }

    /// Its answer is text, and its status says whether it is ready. One that cannot check who asks yet is
    /// not.
    async fn ask_readyz(&self) -> ::kube::Result<Readyz> {
        let request = http::Request::get("/readyz?verbose").body(Body::empty());
        let response = self.client.send(request.map_err(::kube::Error::HttpError)?).await?;
        let status = response.status();
        let text = response.into_body().collect_bytes().await?;
        let mut failing = failing(&String::from_utf8_lossy(&text));
        if failing.is_empty() && !status.is_success() {
            failing.push(format!("it answers {status}"));
        }
        Ok(Readyz { ready: status.is_success(), failing })
    }
}

/// Only what stands in the file itself. A node that has been broken into could otherwise have a command of
/// its choice run on this machine (`exec`), or a file of this machine sent to it.
fn self_contained(mut kubeconfig: Kubeconfig) -> Kubeconfig {
    for cluster in kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
        *cluster = ClusterInfo {
            server: cluster.server.take(),
            certificate_authority_data: cluster.certificate_authority_data.take(),
            tls_server_name: cluster.tls_server_name.take(),
            ..ClusterInfo::default()
        };
    }
    for user in kubeconfig.auth_infos.iter_mut().filter_map(|named| named.auth_info.as_mut()) {
        *user = AuthInfo {
            client_certificate_data: user.client_certificate_data.take(),
            client_key_data: user.client_key_data.take(),
            token: user.token.take(),
            ..AuthInfo::default()
        };
    }
    kubeconfig
}

/// The names on the lines that begin with `[-]`.
fn failing(verbose: &str) -> Vec<String> {
    verbose
        .lines()
        .filter_map(|line| line.strip_prefix("[-]"))
        .map(|line| printable(line.split_once(" failed").map_or(line, |(name, _)| name)))
        .collect()
}

/// Ever longer pauses between attempts, up to five seconds.
#[derive(Default)]
pub(super) struct Pauses(u32);

impl Pauses {
    pub fn after(&mut self) -> Duration {
        let pause = Duration::from_millis(100) * 2u32.pow(self.0);
        self.0 += 1;
        let longest = Duration::from_secs(5);
        if pause >= longest {
            self.0 -= 1;
        }
        pause.min(longest)
    }
}

/// A connection to the API server, over a new SSH connection if the old one is gone.
async fn dial(
    transport: Arc<dyn Transport>,
    uri: http::Uri,
) -> Result<TokioIo<Conversation>, transport::Error> {
    let host = uri.host().unwrap_or("127.0.0.1").trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(443);
    let stream = transport::renewing(&*transport, || transport.open_stream(host, port)).await?;
    Ok(TokioIo::new(Conversation(stream)))
}

/// A stream in the shape the HTTP client wants.
struct Conversation(Box<dyn Stream>);

impl Connection for Conversation {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Conversation {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Conversation {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failing_checks_are_named() {
        let verbose = "[+]ping ok\n[-]etcd failed: reason withheld\n[+]log ok\n\
            [-]poststarthook/rbac/bootstrap-roles failed: not finished\nreadyz check failed\n";
        assert_eq!(failing(verbose), ["etcd", "poststarthook/rbac/bootstrap-roles"]);
        assert!(failing("ok").is_empty());
    }

    #[test]
    fn pauses_grow_and_end_growing() {
        let mut pauses = Pauses::default();
        let all: Vec<Duration> = (0..40).map(|_| pauses.after()).collect();
        assert_eq!(all[0], Duration::from_millis(100));
        assert!(all.is_sorted());
        assert_eq!(all[39], Duration::from_secs(5));
    }

    #[tokio::test]
    async fn a_kubeconfig_that_cannot_be_used_shows_nothing_of_itself() {
        use crate::transport::Output;
        use crate::transport::scripted::Scripted;
        let connect = async |node: Scripted| {
            Cluster::connect(Arc::new(node), Options::default()).await.err().expect("refused")
        };
        let absent = Output { status: 66, ..Output::default() };
        let error = connect(Scripted::new().expect(K3S_KUBECONFIG, absent)).await;
        assert!(matches!(error, Error::NoKubeconfig { .. }), "{error:?}");
        for text in ["clusters: [client-key-data: geheim", "client-key-data: geheim", "geheim", ""] {
            let error = connect(Scripted::new().prints(K3S_KUBECONFIG, text)).await;
            assert!(matches!(error, Error::BadKubeconfig { .. }), "{error:?}");
            assert!(!format!("{error} {error:?}").contains("geheim"), "{error:?}");
        }
    }
}
