//! `user`: what is seen and wanted → what changes; and its shell with stand-ins for useradd and its kin.

use super::*;
use crate::probe::{Answer, Facts, Group};
use crate::resource::testing::{build, mistake, run};

const HASH: &str = "$y$j9T$salt$abcdef./";

fn ann() -> Seen {
    Seen { uid: 1000, gid: 100, gecos: "Ann,,,".into(), home: "/home/ann".into(), shell: "/bin/bash".into() }
}

fn diff(fields: &str, user: Option<Seen>, groups: &[&str], password: Option<Password>) -> Verdict {
    let resource = build("user", &format!("name = 'ann'\n{fields}"));
    let mut answers = Answers::new(Facts { login_user: "admin".into(), ..Facts::default() });
    for question in resource.questions() {
        let answer = match &question {
            Question::User(_) => Answer::User(user.clone()),
            Question::Group(_) => Answer::Group(Some(Group { gid: 100, members: BTreeSet::new() })),
            Question::GroupsOf(_) => Answer::GroupsOf(groups.iter().map(|g| (*g).to_owned()).collect()),
            Question::Password { .. } => Answer::Password(password),
            other => panic!("{other:?}"),
        };
        answers.insert(question, answer);
    }
    resource.diff(&answers).expect("answered")
}

#[test]
fn diffs_as_data() {
    let value = Difference::value;
    let full = "uid = 1000\ngroup = 'users'\ngroups = ['b', 'a']\nhome = '/home/ann'\nshell = '/bin/bash'\ncomment = 'Ann'";
    type Case<'a> = (&'a str, Option<Seen>, &'a [&'a str], Vec<Difference>, &'a str);
    let cases: Vec<Case> = vec![
        ("", Some(ann()), &[], vec![], ""),
        (full, Some(ann()), &["a", "b", "c"], vec![], ""),
        ("groups = ['a']\nexclusive_groups = true", Some(ann()), &["a"], vec![], ""),
        ("state = 'absent'", None, &[], vec![], ""),
        (
            "",
            None,
            &[],
            vec![value("user", None, Some("present"))],
            "useradd \"$@\" --shell /bin/bash --create-home -- ann",
        ),
        (
            "system = true",
            None,
            &[],
            vec![value("user", None, Some("present"))],
            "useradd \"$@\" --system --shell /usr/sbin/nologin --no-create-home -- ann",
        ),
        (
            "group = 'users'\ngroups = ['b', 'a']",
            None,
            &[],
            vec![
                value("user", None, Some("present")),
                value("group", None, Some("users")),
                value("groups", None, Some("b,a")),
            ],
            "(\nset --\ngetent passwd ann >/dev/null || useradd \"$@\" --gid users --groups b,a ",
        ),
        (
            "shell = '/bin/sh'\ncomment = \"it's\"",
            Some(ann()),
            &[],
            vec![
                value("shell", Some("/bin/bash"), Some("/bin/sh")),
                value("comment", Some("Ann,,,"), Some("it's")),
            ],
            "usermod --shell /bin/sh --comment 'it'\\''s' -- ann ||",
        ),
        (
            "groups = ['a']",
            Some(ann()),
            &["z"],
            vec![value("groups", Some("z"), Some("a,z"))],
            "usermod --append --groups a,z -- ann",
        ),
        (
            "exclusive_groups = true",
            Some(ann()),
            &["z"],
            vec![value("groups", Some("z"), Some(""))],
            "usermod --groups '' -- ann",
        ),
        (
            "uid = 1001\nforce = true",
            Some(ann()),
            &[],
            vec![value("uid", Some("1000"), Some("1001"))],
            "usermod --uid 1001 -- ann",
        ),
        ("state = 'absent'", Some(ann()), &[], vec![value("user", Some("uid 1000"), None)], "userdel -- ann"),
        (
            "state = 'absent'\nremove_home = true",
            Some(ann()),
            &[],
            vec![value("user", Some("uid 1000"), None), value("home", Some("/home/ann"), None)],
            "userdel --remove -- ann",
        ),
    ];
    for (fields, user, groups, differences, part) in cases {
        match diff(fields, user, groups, None) {
            Verdict::Converged => assert!(differences.is_empty(), "{fields}"),
            Verdict::Differs(change) => {
                assert_eq!(change.differences, differences, "{fields}");
                assert!(change.shell.contains(part), "{fields}: {}", change.shell);
                assert_eq!(run(&format!("exit 0\n{}", change.shell)), Ok(()), "dash reads it");
            }
            other => panic!("{fields}: {other:?}"),
        }
    }
}

