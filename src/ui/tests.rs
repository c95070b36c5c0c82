//! Whole outputs of scripted runs.

mod script;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::follow::Follow;
use super::*;
use crate::diagnostic::{Diagnostic, Place, Source};
use crate::engine::event::Summary;
use crate::resource::Difference;
use script::*;

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

fn picture(columns: usize, rows: usize) -> String {
    let lines = live::picture(&activity(), Duration::from_secs(75), columns, rows);
    assert!(lines.len() <= rows, "{} lines on {rows} rows", lines.len());
    for line in &lines {
        assert!(line.width() < columns.max(2), "{line:?} on {columns} columns");
    }
    lines.iter().map(|line| line.plain() + "\n").collect()
}

#[test]
fn the_picture_fits_every_terminal() {
    insta::assert_snapshot!("picture_100x30", picture(100, 30));
    insta::assert_snapshot!("picture_60x10", picture(60, 10));
    for columns in 1..130 {
        for rows in 1..20 {
            picture(columns, rows);
        }
    }
}

#[test]
fn an_interrupt_stands_in_the_picture() {
    let mut progress = activity();
    progress.interrupted = true;
    let lines = live::picture(&progress, Duration::from_secs(75), 80, 30);
    assert!(lines.last().unwrap().plain().contains("Ctrl-C again stops now"));
}

#[test]
fn plans_are_folded_only_if_they_are_the_same_to_the_last_line() {
    let long = |last: &str| (1..=300).map(|n| format!("{n}\n")).collect::<String>() + last;
    let events = |last: [&str; 2]| {
        let file = |node, last: &str| {
            differs(node, "base", "file /f", vec![text("/f", None, Some(&long(last)))], &[])
        };
        let end = |node| finished(node, summary(1, 1, 0, 0));
        vec![started(true, &["a", "b"]), file("a", last[0]), file("b", last[1]), end("a"), end("b"), ended()]
    };
    let same = played(Settings::default(), &events(["x\n", "x\n"]));
    assert!(same.contains("a, b: the same 1 change\n"));
    assert!(same.contains("      … 102 more lines (--format json has all)\n"), "{same}");
    assert!(!same.contains("+200\n"));
    let different = played(Settings::default(), &events(["x\n", "y\n"]));
    assert!(different.contains("\na: 1 change\n") || different.starts_with("a: 1 change\n"));
    assert!(different.contains("\nb: 1 change\n"));
}

#[test]
fn a_name_that_is_also_a_word_does_not_hide_a_difference() {
    let hosts = |node: &'static str, after: &str| {
        differs(node, "base", "file /f", vec![text("/f", Some("a b\n"), Some(after))], &[])
    };
    let end = |node| finished(node, summary(1, 1, 0, 0));
    let events = vec![
        started(true, &["a", "b"]),
        hosts("a", "a a b\n"),
        hosts("b", "a b b\n"),
        end("a"),
        end("b"),
        ended(),
    ];
    // Without names both would read `‹node› ‹node› b` and `a ‹node› ‹node›`.
    let shown = played(Settings::default(), &events);
    assert!(shown.contains("+a a b\n") && shown.contains("+a b b\n"), "{shown}");
}

#[test]
fn an_interrupted_run_says_so() {
    let events = vec![
        started(false, &["a", "b"]),
        changed("a", "base", "file /f", 10),
        Event::Interrupted { node: "a".into(), summary: summary(3, 1, 0, 0) },
        Event::Interrupted { node: "b".into(), summary: Summary::default() },
        ended(),
    ];
    let shown = played(Settings::default(), &events);
    assert!(shown.ends_with("2 nodes: 1 change, 2 interrupted (a, b). Took 12 s.\n"), "{shown}");
}

#[test]
fn a_log_that_stands_still_says_what_it_waits_for() {
    let (ui, buffer) = ui(Settings::default());
    let mut follow = Follow::new(&ui, None);
    for event in &real_run()[..7] {
        follow.event(event, Duration::ZERO);
    }
    follow.tick(Duration::from_secs(29));
    follow.tick(Duration::from_secs(31));
    follow.tick(Duration::from_secs(59));
    follow.tick(Duration::from_secs(60));
    assert_eq!(
        buffer.text(),
        "orpi-1  still    base  file /etc/hosts … (30 s)\norpi-1  still    base  file /etc/hosts … (1 min 0 s)\n"
    );
}

