//! Helm's release history: a Secret for every revision of a release, of which only the last few are of use.
//!
//! Helm keeps ten by default and K3s's Helm controller does not tidy up after itself; each holds the whole
//! chart.

use std::collections::BTreeMap;

use ::kube::ResourceExt as _;
use ::kube::api::{Api, DeleteParams, ListParams};
use ::kube::core::PartialObjectMeta;
use k8s_openapi::api::core::v1::Secret;

use super::client::Cluster;
use super::error::Error;
use crate::transport::prompt::printable;

/// One revision of a release.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Revision {
    pub number: u64,
    /// `deployed`, `superseded`, `failed`, `pending-upgrade`.
    pub status: String,
    /// Its Secret's name.
    pub secret: String,
}

/// Revisions by namespace and release, the oldest first.
pub type History = BTreeMap<(String, String), Vec<Revision>>;

/// The revision that a release Secret holds, with its namespace and release; `None` if it is not one.
fn revision(secret: &PartialObjectMeta<Secret>) -> Option<((String, String), Revision)> {
    let secret_name = secret.name_any();
    let (release, number) = secret_name.strip_prefix("sh.helm.release.v1.")?.rsplit_once(".v")?;
    let labels = secret.labels();
    if labels.get("owner").map(String::as_str) != Some("helm") {
        return None;
    }
    let status = printable(labels.get("status").map(String::as_str).unwrap_or_default());
    let revision = Revision { number: number.parse().ok()?, status, secret: secret_name.clone() };
    Some(((secret.namespace().unwrap_or_default(), release.to_owned()), revision))
}

/// The revisions that can go when `keep` of the newest stay, at least one. One that is deployed always stays:
/// a rollback, and every reading of the release's values, needs it.
pub fn surplus(revisions: &[Revision], keep: usize) -> Vec<&Revision> {
    let mut newest: Vec<&Revision> = revisions.iter().collect();
    newest.sort_by_key(|revision| std::cmp::Reverse(revision.number));
    newest.into_iter().skip(keep.max(1)).filter(|revision| revision.status != "deployed").collect()
}

impl Cluster {
    /// The history of every release. Only names and labels are fetched, not what the Secrets hold.
    pub async fn helm_history(&self) -> Result<History, Error> {
        let api: Api<PartialObjectMeta<Secret>> = Api::all(self.client.clone());
        let helms = ListParams::default().labels("owner=helm");
        let list = self.call("list Helm's releases", || api.list(&helms)).await?;
        let mut history = History::new();
        for (release, revision) in list.items.iter().filter_map(revision) {
            history.entry(release).or_default().push(revision);
        }
        for revisions in history.values_mut() {
            revisions.sort();
        }
        Ok(history)
    }

    /// Deletes old revisions and leaves `keep` of every release; the names of the Secrets, `namespace/name`.
    pub async fn prune_helm_history(&self, keep: usize) -> Result<Vec<String>, Error> {
        let mut pruned = Vec::new();
        for ((namespace, _), revisions) in &self.helm_history().await? {
            let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
            for old in surplus(revisions, keep) {
                let name = format!("{namespace}/{}", old.secret);
                if self.remove(&format!("Secret {name}"), &api, &old.secret, &DeleteParams::default()).await?
                {
                    pruned.push(name);
                }
            }
        }
        Ok(pruned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn release_secrets_are_told_from_others() {
        let read = |name: &str, owner: &str| {
            let labels = json!({ "owner": owner, "status": "deployed" });
            let secret = json!({ "metadata": { "name": name, "namespace": "argocd", "labels": labels } });
            revision(&serde_json::from_value(secret).expect("metadata"))
        };
        let (release, found) = read("sh.helm.release.v1.argo.v2-cd.v12", "helm").expect("a revision");
        assert_eq!(release, ("argocd".into(), "argo.v2-cd".into()));
        assert_eq!((found.number, found.status.as_str()), (12, "deployed"));
        for (name, owner) in [
            ("sh.helm.release.v1.a.v1", "me"),
            ("sh.helm.release.v1.a.vx", "helm"),
            ("sh.helm.release.v1.a", "helm"),
            ("argocd-secret", "helm"),
        ] {
            assert_eq!(read(name, owner), None, "{name} {owner}");
        }
    }

    #[test]
    fn the_deployed_revision_stays() {
        let revisions: Vec<Revision> =
            [(1, "superseded"), (2, "deployed"), (10, "failed"), (3, "superseded"), (9, "failed")]
                .into_iter()
                .map(|(number, status)| Revision {
                    number,
                    status: status.into(),
                    secret: format!("s{number}"),
                })
                .collect();
        let table: [(usize, &[u64]); 5] =
            [(0, &[9, 3, 1]), (1, &[9, 3, 1]), (2, &[3, 1]), (4, &[1]), (9, &[])];
        for (keep, expected) in table {
            let numbers: Vec<u64> = surplus(&revisions, keep).iter().map(|r| r.number).collect();
            assert_eq!(numbers, expected, "keep {keep}");
        }
    }
}
