//! Handlers: what runs once after its role, because a change notified it.

use std::time::{Duration, Instant};

use super::{Event, Interrupt, Run, Stop, asking, step};
use crate::kube::node::Ready;
use crate::probe::Question;
use crate::probe::sh::Probe;
use crate::role::{Handler, RolePlan};
use crate::transport::{self, Script, Transport};

/// How long a machine may take to come back from a reboot.
const REBOOT_LIMIT: Duration = Duration::from_secs(600);
/// How long a new login may fail before a change is taken back; well below what the node itself waits.
const LOGIN_PATIENCE: Duration = Duration::from_secs(15);

impl Run<'_> {
    pub(super) async fn handler(&mut self, role: &RolePlan, handler: &Handler) -> Result<(), Stop> {
        let started = Instant::now();
        let what = step::describe(&handler.action);
        if self.lock.is_none() {
            self.take_lock(role).await?;
        }
        self.emit(Event::Step { node: self.node(), role: role.name.clone(), step: what.clone(), says: None });
        let context = self.context;
        let mut turn = None;
        let mut cluster = None;
        if let Some(node) = &handler.cluster
            && self.is_due(role, handler).await?
        {
            turn = context.peers.turn(!node.drain).await;
            self.go_on(role)?;
            cluster = self.take_out(role, node).await?;
        }
        let probe = Probe::new([]).after(step::handler(self.run_id(), &role.name, handler));
        let script = asking(&probe).timeout(Duration::from_secs(600));
        let output = self.run(&script).await.map_err(|e| self.step_failure(role, None, &e))?;
        let (status, text) =
            Probe::step(&output.stdout).map_err(|e| self.broken(Some((role, None)), &output, &e))?;
        if status != 0 {
            let message = format!("handler `{}` ({what}) failed", handler.name);
            let mut failure = self.refused(role, None, message, status, &text);
            failure.place = Some(handler.place.to_string());
            failure.hint.get_or_insert("it stays pending: the next run tries it again".into());
            return Err(failure.into());
        }
        if handler.undo.is_some() {
            self.confirm_login(role, handler).await?;
        }
        let mut ready = Ready::default();
        if text.trim_end() == "rebooting" {
            // The node's last word stands in the cluster for a while.
            ready.rebooted_since = Some(self.seen.facts.boot_id.clone());
            self.wait_for_reboot(role).await?;
            // Strikes the mark off: the boot id is a new one now.
            self.run(&script).await.map_err(|e| self.step_failure(role, None, &e))?;
        }
        if let (Some(node), Some(cluster)) = (&handler.cluster, &cluster) {
            self.bring_back(role, handler, node, cluster, &ready).await?;
        }
        drop(turn);
        self.forget_seen();
        self.ask(&[Question::PendingHandlers]).await?;
        self.changed.push(format!("handler {}", handler.name));
        self.emit(Event::HandlerRun {
            node: self.node(),
            role: role.name.clone(),
            handler: what,
            milliseconds: started.elapsed().as_millis() as u64,
        });
        Ok(())
    }

    /// Whether what a handler restarts has not been started since it was notified: taking a node out of service for
    /// nothing would be an outage.
    async fn is_due(&mut self, role: &RolePlan, handler: &Handler) -> Result<bool, Stop> {
        let script = Script::new(step::is_due(&role.name, handler));
        let output = self.run(&script).await.map_err(|e| self.step_failure(role, None, &e))?;
        Ok(output.status == 0)
    }

    /// Proves with a new login, while the old one stays open, that nobody is locked out; else takes it all back.
    async fn confirm_login(&mut self, role: &RolePlan, handler: &Handler) -> Result<(), Stop> {
        let login = log_in_anew(&*self.transport.clone()).await;
        let shell = match login {
            Ok(()) => step::confirm(self.run_id(), &role.name, handler),
            Err(_) => step::take_back(self.run_id(), &role.name, handler),
        };
        let probe = Probe::new([]).after(shell);
        let ended = self.run(&asking(&probe)).await;
        ended.map_err(|e| self.step_failure(role, None, &e))?;
        let Err(error) = login else { return Ok(()) };
        let mut failure = self.failure(
            role,
            None,
            format!(
                "after handler `{}` a new login no longer worked, so its change was taken back: {error}",
                handler.name
            ),
        );
        failure.place = Some(handler.place.to_string());
        failure.hint =
            Some("the node is as it was before; correct what the role sets, then run again".into());
        Err(failure.into())
    }

    /// Waits until the node answers with another boot id. A login that works again is not enough: a slow
    /// shutdown still answers.
    async fn wait_for_reboot(&mut self, role: &RolePlan) -> Result<(), Stop> {
        let old = self.seen.facts.boot_id.clone();
        let started = Instant::now();
        self.lock = None;
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if started.elapsed() > REBOOT_LIMIT {
                let mut failure = self.failure(
                    role,
                    None,
                    format!(
                        "the node was rebooted and did not come back within {} s",
                        REBOOT_LIMIT.as_secs()
                    ),
                );
                failure.hint = Some("look at its console; then run again".into());
                return Err(failure.into());
            }
            if self.context.interrupt() >= Interrupt::AfterStep {
                return Err(Stop::Interrupted);
            }
            let probe = Probe::new([]).with_facts();
            let script = asking(&probe).timeout(Duration::from_secs(10));
            let mut answer = self.transport.run(&script).await;
            if answer.is_err() && self.transport.reconnect().await.is_ok() {
                answer = self.transport.run(&script).await;
            }
            let Ok(output) = answer else { continue };
            let Ok((Some(facts), _)) = probe.read(&output.stdout) else { continue };
            if facts.boot_id != old {
                self.seen.facts = facts;
                return self.take_lock(role).await;
            }
        }
    }
}

/// A daemon that reloads may refuse logins for a moment: only what lasts counts.
async fn log_in_anew(transport: &dyn Transport) -> Result<(), transport::Error> {
    let started = Instant::now();
    loop {
        match transport.log_in_anew().await {
            Err(_) if started.elapsed() < LOGIN_PATIENCE => tokio::time::sleep(Duration::from_secs(1)).await,
            result => return result,
        }
    }
}
