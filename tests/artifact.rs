//! Artifacts from a release to a node: a real web server that misbehaves, real files, a real sshd.
#![allow(clippy::print_stderr)]

#[path = "support/sshd.rs"]
mod sshd;
#[path = "support/web.rs"]
mod web;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use datahub::artifact::download::Patience;
use datahub::artifact::node::Place;
use datahub::artifact::push::push;
use datahub::artifact::release::Source;
use datahub::artifact::store::{Cached, Store};
use datahub::artifact::{Artifact, Error, Progress, Report};
use datahub::checksum::sha256_hex;
use datahub::transport::local::Local;
use datahub::transport::prompt::NoPrompts;
use datahub::transport::scripted::Scripted;
use datahub::transport::{self, Script, Transport};
use sshd::Server;
use web::{Manner, Web};

const VERSION: &str = "v1.36.3+k3s1";

/// More than a piece, and a window's worth for none.
fn content() -> Vec<u8> {
    (0..3_000_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_le_bytes()).take(3_000_001).collect()
}

fn artifact(content: &[u8]) -> Artifact {
    Artifact {
        file: "k3s".into(),
        version: VERSION.into(),
        sha256: sha256_hex(content),
        size: Some(content.len() as u64),
    }
}

fn quiet() -> Report {
    Arc::new(|_| {})
}

fn hasty() -> Patience {
    Patience {
        answer: Duration::from_secs(10),
        silence: Duration::from_millis(300),
        retries: 3,
        pause: Duration::from_millis(1),
    }
}

fn store(dir: &Path, base: &str) -> Store {
    let source = Source::parse(base, dir).expect("a source");
    Store::with_patience(dir.join("cache"), Some(source), hasty())
}

/// Names in the cache's folder, checksums by their first letters.
fn cached(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join("cache/sha256")).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

const PATH: &str = "/v1.36.3%2Bk3s1/k3s";

