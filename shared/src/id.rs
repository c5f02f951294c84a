//! The id that a producer gives its request.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What the request is: the same id (on the same connection) is the same work.
///
/// 1 to 128 characters of `A-Z a-z 0-9 . _ : - / @`, so that an id can stand in a log line, a URL,
/// a header and a metric's exemplar without quoting.
///
/// Cheap to clone: it stands in every event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(Arc<str>);

/// The longest id, in characters (all of them ASCII, so in bytes too).
pub const MAX_ID_LENGTH: usize = 128;

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The text is empty.
    #[error("an id must not be empty")]
    Empty,
    /// The text is longer than [`MAX_ID_LENGTH`].
    #[error("an id has at most {MAX_ID_LENGTH} characters, this one has {0}")]
    TooLong(usize),
    /// The text holds a character that an id can't.
    #[error("an id is made of A-Z a-z 0-9 . _ : - / @, found {0:?}")]
    Character(char),
}

impl Id {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Id {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text.is_empty() {
            return Err(InvalidId::Empty);
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._:-/@".contains(c);
        if let Some(c) = text.chars().find(|&c| !allowed(c)) {
            return Err(InvalidId::Character(c));
        }
        if text.len() > MAX_ID_LENGTH {
            return Err(InvalidId::TooLong(text.len()));
        }
        Ok(Self(text.into()))
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Id {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Id {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Id {
    fn schema_name() -> Cow<'static, str> {
        "Id".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "What the request is: the same id on the same connection is the same work.",
            "minLength": 1,
            "maxLength": MAX_ID_LENGTH,
            "pattern": "^[A-Za-z0-9._:/@-]+$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_short_and_plain() {
        assert!("orders-2026-11-21".parse::<Id>().is_ok());
        assert!("a/b:c@d._-".parse::<Id>().is_ok());
        assert!("x".repeat(MAX_ID_LENGTH).parse::<Id>().is_ok());
        assert_eq!("".parse::<Id>(), Err(InvalidId::Empty));
        assert_eq!("a b".parse::<Id>(), Err(InvalidId::Character(' ')));
        assert_eq!("ü".parse::<Id>(), Err(InvalidId::Character('ü')));
        assert_eq!("x".repeat(129).parse::<Id>(), Err(InvalidId::TooLong(129)));
    }
}
