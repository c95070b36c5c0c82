//! The command line of `k3s`, and of the names it is linked under: `kubectl`, `crictl`, `ctr`.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::Method;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::agent::{Agent, NodeConfig};
use super::client::{Call, Client};
use super::config::{self, Role, Values};
use super::settings::{MARKER, Settings};
use super::{Failure, artifact, files, kubeconfig, kubectl, log, notify, object, server, token};

/// The names under which the binary is the simulation.
const NAMES: &[&str] = &["k3s", "kubectl", "crictl", "ctr"];

/// Whether this process was started as the simulation: by its name, `argv[0]`.
pub fn is_called() -> bool {
    own_name().is_some_and(|name| NAMES.contains(&name.as_str()))
}

fn own_name() -> Option<String> {
    let first = std::env::args_os().next()?;
    Some(Path::new(&first).file_name()?.to_string_lossy().into_owned())
}

/// Runs the command of this process's arguments.
pub fn main() -> ExitCode {
    if !Path::new(MARKER).exists() {
        log::fatal(format!(
            "this k3s is datahub's SIMULATION: it starts on machines of the lab only, and {MARKER} is not here"
        ));
        return ExitCode::FAILURE;
    }
    let version = std::env::current_exe().and_then(|path| artifact::version_of(&path)).ok().flatten();
    let Some(version) = version else {
        log::fatal("this simulated k3s plays no version: it was not made as an artifact");
        return ExitCode::FAILURE;
    };
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(name) = own_name().filter(|name| name != "k3s") {
        words.insert(0, name);
    }
    match run(&Settings::machine(&version), &words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Reset) => {
            log::info(Failure::Reset.to_string());
            ExitCode::SUCCESS
        }
        Err(failure) => {
            log::fatal(format!("Error: {failure}"));
            ExitCode::FAILURE
        }
    }
}

fn run(settings: &Settings, words: &[String]) -> Result<(), Failure> {
    let (command, rest) =
        words.split_first().map_or(("help", &[][..]), |(first, rest)| (first.as_str(), rest));
    match command {
        "--version" | "-v" | "version" => say(&format!(
            "k3s version {} (00000000)\ngo version none\nSIMULATED by datahub for the lab: it runs no containers",
            settings.version
        )),
        "server" => block_on(serve(settings, rest)),
        "agent" => block_on(work(settings, rest)),
        "kubectl" => block_on(kubectl::run(settings, rest)),
        "crictl" | "ctr" => runtime(command, rest),
        "etcd-snapshot" => block_on(snapshot(settings, rest)),
        "token" => block_on(tokens(settings, rest)),
        "secrets-encrypt" => say("Encryption Status: Disabled, no configuration file found (simulated)"),
        "check-config" => say("Verifying binaries in the simulation: good\n\nSTATUS: pass (simulated)"),
        "help" | "--help" | "-h" => say(
            "k3s (SIMULATED by datahub for the lab)\n\nCommands: server, agent, kubectl, crictl, ctr, etcd-snapshot, \
             token, secrets-encrypt, check-config",
        ),
        other => Err(Failure::said(format!("No help topic for '{other}'"))),
    }
}

/// Prints a line: the answer of a command.
pub fn say(text: &str) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{text}").map_err(|error| Failure::file(Path::new("stdout"), error))
}

fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::request)?;
    let result = runtime.block_on(work);
    // Streams and name lookups under way must not hold up the end.
    runtime.shutdown_background();
    result
}

fn values(settings: &Settings, role: Role, rest: &[String]) -> Result<Values, Failure> {
    let environment = |name: &str| std::env::var(name).ok();
    let locate = |path: &Path| settings.path(path);
    Ok(config::read(role, rest, &environment, &locate)?)
}

fn greet(settings: &Settings, role: Role) {
    log::warn("This is datahub's SIMULATED k3s, for rehearsals in the lab: it runs no containers");
    log::info(format!("Starting k3s {} {} (simulated)", role.name(), settings.version));
}

