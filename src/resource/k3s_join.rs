//! `k3s_join`: the token with which a node joins a K3s cluster.

use std::time::Duration;

use serde::Deserialize;

use super::text::{Seen, Source, Write, attribute_differences, check_path, set_attributes};
use super::{Change, Difference, Fetch, Resource, Verdict};
use crate::probe::{Answers, JoinToken, Question, Unanswered};
use crate::shell::quote;

/// A token file, 0600, in the secure form `K10<hash of the cluster's CA>::<credentials>`, so that no stranger can
/// pose as the server. It is read from a server of the cluster and goes to the node in the change's own script.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct K3sJoin {
    pub path: String,
    /// The node of the inventory that is a server of the cluster.
    pub server: String,
    /// Where the server keeps the credentials: its `token` or `agent-token` file.
    pub token: String,
    /// Whom the credentials are for: `node` (default) for an agent, `server` for a further server.
    #[serde(default = "agent")]
    pub user: String,
    /// The credentials alone: for what a further server expects of others, and joins nothing with. Default: false.
    #[serde(default)]
    pub bare: bool,
    /// K3s's data directory, the same on both. Default: `/var/lib/rancher/k3s`.
    #[serde(default = "data_dir")]
    pub data_dir: String,
}

const MODE: &str = "0600";

fn agent() -> String {
    "node".into()
}

fn data_dir() -> String {
    "/var/lib/rancher/k3s".into()
}

impl K3sJoin {
    /// The file may hold the bare credentials or, as K3s itself writes it, the secure form.
    fn fetch(&self) -> Fetch {
        let script = format!(
            "ca={ca} file={file}\n\
             [ -f \"$ca\" ] || {{ echo \"$ca does not exist: is this a K3s server, and has it started?\" >&2; exit 1; }}\n\
             [ -s \"$file\" ] || {{ echo \"$file does not exist or is empty\" >&2; exit 1; }}\n\
             IFS= read -r token <\"$file\"; token=${{token##*::}}; token=${{token#*:}}\n\
             {print}",
            ca = quote(&format!("{}/server/tls/server-ca.crt", self.data_dir)),
            file = quote(&self.token),
            print = match self.bare {
                true => "printf %s \"$token\"".to_owned(),
                false => format!(
                    "printf 'K10%s::%s:%s' \"$(sha256sum <\"$ca\" | cut -c1-64)\" {} \"$token\"",
                    quote(&self.user)
                ),
            },
        );
        Fetch { node: self.server.clone(), script, what: "the join token" }
    }

    fn write(&self) -> String {
        let fill = "printf '%s\\n' \"$fetched\" >\"$tmp\"";
        let write = Write {
            path: &self.path,
            source: Source::Shell(fill),
            mode: MODE,
            owner: "root",
            group: "root",
            backup: false,
            validate: None,
            seen: Seen::Any,
        };
        format!(
            "[ -n \"$fetched\" ] || {{ echo 'the server gave no token' >&2; exit 1; }}\n{}",
            write.shell()
        )
    }
}

impl Resource for K3sJoin {
    fn name(&self) -> String {
        self.path.clone()
    }

    fn questions(&self) -> Vec<Question> {
        let token = Question::JoinToken { path: self.path.clone(), data_dir: self.data_dir.clone() };
        vec![Question::Stat(self.path.clone()), token]
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        let secret = Difference::Secret { attribute: "join token".into() };
        let write = || Change {
            fetch: Some(Box::new(self.fetch())),
            ..Change::new(vec![secret], self.write()).timeout(Duration::from_secs(60))
        };
        Ok(match (seen.join_token(&self.path, &self.data_dir)?, self.bare) {
            (JoinToken::Absent, _) | (JoinToken::Insecure, false) => Verdict::Differs(write()),
            (JoinToken::Foreign | JoinToken::Unproven | JoinToken::Matches, true) => {
                Verdict::Differs(write())
            }
            (JoinToken::Foreign, false) => Verdict::Refused(format!(
                "{} is for another cluster than the one this node belongs to; to move the node, first remove its \
                 K3s data in {}",
                self.path, self.data_dir
            )),
            (JoinToken::Unproven | JoinToken::Matches, false) | (JoinToken::Insecure, true) => {
                let Some(stat) = seen.stat(&self.path)? else { return Ok(Verdict::Differs(write())) };
                match attribute_differences(stat, MODE, "root", "root") {
                    differences if differences.is_empty() => Verdict::Converged,
                    differences => {
                        let shell = set_attributes(&self.path, MODE, "root", "root");
                        Verdict::Differs(Change::new(differences, shell))
                    }
                }
            }
        })
    }

