//! Saving what the cluster knows, and putting it back: the datastore and the tokens, without which it cannot be read.
//!
//! A backup is one archive, made by the first server while K3s runs: `backup` (lines `key=value`: cluster, version,
//! kind, time), `token`, `agent-token`, and `state.db` (SQLite) or `snapshot` (embedded etcd). It holds every Secret of
//! the cluster: files are 0600, here and on the server, which keeps its newest ones too.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Access, Error, Member, Report};
use crate::artifact::release::parse_version;
use crate::checksum::sha256_hex;
use crate::kube::node::Ready;
use crate::shell::quote;
use crate::transport::{Feed, Feeding, Input, Script};

/// Where a server keeps its backups.
const FOLDER: &str = "/var/lib/datahub/backups";
/// So many of them.
const KEPT: u32 = 5;
/// A large database on a slow disk takes minutes.
const LIMIT: Duration = Duration::from_secs(1800);
/// How much is fetched at a time, in MiB: below what a transport takes for one answer.
const PIECE: u64 = 16;
/// How long a restored cluster may take to be whole again.
const READY: Duration = Duration::from_secs(600);

/// A backup that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    pub sha256: String,
}

/// Makes a backup and brings it into a folder of this machine.
pub async fn save(
    access: &Access,
    cluster: &str,
    stamp: &str,
    folder: &Path,
    report: Report<'_>,
) -> Result<Backup, Error> {
    let server = access.members.first()?;
    let name = format!("{cluster}-{stamp}.tar.gz");
    let version = access.api().await?.server_version().await?;
    report(&server.node, "saving the datastore");
    let made = access
        .sh(&server.node, "back up the cluster", &make(server, cluster, &version, &name), LIMIT)
        .await?;
    let (sha256, size) = made
        .trim()
        .split_once(' ')
        .and_then(|(sum, size)| Some((sum.to_owned(), size.parse::<u64>().ok()?)))
        .ok_or_else(|| Error::on(&server.node, format!("the backup's checksum makes no sense: {made:?}")))?;
    report(&server.node, &format!("fetching {}", crate::artifact::size(size)));
    let bytes = fetch(access, server, &name, size).await?;
    if sha256_hex(&bytes) != sha256 {
        return Err(Error::on(&server.node, "the backup arrived broken").hint("run again"));
    }
    let path = folder.join(&name);
    write(&path, &bytes).map_err(|error| Error::new(format!("cannot write {}: {error}", path.display())))?;
    Ok(Backup { path, size, sha256 })
}

/// In pieces: a database may be larger than what one answer can hold.
async fn fetch(access: &Access, server: &Member, name: &str, size: u64) -> Result<Vec<u8>, Error> {
    let transport = access.transport(&server.node).await?;
    let path = quote(&format!("{FOLDER}/{name}"));
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < size {
        let skip = bytes.len() as u64 / (1024 * 1024);
        let script = format!("dd if={path} bs=1M skip={skip} count={PIECE} 2>/dev/null");
        let script = Script::new(script).timeout(LIMIT);
        let output = transport.run(&script).await.map_err(|error| Error::transport(&server.node, &error))?;
        if output.stdout.is_empty() {
            return Err(
                Error::on(&server.node, "the backup went away while it was fetched").hint("run again")
            );
        }
        bytes.extend(output.stdout);
    }
    Ok(bytes)
}

/// Whole or not at all, and for the owner only. A folder that is made for it is one that Git leaves out.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        std::fs::write(folder.join(".gitignore"), "*\n")?;
    }
    let part = path.with_extension("part");
    let mut file =
        std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&part, path)
}

