//! `unit`: what is seen and wanted → what changes; and its shell with stand-ins for systemctl.

use super::*;
use crate::probe::{Answer, Content, Facts, Stat};
use crate::resource::testing::{build, mistake, run, stat};

const CONTENT: &str = "[Service]\nExecStart=/bin/x\n[Install]\nWantedBy=multi-user.target\n";

fn loaded(active: &str, enabled: &str) -> Seen {
    Seen {
        load: "loaded".into(),
        active: active.into(),
        enabled: enabled.into(),
        id: "x.service".into(),
        result: "success".into(),
        ..Seen::default()
    }
}

fn missing() -> Seen {
    Seen { load: "not-found".into(), ..loaded("inactive", "") }
}

fn oneshot(active: &str, condition: Option<bool>) -> Seen {
    Seen { oneshot: true, condition, ..loaded(active, "static") }
}

/// What is seen of `x.service`, whose file, if it is asked for, is `file`.
fn answers(resource: &dyn Resource, unit: Seen, file: Option<&str>, trace: &str, container: bool) -> Answers {
    let mut answers = Answers::new(Facts { container, ..Facts::default() });
    for question in resource.questions() {
        let answer = match &question {
            Question::Unit(_) => Answer::Unit(unit.clone()),
            Question::Stat(path) if path.starts_with("/run/") => Answer::Stat(
                Some(Stat { target: trace.to_owned(), ..stat(FileType::Link, 0o777) })
                    .filter(|s| !s.target.is_empty()),
            ),
            Question::Stat(_) => Answer::Stat(file.map(|_| stat(FileType::File, 0o644))),
            Question::Content { .. } => Answer::Content(match file {
                None => Content::Absent,
                Some(text) if text == CONTENT => Content::Same,
                Some(text) => Content::Differs(text.into()),
            }),
            other => panic!("{other:?}"),
        };
        answers.insert(question, answer);
    }
    answers
}

fn diff(fields: &str, unit: Seen, file: Option<&str>, trace: &str, container: bool) -> Verdict {
    let resource = build("unit", &format!("name = 'x.service'\n{fields}"));
    resource.diff(&answers(&*resource, unit, file, trace, container)).expect("answered")
}

fn commands(change: &Change) -> Vec<&str> {
    let verbs = ["unmask", "daemon-reload", "disable", "stop", "mask", "enable", "reenable"];
    let body = change.shell.rsplit_once("loaded()").expect("functions come first").1;
    body.lines()
        .filter_map(|line| match line {
            "reload" => Some("daemon-reload"),
            line if line.starts_with("start ") => Some(line),
            line => line
                .split_once("systemctl ")
                .and_then(|(_, rest)| verbs.into_iter().find(|verb| rest.starts_with(&format!("{verb} ")))),
        })
        .filter(|line| !line.is_empty())
        .collect()
}