/// `k3s server`, until a signal.
async fn serve(settings: &Settings, rest: &[String]) -> Result<(), Failure> {
    let values = values(settings, Role::Server, rest)?;
    greet(settings, Role::Server);
    let mut running = server::start(settings, &values).await?;
    let ready = running.ready();
    let ended = tokio::select! {
        () = ready => None,
        failure = running.failed() => return Err(failure),
        ended = stopped() => Some(ended),
    };
    if ended.is_none() {
        log::info("k3s is up and running");
        notify::ready();
        tokio::select! {
            failure = running.failed() => return Err(failure),
            result = stopped() => result?,
        }
    }
    notify::stopping();
    log::info("Shutdown request received: terminated");
    running.stop().await;
    Ok(())
}

/// `k3s agent`, until a signal.
async fn work(settings: &Settings, rest: &[String]) -> Result<(), Failure> {
    let values = values(settings, Role::Agent, rest)?;
    greet(settings, Role::Agent);
    let url = values.text("server").ok_or_else(|| Failure::said("--server is required"))?.to_owned();
    let token = server::given_token(settings, &values, "token")?
        .ok_or_else(|| Failure::said("--token is required"))?;
    let node = NodeConfig::new(settings, &values)?;
    let agent = Agent::new(settings, &values, node, &url, &token, None)?;
    let ready = || {
        log::info("k3s agent is up and running");
        notify::ready();
    };
    tokio::select! {
        result = agent.run(ready) => result?,
        result = stopped() => result?,
    }
    notify::stopping();
    log::info("Shutdown request received: terminated");
    Ok(())
}

/// Waits for SIGTERM or SIGINT.
async fn stopped() -> Result<(), Failure> {
    let listen = |kind| signal(kind).map_err(Failure::request);
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// `crictl` and `ctr`: there is nothing, and nothing to remove.
fn runtime(command: &str, rest: &[String]) -> Result<(), Failure> {
    match (command, rest.first().map(String::as_str)) {
        ("crictl", Some("images" | "image" | "img")) => {
            say("IMAGE               TAG                 IMAGE ID            SIZE")
        }
        ("crictl", Some("ps")) => say(
            "CONTAINER           IMAGE               CREATED             STATE               NAME                POD",
        ),
        _ => Ok(()),
    }
}

/// The client of the administrator.
pub fn administrator(settings: &Settings, agent: &str) -> Result<Client, Failure> {
    let named = std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty());
    let path = named.map_or_else(|| settings.path("/etc/rancher/k3s/k3s.yaml"), Into::into);
    let access = kubeconfig::read(&path)?;
    Client::new(&access.server, Some(&access.ca), Some(&access.own), agent)
}

/// `k3s etcd-snapshot save|ls`.
async fn snapshot(settings: &Settings, rest: &[String]) -> Result<(), Failure> {
    let folder = settings.path("/var/lib/rancher/k3s/server/db/snapshots");
    match rest.first().map(String::as_str) {
        Some("ls" | "list") => {
            say("Name Location Size Created")?;
            let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(()) };
            let mut entries: Vec<_> = entries.flatten().collect();
            entries.sort_by_key(std::fs::DirEntry::file_name);
            for entry in entries {
                let data = entry.metadata().map_err(|error| Failure::file(&entry.path(), error))?;
                let created = data.modified().ok().and_then(|time| jiff::Timestamp::try_from(time).ok());
                let created = created.unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%SZ");
                let name = entry.file_name().to_string_lossy().into_owned();
                say(&format!("{name} file://{} {} {created}", entry.path().display(), data.len()))?;
            }
            Ok(())
        }
        Some("save") | None => {
            let name = flag(rest, "name").unwrap_or("on-demand");
            let path = format!("/db/snapshot?name={name}");
            let answer =
                administrator(settings, "k3s")?.send(&Call::json(Method::POST, &path, &json!({}))).await?;
            if !answer.is_success() {
                return Err(Failure::said(answer.text()));
            }
            let saved = answer.value();
            say(&format!("Snapshot {} saved.", saved["created"][0].as_str().unwrap_or_default()))
        }
        Some(other) => Err(Failure::said(format!("etcd-snapshot {other} is not part of the simulation"))),
    }
}

