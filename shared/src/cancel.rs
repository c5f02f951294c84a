//! How to stop a run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::Id;

/// How long a cancel stays in force for requests that no worker has seen yet, in seconds: 24 hours.
pub const CANCEL_LIFETIME_SECONDS: u64 = 24 * 60 * 60;

/// Asks every worker to cancel the run of a request, also one that is still in a queue. Unknown fields
/// are ignored: one that a newer sender adds must not let the run go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Sparkferry cancel")]
pub struct Cancel {
    /// The request's id.
    pub cancel: Id,
    /// Only on this connection; without it, on every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    /// Why, for the people who read the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Cancel {
    /// Whether it speaks of this request.
    pub fn concerns(&self, connection: &str, id: &Id) -> bool {
        self.cancel == *id && self.connection.as_deref().is_none_or(|c| c == connection)
    }
}
