//! What a node says of the machine it runs on.

use std::net::{IpAddr, UdpSocket};
use std::path::Path;

use serde_json::{Value, json};

use super::Failure;

/// As Kubernetes names it: `amd64`, `arm64`, `arm`.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The host name, in lower case.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_lowercase()
}

/// The address from which this machine reaches others. Nothing is sent.
pub fn address() -> Result<IpAddr, Failure> {
    // Any address outside of the machine's networks: connecting a datagram socket only looks the route up.
    const ELSEWHERE: &str = "203.0.113.1:9";
    UdpSocket::bind("0.0.0.0:0")
        .and_then(|socket| socket.connect(ELSEWHERE).map(|()| socket))
        .and_then(|socket| socket.local_addr())
        .map(|local| local.ip())
        .map_err(|_| {
            Failure::said("no default routes found in \"/proc/net/route\" or \"/proc/net/ipv6_route\"")
        })
}

/// Major and minor number of `v1.36.3+k3s1`.
pub fn minor(version: &str) -> (u32, u32) {
    let mut numbers = version.trim_start_matches('v').split('.').map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// `status.capacity` of a node. `data` is on the file system whose size counts.
pub fn capacity(data: &Path) -> Value {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let disk = rustix::fs::statvfs(data).map_or(0, |stat| stat.f_blocks * stat.f_frsize / 1024);
    json!({
        "cpu": processors.to_string(), "memory": format!("{}Ki", memory()),
        "ephemeral-storage": format!("{disk}Ki"), "pods": "110", "hugepages-2Mi": "0",
    })
}

/// Main memory in KiB.
fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// `status.nodeInfo` of a node.
pub fn info(version: &str, runtime: &str) -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let release = read("/etc/os-release");
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
    json!({
        "architecture": architecture(), "operatingSystem": "linux",
        "osImage": name.trim_matches('"'),
        "kernelVersion": rustix::system::uname().release().to_string_lossy(),
        "machineID": read("/etc/machine-id"), "bootID": read("/proc/sys/kernel/random/boot_id"), "systemUUID": "",
        "containerRuntimeVersion": runtime, "kubeletVersion": version, "kubeProxyVersion": "",
    })
}

#[cfg(test)]
mod tests {
    use super::minor;

    #[test]
    fn versions_compare() {
        assert_eq!(minor("v1.36.3+k3s1"), (1, 36));
        assert!(minor("v1.37.0+k3s1") > minor("v1.36.9+k3s2"));
        assert_eq!(minor("nonsense"), (0, 0));
    }
}
