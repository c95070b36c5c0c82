//! `authorized_key`: edits as data, and its shell in a real home with a stand-in for setpriv.

use super::*;
use crate::probe::{Answer, Content, Facts};
use crate::resource::testing::{TextFile, build, mistake, run, stat};

/// Keys of nobody: 32 bytes all the same.
const A: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB";
const B: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIC";
/// A type this program need not know.
const ODD: &str = "sk-x AAAABHNrLXgAAAAB";

fn key(fields: &str) -> AuthorizedKey {
    let key: AuthorizedKey = toml::from_str(&format!("user = 'ann'\n{fields}")).expect("fields are right");
    key.check().expect("fields are right");
    key
}

#[test]
fn edits_as_data() {
    let plain = format!("key = '{A} ann@home'");
    let bare = format!("key = '{A}'");
    let command = "restrict,command=\"echo \\\"a b\\\" #\"";
    let restricted = format!("{plain}\noptions = '{command}'");
    let cases = [
        (plain.clone(), format!("# me\n{A} ann@home\n"), format!("# me\n{A} ann@home\n")),
        (plain.clone(), format!("{A}   ann@home"), format!("{A}   ann@home")),
        (plain.clone(), format!("{command} {A} ann@home\n"), format!("{command} {A} ann@home\n")),
        (bare.clone(), format!("{A} other comment\n"), format!("{A} other comment\n")),
        (plain.clone(), String::new(), format!("{A} ann@home\n")),
        (plain.clone(), format!("{B} b"), format!("{B} b\n{A} ann@home\n")),
        (
            plain.clone(),
            format!("{A} old\nrubbish\n{B}\n{A} twice\n"),
            format!("{A} ann@home\nrubbish\n{B}\n"),
        ),
        (restricted.clone(), format!("{A} old\n"), format!("{command} {A} ann@home\n")),
        (restricted, format!("{command} {A} ann@home\n"), format!("{command} {A} ann@home\n")),
        (format!("{plain}\noptions = ''"), format!("no-pty {A} ann@home\n"), format!("{A} ann@home\n")),
        (
            format!("{plain}\nexclusive = true"),
            format!("# me\n\n{B} b\n{ODD}\nrubbish\nno-pty {A} a\n"),
            format!("# me\n\nno-pty {A} ann@home\n"),
        ),
        (format!("{plain}\nexclusive = true"), format!("{B} b\n"), format!("{A} ann@home\n")),
        (format!("{bare}\nstate = 'absent'"), format!("{B} b"), format!("{B} b")),
        (
            format!("{bare}\nstate = 'absent'"),
            format!("x=\"{A}\" {B} b\nno-pty {A} a\n{ODD}\n"),
            format!("x=\"{A}\" {B} b\n{ODD}\n"),
        ),
    ];
    for (fields, before, after) in cases {
        let key = key(&fields);
        assert_eq!(key.edit(&before), after, "{fields} on {before}");
        assert_eq!(key.edit(&after), after, "{fields} twice on {before}");
    }
}

fn keys(home: &str, content: Option<Content>) -> AuthorizedKeys {
    let owned = |file_type, mode| Some(Stat { owner: "ann".into(), ..stat(file_type, mode) });
    AuthorizedKeys {
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        home: home.into(),
        home_exists: true,
        folder: owned(FileType::Directory, 0o700),
        file: match content {
            Some(Content::Absent) => None,
            _ => owned(FileType::File, 0o600),
        },
        content,
    }
}

fn diff(fields: &str, keys: Option<AuthorizedKeys>) -> Verdict {
    let resource = build("authorized_key", &format!("user = 'ann'\n{fields}"));
    let seen = Answers::new(Facts { login_user: "ann".into(), ..Facts::default() })
        .with(Question::AuthorizedKeys("ann".into()), Answer::AuthorizedKeys(keys));
    resource.diff(&seen).expect("answered")
}

fn text(text: &str) -> Option<Content> {
    Some(Content::Differs(text.as_bytes().to_vec()))
}

