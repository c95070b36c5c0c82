//! Flags and configuration files: `config.yaml`, then `config.yaml.d/*.yaml` in name order, then the command line.
//!
//! As in K3s: keys are flag names; the last one wins; `key+` appends to a list instead; a flag on the command line
//! replaces a list; of the files a server skips unknown keys with a warning, an agent refuses them. Flags without
//! an outward effect are accepted and ignored. `K3S_TOKEN`, `K3S_URL` and the like are read where K3s reads them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::log;

/// Where the configuration is unless `--config` says otherwise.
pub const DEFAULT_FILE: &str = "/etc/rancher/k3s/config.yaml";

/// What is being started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Server,
    Agent,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Agent => "agent",
        }
    }
}

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Text,
    /// Repeated; commas separate too where K3s splits them.
    List,
    Switch,
}

struct Flag {
    name: &'static str,
    short: &'static str,
    takes: Takes,
    environment: &'static str,
    agent: bool,
}

const fn flag(name: &'static str, takes: Takes, agent: bool) -> Flag {
    Flag { name, short: "", takes, environment: "", agent }
}

impl Flag {
    const fn short(self, short: &'static str) -> Self {
        Self { short, ..self }
    }

    const fn from(self, environment: &'static str) -> Self {
        Self { environment, ..self }
    }
}

use Takes::{List, Switch, Text};

