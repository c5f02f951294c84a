//! Why a message is buried among the dead letters.

/// Why a message can't be read at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is larger than allowed.
    #[error("the message has {size} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The largest size allowed, in bytes.
        limit: usize,
    },
    /// It is not JSON in UTF-8.
    #[error("the message is not JSON: {0}")]
    NotJson(String),
    /// Its properties can't be read.
    #[error("the message's properties can't be read: {0}")]
    Properties(String),
    /// It was published for another connection, and had itself copied here by the header CC or BCC: its
    /// producer may have no right to this connection.
    #[error(
        "the message was published with the routing key {0:?} and came here by the header CC or BCC: \
         publish it once for each connection"
    )]
    Misrouted(String),
    /// It is JSON, with no id that can be used.
    #[error("the request has no usable id: {0}")]
    NoId(String),
}

impl Unreadable {
    /// One word, for the header `x-sparkferry-reason` and for counting.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::NotJson(_) => "not_json",
            Self::Properties(_) => "unreadable_properties",
            Self::Misrouted(_) => "misrouted",
            Self::NoId(_) => "no_id",
        }
    }
}
