//! `/etc/rancher/k3s/k3s.yaml`: the administrator's access.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::pki::Pair;
use super::{Failure, files, yaml};

/// Writes the file in K3s's layout.
pub fn write(path: &Path, server: &str, ca: &str, admin: &Pair, mode: u32) -> Result<(), Failure> {
    files::make_parent(path, 0o755)?;
    let text = format!(
        "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {}\n    server: {server}\n  \
         name: default\ncontexts:\n- context:\n    cluster: default\n    user: default\n  name: default\n\
         current-context: default\nkind: Config\nusers:\n- name: default\n  user:\n    \
         client-certificate-data: {}\n    client-key-data: {}\n",
        BASE64.encode(ca),
        BASE64.encode(&admin.certificate),
        BASE64.encode(&admin.key)
    );
    files::write(path, &text, mode)
}

/// What a client needs of the file.
pub struct Access {
    pub server: String,
    pub ca: String,
    pub own: Pair,
}

/// Reads the file back, for `k3s kubectl`.
pub fn read(path: &Path) -> Result<Access, Failure> {
    let bad = |what: &str| {
        Failure::said(format!("error loading config file {:?}: {what}", path.display().to_string()))
    };
    let document: Value = yaml::one(&files::read(path)?).map_err(|error| bad(&error))?.unwrap_or_default();
    let decoded = |value: &Value| {
        let bytes = BASE64.decode(value.as_str().unwrap_or_default()).unwrap_or_default();
        String::from_utf8(bytes).unwrap_or_default()
    };
    let cluster = &document["clusters"][0]["cluster"];
    let user = &document["users"][0]["user"];
    Ok(Access {
        server: cluster["server"].as_str().ok_or_else(|| bad("no server"))?.to_owned(),
        ca: decoded(&cluster["certificate-authority-data"]),
        own: Pair {
            certificate: decoded(&user["client-certificate-data"]),
            key: decoded(&user["client-key-data"]),
        },
    })
}
