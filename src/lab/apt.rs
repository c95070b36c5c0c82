//! This computer's own way to Debian's packages, carried over to the machines of a lab.
//!
//! sources.list(5) in both its forms is read; what stays are Debian's own archives, with the release exchanged.
//! Repositories of others are left out: a machine is to be like a freshly installed one.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

/// The keys of Debian's archives, of its package debian-archive-keyring.
pub const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Ports of downloads that no source needs to name: DNS over TCP, HTTP, HTTPS.
const PORTS: [u16; 3] = [53, 80, 443];
/// What apt's settings tell of the way to the archives. Those that name files of this computer stay here.
const SETTINGS: &[&str] = &[
    "acquire::http::",
    "acquire::https::",
    "acquire::check-valid-until",
    "acquire::check-date",
    "acquire::retries",
    "acquire::forceipv4",
];
const OF_THIS_COMPUTER: &[&str] =
    &["proxy-auto-detect", "proxyautodetect", "cainfo", "capath", "sslcert", "sslkey", "crlfile"];

/// One paragraph of a deb822 sources file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub uris: Vec<String>,
    /// What follows the release's name: empty, `-updates`, `-security`.
    pub suffixes: Vec<String>,
    pub components: Vec<String>,
    /// A keyring's path, or keys written out with their lines indented.
    pub signed_by: Option<String>,
    pub trusted: bool,
}

/// This computer's archives and settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Apt {
    /// Empty: the tools' own default is to be used.
    pub sources: Vec<Source>,
    /// Lines of an apt.conf(5).
    pub settings: String,
}

impl Apt {
    pub fn of_this_computer() -> Self {
        let codename = codename(&read("/etc/os-release"));
        let mut sources = one_line_sources(&read("/etc/apt/sources.list"), &codename);
        let mut files: Vec<_> = std::fs::read_dir("/etc/apt/sources.list.d")
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        files.sort();
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("list") => sources.extend(one_line_sources(&text, &codename)),
                Some("sources") => sources.extend(paragraphs(&text, &codename)),
                _ => {}
            }
        }
        let dump = super::command::tool("apt-config").arg("dump").output();
        let dump =
            dump.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        Self { sources, settings: settings(&dump, |name| std::env::var(name).ok()) }
    }

    /// A deb822 sources file for a release.
    pub fn sources_file(&self, codename: &str) -> String {
        let mut text = String::new();
        for source in &self.sources {
            let suites: Vec<String> =
                source.suffixes.iter().map(|suffix| format!("{codename}{suffix}")).collect();
            let signed_by = source.signed_by.as_deref().unwrap_or(DEBIAN_KEYRING);
            let _ = writeln!(
                text,
                "Types: deb\nURIs: {}\nSuites: {}\nComponents: {}\nSigned-By: {signed_by}",
                source.uris.join(" "),
                suites.join(" "),
                source.components.join(" "),
            );
            text.push_str(if source.trusted { "Trusted: yes\n\n" } else { "\n" });
        }
        text
    }

    /// Files of this computer that the sources need: keyrings other than Debian's.
    pub fn keyrings(&self) -> impl Iterator<Item = &Path> {
        let named = self.sources.iter().filter_map(|source| source.signed_by.as_deref());
        named.filter(|keys| keys.starts_with('/') && *keys != DEBIAN_KEYRING).map(Path::new)
    }

    /// TCP ports the machines have to reach for their packages.
    pub fn ports(&self) -> BTreeSet<u16> {
        let uris = self.sources.iter().flat_map(|source| source.uris.iter().map(String::as_str));
        let values = self.settings.split('"').skip(1).step_by(2);
        uris.chain(values).filter_map(port).chain(PORTS).collect()
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// `VERSION_CODENAME` of an os-release file; empty when it has none.
fn codename(os_release: &str) -> String {
    let value = os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    value.unwrap_or_default().trim_matches('"').to_owned()
}

/// Lines like `deb [signed-by=/k] http://host/debian bookworm main`.
fn one_line_sources(text: &str, codename: &str) -> Vec<Source> {
    let source = |line: &str| {
        let line = line.split('#').next()?.trim().strip_prefix("deb ")?.trim_start();
        let (options, rest) = match line.strip_prefix('[') {
            Some(bracketed) => bracketed.split_once(']')?,
            None => ("", line),
        };
        let option = |name: &str| {
            let mut words = options.split_whitespace().filter_map(|word| word.split_once('='));
            words.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        };
        let mut words = rest.split_whitespace().map(str::to_owned);
        of_debian(
            vec![words.next()?],
            &[words.next()?],
            words.collect(),
            option("signed-by"),
            option("trusted").as_deref() == Some("yes"),
            codename,
        )
    };
    text.lines().filter_map(source).collect()
}

/// The paragraphs of a deb822 file.
fn paragraphs(text: &str, codename: &str) -> Vec<Source> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines
        .split(|line| line.trim().is_empty())
        .filter_map(|paragraph| source_of(paragraph, codename))
        .collect()
}

