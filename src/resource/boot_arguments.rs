//! `boot_arguments`: words of the kernel's command line, where a board's boot loader reads them from a file.

use serde::Deserialize;

use super::edit;
use super::text::check_path;
use super::{Resource, Verdict};
use crate::probe::{Answers, Content, Question, Unanswered};

/// Arguments of the kernel, in the file from which the board's boot loader takes them. They take effect at the next
/// boot: notify a handler that reboots. Until then a note names those that the running kernel was not given.
///
/// An argument that is missing is added at the end (before `--`, after which words are meant for init). One that
/// stands there with another value is replaced, and further ones of the same name are removed, for the last of them
/// would win; unless several are wanted, or the kernel itself takes the name several times (`cgroup_enable`,
/// `cgroup_disable`, `console`, `earlycon`, `memmap`, `video`, `module_blacklist`, `systemd.mask`, `systemd.setenv`,
/// `systemd.wants`): then each is a word of its own and the others stay. `-` and `_` in names are the same to the
/// kernel. All other words, and all other lines, stay as they are.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootArguments {
    /// Raspberry Pi: /boot/firmware/cmdline.txt. Armbian: /boot/armbianEnv.txt. Orange Pi: /boot/orangepiEnv.txt.
    /// The file must exist.
    pub path: String,
    /// The name before the `=` of the line that holds the arguments (`extraargs` on Armbian and Orange Pi); the line
    /// is added if it is missing. Without it, the file is one line of arguments, as on a Raspberry Pi.
    #[serde(default)]
    pub key: Option<String>,
    /// As they stand on the command line: `cgroup_enable=memory`, `quiet`.
    pub arguments: Vec<String>,
}

/// Names that the kernel or systemd takes several times, every value counting.
const REPEATED: &[&str] = &[
    "cgroup_disable",
    "cgroup_enable",
    "console",
    "earlycon",
    "memmap",
    "module_blacklist",
    "systemd.mask",
    "systemd.setenv",
    "systemd.wants",
    "video",
];

/// Words by white space, except within double quotes, as the kernel splits them.
fn words(line: &str) -> Vec<&str> {
    let mut quoted = false;
    line.split(move |c: char| {
        quoted ^= c == '"';
        !quoted && c.is_whitespace()
    })
    .filter(|word| !word.is_empty())
    .collect()
}

/// Name and, after the first `=`, value; the name as the kernel compares it.
fn parts(word: &str) -> (String, Option<&str>) {
    match word.split_once('=') {
        Some((name, value)) => (name.replace('-', "_"), Some(value)),
        None => (word.replace('-', "_"), None),
    }
}

impl BootArguments {
    fn wants(&self, word: &str) -> bool {
        self.arguments.iter().any(|wanted| parts(wanted) == parts(word))
    }

    /// A word that must go because a wanted one of its name takes its place.
    fn is_stale(&self, word: &str) -> bool {
        let (name, _) = parts(word);
        !self.wants(word)
            && !REPEATED.contains(&name.as_str())
            && self.arguments.iter().any(|wanted| parts(wanted).0 == name)
    }

    /// `None` if nothing is to be changed.
    fn edit_words(&self, line: &str) -> Option<String> {
        let all = words(line);
        let (ours, init) = all.split_at(all.iter().position(|word| *word == "--").unwrap_or(all.len()));
        let mut missing: Vec<&str> = self
            .arguments
            .iter()
            .filter(|wanted| !ours.iter().any(|word| parts(word) == parts(wanted)))
            .map(String::as_str)
            .collect();
        if missing.is_empty() && !ours.iter().any(|word| self.is_stale(word)) {
            return None;
        }
        let mut after = Vec::new();
        for word in ours {
            if !self.is_stale(word) {
                after.push(*word);
            } else if let Some(at) = missing.iter().position(|wanted| parts(wanted).0 == parts(word).0) {
                after.push(missing.remove(at));
            }
        }
        after.extend(missing);
        after.extend(init);
        Some(after.join(" "))
    }

