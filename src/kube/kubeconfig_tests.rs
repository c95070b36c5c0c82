//! Kubeconfigs as they are found on real machines, and what must stay of them.

use super::*;

const K3S: &str = "apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: Q0E=
    server: https://127.0.0.1:6443
  name: default
contexts:
- context:
    cluster: default
    user: default
  name: default
current-context: default
kind: Config
preferences: {}
users:
- name: default
  user:
    client-certificate-data: Q0VSVA==
    client-key-data: S0VZ
";

const OURS: [&str; 3] = [
    "- cluster:
    certificate-authority-data: Q0E=
    server: https://nas.home.arpa:6443
  name: home
",
    "- context:
    cluster: home
    user: home
  name: home
",
    "- name: home
  user:
    client-certificate-data: Q0VSVA==
    client-key-data: S0VZ
",
];

/// As a person keeps it: comments, an order of its own, other indents, fields nobody knows.
const KEPT: &str = "# my clusters
kind: Config
apiVersion: v1
x-unknown: { a: 1, when: no }

users:
  # the work one
  - name: work
    user:
      exec: # asks the browser
        apiVersion: client.authentication.k8s.io/v1
        command: sso
        args: [\"-l\", yes, \"0123\"]
        interactiveMode: IfAvailable
  # no more users
contexts:
- name: work   # default
  context: { cluster: work, user: work, namespace: prod }
current-context: work
clusters:
- cluster:
    server: https://work.example
    extensions:
    - extension:
        last-update: Mon, 01 Jan 2026
        provider: minikube
      name: cluster_info
  name: work
";

fn entry() -> Entry {
    Entry::new(&Secret::new(K3S), "https://nas.home.arpa:6443", "home").expect("an entry")
}

fn merged(existing: &str) -> (String, bool) {
    match entry().merge(existing, Current::IfNone).expect("merged") {
        Merged::Changed { text, rewritten } => (text.expose().to_owned(), rewritten),
        Merged::Unchanged => panic!("unchanged"),
    }
}

#[test]
fn names_and_address_are_rewritten() {
    let alone = entry().alone(Current::IfNone);
    let text = alone.expose();
    assert!(OURS.iter().all(|part| text.contains(part)), "{text}");
    assert!(text.contains("current-context: home\n") && !text.contains("127.0.0.1"), "{text}");
    for (bad, server) in [
        ("", "https://a"),
        ("geheim", "https://a"),
        ("clusters: [geheim", "https://a"),
        (K3S, "nas.home.arpa:6443"),
        (&*K3S.replace("certificate-authority-data", "certificate-authority"), "https://a"),
        (&*K3S.replace("user: default", "user: other"), "https://a"),
        (&*K3S.replace("client-", "other-"), "https://a"),
    ] {
        let error = Entry::new(&Secret::new(bad), server, "home").err().expect("refused");
        assert!(matches!(error, MergeError::Source(_)) && !error.to_string().contains("geheim"), "{error}");
    }
}

#[test]
fn a_node_cannot_have_commands_run_here() {
    let planted = K3S
        .replace("    client-key-data", "    exec: {command: geheim}\n    client-key-data")
        .replace("    server:", "    proxy-url: geheim\n    insecure-skip-tls-verify: true\n    server:");
    let planted = Entry::new(&Secret::new(planted), "https://nas.home.arpa:6443", "home").expect("an entry");
    assert_eq!(planted.alone(Current::Always), entry().alone(Current::Always));
}

#[test]
fn what_is_there_stays_to_the_letter() {
    let (text, rewritten) = merged(KEPT);
    assert!(!rewritten, "{text}");
    let diff = similar::TextDiff::from_lines(KEPT, &text);
    let added: Vec<&str> = diff
        .iter_all_changes()
        .filter(|change| change.tag() != similar::ChangeTag::Equal)
        .map(|change| {
            assert_eq!(change.tag(), similar::ChangeTag::Insert, "{change}");
            change.value()
        })
        .collect();
    assert_eq!(added.len(), 4 + 4 + 4, "{text}");
    assert!(text.contains("        interactiveMode: IfAvailable\n  - name: home\n    user:\n"), "{text}");
    assert!(text.contains("current-context: work\n"), "{text}");
    // A second merge finds nothing to do, and another one asks for the current context alone.
    assert_eq!(entry().merge(&text, Current::IfNone), Ok(Merged::Unchanged));
    assert_eq!(entry().merge(&text, Current::Never), Ok(Merged::Unchanged));
    let current = text.replace("current-context: work", "current-context: home");
    let expected = Merged::Changed { text: Secret::new(current.clone()), rewritten: false };
    assert_eq!(entry().merge(&text, Current::Always), Ok(expected));
    assert_eq!(entry().merge(&current, Current::Always), Ok(Merged::Unchanged));
}

#[test]
fn kubectls_own_files_are_edited() {
    for empty in ["[]", "null", "", "{}"] {
        let text = format!(
            "clusters: {empty}\ncontexts: {empty}\ncurrent-context: \"\"\nkind: Config\nusers: {empty}\n"
        );
        if empty == "{}" {
            assert!(matches!(entry().merge(&text, Current::IfNone), Err(MergeError::Broken(_))));
            continue;
        }
        let (after, rewritten) = merged(&text);
        let [clusters, contexts, users] = OURS;
        assert!(!rewritten, "{after}");
        assert_eq!(
            after,
            format!(
                "clusters:\n{clusters}contexts:\n{contexts}current-context: home\nkind: Config\nusers:\n{users}"
            )
        );
    }
    for nothing in ["", "\n\n", "# nothing here\n", "---\n"] {
        assert_eq!(
            merged(nothing),
            (entry().alone(Current::IfNone).expose().to_owned(), false),
            "{nothing:?}"
        );
    }
    let (after, rewritten) = merged("kind: Config\npreferences:\n  colors: true");
    assert!(
        !rewritten && after.starts_with("kind: Config\npreferences:\n  colors: true\nclusters:\n"),
        "{after}"
    );
}

#[test]
fn a_new_cluster_takes_the_place_of_the_old_one_and_nothing_else() {
    let (text, _) = merged(KEPT);
    let old = text
        .replace(
            "certificate-authority-data: Q0E=",
            "certificate-authority: /old/ca\n    proxy-url: socks5://localhost:1080",
        )
        .replace("    cluster: home\n", "    cluster: home\n    namespace: argocd\n")
        .replace("client-key-data: S0VZ", "client-key-data: T0xE\n      token: old");
    let (new, rewritten) = merged(&old);
    assert!(!rewritten, "{new}");
    assert!(new.contains("proxy-url: socks5://localhost:1080") && new.contains("namespace: argocd"), "{new}");
    assert!(!new.contains("/old/ca") && !new.contains("T0xE") && !new.contains("token: old"), "{new}");
    assert!(new.contains("# the work one") && new.contains("# no more users"), "{new}");
    assert_eq!(entry().merge(&new, Current::IfNone), Ok(Merged::Unchanged));
}

#[test]
fn what_cannot_be_edited_is_written_anew_with_the_same_meaning() {
    let json = r#"{"kind": "Config",
        "clusters": [{"name": "work", "cluster": {"server": "https://w", "x": [1, "no", null]}}],
        "contexts": [], "users": [], "current-context": "work"}"#;
    let aliases =
        "kind: Config\nclusters: &c\n- {name: work, cluster: &w {server: a}}\nx: *c\ncurrent-context: work\n";
    for existing in [json, aliases] {
        let (text, _) = merged(existing);
        let (before, after) = (parse(existing).expect("YAML"), parse(&text).expect("YAML"));
        assert_eq!(after, entry().merged(&before, Current::IfNone), "{text}");
        assert_eq!(after["clusters"][0], before["clusters"][0]);
        assert_eq!(after["x"], before["x"], "{text}");
        assert_eq!(entry().merge(&text, Current::IfNone), Ok(Merged::Unchanged));
    }
    assert!(merged(json).1);
}

