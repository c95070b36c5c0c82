//! What `unit` and `timer` share: names of units, their files' syntax, and the shell around `systemctl`.

use std::collections::BTreeMap;

use crate::shell::quote;

/// Where the units and drop-ins of the machine's owner lie. They stand before those of packages.
pub const UNIT_FOLDER: &str = "/etc/systemd/system";

/// Types of units that a person can write and control. Devices and scopes are made by the kernel and by programs.
const TYPES: &[&str] =
    &["service", "socket", "timer", "target", "mount", "automount", "swap", "path", "slice"];

/// The link that the start of a unit leaves behind, see [`Trace`]. Gone after a reboot.
pub fn trace_path(unit: &str) -> String {
    format!("/run/datahub/started/{unit}")
}

/// What a start came to that leaves its unit inactive. systemd itself forgets such a unit at once if nothing wants
/// it, and then answers as if it had never been started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    /// A oneshot has done its work.
    Done,
    /// The start conditions were not met.
    Unmet,
}

impl Trace {
    /// The link's target.
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unmet => "unmet",
        }
    }
}

/// Whether a name is that of a template, which is no unit itself: `x@.service`.
pub fn is_template(name: &str) -> bool {
    name.contains("@.")
}

/// A unit's name with its type: `ssh.service`, `foo@1.service`, `srv-data.mount`.
pub fn check_name(name: &str) -> Result<(), String> {
    let bad = |why: &str| Err(format!("name {name:?} cannot be used: {why}"));
    let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let stem = match name.rsplit_once('.') {
        Some((stem, "device" | "scope")) => {
            return bad(&format!("the system makes {stem} by itself; name the unit that needs it"));
        }
        Some((stem, kind)) if TYPES.contains(&kind) => stem,
        _ => {
            return bad(&format!("it must end with its type, as {:?}", format!("{name}.service")));
        }
    };
    if stem.is_empty() || stem.starts_with(['@', '-', '.']) || name.len() > 255 {
        return bad("there is no name before its type");
    }
    if !name.chars().all(plain) || stem.matches('@').count() > 1 {
        return bad("letters, digits and : - _ . \\ are allowed, and one @ before the instance");
    }
    Ok(())
}

/// Finds what systemd would only warn of in the journal: lines that are no sections, settings or comments.
/// `systemd-analyze verify` is not used for this: it fails for reasons outside the file (a program that a later
/// resource installs, another unit's mistake), so it would refuse what is right.
pub fn check_content(content: &str) -> Result<(), String> {
    let mut section = false;
    let mut continued = false;
    for (at, line) in content.lines().enumerate() {
        let text = line.trim();
        let comment = text.is_empty() || text.starts_with(['#', ';']);
        if continued {
            continued = comment || text.ends_with('\\');
            continue;
        }
        let wrong = |why: &str| Err(format!("`content` line {}: {text:?} {why}", at + 1));
        if comment {
            continue;
        } else if text.starts_with('[') {
            if !text.ends_with(']') {
                return wrong("is a section without its `]`");
            }
            section = true;
        } else if !text.contains('=') {
            return wrong("is neither a [Section] nor Setting=value");
        } else if !section {
            return wrong("stands before the first [Section]");
        }
        continued = text.ends_with('\\');
    }
    if section { Ok(()) } else { Err("`content` holds no [Section]".into()) }
}

/// Whether a unit's file holds a line, as `[Install]` or `Type=oneshot`.
pub fn has_line(content: &str, line: &str) -> bool {
    content.lines().any(|l| l.trim() == line)
}

/// Whether a unit's file makes a service that is inactive again once it has done its work.
pub fn is_oneshot(content: &str) -> bool {
    let remains = ["yes", "true", "on", "1"].map(|yes| format!("RemainAfterExit={yes}"));
    has_line(content, "Type=oneshot") && !remains.iter().any(|line| has_line(content, line))
}

/// What a unit's log says when it will never get up, each text with what to do about it.
pub type FailsOn = BTreeMap<String, String>;

