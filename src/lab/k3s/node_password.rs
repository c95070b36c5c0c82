//! A node's password: made by the node, remembered by the cluster in the Secret `<node>.node-password.k3s`.
//!
//! A node that was set up anew comes with another password and is refused until that Secret is deleted. The hash is
//! a salted SHA-256 here, scrypt in K3s.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::objects::{CONTROLLER, Writer};
use super::store::{Key, Store};
use super::{Failure, resources, token};

/// Whether the password is the node's; the first one that is seen becomes it.
pub fn check(store: &Store, node: &str, password: &str) -> Result<bool, Failure> {
    let name = format!("{node}.node-password.k3s");
    if let Some(secret) = store.get(&Key::new("secrets", "kube-system", &name)) {
        let kept = secret["data"]["hash"].as_str().unwrap_or_default();
        let kept = BASE64.decode(kept).unwrap_or_default();
        return Ok(verify(&String::from_utf8_lossy(&kept), password));
    }
    let secrets = resources::find(store, "", "v1", "secrets").ok_or_else(|| Failure::said("no secrets"))?;
    let writer = Writer {
        store,
        resource: &secrets,
        namespace: "kube-system",
        name: &name,
        subresource: "",
        manager: CONTROLLER,
        dry_run: false,
    };
    let salt = token::random_hex(8);
    let secret = json!({
        "metadata": {"name": name}, "type": "Opaque", "immutable": true,
        "data": {"hash": BASE64.encode(hash(&salt, password))},
    });
    writer.create(secret).map(|_| true).map_err(|error| Failure::said(error.message))
}

fn hash(salt: &str, password: &str) -> String {
    format!("$sim:{salt}:{}", token::hex(&Sha256::digest(format!("{salt}:{password}"))))
}

fn verify(kept: &str, password: &str) -> bool {
    kept.split(':').nth(1).is_some_and(|salt| hash(salt, password) == kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes() {
        let kept = hash("5a17", "secret");
        assert!(verify(&kept, "secret"));
        assert!(!verify(&kept, "other"));
        assert!(!verify("", "secret"));
        assert!(!kept.contains("secret"));
    }
}
