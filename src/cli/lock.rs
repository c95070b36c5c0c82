//! `datahub lock` pins the files of the release that the inventory names.

use std::collections::BTreeSet;

use anyhow::Context as _;

use super::problem::Problem;
use super::project::inventory_path;
use super::{Exit, Global, Ui};
use crate::artifact::download::{Client, Patience};
use crate::artifact::lock::{self, Change};
use crate::artifact::{Error, pins};
use crate::inventory::{self, Inventory, K3s};

/// Pin the checksums of the files of a release
///
/// Reads the lists of checksums of the release under [k3s], for the architectures of the nodes, and writes them to
/// datahub.lock beside the inventory. Nothing that is not pinned there is downloaded, or brought to a node.
#[derive(clap::Args)]
pub struct Lock {
    /// Write nothing: exit with 2 if the lock file would change
    #[arg(long, help_heading = "Run", conflicts_with = "force")]
    check: bool,
    /// Accept that files of a release were replaced since they were pinned
    #[arg(long, help_heading = "Run")]
    force: bool,
}

impl Lock {
    pub async fn run(self, global: &Global, ui: &Ui) -> anyhow::Result<Exit> {
        let inventory = inventory::load(&inventory_path(global)?)?;
        let Some(k3s) = &inventory.k3s else {
            let hint = "add to it: [k3s] and version = \"v1.36.3+k3s1\"";
            return Err(Problem::usage("the inventory has no [k3s]: there is nothing to pin", hint));
        };
        ui.status("Reading", &format!("checksums of {}", k3s.version));
        let files = pins(&inventory, k3s).await?;
        let mut lock = inventory.lock.clone();
        let changes = lock.update(&k3s.version, files);
        changes.iter().for_each(|change| ui.line(&change.to_string()));
        let path = lock::Lock::path(&inventory.dir);
        let replaced = changes.iter().filter(|change| matches!(change, Change::Replaced { .. })).count();
        if replaced > 0 && !self.force {
            return Err(Problem::failed(
                format!(
                    "{replaced} files of {} have other checksums than are pinned in {}; nothing was written",
                    k3s.version,
                    path.display()
                ),
                "a release does not change: find out who replaced it, and why. To accept it: datahub lock --force",
            ));
        }
        let exit = match (changes.is_empty(), self.check) {
            (true, _) => Exit::Done,
            (false, true) => Exit::Pending,
            (false, false) => {
                lock.save(&inventory.dir).with_context(|| format!("cannot write {}", path.display()))?;
                Exit::Done
            }
        };
        let said = match (changes.is_empty(), self.check) {
            (true, _) => "up to date",
            (false, true) => "out of date; run: datahub lock",
            (false, false) => "written",
        };
        let count = lock.files(&k3s.version).len();
        ui.line(&format!("{}: {said} ({count} files of {})", path.display(), k3s.version));
        Ok(exit)
    }
}

async fn pins(inventory: &Inventory, k3s: &K3s) -> Result<lock::Files, Error> {
    let architectures: BTreeSet<String> = inventory.nodes.values().map(|node| node.arch.clone()).collect();
    let (source, version, dir) = (k3s.source.clone(), k3s.version.clone(), inventory.dir.clone());
    let reading = tokio::task::spawn_blocking(move || {
        let client = Client::new(Patience::default());
        pins::of_release(&client, &source, &version, architectures.iter().map(String::as_str), &dir)
    });
    reading.await.unwrap_or_else(|error| {
        Err(Error::Local { doing: "read the checksums".into(), why: error.to_string() })
    })
}
