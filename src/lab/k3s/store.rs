//! Every object of the cluster: in memory for reading, in a SQLite file of kine's table for a restart.
//!
//! A write gets the next revision (kine's row id, Kubernetes's `resourceVersion`), is in the file before it is
//! seen, and is kept as an event for watches. Watches older than the kept events are told so (`410 Gone`).
//! Values are JSON; K3s keeps protobuf for built-in kinds.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::Value;
use tokio::sync::watch;

/// kine's table, from its `pkg/drivers/sqlite/sqlite.go`.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS kine (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, created INTEGER, deleted INTEGER, create_revision INTEGER,
    prev_revision INTEGER, lease INTEGER, value BLOB, old_value BLOB);
CREATE INDEX IF NOT EXISTS kine_name_index ON kine (name);
CREATE INDEX IF NOT EXISTS kine_name_id_index ON kine (name,id);
CREATE INDEX IF NOT EXISTS kine_id_deleted_index ON kine (id,deleted);
CREATE INDEX IF NOT EXISTS kine_prev_revision_index ON kine (prev_revision);
CREATE UNIQUE INDEX IF NOT EXISTS kine_name_prev_revision_uindex ON kine (name, prev_revision);
";
const INSERT: &str =
    "INSERT INTO kine (id, name, created, deleted, create_revision, prev_revision, lease, value, old_value)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, NULL)";

/// How many events are kept for watches.
const HISTORY: usize = 4096;
/// How many rows are written between two removals of superseded rows.
const COMPACT_EVERY: u64 = 500;

/// Where an object is: `/registry/<group>/<plural>/[<namespace>/]<name>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// `<plural>` or `<plural>.<group>`.
    pub resource: String,
    /// Empty for a resource without namespaces.
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(resource: &str, namespace: &str, name: &str) -> Self {
        Self { resource: resource.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    fn path(&self) -> String {
        let (plural, group) = self.resource.split_once('.').unwrap_or((&self.resource, "core"));
        match self.namespace.as_str() {
            "" => format!("/registry/{group}/{plural}/{}", self.name),
            namespace => format!("/registry/{group}/{plural}/{namespace}/{}", self.name),
        }
    }

    fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.strip_prefix("/registry/")?.split('/').collect();
        let resource = |group: &str, plural: &str| match group {
            "core" => plural.to_owned(),
            group => format!("{plural}.{group}"),
        };
        match parts.as_slice() {
            [group, plural, name] => Some(Self::new(&resource(group, plural), "", name)),
            [group, plural, namespace, name] => Some(Self::new(&resource(group, plural), namespace, name)),
            _ => None,
        }
    }
}

/// An object as it is kept: `metadata.resourceVersion` is set.
pub type Object = Arc<Value>;

/// One change.
#[derive(Debug, Clone)]
pub struct Event {
    pub revision: u64,
    pub key: Key,
    /// What was there before.
    pub old: Option<Object>,
    /// What is there now; `None` after a deletion.
    pub new: Option<Object>,
}

/// The revision asked for is no longer kept, or not there yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    pub asked: u64,
    pub oldest: u64,
}

struct State {
    database: Connection,
    objects: BTreeMap<Key, (u64, Object)>,
    events: VecDeque<Event>,
    revision: u64,
    /// Watches from here on can be served.
    oldest: u64,
    since_compaction: u64,
}

/// The cluster's objects. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
}

/// A write that was refused by `Store::update`'s closure, or by the database.
#[derive(Debug)]
pub enum WriteError<E> {
    Refused(E),
    Database(rusqlite::Error),
}

/// What a write closure wants done.
pub enum Write {
    Put(Value),
    Delete,
    Nothing,
}

impl Store {
    /// Opens the file, or makes it.
    pub fn open(path: &Path) -> rusqlite::Result<Self> {
        let database = Connection::open(path)?;
        database.busy_timeout(std::time::Duration::from_secs(30))?;
        database.pragma_update(None, "journal_mode", "WAL")?;
        database.pragma_update(None, "synchronous", "NORMAL")?;
        database.execute_batch(SCHEMA)?;
        let objects = load(&database)?;
        let revision: u64 = database
            .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'kine'", [], |row| row.get(0))
            .optional()?
            .unwrap_or(0);
        let state = State {
            database,
            objects,
            events: VecDeque::new(),
            revision,
            oldest: revision,
            since_compaction: 0,
        };
        Ok(Self { state: Arc::new(Mutex::new(state)), changed: Arc::new(watch::channel(revision).0) })
    }

    /// The newest revision.
    pub fn revision(&self) -> u64 {
        self.lock().revision
    }

