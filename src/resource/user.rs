//! `user`: a local account.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer};

use super::edit::State;
use super::group::{check_account, check_id};
use super::text::{check_path, sha256_hex};
use super::{Change, Difference, Resource, Verdict};
use crate::probe::{Answers, Password, Question, Unanswered, User as Seen};
use crate::secret::Secret;
use crate::shell::{emit, quote, quote_all};

/// A local account. What is not given is left as it is; only what differs is changed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Letters, digits, `_`, `-` and `.`, at most 32.
    pub name: String,
    /// Its number. Default: the next free one.
    #[serde(default)]
    pub uid: Option<u32>,
    /// Its own (primary) group, which must be there. Default for a new account: a group of its own name.
    #[serde(default)]
    pub group: Option<String>,
    /// Groups it is a member of besides. It is added to these, and taken out of others only with `exclusive_groups`.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Take it out of every group that is not in `groups`. Default: false.
    #[serde(default)]
    pub exclusive_groups: bool,
    /// Default for a new account: `/home/NAME`. The home of one that is there is not moved: it only points there.
    #[serde(default)]
    pub home: Option<String>,
    /// Make the home of a new account. Default: true, but false with `system = true`.
    #[serde(default)]
    pub create_home: Option<bool>,
    /// A program's path. Default for a new account: `/bin/bash`, or `/usr/sbin/nologin` with `system = true`.
    #[serde(default)]
    pub shell: Option<String>,
    /// A person's name, or what the account is for.
    #[serde(default)]
    pub comment: Option<String>,
    /// Take the number from those of the system's own accounts. Only for an account that is made. Default: false.
    #[serde(default)]
    pub system: bool,
    /// The password as a crypt hash, from `secret()`; `mkpasswd -m yescrypt` or `openssl passwd -6` make one. It is
    /// never shown. A lock that is there stays, unless `locked = false`.
    #[serde(default, deserialize_with = "secret")]
    pub password_hash: Option<Secret>,
    /// Whether the password is shut off. Keys still log in.
    #[serde(default)]
    pub locked: Option<bool>,
    /// Change the number of an account that is there, instead of refusing. Files outside its home keep the old number.
    /// Default: false.
    #[serde(default)]
    pub force: bool,
    /// Set by itself where `secret()` is used, which only `password_hash` may.
    #[serde(default)]
    pub secret: bool,
    /// `present` (default) or `absent`.
    #[serde(default)]
    pub state: State,
    /// With `state = "absent"`: remove the home and the mail too. Default: false.
    #[serde(default)]
    pub remove_home: bool,
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    String::deserialize(deserializer).map(|text| Some(Secret::new(text)))
}

/// The differences, and the options of `useradd` or `usermod` that mend them.
#[derive(Default)]
struct Options {
    differences: Vec<Difference>,
    words: Vec<String>,
}

impl Options {
    fn set(&mut self, attribute: &str, before: Option<&str>, after: &str, option: &str) {
        self.differences.push(Difference::value(attribute, before, Some(after)));
        self.words.extend([option.to_owned(), after.to_owned()]);
    }
}

impl User {
    fn hash(&self) -> Option<&str> {
        self.password_hash.as_ref().map(Secret::expose)
    }

    fn password_question(&self) -> Option<Question> {
        (self.password_hash.is_some() || self.locked.is_some())
            .then(|| Question::Password { user: self.name.clone(), sha256: self.digest() })
    }

    fn digest(&self) -> String {
        self.hash().map_or_else(String::new, |hash| sha256_hex(hash.as_bytes()))
    }

    /// What is wanted in the end, as `a,b`.
    fn wanted_groups(&self, have: &BTreeSet<String>) -> BTreeSet<String> {
        let wanted = self.groups.iter().cloned();
        if self.exclusive_groups { wanted.collect() } else { wanted.chain(have.iter().cloned()).collect() }
    }

    fn made(&self) -> Options {
        let mut options = Options::default();
        options.differences.push(Difference::value("user", None, Some("present")));
        if self.system {
            options.words.push("--system".into());
        }
        if let Some(uid) = self.uid {
            options.set("uid", None, &uid.to_string(), "--uid");
        }
        if let Some(group) = &self.group {
            options.set("group", None, group, "--gid");
        }
        if !self.groups.is_empty() {
            options.set("groups", None, &self.groups.join(","), "--groups");
        }
        if let Some(home) = &self.home {
            options.set("home", None, home, "--home-dir");
        }
        if let Some(comment) = &self.comment {
            options.set("comment", None, comment, "--comment");
        }
        let usual = if self.system { "/usr/sbin/nologin" } else { "/bin/bash" };
        match &self.shell {
            Some(shell) => options.set("shell", None, shell, "--shell"),
            None => options.words.extend(["--shell".into(), usual.into()]),
        }
        let home = self.create_home.unwrap_or(!self.system);
        options.words.push(if home { "--create-home" } else { "--no-create-home" }.into());
        options
    }

