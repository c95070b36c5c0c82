//! Roles from text to plan, with a resource type of the tests' own.

use serde::Deserialize;

use super::*;
use crate::diagnostic::Diagnostics;
use crate::inventory::document::plain;
use crate::inventory::{Inventory, Vars, claimed, load::parse};
use crate::probe::{Answers, Question, Unanswered};
use crate::resource::Verdict;
use crate::secret::Secrets;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Note {
    path: String,
    #[serde(default)]
    content: String,
    #[serde(default)]
    names: Vec<String>,
    mode: Option<u32>,
    #[serde(default)]
    secret: bool,
}

impl Resource for Note {
    fn name(&self) -> String {
        self.path.clone()
    }
    fn questions(&self) -> Vec<Question> {
        Vec::new()
    }
    fn diff(&self, _: &Answers) -> Result<Verdict, Unanswered> {
        Ok(Verdict::Converged)
    }
}

const TYPES: Types = Types {
    names: &["note", "bare"],
    build: |kind, table| {
        if kind == "bare" {
            #[derive(Debug, Deserialize)]
            #[serde(deny_unknown_fields)]
            struct Bare {
                #[allow(dead_code)]
                path: String,
            }
            let fail = |e: serde_path_to_error::Error<toml::de::Error>| BuildError {
                path: e.path().to_string(),
                message: e.inner().to_string().trim().to_owned(),
            };
            serde_path_to_error::deserialize::<_, Bare>(table.clone()).map_err(fail)?;
        }
        match serde_path_to_error::deserialize::<_, Note>(table) {
            Ok(note) => Ok(Box::new(note)),
            Err(e) => Err(BuildError {
                path: e.path().to_string(),
                message: e.inner().to_string().trim().to_owned(),
            }),
        }
    },
};

const INVENTORY: &str = r#"
[cluster]
name = "home"
[groups.all]
roles = ["late", "base"]
[nodes.a]
host = "a.home.arpa"
arch = "arm64"
os = "debian-13"
[nodes.b]
host = "b.home.arpa"
arch = "amd64"
os = "debian-13"
vars.volumes = ["x", "y z"]
"#;

const BASE: &str = r#"
description = "d"
[vars.volumes]
type = "list"
default = ["one"]
[vars.mode]
type = "int"
default = 420
[[resource]]
when = "facts.arch == 'arm64'"
note = { path = "/arm" }
[[resource]]
for_each = "volumes"
notify = ["r"]
note = { path = "/v/{{ item }}", names = "{{ volumes }}", mode = "{{ mode }}" }
[[resource]]
note = { path = "/hosts", template = "hosts.j2" }
[[resource]]
note = { path = "/token", content = "t={{ secret('token') }}", mode = "{{ none }}" }
[[handler]]
name = "r"
restart = "{{ node.name }}.service"
"#;

const HOSTS: &str = "{% for n in nodes %}\n{{ n.host }} {{ n.hostname }}\n{% endfor %}\n";

fn files(roles: &[(&str, &str)], templates: &[(&str, &str)]) -> Files {
    let source = |prefix: &str, name: &str, text: &str| {
        (name.to_owned(), Source::new(format!("{prefix}/{name}"), text))
    };
    Files {
        roles: roles.iter().map(|(name, text)| source("roles", name, text)).collect(),
        templates: templates.iter().map(|(name, text)| source("templates", name, text)).collect(),
    }
}

fn inventory(text: &str) -> Inventory {
    parse(Source::new("datahub.toml", text), Default::default()).unwrap_or_else(|e| panic!("{}", plain(&e)))
}

fn load(roles: &[(&str, &str)], templates: &[(&str, &str)]) -> Result<Roles, Diagnostics> {
    Roles::load_with(files(roles, templates), None, TYPES)
}

fn plan_of(roles: &Roles, node: &str, only: Option<&[String]>) -> Result<NodePlan, Diagnostics> {
    let inventory = inventory(INVENTORY);
    let facts = claimed(&inventory.nodes[node]);
    plan(&inventory, roles, node, &facts, &Vars::new(), only, &Secrets::placeholder())
}

const LATE: &str = "description = \"l\"\nafter = [\"base\"]\n";

