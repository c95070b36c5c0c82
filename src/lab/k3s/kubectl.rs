//! `k3s kubectl`: `get`, `delete`, `apply -f`, `cordon`, `uncordon`, `version`. No more: rehearsals use the API.

use hyper::Method;
use serde_json::{Value, json};

use super::cli::{administrator, say};
use super::client::{Answer, Call, Client};
use super::settings::Settings;
use super::{Failure, object, yaml};

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Words {
    plain: Vec<String>,
    namespace: Option<String>,
    everywhere: bool,
    output: String,
    selector: Option<String>,
    file: Option<String>,
    raw: Option<String>,
}

impl Words {
    fn read(words: &[String]) -> Result<Self, Failure> {
        let mut found = Self::default();
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            let (name, inline) = match word.split_once('=') {
                Some((name, value)) if name.starts_with('-') => (name, Some(value.to_owned())),
                _ => (word.as_str(), None),
            };
            let mut value = || {
                let missing = || Failure::said(format!("error: flag needs an argument: {name}"));
                inline.clone().or_else(|| rest.next().cloned()).ok_or_else(missing)
            };
            match name {
                "-n" | "--namespace" => found.namespace = Some(value()?),
                "-A" | "--all-namespaces" => found.everywhere = true,
                "-o" | "--output" => found.output = value()?,
                "-l" | "--selector" => found.selector = Some(value()?),
                "-f" | "--filename" => found.file = Some(value()?),
                "--raw" => found.raw = Some(value()?),
                "--kubeconfig" => drop(value()?),
                "--ignore-not-found" | "--no-headers" | "--wait" | "--server-side" => {}
                name if name.starts_with('-') && name.len() > 1 => {
                    return Err(Failure::said(format!(
                        "error: unknown flag: {name} (the simulation knows a few only)"
                    )));
                }
                _ => found.plain.push(word.clone()),
            }
        }
        Ok(found)
    }
}

pub async fn run(settings: &Settings, words: &[String]) -> Result<(), Failure> {
    let words = Words::read(words)?;
    let client = administrator(settings, "kubectl")?;
    match words.plain.first().map(String::as_str) {
        Some("get") if words.raw.is_some() => {
            let answer = client.send(&Call::get(words.raw.as_deref().unwrap_or("/"))).await?;
            say(&checked(&answer).map(|()| answer.text())?)
        }
        Some("get") => get(&client, &words).await,
        Some("delete") => delete(&client, &words).await,
        Some("apply") => apply(&client, &words).await,
        Some("cordon") => cordon(&client, &words, true).await,
        Some("uncordon") => cordon(&client, &words, false).await,
        Some("version") => {
            let answer = client.send(&Call::get("/version")).await?;
            say(&format!("Server Version: {}", answer.value()["gitVersion"].as_str().unwrap_or_default()))
        }
        other => Err(Failure::said(format!(
            "error: unknown command {:?} (simulated kubectl)",
            other.unwrap_or("")
        ))),
    }
}

fn checked(answer: &Answer) -> Result<(), Failure> {
    if answer.is_success() {
        return Ok(());
    }
    let status = answer.value();
    let (reason, message) =
        (status["reason"].as_str().unwrap_or("Error"), status["message"].as_str().unwrap_or(""));
    Err(Failure::said(format!("Error from server ({reason}): {message}")))
}

/// The path of a type, whether it has namespaces, and its plural name.
async fn place(client: &Client, kind: &str) -> Result<(String, bool, String), Failure> {
    let mut versions = vec!["/api/v1".to_owned()];
    let groups = client.send(&Call::get("/apis")).await?;
    checked(&groups)?;
    for group in object::items(&groups.value()["groups"]) {
        let preferred = group["preferredVersion"]["groupVersion"].as_str().unwrap_or_default();
        versions.push(format!("/apis/{preferred}"));
    }
    let wanted = kind.to_lowercase();
    for version in versions {
        let list = client.send(&Call::get(&version)).await?.value();
        let is_meant = |resource: &&Value| {
            let plural = resource["name"].as_str().unwrap_or_default();
            let group = version.split('/').nth(2).unwrap_or_default();
            plural == wanted
                || resource["singularName"] == wanted.as_str()
                || (!group.is_empty() && format!("{plural}.{group}") == wanted)
                || object::items(&resource["shortNames"]).iter().any(|name| *name == wanted.as_str())
        };
        if let Some(found) = object::items(&list["resources"]).iter().find(is_meant) {
            let plural = found["name"].as_str().unwrap_or_default().to_owned();
            return Ok((version, found["namespaced"] == true, plural));
        }
    }
    Err(Failure::said(format!("error: the server doesn't have a resource type {kind:?}")))
}

/// The type and the names after the command.
fn subjects(words: &Words) -> Result<(String, Vec<String>), Failure> {
    let first =
        words.plain.get(1).ok_or_else(|| Failure::said("error: you must specify the type of resource"))?;
    let rest = words.plain.get(2..).unwrap_or_default().to_vec();
    Ok(match first.split_once('/') {
        Some((kind, name)) => (kind.to_owned(), vec![name.to_owned()]),
        None => (first.clone(), rest),
    })
}

