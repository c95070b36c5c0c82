//! Probes asked of this machine.

use super::*;
use crate::probe::{Content, FileType, Source, Sysctl};

#[test]
fn a_step_runs_before_the_questions_and_stops_them_when_it_fails() {
    for (shell, expected) in [("echo hi; exit 3", (3, "hi")), ("cat <<'X'\nin (\nX\n", (0, "in ("))] {
        let probe = || Probe::new([Question::Hostname]);
        for probe in [probe().after(shell), probe().after_quiet(shell)] {
            let out =
                std::process::Command::new("sh").arg("-c").arg(probe.script()).output().expect("sh runs");
            let (status, text) = Probe::step(&out.stdout).expect("framed");
            assert_eq!((status, text.as_str()), expected);
            assert_eq!(probe.read(&out.stdout).is_ok(), status == 0);
        }
    }
}

#[test]
fn several_steps_run_up_to_the_first_that_fails() {
    let steps = |texts: &[&str]| {
        let texts = texts.iter().map(|text| (*text).to_owned()).collect();
        let probe = Probe::new([Question::Hostname]).after_each("x=1\n", texts, "x=\n");
        let out = std::process::Command::new("sh").arg("-c").arg(probe.script()).output().expect("sh runs");
        (Probe::steps(&out.stdout).expect("framed"), probe.read(&out.stdout).is_ok())
    };
    let said = |status: i32, text: &str| (status, text.to_owned());
    assert_eq!(steps(&["echo a$x; x=2", "echo b$x >&2; cat"]), (vec![said(0, "a1"), said(0, "b1")], true));
    assert_eq!(steps(&["exit 0", "echo b; exit 7", "echo c"]), (vec![said(0, ""), said(7, "b")], false));
}

#[test]
fn a_step_that_prints_without_end_is_stopped() {
    let probe = Probe::new([Question::Hostname]).after("yes on");
    let out = std::process::Command::new("sh").arg("-c").arg(probe.script()).output().expect("sh runs");
    let (status, text) = Probe::step(&out.stdout).expect("framed");
    assert_eq!(status, 141);
    assert!(text.len() < 70_000 && text.ends_with("it printed more than 32 MiB and was stopped"));
}

fn ask(questions: Vec<Question>) -> (Option<Facts>, HashMap<Question, Answer>) {
    let probe = Probe::new(questions).with_facts();
    let out = std::process::Command::new("sh").arg("-c").arg(probe.script()).output().expect("sh runs");
    probe.read(&out.stdout).expect("readable")
}

