//! Which resource, object and subresource a request's path means.

/// A path below `/api` or `/apis`, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    pub group: String,
    pub version: String,
    /// Empty: every namespace, or none.
    pub namespace: String,
    pub plural: String,
    /// Empty: the collection.
    pub name: String,
    /// `status`, `eviction`, … or empty.
    pub subresource: String,
}

impl Target {
    /// Reads a path; `None` where it means no resource.
    pub fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let target = |namespace: &str, plural: &str, name: &str, subresource: &str| {
            Some(Self {
                group: group.to_owned(),
                version: version.to_owned(),
                namespace: namespace.to_owned(),
                plural: plural.to_owned(),
                name: name.to_owned(),
                subresource: subresource.to_owned(),
            })
        };
        match rest {
            ["namespaces", name, subresource @ ("status" | "finalize")] => {
                target("", "namespaces", name, subresource)
            }
            ["namespaces", namespace, plural] => target(namespace, plural, "", ""),
            ["namespaces", namespace, plural, name] => target(namespace, plural, name, ""),
            ["namespaces", namespace, plural, name, subresource] => {
                target(namespace, plural, name, subresource)
            }
            [plural] => target("", plural, "", ""),
            [plural, name] => target("", plural, name, ""),
            [plural, name, subresource] => target("", plural, name, subresource),
            _ => None,
        }
        .filter(|target| !target.plural.is_empty())
    }
}

/// The parameters of a query, decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(query: &str) -> Self {
        let pair = |part: &str| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(key), decode(value))
        };
        Self(query.split('&').filter(|part| !part.is_empty()).map(pair).collect())
    }

    /// The first value of a parameter; an empty one is none.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// Whether a parameter is there, with or without a value.
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(name, _)| name == key)
    }

    /// Whether a parameter is `true` or `1`.
    pub fn on(&self, key: &str) -> bool {
        matches!(self.get(key), Some("true" | "1"))
    }
}

/// Percent decoding, with `+` for a space. What is no escape stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escaped {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(if bytes[at] == b'+' { b' ' } else { bytes[at] });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let cases = [
            ("/api/v1/nodes", Some(("", "v1", "", "nodes", "", ""))),
            ("/api/v1/nodes/a", Some(("", "v1", "", "nodes", "a", ""))),
            ("/api/v1/nodes/a/status", Some(("", "v1", "", "nodes", "a", "status"))),
            ("/api/v1/namespaces", Some(("", "v1", "", "namespaces", "", ""))),
            ("/api/v1/namespaces/x", Some(("", "v1", "", "namespaces", "x", ""))),
            ("/api/v1/namespaces/x/status", Some(("", "v1", "", "namespaces", "x", "status"))),
            ("/api/v1/namespaces/x/pods", Some(("", "v1", "x", "pods", "", ""))),
            ("/api/v1/namespaces/x/pods/a/eviction", Some(("", "v1", "x", "pods", "a", "eviction"))),
            ("/apis/apps/v1/namespaces/x/deployments/a", Some(("apps", "v1", "x", "deployments", "a", ""))),
            ("/apis/apps/v1/deployments", Some(("apps", "v1", "", "deployments", "", ""))),
            ("/apis/apps/v1", None),
            ("/version", None),
        ];
        for (path, wanted) in cases {
            let seen = Target::parse(path);
            let seen = seen.as_ref().map(|t| {
                (
                    t.group.as_str(),
                    t.version.as_str(),
                    t.namespace.as_str(),
                    t.plural.as_str(),
                    t.name.as_str(),
                    t.subresource.as_str(),
                )
            });
            assert_eq!(seen, wanted, "{path}");
        }
    }

    #[test]
    fn queries() {
        let query = Query::parse("labelSelector=a%3Db%2Cc&watch=1&dryRun=All&verbose&x=%zz&y=a+b");
        assert_eq!(query.get("labelSelector"), Some("a=b,c"));
        assert!(query.on("watch") && query.has("verbose") && !query.has("gone"));
        assert_eq!(query.get("x"), Some("%zz"));
        assert_eq!(query.get("y"), Some("a b"));
    }
}