#[test]
fn a_plan_is_rendered_and_in_order() {
    let roles = load(&[("base", BASE), ("late", LATE)], &[("base/hosts.j2", HOSTS)])
        .unwrap_or_else(|e| panic!("{}", plain(&e)));
    let planned = plan_of(&roles, "b", None).unwrap_or_else(|e| panic!("{}", plain(&e)));
    let names: Vec<_> = planned.roles.iter().map(|role| role.name.as_str()).collect();
    assert_eq!(names, ["base", "late"], "`after` also holds within a node");
    assert_eq!(planned.roles[1].after, [After { role: "base".into(), node: None }]);
    let seen: Vec<_> = planned.roles[0].resources.iter().map(|r| format!("{:?}", r.resource)).collect();
    let note = |path: &str, content: &str, names: &str, mode: &str, secret: bool| {
        format!(
            "Note {{ path: {path:?}, content: {content:?}, names: {names}, mode: {mode}, secret: {secret} }}"
        )
    };
    let both = "[\"x\", \"y z\"]";
    assert_eq!(
        seen,
        [
            note("/v/x", "", both, "Some(420)", false),
            note("/v/y z", "", both, "Some(420)", false),
            note("/hosts", "a.home.arpa a\nb.home.arpa b\n", "[]", "None", false),
            note("/token", "t=placeholder-token", "[]", "None", true),
        ]
    );
    assert_eq!(planned.roles[0].resources[0].notify, ["r"]);
    assert_eq!(planned.roles[0].handlers["r"].action, Action::Restart("b.service".into()));
    assert_eq!(planned.roles[0].resources[0].place.to_string(), "roles/base:15");

    let arm = plan_of(&roles, "a", Some(&["base".to_owned()])).unwrap_or_else(|e| panic!("{}", plain(&e)));
    assert_eq!(arm.roles.len(), 1);
    assert_eq!(arm.roles[0].resources[0].label(), "note /arm");
}

