//! `unit`: a systemd unit: its file or a drop-in, whether it starts at boot, whether it runs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::file::File;
use super::systemd::{
    FailsOn, Trace, UNIT_FOLDER, check_content, check_name, has_line, has_stayed_up, is_oneshot, is_template,
    starts, trace_path, watched,
};
use super::{Change, Difference, Resource, Verdict};
use crate::probe::{Answers, FileType, Question, Unanswered, Unit as Seen};
use crate::shell::quote;

/// A systemd unit. Every field but the name is an aim, and at least one is needed; what is not given is left as it
/// is. All of it is one step: the file, a daemon-reload if one is due, masking, enabling, starting.
/// A running unit is not restarted when its file changes: notify a handler (`restart`, `reload`) for that.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// With its type: `ssh.service`, `data.mount`, `worker@1.service`. An alias (`sshd.service`) is refused.
    pub name: String,
    /// The whole unit file, written to `/etc/systemd/system/NAME` (0644, root). In a role, `template = "name"` fills
    /// it. Units are readable by everybody, so it may not hold a secret: use `EnvironmentFile=` or
    /// `LoadCredential=`.
    #[serde(default)]
    pub content: Option<String>,
    /// A file name, as `10-limits.conf`: `content` is written to `/etc/systemd/system/NAME.d/` under it, and only adds
    /// to the unit. It may be there before the unit is.
    #[serde(default)]
    pub drop_in: Option<String>,
    /// Whether it starts at boot. Of units that cannot be enabled (static, generated), `true` is refused.
    #[serde(default)]
    pub enabled: Option<bool>,
    /// Whether it runs now. A service that fails within a second of its start, before its processes have come to rest,
    /// is a failure. A `Type=oneshot` that does not remain counts as started if it has done its work since the boot. In
    /// a container, a unit whose start conditions are not met there is left alone, with a note; elsewhere that is an
    /// error.
    #[serde(default)]
    pub started: Option<bool>,
    /// Whether nothing at all may start it. A unit file of one's own in `/etc/systemd/system` cannot be masked.
    #[serde(default)]
    pub masked: Option<bool>,
    /// What its log says when it will never get up, and what to do about it: `{ "password rejected" = "…" }`. When a
    /// start says so twice (a service that is refused tries again) it is not waited for any longer, and the run fails
    /// with that advice. So it is in handlers of the role that restart the unit.
    #[serde(default)]
    pub fails_on: BTreeMap<String, String>,
    /// Where there is no such unit, nothing is done, and that is right. Default: false.
    #[serde(default)]
    pub missing_ok: bool,
    /// Restart it, not only start it, when `content` changes: for types that own their unit.
    #[serde(skip)]
    pub(super) restart: bool,
}

/// How long systemd may take to start or stop a unit; its own limit is 90 s unless the unit says otherwise.
const PATIENCE: Duration = Duration::from_secs(600);

const MASKED: &str = "is masked: set masked = false to allow it";

/// What a change may consist of, in the order in which it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Unmask,
    Write,
    Reload,
    Disable,
    Stop,
    Mask,
    Enable,
    Start,
}

#[derive(Default)]
struct Steps {
    differences: Vec<Difference>,
    shell: BTreeMap<Stage, String>,
}

impl Steps {
    fn differs(&mut self, attribute: &str, before: &str, after: &str) {
        let before = Some(before).filter(|state| !state.is_empty());
        self.differences.push(Difference::value(attribute, before, Some(after)));
    }

    fn add(&mut self, stage: Stage, shell: impl Into<String>) {
        self.shell.insert(stage, shell.into());
    }

    fn has(&self, stage: Stage) -> bool {
        self.shell.contains_key(&stage)
    }
}

/// Why a comparison ends before all is compared.
enum End {
    Unanswered(Unanswered),
    Verdict(Verdict),
}

impl From<Unanswered> for End {
    fn from(unanswered: Unanswered) -> Self {
        Self::Unanswered(unanswered)
    }
}

/// Whether a unit does what `started = true` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activity {
    Up,
    /// A oneshot has done its work.
    Done,
    /// It cannot run in this container.
    Unmet,
    Down,
}

fn activity(unit: &Seen, trace: Option<Trace>, container: bool) -> Activity {
    match unit.active.as_str() {
        "active" | "reloading" | "refreshing" => Activity::Up,
        "activating" if unit.oneshot && !is_failing(unit) => Activity::Up,
        "inactive" if container && (unit.condition == Some(false) || trace == Some(Trace::Unmet)) => {
            Activity::Unmet
        }
        // What an earlier unit of this name did does not count.
        "inactive" if unit.oneshot && unit.load != "not-found" => match (unit.condition, trace) {
            (Some(true), _) if unit.result == "success" => Activity::Done,
            (None, Some(Trace::Done)) => Activity::Done,
            _ => Activity::Down,
        },
        _ => Activity::Down,
    }
}

