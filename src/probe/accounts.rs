//! Accounts: users and groups, the password's state, the authorized keys.
//!
//! The answers about the latter two are made on the node so that nothing travels which must not: of a password only
//! whether it is the wanted one, of a user's files only what that user may read.

use base64::Engine as _;

use super::files::{STAT_FORMAT, read_stat};
use super::frame::Frame;
use super::{CONTENT_LIMIT, Content, FileType, Group, Stat, User};
use crate::shell::quote;

/// What /etc/shadow says of an account. The hash itself stays on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Password {
    /// The hash, a lock before it left aside, has the SHA-256 of the question.
    pub same: bool,
    /// No password opens the account: its field starts with `!` or `*`.
    pub locked: bool,
    /// There is a hash, be it locked.
    pub hash: bool,
}

/// A user's `~/.ssh/authorized_keys` as that user may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizedKeys {
    pub uid: u32,
    pub gid: u32,
    /// From passwd.
    pub home: String,
    pub home_exists: bool,
    /// `~/.ssh`. The target of a link is not told, here and in `file`.
    pub folder: Option<Stat>,
    pub file: Option<Stat>,
    /// `None`: the user cannot read it.
    pub content: Option<Content>,
}

/// A line of passwd.
pub(super) fn read_user(line: &str) -> Option<(&str, User)> {
    let f: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, gecos, home, shell] = f.as_slice() else { return None };
    let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
    Some((
        name,
        User { uid, gid, gecos: (*gecos).to_owned(), home: (*home).to_owned(), shell: (*shell).to_owned() },
    ))
}

/// A line of group.
pub(super) fn read_group(line: &str) -> Option<(&str, Group)> {
    let f: Vec<&str> = line.split(':').collect();
    let [name, _, gid, members] = f.as_slice() else { return None };
    let members = members.split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect();
    Some((name, Group { gid: gid.parse().ok()?, members }))
}

/// Asks /etc/shadow. `sha256` is the lower-case hex digest of the wanted crypt hash, or empty. The digest tells
/// nobody anything: the hash it is made from has a random salt. The hash itself is only ever in the shell's own
/// memory and a pipe.
pub(super) fn password_shell(id: usize, user: &str, sha256: &str, shadow: &str) -> String {
    let same = match sha256 {
        "" => String::new(),
        _ => format!(
            " [ \"$(printf %s \"$h\" | sha256sum | cut -c1-64)\" = {} ] && o=\"$o same\";",
            quote(sha256)
        ),
    };
    format!(
        "o=; if [ -r {shadow} ]; then while IFS=: read -r n h x; do\n\
         [ \"$n\" = {user} ] || continue; o=entry\n\
         case $h in '!'* | '*'*) o=\"$o locked\";; esac\n\
         h=${{h#!}}; h=${{h#!}}\n\
         case $h in '' | '*'*) ;; *) o=\"$o hash\";{same} esac\n\
         done <{shadow}; h=; f {id} 0 \"$o\"; else f {id} 1 'cannot read /etc/shadow'; fi",
        shadow = quote(shadow),
        user = quote(user),
    )
}

/// `None`: there is no such account.
pub(super) fn read_password(body: &str) -> Option<Password> {
    let has = |word: &str| body.split(' ').any(|w| w == word);
    has("entry").then(|| Password { same: has("same"), locked: has("locked"), hash: has("hash") })
}

/// Starts a command with the rights of the user whose ids are in `$u` and `$g`, and no others: whatever that user
/// has planted in the home, it leads nowhere this user could not go. Standard input must be given: the shell's own
/// is the script.
pub const AS_USER: &str = r#"setpriv --reuid="$u" --regid="$g" --clear-groups --no-new-privs --reset-env --"#;

/// Looks an account up in passwd: sets `$u`, `$g` (ids) and `$h` (home), or has a status other than 0.
pub fn look_up(user: &str) -> String {
    format!(
        "l=$(getent passwd {}) && IFS=: read -r n x u g c h s <<DATAHUB_PASSWD\n$l\nDATAHUB_PASSWD\n",
        quote(user)
    )
}