/// Flags of `server`; the last column says whether `agent` has them too.
const FLAGS: &[Flag] = &[
    flag("config", Text, true).short("c").from("K3S_CONFIG_FILE"),
    flag("debug", Switch, true),
    flag("v", Text, true),
    flag("vmodule", Text, true),
    flag("log", Text, true).short("l"),
    flag("alsologtostderr", Switch, true),
    flag("bind-address", Text, true),
    flag("https-listen-port", Text, false),
    flag("supervisor-port", Text, false),
    flag("advertise-address", Text, false),
    flag("advertise-port", Text, false),
    flag("tls-san", List, false),
    flag("tls-san-security", Switch, false),
    flag("data-dir", Text, true).short("d").from("K3S_DATA_DIR"),
    flag("cluster-cidr", List, false),
    flag("service-cidr", List, false),
    flag("service-node-port-range", Text, false),
    flag("cluster-dns", List, false),
    flag("cluster-domain", Text, false),
    flag("flannel-backend", Text, false),
    flag("flannel-ipv6-masq", Switch, false),
    flag("flannel-external-ip", Switch, false),
    flag("egress-selector-mode", Text, false),
    flag("servicelb-namespace", Text, false),
    flag("write-kubeconfig", Text, false).short("o").from("K3S_KUBECONFIG_OUTPUT"),
    flag("write-kubeconfig-mode", Text, false).from("K3S_KUBECONFIG_MODE"),
    flag("write-kubeconfig-group", Text, false),
    flag("helm-job-image", Text, false),
    flag("token", Text, true).short("t").from("K3S_TOKEN"),
    flag("token-file", Text, true).from("K3S_TOKEN_FILE"),
    flag("agent-token", Text, false).from("K3S_AGENT_TOKEN"),
    flag("agent-token-file", Text, false).from("K3S_AGENT_TOKEN_FILE"),
    flag("server", Text, true).short("s").from("K3S_URL"),
    flag("cluster-init", Switch, false).from("K3S_CLUSTER_INIT"),
    flag("cluster-reset", Switch, false),
    flag("cluster-reset-restore-path", Text, false),
    flag("kube-apiserver-arg", List, false),
    flag("etcd-arg", List, false),
    flag("kube-controller-manager-arg", List, false),
    flag("kube-scheduler-arg", List, false),
    flag("kube-cloud-controller-manager-arg", List, false),
    flag("kine-tls", Switch, false),
    flag("datastore-endpoint", Text, false).from("K3S_DATASTORE_ENDPOINT"),
    flag("datastore-cafile", Text, false),
    flag("datastore-certfile", Text, false),
    flag("datastore-keyfile", Text, false),
    flag("etcd-expose-metrics", Switch, false),
    flag("etcd-disable-snapshots", Switch, false),
    flag("etcd-snapshot-name", Text, false),
    flag("etcd-snapshot-schedule-cron", Text, false),
    flag("etcd-snapshot-reconcile-interval", Text, false),
    flag("etcd-snapshot-retention", Text, false),
    flag("etcd-snapshot-dir", Text, false),
    flag("etcd-snapshot-compress", Switch, false),
    flag("etcd-s3", Switch, false),
    flag("etcd-s3-endpoint", Text, false),
    flag("etcd-s3-endpoint-ca", Text, false),
    flag("etcd-s3-skip-ssl-verify", Switch, false),
    flag("etcd-s3-access-key", Text, false),
    flag("etcd-s3-secret-key", Text, false),
    flag("etcd-s3-session-token", Text, false),
    flag("etcd-s3-bucket", Text, false),
    flag("etcd-s3-bucket-lookup-type", Text, false),
    flag("etcd-s3-config-secret", Text, false),
    flag("etcd-s3-region", Text, false),
    flag("etcd-s3-folder", Text, false),
    flag("etcd-s3-proxy", Text, false),
    flag("etcd-s3-retention", Text, false),
    flag("etcd-s3-insecure", Switch, false),
    flag("etcd-s3-timeout", Text, false),
    flag("default-local-storage-path", Text, false),
    flag("disable", List, false),
    flag("disable-scheduler", Switch, false),
    flag("disable-cloud-controller", Switch, false),
    flag("disable-kube-proxy", Switch, false),
    flag("disable-network-policy", Switch, false),
    flag("disable-helm-controller", Switch, false),
    flag("disable-apiserver", Switch, false),
    flag("disable-controller-manager", Switch, false),
    flag("disable-etcd", Switch, false),
    flag("disable-agent", Switch, false),
    flag("embedded-registry", Switch, false),
    flag("supervisor-metrics", Switch, false),
    flag("secrets-encryption", Switch, false),
    flag("secrets-encryption-provider", Text, false),
    flag("enable-pprof", Switch, true),
    flag("node-name", Text, true).from("K3S_NODE_NAME"),
    flag("with-node-id", Switch, true),
    flag("node-label", List, true),
    flag("node-taint", List, true),
    flag("node-ip", List, true).short("i"),
    flag("node-external-ip", List, true),
    flag("node-internal-dns", List, true),
    flag("node-external-dns", List, true),
    flag("image-credential-provider-bin-dir", Text, true),
    flag("image-credential-provider-config", Text, true),
    flag("docker", Switch, true),
    flag("container-runtime-endpoint", Text, true),
    flag("default-runtime", Text, true),
    flag("image-service-endpoint", Text, true),
    flag("disable-default-registry-endpoint", Switch, true),
    flag("nonroot-devices", Switch, true),
    flag("pause-image", Text, true),
    flag("snapshotter", Text, true),
    flag("private-registry", Text, true),
    flag("system-default-registry", Text, false),
    flag("airgap-extra-registry", List, true),
    flag("resolv-conf", Text, true).from("K3S_RESOLV_CONF"),
    flag("flannel-iface", Text, true),
    flag("flannel-conf", Text, true),
    flag("flannel-cni-conf", Text, true),
    flag("vpn-auth", Text, true),
    flag("vpn-auth-file", Text, true),
    flag("kubelet-arg", List, true),
    flag("kube-proxy-arg", List, true),
    flag("protect-kernel-defaults", Switch, true),
    flag("selinux", Switch, true).from("K3S_SELINUX"),
    flag("lb-server-port", Text, true),
    flag("disable-apiserver-lb", Switch, true),
    flag("rootless", Switch, true),
    flag("prefer-bundled-bin", Switch, true),
];

/// Lists K3s also splits at commas.
const COMMAS: &[&str] =
    &["tls-san", "cluster-cidr", "service-cidr", "cluster-dns", "node-ip", "node-external-ip", "disable"];

/// Why a configuration cannot be used; in K3s's words where it has some.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    #[error("flag needs an argument: -{0}")]
    NoValue(String),
    #[error("invalid boolean value {value:?} for -{name}: parse error")]
    NotBoolean { name: String, value: String },
    #[error("invalid value {value:?} for flag -{name}: parse error")]
    NotNumber { name: String, value: String },
    #[error("failed to read {path}: {message}")]
    File { path: PathBuf, message: String },
}

/// The flags' values after merging.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Values(BTreeMap<&'static str, Vec<String>>);

impl Values {
    /// The value of a flag that takes one; an empty one is none.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.last().map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A list's values.
    pub fn list(&self, name: &str) -> Vec<String> {
        let Some(values) = self.0.get(name) else { return Vec::new() };
        let split = |value: &String| -> Vec<String> {
            match COMMAS.contains(&name) {
                true => value.split(',').map(|part| part.trim().to_owned()).collect(),
                false => vec![value.clone()],
            }
        };
        values.iter().flat_map(split).filter(|value| !value.is_empty()).collect()
    }

