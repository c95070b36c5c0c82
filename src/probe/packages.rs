//! Packages: what dpkg knows of them.

use std::collections::HashMap;

use super::Package;
use super::sh::{ReadError, unexpected};
use crate::shell::quote_all;

/// The command that answers about all of them. It says nothing of names that dpkg has never heard of.
pub(super) fn command(names: &[&str]) -> String {
    format!("dpkg-query -W -f='${{Package}}\\t${{db:Status-Abbrev}}\\t${{Version}}\\n' {}", quote_all(names))
}

/// Packages by name.
pub(super) fn read(body: &str) -> Result<HashMap<&str, Package>, ReadError> {
    let mut seen: HashMap<&str, Package> = HashMap::new();
    for line in body.lines() {
        let (name, package) = read_package(line).ok_or_else(|| unexpected("dpkg-query", line))?;
        // Of several architectures the installed one counts.
        let entry = seen.entry(name).or_default();
        if !entry.installed {
            *entry = package;
        }
    }
    Ok(seen)
}

fn read_package(line: &str) -> Option<(&str, Package)> {
    let mut fields = line.split('\t');
    let name = fields.next()?;
    let mut status = fields.next()?.chars();
    let (want, is) = (status.next()?, status.next()?);
    let version = fields.next()?.to_owned();
    Some((
        name,
        Package {
            installed: is == 'i',
            broken: "HUFWt".contains(is),
            held: want == 'h',
            config_files: is == 'c',
            version,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_as_dpkg_writes_them() {
        let cases = [
            ("curl\tii \t8.1", Package { installed: true, version: "8.1".into(), ..Package::default() }),
            (
                "curl\thi \t8.1",
                Package { installed: true, held: true, version: "8.1".into(), ..Package::default() },
            ),
            ("curl\trc \t8.1", Package { config_files: true, version: "8.1".into(), ..Package::default() }),
            ("curl\tiF \t8.1", Package { broken: true, version: "8.1".into(), ..Package::default() }),
            ("curl\tun \t", Package::default()),
        ];
        for (line, expected) in cases {
            assert_eq!(read_package(line), Some(("curl", expected)), "{line:?}");
        }
    }
}
