//! Every block of code in README.md is tried: commands against the real command line (run, if they need no node),
//! TOML as an inventory or a role. A block in a language nobody tries is a failure.

use std::path::Path;
use std::process::Command;

use clap::{CommandFactory as _, Parser as _};
use datahub::cli::Cli;

const README: &str = include_str!("../README.md");

/// Commands that need no machine, and are run in a copy of the project.
const OFFLINE: &[&str] = &["validate", "inventory", "completions"];

struct Block {
    language: String,
    text: String,
    line: usize,
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (at, line) in README.lines().enumerate() {
        match (line.strip_prefix("```"), open.as_mut()) {
            (Some(language), None) => {
                let language = language.trim().to_owned();
                open = Some(Block { language, text: String::new(), line: at + 2 });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "README.md: a block is not closed");
    blocks
}

/// A folder with the project's inventory, as a fresh clone has it.
fn clone() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::create_dir(folder.path().join("inventory")).expect("made");
    std::fs::copy(root.join("inventory/datahub.toml"), folder.path().join("inventory/datahub.toml"))
        .expect("copied");
    folder
}

#[track_caller]
fn datahub(folder: &Path, args: &[&str], why: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_datahub"));
    let output = command.args(args).current_dir(folder).env("HOME", folder).output().expect("it runs");
    assert!(output.status.success(), "{why}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// The arguments after `datahub`, however it is started there. `None` for other programs' commands.
fn arguments(line: &str) -> Option<Vec<String>> {
    let line = line.strip_prefix("$ ").unwrap_or(line);
    // What a shell does with the output is not datahub's business.
    let line = line.split(" > ").next().unwrap_or(line);
    let words = shlex::split(line).unwrap_or_else(|| panic!("quotes: {line}"));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["datahub", rest @ ..] => Some(rest.iter().map(|word| (*word).to_owned()).collect()),
        ["cargo", "run", "--release", "--", rest @ ..] => {
            Some(rest.iter().map(|w| (*w).to_owned()).collect())
        }
        ["cargo", "test" | "install" | "bench", ..] => None,
        _ => panic!("README.md has a command that is not tried: {line}"),
    }
}

#[track_caller]
fn command_line(arguments: &[String], place: &str) {
    let words = ["datahub".to_owned()].into_iter().chain(arguments.iter().cloned());
    if let Err(error) = Cli::try_parse_from(words) {
        panic!("{place}: {}\n{error}", arguments.join(" "));
    }
}

#[test]
fn commands_in_blocks() {
    let folder = clone();
    let mut run = 0;
    for block in blocks().iter().filter(|block| ["sh", "console"].contains(&block.language.as_str())) {
        for (at, line) in block.text.lines().filter(|line| !line.trim().is_empty()).enumerate() {
            let place = format!("README.md:{}", block.line + at);
            let Some(arguments) = arguments(line) else { continue };
            command_line(&arguments, &place);
            let offline = OFFLINE.contains(&arguments[0].as_str());
            if offline {
                let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
                datahub(folder.path(), &words, &format!("{place}: {line}"));
                run += 1;
            }
            // Nodes and groups that are named are those of the shipped inventory.
            for pair in arguments.windows(2).filter(|pair| pair[0] == "--node") {
                datahub(folder.path(), &["inventory", &pair[1]], &place);
            }
        }
    }
    assert!(run >= 2, "validate and completions are in the README");
}

/// `datahub …` within the text.
#[test]
fn commands_in_the_text() {
    let mut inside = false;
    let mut count = 0;
    for (at, line) in README.lines().enumerate() {
        if line.starts_with("```") {
            inside = !inside;
        }
        if inside {
            continue;
        }
        for span in line.split('`').skip(1).step_by(2).filter(|span| span.starts_with("datahub ")) {
            // Words in capitals stand for something.
            let span = span.replace("[NODE]", "orpi-1").replace("SHELL", "bash");
            let words = arguments(&span).expect("of datahub");
            command_line(&words, &format!("README.md:{}", at + 1));
            count += 1;
        }
    }
    assert!(count >= 8, "{count}");
}

#[test]
fn the_table_of_commands_is_complete() {
    let listed = |name: &str| README.contains(&format!("| `datahub {name}"));
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        assert!(name == "help" || listed(name), "`datahub {name}` is not in the table of README.md");
    }
}

#[test]
fn toml_blocks() {
    let mut count = 0;
    for block in blocks().iter().filter(|block| block.language == "toml") {
        let place = format!("README.md:{}", block.line);
        let folder = clone();
        let inventory = folder.path().join("inventory/datahub.toml");
        let shipped = std::fs::read_to_string(&inventory).expect("there");
        if block.text.starts_with("[cluster]") {
            let node = "[nodes.one]\nhost = \"one.home.arpa\"\narch = \"amd64\"\nos = \"debian-13\"\n";
            // Components are installed through a server.
            let server = if block.text.contains("components") {
                "roles = [\"k3s-server\"]\n[k3s]\nversion = \"v1.36.4+k3s1\"\n"
            } else {
                ""
            };
            std::fs::write(&inventory, format!("{}\n{node}{server}", block.text)).expect("written");
        } else if block.text.contains("[nodes.") {
            // In place of the node of that name.
            let head = block.text.lines().find(|line| line.starts_with("[nodes.")).expect("a node");
            let (before, rest) = shipped.split_once(head).unwrap_or((&shipped, ""));
            let after = rest.find("\n[").map_or("", |at| &rest[at..]);
            std::fs::write(&inventory, format!("{before}{}{after}", block.text)).expect("written");
        } else {
            assert!(block.text.starts_with("description ="), "{place}: an inventory or a role");
            let role = folder.path().join("roles/shown");
            std::fs::create_dir_all(&role).expect("made");
            std::fs::write(role.join("role.toml"), &block.text).expect("written");
            let with = shipped.replace("roles = [\"base\"]", "roles = [\"base\", \"shown\"]");
            assert_ne!(with, shipped);
            std::fs::write(&inventory, with).expect("written");
        }
        datahub(folder.path(), &["validate"], &place);
        count += 1;
    }
    assert!(count >= 2, "{count}");
}

#[test]
fn every_block_is_tried() {
    for block in blocks() {
        let tried = ["sh", "console", "toml"].contains(&block.language.as_str());
        assert!(tried, "README.md:{}: nobody tries {:?}", block.line, block.language);
    }
}
