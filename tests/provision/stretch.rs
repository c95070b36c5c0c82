//! Changes that do not feel one another are made together, and end as if each were made by itself.

use crate::run::{Run, json};
use crate::support::{self, Fixture};

/// Ten resources, of which the first one is changed by itself, as it is what the node's lock is taken for.
fn role(lab: &Fixture, more: &str) {
    let files: String = (0..8)
        .map(|n| format!("[[resource]]\nfile = {{ path = \"/srv/s/{n}\", content = \"{n}\\n\" }}\nnotify = [\"seen\"]\n"))
        .collect();
    let role = format!(
        "description = \"A stretch\"\n\n[[handler]]\nname = \"seen\"\ncommand = \"ls /srv/s >>/root/seen\"\n\n\
         [[resource]]\ndirectory = {{ path = \"/srv/s\" }}\n{files}\
         [[resource]]\nlink = {{ path = \"/srv/s/link\", target = \"7\" }}\n{more}"
    );
    lab.write("roles/r/role.toml", &role);
}

fn round_trips(run: &Run) -> u64 {
    let last = run.of("run-finished").next().expect("an end");
    last["round_trips"].as_u64().expect("a number")
}

fn again(lab: &Fixture) -> Run {
    json(lab, &["provision", "--node", "n"])
}

#[test]
fn what_goes_together_is_made_together_and_what_does_not_by_itself() {
    let Some(mut lab) = support::lab("stretch") else { return };
    role(&lab, "");
    lab.up(&support::inventory("kim", &[("n", "debian-13", &["r"])]), &["n"]);

    // Made one by one, they take eight more.
    let run = again(&lab);
    run.ends_with(0).finished("n", 10, 1);
    let together = round_trips(&run);
    assert!(together < 10, "{together}: {}", run.text);
    let differ = run.resources("differs", "n");
    assert_eq!((differ.len(), differ[9]), (10, "link /srv/s/link"));
    assert_eq!(run.resources("changed", "n"), differ);
    assert_eq!(lab.sh("n", "cat /srv/s/3 /srv/s/link; wc -l </root/seen"), "3\n7\n9");
    again(&lab).ends_with(0).finished("n", 0, 0);

    // One of them fails: those before it are done and told, those after it are not begun.
    lab.sh("n", "rm -r /srv/s/[0-7] /srv/s/link; mkdir /srv/s/4 && touch /srv/s/4/precious");
    let run = again(&lab);
    run.ends_with(1);
    assert_eq!(run.failure("n")["resource"], "file /srv/s/4");
    let told: Vec<String> = (0..4).map(|n| format!("file /srv/s/{n}")).collect();
    assert_eq!(run.resources("changed", "n"), told);
    lab.sh("n", "test ! -e /srv/s/5 && test -e /srv/s/4/precious && rm -r /srv/s/4");
    // The same where only the change itself can tell.
    let file = |path: &str| format!("[[resource]]\nfile = {{ path = \"{path}\", content = \"x\\n\" }}\n");
    role(&lab, &[file("/srv/none/x"), file("/srv/s/last")].concat());
    lab.sh("n", "rm /srv/s/[0-6]");
    let run = again(&lab);
    run.ends_with(1);
    let failure = run.failure("n");
    assert_eq!(failure["resource"], "file /srv/none/x", "{}", run.text);
    assert!(failure["output"].to_string().contains("its folder does not exist"), "{failure}");
    let expected: Vec<String> =
        (0..8).map(|n| format!("file /srv/s/{n}")).chain(["link /srv/s/link".to_owned()]).collect();
    assert_eq!(run.resources("changed", "n"), expected);
    lab.sh("n", "test ! -e /srv/s/last && mkdir /srv/none");
    // Notified by a run that has failed, run by the next.
    again(&lab).ends_with(0).finished("n", 2, 1);

    // Two names of one file: the second change finds that it has felt the first, and is decided anew.
    let line = |path: &str| {
        format!("[[resource]]\nline = {{ path = \"{path}\", line = \"of {path}\", create = true }}\n")
    };
    role(&lab, &[line("/srv/a/x"), line("/srv/b/x"), line("/srv/a/y")].concat());
    lab.sh("n", "mkdir /srv/a && ln -s a /srv/b && chmod 700 /srv/s");
    let run = again(&lab);
    run.ends_with(0).finished("n", 4, 0);
    assert_eq!(lab.sh("n", "cat /srv/a/x /srv/a/y"), "of /srv/a/x\nof /srv/b/x\nof /srv/a/y");
    assert_eq!(run.resources("differs", "n"), run.resources("changed", "n"));
    again(&lab).ends_with(0).finished("n", 0, 0);
}