    fn make(&self, options: &Options) -> String {
        let name = quote(&self.name);
        // useradd refuses to make a group that is there, and would take one that is not for a mistake.
        let own_group = match self.group {
            Some(_) => String::new(),
            None => format!(
                "if getent group {name} >/dev/null; then set -- --gid {name}; else set -- --user-group; fi\n"
            ),
        };
        format!(
            "(\nset --\n{own_group}getent passwd {name} >/dev/null || useradd \"$@\" {} -- {name}\n) || exit 1\n",
            quote_all(&options.words)
        )
    }

    fn changed(&self, user: &Seen, seen: &Answers) -> Result<Result<Options, String>, Unanswered> {
        let mut options = Options::default();
        if let Some(uid) = self.uid.filter(|uid| *uid != user.uid) {
            if !self.force {
                return Ok(Err(format!(
                    "the user {} has uid {}, not {uid}: its files would belong to another user; set uid = {}, or \
                     force = true (files outside its home must then be mended by hand)",
                    self.name, user.uid, user.uid
                )));
            }
            options.set("uid", Some(&user.uid.to_string()), &uid.to_string(), "--uid");
        }
        if let Some(group) = &self.group
            && seen.group(group)?.as_ref().is_none_or(|group| group.gid != user.gid)
        {
            options.set("group", Some(&format!("gid {}", user.gid)), group, "--gid");
        }
        if self.asks_groups() {
            let have = seen.groups_of(&self.name)?;
            let wanted = self.wanted_groups(have);
            if wanted != *have {
                let list = |groups: &BTreeSet<String>| groups.iter().cloned().collect::<Vec<_>>().join(",");
                // What somebody else adds meanwhile is not taken away.
                options.words.extend((!self.exclusive_groups).then(|| "--append".to_owned()));
                options.set("groups", Some(&list(have)), &list(&wanted), "--groups");
            }
        }
        for (attribute, have, wanted, option) in [
            ("home", &user.home, &self.home, "--home"),
            ("shell", &user.shell, &self.shell, "--shell"),
            ("comment", &user.gecos, &self.comment, "--comment"),
        ] {
            if let Some(wanted) = wanted.as_ref().filter(|wanted| !same_text(have, wanted)) {
                options.set(attribute, Some(have), wanted, option);
            }
        }
        Ok(Ok(options))
    }

    fn asks_groups(&self) -> bool {
        !self.groups.is_empty() || self.exclusive_groups
    }

    /// What differs in the password and its lock, and the shell for it. The hash travels in the script, through a
    /// pipe: it is in no argument list and no file but /etc/shadow.
    fn password(&self, seen: Option<Password>) -> (Vec<Difference>, String) {
        let seen_or_new = seen.unwrap_or(Password { locked: true, ..Password::default() });
        let mut differences = Vec::new();
        let hash = self.hash().filter(|_| !seen_or_new.same);
        if hash.is_some() {
            differences.push(Difference::Secret { attribute: "password".into() });
        }
        // An account without any password counts as locked, but that is no lock to be kept.
        let kept = self.locked.unwrap_or(seen_or_new.locked && seen_or_new.hash);
        let word = |locked| Some(if locked { "yes" } else { "no" });
        let lock = self.locked.filter(|locked| *locked != seen_or_new.locked);
        if let Some(locked) = lock.filter(|locked| *locked || hash.is_none()) {
            let before = seen.map(|seen| seen.locked);
            differences.push(Difference::value("locked", before.and_then(word), word(locked)));
        }
        let shell = match (hash, lock) {
            (Some(hash), _) => {
                let mark = if kept { "!" } else { "" };
                let line = format!("{}:{mark}{hash}\n", self.name);
                format!("{{\n{}}} | chpasswd --encrypted || exit 1\n", emit(line.as_bytes()))
            }
            (None, Some(locked)) => {
                let option = if locked { "--lock" } else { "--unlock" };
                format!("usermod {option} -- {} || exit 1\n", quote(&self.name))
            }
            (None, None) => String::new(),
        };
        (differences, shell)
    }

    fn present(&self, user: Option<&Seen>, seen: &Answers) -> Result<Verdict, Unanswered> {
        let (mut options, mut shell) = (self.made(), String::new());
        match user {
            None => shell.push_str(&self.make(&options)),
            Some(user) => {
                options = match self.changed(user, seen)? {
                    Ok(options) => options,
                    Err(reason) => return Ok(Verdict::Refused(reason)),
                };
                if !options.words.is_empty() {
                    let words = quote_all(&options.words);
                    shell = format!("usermod {words} -- {} || exit 1\n", quote(&self.name));
                }
            }
        }
        if self.password_question().is_some() {
            let password = *seen.password(&self.name, &self.digest())?;
            let hash = self.password_hash.is_some() || password.is_some_and(|password| password.hash);
            if self.locked == Some(false) && !hash {
                return Ok(Verdict::Refused(format!(
                    "{} has no password that locked = false could bring into force: give `password_hash`",
                    self.name
                )));
            }
            let (differences, mend) = self.password(password);
            options.differences.extend(differences);
            shell.push_str(&mend);
        }
        Ok(match options.differences.is_empty() {
            true => Verdict::Converged,
            false => Verdict::Differs(Change::new(options.differences, shell)),
        })
    }