    /// Whether a switch is on.
    pub fn on(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    /// A port number, or the default.
    pub fn port(&self, name: &str, default: u16) -> Result<u16, ConfigError> {
        let Some(value) = self.text(name) else { return Ok(default) };
        value.parse().map_err(|_| ConfigError::NotNumber { name: name.to_owned(), value: value.to_owned() })
    }
}

/// Merges environment, files and command line of `k3s server` or `k3s agent`. `locate` maps the node's absolute
/// paths to real ones.
pub fn read(
    role: Role,
    arguments: &[String],
    environment: &dyn Fn(&str) -> Option<String>,
    locate: &dyn Fn(&Path) -> PathBuf,
) -> Result<Values, ConfigError> {
    let from_line = command_line(role, arguments)?;
    let mut values = Values::default();
    for flag in
        FLAGS.iter().filter(|flag| !flag.environment.is_empty() && (flag.agent || role == Role::Server))
    {
        if let Some(value) = environment(flag.environment).filter(|value| !value.is_empty()) {
            values.0.insert(flag.name, vec![value]);
        }
    }
    let named = from_line.text("config").or(values.text("config")).map(str::to_owned);
    let main = PathBuf::from(named.as_deref().unwrap_or(DEFAULT_FILE));
    for file in files(&locate(&main), named.is_some())? {
        merge_file(role, &mut values, &file)?;
    }
    values.0.extend(from_line.0);
    Ok(values)
}

/// The main file, where there is one, and its drop-ins.
fn files(main: &Path, required: bool) -> Result<Vec<PathBuf>, ConfigError> {
    let mut found = Vec::new();
    if main.exists() || required {
        found.push(main.to_owned());
    }
    let mut folder = main.as_os_str().to_owned();
    folder.push(".d");
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(ConfigError::File { path: folder.into(), message: error.to_string() }),
    };
    let mut drop_ins: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    drop_ins.retain(|path| path.extension().is_some_and(|end| end == "yaml" || end == "yml"));
    drop_ins.sort();
    found.extend(drop_ins);
    Ok(found)
}

fn merge_file(role: Role, values: &mut Values, path: &Path) -> Result<(), ConfigError> {
    let failed = |message: String| ConfigError::File { path: path.to_owned(), message };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    merge_text(role, values, &text).map_err(|error| match error {
        ConfigError::File { message, .. } => failed(message),
        other => other,
    })
}

/// Merges one file's text.
fn merge_text(role: Role, values: &mut Values, text: &str) -> Result<(), ConfigError> {
    let document: Option<Map<String, Value>> =
        super::yaml::one(text).map_err(|message| ConfigError::File { path: PathBuf::new(), message })?;
    for (key, value) in document.unwrap_or_default() {
        let (name, append) = match key.strip_suffix('+') {
            Some(name) => (name, true),
            None => (key.as_str(), false),
        };
        let Some(flag) = find(role, name) else {
            if role == Role::Agent {
                return Err(ConfigError::Unknown(name.to_owned()));
            }
            log::warn(format!("Unknown flag --{name} found in config.yaml, skipping\n"));
            continue;
        };
        let new: Vec<String> = match value {
            Value::Array(items) => items.iter().map(text_of).collect(),
            other => vec![text_of(&other)],
        };
        for value in &new {
            check(flag, value)?;
        }
        let old = values.0.entry(flag.name).or_default();
        if !append {
            old.clear();
        }
        old.extend(new);
    }
    Ok(())
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn command_line(role: Role, arguments: &[String]) -> Result<Values, ConfigError> {
    let mut values = Values::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let Some(body) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else { continue };
        let (name, inline) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        let flag = find(role, name).ok_or_else(|| ConfigError::Unknown(name.to_owned()))?;
        let value = match (inline, flag.takes) {
            (Some(value), _) => value,
            (None, Switch) => "true".to_owned(),
            (None, _) => rest.next().cloned().ok_or_else(|| ConfigError::NoValue(name.to_owned()))?,
        };
        check(flag, &value)?;
        let old = values.0.entry(flag.name).or_default();
        if flag.takes != List {
            old.clear();
        }
        old.push(value);
    }
    Ok(values)
}

