//! The shell around a change: the lock of a step, notified handlers written down before the change, and long
//! steps that outlive the connection.

use super::lock;
use crate::probe::sh::PENDING_DIR;
use crate::resource::systemd;
use crate::role::{Action, Handler};
use crate::secret::Secret;
use crate::shell::{emit, quote};

/// A change, and the handlers it notifies written down as pending: before it, for whoever dies in between, and once
/// more after it, for a unit that was started in the middle of it runs without a part of it. With `starts_last` the
/// first time is the one that counts.
pub fn marked(role: &str, notify: &[String], starts_last: bool, shell: &str) -> String {
    if notify.is_empty() {
        return shell.to_owned();
    }
    let dir = format!("{PENDING_DIR}/{role}");
    let marks: Vec<String> = notify.iter().map(|handler| quote(&format!("{dir}/{handler}"))).collect();
    let mark = mark(&marks);
    // A mark that a power cut takes with it would lose the restart; one that is only older would not.
    let first = format!("mkdir -p {dir}\n{mark}sync -- {} {dir}\n", marks.join(" "), dir = quote(&dir));
    match starts_last {
        true => format!("{first}{shell}"),
        // No `||` after the subshell, which would switch `set -e` off inside.
        false => {
            format!("{first}(\n{shell}\n)\nstatus=$?; [ \"$status\" -eq 0 ] || exit \"$status\"\n{mark}")
        }
    }
}

/// Writes the boot id and the time since boot (s) into files: they tell whether what is to be restarted has been
/// started since.
fn mark(marks: &[String]) -> String {
    let line = "echo \"$(cat /proc/sys/kernel/random/boot_id) $(cut -d' ' -f1 /proc/uptime)\"";
    marks.iter().map(|mark| format!("{line} >{mark} || exit 1\n")).collect()
}

/// A short change of a run, one at a time on the node; ends the script. `what` it is stands in /run/datahub/step, with
/// the process to end if it hangs.
///
/// The subshell must not be the last command: dash would run it in the process that holds the lock, and closing the
/// descriptor there lets it go. Its process is not `$$`, which is the first shell's in all of them.
pub fn short(run: &str, what: &str, shell: &str) -> String {
    let shell = one_of_stretch(run, what, shell);
    format!("{OPEN_STRETCH}(\n{shell}\n)\nstatus=$?\n{CLOSE_STRETCH}exit $status")
}

/// Before several changes of a run, one after the other, each a subshell with [`one_of_stretch`] in it.
pub const OPEN_STRETCH: &str = "umask 022; [ -d /run/datahub ] || mkdir -p -m 0700 /run/datahub\n\
                                exec 9>>/run/datahub/step.lock\nflock 9\n";
/// After them.
pub const CLOSE_STRETCH: &str = "exec 9>&-\n";

/// See [`short`].
pub fn one_of_stretch(run: &str, what: &str, shell: &str) -> String {
    format!(
        "exec 9>&-; read -r process rest </proc/self/stat; echo \"$process\" {} >/run/datahub/step\n{}{shell}",
        quote(what),
        lock::still_held(run),
    )
}

/// A change that runs on when the connection drops. Sent again with the same `id` it is picked up, not repeated.
/// Its script and output lie in a folder only root may enter, so it must hold no secret all the same: it stays
/// there until [`forget`], for the shell that waits for it may be one whose connection is gone.
pub fn long(run: &str, what: &str, shell: &str, id: &str) -> String {
    let shell = lock::still_held(run) + shell;
    LONG.replace("DIR", &quote(&format!("/run/datahub/step-{id}")))
        .replace("WHAT", &quote(what))
        .replace("SCRIPT", &emit(shell.as_bytes()))
}

/// Prints the last line that a long step has printed so far: a whole one, for programs write in pieces of their own.
pub fn last_line(id: &str) -> String {
    let out = quote(&format!("/run/datahub/step-{id}/out"));
    let last = r#"{ k=; while IFS= read -r l; do [ -z "$l" ] || k=$l; done; printf '%s\n' "$k"; }"#;
    format!("tail -c 2000 {out} 2>/dev/null | tr '\\r' '\\n' | {last}")
}