    /// The last line with the key counts, as the boot loaders read it. Quotes around the value stay.
    fn edit_key(&self, key: &str, text: &str) -> String {
        let value =
            |line: &str| line.strip_prefix(key).and_then(|rest| rest.strip_prefix('=')).map(str::to_owned);
        let mut lines: Vec<String> = text.split_terminator('\n').map(str::to_owned).collect();
        let Some(at) = lines.iter().rposition(|line| value(line).is_some()) else {
            lines.push(format!("{key}={}", self.arguments.join(" ")));
            return edit::join(&lines);
        };
        let whole = value(&lines[at]).unwrap_or_default();
        let (value, end) = whole.strip_suffix('\r').map_or((whole.as_str(), ""), |value| (value, "\r"));
        let quote =
            ["\"", "'"].into_iter().find(|q| value.len() > 1 && value.starts_with(q) && value.ends_with(q));
        let quote = quote.unwrap_or_default();
        match self.edit_words(&value[quote.len()..value.len() - quote.len()]) {
            None => text.to_owned(),
            Some(words) => {
                lines[at] = format!("{key}={quote}{words}{quote}{end}");
                edit::join(&lines)
            }
        }
    }

    fn edit(&self, text: &str) -> Result<String, String> {
        if let Some(key) = &self.key {
            return Ok(self.edit_key(key, text));
        }
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        match (lines.next(), lines.next()) {
            (_, Some(_)) => {
                Err("holds several lines, not one of arguments; name the one that does with `key`".into())
            }
            (line, None) => Ok(self
                .edit_words(line.unwrap_or_default())
                .map_or_else(|| text.to_owned(), |words| format!("{words}\n"))),
        }
    }
}

/// What the running kernel was given.
const LIVE: &str = "/proc/cmdline";

impl Resource for BootArguments {
    fn name(&self) -> String {
        self.path.clone()
    }

    fn questions(&self) -> Vec<Question> {
        let live = Question::Content { path: LIVE.into(), unless: String::new() };
        edit::questions(&self.path).into_iter().chain([live]).collect()
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        let path = &self.path;
        if seen.stat(path)?.is_none() {
            return Ok(Verdict::Unknown(format!(
                "{path} does not exist; name the file from which this board's boot loader takes its arguments"
            )));
        }
        edit::diff(path, false, seen, |text| self.edit(text))
    }

    fn notes(&self, seen: &Answers) -> Vec<String> {
        let Ok(Content::Differs(live)) = seen.content(LIVE, "") else { return Vec::new() };
        let live = String::from_utf8_lossy(live);
        let given: Vec<_> = words(&live).into_iter().map(parts).collect();
        let waiting: Vec<&str> =
            self.arguments.iter().map(String::as_str).filter(|word| !given.contains(&parts(word))).collect();
        match waiting.is_empty() || seen.facts.container {
            true => Vec::new(),
            false => vec![format!("not in effect until the next boot: {}", waiting.join(" "))],
        }
    }