/// It ends and is started again by systemd, over and over.
fn is_failing(unit: &Seen) -> bool {
    unit.sub.starts_with("auto-restart")
}

fn active_state(unit: &Seen) -> String {
    match is_failing(unit) {
        true => format!("{} ({})", unit.active, unit.sub),
        false => unit.active.clone(),
    }
}

fn is_masked(unit: &Seen) -> bool {
    unit.load == "masked" || unit.enabled.starts_with("masked")
}

/// What to do for a unit file in this state (`UnitFileState`) to be enabled or not; an error says why it cannot be.
fn enabling(wanted: bool, state: &str) -> Result<Option<Stage>, &'static str> {
    Ok(match (wanted, state) {
        (true, "enabled") => None,
        (true, "static") => {
            return Err(
                "is static: it has no [Install] section, other units start it; leave `enabled` out and use \
                 `started`, or enable what starts it (its timer or socket)",
            );
        }
        (true, "indirect") => {
            return Err("is not enabled itself but through others: enable those that its [Install] section \
                        names with Also=, or an instance of it");
        }
        (_, "generated") => {
            return Err(
                "is generated at boot from another file (/etc/fstab, /etc/init.d): change that file, or \
                        set masked = true",
            );
        }
        (true, "transient") => return Err("is transient: the program that made it decides on it"),
        (true, _) => Some(Stage::Enable),
        (false, "enabled" | "enabled-runtime") => Some(Stage::Disable),
        (false, _) => None,
    })
}

impl Unit {
    /// The unit's file or drop-in, if one is wanted.
    fn file(&self) -> Option<File> {
        let content = self.content.as_ref()?;
        let path = match &self.drop_in {
            Some(drop_in) => format!("{UNIT_FOLDER}/{}.d/{drop_in}", self.name),
            None => format!("{UNIT_FOLDER}/{}", self.name),
        };
        Some(File::text(path, content))
    }

    /// The unit's whole file is given here: it does not depend on a package.
    fn is_own(&self) -> bool {
        self.content.is_some() && self.drop_in.is_none()
    }

    fn refused(&self, why: &str) -> End {
        End::Verdict(Verdict::Refused(format!("{} {why}", self.name)))
    }

    fn trace(&self, seen: &Answers) -> Result<Option<Trace>, Unanswered> {
        let link = seen.stat(&trace_path(&self.name))?;
        let target = link.as_ref().map_or("", |stat| &stat.target);
        Ok([Trace::Done, Trace::Unmet].into_iter().find(|trace| trace.word() == target))
    }

    fn compare(&self, seen: &Answers) -> Result<Steps, End> {
        let mut steps = Steps::default();
        if is_template(&self.name) {
            self.compare_file(seen, false, &mut steps)?;
            return Ok(steps);
        }
        let unit = seen.unit(&self.name)?;
        if !unit.id.is_empty() && unit.id != self.name {
            return Err(self.refused(&format!("is another name of {0}; name {0} instead", unit.id)));
        }
        self.compare_presence(unit)?;
        self.compare_file(seen, is_masked(unit), &mut steps)?;
        if unit.needs_daemon_reload && !steps.has(Stage::Reload) {
            steps.differs("configuration", "changed on disk", "loaded");
            steps.add(Stage::Reload, "reload\n");
        }
        self.compare_masked(unit, &mut steps)?;
        self.compare_enabled(unit, &mut steps)?;
        if self.started.is_some() {
            self.compare_started(unit, seen, &mut steps)?;
        }
        Ok(steps)
    }

    /// Ends the comparison of what is not there.
    fn compare_presence(&self, unit: &Seen) -> Result<(), End> {
        if unit.load != "not-found" || self.is_own() {
            return Ok(());
        }
        if self.missing_ok {
            return Err(End::Verdict(Verdict::Converged));
        }
        let needed = self.masked != Some(true) && (self.enabled.is_some() || self.started.is_some());
        match needed {
            true => Err(End::Verdict(Verdict::Unknown(format!(
                "there is no unit {} yet: is the package that brings it declared before it, and is its name right?",
                self.name
            )))),
            false => Ok(()),
        }
    }

