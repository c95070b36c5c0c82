//! Whole outputs of scripted runs.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::follow::Follow;
use super::*;
use crate::diagnostic::{Diagnostic, Place, Source};
use crate::engine::event::{Failure, Summary};
use crate::resource::Difference;

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// A Ui that writes into memory, both streams into one as a terminal shows them.
fn ui(settings: Settings) -> (Ui, Buffer) {
    let buffer = Buffer::default();
    (Ui::captured(settings, buffer.clone(), buffer.clone(), false), buffer)
}

/// What a run prints in all.
fn played(settings: Settings, events: &[Event]) -> String {
    let (ui, buffer) = ui(settings);
    let mut follow = Follow::new(&ui, None);
    for (second, event) in events.iter().enumerate() {
        follow.event(event, Duration::from_secs(second as u64));
    }
    follow.finish();
    buffer.text()
}

fn format(format: Format) -> Settings {
    Settings { format, ..Settings::default() }
}

fn started(dry_run: bool, nodes: &[&str]) -> Event {
    let nodes = nodes.iter().map(|node| (*node).to_owned()).collect();
    Event::RunStarted { run: "20261124-080000-1".into(), dry_run, nodes }
}

fn ended() -> Event {
    Event::RunFinished { milliseconds: 12_300, round_trips: 21 }
}

