//! The files of roles and their templates: compiled in, or a user's own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use include_dir::{Dir, include_dir};

use crate::diagnostic::{Diagnostic, Diagnostics, Source};

static ROLES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/roles");
static TEMPLATES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/templates");

/// Texts of role.toml files by role, and of templates by `role/path`.
#[derive(Debug, Clone, Default)]
pub struct Files {
    pub roles: BTreeMap<String, Arc<Source>>,
    pub templates: BTreeMap<String, Arc<Source>>,
}

impl Files {
    /// What is compiled into the binary.
    pub fn builtin() -> Self {
        let mut files = Self::default();
        for (folder, dir) in [("roles", &ROLES), ("templates", &TEMPLATES)] {
            embedded(dir, &mut |path, text| {
                files.insert(folder, path, Source::new(format!("builtin:{folder}/{path}"), text));
            });
        }
        files
    }

    /// Lays a folder's `roles/` and `templates/` over what is there.
    pub fn overlay(&mut self, dir: &Path) -> Result<(), Diagnostics> {
        let mut errors = Vec::new();
        for folder in ["roles", "templates"] {
            let root = dir.join(folder);
            on_disk(&root, "", &mut errors, &mut |path, text| {
                self.insert(folder, path, Source::new(root.join(path), text));
            });
        }
        if errors.is_empty() { Ok(()) } else { Err(Diagnostics(errors)) }
    }

    /// `path` is relative to `folder`, with `/` between its parts.
    fn insert(&mut self, folder: &str, path: &str, source: Arc<Source>) {
        if folder == "templates" {
            // A template belongs to a role; `.gitkeep` and the like do not.
            if path.contains('/') {
                self.templates.insert(path.to_owned(), source);
            }
        } else if let Some(role) = path.strip_suffix("/role.toml").filter(|role| !role.contains('/')) {
            self.roles.insert(role.to_owned(), source);
        }
    }
}

fn embedded(dir: &Dir<'_>, found: &mut impl FnMut(&str, &str)) {
    for file in dir.files() {
        if let (Some(path), Some(text)) = (file.path().to_str(), file.contents_utf8()) {
            found(path, text);
        }
    }
    for dir in dir.dirs() {
        embedded(dir, found);
    }
}

/// A folder that does not exist holds nothing.
fn on_disk(root: &Path, below: &str, errors: &mut Vec<Diagnostic>, found: &mut impl FnMut(&str, &str)) {
    let cannot =
        |path: &Path, why: std::io::Error| Diagnostic::new(format!("cannot read {}: {why}", path.display()));
    let folder = root.join(below);
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => return errors.push(cannot(&folder, error)),
    };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') || name.ends_with('~') {
            continue;
        }
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        let full = root.join(&path);
        if full.is_dir() {
            on_disk(root, &path, errors, found);
            continue;
        }
        match std::fs::read_to_string(&full) {
            Ok(text) => found(&path, &text),
            Err(error) => errors.push(cannot(&full, error)),
        }
    }
}
