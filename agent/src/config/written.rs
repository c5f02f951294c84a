//! What was written in the settings, to tell what another reading changed.
//!
//! What is written holds secrets, so only fingerprints of it are kept. A setting that is left out
//! and the same one with its default count as different. What stands in other files (a profile, a
//! URL) counts too, but for the secrets that are read there anew whenever they are needed.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{Hash, Hasher};

use config::{Map, Value, ValueKind};
use url::Url;

use super::Connection;
use super::secret::Secret;

const CONNECTIONS: &str = "connections";
const QUEUE: &str = "queue";

/// Fingerprints of what was written. `Debug` leaves them out: they tell a person nothing.
#[derive(Clone, Default)]
pub struct Written {
    sections: BTreeMap<String, u64>,
    connections: BTreeMap<String, u64>,
}

impl Written {
    /// `settings` are all of them, from all sources.
    pub(super) fn new(settings: &Value) -> Self {
        let mut written = Self::default();
        let ValueKind::Table(sections) = &settings.kind else {
            return written;
        };
        for (name, section) in sections {
            match &section.kind {
                ValueKind::Table(connections) if name == CONNECTIONS => {
                    written.connections = fingerprints(connections);
                }
                _ => {
                    written.sections.insert(name.clone(), fingerprint(section));
                }
            }
        }
        written
    }

    /// A connection's settings came to this, by what stands in other files and in variables.
    pub(super) fn came_to(&mut self, name: &str, connection: &Connection) {
        // It prints everything but secrets.
        let mut found = format!("{connection:?}");
        if let Connection::SparkConnect(settings) = connection {
            // Headers are of the URL, which is read once.
            let headers = settings.headers.iter().map(|(_, header)| header.expose());
            found.extend(headers.flat_map(|header| ["\n", header]));
        }
        add(&mut self.connections, name, &found);
    }

    /// The URL in the queue's file leads there. As whom is none of the worker's business: that is
    /// read anew for each connection.
    pub(super) fn leads_to(&mut self, url: &Secret) {
        let place = Url::parse(url.expose()).ok().map(|mut url| {
            url.set_query(None);
            let _ = url.set_username("").and_then(|()| url.set_password(None));
            String::from(url)
        });
        add(&mut self.sections, QUEUE, &place.unwrap_or_default());
    }

    /// The sections, and settings in none, that were written otherwise in `newer`. Connections are
    /// told by [`Written::changed_connections`].
    pub fn changed_sections(&self, newer: &Self) -> BTreeSet<String> {
        changed(&self.sections, &newer.sections)
    }

    /// The connections that were written otherwise in `newer`, or stand in one of the two alone.
    pub fn changed_connections(&self, newer: &Self) -> BTreeSet<String> {
        changed(&self.connections, &newer.connections)
    }
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Written")
    }
}

/// Has a fingerprint cover something more.
fn add(fingerprints: &mut BTreeMap<String, u64>, name: &str, found: &str) {
    let fingerprint = fingerprints.entry(name.to_owned()).or_default();
    let mut hasher = DefaultHasher::new();
    (*fingerprint, found).hash(&mut hasher);
    *fingerprint = hasher.finish();
}

fn changed(older: &BTreeMap<String, u64>, newer: &BTreeMap<String, u64>) -> BTreeSet<String> {
    let names = older.keys().chain(newer.keys());
    names
        .filter(|name| older.get(*name) != newer.get(*name))
        .cloned()
        .collect()
}

fn fingerprints(table: &Map<String, Value>) -> BTreeMap<String, u64> {
    let fingerprints = table
        .iter()
        .map(|(name, value)| (name.clone(), fingerprint(value)));
    fingerprints.collect()
}

fn fingerprint(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    match &value.kind {
        ValueKind::Table(table) => fingerprints(table).hash(&mut hasher),
        ValueKind::Array(values) => {
            for value in values {
                fingerprint(value).hash(&mut hasher);
            }
        }
        // Text that is `1` and the number 1 are not the same.
        plain => format!("{plain:?}").hash(&mut hasher),
    }
    hasher.finish()
}
