//! Variables: what roles declare, what the inventory sets, and which value wins.
//!
//! Role default < cluster < group (in the node's order, later wins) < node < `--set`.

use indexmap::IndexMap;

use super::{Inventory, Node, Vars};
use crate::diagnostic::{Diagnostic, Diagnostics, Place, suggest};

/// The types a role may give a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VarType {
    String,
    Bool,
    Int,
    List,
    Table,
}

impl VarType {
    /// The names as written in a role.
    pub const NAMES: &[&str] = &["string", "bool", "int", "list", "table"];

    pub fn parse(name: &str) -> Option<Self> {
        let all = [Self::String, Self::Bool, Self::Int, Self::List, Self::Table];
        Self::NAMES.iter().position(|n| *n == name).map(|at| all[at])
    }

    /// "a string", for messages.
    pub fn phrase(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Bool => "true or false",
            Self::Int => "a whole number",
            Self::List => "a list",
            Self::Table => "a table",
        }
    }

    pub fn admits(self, value: &toml::Value) -> bool {
        match self {
            Self::String => value.is_str(),
            Self::Bool => value.is_bool(),
            Self::Int => value.is_integer(),
            Self::List => value.is_array(),
            Self::Table => value.is_table(),
        }
    }
}

/// A variable as a role declares it.
#[derive(Debug, Clone)]
pub struct Declaration {
    pub role: String,
    pub kind: VarType,
    /// `None`: the inventory must set it.
    pub default: Option<toml::Value>,
    pub doc: String,
    /// The only values allowed; empty: any of the type.
    pub choices: Vec<toml::Value>,
    pub place: Place,
}

impl Declaration {
    /// Why a value may not stand here: the mistake without its place.
    pub fn check(&self, name: &str, value: &toml::Value) -> Result<(), Diagnostic> {
        if !self.kind.admits(value) {
            let seen = phrase(value);
            let message = format!("`{name}` must be {}, not {seen}", self.kind.phrase());
            return Err(Diagnostic::new(message)
                .label(format!("this is {seen}"))
                .help(format!("role {} declares it at {}", self.role, self.place)));
        }
        if self.choices.is_empty() || self.choices.contains(value) {
            return Ok(());
        }
        let choices: Vec<String> = self.choices.iter().map(plain).collect();
        let message = format!("`{name}` may not be {value}");
        Err(Diagnostic::new(message)
            .label("not one of the choices")
            .help(suggest(&plain(value), choices.iter().map(String::as_str))))
    }
}

/// What a value is, in a sentence.
fn phrase(value: &toml::Value) -> &'static str {
    match value {
        toml::Value::String(_) => "a string",
        toml::Value::Integer(_) => "a whole number",
        toml::Value::Float(_) => "a fraction",
        toml::Value::Boolean(_) => "true or false",
        toml::Value::Datetime(_) => "a date",
        toml::Value::Array(_) => "a list",
        toml::Value::Table(_) => "a table",
    }
}

fn plain(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The declarations of several roles by variable. The first role's default counts.
pub type Declarations = IndexMap<String, Declaration>;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    RoleDefault {
        role: String,
        place: Place,
    },
    Cluster(Option<Place>),
    Group(String, Option<Place>),
    Node(Option<Place>),
    /// `--set NAME=VALUE`.
    Set,
}

impl Origin {
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::RoleDefault { place, .. } => Some(place),
            Self::Cluster(place) | Self::Group(_, place) | Self::Node(place) => place.as_ref(),
            Self::Set => None,
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::RoleDefault { role, .. } => write!(f, "default of role {role}"),
            Self::Cluster(_) => f.write_str("cluster"),
            Self::Group(group, _) => write!(f, "group {group}"),
            Self::Node(_) => f.write_str("node"),
            Self::Set => f.write_str("--set"),
        }
    }
}

/// One place variables are set in, with the prefix of its paths in [`super::Spans`].
pub(crate) struct Layer<'a> {
    pub prefix: String,
    pub vars: &'a Vars,
    origin: fn(String, Option<Place>) -> Origin,
    name: String,
}

impl Layer<'_> {
    pub fn path(&self, var: &str) -> String {
        format!("{}.vars.{var}", self.prefix)
    }
}

/// Every layer of the inventory that holds for a node, weakest first.
pub(crate) fn layers<'a>(inventory: &'a Inventory, node: &'a Node) -> Vec<Layer<'a>> {
    let mut layers = vec![Layer {
        prefix: "cluster".to_owned(),
        vars: &inventory.cluster.vars,
        origin: |_, place| Origin::Cluster(place),
        name: String::new(),
    }];
    for name in &node.groups {
        if let Some(group) = inventory.groups.get(name) {
            layers.push(Layer {
                prefix: format!("groups.{name}"),
                vars: &group.vars,
                origin: Origin::Group,
                name: name.clone(),
            });
        }
    }
    layers.push(Layer {
        prefix: format!("nodes.{}", node.name),
        vars: &node.vars,
        origin: |_, place| Origin::Node(place),
        name: String::new(),
    });
    layers
}