#[test]
fn states_as_data() {
    type Case<'a> = (&'a str, Seen, &'a [(&'a str, &'a str, &'a str)], &'a [&'a str]);
    let stale = Seen { needs_daemon_reload: true, ..loaded("active", "enabled") };
    let masked = || Seen { load: "masked".into(), ..loaded("inactive", "masked") };
    let looping = Seen { sub: "auto-restart".into(), ..loaded("activating", "enabled") };
    let failed = Seen { result: "exit-code".into(), ..oneshot("failed", Some(true)) };
    let both = "enabled = true\nstarted = true";
    let neither = "enabled = false\nstarted = false";
    let cases: &[Case] = &[
        (both, loaded("active", "enabled"), &[], &[]),
        (both, loaded("reloading", "enabled"), &[], &[]),
        (neither, loaded("inactive", "disabled"), &[], &[]),
        (neither, loaded("failed", "static"), &[], &[]),
        (neither, loaded("inactive", "indirect"), &[], &[]),
        (
            both,
            loaded("inactive", "disabled"),
            &[("enabled", "disabled", "enabled"), ("active", "inactive", "active")],
            &["enable", "start start"],
        ),
        (
            neither,
            loaded("active", "enabled"),
            &[("enabled", "enabled", "disabled"), ("active", "active", "inactive")],
            &["disable", "stop"],
        ),
        (
            "enabled = true",
            loaded("active", "enabled-runtime"),
            &[("enabled", "enabled-runtime", "enabled")],
            &["enable"],
        ),
        ("started = true", loaded("failed", "static"), &[("active", "failed", "active")], &["start start"]),
        ("started = true", looping, &[("active", "activating (auto-restart)", "active")], &["start start"]),
        (
            "started = false",
            loaded("activating", "static"),
            &[("active", "activating", "inactive")],
            &["stop"],
        ),
        (both, stale, &[("configuration", "changed on disk", "loaded")], &["daemon-reload"]),
        ("masked = true", masked(), &[], &[]),
        ("masked = false", loaded("active", "enabled"), &[], &[]),
        ("masked = true\nenabled = false\nstarted = false", masked(), &[], &[]),
        ("masked = true", loaded("inactive", "disabled"), &[("masked", "no", "yes")], &["mask"]),
        ("masked = true", missing(), &[("masked", "no", "yes")], &["mask"]),
        (
            "masked = true",
            Seen { enabled: "masked-runtime".into(), ..masked() },
            &[("masked", "until reboot", "yes")],
            &["mask"],
        ),
        (
            "masked = false\nenabled = true\nstarted = true",
            masked(),
            &[("masked", "yes", "no"), ("enabled", "masked", "enabled"), ("active", "inactive", "active")],
            &["unmask", "enable", "start start"],
        ),
        // Oneshots: done, running, forgotten, failed, never run.
        ("started = true", oneshot("inactive", Some(true)), &[], &[]),
        ("started = true", oneshot("activating", Some(true)), &[], &[]),
        ("started = true", failed, &[("active", "failed", "run once")], &["start start"]),
        (
            "started = true",
            oneshot("inactive", None),
            &[("active", "inactive", "run once")],
            &["start start"],
        ),
    ];
    for (fields, seen, differences, expected) in cases {
        match diff(fields, seen.clone(), None, "", false) {
            Verdict::Converged => assert!(differences.is_empty(), "{fields} on {seen:?}"),
            Verdict::Differs(change) => {
                let wanted: Vec<Difference> =
                    differences.iter().map(|(a, b, c)| Difference::value(*a, Some(b), Some(c))).collect();
                assert_eq!(change.differences, wanted, "{fields}");
                assert_eq!(commands(&change), *expected, "{fields}");
                let waits = expected.iter().any(|command| command.starts_with("st"));
                assert_eq!(change.long, waits, "{fields}");
            }
            other => panic!("{fields} on {seen:?}: {other:?}"),
        }
    }
}

#[test]
fn what_a_oneshot_did_is_known_by_its_trace() {
    let forgotten = || oneshot("inactive", None);
    assert_eq!(diff("started = true", forgotten(), None, "done", false), Verdict::Converged);
    assert_eq!(diff("started = true", forgotten(), None, "unmet", true), Verdict::Converged);
    assert!(matches!(diff("started = true", forgotten(), None, "unmet", false), Verdict::Differs(_)));
    assert!(matches!(
        diff("started = true", loaded("inactive", "static"), None, "done", false),
        Verdict::Differs(_)
    ));
}

#[test]
fn what_must_not_be_is_refused_with_what_to_do() {
    let masked = || Seen { load: "masked".into(), ..loaded("inactive", "masked") };
    let own = Seen { path: "/etc/systemd/system/x.service".into(), ..loaded("active", "enabled") };
    let alias = Seen { id: "y.service".into(), ..loaded("active", "enabled") };
    for (fields, seen, why) in [
        ("enabled = true", loaded("active", "static"), "is static"),
        ("enabled = true", loaded("active", "indirect"), "through others"),
        ("enabled = true", loaded("active", "generated"), "/etc/fstab"),
        ("enabled = false", loaded("active", "generated"), "masked = true"),
        ("enabled = true", masked(), "masked = false"),
        ("started = true", masked(), "masked = false"),
        ("masked = true", own, "file of its own"),
        ("started = true", alias, "name y.service instead"),
    ] {
        match diff(fields, seen, None, "", false) {
            Verdict::Refused(reason) => assert!(reason.contains(why), "{fields}: {reason}"),
            other => panic!("{fields}: {other:?}"),
        }
    }
}

