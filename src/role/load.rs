//! role.toml → [`Role`]: everything that can be checked without a node is checked here, all mistakes at once.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;
use toml::de::DeValue;

use super::files::Files;
use super::{ActionKind, HandlerSpec, ResourceSpec, Role, Roles, Text, Types};
use crate::diagnostic::{Diagnostic, Diagnostics, Place, Source, suggest};
use crate::inventory::document::{Field, Reader, Table};
use crate::inventory::vars::{Declaration, Declarations, VarType};
use crate::secret::Secrets;
use crate::template::{Fault, Templates};

const TOP: &[&str] = &["description", "after", "one_first", "include", "vars", "resource", "handler"];
const AROUND: &[&str] = &["when", "for_each", "notify"];
const VAR: &[&str] = &["type", "default", "doc", "choices"];
const HANDLER: &[&str] = &["name", "when", "undo", "out_of_service"];
const ACTIONS: &[&str] = &["restart", "reload", "daemon-reload", "command", "reboot"];

impl Roles {
    /// Reads all roles: the built-in ones, and those of a folder with `roles/` and `templates/`, whose files
    /// stand before built-in files of the same name.
    pub fn load(builtin: Files, user_dir: Option<&Path>) -> Result<Self, Diagnostics> {
        Self::load_with(builtin, user_dir, Types::default())
    }

    /// The same with other resource types than the built-in ones.
    pub fn load_with(mut files: Files, user_dir: Option<&Path>, types: Types) -> Result<Self, Diagnostics> {
        if let Some(dir) = user_dir {
            files.overlay(dir)?;
        }
        let templates = Templates::new(&Secrets::placeholder(), &files.templates);
        let mut errors = Vec::new();
        for source in files.templates.values() {
            if let Some(fault) = templates.check(&source.text) {
                errors.push(at_text(&fault, &files.templates, source, 0..source.text.len(), &source.text));
            }
        }
        let names: Vec<&str> = files.roles.keys().map(String::as_str).collect();
        let mut roles = IndexMap::new();
        for (name, source) in &files.roles {
            let reading = Reading { name, names: &names, files: &files, types, templates: &templates };
            let (role, mistakes) = reading.role(source);
            roles.extend(role.map(|role| (name.clone(), role)));
            errors.extend(mistakes);
        }
        cycles(&roles, &mut errors);
        let roles = Self { roles, templates: files.templates, types };
        roles.includes(&mut errors);
        roles.notifications(&mut errors);
        if !errors.is_empty() {
            errors.sort_by_key(|error| {
                error.place.as_ref().map(|place| (place.path().to_owned(), place.span.start))
            });
            return Err(Diagnostics(errors));
        }
        Ok(roles)
    }

    /// What is included neither includes nor waits itself: one look shows what a role is made of.
    fn includes(&self, errors: &mut Vec<Diagnostic>) {
        let waits = |role: &Role| !role.include.is_empty() || !role.after.is_empty() || role.one_first;
        for (name, place) in self.roles.values().flat_map(|role| &role.include) {
            if self.roles.get(name).is_some_and(waits) {
                let message = format!(
                    "`{name}` has `include`, `after` or `one_first` itself, so it cannot be included"
                );
                let help = "write those here instead";
                errors.push(Diagnostic::new(message).at(place.clone()).label("here").help(help));
            }
        }
    }

    fn notifications(&self, errors: &mut Vec<Diagnostic>) {
        for role in self.roles.values() {
            let handlers: Vec<&str> =
                self.parts(role).flat_map(|part| part.handlers.keys()).map(String::as_str).collect();
            for (handler, place) in role.resources.iter().flat_map(|resource| &resource.notify) {
                if !handlers.contains(&handler.as_str()) {
                    let error = Diagnostic::new(format!("unknown handler `{handler}`"));
                    let help = suggest(handler, handlers.iter().copied());
                    errors.push(error.at(place.clone()).label("no such handler").help(help));
                }
            }
        }
    }
}

/// What is known while one role is read.
struct Reading<'a> {
    name: &'a str,
    names: &'a [&'a str],
    files: &'a Files,
    types: Types,
    templates: &'a Templates,
}

