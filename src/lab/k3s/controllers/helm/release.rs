//! Helm's record of a release: a Secret for every revision, which holds what Helm 3 writes there.
//!
//! `data.release` is base64 of a gzip of JSON, and once more base64, as every value of a Secret is. The gzip holds
//! what it was given, without compression. Left out of the JSON: the manifest, the chart's files, hooks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::{CONFIG_HASH, Chart};
use crate::lab::k3s::controllers::Tools;
use crate::lab::k3s::object;
use crate::lab::k3s::store::Object;

const TYPE: &str = "helm.sh/release.v1";
/// Which definitions a lever has kept away, for as long as it does.
const WITHHELD: &str = "simulated/withheld";
/// Helm's `--history-max`.
const KEPT: usize = 10;

/// The revisions of a chart's release, the oldest first.
pub fn revisions(tools: &Tools<'_>, chart: &Chart<'_>) -> Vec<Object> {
    let mut found = tools.store.list("secrets", chart.target()).0;
    found.retain(|secret| {
        secret["type"] == TYPE
            && object::label(secret, "owner") == Some("helm")
            && object::label(secret, "name") == Some(chart.name())
    });
    found.sort_by_key(|secret| number(secret));
    found
}

fn number(secret: &Value) -> u64 {
    object::label(secret, "version").and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The newest revision.
pub fn newest(tools: &Tools<'_>, chart: &Chart<'_>) -> Option<Object> {
    revisions(tools, chart).pop()
}

/// `deployed`, `failed`, `superseded`.
pub fn status(secret: &Value) -> &str {
    object::label(secret, "status").unwrap_or_default()
}

/// Whether a revision is what a chart's configuration asks for.
pub fn is_of(secret: &Value, chart: &Chart<'_>) -> bool {
    status(secret) == "deployed" && object::label(secret, CONFIG_HASH) == Some(chart.hash())
}

/// The definitions that a lever has kept from coming with a revision.
pub fn withheld(secret: &Value) -> Vec<&str> {
    let names = object::annotation(secret, WITHHELD).unwrap_or_default();
    names.split(',').filter(|name| !name.is_empty()).collect()
}

/// Notes them.
pub fn withhold(secret: &mut Value, names: &[&str]) {
    object::map_mut(&mut secret["metadata"], "annotations").insert(WITHHELD.into(), json!(names.join(",")));
}

/// What a revision records.
pub struct Revision<'a> {
    /// `deployed`, which supersedes the one before, or `failed`.
    pub status: &'a str,
    pub values: &'a Value,
    pub description: &'a str,
    pub withheld: &'a [&'a str],
}

/// Records a revision more.
pub fn record(tools: &Tools<'_>, chart: &Chart<'_>, revision: &Revision<'_>) {
    let Revision { status, values, description, withheld } = *revision;
    let old = revisions(tools, chart);
    let is_deployed = |secret: &&Object| self::status(secret) == "deployed";
    if status == "deployed" {
        old.iter().filter(is_deployed).for_each(|secret| supersede(tools, secret));
    }
    let version = old.last().map_or(0, |newest| number(newest)) + 1;
    let (name, now) = (chart.name(), jiff::Timestamp::now());
    let first = old.first().and_then(|first| Some(read(first)?["info"]["first_deployed"].clone()));
    let release = json!({
        "name": name, "namespace": chart.target(), "version": version, "config": values, "manifest": "",
        "info": {
            "first_deployed": first.unwrap_or_else(|| json!(now.to_string())), "last_deployed": now.to_string(),
            "deleted": "", "description": description, "status": status,
        },
        "chart": {"metadata": {"apiVersion": "v2", "name": chart.chart(), "version": chart.version()}},
    });
    let mut secret = json!({
        "metadata": {
            "name": format!("sh.helm.release.v1.{name}.v{version}"),
            "labels": {
                "name": name, "owner": "helm", "status": status, "version": version.to_string(),
                "modifiedAt": now.as_second().to_string(), CONFIG_HASH: chart.hash(),
            },
        },
        "type": TYPE, "data": {"release": encode(&release)},
    });
    if !withheld.is_empty() {
        withhold(&mut secret, withheld);
    }
    tools.create("secrets", chart.target(), secret);
    for secret in old.iter().rev().skip(KEPT - 1).filter(|secret| !is_deployed(secret)) {
        tools.delete("secrets", secret);
    }
}

fn supersede(tools: &Tools<'_>, secret: &Value) {
    let Some(mut release) = read(secret) else { return };
    release["info"]["status"] = json!("superseded");
    tools.modify("secrets", secret, |secret| {
        secret["metadata"]["labels"]["status"] = json!("superseded");
        secret["data"]["release"] = json!(encode(&release));
    });
}

/// What a release's Secret holds.
pub fn read(secret: &Value) -> Option<Value> {
    let text = BASE64.decode(secret["data"]["release"].as_str()?).ok()?;
    serde_json::from_slice(&unzip(&BASE64.decode(text).ok()?)?).ok()
}

fn encode(release: &Value) -> String {
    BASE64.encode(BASE64.encode(zip(release.to_string().as_bytes())))
}

/// A gzip member (RFC 1952) of stored blocks (RFC 1951, 3.2.4).
fn zip(data: &[u8]) -> Vec<u8> {
    const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    let mut zipped = HEADER.to_vec();
    let blocks: Vec<&[u8]> = data.chunks(usize::from(u16::MAX)).collect();
    for (at, block) in blocks.iter().enumerate() {
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        zipped.push(u8::from(at + 1 == blocks.len()));
        zipped.extend(length.to_le_bytes());
        zipped.extend((!length).to_le_bytes());
        zipped.extend(*block);
    }
    zipped.extend(checksum(data).to_le_bytes());
    zipped.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes());
    zipped
}

/// What `zip` has put into a gzip; `None` for another one's.
fn unzip(mut zipped: &[u8]) -> Option<Vec<u8>> {
    let mut take = |count: usize| {
        let (taken, rest) = zipped.split_at_checked(count)?;
        zipped = rest;
        Some(taken)
    };
    let mut data = Vec::new();
    take(10)?;
    loop {
        let [kind, low, high, ..] = *take(5)? else { return None };
        data.extend(take(usize::from(u16::from_le_bytes([low, high])))?);
        match kind {
            0 => {}
            1 => return (*take(4)? == checksum(&data).to_le_bytes()).then_some(data),
            _ => return None,
        }
    }
}

/// CRC-32 as gzip has it.
fn checksum(data: &[u8]) -> u32 {
    let step = |sum: u32, _| (sum >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(sum & 1));
    !data.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn any_gzip_reads_what_is_recorded() {
        assert_eq!(checksum(b"123456789"), 0xcbf4_3926, "the check value of CRC-32");
        let data: Vec<u8> = (0..150_000_u32).map(|number| (number % 251) as u8).collect();
        let zipped = zip(&data);
        let mut gzip = Command::new("gzip")
            .arg("-dc")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("gzip");
        let mut input = gzip.stdin.take().expect("an input");
        let to_write = zipped.clone();
        let writer = std::thread::spawn(move || input.write_all(&to_write));
        let output = gzip.wait_with_output().expect("an output");
        writer.join().expect("ended").expect("written");
        assert!(output.stdout == data, "gzip reads {} bytes", output.stdout.len());
        assert_eq!(unzip(&zipped), Some(data));
        assert_eq!(unzip(&zipped[..100]), None);
    }
}
