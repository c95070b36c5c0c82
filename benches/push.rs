//! Pushing a binary of 70 MB to six machines at once, against six `scp` at once: the same files, the same sshd
//! processes on this machine, in turn, several rounds. Ratios count; the times depend on the machine.
//!
//!     cargo bench --bench push
//!
//! Our side also has the node check the checksum, which scp does not; it connects beforehand, which a run has
//! always done by then, while scp logs in anew. Both are also shown with a login each.
#![allow(clippy::print_stdout)]

#[path = "../tests/support/sshd.rs"]
mod sshd;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use datahub::artifact::push::push;
use datahub::artifact::store::Cached;
use datahub::artifact::{Artifact, Report};
use datahub::checksum::Hasher;
use datahub::transport::ssh::Ssh;
use sshd::Server;

const NODES: usize = 6;
const BYTES: usize = 70_000_000;
const ROUNDS: usize = 5;
/// A push runs a shell; scp, whose other end is part of this sshd, does not. What root's own `~/.bashrc` does on this
/// computer is nothing that a node would do.
const NO_START_UP_FILES: &str = "SetEnv HOME=/nonexistent";

fn main() {
    let servers: Vec<Server> = (0..NODES).map_while(|_| Server::start_with(NO_START_UP_FILES)).collect();
    if servers.len() < NODES {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("binary");
    write_noise(&file);
    let cached = Cached { path: file.clone(), size: BYTES as u64 };
    let mut hasher = Hasher::default();
    hasher.add_all(std::fs::File::open(&file).expect("opened")).expect("read");
    let artifact = Artifact {
        file: "binary".into(),
        version: "v1.0.0".into(),
        sha256: hasher.finish(),
        size: Some(cached.size),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let (mut scps, mut ours, mut logged_in) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let scp = scp(&servers, &file, dir.path());
        let (login, push) = runtime.block_on(pushes(&servers, &artifact, &cached, dir.path()));
        println!("round {round}: scp {scp:.2?}, push {push:.2?} (and {login:.2?} for six logins)");
        scps.push(scp);
        ours.push(push);
        logged_in.push(push + login);
    }
    let (scp, ours, logged_in) = (median(scps), median(ours), median(logged_in));
    let ratio = |ours: Duration| scp.as_secs_f64() / ours.as_secs_f64();
    println!("median of {ROUNDS}, {NODES} machines, {} MB each, checksum included:", BYTES / 1_000_000);
    println!("  scp / push              {:.2}", ratio(ours));
    println!("  scp / (login and push)  {:.2}", ratio(logged_in));
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Nothing that compression or a hole in a file could shorten.
fn write_noise(path: &Path) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = std::io::BufWriter::new(std::fs::File::create(path).expect("created"));
    for _ in 0..BYTES / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.write_all(&state.to_le_bytes()).expect("written");
    }
}

fn destination(dir: &Path, node: usize, who: &str) -> String {
    let folder = dir.join(format!("node-{node}"));
    std::fs::create_dir_all(&folder).expect("a folder");
    folder.join(who).to_string_lossy().into_owned()
}

fn scp(servers: &[Server], file: &Path, dir: &Path) -> Duration {
    let begun = Instant::now();
    let running: Vec<_> = servers
        .iter()
        .enumerate()
        .map(|(node, server)| {
            Command::new("scp")
                .args(["-q", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
                .args(["-o", "LogLevel=ERROR", "-P", &server.port.to_string(), "-i"])
                .arg(server.path("user"))
                .arg(file)
                .arg(format!("root@127.0.0.1:{}", destination(dir, node, "scp")))
                .stdin(Stdio::null())
                .spawn()
                .expect("scp starts")
        })
        .collect();
    for mut scp in running {
        assert!(scp.wait().expect("scp ends").success());
    }
    let took = begun.elapsed();
    (0..servers.len()).for_each(|node| std::fs::remove_file(destination(dir, node, "scp")).expect("removed"));
    took
}

async fn pushes(
    servers: &[Server],
    artifact: &Artifact,
    cached: &Cached,
    dir: &Path,
) -> (Duration, Duration) {
    let begun = Instant::now();
    let mut logins = tokio::task::JoinSet::new();
    for (node, server) in servers.iter().enumerate() {
        let (target, options) = (server.target(datahub::transport::ssh::Policy::AcceptNew), server.options());
        logins.spawn(async move { (node, Ssh::connect(&target, &options).await.expect("connects")) });
    }
    let nodes = logins.join_all().await;
    let login = begun.elapsed();

    let begun = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for (node, ssh) in nodes {
        let (artifact, cached, path) = (artifact.clone(), cached.clone(), destination(dir, node, "push"));
        let report: Report = Arc::new(|_| {});
        running.spawn(async move { push(&ssh, &artifact, &cached, &path, &report).await.expect("arrives") });
    }
    running.join_all().await;
    let took = begun.elapsed();
    for node in 0..servers.len() {
        std::fs::remove_dir_all(dir.join(format!("node-{node}"))).expect("removed");
    }
    (login, took)
}