impl Reading<'_> {
    /// The role and all mistakes in it.
    fn role(&self, source: &Arc<Source>) -> (Option<Role>, Vec<Diagnostic>) {
        let mut reader = Reader::new(source);
        let Some(document) = reader.parse() else { return (None, reader.errors) };
        let top = Table::new(format!("role `{}`", self.name), "", 0..0, document.get_ref());
        let role = self.read(&mut reader, &top);
        reader.errors.sort_by_key(|error| error.place.as_ref().map(|place| place.span.start));
        (Some(Role { spans: reader.spans, ..role }), reader.errors)
    }

    fn read<'d>(&self, reader: &mut Reader<'d>, top: &Table<'d>) -> Role {
        reader.known(top, TOP);
        let description = reader.required(top, "description", "\"What the role does\"");
        let after = self.roles(reader, top, "after");
        let one_first = reader.boolean(top, "one_first").unwrap_or_default();
        let include = self.roles(reader, top, "include");
        let vars = self.vars(reader, top);
        let handlers = self.handlers(reader, top);
        let resources = self.resources(reader, top);
        Role {
            name: self.name.to_owned(),
            description: description.map(|(text, _)| text).unwrap_or_default(),
            after,
            one_first,
            include,
            vars,
            resources,
            handlers,
            source: reader.source.clone(),
            spans: Default::default(),
        }
    }

    /// Names of roles that exist.
    fn roles<'d>(&self, reader: &mut Reader<'d>, top: &Table<'d>, key: &str) -> Vec<(String, Place)> {
        let mut roles = Vec::new();
        for (role, span) in reader.strings(top, key) {
            if self.names.contains(&role.as_str()) {
                roles.push((role, reader.place(span)));
            } else {
                reader.unknown(span, "role", &role, self.names);
            }
        }
        roles
    }

    fn vars<'d>(&self, reader: &mut Reader<'d>, top: &Table<'d>) -> Declarations {
        let Some(table) = reader.section(top, "vars", "[vars]") else { return Declarations::new() };
        let mut vars = Declarations::new();
        for field in &table.fields {
            let Some(var) = reader.table(field, format!("variable `{}`", field.key)) else { continue };
            reader.known(&var, VAR);
            if super::RESERVED.contains(&field.key) {
                let message = format!("`{}` is a name that templates already have", field.key);
                reader.error(field.key_span.clone(), message, "reserved", "choose another name");
            }
            let Some((kind, span)) = reader.required(&var, "type", "\"string\"") else { continue };
            let Some(kind) = VarType::parse(&kind) else {
                reader.unknown(span, "type", &kind, VarType::NAMES);
                continue;
            };
            let choices = reader.elements(&var, "choices", "a list");
            let mut declaration = Declaration {
                role: self.name.to_owned(),
                kind,
                default: None,
                doc: reader.string(&var, "doc").map(|(doc, _)| doc).unwrap_or_default(),
                choices: choices.iter().map(|choice| reader.value(choice)).collect(),
                place: reader.place(field.key_span.clone()),
            };
            if let Some(default) = var.get("default") {
                let value = reader.value(default);
                if let Err(mut error) = declaration.check(field.key, &value) {
                    error.place = Some(reader.place(default.span.clone()));
                    reader.errors.push(error);
                }
                declaration.default = Some(value);
            }
            vars.insert(field.key.to_owned(), declaration);
        }
        vars
    }

    fn handlers<'d>(&self, reader: &mut Reader<'d>, top: &Table<'d>) -> BTreeMap<String, HandlerSpec> {
        let mut handlers: BTreeMap<String, HandlerSpec> = BTreeMap::new();
        let keys: Vec<&str> = HANDLER.iter().chain(ACTIONS).copied().collect();
        for element in reader.elements(top, "handler", "a list of tables ([[handler]])") {
            let Some(table) = reader.table(&element, "a handler") else { continue };
            // The whole table's place: an element of an array has no key of its own.
            let table = Table { span: element.span.clone(), ..table };
            reader.known(&table, &keys);
            let name = reader.required(&table, "name", "\"restart-x\"");
            let actions: Vec<&Field<'d>> =
                table.fields.iter().filter(|field| ACTIONS.contains(&field.key)).collect();
            let [action] = actions[..] else {
                let span = actions.get(1).map_or(element.span.clone(), |field| field.key_span.clone());
                let help = format!("give one of: {}", ACTIONS.join(", "));
                reader.error(span, "a handler does exactly one thing", "", help);
                continue;
            };
            let Some(action) = self.action(reader, action) else { continue };
            let when = self.expression(reader, &table, "when");
            let undo = table.get("undo").and_then(|field| self.text(reader, field));
            let reboots = matches!(action, ActionKind::Reboot);
            let out_of_service = reader.boolean(&table, "out_of_service").unwrap_or(reboots);
            let Some((name, span)) = name else { continue };
            if let Some(first) = handlers.get(&name) {
                let message = format!("the handler `{name}` is already defined at {}", first.place);
                reader.error(span, message, "second handler of this name", "rename one of them");
                continue;
            }
            let place = reader.place(span);
            handlers.insert(name, HandlerSpec { action, when, undo, out_of_service, place });
        }
        handlers
    }

    fn action<'d>(&self, reader: &mut Reader<'d>, field: &Field<'d>) -> Option<ActionKind> {
        let make: fn(Text) -> ActionKind = match field.key {
            "restart" => ActionKind::Restart,
            "reload" => ActionKind::Reload,
            "command" => ActionKind::Command,
            key => {
                if !matches!(field.value, DeValue::Boolean(true)) {
                    reader.wrong_type(field, "`true`");
                }
                return Some(if key == "reboot" { ActionKind::Reboot } else { ActionKind::DaemonReload });
            }
        };
        self.text(reader, field).map(make)
    }

    /// A template, its syntax checked.
    fn text<'d>(&self, reader: &mut Reader<'d>, field: &Field<'d>) -> Option<Text> {
        let (text, span) = reader.string_of(field)?;
        self.syntax(reader, self.templates.check(&text), &text, span.clone());
        Some(Text { text, place: reader.place(span) })
    }

    fn resources<'d>(&self, reader: &mut Reader<'d>, top: &Table<'d>) -> Vec<ResourceSpec> {
        let elements = reader.elements(top, "resource", "a list of tables ([[resource]])");
        elements.iter().filter_map(|element| self.resource(reader, element)).collect()
    }

    fn resource<'d>(&self, reader: &mut Reader<'d>, element: &Field<'d>) -> Option<ResourceSpec> {
        let table = reader.table(element, "a resource")?;
        let when = self.expression(reader, &table, "when");
        let for_each = self.expression(reader, &table, "for_each");
        let notify = reader.strings(&table, "notify");
        let notify = notify.into_iter().map(|(handler, span)| (handler, reader.place(span))).collect();
        let mut typed = Vec::new();
        for field in table.fields.iter().filter(|field| !AROUND.contains(&field.key)) {
            match self.types.names.iter().find(|kind| **kind == field.key) {
                Some(kind) => typed.push((*kind, field)),
                None => {
                    let valid: Vec<&str> = self.types.names.iter().chain(AROUND).copied().collect();
                    reader.unknown(field.key_span.clone(), "resource type", field.key, &valid);
                    return None;
                }
            }
        }
        let [(kind, field)] = typed[..] else {
            let (span, message) = match typed.get(1) {
                Some((_, second)) => (second.key_span.clone(), "a resource is of one type only"),
                None => (element.span.clone(), "a resource without a type"),
            };
            reader.error(span, message, "", "write one type: file = { path = \"…\" }");
            return None;
        };
        let body = reader.table(field, kind)?;
        self.strings(reader, field);
        self.template_file(reader, &body);
        let table = reader.value(field);
        let place = reader.place(field.key_span.clone());
        Some(ResourceSpec { kind, table, path: field.path.clone(), when, for_each, notify, place })
    }

    fn expression<'d>(&self, reader: &mut Reader<'d>, table: &Table<'d>, key: &str) -> Option<Text> {
        let (text, span) = reader.string(table, key)?;
        self.syntax(reader, self.templates.check_expression(&text), &text, span.clone());
        Some(Text { text, place: reader.place(span) })
    }

    /// Checks the syntax of every string in a value.
    fn strings<'d>(&self, reader: &mut Reader<'d>, field: &Field<'d>) {
        match field.value {
            DeValue::String(text) => {
                self.syntax(reader, self.templates.check(text), text, field.span.clone())
            }
            DeValue::Array(array) => {
                for value in array {
                    let element = Field { value: value.get_ref(), span: value.span(), ..field.clone() };
                    self.strings(reader, &element);
                }
            }
            DeValue::Table(table) => {
                for field in &Table::new("", &field.path, field.span.clone(), table).fields {
                    self.strings(reader, field);
                }
            }
            _ => {}
        }
    }

    fn template_file<'d>(&self, reader: &mut Reader<'d>, body: &Table<'d>) {
        let Some((name, span)) = reader.string(body, "template") else { return };
        if let Some(content) = body.get("content") {
            let message = "`content` and `template` are both given";
            reader.error(content.key_span.clone(), message, "", "keep one of them");
        }
        // A name that is itself a template is looked up when it is rendered.
        if name.contains("{{") || self.files.templates.contains_key(&format!("{}/{name}", self.name)) {
            return;
        }
        let prefix = format!("{}/", self.name);
        let valid: Vec<&str> =
            self.files.templates.keys().filter_map(|file| file.strip_prefix(&prefix)).collect();
        let help = match crate::diagnostic::nearest(&name, valid) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write it: templates/{prefix}{name}"),
        };
        reader.error(span, format!("the template `{prefix}{name}` does not exist"), "no such file", help);
    }

    fn syntax(&self, reader: &mut Reader<'_>, fault: Option<Fault>, text: &str, span: Range<usize>) {
        if let Some(fault) = fault {
            reader.errors.push(at_text(&fault, &self.files.templates, reader.source, span, text));
        }
    }
}

