//! Reads a TOML document with places: every mistake is collected, none ends the reading.
//!
//! Used for the inventory and for roles, so that both complain in the same words.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use indexmap::IndexMap;
use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::Vars;
use crate::diagnostic::{Diagnostic, Place, Source, suggest};

/// Where one key and its value stand, in bytes of the source's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub key: Range<usize>,
    pub value: Range<usize>,
}

/// Places by path: `nodes.orpi-1.vars.timezone`, `names[2]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spans(BTreeMap<String, Span>);

impl Spans {
    /// The span of a path, or of the nearest enclosing one that is known.
    pub fn nearest(&self, path: &str) -> Option<&Span> {
        let mut path = path;
        loop {
            if let Some(span) = self.0.get(path) {
                return Some(span);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    pub(super) fn exact(&self, path: &str) -> Option<&Span> {
        self.0.get(path)
    }

    fn insert(&mut self, path: &str, key: Range<usize>, value: Range<usize>) {
        self.0.insert(path.to_owned(), Span { key, value });
    }
}

/// A key with its value; elements of arrays have their array's key.
#[derive(Debug, Clone)]
pub(crate) struct Field<'d> {
    pub key: &'d str,
    pub key_span: Range<usize>,
    pub value: &'d DeValue<'d>,
    pub span: Range<usize>,
    pub path: String,
}

/// A table, its fields in the order written.
#[derive(Debug, Clone)]
pub(crate) struct Table<'d> {
    /// How messages name it: "node `orpi-1`".
    pub what: String,
    /// Shown when something is missing.
    pub span: Range<usize>,
    pub fields: Vec<Field<'d>>,
}

impl<'d> Table<'d> {
    pub fn new(what: impl Into<String>, path: &str, span: Range<usize>, table: &'d DeTable<'d>) -> Self {
        let mut fields: Vec<Field<'d>> = table
            .iter()
            .map(|(key, value)| {
                let name: &'d str = key.get_ref().as_ref();
                let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                Field { key: name, key_span: key.span(), value: value.get_ref(), span: value.span(), path }
            })
            .collect();
        fields.sort_by_key(|field| field.key_span.start);
        Self { what: what.into(), span, fields }
    }

    pub fn get(&self, key: &str) -> Option<&Field<'d>> {
        self.fields.iter().find(|field| field.key == key)
    }
}

/// A string with the place of its value.
pub(crate) type Text = (String, Range<usize>);

/// Collects mistakes while a document is read.
#[derive(Debug)]
pub(crate) struct Reader<'d> {
    pub source: &'d Arc<Source>,
    pub errors: Vec<Diagnostic>,
    pub spans: Spans,
}

impl<'d> Reader<'d> {
    pub fn new(source: &'d Arc<Source>) -> Self {
        Self { source, errors: Vec::new(), spans: Spans::default() }
    }