    fn check(&self) -> Result<(), String> {
        [&self.path, &self.token, &self.data_dir].into_iter().try_for_each(|path| check_path(path))?;
        match self.user.as_str() {
            "node" | "server" => Ok(()),
            other => Err(format!("`user` must be node or server, not {other:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Answer, Facts, FileType};
    use crate::resource::testing::{build, mistake, run, stat};

    const FIELDS: &str =
        "path = '/etc/rancher/k3s/token'\nserver = 'a'\ntoken = '/etc/rancher/k3s/agent-token'";

    #[test]
    fn diffs_as_data() {
        let join = build("k3s_join", FIELDS);
        let seen = |mode, state| {
            let [file, token] = <[Question; 2]>::try_from(join.questions()).expect("two");
            Answers::new(Facts::default())
                .with(file, Answer::Stat(Some(stat(FileType::File, mode))))
                .with(token, Answer::JoinToken(state))
        };
        assert_eq!(join.diff(&seen(0o600, JoinToken::Matches)).unwrap(), Verdict::Converged);
        assert_eq!(join.diff(&seen(0o600, JoinToken::Unproven)).unwrap(), Verdict::Converged);
        assert!(matches!(join.diff(&seen(0o600, JoinToken::Foreign)).unwrap(), Verdict::Refused(_)));
        let Verdict::Differs(mode) = join.diff(&seen(0o644, JoinToken::Matches)).unwrap() else { panic!() };
        assert_eq!((mode.differences.len(), mode.fetch), (1, None));
        let Verdict::Differs(new) = join.diff(&seen(0o600, JoinToken::Absent)).unwrap() else { panic!() };
        assert_eq!(new.differences, [Difference::Secret { attribute: "join token".into() }]);
        assert_eq!(new.fetch.map(|fetch| fetch.node), Some("a".into()));
    }

    #[test]
    fn what_a_server_expects_is_bare() {
        let join = build("k3s_join", &format!("{FIELDS}\nbare = true"));
        let [file, token] = <[Question; 2]>::try_from(join.questions()).expect("two");
        for (state, wanted) in [
            (JoinToken::Absent, false),
            (JoinToken::Insecure, true),
            (JoinToken::Matches, false),
            (JoinToken::Foreign, false),
        ] {
            let seen = Answers::new(Facts::default())
                .with(file.clone(), Answer::Stat(Some(stat(FileType::File, 0o600))))
                .with(token.clone(), Answer::JoinToken(state));
            assert_eq!(join.diff(&seen).unwrap() == Verdict::Converged, wanted, "{state:?}");
        }
    }

    #[test]
    fn the_server_prints_the_secure_form_whatever_its_file_holds() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::fs::create_dir_all(dir.path().join("server/tls")).unwrap();
        std::fs::write(at("server/tls/server-ca.crt"), "CA\n").unwrap();
        let hash = crate::resource::text::sha256_hex(b"CA\n");
        let data_dir = dir.path().display();
        let fields = format!("path = '/x'\nserver = 'a'\ntoken = '{}'\ndata_dir = '{data_dir}'", at("token"));
        let join: K3sJoin = toml::from_str(&fields).unwrap();
        for (held, credentials) in [("abc\n", "abc"), ("K10ff::server:abc\n", "abc")] {
            std::fs::write(at("token"), held).unwrap();
            let check =
                format!("out=$(\n{}\n)\n[ \"$out\" = 'K10{hash}::node:{credentials}' ]", join.fetch().script);
            run(&check).unwrap();
            let bare: K3sJoin = toml::from_str(&format!("{fields}\nbare = true")).unwrap();
            run(&format!("out=$(\n{}\n)\n[ \"$out\" = {credentials} ]", bare.fetch().script)).unwrap();
        }
        std::fs::remove_file(at("token")).unwrap();
        assert!(run(&join.fetch().script).unwrap_err().contains("does not exist or is empty"));
    }

    #[test]
    fn mistakes_are_found_offline() {
        for (more, wanted) in [("user = 'root'", "must be node or server"), ("data_dir = 'x'", "absolute")] {
            let error = mistake("k3s_join", &format!("{FIELDS}\n{more}"));
            assert!(error.contains(wanted), "{more}: {error}");
        }
    }
}