fn make(server: &Member, cluster: &str, version: &str, name: &str) -> String {
    format!(
        r#"umask 077
data={data}; folder={FOLDER}; name={name}
mkdir -p -m 0700 -- "$folder" || exit 1
work=$(mktemp -d "$folder/.new.XXXXXX") || exit 1
trap 'rm -rf -- "$work"' EXIT
if [ -d "$data/server/db/etcd" ]; then
  kind=etcd
  k3s etcd-snapshot save --data-dir "$data" --name datahub >&2 || exit 1
  newest=$(ls -t -- "$data"/server/db/snapshots/datahub-* 2>/dev/null | head -1)
  [ -n "$newest" ] || {{ echo 'K3s made no snapshot' >&2; exit 1; }}
  mv -- "$newest" "$work/snapshot" || exit 1
else
  kind=sqlite
  db="$data/server/db/state.db"
  [ -s "$db" ] || {{ echo "$db does not exist: is K3s there, and with which datastore?" >&2; exit 1; }}
  command -v sqlite3 >/dev/null || {{ echo 'sqlite3 is not installed; provision this node' >&2; exit 1; }}
  sqlite3 -cmd '.timeout 30000' "$db" ".backup '$work/state.db'" >&2 || exit 1
  [ "$(sqlite3 "$work/state.db" 'PRAGMA integrity_check;')" = ok ] || {{ echo "$db is damaged: its integrity check fails" >&2; exit 1; }}
fi
for token in token agent-token; do cp -- "/etc/rancher/k3s/$token" "$work/$token" || exit 1; done
printf 'cluster=%s\nversion=%s\nkind=%s\nserver=%s\n' {cluster} {version} "$kind" {node} >"$work/backup"
tar -C "$work" -czf "$folder/.$name.part" . && sync -- "$folder/.$name.part" && mv -- "$folder/.$name.part" "$folder/$name" || exit 1
ls -t -- "$folder"/*.tar.gz | tail -n +{next} | while IFS= read -r old; do rm -f -- "$old"; done
printf '%s %s\n' "$(sha256sum <"$folder/$name" | cut -c1-64)" "$(stat -c %s "$folder/$name")""#,
        data = quote(&server.data_dir),
        name = quote(name),
        cluster = quote(cluster),
        version = quote(version),
        node = quote(&server.name),
        next = KEPT + 1,
    )
}

/// What a backup says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    pub cluster: String,
    /// Of the K3s that wrote the datastore.
    pub version: String,
    /// Of the K3s that is to read it.
    pub installed: String,
}

impl About {
    /// Whether the datastore is of a later minor release than the K3s that is to read it. It is not made for that.
    pub fn is_too_new(&self) -> bool {
        match (parse_version(&self.version), parse_version(&self.installed)) {
            (Some(made), Some(installed)) => (made.major, made.minor) > (installed.major, installed.minor),
            _ => false,
        }
    }
}

struct Archive {
    bytes: Vec<u8>,
}

impl Input for Archive {
    fn open<'a>(&'a self, _: &'a str) -> Feeding<'a> {
        let bytes = self.bytes.clone();
        Box::pin(async move { Ok(Box::new(std::io::Cursor::new(bytes)) as Feed) })
    }
}

/// Brings a backup to the server and reads what it says of itself. Nothing is changed yet.
pub async fn bring(access: &Access, file: &Path) -> Result<About, Error> {
    let server = access.members.first()?;
    let bytes = std::fs::read(file)
        .map_err(|error| Error::new(format!("cannot read {}: {error}", file.display())))?;
    let transport = access.transport(&server.node).await?;
    let script = format!(
        "umask 077\nmkdir -p -m 0700 -- {FOLDER} && rm -rf -- {FOLDER}/.restore && mkdir -- {FOLDER}/.restore || exit 1\n\
         echo ready\n\
         head -c {size} >{FOLDER}/.restore/archive || exit 1\n\
         [ \"$(sha256sum <{FOLDER}/.restore/archive | cut -c1-64)\" = {sum} ] || {{ echo 'it arrived broken' >&2; exit 1; }}\n\
         cd {FOLDER}/.restore && tar -xzf archive && rm -f archive && [ -s backup ] && [ -s token ] && [ -s agent-token ] && {{ [ -s state.db ] || [ -s snapshot ]; }} || {{ rm -rf {FOLDER}/.restore; echo 'it is no backup made by datahub' >&2; exit 1; }}\n\
         cat backup; echo \"installed=$(k3s --version | sed -n 's/^k3s version \\([^ ]*\\).*/\\1/p')\"",
        size = bytes.len(),
        sum = sha256_hex(&bytes),
    );
    let output = transport.feed(&Script::new(script).timeout(LIMIT), &Archive { bytes }).await;
    let output = output.map_err(|error| Error::transport(&server.node, &error))?;
    if output.status != 0 {
        let said = super::printable(String::from_utf8_lossy(&output.stderr).trim());
        return Err(Error::on(&server.node, format!("cannot take {}: {said}", file.display())));
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let field = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        super::printable(line.unwrap_or_default())
    };
    Ok(About { cluster: field("cluster"), version: field("version"), installed: field("installed") })
}