#[test]
fn mistakes_in_a_role_are_told_at_once() {
    let text = r#"
descripton = "d"
after = ["bas", "late"]
[vars.zone]
type = "strin"
[vars.count]
type = "int"
default = "3"
[vars.facts]
type = "table"
[[resource]]
when = "a ="
notify = ["restrat"]
note = { path = "{{ x", template = "host.j2" }
[[resource]]
note = {}
noet = {}
[[resource]]
when = true
[[handler]]
name = "restart"
restart = "x"
reboot = true
[[handler]]
name = "restart"
command = "x"
"#;
    let mistakes =
        load(&[("base", text), ("late", LATE)], &[("base/hosts.j2", "ok\n{% if %}")]).expect_err("mistakes");
    assert_eq!(
        plain(&mistakes),
        "\
roles/base:1:1: role `base` has no `description`
 ^ `description` is missing
 ? add a line like: description = \"What the role does\"
roles/base:2:1: unknown key `descripton` in role `base`
 ^ not a key here
 ? did you mean `description`?
roles/base:3:10: unknown role `bas`
 ^ no such role
 ? did you mean `base`?
roles/base:5:8: unknown type `strin`
 ^ no such type
 ? did you mean `string`?
roles/base:8:11: `count` must be a whole number, not a string
 ^ this is a string
 ? role base declares it at roles/base:6
roles/base:9:7: `facts` is a name that templates already have
 ^ reserved
 ? choose another name
roles/base:12:11: syntax error: unexpected input after expression
 ^ here
roles/base:13:11: unknown handler `restrat`
 ^ no such handler
 ? did you mean `restart`?
roles/base:14:21: syntax error: unexpected end of input, expected end of variable block
 ^ here
roles/base:14:36: the template `base/host.j2` does not exist
 ^ no such file
 ? did you mean `hosts.j2`?
roles/base:17:1: unknown resource type `noet`
 ^ no such resource type
 ? did you mean `note`?
roles/base:18:1: a resource without a type
 ? write one type: file = { path = \"…\" }
roles/base:19:8: `when` must be a string, not true or false
 ^ this is true or false
roles/base:23:1: a handler does exactly one thing
 ? give one of: restart, reload, daemon-reload, command, reboot
roles/late:2:10: roles wait for each other: base → late → base
 ^ closes the circle
 ? take one of these roles out of an `after`
templates/base/hosts.j2:2:7: syntax error: unexpected end of block
 ^ here
"
    );
}

#[test]
fn mistakes_while_planning_have_their_places() {
    let text = r#"
description = "d"
[vars.timezone]
type = "string"
default = "x"
[[resource]]
note = { path = "/a", content = "zone {{ timezon }}" }
[[resource]]
note = { path = "/b", pth = "x" }
[[resource]]
note = { path = "/c", names = ["x", 1] }
[[resource]]
note = { path = "/d", template = "t.j2" }
[[resource]]
note = { path = "/e" }
[[resource]]
note = { path = "/e" }
[[resource]]
when = "timezone"
note = { path = "/f" }
[[resource]]
for_each = "timezone"
note = { path = "/g" }
[[resource]]
bare = { path = "{{ secret('x') }}" }
[[resource]]
note = { content = "no path" }
[[resource]]
note = { path = "/{{ secret('x') }}" }
[[resource]]
note = { path = "/i", mode = "{{ secret('x') }}" }
"#;
    let roles = load(&[("base", text), ("late", LATE)], &[("base/t.j2", "one\n{{ node.nmae }}\n")])
        .unwrap_or_else(|e| panic!("{}", plain(&e)));
    let mistakes = plan_of(&roles, "a", None).expect_err("mistakes");
    assert_eq!(
        plain(&mistakes),
        "\
roles/base:7:42: `timezon` is undefined
 ^ here
 ? did you mean `timezone`?
roles/base:9:23: unknown key `pth` in note
 ^ not a key here
 ? did you mean `path`?
roles/base:11:37: note: invalid type: integer `1`, expected a string
 ^ here
templates/base/t.j2:2:4: `node.nmae` is undefined
 ^ here
roles/base:17:1: note /e is planned twice: at roles/base:15 and at roles/base:17
 ^ the second time
 ? merge the two, or tell them apart with `when`
roles/base:19:9: a condition must be true or false, not a string
 ^ here
 ? compare it: `x == 1`, `list | length > 0`
roles/base:22:13: `for_each` needs a list, not a string
 ^ here
roles/base:25:1: a bare may not hold a secret
 ^ it would be shown
 ? use secret() in a type that has a `secret` field, such as file
roles/base:27:1: note: missing field `path`
 ^ here
roles/base:29:1: the name of a note may not hold a secret
 ^ its name is shown
 ? names stand in plans and logs: use secret() in the content only
roles/base:31:30: note: invalid type: string \"<secret>\", expected u32
 ^ here
"
    );
}

#[test]
fn inventory_and_roles_must_agree() {
    let roles = load(
        &[
            ("base", "description = \"d\"\n[vars.timezone]\ntype = \"string\"\n[vars.n]\ntype = \"int\"\n"),
            ("late", "description = \"d\"\n[vars.n]\ntype = \"bool\"\n"),
        ],
        &[],
    )
    .unwrap_or_else(|e| panic!("{}", plain(&e)));
    let nodes = "[nodes.a]\nhost = \"a\"\narch = \"arm64\"\nos = \"debian-13\"\n";
    let cases = [
        (
            format!(
                "[cluster]\nname = \"x\"\nvars.timezon = \"x\"\nvars.timezone = 3\n[groups.all]\nroles = [\"base\"]\n{nodes}"
            ),
            "\
datahub.toml:3:6: unknown variable `timezon`
 ^ no role of any node declares it
 ? did you mean `timezone`?
datahub.toml:4:17: `timezone` must be a string, not a whole number
 ^ this is a whole number
 ? role base declares it at roles/base:2
",
        ),
        (
            format!(
                "[cluster]\nname = \"x\"\n[groups.all]\nroles = [\"bsae\"]\n{nodes}roles = [\"late\", \"lat\"]\nvars.x = 1\n"
            ),
            "\
datahub.toml:4:10: unknown role `bsae`
 ^ no such role
 ? did you mean `base`?
datahub.toml:9:18: unknown role `lat`
 ^ no such role
 ? did you mean `late`?
",
        ),
        (
            format!("[cluster]\nname = \"x\"\n[groups.all]\nroles = [\"base\", \"late\"]\n{nodes}"),
            "\
roles/late:2:7: `n` is true or false here and a whole number at roles/base:4
 ^ node a has both roles
 ? give both the same type, or one of them another name
",
        ),
    ];
    for (text, expected) in cases {
        let mistakes = check(&inventory(&text), &roles).expect_err("mistakes");
        assert_eq!(plain(&mistakes), expected);
    }
}

#[test]
fn circles_are_refused() {
    let role = |after: &str| format!("description = \"d\"\nafter = [\"{after}\"]\n");
    let (a, b, c) = (role("b"), role("c"), role("b"));
    let mistakes = load(&[("a", &a), ("b", &b), ("c", &c)], &[]).expect_err("a circle");
    assert_eq!(
        plain(&mistakes),
        "roles/c:2:10: roles wait for each other: b → c → b\n ^ closes the circle\n ? take one of these roles out of an `after`\n"
    );
}

#[test]
fn a_users_files_stand_before_the_built_in_ones() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir_all(dir.path().join("roles/base")).expect("made");
    std::fs::write(dir.path().join("roles/base/role.toml"), "description = \"mine\"\n").expect("written");
    let roles = Roles::load_with(files(&[("base", BASE), ("late", LATE)], &[]), Some(dir.path()), TYPES)
        .unwrap_or_else(|e| panic!("{}", plain(&e)));
    assert_eq!(roles.roles["base"].description, "mine");
    assert_eq!(roles.roles.len(), 2);
}

