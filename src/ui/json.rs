//! `--format json`. A command prints one value; a run prints a stream: one JSON object a line (JSON Lines), each
//! an [`Event`] as it happens, and nothing else on standard output.
//!
//! Every line has `event`, its kind in kebab-case. The first is always `run-started`, and it alone has `version`,
//! which rises when a field goes away or changes its meaning; fields and kinds are added without that.
//!
//! | event | fields besides `node` and `role` where they apply |
//! |---|---|
//! | `run-started` | `version`, `run`, `dry_run`, `nodes` |
//! | `connecting`, `connected` | `address`; `milliseconds` |
//! | `waiting` | `on`: the role that must be done on other nodes first |
//! | `role-started`, `role-finished` | `resources`; `changed` |
//! | `step` | `step`: what the node is doing now |
//! | `differs` | `resource`, `place`, `differences`, `notify`. In a dry run this is the plan |
//! | `changed` | `resource`, `milliseconds`: made so and read back |
//! | `unknown` | `resource`, `reason`: cannot be told before the run |
//! | `note` | `resource`, `note` |
//! | `handler-pending` | `handler`, `left_over`: by an earlier run |
//! | `handler-run` | `handler`, `milliseconds` |
//! | `retrying` | `reason` |
//! | `node-finished`, `interrupted` | `summary` |
//! | `node-failed` | `failure` (`message`, `role`, `resource`, `place`, `output`, `hint`), `summary` |
//! | `node-skipped` | `reason` |
//! | `run-finished` | `milliseconds`, `round_trips` |
//!
//! A difference is `{"difference": "value", "attribute", "before", "after"}`, `{"difference": "text", "path",
//! "before", "after"}` (whole texts, not a diff) or `{"difference": "secret", "attribute"}`; `null` stands for what
//! is absent. Characters that could deceive a terminal are written as `\u` escapes.

use std::io::{Result, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};

use super::text;
use crate::engine::event::Event;

/// Of the event stream.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct First<'a> {
    version: u32,
    #[serde(flatten)]
    event: &'a Event,
}

/// An event as a line of the stream.
pub fn event(event: &Event) -> serde_json::Result<Vec<u8>> {
    match event {
        Event::RunStarted { .. } => write(&First { version: VERSION, event }, CompactFormatter),
        _ => write(event, CompactFormatter),
    }
}

/// Any value, on one line.
pub fn compact(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    write(value, CompactFormatter)
}

/// Any value, indented.
pub fn pretty(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    write(value, PrettyFormatter::new())
}

fn write(value: &impl Serialize, formatter: impl Formatter) -> serde_json::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut bytes, Clean(formatter)))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Writes what [`text::deceives`] as escapes; a reader of the JSON gets the same string.
struct Clean<F>(F);

impl<F: Formatter> Formatter for Clean<F> {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(text::deceives) {
            writer.write_all(&rest.as_bytes()[..at])?;
            let mut after = rest[at..].chars();
            for unit in after.next().into_iter().flat_map(|c| c.encode_utf16(&mut [0; 2]).to_vec()) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = after.as_str();
        }
        writer.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        self.0.end_object_value(writer)
    }
}
