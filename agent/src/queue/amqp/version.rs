//! The broker's version, and what it means for us.

use std::fmt;
use std::str::FromStr;

/// From here on a hand-back counts as no delivery, and whoever consumes from a quorum queue can say how
/// long a delivery may be held.
const FOUR_THREE: Version = Version {
    major: 4,
    minor: 3,
    patch: 0,
};

/// A version of RabbitMQ. What comes after the numbers (`4.3.0-rc.1`) is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

impl Version {
    /// Whether each hand-back counts towards a quorum queue's delivery limit.
    pub(super) fn counts_hand_backs(self) -> bool {
        self < FOUR_THREE
    }

    /// Whether the consumer timeout may stand in the arguments of a subscription to a quorum queue.
    /// Earlier brokers ignore it.
    pub(super) fn takes_consumer_timeout(self) -> bool {
        self >= FOUR_THREE
    }
}

/// A text that names no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a version such as 4.3.6")]
pub(super) struct NoVersion;

impl FromStr for Version {
    type Err = NoVersion;

    fn from_str(text: &str) -> Result<Self, NoVersion> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
        let numbers = &text[..end.unwrap_or(text.len())];
        let mut numbers = numbers.split('.').map(str::parse);
        let mut next = || numbers.next().ok_or(NoVersion)?.map_err(|_| NoVersion);
        Ok(Self {
            major: next()?,
            minor: next()?,
            patch: next()?,
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().expect("a version")
    }

    #[test]
    fn versions_are_read_and_compared_by_their_numbers() {
        assert_eq!(version("4.3.6").to_string(), "4.3.6");
        assert_eq!(version("4.3.0-rc.1"), version("4.3.0"));
        assert_eq!(version("4.2.1+12.gabcdef0"), version("4.2.1"));
        assert!(version("3.9.29") < version("3.10.8"));
        assert!(version("3.13.7") < version("4.0.5"));
        assert!(version("4.3.6") < version("4.10.0"));
        for text in ["", "4", "4.3", "4.x.1", "RabbitMQ 4.3.6", "4..6", "4.3.-1"] {
            assert_eq!(text.parse::<Version>(), Err(NoVersion), "{text:?}");
        }
    }

    #[test]
    fn since_4_3_hand_backs_are_free_and_the_timeout_is_the_consumers() {
        for (text, new) in [
            ("3.10.8", false),
            ("4.2.7", false),
            ("4.3.0", true),
            ("5.0.0", true),
        ] {
            assert_eq!(version(text).counts_hand_backs(), !new, "{text}");
            assert_eq!(version(text).takes_consumer_timeout(), new, "{text}");
        }
    }
}
