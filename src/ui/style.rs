//! The palette, and when colour is used at all. Colour only repeats what a word or a mark already says.

use super::ColorChoice;

/// What a piece of text is; its colour follows from that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    #[default]
    Plain,
    /// Secondary: places, durations, what a node printed.
    Dim,
    /// Names that structure the page: nodes, headings.
    Strong,
    Good,
    Changed,
    Bad,
    Warning,
    Hint,
    Added,
    Removed,
    /// `@@ -1,3 +1,4 @@`
    Hunk,
}

impl Style {
    /// `text` with the escapes of this style.
    pub fn paint(self, text: &str) -> String {
        let plain = console::Style::new().force_styling(true);
        let style = match self {
            Self::Plain => return text.to_owned(),
            Self::Dim => plain.dim(),
            Self::Strong => plain.bold(),
            Self::Good | Self::Added => plain.green(),
            Self::Changed => plain.yellow(),
            Self::Bad => plain.red().bold(),
            Self::Warning => plain.yellow().bold(),
            Self::Hint | Self::Hunk => plain.cyan(),
            Self::Removed => plain.red(),
        };
        style.apply_to(text).to_string()
    }
}

/// Whether a stream gets colour. `--color` wins; then NO_COLOR (<https://no-color.org>: set and not empty),
/// CLICOLOR_FORCE and CLICOLOR (<https://bixense.com/clicolors>), TERM=dumb, and last whether it is a terminal.
pub fn wanted(choice: ColorChoice, variable: impl Fn(&str) -> Option<String>, terminal: bool) -> bool {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto if set("NO_COLOR").is_some() => false,
        ColorChoice::Auto if set("CLICOLOR_FORCE").is_some_and(|value| value != "0") => true,
        ColorChoice::Auto if set("CLICOLOR").is_some_and(|value| value == "0") => false,
        ColorChoice::Auto => terminal && variable("TERM").as_deref() != Some("dumb"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_wins_then_the_environment_then_the_terminal() {
        use ColorChoice::{Always, Auto, Never};
        let cases = [
            (Auto, "", true, true),
            (Auto, "", false, false),
            (Auto, "NO_COLOR=1", true, false),
            (Auto, "NO_COLOR=", true, true),
            (Auto, "CLICOLOR_FORCE=1", false, true),
            (Auto, "CLICOLOR_FORCE=0", false, false),
            (Auto, "NO_COLOR=1 CLICOLOR_FORCE=1", true, false),
            (Auto, "CLICOLOR=0", true, false),
            (Auto, "TERM=dumb", true, false),
            (Always, "NO_COLOR=1 TERM=dumb", false, true),
            (Never, "CLICOLOR_FORCE=1", true, false),
        ];
        for (choice, environment, terminal, expected) in cases {
            let variable = |name: &str| {
                let mut set = environment.split_whitespace().filter_map(|set| set.split_once('='));
                set.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
            };
            assert_eq!(wanted(choice, variable, terminal), expected, "{choice:?} {environment:?}");
        }
    }
}