/// Clears away a long step whose answer has arrived.
pub fn forget(id: &str) -> String {
    format!("rm -rf {}", quote(&format!("/run/datahub/step-{id}")))
}

const LONG: &str = r#"umask 022; mkdir -p -m 0700 /run/datahub
d=DIR
{
flock 9
if mkdir -m 0700 "$d" 2>/dev/null; then
{
SCRIPT
} >"$d/script" || exit 1
: >"$d/out"
step='sh "$1/script" </dev/null 9>&- & echo "$! $2" >/run/datahub/step; wait "$!"; echo "$?" >"$1/rc"'
keep='head -c 33554432 >"$1/out"; : >"$1/end"'
# The lock goes on with the step, and with nothing else.
setsid sh -c "$step" sh "$d" WHAT 2>&1 </dev/null | setsid sh -c "$keep" sh "$d" >/dev/null 2>&1 9>&- &
fi
} 9>>/run/datahub/step.lock
while [ ! -e "$d/rc" ]; do
  # Nobody is left to wait for: the next run has cleared it away.
  [ -d "$d" ] || exit 1
  flock /run/datahub/step.lock true; [ -e "$d/rc" ] || sleep 0.1
done
# A daemon that the step started may keep the pipe open: what it prints is not waited for.
n=0; while [ ! -e "$d/end" ] && [ "$n" -lt 30 ]; do
  if [ "$n" -lt 10 ]; then sleep 0.01; else sleep 0.1; fi
  n=$((n + 1))
done
cat "$d/out"; exit "$(cat "$d/rc")""#;

/// What a handler runs. Its mark is struck off only after it has succeeded; with an `undo`, after [`confirm`]. Without
/// a mark it has run: in an attempt whose answer was lost.
pub fn handler(run: &str, role: &str, handler: &Handler) -> String {
    let mark = mark_path(role, handler);
    if handler.action == Action::Reboot {
        return format!(
            "[ -e {mark} ] || exit 0\nread -r noted since <{mark}; read -r now </proc/sys/kernel/random/boot_id\nif [ \"$noted\" != \"$now\" ]; then rm -f {mark}; exit 0; fi\nsetsid sh -c 'sleep 0.5; systemctl reboot || reboot' >/dev/null 2>&1 </dev/null &\necho rebooting"
        );
    }
    let action = action(handler);
    let shell = match &handler.undo {
        None if is_restart(&handler.action) => {
            let due = is_due(role, handler);
            format!("if (\n{due}\n); then {action} || exit $?; fi\nrm -f {mark}")
        }
        None => format!("{action} || exit $?\nrm -f {mark}"),
        Some(undo) => guarded(role, handler, &action, undo),
    };
    short(run, &format!("handler {}", handler.name), &format!("[ -e {mark} ] || exit 0\n{shell}"))
}

fn is_restart(action: &Action) -> bool {
    matches!(action, Action::Restart(_) | Action::Reload(_))
}

/// Ends with 0 unless the unit that the handler restarts or reloads has been started since the mark was made, or the
/// machine where it reboots that: then it runs with what notified the handler already. What is no unit that runs is
/// due; without a mark nothing is.
///
/// It is its process that counts: a service that tells when it is up has read its configuration long before.
pub fn is_due(role: &str, handler: &Handler) -> String {
    let mark = mark_path(role, handler);
    let unit = match &handler.action {
        Action::Restart(unit) | Action::Reload(unit) => unit,
        Action::Reboot => {
            return format!(
                "[ -e {mark} ] || exit 1\nread -r boot since <{mark}\n\
                 [ \"$boot\" = \"$(cat /proc/sys/kernel/random/boot_id)\" ]"
            );
        }
        Action::DaemonReload | Action::Command(_) => return format!("[ -e {mark} ]"),
    };
    format!(
        r#"[ -e {mark} ] || exit 1
read -r boot since <{mark}
show() {{ systemctl show -P "$1" -- {unit}; }}
[ "$(show ActiveState)" = active ] || exit 0
[ "$boot" = "$(cat /proc/sys/kernel/random/boot_id)" ] || exit 1
started=$(show ExecMainStartTimestampMonotonic)
case $started in '' | 0) started=$(show InactiveExitTimestampMonotonic) ;; esac
case $started in '' | *[!0-9]*) exit 0;; esac
case $since in *.*) ;; *) exit 0;; esac
since=$(printf '%s' "$since" | tr -d .)
[ $(( started / 10000 )) -le "$since" ]"#,
        unit = quote(unit),
    )
}

