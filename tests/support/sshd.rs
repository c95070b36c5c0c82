//! A real sshd on the loopback address, with keys and a port of its own. Shared by the tests and the benchmark.
#![allow(clippy::print_stderr, dead_code)]

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use datahub::transport::ssh::{Options, Policy, Ssh, Target};

/// A running sshd and the files it was given.
pub struct Server {
    child: Child,
    pub port: u16,
    dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn keygen(path: &Path) {
    let done = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
        .arg(path)
        .status()
        .expect("ssh-keygen runs");
    assert!(done.success());
}

impl Server {
    /// `None`, with the reason printed, where no sshd can be started.
    pub fn start() -> Option<Self> {
        Self::start_by("exec", "")
    }

    /// With further lines for its configuration.
    pub fn start_with(more: &str) -> Option<Self> {
        Self::start_by("exec", more)
    }

    /// A node whose traces (locks, notes) this machine never sees.
    pub fn start_apart() -> Option<Self> {
        Self::start_by(
            "mkdir -p /run/datahub /var/lib/datahub && mount -t tmpfs tmpfs /run/datahub &&
             mount -t tmpfs tmpfs /var/lib/datahub && exec",
            "",
        )
    }

    /// `exec` is shell, in a mount namespace of its own, that ends with the start of the command after it.
    fn start_by(exec: &str, more: &str) -> Option<Self> {
        let sshd = Path::new("/usr/sbin/sshd");
        if !sshd.exists() || !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs /usr/sbin/sshd and root");
            return None;
        }
        std::fs::create_dir_all("/run/sshd").expect("sshd's own folder");
        let dir = tempfile::tempdir().expect("a folder");
        keygen(&dir.path().join("host"));
        keygen(&dir.path().join("user"));
        std::fs::copy(dir.path().join("user.pub"), dir.path().join("authorized")).expect("copied");
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\n\
             StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n\
             MaxStartups 100\nSubsystem sftp internal-sftp\n{more}\n",
            at("host"),
            at("authorized")
        );
        std::fs::write(dir.path().join("config"), config).expect("written");
        let command = format!("{exec} {} -D -e -f {}", sshd.display(), at("config"));
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-c", &command])
            .stderr(Stdio::null())
            .spawn()
            .expect("sshd starts");
        let server = Self { child, port, dir };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(10), "sshd does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(server)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn target(&self, policy: Policy) -> Target {
        Target {
            host: "127.0.0.1".into(),
            user: Some("root".into()),
            port: Some(self.port),
            identity_file: Some(self.path("user")),
            policy,
            ..Target::default()
        }
    }

    pub fn options(&self) -> Options {
        Options {
            known_hosts: vec![self.path("known_hosts")],
            config: None,
            agent: None,
            ..Options::default()
        }
    }

    pub async fn connect(&self) -> Ssh {
        Ssh::connect(&self.target(Policy::AcceptNew), &self.options()).await.expect("connects")
    }
}
