//! The resources that are measured, and the same ones in the words of every tool.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// What the template is given besides the number of the resource.
pub const PEERS: [&str; 5] = ["ada", "grace", "edsger", "barbara", "donald"];

/// One text for minijinja and for Jinja: `item` is the resource's number.
pub const TEMPLATE: &str = "# Service {{ item }} of {{ peers | length }} peers.\n\
    {% for peer in peers %}\nserver {{ peer }}.home.arpa weight={{ loop.index * 10 }}\n{% endfor %}\n\
    listen = {{ 8000 + item }}\nlimit = {{ item * 10 }}\n";

/// Small packages with few dependencies.
const PACKAGES: [&str; 6] = ["bc", "less", "lsof", "psmisc", "time", "tree"];

/// Packages that are not there, and should not be.
const UNWANTED: [&str; 15] = [
    "telnetd",
    "rpcbind",
    "finger",
    "xinetd",
    "nis",
    "talk",
    "ftpd",
    "rsh-server",
    "tftpd",
    "mutt",
    "nano",
    "popularity-contest",
    "exim4-base",
    "rwho",
    "apache2",
];

/// Settings that a container has of its own.
const SETTINGS: [(&str, &str); 6] = [
    ("net.ipv4.tcp_keepalive_time", "600"),
    ("net.ipv4.tcp_fin_timeout", "30"),
    ("net.ipv4.tcp_mtu_probing", "1"),
    ("net.ipv4.conf.all.accept_redirects", "0"),
    ("net.ipv4.conf.default.accept_redirects", "0"),
    ("net.ipv4.tcp_keepalive_intvl", "30"),
];

