//! Queues of an operator's, of the older kind.

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};

use super::books::channel;
use crate::stories::harness::{CONNECTION, Ground};

/// Queues of the older kind under our names, before any worker comes: they use them as they are.
pub(super) async fn declare(url: &str, ground: &Ground) {
    let (_connection, channel) = channel(url).await.expect("the broker is there");
    let topology = &ground.topology;
    let places = [
        (
            topology.requests_exchange(),
            ExchangeKind::Direct,
            topology.requests_queue(CONNECTION),
            CONNECTION,
        ),
        (
            topology.results_exchange(),
            ExchangeKind::Topic,
            topology.results_queue(),
            "#",
        ),
    ];
    for (exchange, kind, queue, key) in places {
        let options = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let exchange: ShortString = exchange.as_str().into();
        let declared =
            channel.exchange_declare(exchange.clone(), kind, options, FieldTable::default());
        declared.await.expect("a new name");
        let options = QueueDeclareOptions::durable();
        let declared = channel.queue_declare(queue.as_str().into(), options, FieldTable::default());
        declared.await.expect("a new name");
        let bound = channel.queue_bind(
            queue.as_str().into(),
            exchange,
            key.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        bound.await.expect("both are there");
    }
}
