//! Patterns of names: `*` any text, `?` one character. With a separator, as Argo CD matches repositories, `*` and
//! `?` stop at it and `**` does not.

/// Whether a text is of a pattern.
pub fn matches(pattern: &str, text: &str, separator: Option<char>) -> bool {
    let Some(first) = pattern.chars().next() else { return text.is_empty() };
    let rest = &pattern[first.len_utf8()..];
    let is_open = |letter: char| separator != Some(letter);
    match first {
        '*' => {
            let (rest, crosses) = match rest.strip_prefix('*') {
                Some(rest) => (rest, true),
                None => (rest, separator.is_none()),
            };
            let ends = text.char_indices().map(|(at, letter)| (at, Some(letter))).chain([(text.len(), None)]);
            for (at, letter) in ends {
                if matches(rest, &text[at..], separator) {
                    return true;
                }
                if letter.is_some_and(|letter| !crosses && !is_open(letter)) {
                    return false;
                }
            }
            false
        }
        '?' => {
            let mut letters = text.chars();
            letters.next().is_some_and(is_open) && matches(rest, letters.as_str(), separator)
        }
        first => text.strip_prefix(first).is_some_and(|text| matches(rest, text, separator)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let cases = [
            ("*", "", None, true),
            ("*", "a/b", None, true),
            ("a", "a", None, true),
            ("a", "ab", None, false),
            ("a*c", "abbc", None, true),
            ("a*c", "abbd", None, false),
            ("a?c", "abc", None, true),
            ("https://git.home.arpa/*", "https://git.home.arpa/one", Some('/'), true),
            ("https://git.home.arpa/*", "https://git.home.arpa/one/two", Some('/'), false),
            ("https://git.home.arpa/**", "https://git.home.arpa/one/two", Some('/'), true),
            ("https://*/one", "https://git.home.arpa/one", Some('/'), true),
            ("a?b", "a/b", Some('/'), false),
        ];
        for (pattern, text, separator, wanted) in cases {
            assert_eq!(matches(pattern, text, separator), wanted, "{pattern} {text}");
        }
    }
}