#[test]
fn verdicts_as_data() {
    let present = format!("key = '{A} a'");
    let absent = format!("key = '{A} a'\nstate = 'absent'");
    let there = || text(&format!("{A} a\n"));
    let home = || keys("/home/ann", there());
    let owned = |owner: &str, s: Option<Stat>| s.map(|s| Stat { owner: owner.into(), ..s });
    let typed = |file_type, s: Option<Stat>| s.map(|s| Stat { file_type, ..s });
    type Case<'a> = (&'a str, Option<AuthorizedKeys>, &'a str);
    let cases: Vec<Case> = vec![
        (&present, Some(home()), "Converged"),
        (&absent, None, "Converged"),
        (&absent, Some(keys("/home/ann", Some(Content::Absent))), "Converged"),
        (&absent, Some(keys("/home/ann", text(B))), "Converged"),
        (&present, None, "there is no user ann yet"),
        (&absent, Some(home()), "the last key of ann"),
        (&present, Some(AuthorizedKeys { home_exists: false, ..home() }), "make it first"),
        (
            &present,
            Some(AuthorizedKeys { folder: owned("root", home().folder), ..home() }),
            "chown ann: /home/ann/.ssh",
        ),
        (
            &present,
            Some(AuthorizedKeys { folder: typed(FileType::Link, home().folder), ..home() }),
            "/home/ann/.ssh is no directory",
        ),
        (
            &present,
            Some(AuthorizedKeys { file: typed(FileType::Link, home().file), ..keys("/home/ann", None) }),
            "authorized_keys is a link",
        ),
        (
            &present,
            Some(AuthorizedKeys { file: owned("root", home().file), ..keys("/home/ann", None) }),
            "chown ann: /home/ann/.ssh/authorized_keys",
        ),
        (&present, Some(keys("/home/ann", Some(Content::TooLarge(9)))), "too large"),
        (&present, Some(keys("/home/ann", Some(Content::Differs(vec![0xff])))), "not UTF-8"),
    ];
    for (fields, keys, expected) in cases {
        let verdict = format!("{:?}", diff(fields, keys.clone()));
        assert!(verdict.contains(expected), "{fields} on {keys:?}: {verdict}");
        assert!(!verdict.starts_with("Differs"), "{verdict}");
    }
    let open = home();
    let open = AuthorizedKeys { file: open.file.map(|s| Stat { mode: 0o644, ..s }), folder: None, ..open };
    let Verdict::Differs(change) = diff(&present, Some(open)) else { panic!("differs") };
    assert_eq!(
        change.differences,
        [Difference::value("mode of authorized_keys", Some("0644"), Some("0600"))]
    );
}

/// Runs a step in a home of its own; the account and the change of user are stand-ins.
fn apply(home: &TextFile, change: &Change) -> Result<(), String> {
    let ids = format!("{}:{}", rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let stand_ins = format!(
        "getent() {{ echo 'ann:x:{ids}:Ann:/home/ann:/bin/sh'; }}\n\
         setpriv() {{ [ \"$1 $5\" = \"--reuid={} --reset-env\" ] || exit 9; shift 6; \"$@\"; }}\n",
        rustix::process::getuid().as_raw()
    );
    home.run(&format!("{stand_ins}{}", change.shell))
}

#[test]
fn the_shell_makes_folder_and_file_and_keeps_the_rest() {
    let home = TextFile::missing();
    let at = home.folder().to_str().expect("UTF-8").to_owned();
    let file = home.folder().join(".ssh/authorized_keys");
    let nothing = AuthorizedKeys { folder: None, ..keys(&at, Some(Content::Absent)) };
    let Verdict::Differs(change) = diff(&format!("key = '{A} a'"), Some(nothing.clone())) else {
        panic!("differs")
    };
    assert_eq!(apply(&home, &change), Ok(()));
    assert_eq!(apply(&home, &change), Ok(()), "twice is harmless");
    let mode = |path: &std::path::Path| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(path).expect("exists").permissions().mode() & 0o7777
    };
    assert_eq!((mode(&file), mode(file.parent().expect("a folder"))), (0o600, 0o700));

    let seen = std::fs::read_to_string(&file).expect("written");
    let Verdict::Differs(second) = diff(&format!("key = '{B} b'"), Some(keys(&at, text(&seen)))) else {
        panic!("differs")
    };
    assert_eq!(apply(&home, &second), Ok(()));
    assert_eq!(std::fs::read_to_string(&file).expect("written"), format!("{A} a\n{B} b\n"));
    let error = apply(&home, &change).expect_err("another key has come");
    assert!(error.contains("changed since it was looked at"), "{error}");
}

