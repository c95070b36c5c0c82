//! What roles know of the release in `[k3s]`: the template variable `k3s`, and the pins of artifacts.

use serde_json::json;

use crate::artifact::lock::{self, Lock};
use crate::artifact::release::{Location, names};
use crate::diagnostic::{Diagnostic, nearest};
use crate::inventory::{Inventory, Transfer};
use crate::resource::artifact::Pin;

/// `k3s` in templates: `version`, `airgap`, and the names of this architecture's files, `binary` and `images`,
/// which are none where the release has nothing for it.
pub(super) fn describe(inventory: &Inventory, arch: &str) -> Option<serde_json::Value> {
    let k3s = inventory.k3s.as_ref()?;
    let names = names(arch);
    Some(json!({
        "version": k3s.version, "airgap": k3s.airgap,
        "binary": names.map(|n| n.binary), "images": names.map(|n| n.images),
    }))
}

/// The mistake there is if not one file of the release that the inventory names is pinned: nothing of it may be
/// brought to a node then. `None` where no release is named, too.
pub fn unpinned(inventory: &Inventory) -> Option<Diagnostic> {
    let version = &inventory.k3s.as_ref()?.version;
    if inventory.lock.pins(version) {
        return None;
    }
    let message = format!("the release {version} is not pinned: nothing of it can be brought to a machine");
    let mut mistake = Diagnostic::new(message)
        .label(format!("{} has no checksum of its files", Lock::path(&inventory.dir).display()))
        .help("where the release can be reached, run: datahub lock. The lab needs no pins: --lab");
    mistake.place = inventory.value_place("k3s.version");
    Some(mistake)
}

/// What an artifact's `pin` is filled with. A mistake in the role has no place yet.
pub(super) fn pin(inventory: &Inventory, file: &str) -> Result<Pin, Diagnostic> {
    let Some(k3s) = &inventory.k3s else {
        return Err(Diagnostic::new(format!("no release is named that `{file}` is a file of"))
            .label("the inventory has no [k3s]")
            .help("add to the inventory: [k3s] and version = \"v1.36.3+k3s1\""));
    };
    if let Some(mistake) = unpinned(inventory) {
        return Err(mistake);
    }
    let Some(artifact) = inventory.lock.artifact(&k3s.version, file) else {
        let near = nearest(file, inventory.lock.files(&k3s.version));
        let help = near.map_or("run: datahub lock".to_owned(), |near| format!("did you mean `{near}`?"));
        return Err(Diagnostic::new(format!("`{file}` of {} is not pinned", k3s.version))
            .label(format!("{} has no checksum for it", lock::FILE))
            .help(help));
    };
    let url = match (k3s.transfer, k3s.source.locate(&k3s.version, file)) {
        (Transfer::Pull, Location::Url(url)) => Some(url),
        _ => None,
    };
    Ok(Pin { artifact, url, known: inventory.lock.versions(file) })
}
