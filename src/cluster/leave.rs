//! Taking K3s off a machine, all of it, and looking that nothing stays. Volumes are never touched: what is still
//! mounted beneath a folder that would be deleted stops it, and so does a volume that K3s's own storage class keeps in
//! its data folder.

use std::time::Duration;

use super::{Access, Error, Member, Report};
use crate::kube::Cluster;
use crate::kube::drain::{self, DrainOptions};
use crate::resource::absent::check_removable;
use crate::shell::quote;

/// How long taking off may take: pods are given no more time, but mounts may be busy.
const LIMIT: Duration = Duration::from_secs(300);

/// Drains a node, takes it off the cluster's list together with its password, and K3s off the machine. `gone`: the
/// machine is no more, only the cluster forgets it.
pub async fn remove(access: &Access, member: &Member, gone: bool, report: Report<'_>) -> Result<(), Error> {
    if member.server && access.members.servers().count() == 1 {
        return Err(Error::on(&member.node, "it is the only server: without it there is no cluster")
            .hint("to take the whole cluster down: datahub reset"));
    }
    // Through a server that stays.
    let api = access.api_beside(member).await?;
    let mut lock = None;
    if !gone {
        lock = Some(access.lock(&member.node).await?);
        holds_no_volumes(access, member).await?;
        leaves_a_majority(access, member, &api).await?;
    }
    if api.node(&member.name).await?.is_some() && !gone {
        report(&member.node, "draining");
        let progress = |step: drain::Progress| report(&member.node, &step.to_string());
        let options =
            DrainOptions { delete_emptydir: true, force_unmanaged: true, ..DrainOptions::default() };
        api.take_out(&member.name, &options, &progress).await?;
    }
    let mut was_there = false;
    if !gone {
        // While it still runs: etcd can let a member go only by a majority, which may need this one.
        if member.server {
            was_there = api.delete_node(&member.name).await?;
        }
        clean(access, member, report).await?;
    }
    drop(lock);
    // Last: a kubelet that still runs would register the node again.
    was_there |= api.delete_node(&member.name).await?;
    report(&member.node, if was_there { "forgotten by the cluster" } else { "the cluster did not know it" });
    Ok(())
}

/// Volumes of K3s's own storage class (local-path) on a machine it is not taken off: there is no other copy. `Some`:
/// why, if there are any.
pub async fn volumes(access: &Access, member: &Member) -> Result<Option<Error>, Error> {
    let found = access.sh(&member.node, "look for volumes", &kept(&member.data_dir), LIMIT).await?;
    let paths: Vec<String> = found.lines().map(super::printable).collect();
    if paths.is_empty() {
        return Ok(None);
    }
    let message = format!("volumes of the cluster are kept here: {}; nothing was done", paths.join(", "));
    Ok(Some(Error::on(&member.node, message).hint(
        "delete their PersistentVolumeClaims, or save what is in these folders and then remove them by hand",
    )))
}

/// What lies in the usual place, and what is named as a volume in one that `default-local-storage-path` may name. Either
/// folder may be a link to a larger disk.
fn kept(data_dir: &str) -> String {
    format!(
        "{{ find -H {storage} -mindepth 1 -maxdepth 1; find -H {data} -maxdepth 4 -type d -name 'pvc-*_*_*'; }} 2>/dev/null | sort -u | head -n 4",
        storage = quote(&format!("{data_dir}/storage")),
        data = quote(data_dir)
    )
}

async fn holds_no_volumes(access: &Access, member: &Member) -> Result<(), Error> {
    volumes(access, member).await?.map_or(Ok(()), Err)
}

/// A server that leaves must not take the datastore's majority with it.
async fn leaves_a_majority(access: &Access, member: &Member, api: &Cluster) -> Result<(), Error> {
    let others: Vec<&Member> =
        access.members.servers().filter(|server| member.server && server.node != member.node).collect();
    let mut down = Vec::new();
    for other in &others {
        if !api.node(&other.name).await?.is_some_and(|node| node.ready) {
            down.push(other.node.as_str());
        }
    }
    if others.is_empty() || others.len() - down.len() > others.len() / 2 {
        return Ok(());
    }
    let message =
        "the servers left would be no majority, and the cluster would stand still; nothing was done";
    Err(Error::on(&member.node, message).hint(format!("bring these to Ready first: {}", down.join(", "))))
}