    /// Parses the text. `None` when it is not TOML: what was guessed of it would only give false mistakes.
    pub fn parse(&mut self) -> Option<Spanned<DeTable<'d>>> {
        let (table, errors) = DeTable::parse_recoverable(&self.source.text);
        for error in &errors {
            let end = self.source.text.len();
            let span = error.span().unwrap_or(end..end);
            let mut lines = error.message().lines();
            let first = lines.next().unwrap_or("not valid TOML").to_owned();
            let rest = lines.collect::<Vec<_>>().join(", ");
            let mut diagnostic =
                Diagnostic::new(format!("not valid TOML: {first}")).at(self.place(span)).label("here");
            if !rest.is_empty() {
                diagnostic = diagnostic.help(rest);
            }
            self.errors.push(diagnostic);
        }
        errors.is_empty().then_some(table)
    }

    pub fn place(&self, span: Range<usize>) -> Place {
        Place::new(self.source, span)
    }

    /// Keeps the place of a field, for what is found out about it later.
    pub fn note(&mut self, field: &Field<'d>) {
        self.spans.insert(&field.path, field.key_span.clone(), field.span.clone());
    }

    pub fn error(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) {
        let mut diagnostic = Diagnostic::new(message).at(self.place(span));
        let said = |text: String| (!text.is_empty()).then_some(text);
        diagnostic.label = said(label.into());
        diagnostic.help = said(help.into());
        self.errors.push(diagnostic);
    }

    /// A name that is none of the valid ones.
    pub fn unknown(&mut self, span: Range<usize>, what: &str, word: &str, valid: &[&str]) {
        let help = if valid.is_empty() {
            format!("there is no {what} yet")
        } else {
            suggest(word, valid.iter().copied())
        };
        self.error(span, format!("unknown {what} `{word}`"), format!("no such {what}"), help);
    }

    /// Complains of every key that is not among `keys`.
    pub fn known(&mut self, table: &Table<'d>, keys: &[&str]) {
        for field in table.fields.iter().filter(|field| !keys.contains(&field.key)) {
            self.error(
                field.key_span.clone(),
                format!("unknown key `{}` in {}", field.key, table.what),
                "not a key here",
                suggest(field.key, keys.iter().copied()),
            );
        }
    }

    pub fn missing(&mut self, table: &Table<'d>, key: &str, example: &str) {
        self.error(
            table.span.clone(),
            format!("{} has no `{key}`", table.what),
            format!("`{key}` is missing"),
            format!("add a line like: {key} = {example}"),
        );
    }

    pub fn wrong_type(&mut self, field: &Field<'d>, expected: &str) {
        let kind = kind_of(field.value);
        self.error(
            field.span.clone(),
            format!("`{}` must be {expected}, not {kind}", field.key),
            format!("this is {kind}"),
            "",
        );
    }

    pub fn table(&mut self, field: &Field<'d>, what: impl Into<String>) -> Option<Table<'d>> {
        match field.value {
            DeValue::Table(table) => Some(Table::new(what, &field.path, field.key_span.clone(), table)),
            _ => {
                self.wrong_type(field, "a table");
                None
            }
        }
    }

    /// The table under `key`, when it is there.
    pub fn section(&mut self, table: &Table<'d>, key: &str, what: &str) -> Option<Table<'d>> {
        let field = table.get(key)?;
        self.table(field, what)
    }

    pub fn string_of(&mut self, field: &Field<'d>) -> Option<Text> {
        match field.value {
            DeValue::String(text) => Some((text.to_string(), field.span.clone())),
            _ => {
                self.wrong_type(field, "a string");
                None
            }
        }
    }

    pub fn string(&mut self, table: &Table<'d>, key: &str) -> Option<Text> {
        let field = table.get(key)?;
        self.string_of(field)
    }

    pub fn boolean(&mut self, table: &Table<'d>, key: &str) -> Option<bool> {
        let field = table.get(key)?;
        match field.value {
            DeValue::Boolean(value) => Some(*value),
            _ => {
                self.wrong_type(field, "true or false");
                None
            }
        }
    }

    /// A string that must be there.
    pub fn required(&mut self, table: &Table<'d>, key: &str, example: &str) -> Option<Text> {
        if table.get(key).is_none() {
            self.missing(table, key, example);
        }
        self.string(table, key)
    }

    pub fn port(&mut self, table: &Table<'d>, key: &str) -> Option<u16> {
        let field = table.get(key)?;
        let DeValue::Integer(number) = field.value else {
            self.wrong_type(field, "a whole number");
            return None;
        };
        match u16::from_str_radix(number.as_str(), number.radix()) {
            Ok(port) if port > 0 => Some(port),
            _ => {
                let message = format!("`{key}` must be between 1 and 65535");
                self.error(field.span.clone(), message, "not a port", "");
                None
            }
        }
    }

    pub fn elements(&mut self, table: &Table<'d>, key: &str, expected: &str) -> Vec<Field<'d>> {
        let Some(field) = table.get(key) else { return Vec::new() };
        let DeValue::Array(array) = field.value else {
            self.wrong_type(field, expected);
            return Vec::new();
        };
        array
            .iter()
            .enumerate()
            .map(|(at, value)| Field {
                value: value.get_ref(),
                span: value.span(),
                path: format!("{}[{at}]", field.path),
                ..field.clone()
            })
            .collect()
    }

    pub fn strings(&mut self, table: &Table<'d>, key: &str) -> Vec<Text> {
        let elements = self.elements(table, key, "a list of strings");
        elements
            .iter()
            .filter_map(|element| match element.value {
                DeValue::String(text) => Some((text.to_string(), element.span.clone())),
                _ => {
                    self.wrong_type(element, "a list of strings");
                    None
                }
            })
            .collect()
    }

    pub fn string_map(&mut self, table: &Table<'d>, key: &str, what: &str) -> IndexMap<String, String> {
        let Some(map) = self.section(table, key, what) else { return IndexMap::new() };
        map.fields.iter().filter_map(|field| Some((field.key.to_owned(), self.string_of(field)?.0))).collect()
    }

    /// Free values by name, with their places kept.
    pub fn vars(&mut self, table: &Table<'d>, what: &str) -> Vars {
        let Some(vars) = self.section(table, "vars", what) else { return Vars::new() };
        vars.fields.iter().map(|field| (field.key.to_owned(), self.value(field))).collect()
    }

    /// A value without places; they are kept in [`Reader::spans`] under the field's path.
    pub fn value(&mut self, field: &Field<'d>) -> toml::Value {
        self.note(field);
        match field.value {
            DeValue::String(text) => toml::Value::String(text.to_string()),
            DeValue::Boolean(value) => toml::Value::Boolean(*value),
            DeValue::Datetime(value) => toml::Value::Datetime(*value),
            DeValue::Float(value) => toml::Value::Float(value.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Integer(value) => match i64::from_str_radix(value.as_str(), value.radix()) {
                Ok(number) => toml::Value::Integer(number),
                Err(_) => {
                    let message = format!("`{}` is too large a number", field.key);
                    self.error(field.span.clone(), message, "more than 64 bits", "");
                    toml::Value::Integer(0)
                }
            },
            DeValue::Array(array) => toml::Value::Array(
                array
                    .iter()
                    .enumerate()
                    .map(|(at, value)| {
                        self.value(&Field {
                            value: value.get_ref(),
                            span: value.span(),
                            key_span: value.span(),
                            path: format!("{}[{at}]", field.path),
                            key: field.key,
                        })
                    })
                    .collect(),
            ),
            DeValue::Table(table) => {
                let table = Table::new("", &field.path, field.span.clone(), table);
                let entries = table.fields.iter().map(|field| (field.key.to_owned(), self.value(field)));
                toml::Value::Table(entries.collect())
            }
        }
    }
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Mistakes as plain lines, for golden texts: `path:line:column: message`, the label and the help.
#[cfg(test)]
pub(crate) fn plain(errors: &crate::diagnostic::Diagnostics) -> String {
    let mut text = String::new();
    for error in &errors.0 {
        if let Some(place) = &error.place {
            let (line, column) = place.source.position(place.span.start);
            text += &format!("{}:{line}:{column}: ", place.source.path.display());
        }
        text += &error.message;
        for (mark, more) in [(" ^ ", &error.label), (" ? ", &error.help)] {
            if let Some(more) = more.as_deref().filter(|more| !more.is_empty()) {
                text += &format!("\n{mark}{more}");
            }
        }
        text.push('\n');
    }
    text
}