/// Puts a secret of another node into the variable `fetched` of a script.
pub fn with_fetched(fetched: Option<&Secret>, shell: &str) -> String {
    match fetched {
        None => shell.to_owned(),
        Some(secret) => format!("fetched=$(\n{})\n{shell}", emit(secret.expose().as_bytes())),
    }
}

/// Seconds a node waits for a new login before it takes a change back by itself.
const LOGIN_LIMIT: u32 = 60;

/// Runs an action whose effect may lock everybody out. What takes it back lies ready, and runs by itself if
/// nobody has confirmed in time, or at once if the action fails. Never twice: that of an earlier attempt goes.
fn guarded(role: &str, handler: &Handler, action: &str, undo: &str) -> String {
    let dir = undo_dir(role, handler);
    let undo = format!("(\n{undo}\n)\n{action}\nrm -f {}\n", mark_path(role, handler));
    let undo = emit(undo.as_bytes());
    format!(
        r#"mkdir -p -m 0700 {dir} && rm -f -- {dir}/* && undo=$(mktemp {dir}/XXXXXX) || exit 1
{{
{undo}
}} >"$undo" || exit 1
watch='sleep {LOGIN_LIMIT}; exec 9>>/run/datahub/step.lock; flock 9; [ ! -e "$1" ] || {{ sh "$1"; rm -f "$1"; }}'
setsid sh -c "$watch" sh "$undo" >/dev/null 2>&1 </dev/null &
{action} || {{ rc=$?; sh "$undo"; rm -f "$undo"; echo "it was taken back" >&2; exit "$rc"; }}"#
    )
}

/// A new login has worked after a handler with an `undo`: the change stays.
pub fn confirm(run: &str, role: &str, handler: &Handler) -> String {
    let what = format!("confirm handler {}", handler.name);
    short(run, &what, &format!("rm -rf {} {}", undo_dir(role, handler), mark_path(role, handler)))
}

/// No new login works: takes back what notified the handler.
pub fn take_back(run: &str, role: &str, handler: &Handler) -> String {
    let dir = undo_dir(role, handler);
    short(
        run,
        &format!("take back handler {}", handler.name),
        &format!("for undo in {dir}/*; do [ ! -e \"$undo\" ] || sh \"$undo\"; done\nrm -rf {dir}"),
    )
}

fn action(handler: &Handler) -> String {
    match &handler.action {
        Action::Restart(unit) if !handler.fails_on.is_empty() => {
            systemd::restart(unit, &handler.fails_on).trim_end().to_owned()
        }
        Action::Restart(unit) => format!("systemctl daemon-reload && systemctl restart -- {}", quote(unit)),
        Action::Reload(unit) => format!("systemctl reload-or-restart -- {}", quote(unit)),
        Action::DaemonReload => "systemctl daemon-reload".into(),
        // Read by itself: what it leaves open would swallow the script around it.
        Action::Command(shell) => format!("(eval {})", quote(shell)),
        Action::Reboot => "systemctl reboot".into(),
    }
}

fn mark_path(role: &str, handler: &Handler) -> String {
    quote(&format!("{PENDING_DIR}/{role}/{}", handler.name))
}

fn undo_dir(role: &str, handler: &Handler) -> String {
    quote(&format!("/run/datahub/undo-{role}-{}", handler.name))
}