/// A template's fault at its place: in the template file it names, or in the text that stands at `span`.
pub(super) fn at_text(
    fault: &Fault,
    templates: &BTreeMap<String, Arc<Source>>,
    source: &Arc<Source>,
    span: Range<usize>,
    text: &str,
) -> Diagnostic {
    let file = fault.template.as_ref().and_then(|name| templates.get(name));
    let place = match (file, fault.range.clone()) {
        (Some(file), range) => Place::new(file, range.unwrap_or(0..0)),
        // The text stands there as it is unless it was written with escapes.
        (None, Some(range)) => match source.text.get(span.clone()).and_then(|raw| raw.find(text)) {
            Some(at) => Place::new(source, span.start + at + range.start..span.start + at + range.end),
            None => Place::new(source, span),
        },
        (None, None) => Place::new(source, span),
    };
    let mut diagnostic = Diagnostic::new(fault.message.clone()).at(place).label("here");
    diagnostic.help = fault.help.clone();
    diagnostic
}

/// Complains once of every cycle of `after`.
fn cycles(roles: &IndexMap<String, Role>, errors: &mut Vec<Diagnostic>) {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for start in roles.keys() {
        let mut path: Vec<(&str, Option<&Place>)> = vec![(start, None)];
        visit(roles, &mut path, &mut done, errors);
    }
}

fn visit<'a>(
    roles: &'a IndexMap<String, Role>,
    path: &mut Vec<(&'a str, Option<&'a Place>)>,
    done: &mut BTreeSet<&'a str>,
    errors: &mut Vec<Diagnostic>,
) {
    let Some((name, _)) = path.last().copied() else { return };
    if done.contains(name) {
        return;
    }
    for (next, place) in roles.get(name).map(|role| role.after.as_slice()).unwrap_or_default() {
        if let Some(at) = path.iter().position(|(seen, _)| seen == next) {
            let mut round: Vec<&str> = path[at..].iter().map(|(name, _)| *name).collect();
            round.push(next);
            errors.push(
                Diagnostic::new(format!("roles wait for each other: {}", round.join(" → ")))
                    .at(place.clone())
                    .label("closes the circle")
                    .help("take one of these roles out of an `after`"),
            );
        } else {
            path.push((next, Some(place)));
            visit(roles, path, done, errors);
            path.pop();
        }
    }
    done.insert(name);
}