/// The value of `--name value` or `--name=value`.
fn flag<'a>(words: &'a [String], name: &str) -> Option<&'a str> {
    words.iter().enumerate().find_map(|(at, word)| {
        let rest = word.strip_prefix("--")?.strip_prefix(name)?;
        match rest.strip_prefix('=') {
            Some(value) => Some(value),
            None if rest.is_empty() => words.get(at + 1).map(String::as_str),
            None => None,
        }
    })
}

/// `k3s token create|list|delete`: bootstrap tokens for agents.
async fn tokens(settings: &Settings, rest: &[String]) -> Result<(), Failure> {
    const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";
    let client = administrator(settings, "k3s")?;
    match rest.first().map(String::as_str) {
        Some("create") => {
            let given = rest.iter().skip(1).find(|word| token::is_bootstrap(word)).cloned();
            let text = given.unwrap_or_else(|| format!("{}.{}", token::random_hex(3), token::random_hex(8)));
            let (id, secret) = text.split_once('.').unwrap_or_default();
            let mut data = json!({
                "token-id": BASE64.encode(id), "token-secret": BASE64.encode(secret),
                "usage-bootstrap-authentication": BASE64.encode("true"),
                "auth-extra-groups": BASE64.encode("system:bootstrappers:k3s:default-node-token"),
            });
            if let Some(end) = expiration(flag(rest, "ttl").unwrap_or("24h"))? {
                data["expiration"] = json!(BASE64.encode(end));
            }
            let secret = json!({
                "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
                "metadata": {"name": format!("bootstrap-token-{id}")}, "data": data,
            });
            let answer = client.send(&Call::json(Method::POST, SECRETS, &secret)).await?;
            if !answer.is_success() {
                return Err(Failure::said(answer.value()["message"].as_str().unwrap_or("rejected")));
            }
            let ca = files::read(&settings.path("/var/lib/rancher/k3s/server/tls/server-ca.crt"))?;
            say(&token::secure(&ca, &text))
        }
        Some("list") => {
            let list = client.send(&Call::get(SECRETS)).await?.value();
            say("TOKEN   EXPIRES")?;
            for secret in object::items(&list["items"]) {
                if let Some(id) = object::name(secret).strip_prefix("bootstrap-token-") {
                    let end = BASE64.decode(secret["data"]["expiration"].as_str().unwrap_or_default());
                    say(&format!("{id}  {}", String::from_utf8_lossy(&end.unwrap_or_default())))?;
                }
            }
            Ok(())
        }
        Some("delete") => {
            for id in rest.iter().skip(1) {
                let id = id.split('.').next().unwrap_or_default();
                let path = format!("{SECRETS}/bootstrap-token-{id}");
                client.send(&Call::json(Method::DELETE, &path, &json!({}))).await?;
            }
            Ok(())
        }
        _ => Err(Failure::said("token create|list|delete: the simulation has no more")),
    }
}

/// When a token ends that lives for `24h`, `90m`, `30s`; never for `0`.
fn expiration(ttl: &str) -> Result<Option<String>, Failure> {
    let invalid = || Failure::said(format!("invalid value {ttl:?} for flag -ttl: parse error"));
    if ttl == "0" || ttl == "0s" {
        return Ok(None);
    }
    let units = [('h', 3600), ('m', 60), ('s', 1)];
    let split = units.iter().find_map(|(unit, factor)| Some((ttl.strip_suffix(*unit)?, *factor)));
    let (number, factor): (&str, i64) = split.ok_or_else(invalid)?;
    let number: i64 = number.parse().map_err(|_| invalid())?;
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(number.saturating_mul(factor));
    Ok(Some(end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_of_tokens() {
        assert_eq!(expiration("0").expect("for ever"), None);
        assert!(expiration("24h").expect("a day").is_some());
        for wrong in ["", "h", "x", "5d", "ä"] {
            assert!(expiration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn flags() {
        let words: Vec<String> = ["save", "--name", "a", "--ttl=5m"].map(str::to_owned).into();
        assert_eq!(flag(&words, "name"), Some("a"));
        assert_eq!(flag(&words, "ttl"), Some("5m"));
        assert_eq!(flag(&words, "na"), None);
    }
}