#[test]
fn a_planted_link_is_not_followed() {
    let home = TextFile::missing();
    let at = home.folder().to_str().expect("UTF-8").to_owned();
    let elsewhere = TextFile::with("precious", 0o644);
    let nothing = AuthorizedKeys { folder: None, ..keys(&at, Some(Content::Absent)) };
    let Verdict::Differs(change) = diff(&format!("key = '{A}'"), Some(nothing)) else { panic!("differs") };
    std::os::unix::fs::symlink(elsewhere.folder(), home.folder().join(".ssh")).expect("planted");
    assert!(apply(&home, &change).is_err());

    std::fs::remove_file(home.folder().join(".ssh")).expect("removed");
    std::fs::create_dir(home.folder().join(".ssh")).expect("made");
    std::os::unix::fs::symlink(elsewhere.path(), home.folder().join(".ssh/authorized_keys"))
        .expect("planted");
    assert!(apply(&home, &change).is_err());
    assert_eq!(elsewhere.read(), "precious");
    assert_eq!(elsewhere.neighbours(), ["file"]);
}

#[test]
fn an_account_that_changed_meanwhile_is_left_alone() {
    let Verdict::Differs(change) = diff(&format!("key = '{A}'"), Some(keys("/home/ann", text("")))) else {
        panic!("differs")
    };
    let stand_ins = "getent() { echo 'ann:x:4242:4242:Ann:/home/ann:/bin/sh'; }\nsetpriv() { exit 0; }\n";
    let error = run(&format!("{stand_ins}{}", change.shell)).expect_err("another account");
    assert!(error.contains("the account changed"), "{error}");
}

#[test]
fn names_tell_keys_apart() {
    let name = |key: &str| build("authorized_key", &format!("user = 'ann'\nkey = '{key}'")).name();
    assert!(name(&format!("{A} me@home")).starts_with("ann: me@home SHA256:"));
    assert_ne!(name(A), name(B));
}

#[test]
fn mistakes_are_found_offline() {
    let ca = "ssh-dss AAAAB3NzaC1kc3M=";
    for (fields, wanted) in [
        ("user = 'ann b'\nkey = 'x'".to_owned(), "user \"ann b\""),
        ("user = 'ann'\nkey = 'AAAAC3'".into(), "is not a public key"),
        (format!("user = 'ann'\nkey = '{ODD}'"), "is not a public key"),
        ("user = 'ann'\nkey = '-----BEGIN OPENSSH PRIVATE KEY-----'".into(), "is a private key"),
        (format!("user = 'ann'\nkey = \"{A}\\n{B}\""), "one line"),
        (format!("user = 'ann'\nkey = 'no-pty {A}'"), "into `options`"),
        (format!("user = 'ann'\nkey = '{ca}'"), "DSA"),
        (format!("user = 'ann'\nkey = '{A}'\noptions = 'no-pty, x'"), "no blanks"),
        (format!("user = 'ann'\nkey = '{A}'\noptions = 'command=\"x'"), "close every quote"),
        (format!("user = 'ann'\nkey = '{A}'\nexclusive = true\nstate = 'absent'"), "drop one"),
        (format!("user = 'ann'\nkey = '{A}'\nkeys = []"), "unknown field"),
    ] {
        let error = mistake("authorized_key", &fields);
        assert!(error.contains(wanted), "{fields}: {error}");
    }
}