/// Functions over `$unit`. `fail REASON` ends the script; `explain REASON` too, after the unit's last words.
/// The journal's usual form is kept: it makes unprintable what a service printed to confuse a terminal.
const FUNCTIONS: &str = r#"fail() { printf '%s\n' "$unit: $1" >&2; exit 1; }
property() { systemctl show -P "$1" -- "$unit"; }
journal() { journalctl --no-pager --quiet "$@"; }
explain() {
    ! heard once || despair "$1"
    journal --no-hostname -n 10 -u "$unit" >&2
    printf '%s\n' "$unit: $1" "hint: more of its log: datahub exec --node NAME -- journalctl -n 100 -u $unit" >&2
    exit 1
}
reload() {
    systemctl daemon-reload || fail 'systemd did not reload its configuration'
}
loaded() {
    case $(property LoadState) in bad-setting | error) explain 'systemd refuses its content' ;; esac
}
"#;

/// `up`: whether a unit that was started is what it should be since.
const UP: &str = r#"trace() {
    mkdir -p -- "${trace%/*}" && ln -sfn "$1" "$trace" || fail 'cannot note what its start came to'
}
up() {
    state=$(systemctl show -p Type -p RemainAfterExit -p ActiveState -p SubState -- "$unit")
    case $state in
    *ActiveState=failed* | *SubState=auto-restart*) explain 'failed right after its start' ;;
    *ActiveState=inactive*) ;;
    *) return ;;
    esac
    case $state in *Type=oneshot*) case $state in *RemainAfterExit=no*)
        trace done
        return ;;
    esac ;; esac
    explain 'ended right after its start; if that is its purpose it needs Type=oneshot'
}
"#;

const STAYS: &str = "[ -L \"$trace\" ] || up\n";
/// A service that is up as soon as its process is made; all others tell by themselves when they are up.
const FAILS_SOON: &str = "case $(property Type) in simple | exec | idle) sleep 1 ;; esac\n";

/// `start VERB`, with VERB `start` or `restart`: starts it, and looks whether it is up.
const START: &str = r#"start() {
    [ ! -L "$trace" ] || rm -f -- "$trace"
    case $(systemctl cat -- "$unit" 2>/dev/null) in *Condition*)
        conditions=$(systemd-analyze condition --unit="$unit" 2>&1)
        case $conditions in *'Conditions failed.'*)
            UNMET
        esac ;;
    esac
    launch "$1"
    up
}
"#;

/// What becomes of unmet start conditions on a machine that is whole, and in a container.
const UNMET_FAILS: &str = r#"printf '%s\n' "$conditions" | grep ' failed' >&2
            fail 'its start conditions are not met' ;;"#;
const UNMET_NOTED: &str = "trace unmet\n            return ;;";

/// Nobody has said what to listen for.
const UNHEARD: &str = "heard() { return 1; }\n";

/// systemd knows best when a start is over.
const LAUNCH: &str = r#"launch() { systemctl "$1" -- "$unit" || explain "cannot be started (systemctl $1)"; }
"#;

/// A service that is refused may go on trying until systemd's patience is at its end. Its log says so at once, and is
/// read meanwhile: `heard once` or `heard twice` whether this start's has one of the texts, so many times. What goes on
/// trying goes on: the cause may vanish by itself.
const WATCHED_LAUNCH: &str = r#"watching=
heard() {
    [ -n "$watching" ] && now=$(property InvocationID) && [ -n "$now" ] && [ "$now" != "$before" ] || return 1
    said=$(journal -o cat -n 500 "_SYSTEMD_INVOCATION_ID=$now")
    case $1$said in
    TEXTS
    *) return 1 ;;
    esac
}
despair() {
    journal --no-hostname -n 500 -u "$unit" | grep -F -- "$text" | tail -n 1 >&2
    printf '%s\n' "$unit: $1" "hint: $advice" >&2
    exit 1
}
launch() {
    watching=yes before=$(property InvocationID)
    # A start that goes on knows nothing of what has changed since it was begun.
    case $1/$(property ActiveState) in start/activating) set -- restart ;; esac
    systemctl --no-block "$1" -- "$unit" || explain "cannot be started (systemctl $1)"
    looks=0
    while case $(property Job) in '' | 0) false ;; esac; do
        sleep 0.5
        ! heard twice || despair 'does not get up'
        # Every five seconds, for whoever waits: like a progress bar, of which in the end nothing is left.
        looks=$((looks + 1))
        [ $((looks % 10)) != 0 ] || printf '\r%s\r' "$(journal -o cat -n 1 -u "$unit")"
    done
}
"#;

