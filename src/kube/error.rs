//! Why something could not be done through the cluster's API, and what to do about it. Holds no secret.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use ::kube::Error as ClientError;

use crate::transport;
use crate::transport::prompt::printable;

/// Each says what to do next in [`Error::hint`].
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("there is no kubeconfig at {path} on the node")]
    NoKubeconfig { path: String },
    #[error("the kubeconfig {path} cannot be used: {why}")]
    BadKubeconfig { path: String, why: String },
    #[error(transparent)]
    Transport(#[from] transport::Error),
    #[error("cannot {what}: the API server did not answer for {} s: {last}", .patience.as_secs())]
    Unreachable { what: String, patience: Duration, last: String },
    #[error("cannot {what}: the API server cannot be trusted: {why}")]
    Tls { what: String, why: String },
    /// The API server said no. `reason` is one word of the API: `Forbidden`, `Invalid`, `NotFound`.
    #[error("cannot {what}: {message}")]
    Refused { what: String, code: u16, reason: String, message: String },
    #[error("cannot {what}: the API server's answer makes no sense: {why}")]
    Answer { what: String, why: String },
    #[error("there is no {what} in the cluster")]
    NotFound { what: String },
    #[error("the cluster does not know objects of kind {kind} in {api_version}")]
    UnknownKind { api_version: String, kind: String },
    #[error("not an object of the API: {why}")]
    BadObject { why: String },
    #[error("this machine gives no random numbers: {why}")]
    NoRandom { why: String },
    #[error("{what} has failed: {why}")]
    Failed { what: String, why: String, output: Vec<String> },
    #[error("{what} was not {wanted} within {} s: {last}", .limit.as_secs())]
    Timeout { what: String, wanted: String, limit: Duration, last: String },
    #[error("node {node} was not ready within {} s: {why}", .limit.as_secs())]
    NotReady { node: String, limit: Duration, why: String, events: Vec<String> },
    #[error("node {node} was not drained: {}", list(.pods))]
    DrainRefused { node: String, pods: Vec<super::drain::Refusal> },
    #[error("node {node} was not drained within {} s: {}", .limit.as_secs(), list(.pods))]
    DrainTimeout { node: String, limit: Duration, pods: Vec<super::drain::Left> },
}

fn list<T: std::fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join("; ")
}

impl Error {
    /// What the person at the keyboard can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoKubeconfig { .. } => {
                "K3s writes it when a server first starts: is this node a server, and is k3s.service running?"
                    .into()
            }
            Self::BadKubeconfig { path, .. } => {
                format!("look at it on the node; K3s writes it anew when {path} is moved away and K3s restarted")
            }
            Self::Transport(error) => return error.hint(),
            Self::Unreachable { .. } => {
                "on the node: systemctl status k3s, then journalctl -u k3s -e".into()
            }
            Self::Tls { .. } => {
                "compare the clocks of both machines; if the cluster was set up anew, its kubeconfig is new too: connect again"
                    .into()
            }
            Self::Refused { code: 401, .. } => {
                "the client certificate in the kubeconfig may have run out: restart K3s on the server, it renews it"
                    .into()
            }
            Self::Refused { code: 409, .. } => "something else changed it at the same time: run again".into(),
            Self::Refused { code: 413, .. } => "the object is too large for the API".into(),
            Self::UnknownKind { .. } => {
                "is the custom resource definition applied, and is its version served?".into()
            }
            Self::NotReady { node, .. } => format!("on {node}: journalctl -u 'k3s*' -e"),
            Self::DrainRefused { pods, .. } => drain_hint(pods),
            Self::DrainTimeout { pods, .. } if pods.iter().any(|pod| pod.budget.is_some()) => {
                "give the budget's workload another ready replica, or relax the PodDisruptionBudget; the node stays cordoned"
                    .into()
            }
            Self::DrainTimeout { .. } => {
                "the pods take long to end: allow more time or a shorter grace period; the node stays cordoned".into()
            }
            Self::Refused { .. }
            | Self::Answer { .. }
            | Self::NotFound { .. }
            | Self::BadObject { .. }
            | Self::NoRandom { .. } => return None,
            Self::Failed { what, .. } => match what.split(' ').next() {
                Some("HelmChart") => "mend what the job says, then run again: the failed try is cleared away and made anew".into(),
                Some("Application" | "ApplicationSet") => "mend it in Git, then run again".into(),
                _ => return None,
            },
            Self::Timeout { .. } => "it may only be slow: run again to go on waiting; what is done stays done".into(),
        })
    }

    /// Whether the API said that the object is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::Refused { code: 404, .. })
    }
}

fn drain_hint(pods: &[super::drain::Refusal]) -> String {
    use super::drain::Cause;
    let has = |cause: Cause| pods.iter().any(|pod| pod.cause == cause);
    let mut parts = Vec::new();
    if has(Cause::LocalData) {
        parts.push("save the data of emptyDir volumes, or allow their loss (delete_emptydir)");
    }
    if has(Cause::NoController) {
        parts.push("nothing starts pods without a controller again: delete them yourself or allow it (force_unmanaged)");
    }
    if has(Cause::DaemonSet) {
        parts.push("pods of a DaemonSet come back at once: let them be (ignore_daemonsets)");
    }
    parts.join("; ")
}

/// What a failed request means.
pub(super) enum Failure {
    /// The API server or the way to it is gone for the moment; why, for people.
    Transient(String),
    Permanent(Error),
}

/// Tells what may pass by itself from what will not. `what` is what was to be done: `read node nas`.
pub(super) fn classify(what: &str, error: &ClientError) -> Failure {
    let what = || what.to_owned();
    match error {
        ClientError::Api(status) => match status.code {
            429 | 502..=504 => Failure::Transient(printable(&status.message)),
            // One that has only just been installed, or is being replaced.
            500 if status.message.contains("failed calling webhook") => {
                Failure::Transient(printable(&status.message))
            }
            code => Failure::Permanent(Error::Refused {
                what: what(),
                code,
                reason: printable(&status.reason),
                message: message(status),
            }),
        },
        ClientError::HyperError(_) | ClientError::Service(_) | ClientError::ReadEvents(_) => {
            connection(&what(), error)
        }
        other => Failure::Permanent(Error::Answer { what: what(), why: printable(&other.to_string()) }),
    }
}

/// The API's own sentence, or the code where it has none.
fn message(status: &::kube::core::Status) -> String {
    match printable(status.message.trim()) {
        text if text.is_empty() => format!("the API server answered {} {}", status.code, status.reason),
        text => text,
    }
}

/// Looks for the error of the way there, or of TLS, under those of the HTTP client.
fn connection(what: &str, error: &ClientError) -> Failure {
    let mut innermost = error.to_string();
    for cause in std::iter::successors(error.source(), |error| below(*error)) {
        if let Some(error) = cause.downcast_ref::<transport::Error>() {
            return way(error);
        }
        // What rustls refuses comes as "invalid data".
        if cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::InvalidData) {
            return Failure::Permanent(Error::Tls { what: what.into(), why: printable(&cause.to_string()) });
        }
        innermost = cause.to_string();
    }
    Failure::Transient(printable(&innermost))
}

/// The cause of an error. An I/O error passes over the one it wraps when asked for its source.
fn below<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a (dyn std::error::Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

fn way(error: &transport::Error) -> Failure {
    use transport::Error::{Lost, Refused, Timeout, Unreachable};
    match error {
        Lost(_) | Refused { .. } | Timeout(_) | Unreachable { .. } => Failure::Transient(error.to_string()),
        _ => Failure::Permanent(Error::Transport(error.clone())),
    }
}
