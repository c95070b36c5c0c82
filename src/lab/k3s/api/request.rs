//! A request after its body was read.

use bytes::Bytes;

use crate::lab::k3s::pki::Identity;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A client certificate that the client CA signed.
    Certificate(Identity),
    /// The cluster's server token.
    Server,
    /// The cluster's agent token, or a bootstrap token.
    Agent,
    Anonymous,
}

impl Caller {
    pub fn user(&self) -> &str {
        match self {
            Self::Certificate(identity) => &identity.user,
            Self::Server => "server",
            Self::Agent => "node",
            Self::Anonymous => "system:anonymous",
        }
    }

    /// Whether the caller may use the Kubernetes API: administrators, nodes, the server itself. RBAC is not kept.
    pub fn may_use_api(&self) -> bool {
        match self {
            Self::Certificate(identity) => identity
                .groups
                .iter()
                .any(|group| matches!(group.as_str(), "system:masters" | "system:nodes")),
            Self::Server => true,
            Self::Agent | Self::Anonymous => false,
        }
    }
}

/// A whole request.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: hyper::Method,
    pub path: String,
    pub query: String,
    pub headers: hyper::HeaderMap,
    pub content_type: String,
    pub body: Bytes,
    pub caller: Caller,
}

impl Request {
    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The default field manager: the user agent up to its first slash.
    pub fn agent(&self) -> &str {
        let agent = self.header("user-agent").unwrap_or("unknown");
        agent.split('/').next().filter(|name| !name.is_empty()).unwrap_or("unknown")
    }
}
