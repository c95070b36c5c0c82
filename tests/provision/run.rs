//! A run of the built binary with `--format json`, as tests look at it.
#![allow(dead_code, reason = "several test programs use it, each another part")]

use std::process::Output;

use serde_json::Value;

use crate::support::Fixture;

pub struct Run {
    pub code: Option<i32>,
    pub events: Vec<Value>,
    /// All that was printed: for messages of failed assertions.
    pub text: String,
}

/// Runs datahub with `--format json`. Every line of its output must be an event of version 1.
#[track_caller]
pub fn json(lab: &Fixture, args: &[&str]) -> Run {
    let args = [args, &["--format", "json"]].concat();
    read(&lab.command(&args).output().expect("the binary runs"))
}

/// Reads what a run with `--format json` has printed.
#[track_caller]
pub fn read(output: &Output) -> Run {
    let (events, said) = (utf8(&output.stdout), utf8(&output.stderr));
    let text = format!("{events}{said}");
    let events: Vec<Value> = events
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}\n{text}")))
        .collect();
    let run = Run { code: output.status.code(), events, text };
    if let Some(first) = run.events.first() {
        assert_eq!((&first["event"], &first["version"]), (&"run-started".into(), &1.into()), "{}", run.text);
    }
    run
}

/// What datahub prints for people when nobody watches: no escapes.
#[track_caller]
pub fn plain(lab: &Fixture, args: &[&str]) -> (Option<i32>, String, String) {
    let output = lab.command(args).output().expect("the binary runs");
    let (out, said) = (utf8(&output.stdout), utf8(&output.stderr));
    assert!(!out.contains('\u{1b}') && !said.contains('\u{1b}'), "escapes in {out:?} {said:?}");
    assert!(!out.contains('\r') && !said.contains('\r'), "carriage returns in {out:?} {said:?}");
    (output.status.code(), out, said)
}

fn utf8(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

impl Run {
    pub fn of<'a>(&'a self, kind: &str) -> std::vec::IntoIter<&'a Value> {
        let events: Vec<&Value> = self.events.iter().filter(|event| event["event"] == kind).collect();
        events.into_iter()
    }

    /// The resources of a node's events of a kind, in order.
    pub fn resources<'a>(&'a self, kind: &str, node: &str) -> Vec<&'a str> {
        self.of(kind)
            .filter(|event| event["node"] == node)
            .map(|event| event["resource"].as_str().expect("a resource"))
            .collect()
    }

    /// A field of the events of a kind, in order.
    pub fn fields<'a>(&'a self, kind: &str, field: &str) -> Vec<&'a str> {
        self.of(kind).map(|event| event[field].as_str().expect("a text")).collect()
    }

    /// How a node's run ended: `finished`, `failed`, `interrupted`; and its figures.
    #[track_caller]
    pub fn end(&self, node: &str) -> (&str, &Value) {
        let mut ends = self.events.iter().filter(|e| e["node"] == node && !e["summary"].is_null());
        let end = ends.next().unwrap_or_else(|| panic!("{node} has no end in {}", self.text));
        assert!(ends.next().is_none(), "{node} has several ends in {}", self.text);
        let kind = end["event"].as_str().expect("a kind");
        (kind.strip_prefix("node-").unwrap_or(kind), end)
    }

    #[track_caller]
    pub fn failure(&self, node: &str) -> &Value {
        let (how, end) = self.end(node);
        assert_eq!(how, "failed", "{}", self.text);
        &end["failure"]
    }

    #[track_caller]
    pub fn ends_with(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{}", self.text);
        self
    }

    /// That a node's run finished with so many changes and handlers.
    #[track_caller]
    pub fn finished(&self, node: &str, changed: u64, handlers: u64) -> &Self {
        let (how, end) = self.end(node);
        let figures = (how, end["summary"]["changed"].as_u64(), end["summary"]["handlers"].as_u64());
        assert_eq!(figures, ("finished", Some(changed), Some(handlers)), "{node}: {}", self.text);
        self
    }
}