/// A node's variables, in the order declared, each with its origin.
///
/// Only declared variables appear. Mistakes: a wrong type or choice, a required variable that nothing sets.
pub fn merged(
    inventory: &Inventory,
    node: &Node,
    declared: &Declarations,
    set: &Vars,
) -> Result<IndexMap<String, (toml::Value, Origin)>, Diagnostics> {
    let layers = layers(inventory, node);
    let mut errors = Vec::new();
    let mut merged = IndexMap::new();
    for (name, declaration) in declared {
        let from_inventory = || {
            layers.iter().rev().find_map(|layer| {
                let value = layer.vars.get(name)?.clone();
                Some((value, (layer.origin)(layer.name.clone(), inventory.value_place(&layer.path(name)))))
            })
        };
        let default = || {
            let origin =
                Origin::RoleDefault { role: declaration.role.clone(), place: declaration.place.clone() };
            Some((declaration.default.clone()?, origin))
        };
        let value = set.get(name).map(|value| (value.clone(), Origin::Set));
        let Some((value, origin)) = value.or_else(from_inventory).or_else(default) else {
            errors.push(
                Diagnostic::new(format!("node {} has no value for `{name}`", node.name))
                    .at(declaration.place.clone())
                    .label(format!("role {} needs it", declaration.role))
                    .help(format!(
                        "set `{name}` under [nodes.{}.vars], a group's vars or [cluster.vars]",
                        node.name
                    )),
            );
            continue;
        };
        if let Err(mut error) = declaration.check(name, &value) {
            error.place = origin.place().cloned();
            if origin == Origin::Set {
                error.message = format!("--set {name}: {}", error.message);
            }
            errors.push(error);
        }
        merged.insert(name.clone(), (value, origin));
    }
    if errors.is_empty() { Ok(merged) } else { Err(Diagnostics(errors)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Source;
    use crate::inventory::document::plain;

    const TEXT: &str = r#"
[cluster]
name = "home"
[cluster.vars]
zone = "cluster"
[groups.all.vars]
zone = "all"
[groups.one.vars]
zone = "one"
[groups.two.vars]
zone = "two"
[nodes.a]
host = "a.home.arpa"
arch = "arm64"
os = "debian-13"
groups = ["two", "one"]
[nodes.b]
host = "b.home.arpa"
arch = "arm64"
os = "debian-13"
vars.zone = "node"
vars.count = "3"
"#;

    fn declared(kind: VarType, default: Option<&str>) -> Declaration {
        Declaration {
            role: "base".into(),
            kind,
            default: default.map(toml::Value::from),
            doc: String::new(),
            choices: Vec::new(),
            place: Place::new(&Source::new("role.toml", "\n[vars.x]"), 1..9),
        }
    }

    #[test]
    fn the_nearest_layer_wins() {
        let source = Source::new("datahub.toml", TEXT);
        let inventory = crate::inventory::load::parse(source, "".into()).expect("valid");
        let vars: Declarations = [
            ("zone".to_owned(), declared(VarType::String, Some("default"))),
            ("other".to_owned(), declared(VarType::String, Some("default"))),
        ]
        .into_iter()
        .collect();
        let set: Vars = [("zone".to_owned(), toml::Value::from("set"))].into_iter().collect();
        let empty = Vars::new();
        for (node, set, value, origin, line) in [
            ("a", &empty, "one", "group one", Some(9)),
            ("b", &empty, "node", "node", Some(21)),
            ("b", &set, "set", "--set", None),
        ] {
            let merged = merged(&inventory, &inventory.nodes[node], &vars, set).expect("valid");
            let (seen, from) = &merged["zone"];
            let at = from.place().map(|place| place.source.position(place.span.start).0);
            assert_eq!((seen.as_str(), from.to_string().as_str(), at), (Some(value), origin, line));
            assert_eq!(merged["other"].1.to_string(), "default of role base");
        }
    }

    #[test]
    fn wrong_and_missing_values_are_told() {
        let source = Source::new("datahub.toml", TEXT);
        let inventory = crate::inventory::load::parse(source, "".into()).expect("valid");
        let mut zone = declared(VarType::String, None);
        zone.choices = vec!["nods".into()];
        let vars: Declarations = [
            ("zone".to_owned(), zone),
            ("count".to_owned(), declared(VarType::Int, None)),
            ("needed".to_owned(), declared(VarType::List, None)),
        ]
        .into_iter()
        .collect();
        let errors = merged(&inventory, &inventory.nodes["b"], &vars, &Vars::new()).expect_err("mistakes");
        assert_eq!(
            plain(&errors),
            "\
datahub.toml:21:13: `zone` may not be \"node\"
 ^ not one of the choices
 ? did you mean `nods`?
datahub.toml:22:14: `count` must be a whole number, not a string
 ^ this is a string
 ? role base declares it at role.toml:2
role.toml:2:1: node b has no value for `needed`
 ^ role base needs it
 ? set `needed` under [nodes.b.vars], a group's vars or [cluster.vars]
"
        );
    }
}
