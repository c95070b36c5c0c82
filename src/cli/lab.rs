//! `--lab` and `datahub lab`: throw-away machines in the place of the inventory's.

use super::Ui;
use crate::inventory::Inventory;

/// Flags of every command.
#[derive(clap::Args)]
pub struct Choice {}

impl Choice {
    pub async fn stand_in(&self, inventory: Inventory, _: &Ui) -> anyhow::Result<Inventory> {
        Ok(inventory)
    }
}
