//! The one template environment: strict, without escaping, the same for template files, fields and conditions.
//!
//! Blocks leave no blank lines behind (`trim_blocks`, `lstrip_blocks`); a file's last line end is kept.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};

use crate::diagnostic::{Source, nearest};
use crate::secret::Secrets;

/// A mistake in a template; the range is in the template's own text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub message: String,
    pub range: Option<Range<usize>>,
    pub help: Option<String>,
    /// The template file at fault; `None` for a text that is not a file.
    pub template: Option<String>,
}

impl Fault {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), range: None, help: None, template: None }
    }
}

/// Renders; one a plan, because it notes whether a secret was used.
#[derive(Debug)]
pub struct Templates {
    environment: Environment<'static>,
    used_secret: Arc<AtomicBool>,
}

/// The name minijinja gives to texts that are not files.
const ANONYMOUS: [&str; 2] = ["<string>", "<expression>"];

impl Templates {
    /// `files` by name (`base/x.j2`), for `{% include %}`; those that do not parse are left out here and
    /// found by [`Templates::check`].
    pub fn new(secrets: &Secrets, files: &BTreeMap<String, Arc<Source>>) -> Self {
        let mut environment = Environment::new();
        environment.set_debug(true);
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_formatter(|out, state, value| match value.kind() {
            // The words of TOML, JSON and YAML; minijinja would write Python's.
            ValueKind::Bool => {
                out.write_str(if value.is_true() { "true" } else { "false" }).map_err(Error::from)
            }
            ValueKind::None => Err(Error::new(
                ErrorKind::InvalidOperation,
                "none cannot be part of a text: test it with {% if %}, or give it a `default`",
            )),
            _ => minijinja::escape_formatter(out, state, value),
        });
        let mut syntax = minijinja::syntax::SyntaxConfig::builder();
        syntax.keep_trailing_newline(true).trim_blocks(true).lstrip_blocks(true);
        // Only delimiters can be wrong, and those are the default ones.
        if let Ok(syntax) = syntax.build() {
            environment.set_syntax(syntax);
        }

        let used_secret = Arc::new(AtomicBool::new(false));
        let (secrets, used) = (secrets.clone(), used_secret.clone());
        let look_up = move |name: &str| {
            used.store(true, Ordering::Relaxed);
            match secrets.get(name) {
                Ok(secret) => Ok(secret.expose().to_owned()),
                Err(error) => Err(Error::new(ErrorKind::InvalidOperation, error.to_string())),
            }
        };
        let look_up_many = look_up.clone();
        environment.add_function("secret", move |name: String| look_up(&name));
        environment.add_function("secrets", move |names: Value| {
            let keys = names.try_iter()?;
            let looked_up: Result<Vec<(Value, String)>, Error> = keys
                .map(|key| {
                    let name = names.get_item(&key)?;
                    let text = name.as_str().ok_or_else(|| unfit(&"the name of a secret is text"))?;
                    Ok((key, look_up_many(text)?))
                })
                .collect();
            Ok::<_, Error>(Value::from_pairs(looked_up?))
        });
        environment.add_filter("sh", |value: Value| {
            if value.kind() == ValueKind::Seq {
                let words = value.try_iter()?.map(|word| word.to_string());
                return Ok(crate::shell::quote_all(words));
            }
            Ok::<_, Error>(crate::shell::quote(&value.to_string()))
        });
        environment.add_filter("env_value", |value: Value| {
            Ok::<_, Error>(match to_json(&value)? {
                serde_json::Value::String(text) => env_value(&text),
                other => env_value(&other.to_string()),
            })
        });
        environment.add_filter("to_json", |value: Value| {
            serde_json::to_string_pretty(&to_json(&value)?).map_err(|e| unfit(&e))
        });
        environment.add_filter("to_toml", |value: Value| {
            let value = to_toml(&value)?.ok_or_else(|| unfit(&"it is none"))?;
            match &value {
                toml::Value::Table(table) => toml::to_string(table).map_err(|e| unfit(&e)),
                _ => Ok(value.to_string()),
            }
        });
        environment.add_filter("to_yaml", |value: Value| {
            serde_saphyr::to_string(&to_json(&value)?).map_err(|e| unfit(&e))
        });
        for (name, source) in files {
            // A file that does not parse is reported by `check`; here it would hide the others.
            let _ = environment.add_template_owned(name.clone(), source.text.clone());
        }
        Self { environment, used_secret }
    }

