//! `[k3s]`: the release the cluster runs, and how its files come to the nodes.

use std::path::Path;

use super::document::{Reader, Table};
use crate::artifact::release::{DEFAULT_SOURCE, Source, is_version};

const KEYS: &[&str] = &["version", "source", "transfer", "airgap"];
const TRANSFERS: &[&str] = &["push", "pull"];

/// `[k3s]`. Architectures are those of the nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct K3s {
    /// The release's tag: `v1.36.3+k3s1`.
    pub version: String,
    /// A web address or a folder; beneath it, or in the place of `{version}` in it, a folder for each release.
    pub source: Source,
    pub transfer: Transfer,
    /// Bring the images too, as an archive; else the nodes pull them.
    pub airgap: bool,
}

/// How a file comes to a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Transfer {
    /// Downloaded once by the operator's machine, and sent over the SSH connections.
    #[default]
    Push,
    /// Downloaded by every node.
    Pull,
}

pub(super) fn k3s<'d>(reader: &mut Reader<'d>, top: &Table<'d>, dir: &Path) -> Option<K3s> {
    let table = reader.section(top, "k3s", "[k3s]")?;
    reader.known(&table, KEYS);
    if let Some(field) = table.get("version") {
        // That a release is not pinned is told there.
        reader.note(field);
    }
    let version = reader.required(&table, "version", "\"v1.36.3+k3s1\"");
    if let Some((version, span)) = version.as_ref().filter(|(version, _)| !is_version(version)) {
        let help =
            "write the whole tag of a release, as github.com/k3s-io/k3s/releases has it: \"v1.36.3+k3s1\"";
        reader.error(span.clone(), format!("`{version}` is not a release of K3s"), "not a tag", help);
    }
    let written = reader.string(&table, "source");
    let source = Source::parse(written.as_ref().map_or(DEFAULT_SOURCE, |(text, _)| text), dir);
    let transfer = transfer(reader, &table);
    let airgap = reader.boolean(&table, "airgap").unwrap_or_default();
    match (&source, &written) {
        (Err(why), Some((text, span))) => {
            let help = "write a web address (https://…) or a folder";
            reader.error(span.clone(), format!("the source `{text}` cannot be used: {why}"), "", help);
        }
        (Ok(Source::Folder(_)), Some((_, span))) if transfer == Transfer::Pull => {
            let help = "set transfer = \"push\", or name a server the nodes can reach";
            reader.error(span.clone(), "nodes cannot pull from a folder on this machine", "a folder", help);
        }
        _ => {}
    }
    Some(K3s { version: version?.0, source: source.ok()?, transfer, airgap })
}

fn transfer<'d>(reader: &mut Reader<'d>, table: &Table<'d>) -> Transfer {
    match reader.string(table, "transfer") {
        Some((word, _)) if word == "pull" => Transfer::Pull,
        Some((word, span)) if word != "push" => {
            reader.unknown(span, "transfer", &word, TRANSFERS);
            Transfer::Push
        }
        _ => Transfer::Push,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Source as Text;
    use crate::inventory::document::plain;
    use crate::inventory::load::parse;

    fn read(fields: &str) -> Result<Option<K3s>, String> {
        let text = format!("[cluster]\nname = \"home\"\n{fields}");
        let read = parse(Text::new("datahub.toml", text), "inventory".into());
        read.map(|inventory| inventory.k3s).map_err(|errors| plain(&errors))
    }

    #[test]
    fn good_ones() {
        let k3s = |source: &str, transfer, airgap| {
            let source = Source::parse(source, Path::new("inventory")).expect("a source");
            Ok(Some(K3s { version: "v1.36.3+k3s1".into(), source, transfer, airgap }))
        };
        let head = "[k3s]\nversion = \"v1.36.3+k3s1\"\n";
        assert_eq!(read(""), Ok(None));
        assert_eq!(read(head), k3s(DEFAULT_SOURCE, Transfer::Push, false));
        let more = "source = \"https://mirror.home.arpa/k3s\"\ntransfer = \"pull\"\nairgap = true";
        let mirror = "https://mirror.home.arpa/k3s";
        assert_eq!(read(&format!("{head}{more}")), k3s(mirror, Transfer::Pull, true));
        let folder = read(&format!("{head}source = \"releases\"")).expect("valid").expect("there");
        assert_eq!(folder.source, Source::Folder("inventory/releases".into()));
    }

    #[test]
    fn mistakes() {
        let cases = [
            (
                "[k3s]\nsource = \"ftp://a.example\"\ntransfer = \"pul\"\nairgap = \"yes\"\nverison = \"v1.0.0\"",
                "\
datahub.toml:3:2: [k3s] has no `version`
 ^ `version` is missing
 ? add a line like: version = \"v1.36.3+k3s1\"
datahub.toml:4:10: the source `ftp://a.example` cannot be used: ftp:// is not supported
 ? write a web address (https://…) or a folder
datahub.toml:5:12: unknown transfer `pul`
 ^ no such transfer
 ? did you mean `pull`?
datahub.toml:6:10: `airgap` must be true or false, not a string
 ^ this is a string
datahub.toml:7:1: unknown key `verison` in [k3s]
 ^ not a key here
 ? did you mean `version`?
",
            ),
            (
                "[k3s]\nversion = \"1.36.3\"\nsource = \"releases\"\ntransfer = \"pull\"",
                "\
datahub.toml:4:11: `1.36.3` is not a release of K3s
 ^ not a tag
 ? write the whole tag of a release, as github.com/k3s-io/k3s/releases has it: \"v1.36.3+k3s1\"
datahub.toml:5:10: nodes cannot pull from a folder on this machine
 ^ a folder
 ? set transfer = \"push\", or name a server the nodes can reach
",
            ),
        ];
        for (fields, wanted) in cases {
            assert_eq!(read(fields).expect_err("mistakes"), wanted);
        }
    }
}