/// Takes K3s off a machine. Done already: nothing happens.
pub async fn take_off(access: &Access, member: &Member, report: Report<'_>) -> Result<(), Error> {
    let _lock = access.lock(&member.node).await?;
    clean(access, member, report).await
}

async fn clean(access: &Access, member: &Member, report: Report<'_>) -> Result<(), Error> {
    check_removable(&member.data_dir).map_err(|why| {
        Error::on(&member.node, format!("K3s's data cannot be deleted: {why}; nothing was done"))
            .hint("is k3s_data_dir what it was when K3s was installed? It must be a folder for K3s alone")
    })?;
    holds_no_volumes(access, member).await?;
    report(&member.node, "removing K3s");
    access.sh(&member.node, "stop K3s", &stop(&member.data_dir), LIMIT).await?;
    access.sh(&member.node, "remove K3s", &delete(&member.data_dir), LIMIT).await?;
    let left = access.sh(&member.node, "look what is left", &left(&member.data_dir), LIMIT).await?;
    if !left.trim().is_empty() {
        let left: Vec<&str> = left.lines().collect();
        return Err(Error::on(&member.node, format!("not everything of K3s is gone: {}", left.join(", ")))
            .hint("see what uses it (datahub exec --node NAME -- 'fuser -vm PATH'); then run again"));
    }
    report(&member.node, "nothing of K3s is left");
    Ok(())
}

const LINKS: &str = "cni0 flannel.1 flannel-v6.1 flannel-wg flannel-wg-v6 kube-ipvs0";

/// Ends K3s and every pod, unmounts what they had, takes away their networks. The data stays.
fn stop(data_dir: &str) -> String {
    format!(
        r#"data={data}
for unit in k3s.service k3s-agent.service; do
  systemctl stop "$unit" 2>/dev/null
  for group in /sys/fs/cgroup/system.slice/"$unit" /sys/fs/cgroup/systemd/system.slice/"$unit"; do
    [ ! -e "$group/cgroup.kill" ] || echo 1 >"$group/cgroup.kill"
  done
done
for group in /sys/fs/cgroup/kubepods.slice /sys/fs/cgroup/kubepods; do
  [ ! -e "$group/cgroup.kill" ] || echo 1 >"$group/cgroup.kill"
done
for p in /proc/[0-9]*; do
  case "$(readlink "$p/exe" 2>/dev/null)" in "$data"/data/*) kill -9 "${{p#/proc/}}" 2>/dev/null ;; esac
done
sleep 0.2
mounts() {{ sed 's/^[^ ]* \([^ ]*\) .*/\1/' /proc/self/mounts | grep -E "^(/run/k3s|/var/lib/kubelet/pods|/var/lib/kubelet/plugins|/run/netns/cni-)" | sort -r; }}
mounts | while IFS= read -r at; do umount -- "$(printf '%b' "$at")" 2>/dev/null; done
for ns in /run/netns/cni-*; do [ ! -e "$ns" ] || ip netns delete "${{ns##*/}}"; done
for link in $(ip -o link show master cni0 2>/dev/null | sed 's/^[0-9]*: \([^:@]*\).*/\1/') {LINKS}; do
  ip link delete "$link" 2>/dev/null
done
for tables in iptables ip6tables; do
  tool=$(command -v "$tables-save" || ls "$data/data/current/bin/aux/$tables-save" 2>/dev/null) || continue
  [ -n "$tool" ] || continue
  rules=$("$tool" 2>/dev/null) || continue
  case "$rules" in
  *KUBE-*|*CNI-*|*[Ff][Ll][Aa][Nn][Nn][Ee][Ll]*)
    printf '%s\n' "$rules" | grep -v -e KUBE- -e CNI- | grep -iv flannel | "${{tool%-save}}-restore" ;;
  esac
done
true"#,
        data = quote(data_dir)
    )
}

