//! `datahub provision` brings nodes to the state the inventory describes; `datahub plan` shows what that would do.

use super::converge::{Wanted, converge, exit};
use super::project::Project;
use super::selection::Selection;
use super::session::Login;
use super::{Exit, Global, Ui};
use crate::inventory::Vars;
use crate::role;
use crate::ui::Format;

/// Bring nodes to the state that the inventory describes
///
/// Every change is read back, and a second run changes nothing. See what it would do with --dry-run.
#[derive(clap::Args)]
pub struct Provision {
    #[command(flatten)]
    pub run: Run,
    /// Only show what would be changed, as a diff
    #[arg(long, help_heading = "Run")]
    dry_run: bool,
    /// With --dry-run: exit with 2 if changes are pending
    #[arg(long, requires = "dry_run", help_heading = "Run")]
    detailed_exitcode: bool,
}

/// Show what `provision` would change, as a diff (the same as `provision --dry-run`)
#[derive(clap::Args)]
pub struct Plan {
    #[command(flatten)]
    pub run: Run,
    /// Exit with 2 if changes are pending
    #[arg(long, help_heading = "Run")]
    detailed_exitcode: bool,
}

#[derive(clap::Args)]
pub struct Run {
    #[command(flatten)]
    selection: Selection,
    /// Only these roles of the nodes; may be given several times
    #[arg(short, long, value_name = "ROLE", value_delimiter = ',', help_heading = "Run")]
    role: Vec<String>,
    #[command(flatten)]
    pub settings: Settings,
}

/// What every command that brings something to its state has.
#[derive(clap::Args)]
pub struct Settings {
    /// Set a variable for this run; VALUE is read as TOML, else taken as a string
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = assignment, help_heading = "Run")]
    pub set: Vec<(String, toml::Value)>,
    /// How to print: text for people, json for an event a line, markdown for a pull request
    #[arg(long, value_name = "FORMAT", default_value = "text", help_heading = "Run")]
    pub format: Format,
    #[command(flatten)]
    pub login: Login,
}

impl Provision {
    pub async fn run(self, global: &Global, ui: &Ui) -> anyhow::Result<Exit> {
        self.run.run(global, ui, self.dry_run, self.detailed_exitcode).await
    }
}

impl Plan {
    pub async fn run(self, global: &Global, ui: &Ui) -> anyhow::Result<Exit> {
        self.run.run(global, ui, true, self.detailed_exitcode).await
    }
}

impl Run {
    /// `detailed`: a dry run that has found something to change says so by its exit code.
    async fn run(self, global: &Global, ui: &Ui, dry_run: bool, detailed: bool) -> anyhow::Result<Exit> {
        let project = Project::load(global, ui)?;
        let nodes = self.selection.nodes(&project.inventory)?;
        let Settings { set, login, .. } = self.settings;
        let set: Vars = set.into_iter().collect();
        role::check_set(&project.inventory, &project.roles, &nodes, &set)?;
        let project = project.in_lab(global, ui).await?;
        let roles = (!self.role.is_empty()).then_some(self.role);
        let forks = login.forks;
        let wanted = Wanted { nodes, roles, set, dry_run, forks, ..Wanted::default() };
        let outcome = converge(project, wanted, login.options(ui)?, ui).await?;
        Ok(exit(&outcome, dry_run && detailed))
    }
}

fn assignment(text: &str) -> Result<(String, toml::Value), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    if name.is_empty() {
        return Err("the name is missing before `=`".into());
    }
    let read = toml::from_str::<toml::Table>(&format!("v = {value}")).ok();
    let read = read.filter(|table| table.len() == 1).and_then(|mut table| table.remove("v"));
    Ok((name.to_owned(), read.unwrap_or_else(|| value.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_reads_toml_and_falls_back_to_a_string() {
        for (text, name, value) in [
            ("zone=Etc/UTC", "zone", toml::Value::from("Etc/UTC")),
            ("n=3", "n", 3.into()),
            ("on=true", "on", true.into()),
            ("list=['a', 'b']", "list", vec!["a", "b"].into()),
            ("text='3'", "text", "3".into()),
            ("empty=", "empty", "".into()),
            ("tricky=1\nx = 2", "tricky", "1\nx = 2".into()),
        ] {
            assert_eq!(assignment(text), Ok((name.to_owned(), value)), "{text}");
        }
        assert!(assignment("zone").is_err() && assignment("=x").is_err());
    }
}
