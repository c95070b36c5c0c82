//! Events of scripted runs.

use std::time::Duration;

use crate::engine::event::{Event, Failure, Summary};
use crate::resource::Difference;
use crate::ui::progress::Progress;

pub fn started(dry_run: bool, nodes: &[&str]) -> Event {
    let nodes = nodes.iter().map(|node| (*node).to_owned()).collect();
    Event::RunStarted {
        run: "20261124-080000-1".into(),
        owner: "kim@desk".into(),
        at: "2026-11-24T08:00:00Z".into(),
        dry_run,
        nodes,
    }
}

pub fn ended() -> Event {
    Event::RunFinished { milliseconds: 12_300, round_trips: 21 }
}

pub fn connecting(node: &str, address: &str) -> Event {
    Event::Connecting {
        node: node.into(),
        address: address.into(),
        hostname: format!("host-{node}"),
        ip: address.parse::<std::net::IpAddr>().ok().map(|ip| ip.to_string()),
    }
}

pub fn differs(
    node: &str,
    role: &str,
    resource: &str,
    differences: Vec<Difference>,
    notify: &[&str],
) -> Event {
    Event::Differs {
        node: node.into(),
        role: role.into(),
        resource: resource.into(),
        place: format!("roles/{role}/role.toml:12"),
        differences,
        notify: notify.iter().map(|name| (*name).to_owned()).collect(),
    }
}

pub fn changed(node: &str, role: &str, resource: &str, milliseconds: u64) -> Event {
    Event::Changed { node: node.into(), role: role.into(), resource: resource.into(), milliseconds }
}

pub fn pending(node: &str, handler: &str, left_over: bool) -> Event {
    Event::HandlerPending { node: node.into(), role: "base".into(), handler: handler.into(), left_over }
}

pub fn note(node: &str, resource: &str, note: &str) -> Event {
    Event::Note {
        node: node.into(),
        role: "base".into(),
        resource: resource.into(),
        place: "roles/base/role.toml:12".into(),
        note: note.into(),
    }
}

pub fn text(path: &str, before: Option<&str>, after: Option<&str>) -> Difference {
    let (before, after) = (before.map(str::to_owned), after.map(str::to_owned));
    Difference::Text { path: path.into(), before, after }
}

pub fn summary(resources: usize, changed: usize, handlers: usize, unknown: usize) -> Summary {
    Summary { resources, changed, unknown, handlers, milliseconds: 1240, round_trips: 3 }
}

pub fn finished(node: &str, summary: Summary) -> Event {
    Event::NodeFinished { node: node.into(), summary }
}

pub fn failure() -> Failure {
    Failure {
        message: "the change failed with status 100".into(),
        role: Some("base".into()),
        resource: Some("package crul".into()),
        place: Some("roles/base/role.toml:31".into()),
        output: vec!["Reading package lists...".into(), "E: Unable to locate package crul".into()],
        hint: Some("is it spelled right, and is its repository known? Try: apt-cache policy crul".into()),
    }
}

/// Two nodes that differ in nothing but their names, one that lacks less, one that is as described.
pub fn dry_run() -> Vec<Event> {
    let mut events = vec![started(true, &["orpi-1", "orpi-2", "nas", "laptop"])];
    for node in ["orpi-2", "orpi-1"] {
        events.extend([
            differs(node, "base", "package curl, jq", vec![
                Difference::value("curl", None, Some("installed")),
                Difference::value("jq", None, Some("installed 1.7-1")),
            ], &[]),
            differs(node, "base", "file /etc/hosts", vec![
                text(
                    "/etc/hosts",
                    Some("127.0.0.1\tlocalhost\n127.0.1.1\tdebian\n\n::1\tlocalhost\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"),
                    Some(&format!("127.0.0.1\tlocalhost\n127.0.1.1\t{node}\n\n::1\tlocalhost\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n192.0.2.1\tnas")),
                ),
                Difference::value("mode", Some("0600"), Some("0644")),
            ], &[]),
            differs(node, "base", "file /etc/datahub/token", vec![Difference::Secret { attribute: "content".into() }], &[]),
            differs(node, "base", "absent /etc/motd", vec![Difference::value("path", Some("file"), None)], &[]),
            differs(node, "base", "file /etc/ssh/sshd_config.d/10-datahub.conf", vec![
                text("/etc/ssh/sshd_config.d/10-datahub.conf", None, Some("PermitRootLogin no\n")),
            ], &["restart-ssh"]),
            note(node, "sysctl vm.swappiness", "cannot be read here: the kernel is the host's"),
            pending(node, "restart ssh.service", false),
            pending(node, "systemd daemon-reload", true),
            Event::Unknown {
                node: node.into(), role: "k3s".into(), resource: "unit k3s.service".into(),
                place: "roles/base/role.toml:12".into(),
                reason: "its package is not installed yet".into(),
            },
            finished(node, summary(40, 5, 2, 1)),
        ]);
    }
    events.extend([
        differs(
            "nas",
            "base",
            "file /etc/hosts",
            vec![Difference::value("mode", Some("0600"), Some("0644"))],
            &[],
        ),
        finished("nas", summary(38, 1, 0, 0)),
        finished("laptop", summary(38, 0, 0, 0)),
        ended(),
    ]);
    events
}