    fn compare_file(&self, seen: &Answers, masked: bool, steps: &mut Steps) -> Result<(), End> {
        let Some(mut file) = self.file() else { return Ok(()) };
        if let Some(link) = seen.stat(&file.path)?.as_ref().filter(|stat| stat.file_type == FileType::Link) {
            // The mask is a link in the very place of the file.
            match (masked, self.masked) {
                (true, Some(false)) => file.replace_link = true,
                (true, _) => return Err(self.refused(MASKED)),
                (false, _) => {
                    let path = &file.path;
                    let why = format!("{path} is a link to {}; remove it first (`absent`)", link.target);
                    return Err(End::Verdict(Verdict::Refused(why)));
                }
            }
        }
        match file.diff(seen)? {
            Verdict::Converged => {}
            Verdict::Differs(change) => {
                steps.differences.extend(change.differences);
                let folder = match self.drop_in {
                    Some(_) => format!(
                        "mkdir -p -- {} || fail 'cannot make its folder'\n",
                        quote(&format!("{UNIT_FOLDER}/{}.d", self.name))
                    ),
                    None => String::new(),
                };
                steps.add(Stage::Write, folder + &change.shell);
                let loaded = if is_template(&self.name) { "" } else { "loaded\n" };
                steps.add(Stage::Reload, format!("reload\n{loaded}"));
            }
            other => return Err(End::Verdict(other)),
        }
        Ok(())
    }

    fn compare_masked(&self, unit: &Seen, steps: &mut Steps) -> Result<(), End> {
        match (self.masked, is_masked(unit)) {
            (Some(true), _) if unit.enabled == "masked" => {}
            (Some(true), _) if unit.path == format!("{UNIT_FOLDER}/{}", self.name) && !is_masked(unit) => {
                return Err(self.refused(&format!(
                    "cannot be masked: {} is a file of its own; remove it first (`absent`)",
                    unit.path
                )));
            }
            (Some(true), _) => {
                let before = if is_masked(unit) { "until reboot" } else { "no" };
                steps.differs("masked", before, "yes");
                steps.add(Stage::Mask, "systemctl mask -- \"$unit\" || fail 'cannot be masked'\n");
            }
            (Some(false), true) => {
                steps.differs("masked", "yes", "no");
                steps.add(
                    Stage::Unmask,
                    "{ systemctl unmask -- \"$unit\" && systemctl unmask --runtime -- \"$unit\"; } || fail 'cannot be unmasked'\n",
                );
            }
            (None, true) if self.enabled == Some(true) || self.started == Some(true) => {
                return Err(self.refused(MASKED));
            }
            _ => {}
        }
        Ok(())
    }

    fn compare_enabled(&self, unit: &Seen, steps: &mut Steps) -> Result<(), End> {
        let Some(wanted) = self.enabled else { return Ok(()) };
        let rewritten = self.is_own() && steps.has(Stage::Write);
        let state = match wanted {
            // A file that is about to be replaced does not decide whether the new one can be enabled.
            true if rewritten && unit.enabled != "enabled" => "disabled",
            // The mask hides whether it is enabled.
            false if steps.has(Stage::Unmask) => "enabled",
            _ => &unit.enabled,
        };
        let stage = enabling(wanted, state).map_err(|why| self.refused(why))?;
        if stage.is_some() {
            steps.differs("enabled", &unit.enabled, if wanted { "enabled" } else { "disabled" });
        }
        match stage {
            Some(Stage::Disable) => steps.add(
                Stage::Disable,
                "{ systemctl disable -- \"$unit\" && systemctl disable --runtime -- \"$unit\"; } || fail 'cannot be disabled'\n",
            ),
            // Its [Install] section may have changed: the links of the old one go.
            _ if rewritten && wanted => {
                steps.add(Stage::Enable, "systemctl reenable -- \"$unit\" || fail 'cannot be enabled'\n");
            }
            Some(_) => steps.add(Stage::Enable, "systemctl enable -- \"$unit\" || fail 'cannot be enabled'\n"),
            None => {}
        }
        Ok(())
    }

    fn compare_started(&self, unit: &Seen, seen: &Answers, steps: &mut Steps) -> Result<(), End> {
        if self.started == Some(false) {
            if !matches!(unit.active.as_str(), "inactive" | "failed") {
                steps.differs("active", &active_state(unit), "inactive");
                steps.add(Stage::Stop, "systemctl stop -- \"$unit\" || explain 'cannot be stopped'\n");
            }
            return Ok(());
        }
        // The type that counts is the one it has when it is started.
        let written = self.content.as_deref().filter(|_| self.is_own() && steps.has(Stage::Write));
        let unit = &Seen { oneshot: written.map_or(unit.oneshot, is_oneshot), ..unit.clone() };
        match activity(unit, self.trace(seen)?, seen.facts.container) {
            Activity::Down => {
                let after = if unit.oneshot { "run once" } else { "active" };
                steps.differs("active", &active_state(unit), after);
                steps.add(Stage::Start, "start start\n");
            }
            Activity::Up if self.restart && steps.has(Stage::Write) => {
                steps.add(Stage::Start, "start restart\n")
            }
            _ => {}
        }
        Ok(())
    }
}