#[test]
fn foreign_entries_of_the_same_name_are_not_taken() {
    let with = |entries: &str| entry().merge(&format!("kind: Config\n{entries}"), Current::IfNone);
    for taken in [
        "contexts: [{name: home, context: {cluster: work, user: home}}]",
        "clusters: [{name: home, cluster: {server: a}}]",
        "users: [{name: home, user: {token: geheim}}]",
    ] {
        let error = with(taken).expect_err("refused");
        assert!(
            matches!(error, MergeError::NameTaken { .. }) && !error.to_string().contains("geheim"),
            "{error}"
        );
    }
}

#[test]
fn broken_files_are_refused_without_a_word_of_theirs() {
    for broken in [
        "users: [{name: geheim",
        "geheim",
        "- geheim",
        "kind: Pod\nmetadata: {name: geheim}",
        "contexts: geheim",
        "contexts:\n- geheim",
        "users:\n- name: a\n  user: geheim",
        "a: 1\na: geheim",
        "kind: Config\n---\nkind: Config\nx: geheim\n",
        "kind: Config\n\tgeheim: x",
    ] {
        let error = entry().merge(broken, Current::IfNone).expect_err("refused");
        assert!(matches!(error, MergeError::Broken(_)), "{broken:?} {error:?}");
        assert!(!format!("{error} {error:?}").contains("geheim"), "{error:?}");
        assert!(survey(broken, "home").is_err());
    }
}
