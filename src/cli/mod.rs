//! The command line: one file a command. Reads flags, calls the layers below, shows what they say.

mod backup;
mod bootstrap;
mod cluster;
mod completions;
mod converge;
mod exec;
mod facts;
mod inventory;
mod kubeconfig;
#[cfg(feature = "lab")]
mod lab;
mod lock;
mod maintenance;
mod problem;
mod project;
mod provision;
mod reboot;
mod remove;
mod reset;
mod selection;
mod session;
mod shutdown;
mod status;
mod upgrade;
mod validate;

use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::ui::{ColorChoice, Format, Settings, Ui};
pub use problem::Exit;

/// Turns bare Debian machines into what an inventory describes, and keeps them so.
///
/// Looks before it touches: every command that changes a node can show its changes first.
/// Reads inventory/datahub.toml, in this folder or the nearest one above it.
#[derive(Parser)]
#[command(name = "datahub", version, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done, or nothing to do; 1 failed; 2 changes are pending \
    (--detailed-exitcode); 64 a mistake in the command or the inventory; 130 interrupted.")]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command.
#[derive(clap::Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// The folder that holds datahub.toml, or the file [default: the nearest inventory/]
    #[arg(
        short,
        long,
        global = true,
        env = "DATAHUB_INVENTORY",
        value_name = "PATH",
        hide_env_values = true
    )]
    inventory: Option<PathBuf>,
    /// A folder with roles/ and templates/ of your own, laid over the built-in ones
    /// [default: the folder above the inventory's]
    #[arg(long, global = true, env = "DATAHUB_ROLES", value_name = "DIR", hide_env_values = true)]
    roles: Option<PathBuf>,
    /// When to use colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: ColorChoice,
    /// Print results and errors only
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Print more: the diff of every change made, waits, records
    #[arg(short, long, global = true)]
    verbose: bool,
    #[cfg(feature = "lab")]
    #[command(flatten)]
    lab: lab::Choice,
}

#[derive(Subcommand)]
enum Command {
    Provision(provision::Provision),
    Plan(provision::Plan),
    Bootstrap(bootstrap::Bootstrap),
    Validate(validate::Validate),
    Inventory(inventory::Inventory),
    Facts(facts::Facts),
    Exec(exec::Exec),
    Status(status::Status),
    Kubeconfig(kubeconfig::Kubeconfig),
    Upgrade(upgrade::Upgrade),
    Reboot(reboot::Reboot),
    Shutdown(shutdown::Shutdown),
    Backup(backup::Backup),
    Restore(backup::Restore),
    Maintenance(maintenance::Maintenance),
    Remove(remove::Remove),
    Reset(reset::Reset),
    #[cfg(feature = "lab")]
    Lab(lab::Lab),
    Lock(lock::Lock),
    Completions(completions::Completions),
}

impl Command {
    fn format(&self) -> Format {
        match self {
            Self::Provision(command) => command.run.settings.format,
            Self::Plan(command) => command.run.settings.format,
            Self::Bootstrap(command) => command.settings.format,
            Self::Validate(_) | Self::Lock(_) | Self::Completions(_) => Format::Text,
            Self::Inventory(command) => command.format.into(),
            Self::Facts(command) => command.format.into(),
            Self::Exec(command) => command.format.into(),
            Self::Status(command) => command.format.into(),
            Self::Kubeconfig(_)
            | Self::Upgrade(_)
            | Self::Reboot(_)
            | Self::Shutdown(_)
            | Self::Backup(_)
            | Self::Restore(_)
            | Self::Maintenance(_)
            | Self::Remove(_)
            | Self::Reset(_) => Format::Text,
            #[cfg(feature = "lab")]
            Self::Lab(command) => command.format(),
        }
    }
}

/// The formats of commands whose result is a table or a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Shape {
    #[default]
    Text,
    Json,
}

impl From<Shape> for Format {
    fn from(shape: Shape) -> Self {
        match shape {
            Shape::Text => Self::Text,
            Shape::Json => Self::Json,
        }
    }
}

/// Runs the command of this process's arguments.
pub fn main() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are asked for; anything else is a mistake. A closed terminal changes nothing.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    let ui = Ui::new(Settings {
        format: cli.command.format(),
        color: cli.global.color,
        quiet: cli.global.quiet,
        verbose: cli.global.verbose,
    });
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            ui.error(&format!("cannot start: {error}"), &[], None);
            return Exit::Failed;
        }
    };
    let result = runtime.block_on(run(cli, &ui));
    // A name lookup or a prompt on a thread of its own must not hold up the end.
    runtime.shutdown_background();
    let exit = result.unwrap_or_else(|error| problem::report(&ui, &error));
    // Nobody may take half a plan for the whole one.
    if exit == Exit::Done && ui.lost_output() { Exit::Failed } else { exit }
}

async fn run(cli: Cli, ui: &Ui) -> anyhow::Result<Exit> {
    let Cli { global, command } = cli;
    match command {
        Command::Provision(command) => command.run(&global, ui).await,
        Command::Plan(command) => command.run(&global, ui).await,
        Command::Bootstrap(command) => command.run(&global, ui).await,
        Command::Validate(command) => command.run(&global, ui),
        Command::Inventory(command) => command.run(&global, ui),
        Command::Facts(command) => command.run(&global, ui).await,
        Command::Exec(command) => command.run(&global, ui).await,
        Command::Status(command) => command.run(&global, ui).await,
        Command::Kubeconfig(command) => command.run(&global, ui).await,
        Command::Upgrade(command) => command.run(&global, ui).await,
        Command::Reboot(command) => command.run(&global, ui).await,
        Command::Shutdown(command) => command.run(&global, ui).await,
        Command::Backup(command) => command.run(&global, ui).await,
        Command::Restore(command) => command.run(&global, ui).await,
        Command::Maintenance(command) => command.run(&global, ui).await,
        Command::Remove(command) => command.run(&global, ui).await,
        Command::Reset(command) => command.run(&global, ui).await,
        #[cfg(feature = "lab")]
        Command::Lab(command) => command.run(&global, ui).await,
        Command::Lock(command) => command.run(&global, ui).await,
        Command::Completions(command) => command.run(&mut Cli::command()),
    }
}

/// `20261125T230000Z`, for names of runs and files.
fn stamp() -> String {
    jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string()
}
