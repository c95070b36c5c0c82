//! `datahub facts`: what nodes say of themselves, as templates see it.

use super::project::Project;
use super::selection::Selection;
use super::session::Login;
use super::{Exit, Global, Shape, Ui, exec};
use crate::probe::sh::Probe;
use crate::transport::Script;

/// Show what nodes are: architecture, release, kernel, memory, …
///
/// The names are those that templates use: facts.arch, facts.container, …
#[derive(clap::Args)]
pub struct Facts {
    #[command(flatten)]
    selection: Selection,
    /// How to print
    #[arg(long, value_name = "FORMAT", default_value = "text", help_heading = "Output")]
    pub format: Shape,
    #[command(flatten)]
    login: Login,
}

impl Facts {
    pub async fn run(self, global: &Global, ui: &Ui) -> anyhow::Result<Exit> {
        let project = Project::load(global, ui)?;
        let nodes = self.selection.nodes(&project.inventory)?;
        let project = project.in_lab(global, ui).await?;
        let probe = Probe::new([]).with_facts();
        let script = Script::new(probe.script());
        let mut exit = Exit::Done;
        let mut values = serde_json::Map::new();
        let mut answers = exec::on_all(&project, &nodes, &self.login, &script, ui)?;
        while let Some((node, output)) = answers.recv().await {
            let facts = output.map_err(anyhow::Error::from).and_then(|output| {
                let (facts, _) = probe.read(&output.stdout)?;
                Ok(serde_json::to_value(facts.unwrap_or_default())?)
            });
            match facts {
                Ok(facts) => {
                    values.insert(node, facts);
                }
                Err(error) => {
                    exit = super::problem::report(ui, &error.context(node));
                }
            }
        }
        self.show(&nodes, values, ui);
        Ok(exit)
    }

    fn show(&self, nodes: &[String], mut values: serde_json::Map<String, serde_json::Value>, ui: &Ui) {
        if self.format == Shape::Json {
            values.sort_keys();
            return ui.json(&values);
        }
        let shown = nodes.iter().filter_map(|node| Some((node, values.get(node)?.as_object()?)));
        for (at, (node, facts)) in shown.enumerate() {
            if at > 0 {
                ui.line("");
            }
            ui.line(node);
            for (name, value) in facts {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                ui.line(format!("  {name:<15} {value}").trim_end());
            }
        }
    }
}