/// Three nodes whose hosts files want each other, as nodes of a fresh fleet do; one has another release's package and
/// a file that it alone lacks.
pub fn fleet() -> Vec<Event> {
    let nodes = [("orpi-1", "192.0.2.1"), ("orpi-2", "192.0.2.2"), ("nas", "192.0.2.10")];
    let mut events = vec![started(true, &nodes.map(|(node, _)| node))];
    for (node, ip) in nodes {
        let version = if node == "nas" { "installed 7.88" } else { "installed 8.14" };
        let others: String = nodes
            .iter()
            .filter(|(other, _)| *other != node)
            .map(|(other, ip)| format!("{ip}\thost-{other}\n"))
            .collect();
        let hosts = |own: &str, others: &str| {
            format!(
                "127.0.0.1\tlocalhost\n{own}\thost-{node}\n\n::1\tlocalhost\nff02::1\tip6-allnodes\n{others}# end\n"
            )
        };
        let (before, after) = (hosts("127.0.1.1", ""), hosts(ip, &others));
        events.extend([
            connecting(node, ip),
            differs(node, "base", "package curl", vec![Difference::value("curl", None, Some(version))], &[]),
            differs(
                node,
                "base",
                "hosts /etc/hosts",
                vec![text("/etc/hosts", Some(&before), Some(&after))],
                &[],
            ),
            differs(
                node,
                "base",
                "swap off",
                vec![Difference::value("swap.target", Some("not masked"), Some("masked"))],
                &[],
            ),
            pending(node, "restart ssh.service", node == "nas"),
        ]);
        if node == "orpi-1" {
            let file = text("/etc/extra", None, Some("extra\n"));
            events.push(differs(node, "extra", "file /etc/extra", vec![file], &[]));
        }
        match node {
            "orpi-2" => events.push(Event::NodeFailed {
                node: node.into(),
                failure: failure(),
                summary: summary(4, 3, 1, 0),
            }),
            _ => events.push(finished(node, summary(4, 3, 1, 0))),
        }
    }
    events.push(ended());
    events
}