const NO_USER: i32 = 100;
const TOO_LARGE: i32 = 3;
const UNREADABLE: i32 = 4;

/// The user's own processes can forge the output: see [`read_keys`].
pub(super) fn keys_shell(id: usize, user: &str) -> String {
    let look = format!(
        "find \"$1\" \"$1/.ssh\" \"$1/.ssh/authorized_keys\" -maxdepth 0 \
         -printf \"{STAT_FORMAT}\\n\" 2>/dev/null\n\
         k=$1/.ssh/authorized_keys; [ -f \"$k\" ] && [ ! -L \"$k\" ] || exit 0\n\
         [ -r \"$k\" ] || exit {UNREADABLE}\n\
         [ \"$(wc -c <\"$k\")\" -le {CONTENT_LIMIT} ] || exit {TOO_LARGE}\n\
         base64 <\"$k\""
    );
    format!(
        "{}if [ $? = 0 ]; then o=$(cd / && {AS_USER} sh -c {} sh \"$h\" 2>/dev/null </dev/null); f {id} $? \"$u:$g:$h\n$o\"\n\
         else f {id} {NO_USER} ''; fi",
        look_up(user),
        quote(&look),
    )
}

/// `Some(None)`: there is no such user. `None`: passwd itself is not in its form. Whatever the user's processes could
/// have forged makes at worst their own file unreadable, never the node's answer.
pub(super) fn read_keys(frame: &Frame<'_>, body: &str) -> Option<Option<AuthorizedKeys>> {
    if frame.status == NO_USER {
        return Some(None);
    }
    let (passwd, rest) = body.split_once('\n')?;
    let mut ids = passwd.splitn(3, ':');
    let (uid, gid) = (ids.next()?.parse().ok()?, ids.next()?.parse().ok()?);
    let home = ids.next()?.to_owned();
    let (stats, packed): (Vec<&str>, Vec<&str>) = rest.lines().partition(|line| line.contains('\t'));
    let stats: Vec<(String, Stat)> = stats.into_iter().filter_map(read_stat).collect();
    let at = |path: String| stats.iter().find(|(p, _)| *p == path).map(|(_, stat)| stat.clone());
    let folder = at(format!("{home}/.ssh"));
    let file = at(format!("{home}/.ssh/authorized_keys"));
    let content = match (frame.status, file.as_ref()) {
        (0, None) => Some(Content::Absent),
        (TOO_LARGE, Some(stat)) => Some(Content::TooLarge(stat.size)),
        (0, Some(stat)) if stat.file_type != FileType::File => Some(Content::NotAFile),
        (0, Some(_)) => {
            base64::engine::general_purpose::STANDARD.decode(packed.concat()).ok().map(Content::Differs)
        }
        _ => None,
    };
    let home_exists = at(home.clone()).is_some();
    Some(Some(AuthorizedKeys { uid, gid, home, home_exists, folder, file, content }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::sh::Probe;
    use crate::probe::{Answer, Question};

    #[test]
    fn a_password_is_compared_on_the_node() {
        let dir = tempfile::tempdir().expect("a folder");
        let shadow = dir.path().join("shadow");
        std::fs::write(
            &shadow,
            "root:*:1:::::\nset:$y$j9T$a$b:1:::::\nshut:!$y$j9T$a$b:1:::::\nnew:!:1:::::\nopen::1:::::\n",
        )
        .expect("written");
        // SHA-256 of `$y$j9T$a$b`
        let wanted = "31b140b4f623003994866d02f0d02a71e955474eb9ea0dfa1fb568126bdbc77b";
        let (same, locked, hash) = (true, true, true);
        let cases = [
            ("set", wanted, Some(Password { same, hash, ..Password::default() })),
            ("shut", wanted, Some(Password { same, locked, hash })),
            ("set", "", Some(Password { hash, ..Password::default() })),
            ("set", "0000", Some(Password { hash, ..Password::default() })),
            ("root", wanted, Some(Password { locked, ..Password::default() })),
            ("new", wanted, Some(Password { locked, ..Password::default() })),
            ("open", wanted, Some(Password::default())),
            ("none", wanted, None),
        ];
        for (user, sha256, expected) in cases {
            let script = format!(
                "f() {{ echo \"$2 $3\"; }}\n{}",
                password_shell(1, user, sha256, shadow.to_str().expect("UTF-8"))
            );
            let out = std::process::Command::new("sh").arg("-c").arg(script).output().expect("sh runs");
            let text = String::from_utf8_lossy(&out.stdout);
            assert!(!text.contains("j9T"), "the hash does not leave the node: {text}");
            let body = text.trim_end().strip_prefix("0").expect("status 0").trim_start();
            assert_eq!(read_password(body), expected, "{user}: {text}");
        }
    }

    #[test]
    fn keys_are_looked_at_as_the_user_and_links_not_followed() {
        let dir = tempfile::tempdir().expect("a folder");
        // A stand-in for passwd, and for setpriv, which needs root.
        let home = dir.path().to_str().expect("UTF-8");
        let ask_at_home = || {
            let keys = Question::AuthorizedKeys("me".into());
            let probe = Probe::new([keys.clone()]);
            let stand_ins = format!(
                "getent() {{ printf '%s\\n' {}; }}\nsetpriv() {{ while [ \"$1\" != -- ]; do shift; done; shift; \"$@\"; }}\n",
                quote(&format!("me:x:1000:100:Me:{home}:/bin/sh"))
            );
            let script = stand_ins + &probe.script();
            let out = std::process::Command::new("sh").arg("-c").arg(script).output().expect("sh runs");
            let (_, mut seen) = probe.read(&out.stdout).expect("readable");
            match seen.remove(&keys) {
                Some(Answer::AuthorizedKeys(Some(keys))) => keys,
                other => panic!("{other:?}"),
            }
        };
        let none = ask_at_home();
        assert_eq!((none.uid, none.gid, none.home.as_str(), none.home_exists), (1000, 100, home, true));
        assert_eq!((none.folder, none.file, none.content), (None, None, Some(Content::Absent)));

        std::fs::create_dir(dir.path().join(".ssh")).expect("made");
        let file = dir.path().join(".ssh/authorized_keys");
        std::fs::write(&file, "ssh-ed25519 AAAA\n").expect("written");
        let some = ask_at_home();
        assert_eq!(some.folder.map(|f| f.file_type), Some(FileType::Directory));
        assert_eq!(some.file.map(|f| f.file_type), Some(FileType::File));
        assert_eq!(some.content, Some(Content::Differs(b"ssh-ed25519 AAAA\n".to_vec())));

        std::fs::remove_file(&file).expect("removed");
        std::os::unix::fs::symlink("/etc/passwd", &file).expect("linked");
        let link = ask_at_home();
        assert_eq!(link.file.map(|f| f.file_type), Some(FileType::Link));
        assert_eq!(link.content, Some(Content::NotAFile), "a link is not followed");
    }

    #[test]
    fn a_forged_answer_is_at_worst_unreadable() {
        let read = |status, body: &str| {
            let frame = Frame { id: 1, status, body: body.as_bytes() };
            read_keys(&frame, body)
        };
        assert_eq!(read(NO_USER, ""), Some(None));
        assert_eq!(read(0, "rubbish"), None, "passwd is not the user's to forge");
        let file = "f\t600\tme\tme\t3\t1\t2\t/home/me/.ssh/authorized_keys\t";
        for (status, output, expected) in [
            (0, String::new(), Some(Content::Absent)),
            (0, "rubbish\n\tmore\t\trubbish".into(), Some(Content::Absent)),
            (0, format!("{file}\nno base64!"), None),
            (0, format!("{file}\nYWI="), Some(Content::Differs(b"ab".to_vec()))),
            (TOO_LARGE, file.into(), Some(Content::TooLarge(3))),
            (UNREADABLE, file.into(), None),
            (127, String::new(), None),
        ] {
            let keys = read(status, &format!("1000:100:/home/me\n{output}")).flatten().expect("a user");
            assert_eq!((keys.uid, keys.content), (1000, expected), "{output}");
        }
    }
}
