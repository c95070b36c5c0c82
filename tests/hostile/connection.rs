//! Connections that break in the middle of a step, and nodes that fall silent.

use std::time::Duration;

use super::{CUT, FILE, Running, alpha, converges, in_network, settled, wait};

/// A file whose write stops half-way, as long as /root/hold is there.
const SLOW_FILE: &str = "[[resource]]\n[resource.file]\npath = \"/etc/tested\"\ncontent = \"tested\\n\"\nvalidate = \"sh /root/slow {}\"\n";

/// A command that goes on until somebody makes /root/go.
const WAITS: &str = "[[resource]]\n[resource.command]\nname = \"waits\"\ncreates = \"/etc/done\"\n\
     run = '''\ntouch /run/inside\nwhile [ ! -e /root/go ]; do sleep 0.1; done\ntouch /etc/done'''\n";

/// Ends the shells that steps run in, and what they run, without a word.
const KILL_STEPS: &str = "for p in /proc/[0-9]*; do case \"$(tr '\\0' ' ' <$p/cmdline 2>/dev/null)\" in \
     'sh -s '*|'sh /root/slow '*) kill -9 ${p#/proc/};; esac; done; true";

#[test]
fn a_connection_that_breaks_in_a_step_leaves_nothing_half_written() {
    let Some(lab) = alpha("cut", SLOW_FILE) else { return };
    lab.sh("alpha", "echo 'touch /run/inside; while [ -e /root/hold ]; do sleep 0.1; done' >/root/slow");
    for break_it in [CUT.to_owned(), format!("{CUT}; {KILL_STEPS}")] {
        lab.sh("alpha", "rm -f /run/inside /etc/tested; touch /root/hold");
        let mut running = Running::start(&lab);
        wait(&lab, "[ -e /run/inside ]");
        // Half-way: the new content is beside the file, which is not there yet.
        lab.sh(
            "alpha",
            "[ \"$(ls -A /etc | grep -c '^[.]tested.datahub[.]')\" = 1 ] && [ ! -e /etc/tested ]",
        );
        lab.sh("alpha", &break_it);
        let noticed = running.until(&["\"event\":\"retrying\""]);
        assert!(noticed < Duration::from_secs(5), "{noticed:?}");
        lab.sh("alpha", "rm /root/hold");
        running.end().status(0).has(&["\"event\":\"changed\"", "\"changed\":1"]);
        assert_eq!(lab.sh("alpha", "cat /etc/tested; stat -c '%a %U' /etc/tested"), "tested\n644 root");
        settled(&lab);
    }
}

#[test]
fn a_long_step_survives_the_connection_and_is_picked_up() {
    let Some(lab) = alpha("long", "[[resource]]\n[resource.package]\nnames = [\"hello\"]\n") else { return };
    // Longer than a lock is waited for when a connection is opened anew.
    lab.sh(
        "alpha",
        "echo 'DPkg::Pre-Invoke { \"touch /run/inside; sleep 70\"; };' >/etc/apt/apt.conf.d/99slow",
    );
    let mut running = Running::start(&lab);
    wait(&lab, "[ -e /run/inside ]");
    lab.sh("alpha", CUT);
    running.until(&["\"event\":\"retrying\""]);
    // A second break, while it waits.
    std::thread::sleep(Duration::from_secs(4));
    lab.sh("alpha", CUT);
    running.until(&["\"event\":\"retrying\""]);
    running.end().status(0).has(&["\"event\":\"changed\"", "package hello"]);
    let times =
        "grep -c '^Install: hello' /var/log/apt/history.log; grep -c ' install hello:' /var/log/dpkg.log";
    assert_eq!(lab.sh("alpha", times), "1\n1", "it was done more than once");
    lab.sh("alpha", "rm /etc/apt/apt.conf.d/99slow");
    settled(&lab);
}

#[test]
fn a_session_that_stops_is_noticed_and_the_step_taken_up_over_a_new_one() {
    let Some(lab) = alpha("stopped", WAITS) else { return };
    let mut running = Running::start(&lab);
    wait(&lab, "[ -e /run/inside ]");
    lab.sh("alpha", &CUT.replace("kill -9", "kill -STOP"));
    let noticed = running.until(&["\"event\":\"retrying\""]);
    assert!(noticed < Duration::from_secs(20), "{noticed:?}");
    lab.sh("alpha", "touch /root/go");
    running.end().status(0).has(&["command waits", "\"event\":\"changed\""]);
    lab.sh("alpha", CUT);
    settled(&lab);
}

#[test]
fn a_node_that_falls_silent_is_noticed_and_its_lock_goes_with_the_run() {
    let Some(lab) = alpha("silent", &format!("{FILE}{WAITS}")) else { return };
    let mut running = Running::start(&lab);
    wait(&lab, "[ -e /run/inside ]");
    in_network(
        &lab,
        &[
            "nft",
            "add table inet fault; add chain inet fault i { type filter hook input priority 0; policy drop; }; \
         add chain inet fault o { type filter hook output priority 0; policy drop; }",
        ],
    );
    let noticed = running.until(&["\"event\":\"retrying\"", "alpha"]);
    assert!(noticed < Duration::from_secs(20), "{noticed:?}");
    let ended = running.end();
    ended.status(1).has(&[
        "\"event\":\"node-failed\"",
        "command waits",
        "cannot reach",
        "no answer within 4 s",
    ]);
    in_network(&lab, &["nft", "delete table inet fault"]);

    // Nobody has told the node that the run is gone. It finds out, and says in the meantime who holds it.
    lab.sh("alpha", "touch /root/go");
    let begun = std::time::Instant::now();
    loop {
        let ended = super::run(&lab, super::PROVISION);
        if ended.status == Some(0) {
            break;
        }
        ended.has(&["alpha", "another run is changing this node", "within a minute"]);
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", ended.text);
        std::thread::sleep(Duration::from_secs(2));
    }
    converges(&lab);
}

#[test]
fn a_server_that_accepts_and_says_nothing_is_given_up() {
    let Some(lab) = alpha("mute", FILE) else { return };
    let server = "systemctl show -p MainPID --value ssh";
    // What this very command runs in goes on: only the server that accepts is stopped.
    let pid = lab.sh("alpha", &format!("pid=$({server}); (sleep 1; kill -STOP $pid; sleep 12; kill -CONT $pid) >/dev/null 2>&1 & echo $pid"));
    assert!(pid.parse::<u32>().is_ok(), "{pid}");
    std::thread::sleep(Duration::from_secs(2));
    let begun = std::time::Instant::now();
    super::fails(&lab, &["cannot reach", "no answer within 4 s", "is the machine on"]);
    assert!(begun.elapsed() < Duration::from_secs(20));
    wait(&lab, "true");
    converges(&lab);
}
