//! What a cluster needs done now and then: old Helm revisions pruned, the datastore shrunk, unused images removed.

use std::time::Duration;

use super::{Access, Error, Member, Report};
use crate::kube::node::Ready;
use crate::shell::{emit, quote};

/// K3s stops, the database is rewritten, K3s starts.
const LIMIT: Duration = Duration::from_secs(1800);
const READY: Duration = Duration::from_secs(300);

/// Deletes old revisions of Helm's releases, and says how many.
pub async fn prune_helm(access: &Access, keep: usize, report: Report<'_>) -> Result<usize, Error> {
    let server = access.members.first()?;
    let pruned = access.api().await?.prune_helm_history(keep).await?;
    report(&server.node, &format!("{} old Helm revisions deleted", pruned.len()));
    Ok(pruned.len())
}

/// Rewrites the SQLite datastore without its holes; that of several servers is an etcd, which needs no such thing. K3s
/// is stopped meanwhile and always started again, whatever happens: systemd sees to it, not this connection.
pub async fn vacuum(access: &Access, report: Report<'_>) -> Result<(), Error> {
    let server = access.members.first()?;
    if access.members.servers().count() > 1 {
        report(&server.node, ETCD);
        return Ok(());
    }
    let _lock = access.lock(&server.node).await?;
    report(&server.node, "shrinking the datastore; K3s is stopped meanwhile, pods go on");
    let said = access.sh(&server.node, "shrink the datastore", &vacuum_shell(server), LIMIT).await?;
    report(&server.node, said.trim());
    let api = access.api().await?;
    api.wait_readyz(READY, &|missing| report(&server.node, missing)).await?;
    api.wait_ready(&server.name, &Ready::default(), READY, &|why| report(&server.node, why)).await?;
    Ok(())
}

const ETCD: &str = "the datastore is an embedded etcd: it shrinks by itself";

/// Removes images that no container uses, node by node: it is work for the disk.
pub async fn prune_images(access: &Access, report: Report<'_>) -> Result<(), Error> {
    for member in &access.members.0 {
        let _lock = access.lock(&member.node).await?;
        report(&member.node, "removing unused images");
        access.sh(&member.node, "remove unused images", "k3s crictl rmi --prune", LIMIT).await?;
    }
    Ok(())
}

fn vacuum_shell(server: &Member) -> String {
    let inner = format!(
        r#"db={db}
systemctl stop k3s.service || {{ echo 'K3s does not stop' >&2; exit 1; }}
before=$(stat -c %s "$db")
free=$(($(df -P -B1 -- "$db" | sed -n '2p' | tr -s ' ' | cut -d' ' -f4)))
[ "$free" -gt $((before * 3)) ] || {{ echo "the disk has too little room for a copy and a rewrite: $free bytes, $((before * 3)) are needed" >&2; exit 1; }}
umask 077
rm -f -- "$db.before-vacuum"
sqlite3 "$db" ".backup '$db.before-vacuum'" || {{ echo 'no backup could be made' >&2; exit 1; }}
sqlite3 "$db" 'PRAGMA wal_checkpoint(TRUNCATE); VACUUM;' >/dev/null || {{ echo 'VACUUM failed; nothing is lost' >&2; exit 1; }}
if [ "$(sqlite3 "$db" 'PRAGMA integrity_check;')" != ok ]; then
  rm -f -- "$db-wal" "$db-shm"; cp -- "$db.before-vacuum" "$db"
  echo 'the rewritten datastore is damaged; the one before was put back' >&2; exit 1
fi
rm -f -- "$db.before-vacuum"
echo "the datastore went from $((before / 1024)) KiB to $(($(stat -c %s "$db") / 1024)) KiB""#,
        db = quote(&format!("{}/server/db/state.db", server.data_dir))
    );
    format!(
        r#"[ ! -d {etcd} ] || {{ echo '{ETCD}'; exit 0; }}
[ -e {db} ] || {{ echo 'there is no SQLite datastore here' >&2; exit 1; }}
command -v sqlite3 >/dev/null || {{ echo 'sqlite3 is not installed; provision this node' >&2; exit 1; }}
umask 077; mkdir -p -m 0700 /run/datahub
{{
{inner}
}} >/run/datahub/vacuum || exit 1
systemd-run --quiet --collect --wait --pipe --unit=datahub-vacuum -p 'ExecStopPost=systemctl start k3s.service' sh /run/datahub/vacuum"#,
        etcd = quote(&format!("{}/server/db/etcd", server.data_dir)),
        db = quote(&format!("{}/server/db/state.db", server.data_dir)),
        // As a file: systemd would look for variables of its own in an argument.
        inner = emit(inner.as_bytes()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dash_parses_the_script() {
        let server = Member { node: "s".into(), name: "s".into(), server: true, data_dir: "/a b".into() };
        let script = vacuum_shell(&server);
        let out = std::process::Command::new("sh").args(["-n", "-c", &script]).output().expect("sh runs");
        assert!(out.status.success(), "{script}\n{}", String::from_utf8_lossy(&out.stderr));
    }
}
