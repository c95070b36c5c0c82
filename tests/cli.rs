//! What the command line says: help, usage errors, and mistakes in inventories and roles, as a person sees them.
//! To write the snapshots anew: INSTA_UPDATE=always cargo test --test cli. Then read every changed line.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::CommandFactory as _;

/// A project in a folder of its own.
struct Project(tempfile::TempDir);

const INVENTORY: &str = r#"
[cluster]
name = "home"

[ssh]
user = "kim"

[groups.all]
roles = ["base"]

[groups.workers]

[groups.spare]

[nodes.alpha]
host = "alpha.invalid"
arch = "arm64"
os = "debian-13"
groups = ["workers"]
vars.ipv6 = false

[nodes.beta]
host = "beta.invalid"
arch = "amd64"
os = "debian-12"
"#;

impl Project {
    fn new(inventory: &str) -> Self {
        Self(tempfile::tempdir().expect("a folder")).with("inventory/datahub.toml", inventory)
    }

    fn with(self, path: &str, text: &str) -> Self {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a file")).expect("made");
        std::fs::write(path, text).expect("written");
        self
    }

    /// How datahub ends and what it says, paths made the same everywhere.
    fn run(&self, args: &[&str]) -> String {
        run(self.0.path(), args)
    }
}

fn run(folder: &Path, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_datahub"));
    command.args(args).current_dir(folder).env("HOME", folder).env("LC_ALL", "C.UTF-8");
    for variable in ["DATAHUB_INVENTORY", "DATAHUB_ROLES", "DATAHUB_FORKS", "NO_COLOR", "CLICOLOR_FORCE"] {
        command.env_remove(variable);
    }
    let output = command.output().expect("it runs");
    let text = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).expect("UTF-8");
        assert!(!text.contains('\u{1b}'), "escapes: {text:?}");
        text.replace(&folder.display().to_string(), "[folder]")
    };
    let (out, said) = (text(output.stdout), text(output.stderr));
    let mut shown = format!("$ datahub {}\n", args.join(" "));
    shown.push_str(&out);
    if !said.is_empty() {
        shown.push_str(&format!("--- stderr\n{said}"));
    }
    let code = output.status.code().map_or("by a signal".to_owned(), |code| code.to_string());
    format!("{}\n--- exit {code}\n", shown.trim_end())
}

/// Every command and subcommand, as typed.
fn commands(command: &clap::Command, path: &[String], all: &mut Vec<Vec<String>>) {
    all.push(path.to_vec());
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let path = [path, &[sub.get_name().to_owned()]].concat();
        commands(sub, &path, all);
    }
}

#[test]
fn help_of_every_command() {
    let project = Project::new(INVENTORY);
    let mut all = Vec::new();
    commands(&datahub::cli::Cli::command(), &[], &mut all);
    assert!(all.len() > 10, "{all:?}");
    for path in all {
        let mut args: Vec<&str> = path.iter().map(String::as_str).collect();
        args.push("--help");
        let help = project.run(&args);
        assert!(help.ends_with("--- exit 0\n"), "{help}");
        // The same on every command: shown once, with the top one.
        let help = match help.split_once("\nGlobal options:\n") {
            Some((before, _)) if !path.is_empty() => format!("{before}\nGlobal options: …\n"),
            _ => help,
        };
        insta::assert_snapshot!(
            format!("help_{}", [&["datahub".to_owned()], &path[..]].concat().join("_")),
            help
        );
    }
}

#[test]
fn usage_errors() {
    let project = Project::new(INVENTORY);
    for (name, args) in [
        ("nothing", &[][..]),
        ("no_target", &["plan"]),
        ("unknown_nodes_and_groups", &["plan", "--node", "alhpa,beta,gamma", "--group", "wokers"]),
        ("empty_group", &["plan", "--group", "spare"]),
        ("unknown_command", &["provison", "--all"]),
        ("unknown_flag", &["plan", "--al"]),
        ("exit_code_without_dry_run", &["provision", "--all", "--detailed-exitcode"]),
        ("set_without_a_value", &["plan", "--all", "--set", "timezone"]),
        ("set_of_an_unknown_variable", &["plan", "--all", "--set", "timezon=Etc/UTC", "--set", "zzz=1"]),
        ("set_of_a_wrong_type", &["plan", "--all", "--set", "ipv6=maybe"]),
        ("unknown_role", &["plan", "--all", "--role", "bas"]),
        ("role_of_no_node", &["plan", "--all", "--role", "sbc"]),
        ("unknown_format", &["plan", "--all", "--format", "yaml"]),
        ("forks", &["plan", "--all", "--forks", "0"]),
        ("exec_without_a_command", &["exec", "--all"]),
        ("exec_without_a_target", &["exec", "--", "uptime"]),
        ("inventory_of_an_unknown_node", &["inventory", "alhpa"]),
        ("no_such_roles", &["plan", "--all", "--roles", "nowhere"]),
        ("no_such_inventory", &["validate", "--inventory", "nowhere"]),
    ] {
        let said = project.run(args);
        assert!(said.ends_with("--- exit 64\n"), "{said}");
        insta::assert_snapshot!(format!("usage_{name}"), said);
    }
    let none = project.run(&["bootstrap", "--all"]);
    insta::assert_snapshot!("usage_no_components", none);
    let elsewhere = tempfile::tempdir().expect("a folder");
    let said = run(elsewhere.path(), &["plan", "--all"]);
    insta::assert_snapshot!("usage_no_inventory", said);
}