fn source_of(paragraph: &[&str], codename: &str) -> Option<Source> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in paragraph {
        if line.starts_with([' ', '\t']) {
            let (_, value) = fields.last_mut()?;
            value.push('\n');
            value.push_str(line);
        } else {
            let (name, value) = line.split_once(':')?;
            fields.push((name.trim().to_lowercase(), value.trim().to_owned()));
        }
    }
    let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let words = |name: &str| -> Vec<String> {
        field(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    if field("enabled") == Some("no") || !words("types").iter().any(|kind| kind == "deb") {
        return None;
    }
    of_debian(
        words("uris"),
        &words("suites"),
        words("components"),
        field("signed-by").map(str::to_owned),
        field("trusted") == Some("yes"),
        codename,
    )
}

/// A source, if it is one of Debian's archives that can be reached over the network.
fn of_debian(
    mut uris: Vec<String>,
    suites: &[String],
    components: Vec<String>,
    signed_by: Option<String>,
    trusted: bool,
    codename: &str,
) -> Option<Source> {
    uris.retain(|uri| uri.starts_with("http://") || uri.starts_with("https://"));
    let suffixes: Vec<String> = suites.iter().filter_map(|suite| suffix(suite, codename)).collect();
    // Others publish under Debian's code names too, but with keys of their own and rarely in its layout.
    let layout = uris.iter().all(|uri| uri.trim_end_matches('/').rsplit('/').next().is_some_and(is_archive));
    let genuine =
        !uris.is_empty() && !suffixes.is_empty() && components.iter().any(|c| c == "main") && layout;
    genuine.then_some(Source { uris, suffixes, components, signed_by, trusted })
}

/// The last part of an archive's address: `debian`, `debian-security`.
fn is_archive(part: &str) -> bool {
    part.contains("debian")
}

/// What follows the release's name in a suite of the release this computer has.
fn suffix(suite: &str, codename: &str) -> Option<String> {
    let names = [codename, "stable", "oldstable", "testing"];
    let rest = names.iter().filter(|name| !name.is_empty()).find_map(|name| suite.strip_prefix(name))?;
    ["", "-updates", "-security"].contains(&rest).then(|| rest.to_owned())
}

/// The lines of `apt-config dump` that tell of the way to the archives; a proxy of the environment is added.
fn settings(dump: &str, environment: impl Fn(&str) -> Option<String>) -> String {
    let carried = |line: &&str| {
        let key = line.split(' ').next().unwrap_or_default().to_lowercase();
        let last = key.rsplit("::").next().unwrap_or_default();
        SETTINGS.iter().any(|prefix| key.starts_with(prefix))
            && !OF_THIS_COMPUTER.contains(&last)
            && !line.ends_with("\"\";")
    };
    let mut text: String = dump.lines().filter(carried).map(|line| format!("{line}\n")).collect();
    for scheme in ["http", "https"] {
        let key = format!("Acquire::{scheme}::Proxy");
        let known =
            text.lines().any(|line| line.to_lowercase().starts_with(&format!("{} ", key.to_lowercase())));
        let proxy = environment(&format!("{scheme}_proxy"));
        if let Some(proxy) = proxy.filter(|proxy| !known && !proxy.is_empty() && !proxy.contains(['"', '\n']))
        {
            let _ = writeln!(text, "{key} \"{proxy}\";");
        }
    }
    text
}

/// The port a URI names.
fn port(uri: &str) -> Option<u16> {
    let (_, rest) = uri.split_once("://")?;
    let host = rest.split('/').next()?;
    host.rsplit_once(':')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn source(uri: &str, suffixes: &[&str], components: &[&str]) -> Source {
        Source {
            uris: strings(&[uri]),
            suffixes: strings(suffixes),
            components: strings(components),
            signed_by: None,
            trusted: false,
        }
    }

    #[test]
    fn one_line_sources_are_read_and_those_of_others_left_out() {
        let text = "# comment\n\
                    deb http://mirror.home.arpa/debian bookworm main contrib # here\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://mirror.home.arpa:8080/debian/ stable-updates main\n\
                    deb-src http://mirror.home.arpa/debian bookworm main\n\
                    deb cdrom:[Debian]/ bookworm main\n\
                    deb http://other.home.arpa/tool bookworm main\n\
                    deb http://other.home.arpa/debian bookworm stable\n\
                    deb http://other.home.arpa/debian bookworm-tool main\n";
        let signed = Source {
            signed_by: Some("/k.gpg".into()),
            ..source("http://mirror.home.arpa:8080/debian/", &["-updates"], &["main"])
        };
        let apt = Apt { sources: one_line_sources(text, "bookworm"), settings: String::new() };
        assert_eq!(
            apt.sources,
            [source("http://mirror.home.arpa/debian", &[""], &["main", "contrib"]), signed]
        );
        assert_eq!(apt.keyrings().collect::<Vec<_>>(), [Path::new("/k.gpg")]);
        assert_eq!(apt.ports().into_iter().collect::<Vec<_>>(), [53, 80, 443, 8080]);
    }

    #[test]
    fn a_deb822_file_comes_out_for_another_release() {
        let text = "Types: deb deb-src\n# a comment\nURIs: http://mirror.home.arpa/debian\n\
                    Suites: bookworm bookworm-updates bookworm-backports\nComponents: main\n\
                    Signed-By:\n -----BEGIN\n .\n -----END\n\n\n\
                    Types: deb\nEnabled: no\nURIs: http://mirror.home.arpa/debian-security\n\
                    Suites: bookworm-security\nComponents: main\n";
        let apt = Apt { sources: paragraphs(text, "bookworm"), settings: String::new() };
        assert_eq!(
            apt.sources_file("trixie"),
            "Types: deb\nURIs: http://mirror.home.arpa/debian\nSuites: trixie trixie-updates\n\
             Components: main\nSigned-By: \n -----BEGIN\n .\n -----END\n\n"
        );
        assert_eq!(apt.keyrings().count(), 0);
    }

    #[test]
    fn settings_of_the_way_are_carried_over() {
        let dump = "APT \"\";\nAcquire::http \"\";\nAcquire::http::Proxy \"http://p.home.arpa:3142/\";\n\
                    Acquire::https::CaInfo \"/etc/ca.pem\";\nAcquire::Check-Date \"false\";\n\
                    Acquire::Languages:: \"none\";\n";
        let environment = |name: &str| (name != "no_proxy").then(|| "http://e.home.arpa:1".to_owned());
        let apt = Apt { sources: Vec::new(), settings: settings(dump, environment) };
        assert_eq!(
            apt.settings,
            "Acquire::http::Proxy \"http://p.home.arpa:3142/\";\nAcquire::Check-Date \"false\";\n\
             Acquire::https::Proxy \"http://e.home.arpa:1\";\n"
        );
        assert_eq!(apt.ports().into_iter().collect::<Vec<_>>(), [1, 53, 80, 443, 3142]);
    }

    #[test]
    fn the_code_name_is_read() {
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=bookworm\n"), "bookworm");
        assert_eq!(codename("VERSION_CODENAME=\"trixie\"\n"), "trixie");
        assert_eq!(codename("ID=x\n"), "");
    }
}
