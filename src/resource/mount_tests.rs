//! `mount`: cases as data, and the whole of it for real on a loop device in a mount namespace of its own.

use std::collections::HashMap;
use std::path::Path;

use super::*;
use crate::probe::sh::Probe;
use crate::probe::{Answer, Facts, Source, Stat};
use crate::resource::testing::{build, mistake, run, stat};

const FIELDS: &str = "path = '/srv/data'\ndevice = '/dev/disk/by-id/ata-X_1'\npass = 2";
const LINE: &str = "/dev/disk/by-id/ata-X_1 /srv/data ext4 defaults,nofail 0 2\n";

/// What is seen of a disk that holds ext4, is in the table, and is mounted; each case changes a part of it.
struct Node {
    table: &'static str,
    mounted: Option<(&'static str, &'static str, &'static str)>,
    point: Option<Stat>,
    source: Option<Source>,
    device: Option<HashMap<String, String>>,
}

fn keys(pairs: &[(&str, &str)]) -> Option<HashMap<String, String>> {
    Some(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
}

fn node() -> Node {
    Node {
        table: LINE,
        mounted: Some(("/dev/sdb", "ext4", "rw,relatime")),
        point: Some(Stat { identity: (0x810, 2), ..stat(FileType::Directory, 0o755) }),
        source: Some(Source { name: "/dev/sdb".into(), number: 0x810 }),
        device: keys(&[("TYPE", "ext4"), ("LABEL", "bulk")]),
    }
}

fn unmounted() -> Node {
    Node { mounted: None, table: "", ..node() }
}

impl Node {
    fn answers(self, resource: &dyn Resource) -> Answers {
        let mut seen = Answers::new(Facts::default());
        for question in resource.questions() {
            let answer = match &question {
                Question::Stat(path) if path == fstab::PATH => {
                    Answer::Stat(Some(stat(FileType::File, 0o644)))
                }
                Question::Stat(path) if path == "/srv/data" => Answer::Stat(self.point.clone()),
                // The source of a bind mount: the root of the disk's file system.
                Question::Stat(_) => Answer::Stat(
                    self.source
                        .as_ref()
                        .map(|s| Stat { identity: (s.number, 2), ..stat(FileType::Directory, 0o755) }),
                ),
                Question::Content { .. } => Answer::Content(Content::Differs(self.table.into())),
                Question::Mount(_) => Answer::Mount(self.mounted.map(|(device, fstype, options)| Seen {
                    device: device.into(),
                    fstype: fstype.into(),
                    options: options.into(),
                })),
                Question::Source(_) => Answer::Source(self.source.clone()),
                Question::Device(_) => Answer::Device(self.device.clone()),
                other => panic!("not about a mount: {other:?}"),
            };
            seen.insert(question, answer);
        }
        seen
    }
}

/// The attributes that differ, `/etc/fstab` among them.
fn attributes(change: &Change) -> Vec<&str> {
    change
        .differences
        .iter()
        .map(|difference| match difference {
            Difference::Value { attribute, .. } => attribute.as_str(),
            Difference::Text { path, .. } => path.as_str(),
            Difference::Secret { attribute } => attribute.as_str(),
        })
        .collect()
}

#[test]
fn diffs_as_data() {
    let format = "format = true";
    let formatted = ["file system on /dev/disk/by-id/ata-X_1", "mounted", "/etc/fstab"];
    let blank = || Node { device: keys(&[]), ..unmounted() };
    let changed = "/dev/disk/by-id/ata-X_1 /srv/data ext4 noatime,discard 0 2\n";
    let link = Some(stat(FileType::Link, 0o777));
    // fields, what is seen; the attributes that differ, or a part of the reason
    type Case<'a> = (&'a str, Node, Result<&'a [&'a str], &'a str>);
    let cases: Vec<Case> = vec![
        ("", node(), Ok(&[])),
        (format, node(), Ok(&[])),
        ("state = 'present'", Node { mounted: None, source: None, ..node() }, Ok(&[])),
        ("state = 'unmounted'", unmounted(), Ok(&[])),
        ("state = 'absent'", unmounted(), Ok(&[])),
        ("", Node { mounted: Some(("/dev/loop0", "ext4", "rw")), ..node() }, Ok(&[])),
        ("", Node { mounted: Some(("systemd-1", "autofs", "rw")), ..node() }, Ok(&[])),
        ("", Node { table: "", ..node() }, Ok(&["/etc/fstab"])),
        ("", unmounted(), Ok(&["mounted", "/etc/fstab"])),
        ("", Node { point: None, ..unmounted() }, Ok(&["mounted", "/etc/fstab"])),
        ("", Node { mounted: None, ..node() }, Ok(&["mounted"])),
        ("", Node { source: None, ..unmounted() }, Err("is not there (yet)")),
        ("", Node { point: link, ..unmounted() }, Err("/srv/data is a link")),
        (
            "",
            Node { mounted: Some(("/dev/sdz", "ext4", "rw")), source: None, ..node() },
            Err("/dev/sdz is mounted on"),
        ),
        ("", Node { mounted: Some(("/dev/sdb", "ext4", "rw,nosuid")), ..node() }, Ok(&["live options"])),
        (
            "",
            Node { mounted: Some(("/dev/sdb", "ext4", "ro")), ..node() },
            Err("the kernel does that after errors"),
        ),
        ("options = 'ro'", node(), Ok(&["/etc/fstab", "live options"])),
        ("", Node { table: changed, ..node() }, Ok(&["/etc/fstab", "live options"])),
        (format, blank(), Ok(&formatted)),
        ("", blank(), Err("set format = true")),
        (format, Node { device: None, ..unmounted() }, Err("cannot be read")),
        (format, Node { device: keys(&[("PTTYPE", "gpt")]), ..unmounted() }, Err("a partition table (gpt)")),
        (format, Node { device: keys(&[("TYPE", "xfs")]), ..unmounted() }, Err("holds xfs, not ext4")),
        (format, Node { device: keys(&[("AMBIVALENT", "")]), ..unmounted() }, Err("several things")),
        (
            format,
            Node { device: keys(&[("TYPE", "linux_raid_member")]), ..unmounted() },
            Err("linux_raid_member"),
        ),
        ("state = 'unmounted'", node(), Ok(&["mounted"])),
        ("state = 'absent'", node(), Ok(&["mounted", "/etc/fstab"])),
        ("state = 'absent'", Node { table: "a /srv/data x\nb /srv/data/ x\n", ..node() }, Err("has 2 lines")),
    ];
    for (fields, node, wanted) in cases {
        let resource = build("mount", &format!("{FIELDS}\n{fields}"));
        let label = format!("{fields} on {:?} {:?} {:?}", node.table, node.mounted, node.device);
        match (resource.diff(&node.answers(&*resource)).unwrap(), wanted) {
            (Verdict::Converged, Ok(wanted)) => assert!(wanted.is_empty(), "{label}"),
            (Verdict::Differs(change), Ok(wanted)) => assert_eq!(attributes(&change), wanted, "{label}"),
            (Verdict::Refused(why) | Verdict::Unknown(why), Err(part)) => {
                assert!(why.contains(part), "{label}: {why}")
            }
            (verdict, _) => panic!("{label}: {verdict:?}"),
        }
    }
}

#[test]
fn other_kinds_of_mounts_as_data() {
    let bind = "path = '/srv/data'\ndevice = '/srv'\nfstype = 'none'\noptions = 'bind'";
    let nfs =
        "path = '/srv/data'\ndevice = 'nas.home.arpa:/bulk'\nfstype = 'nfs'\noptions = 'vers=4,_netdev'";
    let tmpfs = "path = '/srv/data'\ndevice = 'tmpfs'\nfstype = 'tmpfs'\noptions = 'size=64m'";
    let at = |device, fstype| Node { mounted: Some((device, fstype, "rw,relatime")), table: "", ..node() };
    let elsewhere = Some(Stat { identity: (0x810, 77), ..stat(FileType::Directory, 0o755) });
    let cases = [
        (bind, at("/dev/sdb", "ext4"), true),
        (bind, Node { point: elsewhere, ..at("/dev/sdb", "ext4") }, false),
        (nfs, at("nas.home.arpa:/bulk/", "nfs4"), true),
        (nfs, at("other.home.arpa:/bulk", "nfs4"), false),
        (tmpfs, at("tmpfs", "tmpfs"), true),
        (tmpfs, at("/dev/sdb", "ext4"), false),
    ];
    for (fields, node, ours) in cases {
        let resource: Mount = toml::from_str(fields).unwrap();
        resource.check().unwrap();
        let verdict = resource.mounted(&node.answers(&resource)).unwrap();
        assert_eq!(verdict == Verdict::Converged, ours, "{fields}: {verdict:?}");
        assert_eq!(matches!(verdict, Verdict::Refused(_)), !ours, "{fields}: {verdict:?}");
    }
    let questions = build("mount", nfs).questions();
    assert!(!questions.contains(&Question::Stat("/srv/data".into())), "a dead server hangs who looks");
}

#[test]
fn edits_as_data() {
    let others = "# static\nUUID=1\t/  ext4 errors=remount-ro 0 1\n";
    let with = |line: &str| format!("{others}{line}# end\n");
    let same = "/dev/disk/by-id/ata-X_1  /srv/data/\text4 defaults,nofail 0 2 # x\n";
    let comment = "#/dev/sdb /srv/data xfs\n";
    let cases = [
        ("", with(LINE), with(LINE)),
        ("", with(same), with(same)),
        ("", with("/dev/sdb /srv/data xfs defaults 0 0\n"), with(LINE)),
        ("", with(comment), format!("{}{LINE}", with(comment))),
        ("", "x".into(), format!("x\n{LINE}")),
        ("", String::new(), LINE.into()),
        ("state = 'absent'", with(LINE), with("")),
        ("state = 'absent'", with(""), with("")),
    ];
    for (fields, before, after) in cases {
        let mount: Mount = toml::from_str(&format!("{FIELDS}\n{fields}")).unwrap();
        assert_eq!(mount.edit(&before).unwrap(), after, "{fields} on {before:?}");
        assert_eq!(mount.edit(&after).unwrap(), after, "{fields} twice on {before:?}");
    }
}

/// Stand-ins for the programs that look at and write to the device.
fn rehearse_format(blkid: &str) -> (Result<(), String>, bool) {
    let place = tempfile::tempdir().unwrap();
    let log = place.path().join("log");
    let mount: Mount = toml::from_str(&format!("{FIELDS}\nformat = true")).unwrap();
    let script = format!(
        "blkid() {{ {blkid}; }}\nhead() {{ :; }}\nmkfs_ext4() {{ echo \"$@\" >>{}; }}\n{}",
        log.display(),
        // dash allows no dot in a function's name, and nothing here is a block device.
        mount.format_shell().replace("mkfs.$fstype", "mkfs_$fstype").replace("[ -b ", "[ -n ")
    );
    (run(&script), log.exists())
}

#[test]
fn the_shell_formats_only_what_is_still_blank() {
    for (blkid, ok, formatted) in [
        ("return 2", true, true),
        ("echo TYPE=ext4; return 0", true, false),
        ("echo TYPE=xfs; return 0", false, false),
        ("echo PTTYPE=gpt; return 0", false, false),
        ("echo PART_ENTRY_TYPE=ext4; return 0", false, false),
        ("echo 'I/O error' >&2; return 2", false, false),
        ("return 8", false, false),
        ("return 127", false, false),
    ] {
        let (result, made) = rehearse_format(blkid);
        assert_eq!((result.is_ok(), made), (ok, formatted), "{blkid}: {result:?}");
    }
}

#[test]
fn mistakes_are_found_offline() {
    let cases = [
        ("path = '/x'", "`device` is needed"),
        ("path = 'x'\ndevice = 'tmpfs'", "must be absolute"),
        ("path = '/x'\ndevice = ''", "cannot stand in /etc/fstab"),
        ("path = '/x'\ndevice = '-L x'", "cannot stand in /etc/fstab"),
        ("path = '/x'\ndevice = '/srv'", "add the option bind"),
        ("path = '/x'\ndevice = '/dev/sdb'\noptions = 'ro, nofail'", "joined by commas"),
        ("path = '/x'\ndevice = '/dev/sdb'\noptions = ''", "joined by commas"),
        ("path = '/x'\ndevice = '/dev/sdb'\noptions = 'noauto'", "contradicts"),
        ("path = '/x'\ndevice = '//nas/x'\nfstype = 'cifs'\noptions = 'password=x'", "credentials=FILE"),
        ("path = '/x'\ndevice = '/dev/sdb'\nfstype = 'ext 4'", "not the name of a file system"),
        ("path = '/x'\ndevice = 'UUID=1'\nformat = true", "a device by its path"),
        ("path = '/x'\ndevice = '/dev/sdb'\nstate = 'present'\nformat = true", "`format` needs"),
        ("path = '/x'\ndevice = '/dev/sdb'\nfstype = 'vfat'\nformat = true", "btrfs, ext4 and xfs"),
        ("path = '/usr'\nstate = 'absent'", "never unmounted"),
        ("path = '/x'\ndevice = '/dev/sdb'\nstate = 'gone'", "state"),
    ];
    for (fields, wanted) in cases {
        let error = mistake("mount", fields);
        assert!(error.contains(wanted), "{fields}: {error}");
    }
}

/// Asks the machine, in the same exec after `step`.
fn ask(resource: &dyn Resource, step: &str) -> Result<Verdict, String> {
    let probe = Probe::new(resource.questions()).after(step);
    let out = std::process::Command::new("sh").arg("-c").arg(probe.script()).output().unwrap();
    match Probe::step(&out.stdout).unwrap() {
        (0, _) => {
            let mut seen = Answers::new(Facts::default());
            seen.extend(probe.read(&out.stdout).unwrap().1);
            Ok(resource.diff(&seen).unwrap())
        }
        (_, text) => Err(text),
    }
}

/// Brings the resource about, twice, and proves it; what differed.
fn converge(fields: &str) -> Result<usize, String> {
    let resource = build("mount", fields);
    let change = match ask(&*resource, ":")? {
        Verdict::Differs(change) => change,
        Verdict::Converged => return Ok(0),
        Verdict::Refused(why) | Verdict::Unknown(why) => return Err(why),
    };
    assert_eq!(ask(&*resource, &change.shell)?, Verdict::Converged, "{fields}");
    assert_eq!(ask(&*resource, &change.shell), Ok(Verdict::Converged), "twice: {fields}");
    Ok(change.differences.len())
}

const NAMESPACE: &str = "DATAHUB_TEST_MOUNT_NAMESPACE";

/// Runs itself again in a mount namespace of its own, whose /etc is empty but for a few files. Needs root, loop
/// devices and the right to a namespace; without them there is nothing to be tried.
#[test]
fn for_real_in_a_namespace() {
    if std::env::var_os(NAMESPACE).is_some() {
        return for_real();
    }
    let may =
        || std::process::Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|s| s.success());
    if !rustix::process::geteuid().is_root() || !Path::new("/dev/loop-control").exists() || !may() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let prepare = "set -e\ncd -- \"$1\"\ntruncate -s 16M image\nmkdir run etc\n\
         cp /etc/passwd /etc/group /etc/mke2fs.conf etc/ 2>/dev/null || :\n\
         echo '# others stay' >etc/fstab\nmount --bind etc /etc\nmount -t tmpfs tmpfs /run\n\
         disk=$(losetup --find --show image)\ntrap 'umount -q point || :; losetup -d \"$disk\"' EXIT\n\
         ln -s \"$disk\" disk\nmkdir point\n\"$2\" --exact resource::mount::tests::for_real_in_a_namespace";
    let out = std::process::Command::new("unshare")
        .args(["-m", "sh", "-c", prepare, "sh"])
        .arg(place.path())
        .arg(std::env::current_exe().unwrap())
        .env(NAMESPACE, place.path())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{}\n{}", text(&out.stdout), text(&out.stderr));
}