    pub fn get(&self, key: &Key) -> Option<Object> {
        self.lock().objects.get(key).map(|(_, object)| object.clone())
    }

    /// Objects of a resource, in every namespace where `namespace` is empty, and the revision they are of.
    pub fn list(&self, resource: &str, namespace: &str) -> (Vec<Object>, u64) {
        let state = self.lock();
        let from = Key::new(resource, namespace, "");
        let objects = state
            .objects
            .range(from..)
            .take_while(|(key, _)| {
                key.resource == resource && (namespace.is_empty() || key.namespace == namespace)
            })
            .map(|(_, (_, object))| object.clone())
            .collect();
        (objects, state.revision)
    }

    /// Every key of a namespace.
    pub fn keys_in(&self, namespace: &str) -> Vec<Key> {
        self.lock().objects.keys().filter(|key| key.namespace == namespace).cloned().collect()
    }

    /// Every key.
    pub fn keys(&self) -> Vec<Key> {
        self.lock().objects.keys().cloned().collect()
    }

    /// Reads an object and writes what the closure makes of it, in one step. Returns what is there afterwards.
    /// An object equal to the old one is not written again.
    pub fn update<E>(
        &self,
        key: &Key,
        decide: impl FnOnce(Option<&Value>) -> Result<Write, E>,
    ) -> Result<Option<Object>, WriteError<E>> {
        let mut state = self.lock();
        let old = state.objects.get(key).map(|(_, object)| object.clone());
        let new = match decide(old.as_deref()).map_err(WriteError::Refused)? {
            Write::Nothing => return Ok(old),
            Write::Put(new) if old.as_deref().is_some_and(|old| *old == new) => return Ok(old),
            Write::Put(new) => Some(new),
            Write::Delete if old.is_none() => return Ok(None),
            Write::Delete => None,
        };
        let written = state.write(key, old, new).map_err(WriteError::Database)?;
        let revision = state.revision;
        drop(state);
        self.changed.send_replace(revision);
        Ok(written)
    }

    /// Events after a revision, and the newest revision.
    pub fn events_after(&self, revision: u64) -> Result<(Vec<Event>, u64), Gone> {
        let state = self.lock();
        if revision < state.oldest || revision > state.revision {
            return Err(Gone { asked: revision, oldest: state.oldest });
        }
        let first = state.events.partition_point(|event| event.revision <= revision);
        Ok((state.events.range(first..).cloned().collect(), state.revision))
    }

