//! What makes properties unreadable, and how that is told to who receives the message.

use std::fmt;

use lapin::BasicProperties;
use lapin::types::AMQPValue;

use super::headers::MAX_DEPTH;
use super::properties::PROPERTIES;

/// What makes properties unreadable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// This property, by its place in [`PROPERTIES`], is a text that is not UTF-8.
    NotUtf8(u8),
    /// They don't have AMQP's form.
    Malformed,
    /// The headers don't have AMQP's form.
    HeadersMalformed,
    /// A header's name is not UTF-8.
    HeaderName,
    /// Headers are nested deeper than anybody needs and a parser may bear.
    TooDeep,
    /// They are larger than any broker should let pass.
    TooLarge,
}

impl Fault {
    /// The header that names it. Only the inspection writes it: a producer's own is dropped.
    pub(crate) const HEADER: &str = "x-sparkferry-unreadable";

    const OTHERS: [Self; 5] = [
        Self::Malformed,
        Self::HeadersMalformed,
        Self::HeaderName,
        Self::TooDeep,
        Self::TooLarge,
    ];

    /// The value of the header that names it.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::NotUtf8(property) => property,
            Self::Malformed => 100,
            Self::HeadersMalformed => 101,
            Self::HeaderName => 102,
            Self::TooDeep => 103,
            Self::TooLarge => 104,
        }
    }

    /// The fault that the inspection found, if it found one.
    pub(crate) fn of(properties: &BasicProperties) -> Option<Self> {
        let headers = properties.headers().as_ref()?;
        let AMQPValue::ShortShortUInt(code) = headers.inner().get(Self::HEADER)? else {
            return None;
        };
        let other = Self::OTHERS.into_iter().find(|fault| fault.code() == *code);
        Some(other.unwrap_or(Self::NotUtf8(*code)))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8(property) => {
                let named = PROPERTIES.get(usize::from(*property));
                let name = named.map_or("unknown", |(name, _)| name);
                write!(f, "{name} is not UTF-8")
            }
            Self::Malformed => f.write_str("they are not as AMQP has them"),
            Self::HeadersMalformed => f.write_str("the headers are not as AMQP has them"),
            Self::HeaderName => f.write_str("a header's name is not UTF-8"),
            Self::TooDeep => write!(f, "the headers are nested more than {MAX_DEPTH} deep"),
            Self::TooLarge => f.write_str("they take more than a mebibyte"),
        }
    }
}