#[test]
fn a_handler_whose_condition_is_false_is_not_notified() {
    let text = r#"
description = "d"
[[resource]]
notify = ["reboot", "sshd"]
note = { path = "/cmdline" }
[[handler]]
name = "reboot"
when = "not facts.cgroup_memory"
reboot = true
[[handler]]
name = "sshd"
reload = "ssh.service"
undo = "rm -f /etc/{{ node.name }}"
"#;
    let roles = load(&[("base", text), ("late", LATE)], &[]).unwrap_or_else(|e| panic!("{}", plain(&e)));
    let inventory = inventory(INVENTORY);
    for (cgroup_memory, notified) in [(false, vec!["reboot", "sshd"]), (true, vec!["sshd"])] {
        let facts = crate::probe::Facts { cgroup_memory, ..claimed(&inventory.nodes["a"]) };
        let planned = plan(&inventory, &roles, "a", &facts, &Vars::new(), None, &Secrets::placeholder())
            .expect("planned");
        let base = &planned.roles[0];
        assert_eq!(base.resources[0].notify, notified);
        assert_eq!(base.handlers.len(), 2, "what an earlier run left pending still has its handler");
        assert_eq!(base.handlers["sshd"].undo.as_deref(), Some("rm -f /etc/a"));
    }
}

/// The built-in roles: what takes a member of the cluster out of service says so to the cluster, and a restart knows what
/// its unit's log says in vain.
#[test]
fn restarts_and_reboots_of_members_of_the_cluster() {
    let roles = Roles::load(Files::builtin(), None).unwrap_or_else(|e| panic!("{}", plain(&e)));
    let node = |name: &str, roles: &str| {
        format!(
            "[nodes.{name}]\nhost = \"{name}.home.arpa\"\nhostname = \"h-{name}\"\narch = \"amd64\"\nos = \"debian-13\"\n\
             roles = [{roles}]\n"
        )
    };
    let nodes = [
        node("alone", "\"base\""),
        node("agent", "\"base\", \"k3s-agent\""),
        node("server", "\"base\", \"k3s-server\""),
    ];
    let text = format!("[cluster]\nname = \"x\"\n[k3s]\nversion = \"v1.36.3+k3s1\"\n{}", nodes.concat());
    let mut inventory = inventory(&text);
    inventory.lock.suppose("v1.36.3+k3s1");
    let handlers = |name: &str| {
        let facts = claimed(&inventory.nodes[name]);
        let planned = plan(&inventory, &roles, name, &facts, &Vars::new(), None, &Secrets::placeholder());
        let planned = planned.unwrap_or_else(|e| panic!("{}", plain(&e)));
        planned.roles.into_iter().flat_map(|role| role.handlers).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(handlers("alone")["reboot"].cluster, None);
    for (name, drain) in [("agent", true), ("server", false)] {
        let member = ClusterNode { server: "server".to_owned(), name: format!("h-{name}"), drain };
        let handlers = handlers(name);
        assert_eq!(handlers["reboot"].cluster.as_ref(), Some(&member));
        assert_eq!(handlers["restart"].cluster.as_ref(), Some(&member));
        assert_eq!(handlers["sshd"].cluster, None);
        // While a server starts, its own agent says that it does not answer.
        assert_eq!(handlers["restart"].fails_on.contains_key("failed to get CA certs"), drain);
        let advice = &handlers["restart"].fails_on["Node password rejected"];
        assert!(advice.contains(&format!("datahub remove {name} --gone")), "{advice}");
        assert!(handlers["reboot"].fails_on.is_empty() && handlers["sshd"].fails_on.is_empty());
    }
}
