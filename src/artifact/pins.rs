//! What a release's own lists say: the pins that `datahub lock` writes.

use std::path::Path;

use super::Error;
use super::download::Client;
use super::lock::{Files, Pin};
use super::release::{LIST_LIMIT, Location, Names, Source, names, read_list};

/// Reads the list of every architecture, and asks how large the files are that machines of it need. `beside` is the
/// inventory's folder: where a list lies beneath it, its place is noted relative to it.
pub fn of_release<'a>(
    client: &Client,
    source: &Source,
    version: &str,
    architectures: impl IntoIterator<Item = &'a str>,
    beside: &Path,
) -> Result<Files, Error> {
    let mut files = Files::new();
    for names in architectures.into_iter().filter_map(names) {
        let list = source.locate(version, names.list);
        for (sha256, file) in listed(client, &list, names)? {
            let size = match [names.binary, names.images].contains(&file.as_str()) {
                true => client.size(&source.locate(version, &file)),
                false => None,
            };
            let pin = Pin { sha256, size, from: shown(&list, beside) };
            if let Some(other) = files.get(&file).filter(|other| other.sha256 != pin.sha256) {
                let why = format!("it has another checksum for {file} than {}", other.from);
                return Err(Error::NotAList { from: list.to_string(), why });
            }
            files.entry(file).or_insert(pin);
        }
    }
    Ok(files)
}

fn listed(client: &Client, list: &Location, names: Names) -> Result<Vec<(String, String)>, Error> {
    let files = read_list(&client.text(list, LIST_LIMIT)?, &list.to_string())?;
    if files.iter().any(|(_, file)| file == names.binary) {
        return Ok(files);
    }
    Err(Error::NotAList { from: list.to_string(), why: format!("it does not name {}", names.binary) })
}

fn shown(list: &Location, beside: &Path) -> String {
    match list {
        Location::File(path) => path.strip_prefix(beside).unwrap_or(path).display().to_string(),
        Location::Url(url) => url.clone(),
    }
}