    /// The mistake in the syntax of a template text, if there is one.
    pub fn check(&self, text: &str) -> Option<Fault> {
        self.environment.template_from_str(text).err().map(|error| fault(&error, text, &[]))
    }

    /// The mistake in the syntax of an expression, if there is one.
    pub fn check_expression(&self, text: &str) -> Option<Fault> {
        self.environment.compile_expression(text).err().map(|error| fault(&error, text, &[]))
    }

    /// Renders a file of those given to [`Templates::new`].
    pub fn file(&self, name: &str, context: &Context) -> Result<String, Fault> {
        let template = self.environment.get_template(name).map_err(|error| fault(&error, "", &[]))?;
        template.render(context.value()).map_err(|error| {
            let mut fault = fault(&error, template.source(), &context.names());
            fault.template.get_or_insert_with(|| name.to_owned());
            fault
        })
    }

    /// A field's value: a text that is exactly one `{{ expression }}` keeps the expression's type, any other
    /// becomes a string. `None` for an expression that is `none`: the field is then left out.
    pub fn field(&self, text: &str, context: &Context) -> Result<Option<toml::Value>, Fault> {
        if let Some((at, expression)) = lone_expression(text)
            && self.environment.compile_expression(expression).is_ok()
        {
            let shift = |mut fault: Fault| {
                if fault.template.is_none() {
                    fault.range = fault.range.map(|range| range.start + at..range.end + at);
                }
                fault
            };
            let value = self.expression(expression, context).map_err(shift)?;
            return to_toml(&value).map_err(|error| shift(fault(&error, expression, &[])));
        }
        let rendered = self.environment.render_str(text, context.value());
        rendered
            .map(|text| Some(toml::Value::String(text)))
            .map_err(|error| fault(&error, text, &context.names()))
    }

    /// The value of an expression; undefined is a mistake.
    pub fn expression(&self, text: &str, context: &Context) -> Result<Value, Fault> {
        let names = context.names();
        let compiled =
            self.environment.compile_expression(text).map_err(|error| fault(&error, text, &names))?;
        let value = compiled.eval(context.value()).map_err(|error| fault(&error, text, &names))?;
        if value.is_undefined() {
            let mut undefined = fault(&Error::from(ErrorKind::UndefinedError), text, &names);
            undefined.range.get_or_insert(0..text.len());
            return Err(name_undefined(undefined, text, &names));
        }
        Ok(value)
    }

    /// The truth of a condition, which must be `true` or `false` itself.
    pub fn condition(&self, text: &str, context: &Context) -> Result<bool, Fault> {
        let value = self.expression(text, context)?;
        match value.kind() {
            ValueKind::Bool => Ok(value.is_true()),
            kind => Err(Fault {
                range: Some(0..text.len()),
                help: Some("compare it: `x == 1`, `list | length > 0`".to_owned()),
                ..Fault::new(format!("a condition must be true or false, not a {kind}"))
            }),
        }
    }

    /// The elements of an expression that is a list.
    pub fn list(&self, text: &str, context: &Context) -> Result<Vec<Value>, Fault> {
        let value = self.expression(text, context)?;
        let wrong = || Fault {
            range: Some(0..text.len()),
            ..Fault::new(format!("`for_each` needs a list, not a {}", value.kind()))
        };
        if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
            return Err(wrong());
        }
        value.try_iter().map(Iterator::collect).map_err(|_| wrong())
    }

    /// Whether `secret()` was called since this was last asked.
    pub fn take_used_secret(&self) -> bool {
        self.used_secret.swap(false, Ordering::Relaxed)
    }
}

/// What templates can read, by name.
#[derive(Debug, Clone, Default)]
pub struct Context(BTreeMap<String, Value>);

impl Context {
    /// Adds a value. Anything that has a JSON form can be one.
    pub fn set(&mut self, name: impl Into<String>, value: &impl serde::Serialize) {
        let json = serde_json::to_value(value).unwrap_or(serde_json::Value::Null);
        self.0.insert(name.into(), from_json(json));
    }