fn differs(node: &str, role: &str, resource: &str, differences: Vec<Difference>, notify: &[&str]) -> Event {
    Event::Differs {
        node: node.into(),
        role: role.into(),
        resource: resource.into(),
        place: format!("roles/{role}/role.toml:12"),
        differences,
        notify: notify.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn changed(node: &str, role: &str, resource: &str, milliseconds: u64) -> Event {
    Event::Changed { node: node.into(), role: role.into(), resource: resource.into(), milliseconds }
}

fn pending(node: &str, handler: &str, left_over: bool) -> Event {
    Event::HandlerPending { node: node.into(), role: "base".into(), handler: handler.into(), left_over }
}

fn note(node: &str, resource: &str, note: &str) -> Event {
    Event::Note { node: node.into(), role: "base".into(), resource: resource.into(), note: note.into() }
}

fn text(path: &str, before: Option<&str>, after: Option<&str>) -> Difference {
    let (before, after) = (before.map(str::to_owned), after.map(str::to_owned));
    Difference::Text { path: path.into(), before, after }
}

fn summary(resources: usize, changed: usize, handlers: usize, unknown: usize) -> Summary {
    Summary { resources, changed, unknown, handlers, milliseconds: 1240, round_trips: 3 }
}

fn finished(node: &str, summary: Summary) -> Event {
    Event::NodeFinished { node: node.into(), summary }
}

fn failure() -> Failure {
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
fn dry_run() -> Vec<Event> {
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
                    Some(&format!("127.0.0.1\tlocalhost\n127.0.1.1\t{node}\n\n::1\tlocalhost\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n10.0.0.1\tnas")),
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

fn real_run() -> Vec<Event> {
    let hosts = || vec![text("/etc/hosts", Some("a\n"), Some("a\nb\n"))];
    vec![
        started(false, &["orpi-1", "nas", "laptop"]),
        Event::Connecting { node: "orpi-1".into(), address: "orpi-1.home.arpa".into() },
        Event::Connected { node: "orpi-1".into(), milliseconds: 97 },
        Event::RoleStarted { node: "orpi-1".into(), role: "base".into(), resources: 40 },
        note("orpi-1", "sysctl vm.swappiness", "cannot be read here: the kernel is the host's"),
        differs("orpi-1", "base", "file /etc/hosts", hosts(), &["restart-ssh"]),
        Event::Step { node: "orpi-1".into(), role: "base".into(), step: "file /etc/hosts".into() },
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

fn converged() -> Vec<Event> {
    vec![
        started(false, &["orpi-1", "nas"]),
        finished("nas", summary(38, 0, 0, 0)),
        finished("orpi-1", summary(40, 0, 0, 0)),
        ended(),
    ]
}

/// Everything that comes from elsewhere is an attack.
fn hostile() -> Vec<Event> {
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
        Event::Unknown { node: node.into(), role: evil.into(), resource: evil.into(), reason: evil.into() },
        Event::Retrying { node: node.into(), reason: evil.into() },
        note(node, evil, evil),
        pending(node, evil, true),
        finished(node, summary(1, 1, 1, 1)),
        Event::NodeFailed { node: "b".into(), failure: failed, summary: Summary::default() },
        ended(),
    ]
}

#[test]
fn a_dry_run_as_text() {
    insta::assert_snapshot!(played(format(Format::Text), &dry_run()));
}

#[test]
fn a_dry_run_as_markdown() {
    insta::assert_snapshot!(played(format(Format::Markdown), &dry_run()));
}

#[test]
fn a_real_run_as_text() {
    insta::assert_snapshot!(played(format(Format::Text), &real_run()));
}

#[test]
fn a_real_run_in_detail() {
    insta::assert_snapshot!(played(Settings { verbose: true, ..Settings::default() }, &real_run()));
}

#[test]
fn a_real_run_as_json() {
    let lines = played(format(Format::Json), &real_run());
    assert_eq!(lines.lines().count(), real_run().len());
    insta::assert_snapshot!(lines);
}

#[test]
fn a_dry_run_as_json() {
    insta::assert_snapshot!(played(format(Format::Json), &dry_run()));
}

#[test]
fn a_real_run_as_markdown() {
    insta::assert_snapshot!(played(format(Format::Markdown), &real_run()));
}

#[test]
fn quiet_says_only_what_went_wrong_or_was_asked_for() {
    let quiet = Settings { quiet: true, ..Settings::default() };
    insta::assert_snapshot!(played(quiet, &real_run()));
    assert_eq!(played(quiet, &converged()), "");
    assert!(played(quiet, &dry_run()).contains("+++ /etc/hosts"));
}

#[test]
fn nothing_to_do_is_short() {
    insta::assert_snapshot!(played(format(Format::Text), &converged()));
}

#[test]
fn hostile_text_is_shown_not_obeyed() {
    for each in [Format::Text, Format::Markdown, Format::Json] {
        let shown = played(format(each), &hostile());
        let bad = shown.chars().filter(|c| !matches!(c, '\n' | '\t')).find(|c| text::deceives(*c));
        assert_eq!(bad, None, "{each:?}");
    }
    insta::assert_snapshot!("hostile_text", played(format(Format::Text), &hostile()));
    insta::assert_snapshot!("hostile_markdown", played(format(Format::Markdown), &hostile()));
}

#[test]
fn json_readers_get_hostile_text_unharmed() {
    let lines = played(format(Format::Json), &hostile());
    for (line, event) in lines.lines().zip(hostile()).skip(1) {
        let read: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(read, serde_json::to_value(&event).unwrap());
    }
}

#[test]
fn a_reader_that_goes_away_ends_nothing() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
    }
    let err = Buffer::default();
    let ui = Ui::captured(Settings::default(), Closed, err.clone(), false);
    let mut follow = Follow::new(&ui, None);
    dry_run().iter().for_each(|event| follow.event(event, Duration::ZERO));
    follow.finish();
    assert!(err.text().contains("note"));
}

#[test]
fn what_is_printed_while_somebody_types_comes_after() {
    let (ui, buffer) = ui(Settings::default());
    let pause = ui.screen.pause();
    ui.line("later");
    assert_eq!(buffer.text(), "");
    ui.screen.now("Password: ".into());
    drop(pause);
    assert_eq!(buffer.text(), "Password: later\n");
}

#[test]
fn messages_have_labels() {
    let (ui, buffer) = ui(Settings::default());
    ui.status("Building", "image trixie");
    ui.note("the lab is off");
    ui.warning("two\nlines");
    ui.hint("run: datahub lab up");
    ui.error(
        "no inventory",
        &["looked in: .".into(), "and: ..".into()],
        Some("run: datahub inventory --init"),
    );
    insta::assert_snapshot!(buffer.text());
}

#[test]
fn mistakes_show_their_place() {
    let source = Source::new(
        "roles/base/role.toml",
        "# größe \u{1b}[31m\n[[resource]]\nfile = { path = \"/etc/hosts\", mod = \"0644\" }\nnotify = [\"restart-sssh\"]\n",
    );
    let at = |word: &str| {
        let start = source.text.find(word).unwrap();
        Place::new(&source, start..start + word.len())
    };
    let diagnostics = Diagnostics(vec![
        Diagnostic::new("unknown key `mod` in file")
            .at(at("mod"))
            .label("not a key here")
            .help("did you mean `mode`?"),
        Diagnostic::new("unknown handler `restart-sssh`").at(at("\"restart-sssh\"")).label("no such handler"),
        Diagnostic::new("no node has the role `base`\u{1b}[0m").help("add it to `roles` of a node"),
    ]);
    insta::assert_snapshot!(diagnostic::render(&diagnostics, None, false));
    assert!(diagnostic::render(&diagnostics, Some(60), true).contains("\u{1b}["));
}

#[test]
fn output_of_nodes_stands_behind_their_names() {
    let printed =
        Output { status: 3, stdout: b"up 3 days\n\x1b[31mred\xff\n".to_vec(), stderr: b"oh\n".to_vec() };
    let lost = transport::Error::Lost("broken pipe".into());
    for (each, name) in
        [(Format::Text, "exec_text"), (Format::Json, "exec_json"), (Format::Markdown, "exec_markdown")]
    {
        let (ui, buffer) = ui(format(each));
        ui.node_output("orpi-1", &Ok(printed.clone()));
        ui.node_output("nas", &Err(lost.clone()));
        insta::assert_snapshot!(name, buffer.text());
    }
}

/// Not a test: plays a run slowly, to be looked at. `cargo test --lib ui::tests::play -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "for people to look at"]
async fn play() {
    let nodes = std::env::var("NODES").ok().and_then(|n| n.parse().ok()).unwrap_or(7);
    let names: Vec<String> = (1..=nodes)
        .map(|n| match n {
            3 => "a-node-with-a-rather-long-name.home.arpa".to_owned(),
            4 => "日本語".to_owned(),
            _ => format!("orpi-{n}"),
        })
        .collect();
    let ui = Ui::new(Settings::default());
    let (events, receiver) = crate::engine::event::Events::new();
    let screen = ui.clone();
    let follow = tokio::spawn(async move { screen.follow(receiver, None).await });
    events.emit(Event::RunStarted { run: "1".into(), dry_run: false, nodes: names.clone() });
    let mut tasks = Vec::new();
    for (at, node) in names.into_iter().enumerate() {
        let events = events.clone();
        tasks.push(tokio::spawn(async move {
            let wait = |ms: u64| tokio::time::sleep(Duration::from_millis(ms));
            wait(100 * at as u64).await;
            events.emit(Event::Connecting { node: node.clone(), address: format!("{node}.home.arpa") });
            wait(700).await;
            events.emit(Event::Connected { node: node.clone(), milliseconds: 97 });
            for step in 0..8 {
                let resource = format!("package number-{step}");
                events.emit(differs(
                    &node,
                    "base",
                    &resource,
                    vec![Difference::value("a", None, Some("b"))],
                    &[],
                ));
                events.emit(Event::Step { node: node.clone(), role: "base".into(), step: resource.clone() });
                wait(900 + 130 * at as u64 + if step == 3 && at == 1 { 9000 } else { 0 }).await;
                events.emit(changed(&node, "base", &resource, 900));
            }
            if at == 4 {
                events.emit(Event::NodeFailed { node, failure: failure(), summary: summary(40, 8, 0, 0) });
            } else {
                events.emit(finished(&node, summary(40, 8, 0, 0)));
            }
        }));
    }
    if std::env::var("ASK").is_ok() {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let question = crate::transport::prompt::Question::sudo("kim", "nas.home.arpa");
        let answer = crate::transport::prompt::ask(&ui.prompter(), question).await;
        ui.note(&format!("{} characters", answer.map_or(0, |answer| answer.len())));
        ui.interrupted(false);
    }
    for task in tasks {
        task.await.unwrap();
    }
    events.emit(ended());
    follow.await.unwrap();
}
