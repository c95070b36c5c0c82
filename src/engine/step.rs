//! The shell around a change: the node's locks, notified handlers written down before the change, and long
//! steps that outlive the connection.

use crate::probe::sh::PENDING_DIR;
use crate::role::{Action, Handler};
use crate::secret::Secret;
use crate::shell::{emit, quote};

/// Holds the run's lock for as long as its input stays open. Prints `locked`, or `busy` and who holds it.
/// It waits for a step that an earlier, dead run left running, and clears away what nobody will pick up: the
/// long steps of other runs than `run`.
pub fn lock(owner: &str, run: &str) -> String {
    let owner = quote(owner);
    let own = quote(&format!("/run/datahub/step-{run}-"));
    format!(
        r#"umask 077; mkdir -p /run/datahub
exec 8>>/run/datahub/run.lock
if ! flock -n 8; then echo "busy $(cat /run/datahub/owner 2>/dev/null)"; exit 0; fi
printf '%s\n' {owner} >/run/datahub/owner
flock /run/datahub/step.lock true
for d in /run/datahub/step-*; do
  case "$d" in {own}*) ;; *) [ ! -d "$d" ] || rm -rf "$d";; esac
done
echo locked
cat >/dev/null"#
    )
}

/// Writes handlers down as pending, with the boot id and the time since boot (s): they tell whether what is to be
/// restarted has been started since.
pub fn mark(role: &str, handlers: &[String]) -> String {
    if handlers.is_empty() {
        return String::new();
    }
    let dir = format!("{PENDING_DIR}/{role}");
    let mut out = format!("mkdir -p {}\n", quote(&dir));
    for handler in handlers {
        out.push_str(&format!(
            "echo \"$(cat /proc/sys/kernel/random/boot_id) $(cut -d' ' -f1 /proc/uptime)\" >{} || exit 1\n",
            quote(&format!("{dir}/{handler}"))
        ));
    }
    // A mark that a power cut takes with it would lose the restart.
    out.push_str(&format!("sync -f {}\n", quote(&dir)));
    out
}

/// A short change, one at a time on the node. Handlers are marked first.
///
/// The inner subshell must not be the last command of the outer one: dash would run it in the outer's process, and
/// closing the descriptor there lets the lock go.
pub fn short(role: &str, notify: &[String], shell: &str) -> String {
    format!(
        "umask 022; mkdir -p -m 0700 /run/datahub\n{}(\nflock 9\n(\n{shell}\n) 9>&-\nexit $?\n) 9>>/run/datahub/step.lock",
        mark(role, notify)
    )
}

/// A change that runs on when the connection drops. Sent again with the same `id` it is picked up, not repeated.
/// Its script and output lie in a folder only root may enter, so it must hold no secret all the same: it stays
/// there until somebody picks it up.
pub fn long(role: &str, notify: &[String], shell: &str, id: &str) -> String {
    LONG.replace("DIR", &quote(&format!("/run/datahub/step-{id}")))
        .replace("MARK", &mark(role, notify))
        .replace("SCRIPT", &emit(shell.as_bytes()))
}

const LONG: &str = r#"umask 022; mkdir -p -m 0700 /run/datahub
d=DIR
if mkdir -m 0700 "$d" 2>/dev/null; then
MARK
{
SCRIPT
} >"$d/script" || exit 1
: >"$d/out"
setsid flock /run/datahub/step.lock sh -c 'sh "$1/script" >"$1/out" 2>&1 </dev/null; echo $? >"$1/rc"' sh "$d" >/dev/null 2>&1 </dev/null &
sleep 0.05
fi
while [ ! -e "$d/rc" ]; do flock /run/datahub/step.lock true; [ -e "$d/rc" ] || sleep 0.1; done
cat "$d/out"; rc=$(cat "$d/rc"); rm -rf "$d"; exit "$rc""#;

/// What a handler runs. Its mark is struck off only after it has succeeded; with an `undo`, after [`confirm`].
pub fn handler(role: &str, handler: &Handler) -> String {
    let mark = mark_path(role, handler);
    if handler.action == Action::Reboot {
        return format!(
            "[ -e {mark} ] || exit 0\nread -r noted since <{mark}; read -r now </proc/sys/kernel/random/boot_id\nif [ \"$noted\" != \"$now\" ]; then rm -f {mark}; exit 0; fi\nsetsid sh -c 'sleep 0.5; systemctl reboot || reboot' >/dev/null 2>&1 </dev/null &\necho rebooting"
        );
    }
    let action = action(&handler.action);
    match &handler.undo {
        None if is_restart(&handler.action) => {
            let due = is_due(role, handler);
            short(role, &[], &format!("if (\n{due}\n); then {action} || exit $?; fi\nrm -f {mark}"))
        }
        None => short(role, &[], &format!("{action} || exit $?\nrm -f {mark}")),
        Some(undo) => short(role, &[], &guarded(role, handler, &action, undo)),
    }
}

