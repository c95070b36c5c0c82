//! `--format json`. A command prints one value; a run prints a stream: one JSON object a line (JSON Lines), each
//! an [`Event`] as it happens, and nothing else on standard output.
//!
//! Every line has `event`, its kind in kebab-case. The first is always `run-started`, and it alone has `version`,
//! which rises when a field goes away or changes its meaning; fields and kinds are added without that.
//!
//! | event | fields besides `node` and `role` where they apply |
//! |---|---|
//! | `run-started` | `version`, `run`, `dry_run`, `nodes` |
//! | `connecting`, `connected` | `address`, `hostname`, `ip` (where it is known); `milliseconds` |
//! | `waiting` | `on`: the role that must be done on other nodes first |
//! | `role-started`, `role-finished` | `resources`; `changed` |
//! | `step` | `step`: what the node is doing now; `says`: what a long one printed last |
//! | `differs` | `resource`, `place`, `differences`, `notify`. In a dry run this is the plan |
//! | `changed` | `resource`, `milliseconds`: made so and read back. Those made together share the time they took |
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

use serde::Serialize;

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
pub fn event(event: &Event) -> serde_json::Result<String> {
    match event {
        Event::RunStarted { .. } => compact(&First { version: VERSION, event }),
        _ => compact(event),
    }
}

/// Any value, on one line.
pub fn compact(value: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string(value).map(clean)
}

/// Any value, indented.
pub fn pretty(value: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string_pretty(value).map(clean)
}

/// Writes what [`text::deceives`] as escapes; a reader gets the same strings. Newlines stand between tokens only:
/// serde_json has escaped those in strings.
fn clean(json: String) -> String {
    let mut out = String::with_capacity(json.len() + 1);
    for c in json.chars() {
        match c {
            '\n' => out.push(c),
            _ if text::deceives(c) => {
                out.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
            }
            _ => out.push(c),
        }
    }
    out.push('\n');
    out
}
