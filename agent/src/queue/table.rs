//! The table of queues: which one serves which URL. A further queue is one folder, one feature and a
//! line in each of these.

use std::sync::Arc;

use sparkferry_ports::queue::{Producer, Queue, QueueError};
use tokio::task::spawn_blocking;

#[cfg(feature = "rabbitmq")]
use super::amqp;
use super::sqlite::{self, SqliteProducer, SqliteQueue};
use crate::config::{QueuePlace, Settings};

/// Opens the worker's side. Connections come and go: each sees to its own queue when it begins to take
/// from it. To be called within a tokio runtime.
///
/// # Errors
/// Where it can't be opened, and where this program has no such queue.
pub async fn open(settings: &Settings) -> Result<Arc<dyn Queue>, QueueError> {
    let (topology, worker) = (settings.topology.clone(), settings.worker.name.clone());
    match &settings.queue.place {
        #[cfg(feature = "rabbitmq")]
        QueuePlace::Amqp(url) => Ok(amqp::AmqpQueue::open(
            url,
            &settings.queue,
            &topology,
            &worker,
            &[],
        )?),
        #[cfg(not(feature = "rabbitmq"))]
        QueuePlace::Amqp(_) => Err(absent()),
        QueuePlace::Sqlite(path) => {
            let path = path.clone();
            let opened = patiently(move || SqliteQueue::open(&path, &topology, &worker)).await;
            Ok(opened?)
        }
    }
}

/// Opens the producer's side.
///
/// # Errors
/// As [`open`], and where a broker can't be reached now.
pub async fn producer(settings: &Settings) -> Result<Box<dyn Producer>, QueueError> {
    let topology = settings.topology.clone();
    match &settings.queue.place {
        #[cfg(feature = "rabbitmq")]
        QueuePlace::Amqp(url) => {
            let declare = settings.queue.declare;
            let producer = amqp::AmqpProducer::connect(url, &topology, declare).await?;
            Ok(Box::new(producer))
        }
        #[cfg(not(feature = "rabbitmq"))]
        QueuePlace::Amqp(_) => Err(absent()),
        QueuePlace::Sqlite(path) => {
            let path = path.clone();
            let opened = patiently(move || SqliteProducer::open(&path, &topology)).await;
            Ok(Box::new(opened?))
        }
    }
}

/// Reaches the queue as a worker with these connections would, and tells what was found.
///
/// # Errors
/// What is in the way, and what to do about it.
pub async fn check(settings: &Settings, connections: &[String]) -> Result<String, QueueError> {
    match &settings.queue.place {
        #[cfg(feature = "rabbitmq")]
        QueuePlace::Amqp(url) => {
            amqp::check(url, &settings.queue, &settings.topology, connections).await
        }
        #[cfg(not(feature = "rabbitmq"))]
        QueuePlace::Amqp(_) => {
            let _ = connections;
            Err(absent())
        }
        QueuePlace::Sqlite(path) => sqlite::check(path, &settings.topology).await,
    }
}

/// A database on a slow disk may take its time.
async fn patiently<T: Send + 'static>(
    open: impl FnOnce() -> Result<T, QueueError> + Send + 'static,
) -> Result<T, QueueError> {
    let opening = spawn_blocking(open).await;
    opening.unwrap_or_else(|panic| {
        Err(QueueError::Unreachable {
            place: "queue.url".to_owned(),
            why: panic.to_string(),
        })
    })
}

#[cfg(not(feature = "rabbitmq"))]
fn absent() -> QueueError {
    QueueError::Setting {
        setting: "queue.url".to_owned(),
        why:
            "this program was built without RabbitMQ; build it with `--features rabbitmq`, or take \
              one that has all"
                .to_owned(),
    }
}