/// All that can be found in one go in the files themselves: seven mistakes in four files.
#[test]
fn mistakes_in_files_are_told_together() {
    let inventory = r#"
[cluster]
name = "home"

[ssh]
usr = "kim"

[groups.workers]

[nodes.alpha]
host = "alpha.invalid"
arch = "x86"
os = "debian-13"
groups = ["worker"]
roles = ["web"]

[nodes.beta]
host = 7
arch = "amd64"
os = "debian-13"
roles = ["first", "second"]
"#;
    let web = r#"
description = "A web server"

[vars.port]
type = "integr"
doc = "Where it listens"

[[resource]]
notify = ["relaod"]
file = { path = "/etc/web.conf", template = "web.cnf" }

[[resource]]
file = { path = "/etc/motd", content = "{{ node.hostname" }

[[resource]]
fil = { path = "/etc/x", content = "x" }

[[handler]]
name = "reload"
reload = "web.service"
"#;
    let circle = |after: &str| {
        format!(
            "description = \"In a circle\"\nafter = [\"{after}\"]\n\n[[resource]]\nhostname = {{ name = \"x\" }}\n"
        )
    };
    let project = Project::new(inventory)
        .with("roles/web/role.toml", web)
        .with("templates/web/web.conf", "listen {{ port }}\n{% if tls %}\n")
        .with("roles/first/role.toml", &circle("second"))
        .with("roles/second/role.toml", &circle("first"));
    insta::assert_snapshot!(project.run(&["validate"]));
}

/// What only shows once both sides can be read: names and types across inventory and roles.
#[test]
fn inventory_and_roles_must_agree() {
    let variables = r#"
[cluster]
name = "home"

[cluster.vars]
timezne = "Etc/UTC"

[nodes.alpha]
host = "alpha.invalid"
arch = "amd64"
os = "debian-13"
roles = ["base"]
vars = { ipv6 = "no", swap = "on", packages = "curl" }
"#;
    insta::assert_snapshot!("variables_that_no_role_declares", Project::new(variables).run(&["validate"]));
    let roles = "[cluster]\nname = \"home\"\n\n[groups.all]\nroles = [\"bass\"]\n\n[nodes.alpha]\n\
                 host = \"alpha.invalid\"\narch = \"amd64\"\nos = \"debian-13\"\nroles = [\"spc\"]\n";
    insta::assert_snapshot!("roles_that_do_not_exist", Project::new(roles).run(&["validate"]));
}

/// What only the rendering of a plan brings out.
#[test]
fn templates_are_rendered_offline() {
    let inventory = "[cluster]\nname = \"home\"\n\n[nodes.alpha]\nhost = \"alpha.invalid\"\narch = \"amd64\"\n\
                     os = \"debian-13\"\nroles = [\"web\"]\n";
    let web = r#"
description = "A web server"

[[resource]]
file = { path = "/etc/web.conf", template = "web.conf" }

[[resource]]
file = { path = "relative", content = "{{ node.hostnam }}", mode = "rw" }

[[resource]]
file = { path = "/etc/motd", content = "x", mod = "0644" }
"#;
    let project = Project::new(inventory)
        .with("roles/web/role.toml", web)
        .with("templates/web/web.conf", "# web\nlisten {{ prot }}\n");
    insta::assert_snapshot!(project.run(&["validate"]));
}