#[test]
fn a_unit_that_is_not_there() {
    for (fields, expected) in [
        ("enabled = true", "unknown"),
        ("started = false", "unknown"),
        ("started = true\nmissing_ok = true", "converged"),
        ("content = '[Service]'\ndrop_in = 'a.conf'", "differs"),
        ("content = '[Service]'\ndrop_in = 'a.conf'\nstarted = true", "unknown"),
        ("content = '[Service]'\nstarted = true", "differs"),
    ] {
        let kind = match diff(fields, missing(), None, "", false) {
            Verdict::Unknown(why) => {
                assert!(why.contains("there is no unit x.service"), "{why}");
                "unknown"
            }
            Verdict::Converged => "converged",
            Verdict::Differs(_) => "differs",
            Verdict::Refused(_) => "refused",
        };
        assert_eq!(kind, expected, "{fields}");
    }
}

#[test]
fn a_files_change_reloads_and_does_not_restart() {
    let whole = format!("content = \"\"\"{CONTENT}\"\"\"\nenabled = true\nstarted = true");
    let cases = [
        (loaded("active", "enabled"), Some(CONTENT), vec![]),
        (loaded("active", "enabled"), Some("[Service]\n"), vec!["daemon-reload", "reenable"]),
        // The old file had no [Install] section.
        (loaded("active", "static"), Some("[Service]\n"), vec!["daemon-reload", "reenable"]),
        (missing(), None, vec!["daemon-reload", "reenable", "start start"]),
    ];
    for (seen, file, expected) in cases {
        match diff(&whole, seen.clone(), file, "", false) {
            Verdict::Converged => assert!(expected.is_empty()),
            Verdict::Differs(change) => {
                assert_eq!(commands(&change), expected);
                assert!(matches!(&change.differences[0],
                    Difference::Text { path, .. } if path == "/etc/systemd/system/x.service"));
                assert!(
                    change.shell.find("mv -fT") < change.shell.find("\nreload\n"),
                    "written before the reload"
                );
            }
            other => panic!("{seen:?}: {other:?}"),
        }
    }
    // What was a oneshot and has done its work is a service now: it has to be started.
    let done = oneshot("inactive", Some(true));
    let Verdict::Differs(change) = diff(&whole, done, Some("[Service]\n"), "", false) else {
        panic!("differs")
    };
    assert_eq!(commands(&change), ["daemon-reload", "reenable", "start start"]);
    assert_eq!(
        change.differences.last(),
        Some(&Difference::value("active", Some("inactive"), Some("active")))
    );
    let once = "content = \"[Service]\\nType=oneshot\\n\"\nstarted = true";
    let Verdict::Differs(change) = diff(once, missing(), None, "done", false) else { panic!("differs") };
    assert_eq!(
        change.differences.last(),
        Some(&Difference::value("active", Some("inactive"), Some("run once")))
    );

    let drop_in = "content = '[Service]'\ndrop_in = '10-x.conf'";
    let Verdict::Differs(change) = diff(drop_in, loaded("active", "enabled"), None, "", false) else {
        panic!("differs")
    };
    assert!(change.shell.contains("mkdir -p -- /etc/systemd/system/x.service.d "));
    assert!(change.shell.contains("path=/etc/systemd/system/x.service.d/10-x.conf "));
}

#[test]
fn a_container_that_cannot_run_it_is_noted() {
    let resource = build("unit", "name = 'x.service'\nenabled = true\nstarted = true");
    let unmet = || Seen { condition: Some(false), ..loaded("inactive", "enabled") };
    let inside = answers(&*resource, unmet(), None, "", true);
    assert_eq!(resource.diff(&inside).expect("answered"), Verdict::Converged);
    let notes = resource.notes(&inside);
    assert!(notes.len() == 1 && notes[0].contains("not met in a container"), "{notes:?}");

    let outside = answers(&*resource, unmet(), None, "", false);
    assert!(matches!(resource.diff(&outside).expect("answered"), Verdict::Differs(_)));
    assert_eq!(resource.notes(&outside), Vec::<String>::new());
}

