//! What `sparkferry check` asks of a broker.

use std::time::Duration;

use sparkferry_ports::queue::QueueError;
use sparkferry_shared::Topology;

use super::connect::{Broker, short};
use super::consume::consumer_timeout;
use super::declare::{Declarer, Role};
use super::link::{connection_name, this_process};
use super::topology::DELIVERY_LIMIT;
use super::version::Version;
use crate::config::{BrokerUrl, QueueSettings};

/// The longest that a request is expected to be held: a week.
const LONGEST_HOLD: Duration = Duration::from_hours(7 * 24);

/// Reaches the broker, declares or checks the topology as a worker would, and tells what was found: the
/// broker, then what holds with its version.
///
/// # Errors
/// What is in the way, and what to do about it.
pub async fn check(
    url: &BrokerUrl,
    settings: &QueueSettings,
    topology: &Topology,
    connections: &[String],
) -> Result<String, QueueError> {
    let broker = Broker::new(url)?;
    let connection = broker
        .connect(&connection_name("check", &this_process()))
        .await?;
    let role = Role::Worker(connections.to_vec());
    let declarer = Declarer::new(topology, role, settings.declare);
    let unseen = declarer.ensure(&broker, &connection).await?;
    // All has been found out: how the connection ends is no matter.
    let _ = connection.close(200, short("checked")).await;
    let version = broker.version();
    let topology = if settings.declare {
        "declared".to_owned()
    } else if unseen.is_empty() {
        "are there".to_owned()
    } else {
        let unseen = unseen.join(", ");
        format!("are there, but for what this user may not look for: {unseen}")
    };
    let mut told = vec![format!(
        "{}: RabbitMQ {}, user {:?}, exchanges and queues {topology}",
        broker.place(),
        version.as_deref().unwrap_or("of an unknown version"),
        broker.user(),
    )];
    if let Some(version) = version.and_then(|version| version.parse().ok()) {
        told.push(consumer_timeout_of(version, settings.hold_limit));
        told.push(hand_backs_of(version, settings.hold_limit));
    }
    Ok(told.join("\n"))
}

/// How long a broker of this version waits for what it delivered.
fn consumer_timeout_of(version: Version, hold_limit: Duration) -> String {
    if version.takes_consumer_timeout() {
        let timeout = consumer_timeout(hold_limit).as_secs();
        return format!("consumer timeout: {timeout} s, set by the worker (on quorum queues)");
    }
    let hold_limit = hold_limit.as_secs();
    format!(
        "consumer timeout: the broker's own (`consumer_timeout`, 1800 s where nobody changed it); \
         queue.hold_limit_seconds = {hold_limit} must stay well below"
    )
}

/// What becomes on a broker of this version of a request that is handed back again and again.
fn hand_backs_of(version: Version, hold_limit: Duration) -> String {
    if !version.counts_hand_backs() {
        return "hand-backs don't count as deliveries".to_owned();
    }
    let told =
        format!("hand-backs count as deliveries, of which a request has {DELIVERY_LIMIT} in all");
    // Hand-backs come after three quarters of the limit at the earliest.
    let longest = hold_limit.mul_f64(0.75).saturating_mul(DELIVERY_LIMIT);
    if longest >= LONGEST_HOLD {
        return told;
    }
    let (hours, week) = (longest.as_secs() / 3600, LONGEST_HOLD.as_secs() / 3600);
    let enough = (LONGEST_HOLD / DELIVERY_LIMIT).div_f64(0.75).as_secs() + 1;
    format!(
        "{told}: one that is held longer than {hours} h becomes a dead letter; \
         queue.hold_limit_seconds = {enough} would do for {week} h"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(version: &str, hold_limit_seconds: u64) -> String {
        let version = version.parse().expect("a version");
        let hold_limit = Duration::from_secs(hold_limit_seconds);
        consumer_timeout_of(version, hold_limit) + &hand_backs_of(version, hold_limit)
    }

    #[test]
    fn what_holds_is_told_by_version() {
        let old = told("3.10.8", 1200);
        assert!(old.contains("the broker's own"), "{old}");
        assert!(old.contains("hand-backs count as deliveries"), "{old}");
        assert!(!old.contains("dead letter"), "{old}");
        let new = told("4.3.6", 1200);
        assert!(new.contains("1800 s, set by the worker"), "{new}");
        assert!(new.contains("hand-backs don't count"), "{new}");
    }

    #[test]
    fn a_hold_limit_that_spends_all_deliveries_within_a_week_is_told_where_they_count() {
        let short = told("4.0.5", 60);
        assert!(short.contains("longer than 12 h becomes"), "{short}");
        assert!(short.contains("hold_limit_seconds = 807"), "{short}");
        assert!(!told("4.0.5", 807).contains("dead letter"));
        assert!(!told("4.3.6", 60).contains("dead letter"));
    }
}