pub enum Item {
    Installed(&'static [&'static str]),
    Removed(&'static str),
    Group(String),
    User { name: String, group: Option<String> },
    Directory(String),
    File { path: String, text: String },
    Template { path: String, number: usize },
    Link { path: String, target: &'static str },
    Line { path: &'static str, line: String },
    Sysctl { name: String, key: &'static str, value: &'static str },
    Unit(String),
}

/// The first `count` of an endless list, which goes in blocks of eight: five of the same kinds, three that change.
pub fn items(count: usize) -> Vec<Item> {
    (0..).flat_map(block).take(count).collect()
}

fn block(number: usize) -> Vec<Item> {
    let folder = format!("/srv/bench/{number}");
    let name = format!("bench-{number}");
    let settings: String = (0..12).map(|line| format!("option.{number}.{line} = value {line}\n")).collect();
    let mut items = vec![
        Item::Directory(folder.clone()),
        Item::File { path: format!("{folder}/settings.conf"), text: settings },
        Item::Template { path: format!("{folder}/service.conf"), number },
        Item::Link { path: format!("{folder}/current.conf"), target: "settings.conf" },
        Item::Line { path: "/etc/bench.conf", line: format!("{name} = on") },
    ];
    let (key, value) = SETTINGS[number % SETTINGS.len()];
    let sysctl = Item::Sysctl { name: name.clone(), key, value };
    let group = Item::Group(name.clone());
    let user = |group| Item::User { name: name.clone(), group };
    match number % 4 {
        0 => {
            let package = match number {
                0 => Item::Installed(&PACKAGES),
                _ => Item::Removed(UNWANTED[(number / 4 - 1) % UNWANTED.len()]),
            };
            items.extend([package, group, user(Some(name.clone()))]);
        }
        1 => items.extend([sysctl, group, user(Some(name.clone()))]),
        2 => {
            let text = format!(
                "[Unit]\nDescription=Bench {number}\n\n[Service]\nExecStart=/usr/bin/sleep infinity\n\n\
                 [Install]\nWantedBy=multi-user.target\n"
            );
            let path = format!("/etc/systemd/system/{name}.service");
            items.extend([Item::File { path, text }, Item::Unit(format!("{name}.service")), sysctl]);
        }
        _ => {
            let path = format!("/etc/profile.d/{name}.sh");
            let text = format!("export BENCH_{number}={number}\n");
            let directory = Item::Directory(format!("/var/lib/{name}"));
            items.extend([Item::File { path, text }, directory, user(None)]);
        }
    }
    items
}

fn sysctl_path(name: &str) -> String {
    format!("/etc/sysctl.d/90-{name}.conf")
}

/// A role of datahub.
pub fn role(items: &[Item]) -> String {
    let resources: Vec<Value> = items.iter().map(resource).collect();
    let role = json!({
        "description": "What is measured",
        "vars": { "peers": { "type": "list", "default": PEERS, "doc": "For the template" } },
        "resource": resources,
    });
    toml::to_string(&role).expect("TOML")
}

fn resource(item: &Item) -> Value {
    match item {
        Item::Installed(names) => json!({ "package": { "names": names } }),
        Item::Removed(name) => json!({ "package": { "names": [name], "state": "absent" } }),
        Item::Group(name) => json!({ "group": { "name": name } }),
        Item::User { name, group } => {
            let mut user = json!({ "name": name, "shell": "/usr/sbin/nologin" });
            if let Some(group) = group {
                user["group"] = json!(group);
            }
            json!({ "user": user })
        }
        Item::Directory(path) => json!({ "directory": { "path": path } }),
        Item::File { path, text } => json!({ "file": { "path": path, "content": text } }),
        Item::Template { path, number } => {
            json!({ "for_each": format!("[{number}]"), "file": { "path": path, "template": "service.j2" } })
        }
        Item::Link { path, target } => json!({ "link": { "path": path, "target": target } }),
        Item::Line { path, line } => json!({ "line": { "path": path, "line": line, "create": true } }),
        Item::Sysctl { name, key, value } => json!({ "sysctl": { "name": name, "values": { *key: value } } }),
        Item::Unit(name) => json!({ "unit": { "name": name, "enabled": true, "started": true } }),
    }
}

/// A playbook of ansible-core, a task for each. What needs a collection is done as those do it who have none: a
/// setting is its file (its live value is not looked at).
pub fn playbook(items: &[Item]) -> String {
    let tasks: Vec<Value> = items.iter().map(task).collect();
    let play = json!([{
        "hosts": "all",
        "become": true,
        "vars": { "peers": PEERS },
        "tasks": tasks,
    }]);
    serde_json::to_string_pretty(&play).expect("JSON, which is YAML")
}

fn task(item: &Item) -> Value {
    let copy = |path: &str, text: &str| json!({ "ansible.builtin.copy": { "dest": path, "content": text, "mode": "0644", "owner": "root", "group": "root" } });
    match item {
        Item::Installed(names) => {
            json!({ "ansible.builtin.apt": { "name": names, "install_recommends": false } })
        }
        Item::Removed(name) => json!({ "ansible.builtin.apt": { "name": name, "state": "absent" } }),
        Item::Group(name) => json!({ "ansible.builtin.group": { "name": name } }),
        Item::User { name, group } => {
            let mut user = json!({ "name": name, "shell": "/usr/sbin/nologin" });
            if let Some(group) = group {
                user["group"] = json!(group);
            }
            json!({ "ansible.builtin.user": user })
        }
        Item::Directory(path) => {
            json!({ "ansible.builtin.file": { "path": path, "state": "directory", "mode": "0755" } })
        }
        Item::File { path, text } => copy(path, text),
        Item::Template { path, number } => json!({
            "vars": { "item": number },
            "ansible.builtin.template": { "dest": path, "src": "templates/bench/service.j2", "mode": "0644" },
        }),
        Item::Link { path, target } => {
            json!({ "ansible.builtin.file": { "path": path, "src": target, "state": "link" } })
        }
        Item::Line { path, line } => {
            json!({ "ansible.builtin.lineinfile": { "path": path, "line": line, "create": true } })
        }
        Item::Sysctl { name, key, value } => copy(&sysctl_path(name), &format!("{key} = {value}\n")),
        Item::Unit(name) => {
            json!({ "ansible.builtin.systemd_service": { "name": name, "enabled": true, "state": "started" } })
        }
    }
}

/// A deploy of pyinfra, an operation for each. A string of JSON is one of Python too.
pub fn deploy(items: &[Item]) -> String {
    let mut out = String::from(
        "from io import StringIO\nfrom pyinfra.operations import apt, files, server, systemd\n\n\
         common = dict(user=\"root\", group=\"root\", mode=\"644\")\n",
    );
    let _ = writeln!(out, "peers = {}", json!(PEERS));
    for item in items {
        let _ = match item {
            Item::Installed(names) => {
                writeln!(out, "apt.packages(packages={}, no_recommends=True)", json!(names))
            }
            Item::Removed(name) => writeln!(out, "apt.packages(packages=[{}], present=False)", json!(name)),
            Item::Group(name) => writeln!(out, "server.group(group={})", json!(name)),
            Item::User { name, group } => {
                let group =
                    group.as_ref().map(|group| format!(", group={}", json!(group))).unwrap_or_default();
                writeln!(out, "server.user(user={}{group}, shell=\"/usr/sbin/nologin\")", json!(name))
            }
            Item::Directory(path) => {
                writeln!(
                    out,
                    "files.directory(path={}, user=\"root\", group=\"root\", mode=\"755\")",
                    json!(path)
                )
            }
            Item::File { path, text } => {
                writeln!(out, "files.put(src=StringIO({}), dest={}, **common)", json!(text), json!(path))
            }
            Item::Template { path, number } => writeln!(
                out,
                "files.template(src=\"templates/bench/service.j2\", dest={}, item={number}, peers=peers, \
                 jinja_env_kwargs=dict(trim_blocks=True), **common)",
                json!(path)
            ),
            Item::Link { path, target } => {
                writeln!(out, "files.link(path={}, target={})", json!(path), json!(target))
            }
            Item::Line { path, line } => {
                writeln!(out, "files.line(path={}, line={})", json!(path), json!(line))
            }
            Item::Sysctl { name, key, value } => writeln!(
                out,
                "server.sysctl(key={}, value={value}, persist=True, persist_file={})",
                json!(key),
                json!(sysctl_path(name))
            ),
            Item::Unit(name) => {
                writeln!(out, "systemd.service(service={}, running=True, enabled=True)", json!(name))
            }
        };
    }
    out
}

/// What a person would write who does it once, by hand: no checks, nothing read back.
pub fn script(items: &[Item]) -> String {
    let mut out = String::from(
        "set -e\nexport DEBIAN_FRONTEND=noninteractive LC_ALL=C\n\
         # Lists younger than an hour are not fetched again; datahub holds it the same way.\n\
         [ -n \"$(find /var/lib/apt/lists -maxdepth 0 -mmin -60)\" ] || apt-get -qq update\n",
    );
    for item in items {
        let _ = match item {
            Item::Installed(names) => {
                writeln!(out, "apt-get -q -y --no-install-recommends install {}", names.join(" "))
            }
            Item::Removed(name) => {
                writeln!(out, "! dpkg-query -s {name} >/dev/null 2>&1 || apt-get -q -y remove {name}")
            }
            Item::Group(name) => writeln!(out, "groupadd {name}"),
            Item::User { name, group } => {
                let group = group.as_ref().map(|group| format!("-g {group} ")).unwrap_or_default();
                writeln!(out, "useradd -m {group}-s /usr/sbin/nologin {name}")
            }
            Item::Directory(path) => writeln!(out, "mkdir -p {path}"),
            Item::File { path, text } => writeln!(out, "cat >{path} <<'END'\n{text}END"),
            Item::Template { path, number } => {
                writeln!(out, "cat >{path} <<'END'\n{}END", rendered(*number))
            }
            Item::Link { path, target } => writeln!(out, "ln -s {target} {path}"),
            Item::Line { path, line } => writeln!(out, "echo '{line}' >>{path}"),
            Item::Sysctl { name, key, value } => {
                writeln!(out, "echo '{key} = {value}' >{0}\nsysctl -q -p {0}", sysctl_path(name))
            }
            Item::Unit(name) => {
                writeln!(out, "systemctl daemon-reload\nsystemctl -q enable --now {name}")
            }
        };
    }
    out
}

/// [`TEMPLATE`], filled in.
fn rendered(number: usize) -> String {
    let mut out = format!("# Service {number} of {} peers.\n", PEERS.len());
    for (at, peer) in PEERS.iter().enumerate() {
        let _ = writeln!(out, "server {peer}.home.arpa weight={}", (at + 1) * 10);
    }
    let _ = writeln!(out, "listen = {}\nlimit = {}", 8000 + number, number * 10);
    out
}
