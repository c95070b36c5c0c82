//! The reference pages in docs/ are made from the sources, and this test keeps them so.
//! To write them anew: UPDATE_DOCS=1 cargo test --test reference

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use datahub::inventory::vars::Declarations;
use datahub::role::{Files, Roles};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Compares a page with what it should be, or writes it.
fn keep(page: &str, wanted: &str) {
    let path = root().join("docs").join(page);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, wanted).expect("is written");
    }
    let seen = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(seen == wanted, "docs/{page} is out of date; run: UPDATE_DOCS=1 cargo test --test reference");
}

/// A documented field: name, type, whether it may be left out, text.
struct Field {
    name: String,
    kind: &'static str,
    optional: bool,
    doc: String,
}

/// The fields of the struct that a role's table becomes, and the struct's own text.
fn read_type(source: &str, type_name: &str) -> (String, Vec<Field>) {
    let mut about = String::new();
    let (mut doc, mut optional) = (String::new(), false);
    let mut lines = source.lines().map(str::trim);
    let start = format!("pub struct {type_name} {{");
    for line in lines.by_ref() {
        match line.strip_prefix("///") {
            Some(text) => add(&mut doc, text),
            None if line == start => {
                about = std::mem::take(&mut doc);
                break;
            }
            None if line.starts_with("#[") => {}
            None => doc.clear(),
        }
    }
    let mut fields = Vec::new();
    for line in lines.take_while(|line| *line != "}") {
        if let Some(text) = line.strip_prefix("///") {
            add(&mut doc, text);
        } else if line.starts_with("#[serde(") {
            optional |= line.contains("default");
        } else if line.starts_with("pub(") {
            // Not read from a table: set by the type that owns it.
            doc.clear();
        } else if line.starts_with("pub(") {
            // Set by other types, never by a role.
            doc.clear();
            optional = false;
        } else if let Some((name, kind)) = line.trim_start_matches("pub ").split_once(": ") {
            let kind = kind.trim_end_matches(',');
            let inner = kind.strip_prefix("Option<").and_then(|k| k.strip_suffix('>'));
            fields.push(Field {
                name: name.to_owned(),
                kind: word(inner.unwrap_or(kind)),
                optional: optional || inner.is_some(),
                doc: std::mem::take(&mut doc),
            });
            optional = false;
        }
    }
    (about, fields)
}

fn add(doc: &mut String, text: &str) {
    if !doc.is_empty() && !doc.ends_with('\n') {
        doc.push(' ');
    }
    doc.push_str(text.trim());
    if text.trim().is_empty() {
        doc.push_str("\n\n");
    }
}

/// A type in the words of a role.
fn word(kind: &str) -> &'static str {
    match kind {
        "bool" => "true or false",
        kind if kind.starts_with("Vec<u8>") => "string",
        kind if kind.starts_with("Vec<") || kind.starts_with("BTreeSet<") => "list",
        kind if kind.contains("Map<") => "table",
        "u8" | "u16" | "u32" | "u64" | "i64" | "usize" => "whole number",
        _ => "string",
    }
}

fn struct_name(kind: &str) -> String {
    kind.split('_').map(|part| part[..1].to_uppercase() + &part[1..]).collect()
}

#[test]
fn resources() {
    let mut page = String::from(
        "# Resource types\n\n\
         What may stand in a role as `[[resource]]`. Around the type: `when` (a condition), `for_each` (a list; its element \
         is `item`), `notify` (handlers). Every string is a template. Fields marked * must be given.\n\n\
         This page is made from the sources: `UPDATE_DOCS=1 cargo test --test reference`.\n",
    );
    for kind in datahub::resource::KINDS {
        let path = root().join(format!("src/resource/{kind}.rs"));
        let source = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (about, fields) = read_type(&source, &struct_name(kind));
        assert!(!about.is_empty() && !fields.is_empty(), "{kind} is not documented");
        let _ =
            write!(page, "\n## {kind}\n\n{}\n\n| field | type | meaning |\n|---|---|---|\n", about.trim());
        for field in fields {
            let star = if field.optional { "" } else { " *" };
            let doc = field.doc.trim().replace('|', "\\|").replace("\n\n", " ");
            assert!(!doc.is_empty() || field.name == "path", "{kind}.{} is not documented", field.name);
            let doc = if doc.is_empty() { "An absolute path." } else { &doc };
            let _ = writeln!(page, "| `{}`{star} | {} | {doc} |", field.name, field.kind);
        }
    }
    keep("resources.md", &page);
}

#[test]
fn roles() {
    let roles = Roles::load(Files::builtin(), None).expect("the built-in roles are valid");
    let mut page = String::from(
        "# Roles\n\n\
         The roles that are built in, and their variables. Set them in `inventory/datahub.toml` under `[cluster.vars]`, \
         `[groups.<name>.vars]` or `[nodes.<name>.vars]`; `datahub inventory NODE` shows which value holds and why.\n\n\
         This page is made from `roles/`: `UPDATE_DOCS=1 cargo test --test reference`.\n",
    );
    for role in roles.roles.values() {
        let _ = write!(page, "\n## {}\n\n{}.\n\n", role.name, role.description);
        if !role.after.is_empty() {
            let after: Vec<String> = role.after.iter().map(|(name, _)| format!("`{name}`")).collect();
            let _ = write!(page, "Starts after {}.\n\n", after.join(", "));
        }
        if role.one_first {
            page.push_str("Done on the first node that has it before the others begin.\n\n");
        }
        if !role.include.is_empty() {
            let included: Vec<String> = role.include.iter().map(|(name, _)| format!("`{name}`")).collect();
            let _ = write!(page, "Includes {}, and has its variables too.\n\n", included.join(", "));
        }
        page.push_str(&table(&role.vars));
    }
    keep("roles.md", &page);
}

fn table(vars: &Declarations) -> String {
    let mut out = String::from("| variable | default | meaning |\n|---|---|---|\n");
    for (name, var) in vars {
        assert!(!var.doc.is_empty(), "{name} is not documented");
        let default = var.default.as_ref().map_or("(must be set)".to_owned(), |value| format!("`{value}`"));
        let choices: Vec<String> = var.choices.iter().map(|choice| format!("`{choice}`")).collect();
        let choices =
            if choices.is_empty() { String::new() } else { format!(" One of {}.", choices.join(", ")) };
        let _ = writeln!(out, "| `{name}` | {} | {}.{choices} |", default.replace('|', "\\|"), var.doc);
    }
    out
}

#[test]
fn events() {
    let source = std::fs::read_to_string(root().join("src/ui/json.rs")).expect("the JSON stream's source");
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    let text: Vec<&str> = lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    keep("events.md", &format!("# Events\n\n{}\n", text.join("\n").replace("[`Event`]", "event")));
}

#[test]
fn every_page_is_linked() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    for page in std::fs::read_dir(root().join("docs")).expect("docs").flatten() {
        let name = page.file_name().into_string().expect("UTF-8");
        assert!(readme.contains(&format!("docs/{name}")), "README.md does not link docs/{name}");
    }
    assert!(Path::new(&root().join("LICENSE")).exists());
}
