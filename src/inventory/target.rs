//! From a node of the inventory to a place to log in.

use super::{HostKeys, Node};
use crate::transport::ssh::{Policy, Target};

impl From<&Node> for Target {
    fn from(node: &Node) -> Self {
        let ssh = &node.ssh;
        Self {
            host: node.host.clone(),
            user: ssh.user.clone(),
            port: ssh.port,
            identity_file: ssh.identity_file.clone(),
            proxy_jump: ssh.proxy_jump.clone(),
            policy: match ssh.host_keys {
                HostKeys::Strict => Policy::Strict,
                HostKeys::AcceptNew => Policy::AcceptNew,
            },
            host_key: ssh.host_key.clone(),
        }
    }
}