    fn check(&self) -> Result<(), String> {
        check_path(&self.path)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if self.key.as_ref().is_some_and(|key| key.is_empty() || !key.chars().all(plain)) {
            return Err("`key` must be a name of letters, digits and `_`, without the `=`".into());
        }
        if self.arguments.is_empty() {
            return Err("`arguments` must hold at least one".into());
        }
        for word in &self.arguments {
            let one = words(word) == [word.as_str()] && word.matches('"').count() % 2 == 0;
            if !one || word == "--" || word.starts_with('=') || word.contains(char::is_control) {
                return Err(format!(
                    "`arguments` holds {word:?}, which is not one word, as \"cgroup_enable=memory\""
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Answer;
    use crate::resource::testing::{TextFile, build, mistake, seen_text};

    fn arguments(path: &str, key: &str, words: &str) -> BootArguments {
        let list: Vec<String> = words.split(' ').map(|word| format!("'{word}'")).collect();
        let resource: BootArguments =
            toml::from_str(&format!("path = '{path}'\n{key}\narguments = [{}]", list.join(", "))).unwrap();
        resource.check().unwrap();
        resource
    }

    #[test]
    fn edits_as_data() {
        let k3s = "cgroup_memory=1 cgroup_enable=memory";
        let key = "key = 'extraargs'";
        let cases = [
            (
                "",
                k3s,
                "root=/dev/x cgroup_enable=memory  cgroup_memory=1",
                "root=/dev/x cgroup_enable=memory  cgroup_memory=1",
            ),
            (
                "",
                k3s,
                "root=/dev/x rootwait\n",
                "root=/dev/x rootwait cgroup_memory=1 cgroup_enable=memory\n",
            ),
            (
                "",
                k3s,
                "a cgroup_enable=cpuset b\n",
                "a cgroup_enable=cpuset b cgroup_memory=1 cgroup_enable=memory\n",
            ),
            ("", k3s, "a cgroup_memory=0 b", "a cgroup_memory=1 b cgroup_enable=memory\n"),
            ("", k3s, "", "cgroup_memory=1 cgroup_enable=memory\n"),
            ("", "a=1", "a=1 b a=2", "a=1 b\n"),
            ("", "a=1", "a=2 b a=3", "a=1 b\n"),
            ("", "a=1 a=2", "a=3 b", "a=1 b a=2\n"),
            ("", "a=1", "aa=1 b.a=2 a", "aa=1 b.a=2 a=1\n"),
            ("", "quiet", "a -- b quiet", "a quiet -- b quiet\n"),
            ("", "cma-x=1", "cma_x=1", "cma_x=1"),
            ("", "a=1", "dyndbg=\"file x +p\" a=0", "dyndbg=\"file x +p\" a=1\n"),
            ("", "console=tty1", "console=ttyS0,115200", "console=ttyS0,115200 console=tty1\n"),
            (key, "a=1", "verbosity=1\nextraargs=a=1\n", "verbosity=1\nextraargs=a=1\n"),
            (key, "a=1", "extraargs=b  a=2\r\nx=1\r\n", "extraargs=b a=1\r\nx=1\r\n"),
            (key, "a=1", "verbosity=1", "verbosity=1\nextraargs=a=1\n"),
            (key, "a=1", "xextraargs=b\nextraargs=\n", "xextraargs=b\nextraargs=a=1\n"),
            (key, "a=1", "extraargs=a=1\nextraargs=b\n", "extraargs=a=1\nextraargs=b a=1\n"),
            (
                "key = 'GRUB_CMDLINE_LINUX'",
                "a=1",
                "GRUB_CMDLINE_LINUX=\"\"\n",
                "GRUB_CMDLINE_LINUX=\"a=1\"\n",
            ),
            (
                "key = 'GRUB_CMDLINE_LINUX'",
                "a=1",
                "GRUB_CMDLINE_LINUX=\"b\"\n",
                "GRUB_CMDLINE_LINUX=\"b a=1\"\n",
            ),
        ];
        for (key, words, before, after) in cases {
            let resource = arguments("/boot/x", key, words);
            assert_eq!(resource.edit(before).unwrap(), after, "{words} on {before:?}");
            assert_eq!(resource.edit(after).unwrap(), after, "{words} twice on {before:?}");
        }
    }

    #[test]
    fn what_is_not_a_command_line_is_not_edited() {
        let several = seen_text("/boot/x", Content::Differs(b"a=1\nb=2\n".to_vec()), 0o644);
        let without = arguments("/boot/x", "", "quiet");
        assert!(matches!(without.diff(&several).unwrap(), Verdict::Refused(why) if why.contains("`key`")));
        let missing = several.with(Question::Stat("/boot/x".into()), Answer::Stat(None));
        assert!(matches!(without.diff(&missing).unwrap(), Verdict::Unknown(_)));
    }

    #[test]
    fn the_shell_writes_the_line_and_what_is_not_in_effect_is_noted() {
        let file = TextFile::with("root=/dev/x\n", 0o755);
        let resource =
            build("boot_arguments", &format!("path = '{}'\narguments = ['datahub_test=1']", file.path()));
        let Verdict::Differs(change) = file.diff(&*resource) else { panic!("differs") };
        file.run(&change.shell).unwrap();
        file.run(&change.shell).expect("twice is harmless");
        assert_eq!((file.read().as_str(), file.mode()), ("root=/dev/x datahub_test=1\n", 0o755));
        assert_eq!(file.diff(&*resource), Verdict::Converged);

        for (live, container, notes) in
            [("a datahub_test=1\n", false, 0), ("a\n", false, 1), ("a\n", true, 0)]
        {
            let mut seen = Answers::default().with(
                Question::Content { path: LIVE.into(), unless: String::new() },
                Answer::Content(Content::Differs(live.as_bytes().to_vec())),
            );
            seen.facts.container = container;
            assert_eq!(resource.notes(&seen).len(), notes, "{live}");
        }
    }

    #[test]
    fn mistakes_are_found_offline() {
        let cases = [
            ("arguments = []", "at least one"),
            ("arguments = ['a b']", "not one word"),
            ("arguments = ['']", "not one word"),
            ("arguments = ['--']", "not one word"),
            ("arguments = ['=1']", "not one word"),
            ("arguments = ['a=\"b c']", "not one word"),
            ("arguments = ['a']\nkey = 'extraargs='", "`key`"),
        ];
        for (fields, wanted) in cases {
            let error = mistake("boot_arguments", &format!("path = '/boot/x'\n{fields}"));
            assert!(error.contains(wanted), "{fields}: {error}");
        }
    }
}
