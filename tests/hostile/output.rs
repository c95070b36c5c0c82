//! Nodes that print what they should not: without end, before the answers, or for the terminal to obey.

use std::process::Stdio;
use std::time::Duration;

use super::{Ended, FILE, PROVISION, alpha, clean, converges, fails, role, run};
use crate::support::Fixture;

/// A run to its end, and the most memory it used, in MiB.
fn weighed(lab: &Fixture) -> (Ended, u64) {
    let log = std::fs::File::create(lab.dir().join("log")).expect("made");
    let mut command = lab.command(PROVISION);
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("two of it")).stderr(log);
    let mut child = command.spawn().expect("starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let ended = loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or_default() / 1024);
        if let Some(ended) = child.try_wait().expect("waits") {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = std::fs::read_to_string(lab.dir().join("log")).expect("UTF-8");
    clean(&text);
    (Ended { status: ended.code(), text }, peak)
}

#[test]
fn output_without_end_is_an_error_and_fills_no_memory() {
    let Some(lab) = alpha("endless", FILE) else { return };
    lab.sh("alpha", "echo 'yes welcome' >/home/kim/.bashrc");
    let (ended, peak) = weighed(&lab);
    ended.status(1).has(&["alpha", "printed more than 32 MiB", "welcome", "start-up files"]);
    assert!((10..150).contains(&peak), "{peak} MiB");

    // A step that does so, as a short one and as one that outlives its connection.
    lab.sh("alpha", "rm /home/kim/.bashrc");
    for long in ["", "long = true\n"] {
        role(
            &lab,
            &format!(
                "[[resource]]\n[resource.command]\nrun = \"yes endless\"\ncreates = \"/etc/made\"\n{long}"
            ),
        );
        let (ended, peak) = weighed(&lab);
        ended.status(1).has(&["alpha", "command yes endless", "role.toml:3"]);
        assert!(ended.text.matches("endless").count() < 60, "{}", ended.text);
        assert!((10..150).contains(&peak), "{peak} MiB");
        // Neither goes on on the node.
        lab.sh("alpha", "! grep -qs '^yes.endless' /proc/[0-9]*/cmdline");
    }
    role(&lab, FILE);
    converges(&lab);
}

#[test]
fn rubbish_before_the_answers_is_shown_and_nothing_is_done() {
    let Some(lab) = alpha("rubbish", FILE) else { return };
    let untouched = |ended: &Ended| {
        ended.has(&["not in the expected form", "ssh NODE true"]);
        assert_eq!(
            lab.sh("alpha", "ls -d /etc/tested /run/datahub /var/lib/datahub 2>/dev/null || true"),
            ""
        );
    };

    lab.sh("alpha", "echo 'echo Welcome to my world' >/home/kim/.bashrc");
    untouched(&fails(&lab, &["Welcome to my world", "~/.bashrc"]));
    lab.sh("alpha", "rm /home/kim/.bashrc");

    // The server runs something else than what it is told. Restarted, it is back when that ends; reloaded, it is not.
    let force = "printf 'Match User kim\\n ForceCommand echo go away\\n' >/etc/ssh/sshd_config.d/force.conf; systemctl restart ssh";
    lab.sh("alpha", force);
    untouched(&fails(&lab, &["go away"]));
    lab.sh("alpha", "rm /etc/ssh/sshd_config.d/force.conf; systemctl restart ssh");

    // A shell that is none.
    lab.sh("alpha", "usermod -s /usr/sbin/nologin kim");
    untouched(&fails(&lab, &["account is currently not available"]));
    lab.sh("alpha", "usermod -s /bin/bash kim");

    // A tool in the place of another.
    role(&lab, &format!("{FILE}[[resource]]\n[resource.package]\nnames = [\"hello\"]\n"));
    lab.sh("alpha", "printf '#!/bin/sh\\necho I am not dpkg\\n' >/usr/local/bin/dpkg-query; chmod +x /usr/local/bin/dpkg-query");
    fails(&lab, &["dpkg-query", "I am not dpkg", "PATH"]);
    lab.sh("alpha", "rm /usr/local/bin/dpkg-query");
    role(&lab, FILE);
    converges(&lab);
}

/// Everything a terminal may obey, and what turns text round, in shell.
const EVIL: &str = r"\033]0;owned\007\033[31337;42Hmoved\033c\302\23331337mred\302\220q\302\234\342\200\256back\342\201\246\r\010\0177";

/// What is left of output for a terminal without the styles and the picture of datahub itself.
fn without_styles(text: &str) -> String {
    let mut rest = text;
    let mut out = String::new();
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        out.push_str(before);
        let end = after.find(|c: char| !c.is_ascii_digit() && !";?".contains(c)).unwrap_or(after.len());
        let (parameters, tail) = after.split_at(end);
        assert!(!parameters.contains("31337"), "{text:?}");
        assert!(tail.starts_with(['m', 'K', 'J', 'A', 'B', 'G', 'h', 'l']), "{tail:?}");
        rest = &tail[1..];
    }
    out + rest
}