fn find(role: Role, name: &str) -> Option<&'static Flag> {
    FLAGS
        .iter()
        .filter(|flag| flag.agent || role == Role::Server)
        .find(|flag| flag.name == name || (!flag.short.is_empty() && flag.short == name))
}

fn check(flag: &Flag, value: &str) -> Result<(), ConfigError> {
    if flag.takes == Switch && !matches!(value, "true" | "false") {
        return Err(ConfigError::NotBoolean { name: flag.name.to_owned(), value: value.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(role: Role, files: &[&str], line: &[&str]) -> Result<Values, ConfigError> {
        let mut values = Values::default();
        for text in files {
            merge_text(role, &mut values, text)?;
        }
        let line: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
        values.0.extend(command_line(role, &line)?.0);
        Ok(values)
    }

    #[test]
    fn merging() {
        type Case = (&'static [&'static str], &'static [&'static str], &'static str, &'static [&'static str]);
        let cases: &[Case] = &[
            (&[], &[], "tls-san", &[]),
            (&["tls-san: a"], &[], "tls-san", &["a"]),
            (&["tls-san: [a, b]", "tls-san: c"], &[], "tls-san", &["c"]),
            (&["tls-san: [a, b]", "tls-san+: c"], &[], "tls-san", &["a", "b", "c"]),
            (&["tls-san+: [a]"], &[], "tls-san", &["a"]),
            (&["disable: traefik,servicelb"], &[], "disable", &["traefik", "servicelb"]),
            (&["kubelet-arg: max-pods=50,x"], &[], "kubelet-arg", &["max-pods=50,x"]),
            (
                &["node-label: [a=1]"],
                &["--node-label", "b=2", "--node-label=c=3"],
                "node-label",
                &["b=2", "c=3"],
            ),
            (&["token: 12"], &[], "token", &["12"]),
            (&["write-kubeconfig-mode: \"0644\""], &["-o", "/x"], "write-kubeconfig-mode", &["0644"]),
            (&["# nothing\n"], &["-t", "x"], "token", &["x"]),
            (&["frobnicate: 1\ntoken: x"], &[], "token", &["x"]),
        ];
        for (files, line, name, wanted) in cases {
            let values = merged(Role::Server, files, line).expect("accepted");
            assert_eq!(values.list(name), *wanted, "{files:?} {line:?}");
        }
        assert!(merged(Role::Server, &["cluster-init: true"], &[]).expect("accepted").on("cluster-init"));
    }

    #[test]
    fn refusals() {
        let cases: &[(Role, &[&str], &[&str], &str)] = &[
            (Role::Server, &[], &["--frobnicate"], "flag provided but not defined: -frobnicate"),
            (Role::Agent, &["cluster-init: true"], &[], "flag provided but not defined: -cluster-init"),
            (Role::Server, &[], &["--token"], "flag needs an argument: -token"),
            (
                Role::Server,
                &["selinux: maybe"],
                &[],
                "invalid boolean value \"maybe\" for -selinux: parse error",
            ),
        ];
        for (role, files, line, wanted) in cases {
            assert_eq!(merged(*role, files, line).expect_err("refused").to_string(), *wanted);
        }
        assert!(matches!(merged(Role::Server, &["a: [", ""], &[]), Err(ConfigError::File { .. })));
    }

    #[test]
    fn drop_ins_come_in_name_order_and_the_line_wins() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        write("etc/rancher/k3s/config.yaml", "token: main\nnode-label: [a=1]\n");
        write("etc/rancher/k3s/config.yaml.d/20.yaml", "token: twenty\n");
        write("etc/rancher/k3s/config.yaml.d/10.yaml", "token: ten\nnode-label+: [b=2]\n");
        write("etc/rancher/k3s/config.yaml.d/99.txt", "token: ignored\n");
        let locate = |path: &Path| folder.path().join(path.strip_prefix("/").expect("absolute"));
        let environment = |name: &str| (name == "K3S_URL").then(|| "https://one:6443".to_owned());
        let values = read(Role::Server, &[], &environment, &locate).expect("accepted");
        assert_eq!(values.text("token"), Some("twenty"));
        assert_eq!(values.list("node-label"), ["a=1", "b=2"]);
        assert_eq!(values.text("server"), Some("https://one:6443"));
        let line = ["--token".to_owned(), "line".to_owned()];
        let values = read(Role::Server, &line, &environment, &locate).expect("accepted");
        assert_eq!(values.text("token"), Some("line"));
    }
}