/// Deletes what K3s and the roles have put on the machine. Refuses where something is still mounted in it.
fn delete(data_dir: &str) -> String {
    format!(
        r#"data={data}
busy=$(sed 's/^[^ ]* \([^ ]*\) .*/\1/' /proc/self/mounts | grep -E "^($data|/var/lib/kubelet|/run/k3s|/etc/rancher)/")
if [ -n "$busy" ]; then
  echo "still mounted, so nothing was deleted: $(echo "$busy" | head -3 | tr '\n' ' ')" >&2; exit 1
fi
for unit in k3s.service k3s-agent.service datahub-prune-images.timer datahub-prune-images.service; do
  systemctl disable --now "$unit" 2>/dev/null
  rm -f -- "/etc/systemd/system/$unit" "/etc/systemd/system/$unit.env"
done
systemctl daemon-reload
systemctl reset-failed 'k3s*' 2>/dev/null
rm -f -- /etc/default/k3s /etc/default/k3s-agent
for link in kubectl crictl ctr; do
  [ "$(readlink "/usr/local/bin/$link")" != k3s ] || rm -f -- "/usr/local/bin/$link"
done
rm -f -- /usr/local/bin/k3s /usr/local/bin/k3s.previous
rm -rf --one-file-system -- /etc/rancher/k3s /etc/rancher/node "$data" /var/lib/kubelet /run/k3s /run/flannel /var/lib/cni
rm -rf -- /var/lib/datahub/pending/k3s-server /var/lib/datahub/pending/k3s-agent
rmdir /etc/rancher 2>/dev/null
true"#,
        data = quote(data_dir)
    )
}

/// A line for everything of K3s that is still there.
fn left(data_dir: &str) -> String {
    format!(
        r#"for path in {data} /etc/rancher/k3s /etc/rancher/node /var/lib/kubelet /run/k3s /var/lib/cni /usr/local/bin/k3s \
  /etc/systemd/system/k3s.service /etc/systemd/system/k3s-agent.service; do [ ! -e "$path" ] || echo "$path"; done
for p in /proc/[0-9]*; do
  case "$(readlink "$p/exe" 2>/dev/null)" in {data}/*|/usr/local/bin/k3s*) echo "process ${{p#/proc/}}" ;; esac
done
for link in {LINKS}; do [ ! -e "/sys/class/net/$link" ] || echo "network link $link"; done"#,
        data = quote(data_dir)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dash_parses_every_script() {
        for script in [stop("/var/lib/rancher/k3s"), delete("/a b"), left("/a 'b'"), kept("/a 'b'")] {
            let out = std::process::Command::new("sh").args(["-n", "-c", &script]).output().expect("sh runs");
            assert!(out.status.success(), "{script}\n{}", String::from_utf8_lossy(&out.stderr));
        }
    }

    #[test]
    fn volumes_are_found_where_they_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("it's data");
        let look = || {
            let shell = kept(&data.to_string_lossy());
            let out = std::process::Command::new("sh").args(["-c", &shell]).output().expect("sh runs");
            let text = String::from_utf8_lossy(&out.stdout).replace(&*data.to_string_lossy(), "");
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(look(), [""; 0]);
        let make = |path: &str| std::fs::create_dir_all(data.join(path)).expect("made");
        make("storage");
        make("agent/pods/pvc-1");
        assert_eq!(look(), [""; 0]);
        make("storage/anything");
        make("own/volumes/pvc-1_media_films");
        assert_eq!(look(), ["/own/volumes/pvc-1_media_films", "/storage/anything"]);
        let disk = folder.path().join("disk");
        std::fs::rename(data.join("storage"), &disk).expect("moved");
        std::os::unix::fs::symlink(&disk, data.join("storage")).expect("linked");
        assert_eq!(look(), ["/own/volumes/pvc-1_media_films", "/storage/anything"]);
    }
}
