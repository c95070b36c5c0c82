//! POSIX shell text: the one quoting function, and the envelope every script is sent in.

/// Quotes a word for POSIX sh. The result is always one word, whatever bytes `word` holds;
/// plain words are left as they are so that a script stays readable.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Quotes several words and joins them with spaces.
pub fn quote_all<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> String {
    words.into_iter().map(|w| quote(w.as_ref())).collect::<Vec<_>>().join(" ")
}

/// A shell command whose standard output is exactly `bytes`.
/// The bytes travel inside the script (base64, a here-document), so never through argv or the environment.
pub fn emit(bytes: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    let mut lines = String::with_capacity(text.len() + text.len() / 76 + 64);
    for (at, c) in text.char_indices() {
        if at > 0 && at % 76 == 0 {
            lines.push('\n');
        }
        lines.push(c);
    }
    format!("base64 -d <<'DATAHUB_DATA'\n{lines}\nDATAHUB_DATA\n")
}

/// [`emit`] without a process of its own where `bytes` are text, which then stands in the script to be read: nothing
/// for secrets.
pub fn emit_plainly(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => format!("printf %s {}\n", quote(text)),
        _ => emit(bytes),
    }
}

/// Wraps a script so that a shell which reads only part of it (a connection that drops) runs none of it.
pub fn whole_or_nothing(script: &str) -> String {
    format!("{{\n{script}\nexit $?\n}}\n")
}

/// The same for a shell that goes on to read another script afterwards: in a subshell, so that one leaves nothing
/// behind for the next, and with nothing to read, which would be the next.
pub fn one_of_many(script: &str) -> String {
    format!("(\n{script}\n) </dev/null\n")
}

/// Fails unless this machine's `sh`, dash on Debian, can read the script.
#[cfg(test)]
#[track_caller]
pub fn assert_parses(script: &str) {
    let out = std::process::Command::new("sh").args(["-n", "-c", script]).output().expect("sh runs");
    assert!(out.status.success(), "{script}\n{}", String::from_utf8_lossy(&out.stderr));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_real_shell() {
        for word in ["", "plain", "it's", "a b", "$HOME `id` \"x\"", "new\nline", "-n", "*", "\\", "ä€"] {
            let out = std::process::Command::new("sh")
                .arg("-c")
                .arg(format!("printf %s {}", quote(word)))
                .output()
                .expect("sh runs");
            assert_eq!(String::from_utf8_lossy(&out.stdout), word);
        }
    }

    #[test]
    fn bytes_survive_a_script() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let text: String = (1..0x500).filter_map(char::from_u32).collect();
        for bytes in [&*bytes, text.as_bytes(), "-n %s \\n\\0 it's\r\n\n".as_bytes(), b"--", b""] {
            for script in [emit(bytes), emit_plainly(bytes)] {
                let out = std::process::Command::new("sh").arg("-c").arg(&script).output().expect("sh runs");
                assert_eq!(out.stdout, bytes, "{script}");
            }
        }
    }

    #[test]
    fn half_a_script_does_nothing() {
        for script in [whole_or_nothing("echo ran"), one_of_many("echo ran")] {
            let half = &script[..script.len() - 14];
            let out = std::process::Command::new("sh").arg("-c").arg(half).output().expect("sh runs");
            assert_eq!(out.stdout, b"", "{half}");
        }
    }

    #[test]
    fn one_of_many_scripts_leaves_the_next_as_it_would_be() {
        let scripts =
            ["cd /; umask 0; set -e; x=y; f() { :; }; cat; exit 3", "echo \"$PWD $(umask) $x $-\"; f"];
        let many: String = scripts.map(one_of_many).concat();
        let run = |text: &str| {
            let mut sh = std::process::Command::new("sh");
            sh.arg("-s").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
            let mut child = sh.stderr(std::process::Stdio::null()).spawn().expect("sh runs");
            std::io::Write::write_all(&mut child.stdin.take().expect("piped"), text.as_bytes())
                .expect("read");
            child.wait_with_output().expect("ends")
        };
        let (after, alone) = (run(&many), run(&one_of_many(scripts[1])));
        assert!(!alone.stdout.is_empty());
        assert_eq!(after, alone);
    }
}