/// Where a secret is looked for, when it is nowhere. `validate` needs none.
#[test]
fn a_secret_that_is_nowhere() {
    let inventory = "[cluster]\nname = \"home\"\n\n[nodes.alpha]\nhost = \"alpha.invalid\"\narch = \"amd64\"\n\
                     os = \"debian-13\"\nroles = [\"keyed\"]\n";
    let keyed = "description = \"Holds a secret\"\n\n[[resource]]\n\
                 file = { path = \"/etc/keyed\", mode = \"0600\", content = \"{{ secret('token') }}\" }\n";
    let project = Project::new(inventory).with("roles/keyed/role.toml", keyed);
    let said = project.run(&["validate"]);
    assert!(said.ends_with("--- exit 0\n"), "{said}");
    insta::assert_snapshot!(project.run(&["plan", "--all"]));
}

#[test]
fn toml_that_is_none() {
    insta::assert_snapshot!(Project::new("[cluster]\nname = \"home\n").run(&["validate"]));
}

#[test]
fn what_holds_offline() {
    let project = Project::new(INVENTORY);
    insta::assert_snapshot!("validate", project.run(&["validate"]));
    insta::assert_snapshot!("inventory", project.run(&["inventory"]));
    insta::assert_snapshot!("inventory_of_a_node", project.run(&["inventory", "alpha"]));
    let json = project.run(&["inventory", "alpha", "--format", "json"]);
    let json =
        json.split_once('\n').and_then(|(_, rest)| rest.split_once("--- exit 0")).expect("ends well").0;
    let value: serde_json::Value = serde_json::from_str(json).expect("JSON");
    assert_eq!(value["vars"]["ipv6"]["value"], false);
    assert_eq!(value["vars"]["ipv6"]["origin"], "node");
    assert_eq!(value["vars"]["ipv6"]["place"], "inventory/datahub.toml:20");
}

/// Nodes that cannot be reached: each is named, with where and what to try, and the exit code is 1.
#[test]
fn unreachable_nodes() {
    let said = Project::new(INVENTORY).run(&["provision", "--all"]);
    assert!(said.ends_with("--- exit 1\n"), "{said}");
    for part in ["cannot reach alpha.invalid:22", "cannot reach beta.invalid:22", "hint: ", "2 failed"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

/// The shipped inventory is valid as it stands. Until its release is pinned it is nothing for real machines: that is
/// refused without a connection, for a role that needs no file of the release it is not.
#[test]
fn the_shipped_inventory() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let project = Project::new(&std::fs::read_to_string(root.join("inventory/datahub.toml")).expect("there"));
    let said = project.run(&["validate"]);
    assert!(said.contains("inventory/datahub.toml: valid (7 nodes, "), "{said}");
    assert!(said.contains("warning: ") && said.contains("not pinned"), "{said}");
    assert!(said.contains("datahub lock") && said.ends_with("--- exit 0\n"), "{said}");
    let plan = project.run(&["plan", "--all"]);
    for command in [&["provision", "--all"][..], &["upgrade"]] {
        let said = project.run(command);
        assert!(said.contains("not pinned") && said.ends_with("--- exit 64\n"), "{said}");
    }
    insta::assert_snapshot!("unpinned_release", plan);
    let said = project.run(&["plan", "--node", "nas", "--role", "base", "--connect-timeout", "1"]);
    assert!(!said.contains("not pinned") && said.contains("cannot reach"), "{said}");
}

#[test]
fn components_are_named_as_they_are() {
    let with = |cluster: &str| {
        Project::new(&INVENTORY.replacen("[cluster]\n", &format!("[cluster]\n{cluster}\n"), 1))
    };
    let roles = "[groups.servers]\nroles = [\"k3s-server\"]\n";
    let server = |cluster: &str| {
        let text = INVENTORY.replacen("[cluster]\n", &format!("[cluster]\n{cluster}\n"), 1);
        Project::new(&text.replacen("groups = [", "groups = [\"servers\", ", 1).replacen(
            "[nodes.",
            &format!("{roles}[nodes."),
            1,
        ))
    };
    let good = "components = [\"reflector\", \"argo-cd\"]";
    for (name, project, args) in [
        ("no_target", server(good), &["bootstrap"][..]),
        ("unknown", server(good), &["bootstrap", "--only", "argocd"]),
        ("not_listed", server(good), &["bootstrap", "--only", "traefik"]),
        ("no_such_role", server("components = [\"reflectr\"]"), &["validate"]),
        ("no_server", with(good), &["validate"]),
    ] {
        let said = project.run(args);
        assert!(said.ends_with("--- exit 64\n"), "{said}");
        insta::assert_snapshot!(format!("components_{name}"), said);
    }
}
