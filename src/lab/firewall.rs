//! The packet filter of a lab on this computer: what its machines reach, and who reaches them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::network::Subnet;
use super::{Error, command};

/// The table's name, which is also the comment on rules put into this computer's own chains.
fn table(lab: &str) -> String {
    format!("datahub-lab-{lab}")
}

/// Puts the lab's table in place, in one step, in place of one there may be.
///
/// An accept in one table does not overrule a drop in another. So where this computer has chains of its own
/// that forwarded packets pass (Docker's, a firewall's) the lab's packets are let through at their head, by
/// rules that name the lab and are removed with it.
pub fn install(lab: &str, subnet: Subnet, ports: &BTreeSet<u16>) -> Result<(), Error> {
    remove_pass_rules(lab)?;
    let mut script = ruleset(lab, subnet, ports);
    for chain in forward_chains(&list("chains")?, &table(lab)) {
        script += &pass_rules(&chain, lab, subnet);
    }
    nft(&script)
}

pub fn remove(lab: &str) -> Result<(), Error> {
    if command::find("nft").is_none() {
        // Without the tool there never was a table.
        return Ok(());
    }
    remove_pass_rules(lab)?;
    // Made first, so that deleting it never fails.
    nft(&format!("table inet {0} {{}}\ndelete table inet {0}\n", table(lab)))
}

fn ruleset(lab: &str, subnet: Subnet, ports: &BTreeSet<u16>) -> String {
    let (table, link) = (table(lab), subnet.link());
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let allowed = format!("udp dport 53 accept\n    tcp dport {{ {} }} accept", ports.join(", "));
    format!(
        r#"table inet {table} {{}}
delete table inet {table}
table inet {table} {{
  chain downloads {{
    ct state established,related accept
    icmp type echo-request accept
    {allowed}
    reject
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname "{link}" jump downloads
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    oifname "{link}" ct state established,related accept
    oifname "{link}" reject
    iifname "{link}" jump downloads
  }}
  chain translate {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {machines} oifname != "{link}" masquerade
  }}
}}
"#,
        machines = subnet.machines()
    )
}

/// A base chain of this computer: family, table, chain.
type Chain = (String, String, String);

fn pass_rules((family, of, chain): &Chain, lab: &str, subnet: Subnet) -> String {
    let (comment, link) = (table(lab), subnet.link());
    format!(
        "insert rule {family} {of} {chain} iifname \"{link}\" accept comment \"{comment}\"\n\
         insert rule {family} {of} {chain} oifname \"{link}\" ct state established,related accept comment \"{comment}\"\n"
    )
}

/// The base chains at the hook `forward`, without those of labs.
fn forward_chains(listing: &Value, own: &str) -> Vec<Chain> {
    let chains = items(listing, "chain").filter(|chain| chain["hook"] == "forward");
    let named = chains.filter_map(|chain| {
        let text = |key: &str| chain[key].as_str().map(str::to_owned);
        Some((text("family")?, text("table")?, text("name")?))
    });
    named
        .filter(|(family, table, _)| {
            ["ip", "inet"].contains(&family.as_str()) && table != own && !table.starts_with("datahub-lab-")
        })
        .collect()
}

fn remove_pass_rules(lab: &str) -> Result<(), Error> {
    let mine = table(lab);
    let script: String = marked_rules(&list("ruleset")?, &mine)
        .into_iter()
        .map(|((family, table, chain), handle)| {
            format!("delete rule {family} {table} {chain} handle {handle}\n")
        })
        .collect();
    if script.is_empty() { Ok(()) } else { nft(&script) }
}

/// The rules with a comment, and their handles.
fn marked_rules(listing: &Value, comment: &str) -> Vec<(Chain, u64)> {
    let rules = items(listing, "rule").filter(|rule| rule["comment"] == comment);
    let named = rules.filter_map(|rule| {
        let text = |key: &str| rule[key].as_str().map(str::to_owned);
        Some(((text("family")?, text("table")?, text("chain")?), rule["handle"].as_u64()?))
    });
    named.collect()
}

/// The objects of one kind in nft's JSON, libnftables-json(5).
fn items<'v>(listing: &'v Value, kind: &'static str) -> impl Iterator<Item = &'v Value> {
    let all = listing["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().filter_map(move |item| item.get(kind))
}

fn list(what: &str) -> Result<Value, Error> {
    let text = command::output(
        command::tool("nft").args(["--json", "list", what]),
        "read this computer's packet filter",
    )?;
    Ok(serde_json::from_str(&text).unwrap_or_default())
}

fn nft(script: &str) -> Result<(), Error> {
    command::feed(command::tool("nft").args(["-f", "-"]), script, "set up the lab's packet filter").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing() -> Value {
        serde_json::json!({"nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}},
            {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input", "policy": "drop"}},
            {"chain": {"family": "ip6", "table": "filter", "name": "FORWARD", "hook": "forward"}},
            {"chain": {"family": "inet", "table": "datahub-lab-b", "name": "forward", "hook": "forward"}},
            {"chain": {"family": "inet", "table": "fw", "name": "custom"}},
            {"rule": {"family": "ip", "table": "filter", "chain": "FORWARD", "handle": 9, "comment": "datahub-lab-a"}},
            {"rule": {"family": "ip", "table": "filter", "chain": "FORWARD", "handle": 8, "comment": "datahub-lab-ab"}},
        ]})
    }

    #[test]
    fn only_chains_that_forwarded_packets_pass_are_touched() {
        let chain = ("ip".to_owned(), "filter".to_owned(), "FORWARD".to_owned());
        assert_eq!(forward_chains(&listing(), "datahub-lab-a"), std::slice::from_ref(&chain));
        let rules = pass_rules(&chain, "a", Subnet(7));
        assert!(
            rules.starts_with("insert rule ip filter FORWARD iifname \"dhlab7\" accept comment"),
            "{rules}"
        );
        assert_eq!(marked_rules(&listing(), "datahub-lab-a"), [(chain, 9)]);
        assert_eq!(forward_chains(&Value::Null, "x"), []);
    }

    #[test]
    fn the_machines_reach_downloads_and_nothing_else() {
        let rules = ruleset("a", Subnet(7), &BTreeSet::from([53, 80, 443]));
        assert!(rules.contains("tcp dport { 53, 80, 443 } accept\n    reject\n"), "{rules}");
        assert!(rules.contains("ip saddr 10.77.7.0/25 oifname != \"dhlab7\" masquerade"), "{rules}");
    }
}