#[test]
fn what_a_terminal_would_obey_is_shown_not_sent() {
    let lists = "[[resource]]\n[resource.package]\nnames = [\"hello\"]\nversion = \"9\"\n\
         [[resource]]\n[resource.link]\npath = \"/etc/linked\"\ntarget = \"/etc/hosts\"\n\
         [[resource]]\n[resource.line]\npath = \"/etc/evil\"\nline = \"good\"\n";
    // What a step prints and writes over, like a progress bar, is left out.
    let said = EVIL.replace("\\r", "");
    let fails_so = format!(
        "[[resource]]\n[resource.command]\nname = \"evil\"\nrun = '''\nprintf 'gone\\r{said}\\n'\nprintf 'on stderr {said}\\n' >&2\nexit 3'''\ncreates = \"/etc/made\"\n"
    );
    let Some(lab) = alpha("escapes", &format!("{lists}{FILE}")) else { return };
    lab.sh("alpha", &format!("printf '{EVIL}\\n' >/etc/tested; cp /etc/tested /etc/evil; ln -s \"$(printf '{EVIL}')\" /etc/linked"));
    lab.sh(
        "alpha",
        &format!("printf '#!/bin/sh\\nprintf \"hello\\\\tii \\\\t1{}\\\\n\"\\n' >/usr/local/bin/dpkg-query; chmod +x /usr/local/bin/dpkg-query", EVIL.replace('\\', "\\\\")),
    );
    let plan = ["plan", "--node", "alpha"];
    for format in ["text", "markdown", "json"] {
        let ended = run(&lab, &[&plan[..], &["--format", format]].concat());
        let shown = if format == "json" { "\\u001b]0;owned" } else { "\\u{1b}]0;owned" };
        ended.status(0);
        assert!(ended.text.matches(shown).count() >= 4, "{format}: {}", ended.text);
    }
    // The same for a terminal, with colours and a moving picture.
    for (args, times) in [(&plan[..], 4), (PROVISION, 1)] {
        if args == PROVISION {
            role(&lab, &fails_so);
        }
        let mut inner = lab.command(args);
        inner.env("TERM", "xterm-256color").env_remove("NO_COLOR");
        let words = std::iter::once(inner.get_program()).chain(inner.get_args());
        let words = datahub::shell::quote_all(words.map(|word| word.to_str().expect("UTF-8")));
        let mut command = std::process::Command::new("script");
        command.args(["-qec", &words, "/dev/null"]).stdin(Stdio::null()).current_dir(lab.dir());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let output = command.output().expect("script runs");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(text.contains("\u{1b}["), "no terminal: {text:?}");
        let plain = without_styles(&text).replace("\r\n", "\n").replace('\r', "\n");
        clean(&plain);
        assert!(plain.matches("\\u{1b}]0;owned").count() >= times, "{plain}");
        assert!(plain.contains("\\u{202e}back") && plain.contains("\\u{9b}31337m"), "{plain}");
    }
    fails(&lab, &["command evil", "ended with status 3", "on stderr", "\\u{1b}c"]).lacks(&["gone"]);
    lab.sh("alpha", "rm /usr/local/bin/dpkg-query /etc/linked");
    role(&lab, &lists.replace("version = \"9\"\n", ""));
    converges(&lab);
}
