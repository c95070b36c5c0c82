//! Where to connect and as whom: the inventory's word laid over ~/.ssh/config, resolved to a list of hops.

use std::path::{Path, PathBuf};

use ssh2_config::{HostParams, ParseRule, SshConfig};

use super::{Options, Policy, Target};
use crate::transport::Error;

/// More jump hosts than this are taken for a loop.
const MAX_HOPS: usize = 8;
const DEFAULT_KEYS: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// One login on the way; the last hop of a route is the node itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    pub host: String,
    pub port: u16,
    pub user: String,
    /// In the order to be tried, those asked for first.
    pub identity_files: Vec<PathBuf>,
    /// How many of `identity_files` were asked for by name.
    pub named: usize,
    /// The agent is asked for these files' keys only.
    pub identities_only: bool,
    pub policy: Policy,
    pub pinned: Option<String>,
}

/// The hops to a target, first to be connected to first.
pub fn route(target: &Target, options: &Options) -> Result<Vec<Hop>, Error> {
    let config = read(options.config.as_deref())?;
    let mut hops = Vec::new();
    walk(&config, target.clone(), &mut hops)?;
    hops.reverse();
    Ok(hops)
}

/// What in the ssh_config file is not obeyed, one sentence each.
pub fn warnings(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .enumerate()
        .filter(|(_, line)| is_keyword(line, "match") && !is_match_all(line))
        .map(|(at, _)| format!("{}:{}: Match blocks are not obeyed; use Host", path.display(), at + 1))
        .collect()
}

/// Adds the target, then the hops before it from the nearest to the farthest.
fn walk(config: &SshConfig, target: Target, hops: &mut Vec<Hop>) -> Result<(), Error> {
    if hops.len() >= MAX_HOPS {
        return Err(Error::Other(format!(
            "more than {MAX_HOPS} jump hosts on the way to {}: does a ProxyJump lead back to itself?",
            hops[0].host
        )));
    }
    let params = config.query(&target.host);
    let jumps = match &target.proxy_jump {
        Some(jumps) => jumps.split(',').map(|jump| jump.trim().to_owned()).collect(),
        None => params.proxy_jump.clone().unwrap_or_default(),
    };
    let policy = target.policy;
    hops.push(hop(target, params)?);
    let jumps: Vec<String> =
        jumps.into_iter().filter(|jump| !jump.is_empty() && !jump.eq_ignore_ascii_case("none")).collect();
    for (left, jump) in jumps.iter().enumerate().rev() {
        let mut next = parse_jump(jump)?;
        next.policy = policy;
        // Only the first hop of a list is reached by its own ProxyJump; the others lie behind it.
        if left > 0 {
            next.proxy_jump = Some("none".into());
        }
        walk(config, next, hops)?;
    }
    Ok(())
}

fn hop(target: Target, params: HostParams) -> Result<Hop, Error> {
    let home = std::env::home_dir().unwrap_or_default();
    let local_user = || {
        ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()))
    };
    let root = || rustix::process::geteuid().is_root().then(|| "root".to_owned());
    let user = target.user.or(params.user).or_else(local_user).or_else(root).ok_or_else(|| {
        Error::Other(format!("no user to log in to {} as: set `user` under [ssh] or the node", target.host))
    })?;
    let host = match params.host_name {
        Some(name) => expand(&name, &[('h', &target.host)]),
        None => target.host,
    };
    let host = host.trim_matches(['[', ']']).to_owned();
    let home_text = home.to_string_lossy();
    let file = |path: &Path| {
        let local = local_user().unwrap_or_default();
        let path =
            expand(&path.to_string_lossy(), &[('h', &host), ('r', &user), ('u', &local), ('d', &home_text)]);
        match path.strip_prefix("~/") {
            Some(rest) => home.join(rest),
            None => PathBuf::from(path),
        }
    };
    let mut files: Vec<PathBuf> = Vec::new();
    let configured = params.identity_file.unwrap_or_default();
    for path in target.identity_file.iter().chain(&configured) {
        let path = file(path);
        if !files.contains(&path) {
            files.push(path);
        }
    }
    let named = files.len();
    if files.is_empty() {
        files.extend(DEFAULT_KEYS.iter().map(|name| home.join(".ssh").join(name)));
    }
    let identities_only = [&params.unsupported_fields, &params.ignored_fields].iter().any(|fields| {
        fields.iter().any(|(name, values)| {
            name.eq_ignore_ascii_case("identitiesonly")
                && values.iter().any(|value| value.eq_ignore_ascii_case("yes"))
        })
    });
    Ok(Hop {
        host,
        port: target.port.or(params.port).unwrap_or(22),
        user,
        identity_files: files,
        named,
        identities_only,
        policy: target.policy,
        pinned: target.host_key,
    })
}