pub fn real_run() -> Vec<Event> {
    let hosts = || vec![text("/etc/hosts", Some("a\n"), Some("a\nb\n"))];
    vec![
        started(false, &["orpi-1", "nas", "laptop"]),
        connecting("orpi-1", "orpi-1.home.arpa"),
        Event::Connected { node: "orpi-1".into(), milliseconds: 97 },
        Event::RoleStarted { node: "orpi-1".into(), role: "base".into(), resources: 40 },
        note("orpi-1", "sysctl vm.swappiness", "cannot be read here: the kernel is the host's"),
        differs("orpi-1", "base", "file /etc/hosts", hosts(), &["restart-ssh"]),
        Event::Step {
            node: "orpi-1".into(),
            role: "base".into(),
            step: "file /etc/hosts".into(),
            says: None,
        },
        changed("orpi-1", "base", "file /etc/hosts", 120),
        Event::Waiting { node: "laptop".into(), role: "k3s-agent".into(), on: "k3s-server".into() },
        differs("nas", "base", "package crul", vec![Difference::value("crul", None, Some("installed"))], &[]),
        Event::Retrying { node: "orpi-1".into(), reason: "the connection was lost: broken pipe".into() },
        pending("orpi-1", "restart ssh.service", false),
        Event::HandlerRun {
            node: "orpi-1".into(),
            role: "base".into(),
            handler: "restart ssh.service".into(),
            milliseconds: 1200,
        },
        Event::NodeFailed { node: "nas".into(), failure: failure(), summary: summary(38, 0, 0, 0) },
        Event::NodeSkipped {
            node: "laptop".into(),
            role: "k3s-agent".into(),
            reason: "role k3s-server failed on nas".into(),
        },
        Event::NodeFailed {
            node: "laptop".into(),
            failure: Failure {
                message: "role k3s-agent was skipped: role k3s-server failed on nas".into(),
                role: Some("k3s-agent".into()),
                resource: None,
                place: None,
                output: Vec::new(),
                hint: Some("mend nas first, then run again".into()),
            },
            summary: summary(12, 0, 0, 0),
        },
        finished("orpi-1", summary(40, 1, 1, 0)),
        ended(),
    ]
}

pub fn converged() -> Vec<Event> {
    vec![
        started(false, &["orpi-1", "nas"]),
        finished("nas", summary(38, 0, 0, 0)),
        finished("orpi-1", summary(40, 0, 0, 0)),
        ended(),
    ]
}

/// Everything that comes from elsewhere is an attack.
pub fn hostile() -> Vec<Event> {
    let evil = "\u{1b}[2J\u{9b}31m\r\u{7}\u{202e}\u{200b}x\n```\n</details><script>@all `|`";
    let mut failed = failure();
    for text in [
        &mut failed.message,
        failed.role.as_mut().unwrap(),
        failed.resource.as_mut().unwrap(),
        failed.place.as_mut().unwrap(),
        &mut failed.output[0],
        failed.hint.as_mut().unwrap(),
    ] {
        text.push_str(evil);
    }
    let node = "n\u{1b}]0;title\u{7}";
    vec![
        started(true, &[node, "b"]),
        differs(
            node,
            evil,
            evil,
            vec![
                text(evil, Some(evil), Some("\u{1b}[31m\tred\r\n")),
                Difference::value(evil, Some(evil), Some(evil)),
                Difference::Secret { attribute: evil.into() },
            ],
            &[evil],
        ),
        Event::Unknown {
            node: node.into(),
            role: evil.into(),
            resource: evil.into(),
            place: evil.into(),
            reason: evil.into(),
        },
        Event::Retrying { node: node.into(), reason: evil.into() },
        note(node, evil, evil),
        pending(node, evil, true),
        finished(node, summary(1, 1, 1, 1)),
        Event::NodeFailed { node: "b".into(), failure: failed, summary: Summary::default() },
        ended(),
    ]
}

/// Times of nodes are theirs, not the machine's that runs the test.
pub fn activity() -> Progress {
    let mut progress = Progress::default();
    let long = "a-node-with-a-rather-long-name.home.arpa";
    let nodes = ["orpi-1", "orpi-2", "日本語", long, "nas", "laptop", "pi"];
    let step = |node: &str, step: &str| Event::Step {
        node: node.into(),
        role: "base".into(),
        step: step.into(),
        says: None,
    };
    let connecting = |node: &str| connecting(node, "192.0.2.1");
    let events = [
        started(false, &nodes),
        connecting("orpi-1"),
        step("orpi-1", "package apparmor, bash-completion, ca-certificates, curl, dnsutils, jq"),
        changed("orpi-2", "base", "file /etc/hosts", 120),
        step("orpi-2", "file /etc/\u{1b}[2Jhosts"),
        Event::Waiting { node: "日本語".into(), role: "k3s-agent".into(), on: "k3s-server".into() },
        connecting(long),
        Event::NodeFailed { node: "nas".into(), failure: failure(), summary: summary(38, 0, 0, 0) },
        finished("laptop", summary(38, 0, 0, 0)),
    ];
    for (second, event) in events.iter().enumerate() {
        progress.take(event, Duration::from_secs(second as u64));
    }
    progress
}
