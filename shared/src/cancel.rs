//! How to stop a run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::decode::unquoted::without_values;
use crate::id::Id;

/// How long a cancel stays in force for requests that no worker has seen yet, in seconds: 24 hours.
pub const CANCEL_LIFETIME_SECONDS: u64 = 24 * 60 * 60;

/// The largest cancel, in bytes of JSON: every worker reads all those of a day. A larger one is not heeded.
pub const MAX_CANCEL_BYTES: usize = 4 << 10;

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
    /// Reads a cancel as it was published.
    ///
    /// # Errors
    /// Where it is too large, or no cancel; for a person, without what stands in it.
    pub fn read(body: &[u8]) -> Result<Self, String> {
        if body.len() > MAX_CANCEL_BYTES {
            return Err(format!(
                "it has {} bytes, at most {MAX_CANCEL_BYTES} are allowed",
                body.len()
            ));
        }
        serde_json::from_slice(body).map_err(|error| without_values(&error.to_string()))
    }

    /// Whether it speaks of this request.
    pub fn concerns(&self, connection: &str, id: &Id) -> bool {
        self.cancel == *id && self.connection.as_deref().is_none_or(|c| c == connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancel_is_small() {
        let with = |bytes: usize| format!(r#"{{"cancel":"a","reason":"{}"}}"#, "x".repeat(bytes));
        let around = with(0).len();
        assert!(Cancel::read(with(MAX_CANCEL_BYTES - around).as_bytes()).is_ok());
        let refused = Cancel::read(with(MAX_CANCEL_BYTES - around + 1).as_bytes());
        assert_eq!(
            refused.unwrap_err(),
            "it has 4097 bytes, at most 4096 are allowed"
        );
        let wrong = Cancel::read(br#"{"cancel":"hunter 2"}"#).unwrap_err();
        assert!(!wrong.contains("hunter"), "{wrong}");
    }
}