fn is_restart(action: &Action) -> bool {
    matches!(action, Action::Restart(_) | Action::Reload(_))
}

/// Ends with 0 unless the unit that the handler restarts or reloads has been started since the mark was made: then
/// it runs with what notified the handler already. Without a mark, or without a unit, it is due.
pub fn is_due(role: &str, handler: &Handler) -> String {
    let (Action::Restart(unit) | Action::Reload(unit)) = &handler.action else { return "exit 0".into() };
    format!(
        r#"[ -e {mark} ] || exit 0
read -r boot since <{mark}
state=$(systemctl show -p ActiveState -p ActiveEnterTimestampMonotonic --value -- {unit} | tr '\n' ' ')
case " $state" in *" active "*) ;; *) exit 0;; esac
[ "$boot" = "$(cat /proc/sys/kernel/random/boot_id)" ] || exit 1
started=$(printf '%s' "$state" | tr -dc '0-9')
case $since in *.*) ;; *) exit 0;; esac
since=$(printf '%s' "$since" | tr -d .)
[ $(( started / 10000 )) -le "$since" ]"#,
        mark = mark_path(role, handler),
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
/// nobody has confirmed in time, or at once if the action fails.
fn guarded(role: &str, handler: &Handler, action: &str, undo: &str) -> String {
    let dir = undo_dir(role, handler);
    let undo = format!("(\n{undo}\n)\n{action}\nrm -f {}\n", mark_path(role, handler));
    let undo = emit(undo.as_bytes());
    format!(
        r#"mkdir -p -m 0700 {dir} && undo=$(mktemp {dir}/XXXXXX) || exit 1
{{
{undo}
}} >"$undo" || exit 1
watch='sleep {LOGIN_LIMIT}; exec 9>>/run/datahub/step.lock; flock 9; [ ! -e "$1" ] || {{ sh "$1"; rm -f "$1"; }}'
setsid sh -c "$watch" sh "$undo" >/dev/null 2>&1 </dev/null &
{action} || {{ rc=$?; sh "$undo"; rm -f "$undo"; echo "it was taken back" >&2; exit "$rc"; }}"#
    )
}

/// A new login has worked after a handler with an `undo`: the change stays.
pub fn confirm(role: &str, handler: &Handler) -> String {
    short(role, &[], &format!("rm -rf {} {}", undo_dir(role, handler), mark_path(role, handler)))
}

/// No new login works: takes back what notified the handler.
pub fn take_back(role: &str, handler: &Handler) -> String {
    let dir = undo_dir(role, handler);
    short(
        role,
        &[],
        &format!("for undo in {dir}/*; do [ ! -e \"$undo\" ] || sh \"$undo\"; done\nrm -rf {dir}"),
    )
}

fn action(action: &Action) -> String {
    match action {
        Action::Restart(unit) => format!("systemctl daemon-reload && systemctl restart -- {}", quote(unit)),
        Action::Reload(unit) => format!("systemctl reload-or-restart -- {}", quote(unit)),
        Action::DaemonReload => "systemctl daemon-reload".into(),
        Action::Command(shell) => format!("(\n{shell}\n)"),
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

    #[test]
    fn a_short_step_holds_the_lock_and_nothing_it_starts_does() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().display().to_string();
        let ask = format!("flock -n {path}/step.lock true && echo free || echo held");
        let step = short("base", &[], &format!("{ask}; sleep 5 >/dev/null 2>&1 & exit 3"));
        let script = format!("{}\necho $?; {ask}", step.replace("/run/datahub", &path));
        let script = crate::shell::whole_or_nothing(&script);
        let out = std::process::Command::new("sh").args(["-c", &script]).output().expect("sh runs");
        assert_eq!(String::from_utf8_lossy(&out.stdout), "held\n3\nfree\n", "{script}");
    }

    #[test]
    fn dash_parses_every_step() {
        let handler = Handler {
            name: "h".into(),
            action: Action::Restart("ssh.service".into()),
            undo: None,
            cluster: None,
            place: crate::diagnostic::Place::new(&crate::diagnostic::Source::new("x", ""), 0..0),
        };
        let notify = ["h".to_owned()];
        for script in [
            lock("me", "run-1"),
            short("base", &notify, "cat <<'X'\n)\nX"),
            long("base", &notify, "echo hi", "1"),
            super::handler("base", &handler),
            super::handler("base", &Handler { action: Action::Reboot, ..handler.clone() }),
            super::handler("base", &Handler { undo: Some("echo 'taken back'".into()), ..handler.clone() }),
            is_due("base", &handler),
            with_fetched(Some(&Secret::new("s3'cret")), "echo \"$fetched\""),
            confirm("base", &handler),
            take_back("base", &handler),
        ] {
            let script = crate::shell::whole_or_nothing(&script);
            let out = std::process::Command::new("sh").args(["-n", "-c", &script]).output().expect("sh runs");
            assert!(out.status.success(), "{script}\n{}", String::from_utf8_lossy(&out.stderr));
        }
    }
}