/// Commands about one unit, after the functions they use. It ends the script on failure; more may follow.
pub fn script(unit: &str, container: bool, commands: &str) -> String {
    watched(unit, container, &FailsOn::new(), commands)
}

/// [`script`], its starts given up as soon as the unit's log says that they will come to nothing.
pub fn watched(unit: &str, container: bool, fails_on: &FailsOn, commands: &str) -> String {
    let launch = match fails_on.is_empty() {
        true => format!("{UNHEARD}{LAUNCH}"),
        false => {
            let text = |(text, advice): (&String, &String)| {
                let (text, advice) = (quote(text), quote(advice));
                format!("once*{text}* | twice*{text}*{text}*) text={text} advice={advice} ;;")
            };
            let texts: Vec<String> = fails_on.iter().map(text).collect();
            WATCHED_LAUNCH.replace("TEXTS", &texts.join("\n    "))
        }
    };
    let start = START.replace("UNMET", if container { UNMET_NOTED } else { UNMET_FAILS });
    let start = match starts(commands) {
        true => format!("{launch}{UP}{start}"),
        false => UNHEARD.to_owned(),
    };
    about(unit, &format!("{start}{commands}"))
}

/// Whether commands for [`script`] start something.
pub fn starts(commands: &str) -> bool {
    commands.lines().any(|line| line.starts_with("start "))
}

/// Says why a unit has not stayed up, a while after it was started: most services are up as soon as their process is
/// made, and fail then. One that has left a trace is not meant to.
pub fn has_stayed_up(unit: &str) -> String {
    about(unit, &format!("{UNHEARD}{UP}{STAYS}"))
}

fn about(unit: &str, commands: &str) -> String {
    let (name, trace) = (quote(unit), quote(&trace_path(unit)));
    format!("(\nunit={name} trace={trace}\n{FUNCTIONS}{commands}) || exit 1\n")
}

/// Reads the unit's file anew and restarts it, for a handler, which is done only once the unit has had its second to
/// fail in. That its start conditions are not met is its resource's to complain of.
pub fn restart(unit: &str, fails_on: &FailsOn) -> String {
    watched(unit, true, fails_on, &format!("reload\nstart restart\n{FAILS_SOON}{STAYS}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["ssh.service", "foo@1.service", "foo@.service", "a.b.socket", "dev-x\\x2dy.swap"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for (name, why) in [
            ("ssh", "as \"ssh.service\""),
            ("ssh.conf", "must end with its type"),
            (".service", "no name before"),
            ("-x.service", "no name before"),
            ("a b.service", "are allowed"),
            ("../x.service", "no name before"),
            ("a/x.service", "are allowed"),
            ("a@b@c.service", "are allowed"),
            ("sda.device", "by itself"),
        ] {
            let error = check_name(name).expect_err(name);
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn contents() {
        for content in [
            "[Service]\nExecStart=/bin/true\n",
            "# x\n\n[Service]\nExecStart=/bin/sh \\\n# inside\n  -c true\n; y\n[Install]\nWantedBy=a",
        ] {
            assert_eq!(check_content(content), Ok(()), "{content}");
        }
        for (content, why) in [
            ("", "no [Section]"),
            ("ExecStart=/bin/true", "line 1: \"ExecStart=/bin/true\" stands before"),
            ("[Service\n", "without its `]`"),
            ("[Service]\nExecStart /bin/true\n", "line 2:"),
        ] {
            let error = check_content(content).expect_err(content);
            assert!(error.contains(why), "{error}");
        }
    }
}
