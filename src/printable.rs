//! Which characters could deceive somebody who reads text on a terminal. What a node, a file or a person wrote is
//! hostile: every layer that puts such text into a message asks here.

/// Controls (C0, DEL, C1), direction marks and overrides, characters without a width, line separators, tags. Code
/// points: Unicode 16, general categories Cc, Cf, Zl, Zp, and the fillers that look like nothing.
pub fn deceives(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}