async fn collection(client: &Client, words: &Words, kind: &str) -> Result<(String, String), Failure> {
    let (version, namespaced, plural) = place(client, kind).await?;
    let namespace = words.namespace.as_deref().unwrap_or("default");
    let path = match namespaced && !words.everywhere {
        true => format!("{version}/namespaces/{namespace}/{plural}"),
        false => format!("{version}/{plural}"),
    };
    Ok((path, plural))
}

async fn get(client: &Client, words: &Words) -> Result<(), Failure> {
    let (kind, names) = subjects(words)?;
    let (path, plural) = collection(client, words, &kind).await?;
    let found = match names.as_slice() {
        [] => {
            let selector =
                words.selector.as_deref().unwrap_or_default().replace('=', "%3D").replace(',', "%2C");
            let answer = client.send(&Call::get(&format!("{path}?labelSelector={selector}"))).await?;
            checked(&answer)?;
            let mut list = answer.value();
            let (item_kind, version) = (
                list["kind"].as_str().unwrap_or_default().trim_end_matches("List").to_owned(),
                list["apiVersion"].clone(),
            );
            for item in object::list_mut(&mut list, "items") {
                item["kind"] = json!(item_kind);
                item["apiVersion"] = version.clone();
            }
            list["kind"] = json!("List");
            list["apiVersion"] = json!("v1");
            list
        }
        [name] => {
            let answer = client.send(&Call::get(&format!("{path}/{name}"))).await?;
            checked(&answer)?;
            answer.value()
        }
        _ => return Err(Failure::said("error: the simulation gets one object or all of a type")),
    };
    let items = match found["items"].as_array() {
        Some(items) => items.clone(),
        None => vec![found.clone()],
    };
    match words.output.as_str() {
        "json" => say(&serde_json::to_string_pretty(&found).unwrap_or_default()),
        "yaml" => say(yaml::text(&found).trim_end()),
        "name" => items
            .iter()
            .try_for_each(|item| say(&format!("{}/{}", plural.trim_end_matches('s'), object::name(item)))),
        "" | "wide" => {
            say("NAME   STATUS")?;
            items.iter().try_for_each(|item| say(&format!("{}   {}", object::name(item), state(item))))
        }
        other => Err(Failure::said(format!(
            "error: unable to match a printer suitable for the output format {other:?}"
        ))),
    }
}

/// One word on an object, for tables.
fn state(item: &Value) -> String {
    let mut word = match object::condition(item, "Ready") {
        Some("True") => "Ready",
        Some(_) if item["kind"] == "Node" => "NotReady",
        _ => item["status"]["phase"].as_str().unwrap_or("-"),
    }
    .to_owned();
    if item["spec"]["unschedulable"] == true {
        word += ",SchedulingDisabled";
    }
    word
}

async fn delete(client: &Client, words: &Words) -> Result<(), Failure> {
    let (kind, names) = subjects(words)?;
    let (path, plural) = collection(client, words, &kind).await?;
    for name in names {
        let answer = client.send(&Call::json(Method::DELETE, &format!("{path}/{name}"), &json!({}))).await?;
        checked(&answer)?;
        say(&format!("{} {name:?} deleted", plural.trim_end_matches('s')))?;
    }
    Ok(())
}

async fn apply(client: &Client, words: &Words) -> Result<(), Failure> {
    let text = match words.file.as_deref() {
        Some("-") => std::io::read_to_string(std::io::stdin()).map_err(Failure::request)?,
        Some(path) => super::files::read(std::path::Path::new(path))?,
        None => return Err(Failure::said("error: must specify one of -f and -k")),
    };
    for wanted in yaml::objects(&text).map_err(Failure::said)? {
        let kind = wanted["kind"].as_str().unwrap_or_default();
        let (version, namespaced, plural) = place(client, kind).await?;
        let own =
            wanted["metadata"]["namespace"].as_str().or(words.namespace.as_deref()).unwrap_or("default");
        let name = object::name(&wanted);
        let path = match namespaced {
            true => format!("{version}/namespaces/{own}/{plural}/{name}"),
            false => format!("{version}/{plural}/{name}"),
        };
        let path = format!("{path}?fieldManager=kubectl&force=true");
        let call = Call {
            content_type: "application/apply-patch+yaml",
            ..Call::json(Method::PATCH, &path, &wanted)
        };
        checked(&client.send(&call).await?)?;
        say(&format!("{}/{name} serverside-applied", kind.to_lowercase()))?;
    }
    Ok(())
}

async fn cordon(client: &Client, words: &Words, on: bool) -> Result<(), Failure> {
    for name in words.plain.iter().skip(1) {
        let path = format!("/api/v1/nodes/{name}");
        let patch = json!({"spec": {"unschedulable": if on { json!(true) } else { Value::Null }}});
        let call =
            Call { content_type: "application/merge-patch+json", ..Call::json(Method::PATCH, &path, &patch) };
        checked(&client.send(&call).await?)?;
        say(&format!("node/{name} {}", if on { "cordoned" } else { "uncordoned" }))?;
    }
    Ok(())
}
