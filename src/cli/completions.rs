//! `datahub completions`: what a shell needs to complete the command line.

use super::Exit;

/// Print a completion script for a shell
///
/// For bash: datahub completions bash > ~/.local/share/bash-completion/completions/datahub
#[derive(clap::Args)]
pub struct Completions {
    shell: clap_complete::Shell,
}

impl Completions {
    pub fn run(self, command: &mut clap::Command) -> anyhow::Result<Exit> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, command, "datahub", &mut script);
        use std::io::Write as _;
        match std::io::stdout().write_all(&script) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(Exit::Done),
        }
    }
}