#[tokio::test(flavor = "multi_thread")]
async fn downloads_end_with_the_right_file_or_with_the_reason() {
    use Manner::{Cut, Endless, Lie, Stall, Status, Well, Whole, WrongRange};
    let file = content();
    let pinned = artifact(&file);
    let unsized_ = Artifact { size: None, ..pinned.clone() };
    let lie = b"log in first".to_vec();
    // Answers, then the requests (first bytes of ranges), and how it ends.
    type Case = (Vec<Manner>, Vec<&'static str>, Result<(), &'static str>);
    let cases: Vec<Case> = vec![
        (vec![Well], vec![""], Ok(())),
        (vec![Cut(1_000_000), Well], vec!["", " 1000000"], Ok(())),
        (vec![Cut(1_000_000), Cut(500_000), Well], vec!["", " 1000000", " 1500000"], Ok(())),
        (vec![Cut(1_000_000), Whole], vec!["", " 1000000"], Ok(())),
        (vec![Cut(1_000_000), WrongRange, Well], vec!["", " 1000000", " 1000000"], Ok(())),
        (vec![Stall(1_000_000), Well], vec!["", " 1000000"], Ok(())),
        (vec![Status(503), Status(429), Well], vec!["", "", ""], Ok(())),
        (vec![Cut(0), Well], vec!["", ""], Ok(())),
        (vec![Status(503); 4], vec![""; 4], Err("the server answered 503")),
        (vec![Stall(10), Stall(0), Stall(0), Stall(0)], vec!["", " 10", " 10", " 10"], Err("timeout")),
        (vec![Status(403)], vec![""], Err("the server answered 403")),
        (vec![Status(404)], vec![""], Err("there is no http://")),
        (vec![Lie(lie.clone())], vec![""], Err("but ")),
        (vec![Cut(1_000_000), Lie(lie.clone())], vec!["", " 1000000"], Err("has the checksum")),
        (vec![Endless], vec![""], Err("is larger than the 2.9 MiB that are pinned")),
    ];
    for (manners, requests, wanted) in cases {
        let case = format!("{manners:?}");
        let (web, dir) = (Web::start(), tempfile::tempdir().expect("a folder"));
        web.put(PATH, file.clone());
        web.will(manners);
        let fetched = store(dir.path(), &web.base).fetch(&pinned, quiet()).await;
        let wanted_requests: Vec<String> =
            requests.iter().map(|start| format!("GET {PATH}{start}")).collect();
        assert_eq!(web.requests(), wanted_requests, "{case}");
        match (fetched, wanted) {
            (Ok(Cached { path, size }), Ok(())) => {
                assert!(std::fs::read(&path).expect("read") == file && size == 3_000_001, "{case}");
                assert_eq!(cached(dir.path()), [pinned.sha256.as_str()], "{case}");
            }
            (Err(error), Err(wanted)) => {
                assert!(error.to_string().contains(wanted), "{case}: {error}");
                let kept = matches!(error, Error::Unreachable { .. });
                assert!(kept || cached(dir.path()).is_empty(), "{case}: {:?}", cached(dir.path()));
            }
            (other, _) => panic!("{case}: {other:?}"),
        }
    }

    // Without a pinned size a server that says nothing of what is left is believed, and the checksum decides.
    let (web, dir) = (Web::start(), tempfile::tempdir().expect("a folder"));
    web.put(PATH, file.clone());
    let fetched = store(dir.path(), &web.base).fetch(&unsized_, quiet()).await.expect("fetched");
    assert_eq!(fetched.size, 3_000_001);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_goes_on_where_another_run_stopped_and_trusts_nothing() {
    let file = content();
    let pinned = artifact(&file);
    let unsized_ = Artifact { size: None, ..pinned.clone() };
    let part = format!("{}.part", pinned.sha256);
    let other = vec![1; 1000];
    let mut broken = file.clone();
    broken[5] ^= 1;
    // What lies in the cache, who asks, and which ranges are asked for.
    type Case<'a> = (&'a str, &'a [u8], &'a Artifact, Vec<&'static str>);
    let cases: Vec<Case<'_>> = vec![
        (&pinned.sha256, &file, &pinned, vec![]),
        (&pinned.sha256, &broken, &pinned, vec![""]),
        (&pinned.sha256, &file[..1000], &pinned, vec![""]),
        (&part, &file[..1000], &pinned, vec![" 1000"]),
        (&part, &file, &pinned, vec![]),
        (&part, &file, &unsized_, vec![" 3000001"]),
        (&part, &other, &pinned, vec![" 1000", ""]),
        (&part, &broken, &pinned, vec![""]),
    ];
    for (name, bytes, artifact, requests) in cases {
        let (web, dir) = (Web::start(), tempfile::tempdir().expect("a folder"));
        web.put(PATH, file.clone());
        std::fs::create_dir_all(dir.path().join("cache/sha256")).expect("made");
        std::fs::write(dir.path().join("cache/sha256").join(name), bytes).expect("written");
        let fetched = store(dir.path(), &web.base).fetch(artifact, quiet()).await.expect("fetched");
        assert!(std::fs::read(fetched.path).expect("read") == file);
        let case = format!("{} bytes at {name}", bytes.len());
        let wanted: Vec<String> = requests.iter().map(|start| format!("GET {PATH}{start}")).collect();
        assert_eq!(web.requests(), wanted, "{case}");
        assert_eq!(cached(dir.path()), [pinned.sha256.as_str()], "{case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_cause_one_download_for_their_eyes_only() {
    let file = content();
    let pinned = artifact(&file);
    let (web, dir) = (Web::start(), tempfile::tempdir().expect("a folder"));
    web.put(PATH, file);
    // Two processes would have a store each.
    let stores = [store(dir.path(), &web.base), store(dir.path(), &web.base)].map(Arc::new);
    let told = Arc::new(AtomicU64::new(0));
    let mut asking = tokio::task::JoinSet::new();
    for at in 0..8 {
        let (store, pinned, told) = (stores[at % 2].clone(), pinned.clone(), told.clone());
        let report: Report = Arc::new(move |Progress { done, total }| {
            assert_eq!(total, Some(3_000_001));
            told.fetch_max(done, Ordering::Relaxed);
        });
        asking.spawn(async move { store.fetch(&pinned, report).await.map_err(|e| e.to_string()) });
    }
    let answers = asking.join_all().await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(web.requests(), [format!("GET {PATH}")]);
    assert_eq!(told.load(Ordering::Relaxed), 3_000_001);
    let mode = |path: PathBuf| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(dir.path().join("cache/sha256")), 0o700);
    assert_eq!(mode(dir.path().join("cache/sha256").join(&pinned.sha256)), 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_a_source_too() {
    let file = content();
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("releases").join(VERSION);
    std::fs::create_dir_all(&folder).expect("made");
    std::fs::write(folder.join("k3s"), &file).expect("written");
    for source in ["releases".to_owned(), format!("file://{}/releases/{{version}}", dir.path().display())] {
        let fetched = store(dir.path(), &source).fetch(&artifact(&file), quiet()).await.expect("fetched");
        assert!(std::fs::read(fetched.path).expect("read") == file);
        std::fs::remove_dir_all(dir.path().join("cache")).expect("removed");
    }
    let wrong = store(dir.path(), "releases").fetch(&artifact(b"another"), quiet()).await;
    assert!(matches!(wrong, Err(Error::TooLarge { .. })), "{wrong:?}");
    let missing = Artifact { file: "k3s-arm64".into(), ..artifact(&file) };
    let missing = store(dir.path(), "releases").fetch(&missing, quiet()).await;
    assert!(matches!(missing, Err(Error::Missing(_))), "{missing:?}");
}

/// A file on this side and its destination on the node, which is this machine too.
struct Sending {
    dir: tempfile::TempDir,
    artifact: Artifact,
    cached: Cached,
    path: String,
    told: Arc<Mutex<Vec<u64>>>,
}

impl Sending {
    fn new(content: &[u8]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("cached");
        std::fs::write(&file, content).expect("written");
        std::fs::create_dir(dir.path().join("node")).expect("made");
        Self {
            artifact: artifact(content),
            cached: Cached { path: file, size: content.len() as u64 },
            path: dir.path().join("node/k3s").to_string_lossy().into_owned(),
            told: Arc::default(),
            dir,
        }
    }

    fn part(&self) -> PathBuf {
        self.dir.path().join(format!("node/.k3s.{}.part", self.artifact.sha256))
    }

    /// The first number of bytes reported to be done; how many were there before cannot be more.
    async fn push(&self, node: &dyn Transport) -> Result<Option<u64>, Error> {
        let told = self.told.clone();
        told.lock().expect("no panic").clear();
        let report: Report = Arc::new(move |p| told.lock().expect("no panic").push(p.done));
        push(node, &self.artifact, &self.cached, &self.path, &report).await?;
        Ok(self.told.lock().expect("no panic").first().copied())
    }

    async fn install(&self, node: &dyn Transport) -> transport::Output {
        let place = Place { path: &self.path, sha256: &self.artifact.sha256 };
        let notes = format!("{}/notes", self.dir.path().display());
        let shell =
            place.install("0755", "root", "root", true).replace(datahub::probe::checksum::DIR, &notes);
        node.run(&Script::new(shell)).await.expect("runs")
    }
}

async fn arrives_and_is_continued(node: &dyn Transport) {
    let file = content();
    let sending = Sending::new(&file);
    std::fs::write(&sending.path, "old").expect("written");
    sending.push(node).await.expect("arrives");
    assert!(std::fs::read(sending.part()).expect("read") == file);
    // Whole already: nothing is sent.
    assert_eq!(sending.push(node).await.expect("arrives"), None);

    // The beginning is there, as after a lost connection; then one that is not this file's; then too much.
    let mut broken = file[..2_000_000].to_vec();
    broken[7] ^= 1;
    for (there, least) in
        [(&file[..2_000_000], 2_000_001), (&broken[..], 1), (&[&file[..], b"x"].concat()[..], 1)]
    {
        std::fs::write(sending.part(), there).expect("written");
        let first = sending.push(node).await.expect("arrives").expect("something was sent");
        assert!(first >= least && (least > 1 || first < 2_000_000), "{first}");
        assert!(std::fs::read(sending.part()).expect("read") == file);
    }

    let installed = sending.install(node).await;
    assert_eq!(installed.status, 0, "{installed:?}");
    assert!(std::fs::read(&sending.path).expect("read") == file && !sending.part().exists());
    assert_eq!(std::fs::read(format!("{}.previous", sending.path)).expect("read"), b"old");
}

async fn what_cannot_arrive_says_why(node: &dyn Transport) {
    // What was pinned is not what lies in the cache any more: the node finds out.
    let mut sending = Sending::new(b"some bytes");
    sending.artifact.sha256 = sha256_hex(b"same size!");
    match sending.push(node).await {
        Err(Error::ArrivedBroken { actual, .. }) => assert_eq!(actual, sha256_hex(b"some bytes")),
        other => panic!("{other:?}"),
    }
    assert!(!sending.part().exists());

    let mut sending = Sending::new(b"some bytes");
    sending.path = sending.path.replace("/node/", "/none/");
    let error = sending.push(node).await.expect_err("no folder").to_string();
    assert!(error.contains("its folder does not exist"), "{error}");

    // It is shorter here than it was: what arrived is kept.
    let mut sending = Sending::new(b"some bytes");
    sending.cached.size = 11;
    let error = sending.push(node).await.expect_err("too short").to_string();
    assert!(error.contains("broke off after 10 of 11 bytes"), "{error}");
    assert!(sending.part().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn pushed_over_ssh() {
    let Some(server) = Server::start() else { return };
    let node = server.connect().await;
    arrives_and_is_continued(&node).await;
    what_cannot_arrive_says_why(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushed_to_this_machine() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let node = Local::new(Arc::new(NoPrompts), None);
    arrives_and_is_continued(&node).await;
    what_cannot_arrive_says_why(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_loses_nothing_that_has_arrived() {
    let Some(server) = Server::start() else { return };
    // On a busy machine the cut may come when all of it has arrived already.
    for _ in 0..10 {
        if is_continued_after_a_cut(&server).await {
            return;
        }
    }
    panic!("no connection was cut in the middle");
}

/// Cuts the connection in the middle of a file and sends the rest over a new one. `false`: the cut came too late.
async fn is_continued_after_a_cut(server: &Server) -> bool {
    let file: Vec<u8> = content().repeat(8);
    let sending = Sending::new(&file);
    let node = Arc::new(server.connect().await);
    // The node cuts the connection once half of the file is there.
    let watch = format!(
        "part={}; while [ \"$(wc -c <\"$part\" 2>/dev/null || echo 0)\" -lt 12000000 ]; do sleep 0.01; done; kill -9 $PPID",
        datahub::shell::quote(&sending.part().to_string_lossy())
    );
    let cutting = {
        let node = node.clone();
        tokio::spawn(async move { node.run(&Script::new(watch)).await.map(drop) })
    };
    let lost = sending.push(&*node).await;
    let _ = cutting.await;
    let mut first = None;
    if let Err(error) = lost {
        assert!(matches!(&error, Error::Transport(e) if e.retryable()), "{error:?}");
        node.reconnect().await.expect("connects");
        first = sending.push(&*node).await.expect("arrives");
    }
    assert!(std::fs::read(sending.part()).expect("read") == file);
    if let Some(first) = first {
        assert!(first > 12_000_000, "{first}");
    }
    first.is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_left_as_it_was() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let file = content();
    let sending = Sending::new(&file);
    let folder = sending.dir.path().join("node");
    let tmpfs = Tmpfs::mount(&folder, "2m");
    if tmpfs.is_none() {
        eprintln!("skipped: cannot mount a tmpfs here");
        return;
    }
    let node = Local::new(Arc::new(NoPrompts), None);
    let error = sending.push(&node).await.expect_err("no room").to_string();
    assert!(error.contains("needs 3 MiB") && error.contains("only 2 MiB are free"), "{error}");
    assert_eq!(std::fs::read_dir(&folder).expect("read").count(), 0);

    // Room at first, and none any more when it is needed: `df` cannot know.
    let place = Place { path: &sending.path, sha256: &sending.artifact.sha256 };
    let blind = place.take_in(sending.cached.size).replace("df -B1 --output=avail", "echo 99999999; : ");
    let shell = format!("{blind}\n");
    let fed = Blind(file);
    let output = node.feed(&Script::new(shell), &fed).await.expect("runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status != 0 && stderr.contains("No space left on device"), "{output:?}");
    assert!(stderr.contains("cannot be written"), "{stderr}");
    assert_eq!(std::fs::read_dir(&folder).expect("read").count(), 0);
}

/// Sends a whole file whatever the node has.
struct Blind(Vec<u8>);

impl transport::Input for Blind {
    fn open<'a>(&'a self, ready: &'a str) -> transport::Feeding<'a> {
        assert_eq!(ready, "0 -");
        let bytes = [b"0\n", &self.0[..]].concat();
        Box::pin(async move { Ok(Box::new(std::io::Cursor::new(bytes)) as transport::Feed) })
    }
}

struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: &Path, size: &str) -> Option<Self> {
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(at)
            .status();
        done.ok().filter(std::process::ExitStatus::success).map(|_| Self(at.to_owned()))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_node_that_answers_nonsense_is_told() {
    let sending = Sending::new(b"some bytes");
    for (stdout, wanted) in [
        ("0 -\n", "the node answered 0 -"),
        ("Welcome!\n", "the node answered Welcome!"),
        ("", "the node answered"),
    ] {
        let node = Scripted::new().prints("sha256sum", stdout);
        let error = sending.push(&node).await.expect_err("nonsense").to_string();
        assert!(error.contains(wanted), "{stdout:?}: {error}");
    }
    let node = Scripted::new().prints("sha256sum", "0 -\nwhole\n");
    sending.push(&node).await.expect("arrives");
    assert_eq!(node.fed(), [b"0\nsome bytes".to_vec()]);
}

/// Runs a node's own download; what it printed on standard error if it failed.
async fn pull(place: Place<'_>, url: &str, size: Option<u64>) -> Result<(), String> {
    let notes = format!("{}/notes", Path::new(place.path).parent().expect("a folder").display());
    let shell = place.download(url, size) + &place.install("0644", "root", "root", false);
    let script = Script::new(shell.replace(datahub::probe::checksum::DIR, &notes));
    let output = Local::new(Arc::new(NoPrompts), None).run(&script).await.expect("runs");
    if output.status == 0 { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn pulled_by_the_node() {
    if !rustix::process::geteuid().is_root() || Command::new("curl").arg("-V").output().is_err() {
        eprintln!("skipped: needs root and curl");
        return;
    }
    let file = content();
    let pinned = artifact(&file);
    let mut broken = file[..1000].to_vec();
    broken[7] ^= 1;
    let (web, dir) = (Web::start(), tempfile::tempdir().expect("a folder"));
    web.put("/k3s", file.clone());
    let path = dir.path().join("k3s").to_string_lossy().into_owned();
    let part = dir.path().join(format!(".k3s.{}.part", pinned.sha256));
    let place = Place { path: &path, sha256: &pinned.sha256 };
    let url = format!("{}/k3s", web.base);
    // What is there already, how the server answers, and the ranges that are asked for.
    type Case<'a> = (Option<&'a [u8]>, Vec<Manner>, Vec<&'static str>);
    let cases: Vec<Case<'_>> = vec![
        (None, vec![], vec![""]),
        (Some(&file[..1000]), vec![], vec![" 1000"]),
        (Some(&file), vec![], vec![]),
        (Some(&broken), vec![], vec![" 1000", ""]),
        (Some(&file[..1000]), vec![Manner::Whole], vec![" 1000", ""]),
    ];
    for (there, manners, requests) in cases {
        let case = format!("{:?} {manners:?}", there.map(<[u8]>::len));
        let _ = std::fs::remove_file(&path);
        if let Some(bytes) = there {
            std::fs::write(&part, bytes).expect("written");
        }
        web.will(manners);
        assert_eq!(pull(place.clone(), &url, pinned.size).await, Ok(()), "{case}");
        assert!(std::fs::read(&path).expect("read") == file && !part.exists(), "{case}");
        let wanted: Vec<String> = requests.iter().map(|start| format!("GET /k3s{start}")).collect();
        assert_eq!(web.requests(), wanted, "{case}");
    }
    // There already: no request at all.
    assert_eq!(pull(place.clone(), &url, None).await, Ok(()));
    assert_eq!(web.requests(), [""; 0]);

    std::fs::write(&path, "old").expect("written");
    let lie = vec![Manner::Lie(b"log in first".to_vec()); 2];
    for (manners, wanted) in [(lie, "but "), (vec![Manner::Status(404); 2], "cannot be downloaded")] {
        web.will(manners);
        let error = pull(place.clone(), &url, pinned.size).await.expect_err("refused");
        assert!(error.contains(wanted), "{error}");
        assert_eq!(std::fs::read(&path).expect("read"), b"old");
    }
}

#[test]
fn a_node_gets_a_release_and_the_next_one() {
    let Some(server) = Server::start_apart() else { return };
    let web = Web::start();
    let (old, new) = ("v1.35.4+k3s1", VERSION);
    let release = |version: &str, content: &str| {
        let at = |name: &str| format!("/{}/{name}", version.replace('+', "%2B"));
        for (arch, binary) in [("amd64", "k3s"), ("arm64", "k3s-arm64"), ("arm", "k3s-armhf")] {
            web.put(&at(binary), content);
            web.put(&at(&format!("sha256sum-{arch}.txt")), list(&[(binary, content)]));
        }
    };
    release(old, "the old program");
    release(new, "the new program");
    let (arch, os) = this_machine();
    let host_key = std::fs::read_to_string(server.path("host.pub")).expect("a key");
    let project = Project::new(&web.base, "");
    let inventory = |version: &str| {
        format!(
            "[cluster]\nname = \"home\"\n[k3s]\nversion = \"{version}\"\nsource = \"{}\"\n\
             [nodes.a]\nhost = \"127.0.0.1\"\narch = \"{arch}\"\nos = \"{os}\"\nroles = [\"program\"]\n\
             ssh = {{ user = \"root\", port = {}, identity_file = \"{}\", host_key = \"{}\" }}\n",
            web.base,
            server.port,
            server.path("user").display(),
            host_key.trim(),
        )
    };
    let path = project.0.path().join("k3s");
    let role = ROLE.replace("/usr/local/bin/k3s", &path.to_string_lossy());
    project.write("roles/program/role.toml", &role);
    let read = |name: &str| std::fs::read_to_string(project.0.path().join(name)).unwrap_or_default();
    let good = |arguments: &[&str]| {
        let (code, stdout, stderr) = project.run(arguments);
        assert_eq!(code, 0, "{arguments:?}\n{stdout}{stderr}");
        stdout
    };

    project.write("inventory/datahub.toml", &inventory(old));
    good(&["lock"]);
    web.requests();
    good(&["provision", "--node", "a"]);
    assert_eq!((read("k3s").as_str(), read("k3s.previous").as_str()), ("the old program", ""));
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o755);
    assert_eq!(web.requests().len(), 1);
    good(&["plan", "--node", "a", "--detailed-exitcode"]);

    project.write("inventory/datahub.toml", &inventory(new));
    good(&["lock"]);
    let plan = good(&["plan", "--node", "a"]);
    assert!(plan.contains(old) && plan.contains(new), "{plan}");
    assert_eq!(read("k3s"), "the old program");
    good(&["provision", "--node", "a"]);
    assert_eq!((read("k3s").as_str(), read("k3s.previous").as_str()), ("the new program", "the old program"));
    good(&["plan", "--node", "a", "--detailed-exitcode"]);

    // Somebody changes it on the node: the note of its checksum is not believed.
    std::fs::write(&path, "the own program").expect("written");
    assert_eq!(project.run(&["plan", "--node", "a", "--detailed-exitcode"]).0, 2);
    web.requests();
    good(&["provision", "--node", "a"]);
    assert_eq!(read("k3s"), "the new program");
    assert_eq!(web.requests(), [""; 0], "it is in the cache");
}

/// The architecture and the release of the machine the tests run on, as an inventory writes them.
fn this_machine() -> (&'static str, String) {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        _ => "armhf",
    };
    let release = std::fs::read_to_string("/etc/os-release").expect("read");
    let value = |key: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.trim_matches('"').to_owned()
    };
    (arch, format!("{}-{}", value("ID="), value("VERSION_ID=")))
}

/// A project on disk, and the binary run in it.
struct Project(tempfile::TempDir);

impl Project {
    fn new(source: &str, more: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("inventory")).expect("made");
        let project = Self(dir);
        project.write(
            "inventory/datahub.toml",
            &format!(
                "[cluster]\nname = \"home\"\n[k3s]\nversion = \"{VERSION}\"\nsource = \"{source}\"\n{more}\n\
                 [nodes.a]\nhost = \"a.home.arpa\"\narch = \"arm64\"\nos = \"debian-13\"\nroles = [\"program\"]\n\
                 [nodes.b]\nhost = \"b.home.arpa\"\narch = \"amd64\"\nos = \"debian-13\"\n"
            ),
        );
        project.write("roles/program/role.toml", ROLE);
        project
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    fn lock(&self) -> Option<String> {
        std::fs::read_to_string(self.0.path().join("inventory/datahub.lock")).ok()
    }

    /// Exit code, standard output and standard error.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_datahub"))
            .args(arguments)
            .current_dir(self.0.path())
            .env("HOME", self.0.path())
            .env_remove("XDG_CACHE_HOME")
            .env_remove("XDG_STATE_HOME")
            .env_remove("SSH_AUTH_SOCK")
            .output()
            .expect("datahub runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (status.code().expect("an exit code"), text(stdout), text(stderr))
    }
}

const ROLE: &str = r#"
description = "A program"
[[resource]]
artifact = { file = "{{ k3s.binary }}", path = "/usr/local/bin/k3s", mode = "0755", keep_previous = true }
"#;

fn list(files: &[(&str, &str)]) -> String {
    files.iter().map(|(name, content)| format!("{}  {name}\n", sha256_hex(content.as_bytes()))).collect()
}

#[test]
fn a_release_is_pinned_and_stays_so() {
    let web = Web::start();
    let at = |name: &str| format!("/v1.36.3%2Bk3s1/{name}");
    web.put(&at("k3s"), "amd64");
    web.put(&at("sha256sum-amd64.txt"), list(&[("k3s", "amd64"), ("k3s-airgap-images-amd64.tar.zst", "i")]));
    web.put(&at("sha256sum-arm64.txt"), list(&[("k3s-arm64", "arm64")]));
    let project = Project::new(&web.base, "");

    // Unpinned: good to be written, and refused where it would be used, with what to do.
    for (command, wanted) in [(&["validate"][..], 0), (&["plan", "--all"], 64)] {
        let (code, _, stderr) = project.run(command);
        assert_eq!(code, wanted, "{command:?} {stderr}");
        let told = ["the release v1.36.3+k3s1 is not pinned", "datahub.toml:", "run: datahub lock"];
        assert!(told.iter().all(|part| stderr.contains(part)), "{command:?} {stderr}");
    }
    let (code, stdout, _) = project.run(&["lock", "--check"]);
    assert!(code == 2 && stdout.contains("out of date") && project.lock().is_none(), "{stdout}");

    let (code, stdout, stderr) = project.run(&["lock"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains(&format!("+ k3s-arm64 {}", sha256_hex(b"arm64"))), "{stdout}");
    let pinned = project.lock().expect("written");
    let line = format!(
        "\"k3s\" = {{ sha256 = \"{}\", size = 5, from = \"{}{}\" }}\n",
        sha256_hex(b"amd64"),
        web.base,
        at("sha256sum-amd64.txt")
    );
    assert!(pinned.contains(&line), "{pinned}");
    assert!(pinned.contains("\"k3s-airgap-images-amd64.tar.zst\" = "), "{pinned}");
    let (code, stdout, stderr) = project.run(&["validate"]);
    assert!(code == 0 && !stderr.contains("pinned"), "{stdout}{stderr}");
    // A file that a pinned release does not have is a mistake.
    project.write("roles/program/role.toml", &ROLE.replace("{{ k3s.binary }}", "k3s-arm46"));
    let (code, _, stderr) = project.run(&["validate"]);
    assert!(code == 64 && stderr.contains("did you mean `k3s-arm64`?"), "{code} {stderr}");
    project.write("roles/program/role.toml", ROLE);
    let (code, stdout, _) = project.run(&["lock", "--check"]);
    assert!(code == 0 && stdout.contains("up to date"), "{stdout}");

    // Another release is added, and the first one kept.
    let text = std::fs::read_to_string(project.0.path().join("inventory/datahub.toml")).expect("read");
    project.write("inventory/datahub.toml", &text.replace(VERSION, "v1.37.0+k3s1"));
    for (name, files) in
        [("sha256sum-amd64.txt", [("k3s", "new")]), ("sha256sum-arm64.txt", [("k3s-arm64", "new")])]
    {
        web.put(&format!("/v1.37.0%2Bk3s1/{name}"), list(&files));
    }
    assert_eq!(project.run(&["lock"]).0, 0);
    let both = project.lock().expect("written");
    assert!(both.contains(&line) && both.contains("[k3s.\"v1.37.0+k3s1\"]"), "{both}");

    // A release that was replaced is not taken over in silence.
    web.put("/v1.37.0%2Bk3s1/sha256sum-amd64.txt", list(&[("k3s", "evil")]));
    for arguments in [&["lock"][..], &["lock", "--check"]] {
        let (code, stdout, stderr) = project.run(arguments);
        assert_eq!(code, 1, "{stderr}");
        let shown = format!("! k3s {} → {}", sha256_hex(b"new"), sha256_hex(b"evil"));
        assert!(stdout.contains(&shown) && stderr.contains("nothing was written"), "{stdout}{stderr}");
        assert_eq!(project.lock().as_ref(), Some(&both));
    }
    assert_eq!(project.run(&["lock", "--force"]).0, 0);
    assert!(project.lock().expect("written").contains(&sha256_hex(b"evil")));
}

#[test]
fn a_lock_that_cannot_be_made_is_not_written() {
    let web = Web::start();
    let at = |name: &str| format!("/v1.36.3%2Bk3s1/{name}");
    let good = list(&[("k3s", "amd64")]);
    let cases = [
        (good.clone(), None, "there is no http://"),
        (good.clone(), Some("<html>log in</html>".to_owned()), "is not a list of checksums"),
        (good.clone(), Some(list(&[("k3s", "amd64")])), "it does not name k3s-arm64"),
        (good, Some(list(&[("k3s-arm64", "x"), ("k3s", "other")])), "another checksum for k3s"),
    ];
    for (amd64, arm64, wanted) in cases {
        web.put(&at("sha256sum-amd64.txt"), amd64);
        if let Some(text) = arm64 {
            web.put(&at("sha256sum-arm64.txt"), text);
        }
        let project = Project::new(&web.base, "");
        let (code, _, stderr) = project.run(&["lock"]);
        assert!(code == 1 && stderr.contains(wanted) && stderr.contains("hint"), "{code} {stderr}");
        assert_eq!(project.lock(), None);
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let project = Project::new(&format!("http://{closed}"), "");
    project.write("inventory/datahub.lock", "# none yet\n");
    let (code, _, stderr) = project.run(&["lock"]);
    assert!(
        code == 1 && stderr.contains("cannot get http://") && stderr.contains("refused"),
        "{code} {stderr}"
    );
    assert_eq!(project.lock().as_deref(), Some("# none yet\n"));
}

#[test]
fn a_folder_of_releases_and_a_broken_lock_file() {
    let project = Project::new("../releases", "");
    project.write(&format!("releases/{VERSION}/sha256sum-amd64.txt"), &list(&[("k3s", "amd64")]));
    project.write(&format!("releases/{VERSION}/sha256sum-arm64.txt"), &list(&[("k3s-arm64", "arm64")]));
    project.write(&format!("releases/{VERSION}/k3s-arm64"), "arm64");
    let (code, _, stderr) = project.run(&["lock"]);
    assert_eq!(code, 0, "{stderr}");
    let lock = project.lock().expect("written");
    let from = format!("from = \"../releases/{VERSION}/sha256sum-arm64.txt\"");
    assert!(lock.contains(&format!("size = 5, {from}")), "{lock}");

    project.write("inventory/datahub.lock", &format!("<<<<<<< HEAD\n{lock}"));
    let (code, _, stderr) = project.run(&["validate"]);
    assert!(code == 64 && stderr.contains("the lock file cannot be read"), "{code} {stderr}");
}
