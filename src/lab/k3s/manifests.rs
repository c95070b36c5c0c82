//! `server/manifests`: files whose objects are applied at the start and when they change.
//!
//! As in K3s's deploy controller: `.yaml`, `.yml` and `.json`, also in folders; `<name>.skip` leaves a file alone; a
//! disabled packaged component's file is deleted with its objects; deleting a file deletes nothing. What is left
//! out: a manifest that loses an object does not delete it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::cluster::Cluster;
use super::objects::{DeleteOptions, PatchKind, Writer};
use super::store::Store;
use super::{Failure, bootstrap, files, log, object, resources, token, yaml};

/// The manager of what manifests apply.
const MANAGER: &str = "deploy@k3s";

/// The components K3s brings along: name to disable it by, file, content.
const PACKAGED: &[(&str, &str, &str)] = &[
    ("", "ccm.yaml", include_str!("packaged/ccm.yaml")),
    ("coredns", "coredns.yaml", include_str!("packaged/coredns.yaml")),
    ("local-storage", "local-storage.yaml", include_str!("packaged/local-storage.yaml")),
    (
        "metrics-server",
        "metrics-server/metrics-server-deployment.yaml",
        include_str!("packaged/metrics-server.yaml"),
    ),
    ("", "runtimes.yaml", include_str!("packaged/runtimes.yaml")),
    ("traefik", "traefik.yaml", include_str!("packaged/traefik.yaml")),
];

/// Writes the packaged manifests that are not disabled.
pub fn write_packaged(data: &Path, disabled: &[String]) -> Result<(), Failure> {
    for (component, file, text) in PACKAGED {
        let path = data.join("server/manifests").join(file);
        if disabled.iter().any(|name| name == component) {
            continue;
        }
        files::make_parent(&path, 0o700)?;
        files::write(&path, text, 0o600)?;
    }
    Ok(())
}

/// Applies the manifests again and again.
pub async fn watch(cluster: Arc<Cluster>, disabled: Vec<String>) -> Result<(), Failure> {
    let base = cluster.data.join("server/manifests");
    remove_disabled(&cluster.store, &base, &disabled);
    let mut applied = BTreeMap::new();
    loop {
        for path in manifests(&base) {
            if let Err(failure) = apply_changed(&cluster.store, &path, &mut applied) {
                log::error(format!(
                    "Failed to process config: failed to process {}: {failure}",
                    path.display()
                ));
            }
        }
        tokio::time::sleep(cluster.settings.manifests).await;
    }
}

/// The manifests below a folder, sorted, without the skipped ones.
fn manifests(base: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    collect(base, &mut all);
    all.sort();
    let skipped = |path: &Path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".skip");
        all.binary_search(&PathBuf::from(name)).is_ok()
    };
    let is_manifest = |path: &Path| {
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        !hidden && path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json")
    };
    all.iter().filter(|path| is_manifest(path) && !skipped(path)).cloned().collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        match path.is_dir() {
            true => collect(&path, found),
            false => found.push(path),
        }
    }
}

/// Applies a file that has changed since it was last applied whole.
fn apply_changed(
    store: &Store,
    path: &Path,
    applied: &mut BTreeMap<PathBuf, SystemTime>,
) -> Result<(), Failure> {
    let modified =
        path.metadata().and_then(|data| data.modified()).map_err(|error| Failure::file(path, error))?;
    if applied.get(path) == Some(&modified) {
        return Ok(());
    }
    let text = files::read(path)?;
    for wanted in yaml::objects(&text).map_err(Failure::said)? {
        apply(store, wanted)?;
    }
    record(store, path, &text)?;
    log::info(format!("Applied manifest at {:?}", path.display().to_string()));
    applied.insert(path.to_owned(), modified);
    Ok(())
}

fn apply(store: &Store, mut wanted: Value) -> Result<(), Failure> {
    let resource = resources::of_object(store, &wanted).ok_or_else(|| {
        Failure::said(format!("no matches for kind {} in version {}", wanted["kind"], wanted["apiVersion"]))
    })?;
    if resource.namespaced && object::namespace(&wanted).is_empty() {
        wanted["metadata"]["namespace"] = json!("default");
    }
    let (namespace, name) = (object::namespace(&wanted).to_owned(), object::name(&wanted).to_owned());
    let writer = writer(store, &resource, &namespace, &name);
    writer
        .patch(PatchKind::Apply { force: true }, &wanted)
        .map(drop)
        .map_err(|error| Failure::said(error.message))
}

fn writer<'a>(
    store: &'a Store,
    resource: &'a resources::Resource,
    namespace: &'a str,
    name: &'a str,
) -> Writer<'a> {
    Writer { store, resource, namespace, name, subresource: "", manager: MANAGER, dry_run: false }
}

/// Keeps what was applied as an Addon, as K3s does.
fn record(store: &Store, path: &Path, text: &str) -> Result<(), Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = name.split('.').next().unwrap_or_default().to_owned();
    let addon = json!({
        "apiVersion": "k3s.cattle.io/v1", "kind": "Addon",
        "metadata": {"name": name, "namespace": "kube-system"},
        "spec": {"source": path.display().to_string(), "checksum": token::ca_hash(text)},
    });
    bootstrap::ensure(store, addon.clone())?;
    apply(store, addon)
}

/// Deletes the objects and the files of disabled components.
fn remove_disabled(store: &Store, base: &Path, disabled: &[String]) {
    for (component, file, text) in PACKAGED {
        if component.is_empty() || !disabled.iter().any(|name| name == component) {
            continue;
        }
        for wanted in yaml::objects(text).unwrap_or_default() {
            let Some(resource) = resources::of_object(store, &wanted) else { continue };
            let (namespace, name) = (object::namespace(&wanted), object::name(&wanted));
            // Most often there is nothing to delete.
            let _ = writer(store, &resource, namespace, name).delete(&DeleteOptions::default());
        }
        let _ = std::fs::remove_file(base.join(file));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_and_hidden_files_are_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("sub")).expect("made");
        for name in ["b.yaml", "a.yml", "b.yaml.skip", ".c.yaml", "note.txt", "sub/d.json"] {
            std::fs::write(folder.path().join(name), "").expect("written");
        }
        let found: Vec<_> = manifests(folder.path())
            .iter()
            .map(|path| path.strip_prefix(folder.path()).expect("below").display().to_string())
            .collect();
        assert_eq!(found, ["a.yml", "sub/d.json"]);
    }

    #[test]
    fn packaged_manifests_are_well_formed() {
        for (_, file, text) in PACKAGED {
            assert!(!yaml::objects(text).expect(file).is_empty(), "{file}");
        }
    }
}