#[test]
fn this_machine_answers() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    std::fs::write(path("it's a file"), b"a\0b\n\n").expect("written");
    std::os::unix::fs::symlink("/dev/null", path("null")).expect("linked");
    std::os::unix::fs::symlink("/nowhere", path("link")).expect("linked");
    let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path("it's a file")).expect("there"));
    let mut swap = vec![0; 65536];
    std::fs::write(path("zero"), &swap).expect("written");
    // What mkswap writes: its version and page count at 1024, its magic at the end of the first page.
    swap[1024..1032].copy_from_slice(&[1, 0, 0, 0, 15, 0, 0, 0]);
    swap[4086..4096].copy_from_slice(b"SWAPSPACE2");
    std::fs::write(path("swap"), swap).expect("written");
    let sha = "ec0f3e2a1a5a5d1e8cf9d1a4f2cf6bc9c2b6a6f9bb5b1bb56a5cf0d1e7e1f0aa";
    let content = |name: &str, unless: &str| Question::Content { path: path(name), unless: unless.into() };
    let (facts, seen) = ask(vec![
        Question::Stat(path("it's a file")),
        Question::Stat(path("link")),
        Question::Stat(path("none")),
        content("it's a file", ""),
        content("it's a file", sha),
        content("none", sha),
        content(".", ""),
        Question::Checksum(path("it's a file")),
        Question::Checksum(path("link")),
        Question::Hostname,
        Question::Group("root".into()),
        Question::User("root".into()),
        Question::User("no-such-user".into()),
        Question::GroupsOf("no-such-user".into()),
        Question::Mount("/proc".into()),
        Question::Sysctl("kernel.ostype".into()),
        Question::Sysctl("no.such".into()),
        Question::Sysctl("kernel.pid_max".into()),
        Question::Swaps,
        Question::Guard("exit 3".into()),
        Question::Guard("if then".into()),
        Question::Guard("[ -z \"$(command -v f)\" ]".into()),
        Question::Module("no_such_module".into()),
        Question::Source("UUID=no such".into()),
        Question::Source(path("null")),
        Question::Device(path("zero")),
        Question::Device(path("swap")),
        Question::Device(path("none")),
        Question::Device("/proc/self/mem".into()),
    ]);
    let facts = facts.expect("asked for");
    assert!(!facts.kernel.is_empty() && facts.cpus > 0 && facts.memory_mib > 0, "{facts:?}");
    let get = |q: Question| seen.get(&q).cloned().expect("answered");
    let Answer::Stat(Some(stat)) = get(Question::Stat(path("it's a file"))) else { panic!() };
    assert_eq!((stat.file_type, stat.size), (FileType::File, 5));
    let Answer::Stat(Some(link)) = get(Question::Stat(path("link"))) else { panic!() };
    assert_eq!((link.file_type, link.target.as_str()), (FileType::Link, "/nowhere"));
    assert_eq!(get(Question::Stat(path("none"))), Answer::Stat(None));
    let bytes = Answer::Content(Content::Differs(b"a\0b\n\n".to_vec()));
    assert_eq!(get(content("it's a file", "")), bytes);
    assert_eq!(get(content("it's a file", sha)), bytes);
    let sum = crate::checksum::sha256_hex(b"a\0b\n\n");
    assert_eq!(get(Question::Checksum(path("it's a file"))), Answer::Checksum(Some(sum)));
    assert_eq!(get(Question::Checksum(path("link"))), Answer::Checksum(None));
    assert_eq!(get(content("none", sha)), Answer::Content(Content::Absent));
    assert_eq!(get(content(".", "")), Answer::Content(Content::NotAFile));
    assert_eq!((stat.identity.1, stat.identity.0 > 0), (inode, true));
    let ostype = Sysctl { value: "Linux".into(), writable: false };
    assert_eq!(get(Question::Sysctl("kernel.ostype".into())), Answer::Sysctl(Some(ostype)));
    assert_eq!(get(Question::Sysctl("no.such".into())), Answer::Sysctl(None));
    let Answer::Sysctl(Some(number)) = get(Question::Sysctl("kernel.pid_max".into())) else { panic!() };
    let whole = std::fs::read_to_string("/proc/sys/kernel/pid_max").expect("readable");
    assert_eq!(number.value, whole.trim());
    assert_eq!(get(Question::User("no-such-user".into())), Answer::User(None));
    assert_eq!(get(Question::GroupsOf("no-such-user".into())), Answer::GroupsOf(BTreeSet::new()));
    assert!(matches!(get(Question::User("root".into())), Answer::User(Some(User { uid: 0, .. }))));
    assert!(matches!(get(Question::Group("root".into())), Answer::Group(Some(Group { gid: 0, .. }))));
    assert!(matches!(get(Question::Mount("/proc".into())), Answer::Mount(Some(_))));
    assert_eq!(get(Question::Guard("exit 3".into())), Answer::Guard(3));
    assert_eq!(get(Question::Guard("if then".into())), Answer::Guard(2));
    assert_eq!(get(Question::Guard("[ -z \"$(command -v f)\" ]".into())), Answer::Guard(0));
    let Answer::Module(module) = get(Question::Module("no_such_module".into())) else { panic!() };
    assert!(matches!(module, crate::probe::Module::Missing | crate::probe::Module::NoModules), "{module:?}");
    assert_eq!(get(Question::Source("UUID=no such".into())), Answer::Source(None));
    let null = Source { name: "/dev/null".into(), number: rustix::fs::makedev(1, 3) };
    assert_eq!(get(Question::Source(path("null"))), Answer::Source(Some(null)), "a link is followed");
    let Answer::Device(Some(swap)) = get(Question::Device(path("swap"))) else { panic!() };
    assert_eq!(swap["TYPE"], "swap");
    assert_eq!(get(Question::Device(path("zero"))), Answer::Device(Some(HashMap::new())));
    assert_eq!(get(Question::Device(path("none"))), Answer::Device(None));
    assert_eq!(
        get(Question::Device("/proc/self/mem".into())),
        Answer::Device(None),
        "unreadable is not empty"
    );
}

#[test]
fn a_file_with_the_wanted_checksum_is_not_sent() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("f").to_string_lossy().into_owned();
    std::fs::write(&path, b"").expect("written");
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let question = Question::Content { path, unless: empty.into() };
    let (_, seen) = ask(vec![question.clone()]);
    assert_eq!(seen.get(&question), Some(&Answer::Content(Content::Same)));
}

#[test]
fn every_module_in_sysfs_is_live() {
    let live: Vec<String> = std::fs::read_dir("/sys/module")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    let (_, seen) = ask(live.iter().cloned().map(Question::Module).collect());
    for name in live {
        assert!(matches!(seen[&Question::Module(name.clone())], Answer::Module(m) if m.is_live()), "{name}");
    }
}
