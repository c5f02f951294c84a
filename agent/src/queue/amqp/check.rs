//! What `sparkferry check` asks of a broker.

use sparkferry_shared::Topology;

use super::connect::{Broker, short};
use super::declare::Declarer;
use super::link::{connection_name, this_process};
use crate::config::{BrokerUrl, QueueSettings};
use crate::queue::QueueError;

/// Reaches the broker, declares or checks the topology as a worker would, and tells in one line
/// what was found.
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
    let declarer = Declarer::new(topology, connections, settings.declare);
    declarer.ensure(&broker, &connection).await?;
    // All has been found out: how the connection ends is no matter.
    let _ = connection.close(200, short("checked")).await;
    let version = broker.version();
    Ok(format!(
        "{}: RabbitMQ {}, user {:?}, exchanges and queues {}",
        broker.place(),
        version.as_deref().unwrap_or("of an unknown version"),
        broker.user(),
        if settings.declare {
            "declared"
        } else {
            "are there"
        },
    ))
}