/// Takes away what [`bring`] has brought: it holds every Secret of a cluster.
pub async fn discard(access: &Access) -> Result<(), Error> {
    let server = access.members.first()?;
    access.sh(&server.node, "take the backup away", &format!("rm -rf -- {FOLDER}/.restore"), LIMIT).await?;
    Ok(())
}

/// Puts what [`bring`] has brought in the place of the cluster's datastore, and waits until the cluster is whole. What
/// was there stays beside it.
pub async fn restore(access: &Access, stamp: &str, report: Report<'_>) -> Result<(), Error> {
    let server = access.members.first()?;
    let others: Vec<&Member> = access.members.servers().skip(1).collect();
    for other in &others {
        access.transport(&other.node).await.map_err(|error| {
            let hint = "nothing was done; a server that is no more is to be taken out of the inventory first";
            error.hint(hint)
        })?;
    }
    let _locks = access.lock_all(access.members.servers()).await?;
    if let Err(error) = replace(access, server, &others, stamp, report).await {
        start_again(access, &others, report).await;
        return Err(error);
    }
    let api = access.api().await?;
    api.wait_readyz(READY, &|missing| report(&server.node, missing)).await?;
    let mut left = Vec::new();
    for member in &access.members.0 {
        let rejoined = async {
            if member.node != server.node {
                rejoin(access, member, stamp, report).await?;
            }
            api.wait_ready(&member.name, &Ready::default(), READY, &|why| report(&member.node, why)).await?;
            report(&member.node, "Ready");
            Ok::<_, Error>(())
        };
        if let Err(error) = rejoined.await {
            report(&member.node, &error.to_string());
            left.push(member);
        }
    }
    match left.first() {
        None => Ok(()),
        Some(first) => Err(Error::new(format!(
            "the datastore is restored, but not Ready with it: {}",
            left.iter().map(|member| member.node.as_str()).collect::<Vec<_>>().join(", ")
        ))
        .hint(format!("do not restore again; when the machine is there: {}", back(first)))),
    }
}

/// How a member that missed the restore comes back.
fn back(member: &Member) -> String {
    let node = &member.node;
    match member.server {
        // What it has of the datastore is of the cluster that is no more.
        true => format!("datahub remove {node}, then datahub provision --node {node}"),
        false => format!("datahub exec --node {node} -- systemctl restart {}", member.unit()),
    }
}

/// Puts the backup in the datastore's place on its server, while the others are stopped: they would give it their newer
/// members.
async fn replace(
    access: &Access,
    server: &Member,
    others: &[&Member],
    stamp: &str,
    report: Report<'_>,
) -> Result<(), Error> {
    for other in others {
        report(&other.node, "stopping K3s");
        access.sh(&other.node, "stop K3s", "systemctl stop k3s.service", LIMIT).await?;
    }
    report(&server.node, "restoring the datastore");
    access.sh(&server.node, "restore the datastore", &put_back(server, stamp), LIMIT).await.map(drop)
}

/// Starts servers with what they had. Together: one alone does not get up without a majority.
async fn start_again(access: &Access, servers: &[&Member], report: Report<'_>) {
    for server in servers {
        report(&server.node, "starting K3s again, with what it had");
        let shell = "systemctl --no-block start k3s.service";
        if let Err(error) = access.sh(&server.node, "start K3s", shell, LIMIT).await {
            report(&server.node, &error.to_string());
        }
    }
}

/// Lets a member start anew with the restored server: only then does a kubelet register its node, and a server take
/// over the datastore.
async fn rejoin(access: &Access, member: &Member, stamp: &str, report: Report<'_>) -> Result<(), Error> {
    // A server's is held already.
    let _lock = access.lock_all(std::iter::once(member).filter(|member| !member.server)).await?;
    report(&member.node, "restarting K3s");
    if member.server {
        access.sh(&member.node, "move its datastore away", &set_aside(member, stamp), LIMIT).await?;
    }
    let restart = format!("systemctl restart {}", member.unit());
    access.sh(&member.node, "restart K3s", &restart, READY).await.map(drop)
}

