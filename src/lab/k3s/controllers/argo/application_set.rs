//! ApplicationSets of list generators: the Applications they ask for are made, changed and deleted.
//!
//! Reasons and messages are those of Argo CD's `applicationset`. Left out: every other generator, `templatePatch`,
//! strategies, policies; of templates, everything but plain fields.

use serde_json::{Map, Value, json};

use super::{APPLICATIONS, Argo, FINALIZER, PROJECTS, SETS, project};
use crate::lab::k3s::{object, yaml};

const REFRESH: &str = "argocd.argoproj.io/application-set-refresh";
/// Annotations of an Application that are not its set's business.
const PRESERVED: &[&str] =
    &["notified.notifications.argoproj.io", "argocd.argoproj.io/refresh", "argocd.argoproj.io/hydrate"];

/// Why Applications cannot be made: the condition's reason and message.
type Refusal = (&'static str, String);

pub fn step(argo: &Argo<'_>) {
    for set in
        argo.watched(SETS, "applicationsetcontroller.namespaces").iter().filter(|set| !object::is_going(set))
    {
        let outcome = generate(set).and_then(|wanted| bring(argo, set, wanted));
        argo.tools.modify_status(SETS, set, |set| report(set, outcome.as_ref()));
        if object::annotation(set, REFRESH).is_some() {
            argo.tools.modify(SETS, set, |set| {
                object::map_mut(&mut set["metadata"], "annotations").remove(REFRESH);
            });
        }
    }
}

/// The Applications a set asks for.
fn generate(set: &Value) -> Result<Vec<Value>, Refusal> {
    let parameters = |why: String| ("ApplicationGenerationFromParamsError", why);
    let spec = &set["spec"];
    if !spec["templatePatch"].is_null() {
        return Err(("RenderTemplateParamsError", "the simulation knows no templatePatch".to_owned()));
    }
    let mut wanted = Vec::new();
    for generator in object::items(&spec["generators"]) {
        let Some(list) = generator["list"].as_object() else {
            let kinds: Vec<&str> =
                generator.as_object().into_iter().flatten().map(|(kind, _)| kind.as_str()).collect();
            let why = format!("the simulation knows list generators only, not: {}", kinds.join(", "));
            return Err(parameters(why));
        };
        let mut elements = list.get("elements").map(object::items).unwrap_or_default().to_vec();
        if let Some(text) = list.get("elementsYaml").and_then(Value::as_str) {
            let more: Option<Vec<Value>> = yaml::one(text)
                .map_err(|why| parameters(format!("error unmarshling decoded ElementsYaml {why}")))?;
            elements.extend(more.unwrap_or_default());
        }
        for element in elements {
            let template = Template::of(spec, &element);
            let rendered =
                template.all(&spec["template"]).map_err(|why| ("RenderTemplateParamsError", why))?;
            wanted.push(application(set, &rendered));
        }
    }
    Ok(wanted)
}

fn application(set: &Value, rendered: &Value) -> Value {
    let mut app = json!({"metadata": {"namespace": object::namespace(set)}, "spec": rendered["spec"]});
    for field in ["name", "labels", "annotations", "finalizers"] {
        if !rendered["metadata"][field].is_null() {
            app["metadata"][field] = rendered["metadata"][field].clone();
        }
    }
    let is_preserved = set["spec"]["syncPolicy"]["preserveResourcesOnDeletion"] == true;
    if !is_preserved && object::items(&app["metadata"]["finalizers"]).is_empty() {
        app["metadata"]["finalizers"] = json!([FINALIZER]);
    }
    app["metadata"]["ownerReferences"] = object::owned_by(set);
    app["spec"]["project"] = json!(project::name_of(&app));
    app
}

/// Makes and changes what is valid, and deletes what is no longer wanted.
fn bring(argo: &Argo<'_>, set: &Value, wanted: Vec<Value>) -> Result<Vec<Value>, Refusal> {
    let namespace = object::namespace(set);
    let mut refused = Vec::new();
    for (at, app) in wanted.iter().enumerate() {
        let is_same = |other: &Value| object::name(other) == object::name(app);
        let project = project::name_of(app);
        if object::name(app).is_empty() || wanted[..at].iter().any(is_same) {
            let what = if object::name(app).is_empty() {
                "an application with no name"
            } else {
                "applications with duplicate name"
            };
            refused.push(format!(
                "ApplicationSet {} contains {what}: {}",
                object::name(set),
                object::name(app)
            ));
        } else if argo.tools.get(PROJECTS, &argo.namespace, project).is_none() {
            refused.push(format!("application references project {project} which does not exist"));
        } else {
            put(argo, app);
        }
    }
    let is_ours = |app: &Value| object::controller(app).is_some_and(|owner| owner["uid"] == object::uid(set));
    let mut found = argo.tools.store.list(APPLICATIONS, namespace).0;
    found.retain(|app| is_ours(app));
    for app in found.iter().filter(|app| !object::is_going(app)) {
        if !wanted.iter().any(|wanted| object::name(wanted) == object::name(app)) {
            argo.tools.delete(APPLICATIONS, app);
        }
    }
    let Some(last) = refused.pop() else { return Ok(found.iter().map(|app| summary(app)).collect()) };
    let more = if refused.is_empty() { String::new() } else { format!(" (and {} more)", refused.len()) };
    Err(("ApplicationValidationError", last + &more))
}

fn put(argo: &Argo<'_>, wanted: &Value) {
    let (namespace, name) = (object::namespace(wanted), object::name(wanted));
    let Some(app) = argo.tools.get(APPLICATIONS, namespace, name) else {
        return argo.tools.create(APPLICATIONS, namespace, wanted.clone());
    };
    argo.tools.modify(APPLICATIONS, &app, |app| {
        app["spec"] = wanted["spec"].clone();
        let mut annotations = wanted["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
        for key in PRESERVED {
            if let Some(value) = app["metadata"]["annotations"].get(*key) {
                annotations.insert((*key).to_owned(), value.clone());
            }
        }
        let metadata = object::map_mut(app, "metadata");
        for field in ["labels", "finalizers", "ownerReferences"] {
            put_or_remove(metadata, field, wanted["metadata"][field].clone());
        }
        let annotations = if annotations.is_empty() { Value::Null } else { annotations.into() };
        put_or_remove(metadata, "annotations", annotations);
    });
}

fn put_or_remove(map: &mut Map<String, Value>, field: &str, value: Value) {
    match value {
        Value::Null => drop(map.remove(field)),
        value => drop(map.insert(field.to_owned(), value)),
    }
}

/// An Application's entry in `status.resources`.
fn summary(app: &Value) -> Value {
    json!({
        "group": "argoproj.io", "version": "v1alpha1", "kind": "Application", "name": object::name(app),
        "namespace": object::namespace(app), "status": app["status"]["sync"]["status"],
        "health": app["status"]["health"],
    })
}

fn report(set: &mut Value, outcome: Result<&Vec<Value>, &Refusal>) {
    if let Ok(resources) = outcome {
        let status = object::map_mut(set, "status");
        status.insert("resources".into(), json!(resources));
        status.insert("resourcesCount".into(), json!(resources.len()));
    }
    let done = "All applications have been generated successfully";
    let generated = match outcome {
        Err((reason, message)) if *reason != "ApplicationValidationError" => Err(message),
        _ => Ok("Successfully generated parameters for all Applications"),
    };
    let conditions: [(&str, &str, &str, &str); 3] = [
        match outcome {
            Ok(_) => ("ErrorOccurred", "False", "ApplicationSetUpToDate", done),
            Err((reason, message)) => ("ErrorOccurred", "True", reason, message),
        },
        match generated {
            Ok(message) => ("ParametersGenerated", "True", "ParametersGenerated", message),
            Err(message) => ("ParametersGenerated", "False", "ErrorOccurred", message),
        },
        match outcome {
            Ok(_) => ("ResourcesUpToDate", "True", "ApplicationSetUpToDate", done),
            Err((_, message)) => ("ResourcesUpToDate", "False", "ErrorOccurred", message),
        },
    ];
    for (kind, status, reason, message) in conditions {
        object::set_condition(set, kind, status, reason, message);
    }
}

/// A set's template language and the element it is filled with.
struct Template<'a> {
    is_go: bool,
    /// `goTemplateOptions: ["missingkey=error"]`
    is_strict: bool,
    element: &'a Value,
}

impl<'a> Template<'a> {
    fn of(spec: &Value, element: &'a Value) -> Self {
        let is_strict =
            object::items(&spec["goTemplateOptions"]).iter().any(|option| option == "missingkey=error");
        Self { is_go: spec["goTemplate"] == true, is_strict, element }
    }

    /// Fills every text of a value.
    fn all(&self, value: &Value) -> Result<Value, String> {
        Ok(match value {
            Value::String(text) => json!(self.text(text)?),
            Value::Array(list) => {
                list.iter().map(|value| self.all(value)).collect::<Result<Vec<_>, _>>()?.into()
            }
            Value::Object(map) => {
                let filled = map.iter().map(|(name, value)| Ok((name.clone(), self.all(value)?)));
                filled.collect::<Result<Map<_, _>, String>>()?.into()
            }
            value => value.clone(),
        })
    }

    fn text(&self, text: &str) -> Result<String, String> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, (inner, after))) =
            rest.split_once("{{").and_then(|(before, inner)| Some((before, inner.split_once("}}")?)))
        {
            filled.push_str(before);
            filled.push_str(&self.field(inner)?);
            rest = after;
        }
        Ok(filled + rest)
    }

    fn field(&self, inner: &str) -> Result<String, String> {
        let name = inner.trim();
        let path = match (self.is_go, name.strip_prefix('.')) {
            (true, Some(path)) => path,
            (false, None) => name,
            _ => "",
        };
        let is_plain = |path: &str| {
            !path.is_empty() && path.chars().all(|letter| letter.is_alphanumeric() || "._-".contains(letter))
        };
        if !is_plain(path) {
            return Err(format!(
                "failed to parse template {{{{{inner}}}}}: the simulation knows plain fields only"
            ));
        }
        match object::at(self.element, path) {
            Value::Null if self.is_strict && self.is_go => Err(format!(
                "failed to execute go template {{{{{inner}}}}}: map has no entry for key {path:?}"
            )),
            Value::Null if self.is_go => Ok("<no value>".to_owned()),
            Value::Null => Ok(format!("{{{{{inner}}}}}")),
            Value::String(text) => Ok(text.clone()),
            value => Ok(value.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(template: &str, more: Value) -> Value {
        let mut set = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "ApplicationSet",
            "metadata": {"name": "core", "namespace": "argo", "uid": "u"},
            "spec": {
                "goTemplate": true,
                "generators": [{"list": {"elements": [{"name": "a", "to": {"namespace": "one"}}, {"name": "b"}]}}],
                "template": {
                    "metadata": {"name": template, "labels": {"of": "{{ .name }}"}},
                    "spec": {"source": {"path": "releases/{{.name}}"}, "ignore": [1, "x-{{.name}}"]},
                },
            },
        });
        object::as_map(&mut set["spec"]).extend(object::as_map(&mut more.clone()).clone());
        set
    }

    #[test]
    fn applications_are_made_of_elements() {
        let made = generate(&set("core-{{.name}}", json!({}))).expect("made");
        assert_eq!(made.iter().map(object::name).collect::<Vec<_>>(), ["core-a", "core-b"]);
        assert_eq!(
            made[0]["spec"],
            json!({"project": "default", "source": {"path": "releases/a"}, "ignore": [1, "x-a"]})
        );
        assert_eq!(made[0]["metadata"]["finalizers"], json!([FINALIZER]));
        assert_eq!(made[0]["metadata"]["ownerReferences"][0]["name"], "core");
        assert_eq!(made[0]["metadata"]["labels"], json!({"of": "a"}));
        let kept =
            generate(&set("x", json!({"syncPolicy": {"preserveResourcesOnDeletion": true}}))).expect("made");
        assert!(kept[0]["metadata"]["finalizers"].is_null());
    }

    #[test]
    fn templates_say_what_they_lack() {
        let names = |template: &str, more: Value| {
            generate(&set(template, more)).map(|made| object::name(&made[1]).to_owned())
        };
        let strict = json!({"goTemplateOptions": ["missingkey=error"]});
        assert_eq!(names("{{.to.namespace}}", json!({})), Ok("<no value>".to_owned()));
        let refused = names("{{.to.namespace}}", strict).expect_err("missing");
        assert!(refused.1.contains("no entry for key \"to.namespace\""), "{refused:?}");
        assert!(names("{{ .name | quote }}", json!({})).is_err());
        assert!(names("{{ name }}", json!({})).is_err());
        let old = json!({"goTemplate": false});
        assert!(names("{{.name}}", old.clone()).is_err());
        let template = json!({"goTemplate": false, "template": {"metadata": {"name": "{{ name }}-{{gone}}"}, "spec": {}}});
        assert_eq!(names("", template), Ok("b-{{gone}}".to_owned()));
        let git = json!({"generators": [{"git": {}}]});
        assert_eq!(names("x", git).expect_err("unknown").0, "ApplicationGenerationFromParamsError");
    }
}
