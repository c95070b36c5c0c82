//! What has to hold before the cluster is taken to another release. The upgrade itself is a run of the roles.

use super::Error;
use crate::artifact::release::parse_version;
use crate::kube::node::Node;

/// Where a cluster stands on its way to a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// Every node runs the release already.
    Arrived,
    /// These nodes do not; an upgrade that was cut off has some that do.
    Ahead { nodes: Vec<String> },
}

/// Whether nodes may go to a release: one minor step at most, never back. Kubernetes supports no more, and K3s's
/// datastore is not made to be read by an older one.
pub fn way(nodes: &[Node], target: &str) -> Result<Way, Error> {
    let bad = |text: &str| Error::new(format!("`{text}` is not a release of K3s"));
    let to = parse_version(target).ok_or_else(|| bad(target))?;
    let mut ahead = Vec::new();
    for node in nodes {
        let running = &node.kubelet_version;
        let from = parse_version(running).ok_or_else(|| {
            Error::on(&node.name, format!("it runs {running:?}, which is not a release of K3s"))
                .hint("wait until it is Ready, or look at it: journalctl -u 'k3s*' -e")
        })?;
        if from.major != to.major || to.minor > from.minor + 1 {
            let next = format!("v{}.{}", from.major, from.minor + 1);
            return Err(Error::on(
                &node.name,
                format!("it runs {running}, and {target} would skip a minor release"),
            )
            .hint(format!(
                "first to a release of {next}: set version under [k3s], datahub lock, datahub upgrade"
            )));
        }
        if to < from {
            return Err(Error::on(
                &node.name,
                format!("it runs {running}, and {target} is older: K3s cannot go back"),
            )
            .hint("set a newer version under [k3s]; to go back, restore a backup: datahub restore --help"));
        }
        if from != to {
            ahead.push(node.name.clone());
        }
    }
    Ok(if ahead.is_empty() { Way::Arrived } else { Way::Ahead { nodes: ahead } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_step_forward_only() {
        let nodes = |versions: &[&str]| -> Vec<Node> {
            let node = |(at, version): (usize, &&str)| Node {
                name: format!("n{at}"),
                kubelet_version: (*version).to_owned(),
                ..Node::default()
            };
            versions.iter().enumerate().map(node).collect()
        };
        let to = |versions: &[&str], target: &str| way(&nodes(versions), target).map_err(|e| e.to_string());
        let (old, new) = ("v1.35.4+k3s1", "v1.36.3+k3s1");
        assert_eq!(to(&[new, new], new), Ok(Way::Arrived));
        assert_eq!(to(&[new, old], new), Ok(Way::Ahead { nodes: vec!["n1".into()] }));
        assert_eq!(to(&["v1.36.2+k3s1"], new), Ok(Way::Ahead { nodes: vec!["n0".into()] }));
        for (versions, target, wanted) in [
            (
                &["v1.34.9+k3s1"][..],
                new,
                "n0: it runs v1.34.9+k3s1, and v1.36.3+k3s1 would skip a minor release",
            ),
            (&[new], old, "n0: it runs v1.36.3+k3s1, and v1.35.4+k3s1 is older: K3s cannot go back"),
            (&[new, ""], new, "n1: it runs \"\", which is not a release of K3s"),
            (&[new], "latest", "`latest` is not a release of K3s"),
        ] {
            assert_eq!(to(versions, target), Err(wanted.to_owned()));
        }
    }
}
