//! The SSH transport against a real sshd on the loopback address, with keys and a port of its own.

#[path = "support/sshd.rs"]
mod sshd;

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use datahub::transport::prompt::{Prompter, Question, Secret};
use datahub::transport::ssh::{Options, Policy, Ssh, Target};
use datahub::transport::{Error, OUTPUT_LIMIT, Script, Transport};
use sshd::{Server, keygen};

#[tokio::test(flavor = "multi_thread")]
async fn scripts_run_and_their_ends_are_told_apart() {
    let Some(server) = Server::start() else { return };
    let node = server.connect().await;
    let output = node.run(&Script::new("echo out; echo err >&2; exit 3")).await.expect("runs");
    assert_eq!((output.status, &output.stdout[..], &output.stderr[..]), (3, &b"out\n"[..], &b"err\n"[..]));
    assert_eq!(node.round_trips(), 1);

    let output = node.run(&Script::new("kill -9 $$")).await.expect("runs");
    assert_eq!(output.status, 137);

    // More than a channel's window, in both directions.
    let big = format!(": {}\nhead -c 12000000 /dev/zero", "x".repeat(5_000_000));
    assert_eq!(node.run(&Script::new(big)).await.expect("runs").stdout.len(), 12_000_000);

    let endless = Script::new(format!("echo first; head -c {} /dev/zero", OUTPUT_LIMIT + 1));
    match node.run(&endless).await {
        Err(Error::TooMuch { first }) => assert!(first.starts_with("first\n")),
        other => panic!("{other:?}"),
    }
    // Steps that were given up use none of the channels sshd allows once they have ended by themselves.
    let slow = Script::new("sleep 1").timeout(Duration::from_millis(100));
    for _ in 0..12 {
        assert!(matches!(node.run(&slow).await, Err(Error::Timeout(_))));
    }

    // A child left behind keeps the channel open, not the step.
    let begun = Instant::now();
    let output = node.run(&Script::new("sleep 30 & echo done")).await.expect("runs");
    assert_eq!(output.stdout, b"done\n");
    assert!(begun.elapsed() < Duration::from_secs(10));

    // More at once than sshd allows channels.
    let node = std::sync::Arc::new(node);
    let runs: Vec<_> = (0..16)
        .map(|_| {
            let node = node.clone();
            tokio::spawn(async move { node.run(&Script::new("sleep 0.1; echo x")).await })
        })
        .collect();
    for run in runs {
        assert_eq!(run.await.expect("no panic").expect("runs").stdout, b"x\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_that_stops_reading_does_not_hang() {
    let Some(server) = Server::start() else { return };
    // Every login gets a shell that ends at once without reading its input.
    let key = std::fs::read_to_string(server.path("user.pub")).expect("a key");
    std::fs::write(server.path("authorized"), format!("command=\"exec <&-; exit 7\" {key}"))
        .expect("written");
    let node = server.connect().await;
    let script = Script::new("x".repeat(9_000_000)).timeout(Duration::from_secs(20));
    assert_eq!(node.run(&script).await.expect("ends").status, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_told_and_opened_again() {
    let Some(server) = Server::start() else { return };
    let node = server.connect().await;
    // The parent of the login shell is this connection's own sshd.
    match node.run(&Script::new("kill -9 $PPID; sleep 5")).await {
        Err(error @ Error::Lost(_)) => assert!(error.retryable()),
        other => panic!("{other:?}"),
    }
    assert!(matches!(node.run(&Script::new("true")).await, Err(Error::Lost(_))));
    node.reconnect().await.expect("connects");
    assert_eq!(node.run(&Script::new("echo back")).await.expect("runs").stdout, b"back\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn host_keys_decide() {
    let Some(server) = Server::start() else { return };
    let connect = async |target: Target| Ssh::connect(&target, &server.options()).await.map(drop);
    let strict = server.target(Policy::Strict);
    assert!(matches!(connect(strict.clone()).await, Err(Error::HostKeyUnknown { .. })));
    connect(server.target(Policy::AcceptNew)).await.expect("accepted");
    connect(strict.clone()).await.expect("known now");

    let shown = std::fs::read_to_string(server.path("host.pub")).expect("a key");
    let other = std::fs::read_to_string(server.path("user.pub")).expect("a key");
    let pinned = |key: &str| Target { host_key: Some(key.into()), ..strict.clone() };
    connect(pinned(&shown)).await.expect("pinned");
    assert!(matches!(connect(pinned(&other)).await, Err(Error::HostKeyChanged { .. })));

    let name = format!("[127.0.0.1]:{}", server.port);
    std::fs::write(server.path("known_hosts"), format!("{name} {other}")).expect("written");
    assert!(matches!(connect(server.target(Policy::AcceptNew)).await, Err(Error::HostKeyChanged { .. })));
    std::fs::write(server.path("known_hosts"), format!("{name} {shown}@revoked * {shown}")).expect("written");
    assert!(matches!(connect(strict.clone()).await, Err(Error::HostKeyRevoked { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_script_lives_as_long_as_its_guard() {
    let Some(server) = Server::start() else { return };
    let node = server.connect().await;
    let gone = server.path("gone");
    let text = format!("echo held; cat >/dev/null; : >{}", gone.display());
    let (line, hold) = node.hold(&Script::new(text)).await.expect("held");
    assert_eq!(line, "held");
    node.run(&Script::new("true")).await.expect("runs beside it");
    assert!(!gone.exists());
    drop(hold);
    let begun = Instant::now();
    while !gone.exists() {
        assert!(begun.elapsed() < Duration::from_secs(5), "the held script goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let refused = node.hold(&Script::new("echo busy >&2; exit 1")).await.map(|_| ()).expect_err("no line");
    assert!(refused.to_string().contains("busy"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_answer_is_not_kept_waiting() {
    let Some(server) = Server::start() else { return };
    let node = server.connect().await;
    let begun = Instant::now();
    let script = Script::new("echo this; sleep 0.2; echo end; sleep 30").until(|out| out.ends_with(b"end\n"));
    let output = node.run(&script).await.expect("runs");
    assert_eq!((output.status, &output.stdout[..]), (0, &b"this\nend\n"[..]));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let broken = Script::new("echo this; exit 4").until(|out| out.ends_with(b"end\n"));
    assert_eq!(node.run(&broken).await.expect("runs").status, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_shell_makes_all_changes() {
    let Some(server) = Server::start() else { return };
    let node = server.connect().await;
    let say = |text: &str| Script::new(text).until(|out| out.ends_with(b"\n"));
    let said = async |script: &Script| {
        let output = node.run(script).await.expect("runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let process = say("echo $$");
    assert_ne!(said(&process).await, said(&process).await, "none is kept before something is changed");
    let (_, hold) = node.hold(&Script::new("echo held; cat >/dev/null")).await.expect("held");
    let mut shell = said(&process).await;
    for script in ["cd /; umask 0; x=left; f() { :; }; exec 9<.; echo on", "exit 3; echo", "cat; echo on"] {
        let ends = say(&format!("({script}); echo"));
        assert!(node.run(&ends).await.is_ok(), "{script}");
        assert_eq!(said(&process).await, shell, "after {script}");
    }
    let left = "echo \"$(umask) $x $(command -v f)\"; ";
    assert_eq!(said(&say(left)).await, "0022", "nothing of one script is there for the next");

    // Whatever ends it, before, in the middle or after: the next script runs, in a new one.
    let once = server.path("once").display().to_string();
    let killed = [
        "(sleep 0.1; kill -9 $$) >/dev/null 2>&1 & echo on".to_owned(),
        format!("[ -e {once} ] || {{ touch {once}; kill -9 $$; }}; echo on"),
    ];
    for script in &killed {
        assert_eq!(said(&say(script)).await, "on", "{script}");
        tokio::time::sleep(Duration::from_millis(400)).await;
        let next = said(&process).await;
        assert_ne!(next, shell, "{script}");
        shell = next;
    }
    // One that does not answer is left to it.
    let slow = say("sleep 4; echo late").timeout(Duration::from_millis(500));
    assert!(matches!(node.run(&slow).await, Err(Error::Timeout(_))));
    assert_ne!(said(&process).await, shell);
    drop(hold);
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_that_cannot_work_say_what_was_tried() {
    let Some(server) = Server::start() else { return };
    let wrong = server.path("wrong");
    keygen(&wrong);
    let target = Target { identity_file: Some(wrong.clone()), ..server.target(Policy::AcceptNew) };
    match Ssh::connect(&target, &server.options()).await.map(drop) {
        Err(Error::Authentication { tried, .. }) => assert!(tried.contains("wrong"), "{tried}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_refuses_is_on_and_one_that_is_silent_is_not() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let options =
        Options { config: None, agent: None, connect_timeout: Duration::from_secs(1), ..Options::default() };
    // What is sent to the second address is thrown away (RFC 6666).
    for (host, port, on) in [("127.0.0.1", closed, true), ("100::1", 22, false)] {
        let target = Target { host: host.into(), port: Some(port), ..Target::default() };
        match Ssh::connect(&target, &options).await.map(drop) {
            Err(Error::Unreachable { may_be_on: seen, .. }) => assert_eq!(seen, on, "{host}"),
            other => panic!("{host}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_logs_in() {
    let Some(server) = Server::start() else { return };
    let socket = server.path("agent");
    let mut agent = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn();
    while !socket.exists() && agent.is_ok() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let added = Command::new("ssh-add")
        .arg("-q")
        .arg(server.path("user"))
        .env("SSH_AUTH_SOCK", &socket)
        .status()
        .expect("ssh-add runs");
    assert!(added.success());
    let target = Target { identity_file: Some(server.path("none")), ..server.target(Policy::AcceptNew) };
    let connected =
        Ssh::connect(&target, &Options { agent: Some(socket), ..server.options() }).await.map(drop);
    if let Ok(agent) = &mut agent {
        let _ = agent.kill();
        let _ = agent.wait();
    }
    connected.expect("connects");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_jumps_lead_to_the_node() {
    let (Some(first), Some(second)) = (Server::start(), Server::start()) else { return };
    let ssh_config = first.path("ssh_config");
    let hop = |name: &str, server: &Server| {
        format!(
            "Host {name}\n HostName 127.0.0.1\n Port {}\n User root\n IdentityFile {}\n",
            server.port,
            server.path("user").display()
        )
    };
    std::fs::write(&ssh_config, hop("one", &first) + &hop("two", &second)).expect("written");
    let target = Target { proxy_jump: Some("one,two".into()), ..first.target(Policy::AcceptNew) };
    let options = Options { config: Some(ssh_config), ..first.options() };
    let node = Ssh::connect(&target, &options).await.expect("connects");
    let output = node.run(&Script::new("echo through")).await.expect("runs");
    assert_eq!(output.stdout, b"through\n");
}

/// Takes longer to answer than an idle connection is kept.
struct Slow(&'static str);

impl Prompter for Slow {
    fn ask(&self, question: &Question) -> Option<Secret> {
        assert!(question.text.starts_with("Passphrase for "), "{question:?}");
        std::thread::sleep(Duration::from_secs(25));
        Some(Secret::new(self.0.into()))
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half a minute"]
async fn a_slow_typist_still_gets_in() {
    let Some(server) = Server::start() else { return };
    let encrypted = Command::new("ssh-keygen")
        .args(["-q", "-p", "-P", "", "-N", "open sesame", "-f"])
        .arg(server.path("user"))
        .status()
        .expect("ssh-keygen runs");
    assert!(encrypted.success());
    let options = Options { prompter: std::sync::Arc::new(Slow("open sesame")), ..server.options() };
    Ssh::connect(&server.target(Policy::AcceptNew), &options).await.expect("connects");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half a minute"]
async fn a_long_silent_step_is_not_cut_off() {
    let Some(server) = Server::start() else { return };
    let node = server.connect().await;
    let output = node.run(&Script::new("sleep 30; echo awake")).await.expect("runs");
    assert_eq!(output.stdout, b"awake\n");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes 15 s"]
async fn a_dead_peer_is_noticed() {
    let Some(server) = Server::start() else { return };
    let node = server.connect().await;
    let begun = Instant::now();
    // A stopped sshd is a machine without power, as far as this side can tell.
    let lost = node.run(&Script::new("kill -STOP $PPID; sleep 60")).await;
    assert!(matches!(lost, Err(Error::Lost(_))), "{lost:?}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}
