//! A node's lock: one run at a time changes a machine, and a run that has died without a word holds up nobody.

use std::time::Duration;

use crate::shell::quote;
use crate::transport::prompt::printable;
use crate::transport::{self, Hold, Script, Transport};

/// Who changes nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holder {
    /// For people: `user@machine`.
    pub owner: String,
    /// Names the run: part of file names, unique.
    pub run: String,
}

/// What a node says when its lock is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Ours,
    /// Who holds it.
    Busy(String),
    /// It is free, but an earlier run left a step running: the process and what it does, as it was noted.
    LeftOver(String),
}

impl Answer {
    pub fn read(line: &str) -> Self {
        let (word, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        match word {
            "locked" => Self::Ours,
            "left" => Self::LeftOver(printable(rest)),
            "busy" => Self::Busy(printable(rest)),
            _ => Self::Busy(printable(line.trim())),
        }
    }
}

/// Seconds without a beat after which a node takes the holder of its lock for gone.
const HOLDER_LIMIT: u32 = 40;

/// Seconds a node is asked to wait for a left-over step before it says that there is one.
const LEFT_OVER_WAIT: u32 = 5;

/// How long a node may take to answer.
const ANSWER: Duration = Duration::from_secs(60);

/// What to do about [`Answer::Busy`].
pub const BUSY_HINT: &str =
    "wait for it to end; its lock goes away with it, within a minute if it lost the node";

/// [`Answer::Busy`] in words.
pub fn busy(holder: &str) -> String {
    format!("another run is changing this node: {holder}")
}

/// Asks for a node's lock. If it is ours, it stays so until the guard is dropped.
pub async fn ask(transport: &dyn Transport, holder: &Holder) -> Result<(Answer, Hold), transport::Error> {
    hold(transport, holder.lock()).await
}

/// The same over a new connection, after the old one was lost: takes it from the run's own former shell, whose
/// connection the node may still believe in, and does not wait for the run's own step.
pub async fn ask_again(
    transport: &dyn Transport,
    holder: &Holder,
) -> Result<(Answer, Hold), transport::Error> {
    hold(transport, holder.lock_again()).await
}

async fn hold(transport: &dyn Transport, shell: String) -> Result<(Answer, Hold), transport::Error> {
    let (line, hold) = transport.hold(&Script::new(shell).timeout(ANSWER)).await?;
    Ok((Answer::read(&line), hold))
}

impl Holder {
    /// Holds the lock for as long as its input stays open. Prints a line for [`Answer::read`].
    /// It clears away what nobody will pick up: the long steps of other runs.
    fn lock(&self) -> String {
        let wait = format!(
            "flock -w {LEFT_OVER_WAIT} /run/datahub/step.lock true || {{ echo \"left $(cat /run/datahub/step)\"; exit 0; }}\n"
        );
        self.locked("false", &wait)
    }

    fn lock_again(&self) -> String {
        self.locked(&format!("[ \"$of\" = {} ]", quote(&self.run)), "")
    }

    fn locked(&self, mine: &str, wait: &str) -> String {
        let (owner, id) = (quote(&self.owner), quote(&self.run));
        let own = quote(&format!("/run/datahub/step-{}-", self.run));
        format!(
            r#"umask 077; mkdir -p /run/datahub
exec 8>>/run/datahub/run.lock
if ! flock -n 8; then
  who= of= shell=
  [ ! -r /run/datahub/owner ] || {{ read -r who; read -r of; read -r shell; }} </run/datahub/owner
  {{ {mine} && kill "$shell" && flock -w 5 8; }} 2>/dev/null || {{ echo "busy $who"; exit 0; }}
fi
printf '%s\n' {owner} {id} $$ >/run/datahub/owner
{wait}for d in /run/datahub/step-*; do
  case "$d" in {own}*) ;; *) [ ! -d "$d" ] || rm -rf "$d";; esac
done
echo locked
# Until the input ends or the beats stay out. Not with the lock: it goes when this shell does.
while [ -n "$(timeout {HOLDER_LIMIT} dd bs=64 count=1 2>/dev/null 8>&-)" ]; do :; done"#
        )
    }
}

/// What a step prints, and how it ends, when [`still_held`] finds that its run is not the node's any more.
const LOST: (&str, i32) = ("datahub-lost", 75);

/// Shell that ends a step of a run that has lost its lock to another one: it was out of touch for so long, asleep
/// say, that the node took it for gone.
pub fn still_held(run: &str) -> String {
    let (word, status) = LOST;
    format!(
        "who= of={run}\n[ ! -r /run/datahub/owner ] || {{ read -r who; read -r of; }} </run/datahub/owner\n\
         [ \"$of\" = {run} ] || {{ echo \"{word} $who\"; exit {status}; }}\n",
        run = quote(run)
    )
}

/// Who has the node now, if that is how a step ended.
pub fn lost_to(status: i32, said: &str) -> Option<String> {
    let (word, lost) = LOST;
    let who = said.strip_prefix(word)?.strip_prefix(' ')?;
    (status == lost).then(|| printable(who.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder() -> Holder {
        Holder { owner: "me".into(), run: "run-1".into() }
    }

    #[test]
    fn dash_parses_every_script() {
        for script in [holder().lock(), holder().lock_again(), still_held("run-1")] {
            crate::shell::assert_parses(&crate::shell::whole_or_nothing(&script));
        }
    }

    #[test]
    fn a_step_ends_before_it_begins_once_the_node_is_another_runs() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().display().to_string();
        let step = still_held("run-1").replace("/run/datahub", &path) + "echo changed";
        let run = |owner: &str| {
            std::fs::write(folder.path().join("owner"), owner).expect("written");
            let out = std::process::Command::new("sh").args(["-c", &step]).output().expect("sh runs");
            (out.status.code().expect("a status"), String::from_utf8_lossy(&out.stdout).into_owned())
        };
        assert_eq!(run("me\nrun-1\n17\n"), (0, "changed\n".into()));
        let (status, said) = run("ada@desk\nrun-2\n18\n");
        assert_eq!(lost_to(status, &said).as_deref(), Some("ada@desk"));
        assert_eq!(lost_to(75, "apt said so"), None);
    }
}