#[test]
fn passwords_as_data() {
    let with = |fields: &str| format!("password_hash = '{HASH}'\n{fields}");
    let set = |same, locked| Some(Password { same, locked, hash: true });
    let none = Some(Password { locked: true, ..Password::default() });
    let secret = || Difference::Secret { attribute: "password".into() };
    let locked = |before, after| Difference::value("locked", Some(before), Some(after));
    let open = format!("ann:{HASH}\n");
    let shut = format!("ann:!{HASH}\n");
    // fields, seen, differences, the line for chpasswd or a part of the shell
    let cases = [
        (with(""), set(true, false), vec![], ""),
        (with(""), set(true, true), vec![], ""),
        (with("locked = false"), set(true, false), vec![], ""),
        ("locked = true".into(), none, vec![], ""),
        (with(""), set(false, false), vec![secret()], &*open),
        (with(""), set(false, true), vec![secret()], &*shut),
        (with(""), none, vec![secret()], &*open),
        (with("locked = true"), set(false, false), vec![secret(), locked("no", "yes")], &*shut),
        (with("locked = false"), none, vec![secret()], &*open),
        (with("locked = false"), set(true, true), vec![locked("yes", "no")], "usermod --unlock -- ann"),
        ("locked = true".into(), set(false, false), vec![locked("no", "yes")], "usermod --lock -- ann"),
    ];
    for (fields, password, differences, part) in cases {
        match diff(&fields, Some(ann()), &[], password) {
            Verdict::Converged => assert!(differences.is_empty(), "{fields} on {password:?}"),
            Verdict::Differs(change) => {
                assert_eq!(change.differences, differences, "{fields} on {password:?}");
                assert!(!change.long, "what holds a secret leaves no script behind");
                let folder = tempfile::tempdir().expect("a folder");
                let log = folder.path().join("log");
                let stand_ins = format!(
                    "chpasswd() {{ [ \"$*\" = --encrypted ] && cat >{0}; }}\nusermod() {{ echo usermod \"$@\" >{0}; }}",
                    quote(log.to_str().expect("UTF-8"))
                );
                assert_eq!(run(&format!("{stand_ins}\n{}", change.shell)), Ok(()));
                assert_eq!(std::fs::read_to_string(log).expect("written").trim_end(), part.trim_end());
            }
            other => panic!("{fields}: {other:?}"),
        }
    }
}

#[test]
fn a_new_account_gets_its_password_and_its_own_group() {
    let Verdict::Differs(change) = diff(&format!("password_hash = '{HASH}'"), None, &[], None) else {
        panic!("differs")
    };
    for (groups, expected) in [("", "--user-group --shell"), ("ann", "--gid ann --shell")] {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        let stand_ins = format!(
            "log={}\ngetent() {{ [ \"$1 $2\" = \"group {groups}\" ]; }}\nuseradd() {{ echo useradd \"$@\" >>\"$log\"; }}\n\
             chpasswd() {{ cat >>\"$log\"; }}",
            quote(log.to_str().expect("UTF-8"))
        );
        assert_eq!(run(&format!("{stand_ins}\n{}", change.shell)), Ok(()));
        let text = std::fs::read_to_string(log).expect("written");
        assert_eq!(
            text,
            format!("useradd {expected} /bin/bash --create-home -- ann\nann:{HASH}\n"),
            "{groups}"
        );
    }
}

#[test]
fn what_must_not_be_is_refused() {
    let root = Seen { uid: 0, home: "/root".into(), ..ann() };
    for (fields, user, why) in [
        ("uid = 1001", ann(), "set uid = 1000"),
        ("locked = false", ann(), "has no password"),
        ("state = 'absent'\nremove_home = true", root, "too near the root"),
    ] {
        match diff(fields, Some(user), &[], None) {
            Verdict::Refused(reason) => assert!(reason.contains(why), "{reason}"),
            other => panic!("{fields}: {other:?}"),
        }
    }
    for fields in ["state = 'absent'", "shell = '/usr/sbin/nologin'"] {
        let resource = build("user", &format!("name = 'admin'\n{fields}"));
        let seen = Answers::new(Facts { login_user: "admin".into(), ..Facts::default() })
            .with(Question::User("admin".into()), Answer::User(Some(ann())));
        match resource.diff(&seen).expect("answered") {
            Verdict::Refused(reason) => assert!(reason.contains("logs in as admin"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn nothing_shows_the_hash() {
    let fields = format!("name = 'ann'\npassword_hash = '{HASH}'\nsecret = true");
    let resource = build("user", &fields);
    let questions = format!("{resource:?} {:?}", resource.questions());
    assert!(!questions.contains("j9T") && questions.contains("<secret>"), "{questions}");
    let error = mistake("user", "name = 'ann'\npassword_hash = 'hunter22'");
    assert!(error.contains("not a crypt hash") && !error.contains("hunter22"), "{error}");
}

#[test]
fn mistakes_are_found_offline() {
    for (fields, wanted) in [
        ("name = 'Ann B'", "are allowed"),
        ("name = 'ann'\ngroups = ['-x']", "group \"-x\""),
        ("name = 'ann'\nhome = 'home'", "must be absolute"),
        ("name = 'ann'\ncomment = 'a:b'", "neither `:`"),
        ("name = 'ann'\nsecret = true", "only `password_hash`"),
        ("name = 'ann'\nremove_home = true", "needs state"),
        ("name = 'ann'\nstate = 'absent'\nlocked = true", "make no sense"),
        ("name = 'root'\nuid = 1", "stays as it is"),
        ("name = 'ann'\npassword = 'x'", "unknown field"),
    ] {
        let error = mistake("user", fields);
        assert!(error.contains(wanted), "{fields}: {error}");
    }
}