fn for_real() {
    let place = std::env::var(NAMESPACE).unwrap();
    let at = |name: &str| format!("{place}/{name}");
    let read = || std::fs::read_to_string(fstab::PATH).unwrap();
    // The link stands for one of /dev/disk/by-id, which must begin with /dev/.
    let disk = std::fs::read_link(at("disk")).unwrap().to_str().unwrap().to_owned();
    let ext4 = |path: &str, more: &str| format!("path = '{}'\ndevice = '{disk}'\n{more}", at(path));

    assert!(converge(&ext4("point", "")).unwrap_err().contains("set format = true"));
    assert_eq!(converge(&ext4("point", "format = true\noptions = 'noatime,nofail'")), Ok(3));
    std::fs::write(at("point/kept"), "kept").unwrap();
    assert_eq!(converge(&ext4("point", "format = true\noptions = 'noatime,nofail'")), Ok(0));

    // Options: set, taken back, and one that only ext4 knows.
    assert_eq!(converge(&ext4("point", "options = 'nosuid,nofail,commit=30'")), Ok(2));
    let live = || std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(live().contains("nosuid,relatime,commit=30"), "{}", live());
    assert_eq!(converge(&ext4("point", "options = 'defaults,nofail'")), Ok(2));
    assert_eq!(read(), format!("# others stay\n{disk} {}/point ext4 defaults,nofail 0 0\n", place));

    // The disk holds something else than wanted, and is left alone.
    let error = converge(&ext4("other", "fstype = 'xfs'\nformat = true")).unwrap_err();
    assert!(error.contains("holds ext4 (UUID") && error.contains("not xfs"), "{error}");

    let bind = format!(
        "path = '{}'\ndevice = '{}'\nfstype = 'none'\noptions = 'bind,ro'",
        at("a bind"),
        at("point")
    );
    assert_eq!(converge(&bind), Ok(2));
    assert_eq!(std::fs::read_to_string(at("a bind/kept")).unwrap(), "kept");
    assert!(std::fs::write(at("a bind/new"), "").is_err(), "it is read-only");
    assert_eq!(converge(&bind.replace("bind,ro", "bind,rw")), Ok(2));
    std::fs::write(at("a bind/new"), "").unwrap();
    assert_eq!(converge(&format!("path = '{}'\nstate = 'absent'", at("a bind"))), Ok(2));
    assert_eq!(read().lines().count(), 2);

    // In use: nothing is forced.
    let held = std::fs::File::open(at("point/kept")).unwrap();
    let absent = format!("path = '{}'\nstate = 'absent'", at("point"));
    let error = converge(&absent).unwrap_err();
    assert!(error.contains("busy") && error.contains("fuser -vm"), "{error}");
    assert_eq!(read().lines().count(), 2, "the table is as it was");
    drop(held);
    assert_eq!(converge(&absent), Ok(2));
    assert_eq!(read(), "# others stay\n");

    // A mount that fails leaves the table as it was, and files are not hidden.
    let error = converge(&ext4("point", "options = 'no-such-option'")).unwrap_err();
    assert!(error.contains("mount"), "{error}");
    std::fs::write(at("point/hidden"), "").unwrap();
    assert!(converge(&ext4("point", "")).unwrap_err().contains("would hide"));
    std::fs::remove_file(at("point/hidden")).unwrap();
    assert_eq!(read(), "# others stay\n");

    let out = std::process::Command::new("blkid")
        .args(["-p", "-s", "UUID", "-o", "value", &disk])
        .output()
        .unwrap();
    let uuid = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    let by_uuid = format!("path = '{}'\ndevice = 'UUID={uuid}'", at("point"));
    assert_eq!(converge(&by_uuid), Ok(2));
    assert_eq!(std::fs::read_to_string(at("point/kept")).unwrap(), "kept", "what was written is still there");
    assert_eq!(converge(&format!("path = '{}'\nstate = 'unmounted'", at("point"))), Ok(1));
    assert_eq!(converge(&by_uuid), Ok(1));
    assert!(converge(&by_uuid.replace("UUID=", "UUID=0")).unwrap_err().contains("is mounted on"));
    assert_eq!(converge(&absent), Ok(2));

    let tmpfs =
        format!("path = '{}'\ndevice = 'tmpfs'\nfstype = 'tmpfs'\noptions = 'size=1m'", at("deep/tmp"));
    assert_eq!(converge(&tmpfs), Ok(2));
    assert_eq!(converge(&format!("path = '{}'\nstate = 'absent'", at("deep/tmp"))), Ok(2));
}
