//! Editing a kubeconfig's YAML as text: one item of a list replaced or added, everything else as it was.
//!
//! Knows block style alone, as kubectl and people write it. The caller reads the result back and does not use
//! it if it means anything else than it should.

use serde_json::Value;

/// YAML in block style.
pub fn render(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap_or_default()
}

/// Brings the text from what it means, `before`, to `after`: changed and added items of lists at the top, and
/// changed scalars at the top.
pub fn edit(text: &str, before: &Value, after: &Value) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let Some(after) = after.as_object() else { return text.to_owned() };
    for (key, value) in after.iter().filter(|(key, value)| before[key.as_str()] != **value) {
        match value {
            Value::Array(items) => edit_list(&mut lines, key, before[key.as_str()].as_array(), items),
            scalar => set_scalar(&mut lines, key, scalar),
        }
    }
    lines.join("\n") + "\n"
}

fn set_scalar(lines: &mut Vec<String>, key: &str, value: &Value) {
    let line = format!("{key}: {}", render(value).trim_end());
    match find_key(lines, key) {
        Some(at) => lines[at] = line,
        None => lines.push(line),
    }
}

/// The line of a key at the top.
fn find_key(lines: &[String], key: &str) -> Option<usize> {
    lines.iter().position(|line| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':')))
}

fn edit_list(lines: &mut Vec<String>, key: &str, before: Option<&Vec<Value>>, after: &[Value]) {
    let before = before.map(Vec::as_slice).unwrap_or_default();
    let start = find_key(lines, key).unwrap_or_else(|| {
        lines.push(String::new());
        lines.len() - 1
    });
    if before.is_empty() {
        lines[start] = format!("{key}:");
    }
    let section = Section::find(lines, start);
    // From the end, so that line numbers hold.
    for (at, item) in after.iter().enumerate().rev() {
        let rendered = section.render(item);
        match (before.get(at), section.items.get(at)) {
            (Some(old), _) if old == item => {}
            (Some(_), Some(&(from, to))) => drop(lines.splice(from..to, rendered)),
            _ => drop(lines.splice(section.end..section.end, rendered)),
        }
    }
}

/// A list's lines.
struct Section {
    /// Before the items' dashes.
    indent: String,
    /// First line and the one after the last, for every item. Comments after an item count as the next one's.
    items: Vec<(usize, usize)>,
    /// After the last item.
    end: usize,
}

impl Section {
    fn find(lines: &[String], start: usize) -> Self {
        let mut indent: Option<String> = None;
        let mut starts = Vec::new();
        let mut end = start + 1;
        for (at, line) in lines.iter().enumerate().skip(start + 1) {
            let inner = line.trim_start();
            if inner.is_empty() || inner.starts_with('#') {
                continue;
            }
            let before = &line[..line.len() - inner.len()];
            let dash = inner == "-" || inner.starts_with("- ");
            if before.is_empty() && !dash {
                break;
            }
            if dash && indent.as_deref().is_none_or(|indent| indent == before) {
                indent = Some(before.to_owned());
                starts.push(at);
            }
            end = at + 1;
        }
        let ends = starts.iter().skip(1).copied().chain([end]);
        let items = starts.iter().copied().zip(ends).map(|(from, to)| (from, last_of(lines, from, to)));
        Self { indent: indent.clone().unwrap_or_default(), items: items.collect(), end }
    }

    fn render(&self, item: &Value) -> Vec<String> {
        let text = render(&Value::Array(vec![item.clone()]));
        text.lines().map(|line| format!("{}{line}", self.indent)).collect()
    }
}

/// Where an item ends, without the blank lines and comments that follow it.
fn last_of(lines: &[String], from: usize, to: usize) -> usize {
    let blank = |line: &String| line.trim().is_empty() || line.trim_start().starts_with('#');
    (from + 1..=to).rev().find(|end| !blank(&lines[end - 1])).unwrap_or(to)
}
