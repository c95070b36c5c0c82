//! How far a change is felt: whether what was seen before it still holds for another resource.

use crate::probe::Question;

/// What may be different once a resource of a type has been changed, besides what it asks about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Anything: a package brings files, users and units.
    Anything,
    /// What stands below its path, which a link may lead to another place.
    Below,
    /// Nothing.
    Itself,
}

impl Reach {
    /// Whether a change of a resource leaves alone what a later one asks about, and the other way round. `asked` is
    /// what they ask about. Only what lies at another name is another thing: a path that leads through a link to the
    /// same file is not seen through, and whoever changes both must see to it that the second one is safe.
    pub fn apart(self, asked: &[Question], later: Self, asked_later: &[Question]) -> bool {
        if self == Self::Anything || later == Self::Anything {
            return false;
        }
        let felt = |one: &Question, other: &Question| match (path(one), path(other)) {
            // Making a directory makes those above it too.
            (Some(one), Some(other)) => {
                one == other || is_below(one, other) || self == Self::Below && is_below(other, one)
            }
            // Setting one may set others: `net.ipv4.conf.all`.
            (None, None) => {
                one == other || matches!((one, other), (Question::Sysctl(_), Question::Sysctl(_)))
            }
            _ => false,
        };
        !asked.iter().any(|one| asked_later.iter().any(|other| felt(one, other)))
    }
}

fn path(question: &Question) -> Option<&str> {
    match question {
        Question::Stat(path) | Question::Content { path, .. } | Question::Checksum(path) => Some(path),
        _ => None,
    }
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| folder == "/" || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use crate::resource::build;

    #[test]
    fn what_is_apart() {
        let cases = [
            ("file /a/x", "file /a/y", true),
            ("file /a/x", "file /a/xy", true),
            ("file /a/x", "line /a/x", false),
            ("directory /a", "file /a/x", true),
            ("file /a/x", "directory /a", false),
            ("directory /a/b", "directory /a", false),
            ("directory /a", "directory /a/b", true),
            ("link /a", "file /a/x", false),
            ("link /a", "file /ab", true),
            ("line /a", "block /b", true),
            ("sysctl net.x", "file /a", true),
            ("file /etc/sysctl.d/90-s.conf", "sysctl net.x", false),
            ("sysctl net.x", "sysctl net.y", false),
            ("package x", "file /a", false),
            ("file /a", "user x", false),
        ];
        for (one, other, expected) in cases {
            let [one_of, other_of] = [one, other].map(|text| {
                let (kind, name) = text.split_once(' ').expect("a kind and a name");
                let fields = match kind {
                    "package" => format!("names = ['{name}']"),
                    "user" => format!("name = '{name}'"),
                    "sysctl" => format!(
                        "name = '{name}'\npath = '/etc/sysctl.d/90-s.conf'\nvalues = {{ '{name}' = '1' }}"
                    ),
                    "file" => format!("path = '{name}'\ncontent = ''"),
                    "link" => format!("path = '{name}'\ntarget = '/b'"),
                    "line" => format!("path = '{name}'\nline = 'x'"),
                    "block" => format!("path = '{name}'\nname = 'x'\ncontent = 'x'"),
                    _ => format!("path = '{name}'"),
                };
                build(kind, toml::from_str(&fields).expect("TOML")).expect(text)
            });
            let apart = one_of.reach().apart(&one_of.questions(), other_of.reach(), &other_of.questions());
            assert_eq!(apart, expected, "{one}, {other}");
        }
    }
}