/// Another server's copy of the datastore, moved away: it joins anew.
fn set_aside(server: &Member, stamp: &str) -> String {
    format!(
        "data={data}\nsystemctl stop k3s.service || exit 1\n\
         [ ! -e \"$data/server/db\" ] || mv -- \"$data/server/db\" \"$data/server/db.before-restore-{stamp}\"",
        data = quote(&server.data_dir)
    )
}

/// If anything fails, what was there is put back, and K3s started with it.
fn put_back(server: &Member, stamp: &str) -> String {
    format!(
        r#"umask 077
data={data}; from={FOLDER}/.restore; old="$data/server/db.before-restore-{stamp}"
# The old datastore cannot be read without its tokens: they stay beside it.
kept="$data/server/tokens.before-restore-{stamp}"
[ -s "$from/backup" ] || {{ echo 'no backup was brought' >&2; exit 1; }}
systemctl stop k3s.service || exit 1
undo() {{
  [ ! -d "$old" ] || {{ rm -rf -- "$data/server/db"; mv -- "$old" "$data/server/db"; }}
  whole=yes
  for token in token agent-token; do
    [ ! -e "$kept/$token" ] || cp -p -- "$kept/$token" "/etc/rancher/k3s/$token" || whole=
  done
  [ -z "$whole" ] || rm -rf -- "$kept"
  systemctl start k3s.service
  echo "$1; what was there before was put back" >&2
  exit 1
}}
mkdir -p -- "$data/server" && mkdir -m 0700 -- "$kept" || undo 'no room'
for token in token agent-token; do
  [ ! -e "/etc/rancher/k3s/$token" ] || cp -p -- "/etc/rancher/k3s/$token" "$kept/$token" || undo 'no room'
done
sync -- "$kept"
[ ! -e "$data/server/db" ] || mv -- "$data/server/db" "$old" || undo 'the old datastore cannot be moved'
for token in token agent-token; do
  cp -- "$from/$token" "/etc/rancher/k3s/$token" || undo 'no room'
done
if [ -e "$from/snapshot" ]; then
  mkdir -p -- "$data/server/db" || undo 'no room'
  k3s server --cluster-reset --cluster-reset-restore-path="$from/snapshot" >"$from/log" 2>&1 || undo "K3s refused the snapshot: $(tail -1 "$from/log")"
else
  mkdir -p -- "$data/server/db" && cp -- "$from/state.db" "$data/server/db/state.db" && sync -- "$data/server/db/state.db" || undo 'no room'
fi
systemctl start k3s.service || undo 'K3s did not start with it'
rm -rf -- "$from""#,
        data = quote(&server.data_dir)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dash_parses_every_script() {
        let server =
            Member { node: "s".into(), name: "s".into(), server: true, data_dir: "/var/lib/a b".into() };
        for script in [
            make(&server, "home", "v1.36.3+k3s1", "home-20260101T000000Z.tar.gz"),
            set_aside(&server, "x"),
            put_back(&server, "x"),
        ] {
            let out = std::process::Command::new("sh").args(["-n", "-c", &script]).output().expect("sh runs");
            assert!(out.status.success(), "{script}\n{}", String::from_utf8_lossy(&out.stderr));
        }
    }

    #[test]
    fn a_datastore_is_not_read_by_an_older_minor_release() {
        for (version, installed, too_new) in [
            ("v1.36.3+k3s1", "v1.35.9+k3s1", true),
            ("v1.36.3+k3s1", "v1.36.1+k3s1", false),
            ("v1.35.3+k3s1", "v1.36.1+k3s1", false),
            ("v1.36.3+k3s1", "", false),
        ] {
            let about = About { version: version.into(), installed: installed.into(), ..About::default() };
            assert_eq!(about.is_too_new(), too_new, "{about:?}");
        }
    }

    #[test]
    fn a_backup_is_for_the_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("new/backup.tar.gz");
        write(&path, b"x").expect("written");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let folder = dir.path().join("new");
        assert_eq!(std::fs::metadata(&folder).expect("there").permissions().mode() & 0o777, 0o700);
        assert_eq!(std::fs::read_to_string(folder.join(".gitignore")).expect("there"), "*\n");
        assert_eq!(std::fs::read_dir(folder).expect("listed").count(), 2);
    }
}