    /// The same with `item`, the element `for_each` is at.
    pub fn with_item(&self, item: Value) -> Self {
        let mut context = self.clone();
        context.0.insert("item".to_owned(), item);
        context
    }

    fn value(&self) -> Value {
        Value::from_pairs(self.0.iter().map(|(name, value)| (name.clone(), value.clone())))
    }

    fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

/// The expression of a text that is nothing but `{{ … }}`, and its offset.
fn lone_expression(text: &str) -> Option<(usize, &str)> {
    let inner = text.strip_prefix("{{")?.strip_suffix("}}")?;
    let inner = inner.strip_prefix('-').unwrap_or(inner);
    let inner = inner.strip_suffix('-').unwrap_or(inner);
    let inner = inner.trim();
    if inner.is_empty() || inner.contains("{{") || inner.contains("}}") {
        return None;
    }
    Some((text.find(inner)?, inner))
}

fn fault(error: &Error, text: &str, names: &[&str]) -> Fault {
    // The innermost cause has the message; includes wrap it.
    let mut innermost = error;
    while let Some(cause) = std::error::Error::source(innermost).and_then(|c| c.downcast_ref::<Error>()) {
        innermost = cause;
    }
    let kind = innermost.kind().to_string();
    let message = match innermost.detail() {
        Some(detail) if innermost.kind() == ErrorKind::InvalidOperation => detail.to_owned(),
        Some(detail) => format!("{kind}: {detail}"),
        None => kind,
    };
    let template = innermost.name().filter(|name| !ANONYMOUS.contains(name)).map(str::to_owned);
    let found = Fault { message, range: innermost.range(), help: None, template };
    if innermost.kind() == ErrorKind::UndefinedError {
        let source = innermost.template_source().unwrap_or(text).to_owned();
        return name_undefined(found, &source, names);
    }
    found
}

/// Says which name is undefined, and the nearest one that is defined.
fn name_undefined(mut fault: Fault, text: &str, names: &[&str]) -> Fault {
    let word = fault.range.clone().and_then(|range| text.get(range)).map(str::trim);
    let Some(word) = word.filter(|word| !word.is_empty()) else { return fault };
    fault.message = format!("`{word}` is undefined");
    let first = word.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or(word);
    if !names.contains(&first) {
        fault.help = nearest(first, names.iter().copied()).map(|near| format!("did you mean `{near}`?"));
    }
    fault
}

/// A value as systemd reads it from an `EnvironmentFile=`, and a shell from its own assignments.
fn env_value(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '$' | '`') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted + "\""
}

fn unfit(why: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("this value cannot be written out: {why}"))
}

fn from_json(json: serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(value) => Value::from(value),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::from(number),
            (None, Some(number)) => Value::from(number),
            (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::from(text),
        serde_json::Value::Array(list) => list.into_iter().map(from_json).collect(),
        serde_json::Value::Object(map) => {
            Value::from_pairs(map.into_iter().map(|(key, value)| (key, from_json(value))))
        }
    }
}

fn to_json(value: &Value) -> Result<serde_json::Value, Error> {
    Ok(match value.kind() {
        ValueKind::None => serde_json::Value::Null,
        ValueKind::Bool => value.is_true().into(),
        ValueKind::Number => match value.as_i64() {
            Some(number) if value.is_integer() => number.into(),
            _ => f64::try_from(value.clone())?.into(),
        },
        ValueKind::String => value.to_string().into(),
        ValueKind::Seq | ValueKind::Iterable => {
            value.try_iter()?.map(|element| to_json(&element)).collect::<Result<Vec<_>, _>>()?.into()
        }
        ValueKind::Map => {
            let mut map = serde_json::Map::new();
            for key in value.try_iter()? {
                map.insert(key.to_string(), to_json(&value.get_item(&key)?)?);
            }
            map.into()
        }
        kind => return Err(unfit(&format!("it is {kind}"))),
    })
}