/// Stand-ins for systemctl and what belongs to it. `$ACTIVE`, `$SUB`, `$TYPE` and `$LOAD` are what `show` says.
const STAND_INS: &str = r#"
LOAD=loaded
systemctl() {
    case $1 in
    show)
        case $* in
        *' -P LoadState '*) echo "$LOAD" ;;
        *' -P ActiveState '*) echo "$ACTIVE" ;;
        *' -P Type '*) echo "$TYPE" ;;
        *' -P InvocationID '*) [ ! -s "$log" ] || echo new ;;
        # One look after another finds it at work, as many times as $AT_WORK has words.
        *' -P Job '*)
            set -- $(cat "$log.looks" 2>/dev/null) x; echo >>"$log.looks" x; [ $# -gt ${AT_WORK:-0} ] || echo 7 ;;
        *) printf '%s\n' "Type=$TYPE" RemainAfterExit=no "ActiveState=$ACTIVE" "SubState=$SUB" ;;
        esac ;;
    --no-block) echo "$2" >>"$log" ;;
    cat) [ -z "$UNMET" ] || echo ConditionACPower=true ;;
    *) echo "$1" >>"$log" ;;
    esac
}
systemd-analyze() { [ -z "$UNMET" ] || printf '%s\n' "x.service: ConditionACPower=true failed." 'Conditions failed.'; }
journalctl() { case "$*" in *_SYSTEMD_INVOCATION_ID=new) printf '%s\n' "$SAID" ;; *) echo 'x[1]: last words' ;; esac; }
sleep() { :; }
"#;

/// Runs the step for `fields` on a unit that is down, and what looks at it later; gives their error, what systemctl was
/// told and the trace.
fn rehearse(fields: &str, state: [&str; 2], container: bool) -> (Result<(), String>, String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let Verdict::Differs(change) = diff(fields, loaded("inactive", "disabled"), None, "", container) else {
        panic!("differs")
    };
    let [now, later] = state;
    let settles = change.settles.as_deref().expect("a service that is started");
    let script = format!("{now}\n{}\n{later}\n{settles}", change.shell)
        .replace("/run/datahub/started", &at("started"));
    let script = format!("log={}\n{STAND_INS}\n{script}", at("log"));
    // dash allows no hyphen in a function's name.
    let result = run(&script.replace("systemd-analyze", "systemd_analyze"));
    let log = std::fs::read_to_string(at("log")).unwrap_or_default();
    let trace = std::fs::read_link(at("started/x.service")).unwrap_or_default();
    (result, log.replace('\n', " "), trace.to_string_lossy().into_owned())
}

#[test]
fn the_shell_starts_and_looks_whether_it_stays_up() {
    let both = "enabled = true\nstarted = true";
    let up = "ACTIVE=active SUB=running TYPE=simple";
    let done = "ACTIVE=inactive SUB=dead TYPE=oneshot";
    let cases = [
        (up, false, Ok(()), "enable start ", ""),
        (done, false, Ok(()), "enable start ", "done"),
        (
            "ACTIVE=failed SUB=failed TYPE=simple",
            false,
            Err("last words\nx.service: failed right after"),
            "enable start ",
            "",
        ),
        (
            "ACTIVE=activating SUB=auto-restart-queued TYPE=simple",
            false,
            Err("failed right after"),
            "enable start ",
            "",
        ),
        (
            "ACTIVE=inactive SUB=dead TYPE=simple",
            false,
            Err("ended right after its start"),
            "enable start ",
            "",
        ),
        (
            "UNMET=1",
            false,
            Err("ConditionACPower=true failed.\nConditions failed.\nx.service: its start"),
            "enable ",
            "",
        ),
        ("UNMET=1", true, Ok(()), "enable ", "unmet"),
    ];
    let cases =
        cases.map(|(state, container, expected, log, trace)| ([state, ""], container, expected, log, trace));
    let later = [
        ([up, "ACTIVE=failed SUB=failed"], false, Err("failed right after"), "enable start ", ""),
        ([up, "ACTIVE=inactive SUB=dead"], false, Err("ended right after"), "enable start ", ""),
    ];
    for (state, container, expected, log, trace) in cases.into_iter().chain(later) {
        let (result, did, left) = rehearse(both, state, container);
        assert_eq!((did.as_str(), left.as_str()), (log, trace), "{state:?}");
        match (expected, result) {
            (Ok(()), result) => assert_eq!(result, Ok(()), "{state:?}"),
            (Err(part), result) => {
                let error = result.expect_err(state[0]);
                assert!(error.contains(part), "{state:?}: {error}");
            }
        }
    }
}