    /// Tells of every new revision.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A row that is no object: `/bootstrap/<hash>`.
    pub fn row(&self, name: &str) -> rusqlite::Result<Option<String>> {
        self.lock()
            .database
            .query_row(
                "SELECT value FROM kine WHERE name = ?1 AND deleted = 0 ORDER BY id DESC",
                [name],
                |row| row.get::<_, Vec<u8>>(0),
            )
            .optional()
            .map(|found| found.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Names of such rows that begin with a text.
    pub fn row_names(&self, prefix: &str) -> rusqlite::Result<Vec<String>> {
        let state = self.lock();
        let mut query =
            state.database.prepare("SELECT DISTINCT name FROM kine WHERE substr(name, 1, ?2) = ?1")?;
        query.query_map(params![prefix, prefix.len()], |row| row.get(0))?.collect()
    }

    /// Writes such a row once.
    pub fn put_row(&self, name: &str, value: &str) -> rusqlite::Result<()> {
        let mut state = self.lock();
        let revision = state.revision + 1;
        state.database.execute(INSERT, params![revision, name, 1, 0, 0, 0, value.as_bytes()])?;
        state.revision = revision;
        Ok(())
    }

    /// Copies the database while it is in use, as an etcd snapshot does.
    pub fn snapshot(&self, to: &Path) -> rusqlite::Result<()> {
        self.lock().database.backup("main", to, None::<fn(rusqlite::backup::Progress)>)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn write(
        &mut self,
        key: &Key,
        old: Option<Object>,
        new: Option<Value>,
    ) -> rusqlite::Result<Option<Object>> {
        let previous = self.objects.get(key).map_or(0, |(revision, _)| *revision);
        let revision = self.revision + 1;
        let new = new.map(|mut new| {
            new["metadata"]["resourceVersion"] = Value::String(revision.to_string());
            Arc::new(new)
        });
        let value = new.as_deref().or(old.as_deref()).map(Value::to_string).unwrap_or_default();
        let deleted = new.is_none();
        if old.is_none() {
            // A name's rows are unique by the revision before, and a new object has none.
            self.database.prepare_cached("DELETE FROM kine WHERE name = ?1")?.execute([key.path()])?;
        }
        self.database.prepare_cached(INSERT)?.execute(params![
            revision,
            key.path(),
            i64::from(old.is_none()),
            i64::from(deleted),
            if old.is_none() { 0 } else { previous },
            previous,
            value.as_bytes()
        ])?;
        self.revision = revision;
        match &new {
            Some(object) => self.objects.insert(key.clone(), (revision, object.clone())),
            None => self.objects.remove(key),
        };
        let old = match deleted {
            // A deletion's event carries the object as it was, at the deletion's revision.
            true => old.map(|old| {
                let mut last = (*old).clone();
                last["metadata"]["resourceVersion"] = Value::String(revision.to_string());
                Arc::new(last)
            }),
            false => old,
        };
        self.events.push_back(Event { revision, key: key.clone(), old, new: new.clone() });
        if self.events.len() > HISTORY {
            self.events.pop_front();
            self.oldest = self.events.front().map_or(revision, |event| event.revision - 1);
        }
        self.compact()?;
        Ok(new)
    }

    /// Removes superseded rows now and then.
    fn compact(&mut self) -> rusqlite::Result<()> {
        self.since_compaction += 1;
        if self.since_compaction < COMPACT_EVERY {
            return Ok(());
        }
        self.since_compaction = 0;
        self.database.execute_batch(
            "DELETE FROM kine WHERE id NOT IN (SELECT MAX(id) FROM kine GROUP BY name);
             DELETE FROM kine WHERE deleted = 1;",
        )
    }
}

fn load(database: &Connection) -> rusqlite::Result<BTreeMap<Key, (u64, Object)>> {
    let mut query = database.prepare(
        "SELECT id, name, value FROM kine
         WHERE id IN (SELECT MAX(id) FROM kine GROUP BY name) AND deleted = 0",
    )?;
    let rows = query.query_map([], |row| {
        Ok((row.get::<_, u64>(0)?, row.get::<_, String>(1)?, row.get::<_, Vec<u8>>(2)?))
    })?;
    let mut objects = BTreeMap::new();
    for row in rows {
        let (id, name, value) = row?;
        if let (Some(key), Ok(value)) = (Key::parse(&name), serde_json::from_slice::<Value>(&value)) {
            objects.insert(key, (id, Arc::new(value)));
        }
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn put(store: &Store, name: &str, value: i32) -> u64 {
        let write =
            |_: Option<&Value>| Ok::<_, ()>(Write::Put(json!({"metadata": {"name": name}, "v": value})));
        store.update(&Key::new("nodes", "", name), write).expect("written");
        store.revision()
    }

    #[test]
    fn objects_survive_and_revisions_go_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.db");
        let store = Store::open(&path).expect("made");
        put(&store, "a", 1);
        put(&store, "b", 1);
        let last = put(&store, "a", 2);
        let gone = |_: Option<&Value>| Ok::<_, ()>(Write::Delete);
        store.update(&Key::new("nodes", "", "b"), gone).expect("deleted");
        drop(store);
        let store = Store::open(&path).expect("opened");
        assert_eq!(store.revision(), last + 1);
        let (objects, _) = store.list("nodes", "");
        assert_eq!(objects.len(), 1);
        assert_eq!(objects[0]["v"], 2);
        assert_eq!(objects[0]["metadata"]["resourceVersion"], last.to_string());
        assert!(store.events_after(1).is_err(), "events before the restart are not kept");
        assert!(store.events_after(last + 1).expect("from now on").0.is_empty());
    }

    #[test]
    fn events_tell_what_was_and_what_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("state.db")).expect("made");
        let first = put(&store, "a", 1);
        put(&store, "a", 2);
        let (events, now) = store.events_after(first).expect("kept");
        assert_eq!((events.len(), now), (1, first + 1));
        assert_eq!(events[0].old.as_ref().expect("an old one")["v"], 1);
        assert_eq!(events[0].new.as_ref().expect("a new one")["v"], 2);
        for round in 0..HISTORY as i32 {
            put(&store, "a", round);
        }
        assert_eq!(store.events_after(first).expect_err("too old").asked, first);
        let rows: i64 = store
            .lock()
            .database
            .query_row("SELECT count(*) FROM kine", [], |row| row.get(0))
            .expect("counted");
        assert!(rows <= COMPACT_EVERY as i64 + 2, "superseded rows go: {rows}");
    }

    #[test]
    fn keys_are_paths() {
        for key in [
            Key::new("nodes", "", "a"),
            Key::new("pods", "ns", "a"),
            Key::new("deployments.apps", "ns", "a.b"),
            Key::new("customresourcedefinitions.apiextensions.k8s.io", "", "x.y"),
        ] {
            assert_eq!(Key::parse(&key.path()), Some(key));
        }
    }
}
