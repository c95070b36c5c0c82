//! Join tokens: compared on the node, so that no token is ever in an answer.

use super::JoinToken;
use crate::shell::quote;

/// Answers with one word. The CA is the one the agent trusts, or on a server its own.
pub(super) fn shell(id: usize, path: &str, data_dir: &str) -> String {
    format!(
        "p={path} d={data_dir} o=absent\n\
         if [ -f \"$p\" ]; then\n\
         h=; for c in \"$d/server/tls/server-ca.crt\" \"$d/agent/server-ca.crt\"; do\n\
         [ -z \"$h\" ] && [ -f \"$c\" ] && h=$(sha256sum <\"$c\" | cut -c1-64); done\n\
         IFS= read -r t <\"$p\"; case $t in K10*::*) t=${{t#K10}}; t=${{t%%::*}};\n\
         if [ -z \"$h\" ]; then o=unproven; elif [ \"$t\" = \"$h\" ]; then o=matches; else o=foreign; fi;;\n\
         *) o=insecure;; esac; t=; fi; f {id} 0 \"$o\"",
        path = quote(path),
        data_dir = quote(data_dir),
    )
}

pub(super) fn read(body: &str) -> Option<JoinToken> {
    Some(match body.trim() {
        "absent" => JoinToken::Absent,
        "insecure" => JoinToken::Insecure,
        "unproven" => JoinToken::Unproven,
        "matches" => JoinToken::Matches,
        "foreign" => JoinToken::Foreign,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::sh::Probe;
    use crate::probe::{Answer, Question};

    #[test]
    fn tokens_are_compared_on_the_node() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
        let question = Question::JoinToken { path: at("token"), data_dir: at("data") };
        let ask = || {
            let probe = Probe::new([question.clone()]);
            let out =
                std::process::Command::new("sh").arg("-c").arg(probe.script()).output().expect("sh runs");
            assert!(!String::from_utf8_lossy(&out.stdout).contains("hunter2"));
            let (_, mut seen) = probe.read(&out.stdout).expect("readable");
            match seen.remove(&question) {
                Some(Answer::JoinToken(state)) => state,
                other => panic!("{other:?}"),
            }
        };
        let write = |name: &str, text: &str| std::fs::write(at(name), text).expect("written");
        assert_eq!(ask(), JoinToken::Absent);
        write("token", "hunter2");
        assert_eq!(ask(), JoinToken::Insecure);
        let hash = crate::resource::text::sha256_hex(b"CA\n");
        write("token", &format!("K10{hash}::node:hunter2\n"));
        assert_eq!(ask(), JoinToken::Unproven);
        std::fs::create_dir_all(dir.path().join("data/agent")).expect("made");
        write("data/agent/server-ca.crt", "CA\n");
        assert_eq!(ask(), JoinToken::Matches);
        write("data/agent/server-ca.crt", "another\n");
        assert_eq!(ask(), JoinToken::Foreign);
    }
}
