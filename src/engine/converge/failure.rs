//! What a run says when it cannot go on: where it happened, why, and what to do about it.

use super::{Failure, Run, Stop, asking};
use crate::engine::lock as node_lock;
use crate::probe::Question;
use crate::probe::sh::{Probe, ReadError};
use crate::role::{Planned, RolePlan};
use crate::transport::{self, Output};

/// Lines of a failed step that are shown.
const LAST_LINES: usize = 20;

impl Run<'_> {
    pub(super) fn failure(&self, role: &RolePlan, planned: Option<&Planned>, message: String) -> Failure {
        Failure {
            message: (self.context.redact)(&message),
            role: Some(role.name.clone()),
            resource: planned.map(Planned::label),
            place: planned.map(|p| p.place.to_string()),
            ..Failure::default()
        }
    }

    /// A step ended with another status than 0, having said this.
    pub(super) fn refused(
        &self,
        role: &RolePlan,
        planned: Option<&Planned>,
        message: String,
        status: i32,
        said: &str,
    ) -> Failure {
        match node_lock::lost_to(status, said) {
            Some(who) => {
                let message =
                    format!("this run was out of touch for so long that another one took the node: {who}");
                self.failure(role, planned, message).hint(node_lock::BUSY_HINT)
            }
            None => self.failure(role, planned, message).printed(self.last_lines(said)),
        }
    }

    pub(super) fn change_failed(
        &self,
        role: &RolePlan,
        planned: &Planned,
        status: i32,
        said: &str,
    ) -> Failure {
        let message = format!("the change failed with status {status}");
        self.refused(role, Some(planned), message, status, said)
    }

    pub(super) fn step_failure(
        &self,
        role: &RolePlan,
        planned: Option<&Planned>,
        error: &transport::Error,
    ) -> Stop {
        let mut failure = self.failure(role, planned, error.to_string());
        failure.hint = error.hint();
        failure.into()
    }

    /// Why the first look failed. What may hang can be named once there is a plan, for which the facts are enough.
    pub(super) async fn unanswered(&mut self, error: &transport::Error) -> Stop {
        let target = self.target;
        if matches!(error, transport::Error::Timeout(_))
            && let Ok(output) = self.run(&asking(&Probe::new([]).with_facts())).await
            && let Ok(facts) = Probe::facts(&output.stdout)
            && let Ok(plan) = (target.plan)(&facts)
        {
            self.plan = plan;
        }
        self.unasked(&target.expected, error)
    }

    /// Nothing came back. Of all questions only a command's guard is somebody else's shell, which may hang.
    pub(super) fn unasked(&self, questions: &[Question], error: &transport::Error) -> Stop {
        let stop = transport_failure("look at the node", error);
        let mut guarded = self.plan.roles.iter().flat_map(|role| &role.resources).filter(|planned| {
            let asks = planned.resource.questions();
            asks.iter().any(|q| matches!(q, Question::Guard(_)) && questions.contains(q))
        });
        match (stop, error) {
            (Stop::Failed(failure), transport::Error::Timeout(_)) => {
                let names: Vec<String> = guarded.by_ref().map(Planned::label).collect();
                let hint = format!("a guard (`unless`) may hang; these have one: {}", names.join(", "));
                Stop::Failed(Box::new(if names.is_empty() { *failure } else { failure.hint(hint) }))
            }
            (stop, _) => stop,
        }
    }

    /// The node's answer could not be read. `at`: what it was an answer about.
    pub(super) fn broken(
        &self,
        at: Option<(&RolePlan, Option<&Planned>)>,
        output: &Output,
        error: &ReadError,
    ) -> Stop {
        let mut failure = match at {
            Some((role, planned)) => self.failure(role, planned, error.to_string()),
            None => Failure::new((self.context.redact)(&error.to_string())),
        };
        failure.output = self.last_lines(&String::from_utf8_lossy(&output.stderr));
        failure.hint = Some(match error {
            ReadError::Frame(_) => {
                "a start-up file of the login shell may print (~/.bashrc, ~/.profile); look with: ssh NODE true".into()
            }
            ReadError::Unexpected { .. } | ReadError::Failed { .. } => {
                "log in and run what was asked by hand; another program may stand in its place in PATH".into()
            }
        });
        failure.into()
    }

    pub(super) fn last_lines(&self, text: &str) -> Vec<String> {
        let text = (self.context.redact)(text);
        // As on a terminal: what follows a carriage return stands in the place of what was before it.
        let last = |line: &'_ str| line.rsplit('\r').find(|part| !part.trim().is_empty()).map(str::to_owned);
        let lines: Vec<String> = text.lines().filter_map(last).collect();
        let from = lines.len().saturating_sub(LAST_LINES);
        lines[from..].iter().map(|l| l.chars().take(500).collect()).collect()
    }
}

pub(super) fn transport_failure(doing: &str, error: &transport::Error) -> Stop {
    let message = match error {
        transport::Error::Lost(_) | transport::Error::Timeout(_) | transport::Error::Other(_) => {
            format!("could not {doing}: {error}")
        }
        _ => error.to_string(),
    };
    Failure { message, hint: error.hint(), ..Failure::default() }.into()
}