impl Resource for Unit {
    fn name(&self) -> String {
        match &self.drop_in {
            Some(drop_in) => format!("{}.d/{drop_in}", self.name),
            None => self.name.clone(),
        }
    }

    fn questions(&self) -> Vec<Question> {
        let mut questions = self.file().map_or_else(Vec::new, |file| file.questions());
        if !is_template(&self.name) {
            questions.push(Question::Unit(self.name.clone()));
        }
        if self.started == Some(true) {
            questions.push(Question::Stat(trace_path(&self.name)));
        }
        questions
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        let steps = match self.compare(seen) {
            Ok(steps) => steps,
            Err(End::Verdict(verdict)) => return Ok(verdict),
            Err(End::Unanswered(unanswered)) => return Err(unanswered),
        };
        if steps.shell.is_empty() {
            return Ok(Verdict::Converged);
        }
        let waits = steps.has(Stage::Start) || steps.has(Stage::Stop);
        let commands: String = steps.shell.into_values().collect();
        let service = self.name.ends_with(".service");
        let change = Change {
            starts_last: true,
            settles: (service && starts(&commands)).then(|| has_stayed_up(&self.name)),
            ..Change::new(
                steps.differences,
                watched(&self.name, seen.facts.container, &self.fails_on, &commands),
            )
        };
        Ok(Verdict::Differs(if waits { change.long(PATIENCE) } else { change }))
    }

    fn notes(&self, seen: &Answers) -> Vec<String> {
        let unmet = || {
            let unit = seen.unit(&self.name).ok()?;
            let trace = self.trace(seen).ok()?;
            (activity(unit, trace, seen.facts.container) == Activity::Unmet).then(|| {
                format!("{} is not running: its start conditions are not met in a container", self.name)
            })
        };
        match self.started {
            Some(true) => unmet().into_iter().collect(),
            _ => Vec::new(),
        }
    }

    fn fails_on(&self, unit: &str) -> Option<&FailsOn> {
        (self.name == unit && self.started == Some(true)).then_some(&self.fails_on)
    }

    fn check(&self) -> Result<(), String> {
        check_name(&self.name)?;
        let wrong = |why: &str| Err(why.to_owned());
        let controlled = self.enabled.or(self.started).or(self.masked);
        if controlled.is_none() && self.content.is_none() {
            return wrong(
                "give at least one of `content` (or `template`), `enabled`, `started` and `masked`",
            );
        }
        if controlled.is_some() && is_template(&self.name) {
            return Err(format!(
                "{} is a template: only an instance of it, as {}, can be enabled, started or masked",
                self.name,
                self.name.replacen("@.", "@1.", 1)
            ));
        }
        match (&self.drop_in, &self.content) {
            (Some(_), None) => return wrong("`drop_in` needs `content` (or `template`)"),
            (Some(file), _) => check_drop_in(file)?,
            _ => {}
        }
        self.content.as_deref().map_or(Ok(()), check_content)?;
        if self.fails_on.iter().flat_map(|(text, advice)| [text, advice]).any(|t| t.trim().is_empty()) {
            return wrong(
                "`fails_on` needs a text of the log, and what to do about it: neither may be empty",
            );
        }
        if self.masked == Some(true) {
            if self.enabled == Some(true) || self.started == Some(true) {
                return wrong("masked = true forbids every start: `enabled` and `started` cannot be true");
            }
            if self.is_own() {
                return wrong("masked = true puts a link in the place of the file that `content` writes");
            }
        }
        match &self.content {
            Some(content)
                if self.is_own() && self.enabled == Some(true) && !has_line(content, "[Install]") =>
            {
                wrong(
                    "enabled = true needs an [Install] section in `content`, as: WantedBy=multi-user.target",
                )
            }
            _ => Ok(()),
        }
    }
}

fn check_drop_in(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    let stem = name.strip_suffix(".conf").unwrap_or_default();
    if stem.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return Err(format!(
            "`drop_in` {name:?} is not a file name that ends in .conf, as \"10-limits.conf\""
        ));
    }
    Ok(())
}

#[cfg(test)]
#[path = "unit_tests.rs"]
mod tests;
