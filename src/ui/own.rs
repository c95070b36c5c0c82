//! Words that are a node's own, its names and its address: replaced by marks, the same text stands for many nodes.

/// A node's name in the inventory, its host name, its address.
const NODE: &str = "‹node›";
const HOSTNAME: &str = "‹hostname›";
const ADDRESS: &str = "‹address›";

/// The words of one node, each with its mark; a longer one before those that it may contain.
#[derive(Debug, Default)]
pub struct Own(Vec<(String, &'static str)>);

impl Own {
    pub fn new(name: &str, hostname: &str, address: Option<&str>) -> Self {
        let words = [(hostname, HOSTNAME), (address.unwrap_or_default(), ADDRESS)];
        let words = words.into_iter().filter(|(word, _)| !word.is_empty() && *word != name);
        let mut words: Vec<_> =
            words.chain([(name, NODE)]).map(|(word, mark)| (word.to_owned(), mark)).collect();
        words.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
        Self(words)
    }
}

/// The marks that stand in a text.
pub fn marks(text: &str) -> impl Iterator<Item = &'static str> {
    [NODE, HOSTNAME, ADDRESS].into_iter().filter(|mark| text.contains(mark))
}

/// The text with marks in place of the node's own words.
pub fn marked(text: &str, own: &Own) -> String {
    // A mark could then not be told from what was there.
    if marks(text).next().is_some() {
        return text.to_owned();
    }
    own.0.iter().fold(text.to_owned(), |text, (word, mark)| replaced(&text, word, mark))
}

/// Replaces `word` where it is one of its own: `orpi-1` in `orpi-1.home.arpa`, not in `orpi-10`.
fn replaced(text: &str, word: &str, mark: &str) -> String {
    if word.is_empty() {
        return text.to_owned();
    }
    let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || "-_‹›".contains(c));
    let (mut out, mut end) = (String::new(), 0);
    for (at, _) in text.match_indices(word) {
        let after = at + word.len();
        if !inside(text[..at].chars().next_back()) && !inside(text[after..].chars().next()) {
            out.push_str(&text[end..at]);
            out.push_str(mark);
            end = after;
        }
    }
    out + &text[end..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_words_are_replaced_where_they_are_words() {
        let own = Own::new("orpi-1", "local-orpi-1", Some("192.0.2.1"));
        let cases = [
            ("127.0.1.1 orpi-1.home.arpa orpi-1", "127.0.1.1 ‹node›.home.arpa ‹node›"),
            ("192.0.2.1\tlocal-orpi-1.home.arpa local-orpi-1", "‹address›\t‹hostname›.home.arpa ‹hostname›"),
            ("192.0.2.10 1192.0.2.1", "192.0.2.10 1192.0.2.1"),
            ("orpi-10 xorpi-1 orpi-1_a other-orpi-1", "orpi-10 xorpi-1 orpi-1_a other-orpi-1"),
            ("orpi-1orpi-1", "orpi-1orpi-1"),
            ("‹node› orpi-1", "‹node› orpi-1"),
            ("", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(marked(text, &own), expected);
        }
    }

    #[test]
    fn a_name_that_is_a_word_of_a_mark_stays_out_of_it() {
        let own = Own::new("node", "hostname", None);
        assert_eq!(marked("hostname is node", &own), "‹hostname› is ‹node›");
        assert_eq!(marked("host", &Own::new("host", "host", None)), "‹node›");
    }
}