/// One word for people: `restart ssh.service`.
pub fn describe(action: &Action) -> String {
    match action {
        Action::Restart(unit) => format!("restart {unit}"),
        Action::Reload(unit) => format!("reload {unit}"),
        Action::DaemonReload => "systemd daemon-reload".into(),
        Action::Command(shell) => format!("run {}", shell.lines().next().unwrap_or_default()),
        Action::Reboot => "reboot".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::systemd::FailsOn;

    #[test]
    fn a_short_step_holds_the_lock_and_nothing_it_starts_does() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().display().to_string();
        let ask = format!("flock -n {path}/step.lock true && echo free || echo held");
        let step = short("r", "file /x", &format!("{ask}; sleep 5 >/dev/null 2>&1 & exit 3"));
        let script = format!("(\n{}\n)\necho $?; {ask}", step.replace("/run/datahub", &path));
        let script = crate::shell::whole_or_nothing(&script);
        let out = std::process::Command::new("sh").args(["-c", &script]).output().expect("sh runs");
        assert_eq!(String::from_utf8_lossy(&out.stdout), "held\n3\nfree\n", "{script}");
    }

    #[test]
    fn a_change_is_marked_before_and_after_and_its_failure_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let run = |starts_last, shell: &str| {
            let marked = marked("role", &["h".to_owned()], starts_last, shell);
            let script = marked.replace(PENDING_DIR, &folder.path().display().to_string());
            let mut sh = std::process::Command::new("sh");
            sh.args(["-c", &script]).current_dir(&folder).status().expect("sh runs").code()
        };
        let read = |name: &str| std::fs::read_to_string(path(name)).expect("there");
        let keep_mark = "cp role/h before; sleep 0.03";
        assert_eq!(run(false, keep_mark), Some(0));
        assert_ne!(read("before"), read("role/h"));
        assert_eq!(run(true, keep_mark), Some(0));
        assert_eq!(read("before"), read("role/h"));
        // As `command` writes it.
        let status = run(false, "(\nset -e\ncp role/h before; (exit 3)\ntouch on\n)\nexit $?");
        assert_eq!(status, Some(3));
        assert_eq!(read("before"), read("role/h"));
        assert!(!path("on").exists(), "it went on after a failure");
    }

    #[test]
    fn dash_parses_every_step() {
        let handler = Handler {
            name: "h".into(),
            action: Action::Restart("ssh.service".into()),
            undo: None,
            fails_on: FailsOn::new(),
            cluster: None,
            place: crate::diagnostic::Place::new(&crate::diagnostic::Source::new("x", ""), 0..0),
        };
        let notify = ["h".to_owned()];
        let refused = FailsOn::from([("it's refused".to_owned(), "say 'please'".to_owned())]);
        for script in [
            short("r", "file /it's", &marked("base", &notify, false, "cat <<'X'\n)\nX")),
            marked("base", &notify, false, "cat <<'X'\n)\nX"),
            marked("base", &notify, true, "cat <<'X'\n)\nX"),
            long("r", "package it's", "echo hi", "1"),
            forget("1"),
            last_line("run-1-1"),
            super::handler("r", "base", &handler),
            super::handler("r", "base", &Handler { action: Action::Reboot, ..handler.clone() }),
            super::handler("r", "base", &Handler { fails_on: refused, ..handler.clone() }),
            super::handler(
                "r",
                "base",
                &Handler { undo: Some("echo 'taken back'".into()), ..handler.clone() },
            ),
            super::handler(
                "r",
                "base",
                &Handler { action: Action::Command("echo it's open".into()), ..handler.clone() },
            ),
            is_due("base", &handler),
            is_due("base", &Handler { action: Action::Reboot, ..handler.clone() }),
            with_fetched(Some(&Secret::new("s3'cret")), "echo \"$fetched\""),
            confirm("r", "base", &handler),
            take_back("r", "base", &handler),
        ] {
            crate::shell::assert_parses(&crate::shell::whole_or_nothing(&script));
        }
    }
}