    fn absent(&self, user: &Seen) -> Verdict {
        let difference = Difference::value("user", Some(&format!("uid {}", user.uid)), None);
        let mut differences = vec![difference];
        let mut option = "";
        if self.remove_home {
            // `/`, `/root`, `/var`: userdel would remove what belongs to the account, and that can be the machine.
            if user.uid == 0 || user.home.matches('/').count() < 2 {
                return Verdict::Refused(format!(
                    "{} is too near the root to be removed as a home; remove it by hand, or set remove_home = false",
                    user.home
                ));
            }
            differences.push(Difference::value("home", Some(&user.home), None));
            option = " --remove";
        }
        let name = quote(&self.name);
        let shell = format!("! getent passwd {name} >/dev/null || userdel{option} -- {name} || exit 1\n");
        Verdict::Differs(Change::new(differences, shell))
    }
}

/// Without the empty fields that the installer and chfn leave behind a comment: `Ann Example,,,`.
fn same_text(have: &str, wanted: &str) -> bool {
    have == wanted || (have.trim_end_matches(',') == wanted && !wanted.is_empty())
}

fn closes_logins(shell: &str) -> bool {
    shell.ends_with("/nologin") || shell.ends_with("/false")
}

impl Resource for User {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn questions(&self) -> Vec<Question> {
        let mut questions = vec![Question::User(self.name.clone())];
        if self.state == State::Present {
            questions.extend(self.group.clone().map(Question::Group));
            questions.extend(self.asks_groups().then(|| Question::GroupsOf(self.name.clone())));
            questions.extend(self.password_question());
        }
        questions
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        let user = seen.user(&self.name)?.as_ref();
        let leaves = self.state == State::Absent || self.shell.as_deref().is_some_and(closes_logins);
        if leaves && user.is_some() && seen.facts.login_user == self.name {
            return Ok(Verdict::Refused(format!(
                "this run logs in as {}: nobody could log in with it afterwards; use another account for `user` under [ssh]",
                self.name
            )));
        }
        match (user, self.state) {
            (None, State::Absent) => Ok(Verdict::Converged),
            (Some(user), State::Absent) => Ok(self.absent(user)),
            (user, State::Present) => self.present(user, seen),
        }
    }

    fn check(&self) -> Result<(), String> {
        check_account("name", &self.name)?;
        check_id("uid", self.uid)?;
        for group in self.group.iter().chain(&self.groups) {
            check_account("group", group)?;
        }
        for path in self.home.iter().chain(&self.shell) {
            check_path(path)?;
        }
        let unfit = |text: &String| text.contains([':', '\n', '\0']);
        if self.home.iter().chain(&self.shell).chain(&self.comment).any(unfit) {
            return Err("`home`, `shell` and `comment` may hold neither `:` nor a new line".into());
        }
        if self.name == "root" && (self.state == State::Absent || self.uid.is_some_and(|uid| uid != 0)) {
            return Err("the user root is the system's and stays as it is".into());
        }
        self.hash().map_or(Ok(()), check_hash)?;
        if self.secret && self.password_hash.is_none() {
            return Err("only `password_hash` may hold a secret: the rest is shown".into());
        }
        let present_only = self.password_hash.is_some() || self.locked.is_some() || self.asks_groups();
        match self.state {
            State::Absent if present_only || self.force => {
                Err("`groups`, `password_hash`, `locked` and `force` make no sense with state = \"absent\""
                    .into())
            }
            State::Present if self.remove_home => Err("`remove_home` needs state = \"absent\"".into()),
            _ => Ok(()),
        }
    }
}

/// Says what is wrong without a word of the hash.
fn check_hash(hash: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "./$=,-_".contains(c);
    let parts: Vec<&str> = hash.split('$').collect();
    let fits = parts.len() >= 4 && parts[0].is_empty() && parts.iter().skip(1).all(|part| !part.is_empty());
    // Where secrets are not to be looked up there is only a placeholder.
    if hash.starts_with("placeholder-") || (fits && hash.chars().all(plain)) {
        return Ok(());
    }
    Err("`password_hash` is not a crypt hash ($y$… or $6$…): make one with `mkpasswd -m yescrypt`, and never give the \
         password itself; to shut the password off use locked = true"
        .into())
}

#[cfg(test)]
#[path = "user_tests.rs"]
mod tests;