/// `[user@]host[:port]`, an address with colons in brackets, also written `ssh://…`.
fn parse_jump(text: &str) -> Result<Target, Error> {
    let bad = || Error::Other(format!("proxy_jump {text:?} is not [user@]host[:port]"));
    let rest = text.strip_prefix("ssh://").unwrap_or(text).trim_end_matches('/');
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (Some(user.to_owned()), rest),
        None => (None, rest),
    };
    let (host, port) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or_else(bad)?;
            (host, after.strip_prefix(':'))
        }
        // Several colons without brackets are an IPv6 address.
        None => match rest.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (rest, None),
        },
    };
    let port = port.map(|port| port.parse::<u16>().map_err(|_| bad())).transpose()?;
    if host.is_empty() || user.as_deref() == Some("") {
        return Err(bad());
    }
    Ok(Target { host: host.to_owned(), user, port, ..Target::default() })
}

fn expand(text: &str, values: &[(char, &str)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('%') => out.push('%'),
            Some(key) => match values.iter().find(|(name, _)| *name == key) {
                Some((_, value)) => out.push_str(value),
                None => out.extend(['%', key]),
            },
            None => out.push('%'),
        }
    }
    out
}

fn read(path: Option<&Path>) -> Result<SshConfig, Error> {
    let text = match path.map(std::fs::read_to_string) {
        Some(Ok(text)) => text,
        None => String::new(),
        Some(Err(e)) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Some(Err(e)) => {
            return Err(Error::Other(format!(
                "cannot read {}: {e}",
                path.unwrap_or(Path::new("")).display()
            )));
        }
    };
    let rules = ParseRule::ALLOW_UNKNOWN_FIELDS | ParseRule::ALLOW_UNSUPPORTED_FIELDS;
    SshConfig::default().parse(&mut without_match(&text).as_bytes(), rules).map_err(|e| {
        Error::Other(format!("cannot read {}: {e}", path.unwrap_or(Path::new("ssh_config")).display()))
    })
}

/// Takes Match blocks out: the parser would lay what they say to the Host block before them.
fn without_match(text: &str) -> String {
    let mut skipping = false;
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        if is_match_all(line) {
            skipping = false;
            out.push_str("Host *\n");
            continue;
        }
        if is_keyword(line, "match") {
            skipping = true;
        } else if is_keyword(line, "host") {
            skipping = false;
        }
        if !skipping {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| c.is_whitespace() || c == '=').filter(|word| !word.is_empty())
}

fn is_keyword(line: &str, keyword: &str) -> bool {
    words(line).next().is_some_and(|word| word.eq_ignore_ascii_case(keyword))
}

fn is_match_all(line: &str) -> bool {
    let words: Vec<&str> = words(line).collect();
    matches!(words[..], [first, all] if first.eq_ignore_ascii_case("match") && all.eq_ignore_ascii_case("all"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route_with(text: &str, target: Target) -> Result<Vec<Hop>, Error> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("config");
        std::fs::write(&path, text).expect("written");
        route(&target, &Options { config: Some(path), ..Options::default() })
    }

    fn addresses(hops: &[Hop]) -> Vec<String> {
        hops.iter().map(|hop| format!("{}@{}:{}", hop.user, hop.host, hop.port)).collect()
    }

    #[test]
    fn the_inventory_wins_over_ssh_config() {
        let text = "Host nas\n HostName %h.home.arpa\n User kim\n Port 2200\n IdentityFile /keys/%r-%h\n IdentitiesOnly yes\nMatch user x\n Port 9\nHost *\n User other\n";
        let target = |user: Option<&str>| Target {
            host: "nas".into(),
            user: user.map(Into::into),
            ..Target::default()
        };
        let hops = route_with(text, target(None)).expect("a route");
        assert_eq!(addresses(&hops), ["kim@nas.home.arpa:2200"]);
        assert_eq!(hops[0].identity_files, [PathBuf::from("/keys/kim-nas.home.arpa")]);
        assert!(hops[0].identities_only);
        let hops = route_with(text, target(Some("root"))).expect("a route");
        assert_eq!(addresses(&hops), ["root@nas.home.arpa:2200"]);
    }

    #[test]
    fn jumps_come_in_order_and_loops_end() {
        let text = "Host outer\n ProxyJump first.home.arpa\nHost a\n ProxyJump b\nHost b\n ProxyJump a\nHost *\n User kim\n";
        let to = |host: &str, jump: Option<&str>| Target {
            host: host.into(),
            proxy_jump: jump.map(Into::into),
            ..Target::default()
        };
        let hops = route_with(text, to("node", Some("outer,root@[fd00::1]:2222"))).expect("a route");
        assert_eq!(
            addresses(&hops),
            ["kim@first.home.arpa:22", "kim@outer:22", "root@fd00::1:2222", "kim@node:22"]
        );
        assert_eq!(route_with(text, to("outer", Some("none"))).expect("a route").len(), 1);
        assert!(route_with(text, to("a", None)).is_err());
        assert!(route_with(text, to("node", Some("x@:22"))).is_err());
    }
}
