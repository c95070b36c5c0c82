//! Following objects by watch: what is there now, and then every change, across cut connections.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use ::kube::runtime::utils::Backoff;
use ::kube::runtime::watcher::{self, Event};
use ::kube::runtime::{WatchStreamExt as _, watcher as watch};
use ::kube::{Api, Resource, ResourceExt as _};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::client::{Cluster, Pauses};
use super::error::{Error, Failure, classify};

/// All objects that match, by namespace and name.
pub(super) type Seen<K> = BTreeMap<(String, String), K>;

/// What the API server last failed with, if it has not answered since then.
pub(super) type Late = Option<String>;

impl Cluster {
    /// Shows `look` the objects that match now and after every change, until it gives something or `limit` is
    /// over: then the last failure, if the API server was not there at the end. `what` is what is done by it:
    /// `wait for node nas`.
    ///
    /// Requests made while this waits must be made beside it (`join`, `select`): a channel that nobody reads
    /// holds up all of an SSH connection.
    pub(super) async fn follow<K, T>(
        &self,
        what: &str,
        api: Api<K>,
        config: watcher::Config,
        limit: Duration,
        mut look: impl FnMut(&Seen<K>) -> Option<T>,
    ) -> Result<Result<T, Late>, Error>
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let end = Instant::now() + limit;
        let mut events = std::pin::pin!(watch(api, config).backoff(Pauses::default()));
        let mut seen = Seen::new();
        let mut listing = Seen::new();
        let mut late = None;
        while let Ok(Some(event)) = timeout_at(end, events.next()).await {
            match event {
                Ok(event) => {
                    late = None;
                    if take(event, &mut seen, &mut listing)
                        && let Some(found) = look(&seen)
                    {
                        return Ok(Ok(found));
                    }
                }
                Err(error) => late = Some(transient(what, error)?),
            }
        }
        Ok(Err(late))
    }
}

/// Takes an event in; whether all that is there is known and may have changed.
fn take<K: Resource>(event: Event<K>, seen: &mut Seen<K>, listing: &mut Seen<K>) -> bool {
    match event {
        Event::Init => listing.clear(),
        Event::InitApply(object) => {
            listing.insert(key(&object), object);
        }
        Event::InitDone => {
            *seen = std::mem::take(listing);
            return true;
        }
        Event::Apply(object) => {
            seen.insert(key(&object), object);
            return true;
        }
        Event::Delete(object) => {
            seen.remove(&key(&object));
            return true;
        }
    }
    false
}

fn key<K: Resource>(object: &K) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// A watch mends itself after any error; one that will not pass ends it all the same.
fn transient(what: &str, error: watcher::Error) -> Result<String, Error> {
    use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
    let error = match error {
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => error,
        // Too old a version: everything is listed anew.
        WatchError(status) => return Ok(status.message),
        NoResourceVersion => {
            return Err(Error::Answer { what: what.into(), why: "a list without a version".into() });
        }
    };
    match classify(what, &error) {
        Failure::Transient(why) => Ok(why),
        Failure::Permanent(Error::Refused { code: 410, message, .. }) => Ok(message),
        Failure::Permanent(error) => Err(error),
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.after())
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        *self = Self::default();
    }
}
