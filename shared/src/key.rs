//! Computed names. A run's name is derived from its request and never stored anywhere.
//!
//! Every engine lets its client choose a run's name: Databricks an idempotency token, Spark Connect
//! session and operation ids. Since the name follows from the request alone, any worker that holds
//! the request can find the run that an earlier worker started, or start it if nobody did.
//!
//! ```
//! use sparkferry_shared::Names;
//!
//! let names = Names::new("sparkferry", "prod", "orders-2026-11-21");
//! assert_eq!(names.key(1).to_string(), "0054bc16-9e18-5292-a289-22b2283ecc16");
//! assert_eq!(names.key(2).to_string(), "2423e34a-713c-56f4-9b72-02465f71bb8c");
//! assert_eq!(names.result().to_string(), "b50ec093-2622-59bf-9ec0-91bc4db83c40");
//! assert_eq!(names.key(1).step(1).to_string(), "31bd7d68-f65f-5431-9eb0-c7a92390cc37");
//!
//! let other = Names::new("sparkferry", "lake", "a/b:c@d");
//! assert_eq!(other.key(1).to_string(), "e7a0ff83-ed07-5d56-96ec-6af5c17b50e3");
//! ```

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The names that follow from one request: of its runs (one for each attempt) and of its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Names {
    base: Uuid,
}

impl Names {
    /// `UUIDv5(NAMESPACE_URL, "sparkferry:{namespace}:{connection}:{id}")`.
    pub fn new(namespace: &str, connection: &str, id: &str) -> Self {
        let name = format!("sparkferry:{namespace}:{connection}:{id}");
        Self {
            base: Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()),
        }
    }

    /// The name of the run of one attempt. Attempts count from 1.
    pub fn key(&self, attempt: u32) -> Key {
        Key(Uuid::new_v5(&self.base, attempt.to_string().as_bytes()))
    }

    /// The `message_id` of the result: the same however often it is published.
    pub fn result(&self) -> Uuid {
        Uuid::new_v5(&self.base, b"result")
    }
}

/// The name of one attempt's run: Databricks' idempotency token, Spark Connect's session id.
/// Prints as a hyphenated lower-case UUID (36 characters; Databricks takes at most 64).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Key(Uuid);

impl Key {
    /// Spark Connect's operation id for a step. Steps count from 1.
    pub fn step(&self, number: u32) -> Uuid {
        Uuid::new_v5(&self.0, number.to_string().as_bytes())
    }

    /// The key as a UUID.
    pub fn as_uuid(&self) -> Uuid {
        self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn one_request_and_attempt_has_one_name_and_no_other_has_it(
            ids in prop::collection::hash_set("[A-Za-z0-9._:/@-]{1,40}", 2..20),
        ) {
            let mut seen = HashSet::new();
            for id in &ids {
                for connection in ["prod", "lake"] {
                    let names = Names::new("sparkferry", connection, id);
                    prop_assert_eq!(names, Names::new("sparkferry", connection, id));
                    for attempt in 1..=3 {
                        prop_assert!(seen.insert(names.key(attempt).to_string()));
                    }
                    prop_assert!(seen.insert(names.result().to_string()));
                }
            }
        }
    }
}
