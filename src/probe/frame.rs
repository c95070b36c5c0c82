//! Frames: every answer comes as `id status length` and that many bytes, so nothing a node prints can be
//! taken for another answer, and rubbish is an error that shows its first lines.

/// One answer as the node sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<'a> {
    pub id: usize,
    pub status: i32,
    pub body: &'a [u8],
}

/// Why an answer could not be read.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    #[error("the node's answer is not in the expected form; it says: {0}")]
    Rubbish(String),
    #[error("the node's answer ends in the middle, after {0} of its parts")]
    Cut(usize),
}

/// Opens every answer.
pub const HEADER: &str = "datahub-probe 1\n";
const END: &[u8] = b"end\n";

/// The shell functions that write frames: `f ID STATUS BODY`.
pub const SHELL: &str = "f() { printf '%s %s %s\\n' \"$1\" \"$2\" \"${#3}\"; printf '%s\\n' \"$3\"; }\nprintf 'datahub-probe 1\\n'\n";

/// Closes every answer; without it the answer was cut.
pub const SHELL_END: &str = "printf 'end\\n'\n";

/// Whether this is an answer from its beginning to its end.
pub fn is_whole(output: &[u8]) -> bool {
    // The end first: it is looked for again with every piece that arrives.
    output.ends_with(END) && parse(output).is_ok()
}

/// Splits an answer into frames.
pub fn parse(output: &[u8]) -> Result<Vec<Frame<'_>>, FrameError> {
    let mut rest = output.strip_prefix(HEADER.as_bytes()).ok_or_else(|| rubbish(output))?;
    let mut frames = Vec::new();
    loop {
        if rest == END {
            return Ok(frames);
        }
        let Some(line_end) = rest.iter().position(|b| *b == b'\n') else {
            return Err(if rest.len() < 64 { FrameError::Cut(frames.len()) } else { rubbish(rest) });
        };
        let header = std::str::from_utf8(&rest[..line_end]).map_err(|_| rubbish(rest))?;
        let mut words = header.split(' ');
        let (Some(id), Some(status), Some(length), None) =
            (number(words.next()), number(words.next()), number::<usize>(words.next()), words.next())
        else {
            return Err(rubbish(rest));
        };
        let start = line_end + 1;
        let Some(end) = start.checked_add(length).filter(|end| *end < rest.len()) else {
            return Err(FrameError::Cut(frames.len()));
        };
        if rest[end] != b'\n' {
            return Err(rubbish(&rest[start..]));
        }
        frames.push(Frame { id, status, body: &rest[start..end] });
        rest = &rest[end + 1..];
    }
}

fn number<N: std::str::FromStr>(word: Option<&str>) -> Option<N> {
    word.and_then(|w| w.parse().ok())
}

fn rubbish(bytes: &[u8]) -> FrameError {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(400)]);
    let mut lines: Vec<&str> = text.lines().take(3).collect();
    if lines.is_empty() {
        lines.push("(nothing)");
    }
    FrameError::Rubbish(lines.join(" / ").escape_debug().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let whole = b"datahub-probe 1\n0 0 3\na\nb\n1 2 0\n\nend\n";
        let frames = parse(whole).expect("well formed");
        assert_eq!(
            frames,
            [Frame { id: 0, status: 0, body: b"a\nb" }, Frame { id: 1, status: 2, body: b"" }]
        );
        for cut in HEADER.len()..whole.len() {
            assert!(parse(&whole[..cut]).is_err(), "cut at {cut} must not pass");
        }
        let seeming = b"datahub-probe 1\n0 0 10\nthe\nend\n";
        assert!(is_whole(whole) && !is_whole(seeming), "a body may hold what looks like the end");
        for hostile in [
            &b"Welcome!\n"[..],
            b"",
            b"datahub-probe 1\n0 0 99999999999999999999\nx\nend\n",
            b"datahub-probe 1\n0 0 18446744073709551615\nx\nend\n",
            b"datahub-probe 1\n0 0 1\nxy\nend\n",
            b"datahub-probe 1\n\x1b[2J 0 0\nend\n",
            b"datahub-probe 1\nend\nmore",
        ] {
            assert!(parse(hostile).is_err(), "{hostile:?}");
        }
        let FrameError::Rubbish(shown) = parse(b"\x1b[31mred").expect_err("rubbish") else {
            panic!("not rubbish")
        };
        assert!(!shown.contains('\x1b'));
    }
}