#[tokio::test]
async fn following_ends_with_the_run_and_keeps_its_record() {
    let dir = tempfile::tempdir().unwrap();
    let record = Record::create(dir.path(), "run").unwrap();
    let (ui, buffer) = ui(Settings::default());
    let (events, receiver) = crate::engine::event::Events::new();
    real_run().into_iter().for_each(|event| events.emit(event));
    // The sender lives on: the end of the run is an event.
    ui.follow(receiver, Some(record)).await;
    assert!(buffer.text().contains("1 failed (nas)"));
    let written = std::fs::read_to_string(dir.path().join("run.jsonl")).unwrap();
    assert_eq!(written.lines().count(), real_run().len());
}

#[test]
fn a_dry_run_as_text() {
    insta::assert_snapshot!(played(format(Format::Text), &dry_run()));
}

#[test]
fn a_fleet_is_folded_by_what_its_nodes_share() {
    insta::assert_snapshot!("fleet_text", played(format(Format::Text), &fleet()));
    insta::assert_snapshot!("fleet_markdown", played(format(Format::Markdown), &fleet()));
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
fn on_a_narrow_terminal_a_place_stands_below() {
    let buffer = Buffer::default();
    let ui = Ui::captured(Settings::default(), buffer.clone(), Buffer::default(), true);
    let mut follow = Follow::new(&ui, None);
    let label = "file /etc/systemd/system/k3s.service.d/10-datahub-resources.conf";
    let events = [
        started(true, &["nas"]),
        differs("nas", "base", label, vec![Difference::value("mode", Some("0600"), Some("0644"))], &[]),
        finished("nas", summary(1, 1, 0, 0)),
    ];
    events.iter().for_each(|event| follow.event(event, Duration::ZERO));
    follow.finish();
    assert!(
        buffer.text().contains(&format!("    ~ {label}\n      roles/base/role.toml:12\n")),
        "{}",
        buffer.text()
    );
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

struct Broken(std::io::ErrorKind);

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Err(self.0.into())
    }
}

#[test]
fn a_reader_that_goes_away_is_no_mistake_and_a_full_disk_is() {
    for (kind, lost) in [(std::io::ErrorKind::BrokenPipe, false), (std::io::ErrorKind::StorageFull, true)] {
        let err = Buffer::default();
        let ui = Ui::captured(Settings::default(), Broken(kind), err.clone(), false);
        let mut follow = Follow::new(&ui, None);
        dry_run().iter().for_each(|event| follow.event(event, Duration::ZERO));
        follow.finish();
        assert!(err.text().contains("note"));
        assert_eq!(err.text().matches("error: cannot write the result").count(), usize::from(lost));
        assert_eq!(ui.lost_output(), lost);
    }
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
    if std::env::var("PLAN").is_ok() {
        let (events, receiver) = crate::engine::event::Events::new();
        dry_run().into_iter().for_each(|event| events.emit(event));
        return ui.follow(receiver, None).await;
    }
    let (events, receiver) = crate::engine::event::Events::new();
    let screen = ui.clone();
    let follow = tokio::spawn(async move { screen.follow(receiver, None).await });
    let shown: Vec<&str> = names.iter().map(String::as_str).collect();
    events.emit(script::started(false, &shown));
    let mut tasks = Vec::new();
    for (at, node) in names.into_iter().enumerate() {
        let events = events.clone();
        tasks.push(tokio::spawn(async move {
            let wait = |ms: u64| tokio::time::sleep(Duration::from_millis(ms));
            wait(100 * at as u64).await;
            events.emit(script::connecting(&node, &format!("{node}.home.arpa")));
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
                events.emit(Event::Step {
                    node: node.clone(),
                    role: "base".into(),
                    step: resource.clone(),
                    says: None,
                });
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