fn to_toml(value: &Value) -> Result<Option<toml::Value>, Error> {
    if value.is_none() {
        return Ok(None);
    }
    toml::Value::try_from(to_json(value)?).map(Some).map_err(|e| unfit(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        let mut context = Context::default();
        context.set("timezone", &"Etc/UTC");
        context.set("ports", &[80, 443]);
        context.set("ipv6", &false);
        context.set("facts", &crate::probe::Facts { arch: "arm64".into(), ..Default::default() });
        context
    }

    fn templates() -> Templates {
        let files = [("base/part.j2".to_owned(), Source::new("part", "a\n{{ timezon }}\n"))];
        Templates::new(&Secrets::placeholder(), &files.into_iter().collect())
    }

    #[test]
    fn a_lone_expression_keeps_its_type() {
        let cases: &[(&str, Option<toml::Value>)] = &[
            ("{{ ports }}", Some(vec![80, 443].into())),
            ("{{ ipv6 }}", Some(false.into())),
            ("{{ none }}", None),
            ("{{ ports | length }}", Some(2.into())),
            ("{{ timezone }}", Some("Etc/UTC".into())),
            ("{{ ipv6 }}{{ ipv6 }}", Some("falsefalse".into())),
            ("zone={{ timezone }}\n", Some("zone=Etc/UTC\n".into())),
            ("{{ 'it is' | sh }} x", Some("'it is' x".into())),
            ("{{ ['a b', 'c'] | sh }}", Some("'a b' c".into())),
            ("{{ {'a': [1]} | to_toml }}", Some("a = [1]\n".into())),
            ("{% if ipv6 %}\nx\n{% endif %}\ny\n", Some("y\n".into())),
            ("plain", Some("plain".into())),
        ];
        for (text, expected) in cases {
            assert_eq!(templates().field(text, &context()).as_ref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn mistakes_say_what_and_where() {
        let cases: &[(&str, &str, Option<&str>, &str)] = &[
            ("x {{ timezon }}", "`timezon` is undefined", Some("did you mean `timezone`?"), "timezon"),
            ("{{ timezon }}", "`timezon` is undefined", Some("did you mean `timezone`?"), "timezon"),
            ("{{ facts.arhc }}", "`facts.arhc` is undefined", None, "facts.arhc"),
            ("x {{ secret('../x') }}", "`../x` is not a secret's name", None, "secret('../x')"),
        ];
        for (text, message, help, at) in cases {
            let fault = templates().field(text, &context()).expect_err(text);
            assert!(fault.message.starts_with(message), "{text}: {fault:?}");
            assert_eq!(fault.help.as_deref(), *help, "{text}");
            assert_eq!(fault.range.and_then(|range| text.get(range)), Some(*at), "{text}");
        }
        let fault = templates().file("base/part.j2", &context()).expect_err("undefined");
        assert_eq!((fault.template.as_deref(), fault.range), (Some("base/part.j2"), Some(5..12)));
        assert!(templates().check("{% if %}").is_some());
        assert!(templates().condition("timezone", &context()).is_err());
        assert_eq!(templates().condition("facts.arch == 'arm64' and not ipv6", &context()), Ok(true));
    }

    #[test]
    fn values_of_an_environment_keep_every_character() {
        let odd = "it's 5 % of \"$HOME\" `id` C:\\new\\ # ; two  blanks";
        let mut context = Context::default();
        context.set("values", &serde_json::json!([odd, "", 8080, true]));
        let text = "{% for value in values %}\nv{{ loop.index }}={{ value | env_value }}\n{% endfor %}\n";
        let file = templates().field(text, &context).expect("renders").expect("a text");
        let script =
            format!("{}\nprintf '%s|' \"$v1\" \"$v2\" \"$v3\" \"$v4\"", file.as_str().expect("a text"));
        let out = std::process::Command::new("sh").args(["-c", &script]).output().expect("sh runs");
        assert_eq!(String::from_utf8_lossy(&out.stdout), format!("{odd}||8080|true|"), "{script}");
    }

    #[test]
    fn a_used_secret_is_noted() {
        let templates = templates();
        assert!(!templates.take_used_secret());
        templates.field("{{ secret('x') }}", &context()).expect("renders");
        assert!(templates.take_used_secret());
        assert!(!templates.take_used_secret());
    }
}