#[test]
fn mistakes_are_found_offline() {
    let whole = "content = '[Service]'";
    for (fields, wanted) in [
        ("name = 'x'\nstarted = true", "must end with its type"),
        ("name = 'x.service'", "at least one"),
        ("name = 'x@.service'\nstarted = true", "as x@1.service"),
        ("name = 'x.service'\ndrop_in = 'a.conf'\nstarted = true", "`drop_in` needs"),
        (&format!("name = 'x.service'\n{whole}\ndrop_in = 'a'"), "ends in .conf"),
        (&format!("name = 'x.service'\n{whole}\ndrop_in = '../a.conf'"), "ends in .conf"),
        (&format!("name = 'x.service'\n{whole}\nenabled = true"), "[Install]"),
        (&format!("name = 'x.service'\n{whole}\nmasked = true"), "puts a link"),
        ("name = 'x.service'\nmasked = true\nstarted = true", "forbids every start"),
        ("name = 'x.service'\ncontent = 'x'", "line 1"),
        ("name = 'x.service'\nstate = 'started'", "unknown field"),
        ("name = 'x.service'\nstarted = true\nrestart = true", "unknown field"),
    ] {
        let error = mistake("unit", fields);
        assert!(error.contains(wanted), "{fields}: {error}");
    }
}

/// A service that is refused tries again: its start is given up as soon as its log says so for the second time, or when
/// it has ended after saying it once. What an earlier start has said does not count.
#[test]
fn a_start_that_will_come_to_nothing_is_not_waited_for() {
    let watched =
        "started = true\nfails_on = { \"it's refused\" = \"say 'please'\", \"no room\" = \"make some\" }";
    let up = "ACTIVE=active SUB=running TYPE=notify";
    let at_work = "ACTIVE=activating SUB=start TYPE=notify AT_WORK=1000";
    let failed = "ACTIVE=failed SUB=failed TYPE=notify AT_WORK=2";
    let refused = "x.service: does not get up\nhint: say 'please'";
    let cases = [
        (format!("{up}; SAID='hello'"), Ok(()), "start "),
        (format!("{up}; AT_WORK=3; SAID=\"it's refused\""), Ok(()), "start "),
        // One that is starting already is started anew: it does not know what has changed since.
        (format!("{at_work}; SAID=\"a: it's refused b\nit's refused\""), Err(refused), "restart "),
        (format!("{failed}; SAID='no room'"), Err("failed right after its start\nhint: make some"), "start "),
        (format!("{failed}; SAID=hello"), Err("hint: more of its log: datahub exec --node NAME"), "start "),
    ];
    for (state, expected, verb) in cases {
        let (result, did, _) = rehearse(watched, [&state, ""], false);
        assert_eq!(did, verb, "{state}");
        match (expected, result) {
            (Ok(()), result) => assert_eq!(result, Ok(()), "{state}"),
            (Err(part), result) => {
                let error = result.expect_err(&state);
                assert!(error.contains(part), "{state}: {error}");
            }
        }
    }
    assert!(
        mistake("unit", "name = 'x.service'\nstarted = true\nfails_on = { '' = 'x' }").contains("fails_on")
    );
}
