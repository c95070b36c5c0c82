//! What the unit tests of resources that write files share: a real file in a folder of its own, seen as a probe would.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::Path;
use std::process::Command;

use super::{Resource, Verdict};
use crate::probe::{Answer, Answers, Content, Facts, FileType, Question, Stat};
use crate::shell::whole_or_nothing;

/// Builds a resource from the fields of its table.
pub fn build(kind: &str, fields: &str) -> Box<dyn Resource> {
    super::build(kind, toml::from_str(fields).expect("fields are TOML")).expect("fields are right")
}

/// What is wrong with the fields of a table.
pub fn mistake(kind: &str, fields: &str) -> String {
    super::build(kind, toml::from_str(fields).expect("fields are TOML"))
        .expect_err("fields are wrong")
        .to_string()
}

pub fn stat(file_type: FileType, mode: u32) -> Stat {
    Stat {
        file_type,
        mode,
        owner: "root".into(),
        group: "root".into(),
        size: 0,
        target: String::new(),
        identity: (0, 0),
    }
}

/// A root-owned file with this content, asked for with an empty `unless`.
pub fn seen_text(path: &str, content: Content, mode: u32) -> Answers {
    Answers::new(Facts::default())
        .with(Question::Stat(path.into()), Answer::Stat(Some(stat(FileType::File, mode))))
        .with(Question::Content { path: path.into(), unless: String::new() }, Answer::Content(content))
}

/// The user and group the tests run as, by name: changing a file's owner to oneself needs no right.
pub fn me() -> (String, String) {
    let id = |flag| {
        let out = Command::new("id").arg(flag).output().expect("id runs");
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    };
    (id("-un"), id("-gn"))
}

/// A path in a temporary folder, and whatever stands there.
pub struct TextFile(tempfile::TempDir);

impl TextFile {
    pub fn missing() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    pub fn with(text: &str, mode: u32) -> Self {
        let file = Self::missing();
        file.write(text);
        std::fs::set_permissions(file.path(), PermissionsExt::from_mode(mode)).expect("mode is set");
        file
    }

    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self) -> String {
        self.0.path().join("file").to_str().expect("UTF-8").to_owned()
    }

    pub fn write(&self, text: &str) {
        std::fs::write(self.path(), text).expect("is written");
    }

    pub fn read(&self) -> String {
        std::fs::read_to_string(self.path()).expect("is read")
    }

    pub fn mode(&self) -> u32 {
        std::fs::metadata(self.path()).expect("exists").mode() & 0o7777
    }

    /// All names in the folder, sorted.
    pub fn neighbours(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.folder())
            .expect("is listed")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Answers a resource's questions about files as they are now, and compares.
    pub fn diff(&self, resource: &dyn Resource) -> Verdict {
        let answers = look_at_files(&resource.questions(), Answers::new(Facts::default()));
        resource.diff(&answers).expect("every question is answered")
    }

    /// Runs a script as the transports do: whole, on standard input of `sh`. The error is what it printed on stderr.
    pub fn run(&self, script: &str) -> Result<(), String> {
        run(script)
    }
}

/// Answers questions about files as they are now; the others are left out.
pub fn look_at_files(questions: &[Question], mut answers: Answers) -> Answers {
    for question in questions {
        let answer = match question {
            Question::Stat(path) => Answer::Stat(look(path)),
            Question::Content { path, unless } => Answer::Content(match std::fs::read(path) {
                Ok(bytes) if super::text::sha256_hex(&bytes) == *unless => Content::Same,
                Ok(bytes) => Content::Differs(bytes),
                Err(_) if Path::new(path).exists() => Content::NotAFile,
                Err(_) => Content::Absent,
            }),
            _ => continue,
        };
        answers.insert(question.clone(), answer);
    }
    answers
}

/// Runs a script that writes files of root's, giving them to whoever runs the tests.
pub fn run_as_me(script: &str) -> Result<(), String> {
    let (owner, group) = me();
    run(&script.replace("chown -- root:root", &format!("chown -- {owner}:{group}")))
}

pub fn run(script: &str) -> Result<(), String> {
    use std::io::Write as _;
    let mut child = Command::new("sh")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("sh runs");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(whole_or_nothing(script).as_bytes()).expect("sh reads");
    drop(stdin);
    let out = child.wait_with_output().expect("sh ends");
    if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
}

fn look(path: &str) -> Option<Stat> {
    let meta = std::fs::symlink_metadata(path).ok()?;
    let (owner, group) = me();
    let file_type = match meta.file_type() {
        t if t.is_symlink() => FileType::Link,
        t if t.is_dir() => FileType::Directory,
        t if t.is_file() => FileType::File,
        _ => FileType::Other,
    };
    let target = std::fs::read_link(path).map(|t| t.to_string_lossy().into_owned()).unwrap_or_default();
    Some(Stat {
        file_type,
        mode: meta.mode() & 0o7777,
        owner,
        group,
        size: meta.len(),
        target,
        identity: (meta.dev(), meta.ino()),
    })
}
