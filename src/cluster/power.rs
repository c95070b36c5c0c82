//! Switching the cluster off: agents before servers, and what all of them need (storage) last.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::{Access, Error, Report};
use crate::transport;

/// How long a machine may take to go down: the kubelet gives pods their time, mounts are let go.
const LIMIT: Duration = Duration::from_secs(300);
/// How long it may take to say that it will.
const ANSWER: Duration = Duration::from_secs(30);
/// Between two looks whether it is gone.
const PAUSE: Duration = Duration::from_secs(1);
/// So many times in a row nothing must answer: a busy machine, or a cable, may fail once.
const LOOKS: usize = 3;

/// The nodes in the order they are switched off: each stage together, the next when all of it is off.
pub fn stages(access: &Access, nodes: &[String], last: &[String]) -> Vec<Vec<String>> {
    let is_server = |node: &&String| access.members.get(node).is_some_and(|member| member.server);
    let (last, others): (Vec<&String>, Vec<&String>) = nodes.iter().partition(|node| last.contains(node));
    let (servers, agents): (Vec<&String>, Vec<&String>) = others.into_iter().partition(is_server);
    let stages = [agents, servers, last].into_iter().filter(|stage| !stage.is_empty());
    stages.map(|stage| stage.into_iter().cloned().collect()).collect()
}

/// Switches nodes off, stage by stage, and waits until they are. A stage of which one stays on ends it: what that
/// one needs must not be taken away.
pub async fn shut_down(access: &Access, stages: &[Vec<String>], report: Report<'_>) -> Result<(), Error> {
    for stage in stages {
        let ends = join_all(stage.iter().map(|node| switch_off(access, node, report))).await;
        ends.into_iter().collect::<Result<(), Error>>()?;
    }
    Ok(())
}

/// Switches one machine off, and waits until nothing answers there any more: one that takes no logins may still be busy
/// with its storage. One that does not answer to begin with is off already: the others are not kept on for it.
async fn switch_off(access: &Access, node: &str, report: Report<'_>) -> Result<(), Error> {
    if let Some(why) = is_off(PAUSE, async || access.peers.transport(node).await.map(drop)).await {
        report(node, &format!("off already, or out of reach ({why})"));
        return Ok(());
    }
    let _lock = access.lock(node).await?;
    report(node, "shutting down");
    // The answer comes before the machine goes.
    let shell = "setsid sh -c 'sleep 0.5; systemctl poweroff || poweroff' >/dev/null 2>&1 </dev/null &";
    access.sh(node, "switch it off", shell, ANSWER).await?;
    let transport = access.transport(node).await?;
    let started = Instant::now();
    while is_off(PAUSE, async || transport.log_in_anew().await).await.is_none() {
        if started.elapsed() > LIMIT {
            return Err(Error::on(node, format!("it still runs after {} s", LIMIT.as_secs()))
                .hint("look at its console; then run again: those that are off stay off"));
        }
        tokio::time::sleep(PAUSE).await;
    }
    report(node, "off");
    Ok(())
}

/// Why nothing answers at a machine, if nothing does, several times in a row. Trouble on the way there is no sign.
async fn is_off(pause: Duration, log_in: impl AsyncFn() -> Result<(), transport::Error>) -> Option<String> {
    let mut silent = None;
    for look in 0..LOOKS {
        if look > 0 {
            tokio::time::sleep(pause).await;
        }
        match log_in().await {
            Err(transport::Error::Unreachable { why, may_be_on: false, .. }) => silent = Some(why),
            _ => return None,
        }
    }
    silent
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;

    use super::*;
    use crate::cluster::{Member, Members};
    use crate::engine::peers::Peers;

    #[tokio::test]
    async fn off_is_what_is_silent_for_a_while() {
        let looks = Cell::new(0);
        let silent = |may_be_on| {
            Err(transport::Error::Unreachable { address: "a".into(), why: "no answer".into(), may_be_on })
        };
        let say = |answers: &'static [Option<bool>]| {
            looks.set(0);
            let looks = &looks;
            async move || {
                let answer = answers[looks.replace(looks.get() + 1)];
                answer.map_or(Ok(()), silent)
            }
        };
        assert_eq!(is_off(Duration::ZERO, say(&[Some(false); 3])).await.as_deref(), Some("no answer"));
        assert_eq!(
            is_off(Duration::ZERO, say(&[Some(false), Some(true)])).await,
            None,
            "the way to it may be at fault"
        );
        assert_eq!(
            is_off(Duration::ZERO, say(&[Some(false), Some(false), None])).await,
            None,
            "it was only busy"
        );
    }

    #[test]
    fn agents_go_before_servers_and_storage_last() {
        let member = |node: &str, server| Member {
            node: node.into(),
            name: node.into(),
            server,
            data_dir: String::new(),
        };
        let nowhere: crate::engine::peers::Connector =
            Arc::new(|_| Box::pin(async { Err(crate::transport::Error::Other("none".into())) }));
        let access = Access {
            members: Members(vec![
                member("s", true),
                member("a", false),
                member("nas", false),
                member("b", false),
            ]),
            peers: Arc::new(Peers::new(nowhere)),
            holder: Default::default(),
        };
        let words = |words: &[&str]| -> Vec<String> { words.iter().map(|word| (*word).to_owned()).collect() };
        let all = words(&["s", "a", "nas", "b", "other"]);
        assert_eq!(
            stages(&access, &all, &words(&["nas"])),
            [words(&["a", "b", "other"]), words(&["s"]), words(&["nas"])]
        );
        assert_eq!(stages(&access, &words(&["s"]), &[]), [words(&["s"])]);
    }
}
