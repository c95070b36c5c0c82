//! Objects that are wanted, and what more than their form makes them done: a definition served, a release of Helm
//! deployed, an application of Argo CD synced and healthy.

use std::time::Duration;

use ::kube::api::DynamicObject;

use super::client::Cluster;
use super::error::Error;
use super::object::{ObjectRef, object};
use super::wait::{Check, Condition};
use crate::resource::Difference;

/// What must hold besides an object's form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Expectation {
    /// The API serves these CustomResourceDefinitions.
    Established(Vec<String>),
    /// All pods of the Deployment, DaemonSet or StatefulSet are of its newest form and available.
    RolledOut,
    /// The HelmChart's release is deployed in its present form, and its workloads are rolled out.
    Released,
    /// The Application, or every one that the ApplicationSet makes, is synced and healthy.
    Synced,
}

/// An object as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectWanted {
    /// As JSON, so that it can be compared and hashed.
    pub json: String,
    pub expects: Vec<Expectation>,
    /// Somebody else makes the object: it is waited for, and only then given what is wanted of it.
    pub existing: bool,
}

impl ObjectWanted {
    /// What it is called: `Namespace data`.
    pub fn reference(&self) -> Result<ObjectRef, Error> {
        Ok(ObjectRef::from(&self.object()?))
    }

    fn object(&self) -> Result<DynamicObject, Error> {
        let json = serde_json::from_str(&self.json);
        object(json.map_err(|_| Error::BadObject { why: "it is no JSON".into() })?)
    }
}

/// What a look at an object showed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectSeen {
    /// What an apply would change, as the API server itself says.
    pub differences: Vec<Difference>,
    /// What is expected and does not hold, in words.
    pub missing: Option<String>,
}

impl Cluster {
    /// Compares an object with what is wanted. Where there is no cluster yet, or nobody has defined the kind yet, all
    /// of it is missing.
    pub async fn look(&self, wanted: &ObjectWanted) -> Result<ObjectSeen, Error> {
        let object = wanted.object()?;
        let which = ObjectRef::from(&object);
        let unmade = || Some(format!("{which} is not there yet"));
        let found = match self.get(&which).await {
            Err(Error::UnknownKind { .. }) => return ObjectSeen::of_nothing(wanted),
            found => found?,
        };
        if wanted.existing && found.is_none() {
            return Ok(ObjectSeen { missing: unmade(), ..ObjectSeen::of_nothing(wanted)? });
        }
        let differences = self.diff_from(&object, found.as_ref()).await?;
        let missing = match (&found, differences.is_empty()) {
            // Of one that is to be changed it says nothing yet.
            (Some(found), true) => self.unmet(&which, found, &wanted.expects).await?,
            _ => None,
        };
        Ok(ObjectSeen { differences, missing })
    }

    /// Brings an object to the wanted form and waits until all that is expected holds. `progress` hears what is still
    /// missing, each time that changes.
    pub async fn settle(
        &self,
        wanted: &ObjectWanted,
        limit: Duration,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<(), Error> {
        let object = wanted.object()?;
        let which = ObjectRef::from(&object);
        if wanted.existing {
            let there = Condition::of("there", |_| Check::Done);
            self.wait_for_kind(&which, limit, progress).await?;
            self.wait(&which, &there, limit, progress).await?;
        }
        let (applied, past) = match wanted.expects.contains(&Expectation::Released) {
            true => self.apply_chart(&which, &object).await?,
            false => (self.apply(&object).await?, 0),
        };
        for expectation in &wanted.expects {
            match expectation {
                Expectation::Established(names) => {
                    for name in names {
                        self.wait(&definition(name), &Condition::established(), limit, progress).await?;
                    }
                }
                Expectation::RolledOut => {
                    self.wait(&which, &Condition::rolled_out(), limit, progress).await?;
                }
                Expectation::Released => {
                    self.wait_released(&which, &applied, past, limit, progress).await?;
                }
                Expectation::Synced => self.wait_synced(&which, &applied, limit, progress).await?,
            }
        }
        Ok(())
    }

    /// Applies a HelmChart, and says up to which number the revisions of its release are of an older form.
    async fn apply_chart(
        &self,
        which: &ObjectRef,
        chart: &DynamicObject,
    ) -> Result<(DynamicObject, u64), Error> {
        self.clear_failed_release(which).await?;
        let before = match self.get(which).await {
            Err(Error::UnknownKind { .. }) => None,
            found => found?,
        };
        let newest = self.newest_revision(which, chart).await?;
        let applied = self.apply(chart).await?;
        let generation = |chart: &DynamicObject| chart.metadata.generation;
        let is_changed = before.is_none_or(|before| generation(&before) != generation(&applied));
        Ok((applied, if is_changed { newest } else { 0 }))
    }

    /// The first expectation that does not hold, in words.
    async fn unmet(
        &self,
        which: &ObjectRef,
        found: &DynamicObject,
        expects: &[Expectation],
    ) -> Result<Option<String>, Error> {
        for expectation in expects {
            let unmet = match expectation {
                Expectation::Established(names) => self.not_established(names).await?,
                Expectation::RolledOut => {
                    Condition::rolled_out().judge(Some(found)).unmet().map(|why| format!("{which}: {why}"))
                }
                Expectation::Released => self.not_released(which, found).await?,
                Expectation::Synced => self.not_synced(found).await?,
            };
            if unmet.is_some() {
                return Ok(unmet);
            }
        }
        Ok(None)
    }

    async fn not_established(&self, names: &[String]) -> Result<Option<String>, Error> {
        for name in names {
            let found = self.get(&definition(name)).await?;
            if let Some(why) = Condition::established().judge(found.as_ref()).unmet() {
                return Ok(Some(format!("{name}: {why}")));
            }
        }
        Ok(None)
    }

    /// Waits until somebody has defined an object's kind.
    async fn wait_for_kind(
        &self,
        which: &ObjectRef,
        limit: Duration,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<(), Error> {
        let end = std::time::Instant::now() + limit;
        let mut pauses = super::client::Pauses::default();
        loop {
            match self.api(which).await {
                Err(Error::UnknownKind { .. }) if std::time::Instant::now() < end => {
                    progress(&format!("nobody has defined {} yet", which.kind));
                    tokio::time::sleep(pauses.after()).await;
                }
                other => return other.map(|_| ()),
            }
        }
    }
}

impl ObjectSeen {
    /// Seen where there is nothing at all.
    pub fn of_nothing(wanted: &ObjectWanted) -> Result<Self, Error> {
        Ok(Self { differences: super::object::creation(&wanted.object()?), missing: None })
    }
}

fn definition(name: &str) -> ObjectRef {
    ObjectRef::new("apiextensions.k8s.io/v1", "CustomResourceDefinition", None, name)
}
