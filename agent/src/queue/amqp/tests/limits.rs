//! Stories of what a broker allows: how long a delivery may be held, how often a request is delivered.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicGetOptions, BasicQosOptions, BasicRejectOptions};
use lapin::types::{AMQPValue, FieldTable};
use sparkferry_ports::queue::{DeadLetter, Producer, Queue};
use tokio::task::spawn_blocking;

use super::faults::{BrokerNode, a_node};
use super::{Namespace, finish, next, short, soon, submit, url, well};
use crate::queue::amqp::AmqpProducer;
use crate::queue::amqp::connect::Broker;
use crate::queue::amqp::version::Version;

async fn version(namespace: &Namespace) -> Version {
    let broker = Broker::new(&namespace.url).expect("a URL");
    let connected = broker.connect("sparkferry test").await;
    drop(connected.expect("the broker is there"));
    let version = broker.version().expect("it tells its version");
    version.parse().expect("a version")
}

async fn end(node: BrokerNode) {
    spawn_blocking(|| drop(node)).await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_too_long_for_the_broker_it_comes_again() {
    let (node, mut namespace) = a_node("consumer_timeout = 2000").await;
    // Where the worker sets the timeout itself, it is longer than this by half.
    namespace.hold_limit = Duration::from_secs(1);
    let queue = namespace.open();
    let producer = namespace.connect().await;
    let mut deliveries = queue.consume("prod", 10).await;
    submit(&producer, "prod", "long").await;
    let first = next(&mut deliveries).await;
    soon("the lost token", first.lease.lost.cancelled()).await;
    assert!(finish(&queue, "prod", &first).await.is_err());
    let second = next(&mut deliveries).await;
    assert!(second.seen_before);
    finish(&queue, "prod", &second).await.expect("it is held");
    queue.close().await;
    drop(namespace);
    end(node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn since_4_3_a_short_timeout_of_the_broker_takes_nothing_from_a_worker() {
    let (node, namespace) = a_node("consumer_timeout = 2000").await;
    let version = version(&namespace).await;
    let queue = namespace.open();
    let producer = namespace.connect().await;
    let mut deliveries = queue.consume("prod", 10).await;
    submit(&producer, "prod", "ours").await;
    let ours = next(&mut deliveries).await;

    // Somebody who says nothing about it has the broker's.
    submit(&producer, "lake", "theirs").await;
    let channel = namespace.channel().await;
    let qos = channel.basic_qos(1, BasicQosOptions::default());
    qos.await.expect("a channel");
    let name = namespace.topology.requests_queue("lake");
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let consuming = channel.basic_consume(short(&name), short(""), options, arguments);
    let mut theirs = consuming.await.expect("the queue is there");
    let delivered = soon("their delivery", theirs.next()).await;
    delivered.expect("one").expect("a delivery");
    // An error, or the end: the channel was closed, or the subscription cancelled.
    let after = soon("the broker's timeout", theirs.next()).await;
    assert!(after.is_none_or(|delivered| delivered.is_err()));

    if version.takes_consumer_timeout() {
        assert!(!ours.lease.lost.is_cancelled());
        finish(&queue, "prod", &ours).await.expect("it is held");
    } else {
        soon("the lost token", ours.lease.lost.cancelled()).await;
    }
    queue.close().await;
    drop(namespace);
    end(node).await;
}

/// Up to 4.2 the hand-backs count, since 4.3 a death alone does: 1000 of the one or the other.
#[tokio::test]
async fn a_request_that_nobody_survives_becomes_a_dead_letter() {
    let namespace = Namespace::new(url());
    let producer = namespace.connect().await;
    submit(&producer, "prod", "poison").await;
    let channel = namespace.channel().await;
    let name = namespace.topology.requests_queue("prod");
    let mut deliveries = 0;
    let dying = async {
        loop {
            let got = channel.basic_get(short(&name), BasicGetOptions::default());
            if let Some(got) = got.await.expect("the queue is there") {
                deliveries += 1;
                let back = BasicRejectOptions { requeue: true };
                let rejected = channel.basic_reject(got.delivery_tag, back);
                rejected.await.expect("a channel");
            } else if let Some(letter) = letters(&producer).await.into_iter().next() {
                // (What was just rejected may not be back yet.)
                return letter;
            }
        }
    };
    let letter = soon("its end", dying).await;
    assert!((1000..=1001).contains(&deliveries), "{deliveries}");
    assert_eq!(letter.reason, "delivery_limit", "{letter:?}");
    assert_eq!(letter.connection.as_deref(), Some("prod"));
    producer.close().await;
}

async fn letters(producer: &AmqpProducer) -> Vec<DeadLetter> {
    let letters = producer.dead_letters(1).await;
    letters.expect("the queue is there")
}

/// Handing back as a worker does, more often than the limit of a queue.
#[tokio::test]
async fn since_4_3_hand_backs_cost_no_deliveries() {
    let namespace = Namespace::new(url());
    let channel = namespace.channel().await;
    let dead = namespace.topology.dead_exchange();
    let arguments = [
        ("x-queue-type", AMQPValue::LongString("quorum".into())),
        ("x-delivery-limit", AMQPValue::LongInt(3)),
        ("x-dead-letter-exchange", AMQPValue::LongString(dead.into())),
    ];
    namespace.make_requests(&channel, &arguments).await;
    let counts = version(&namespace).await.counts_hand_backs();
    let queue = namespace.open();
    well(&queue).await;
    let producer = namespace.connect().await;
    let mut deliveries = queue.consume("prod", 10).await;
    submit(&producer, "prod", "long").await;
    for _ in 0..4 {
        let delivery = next(&mut deliveries).await;
        queue.hand_back(&delivery.lease).await;
    }
    if counts {
        let dying = async {
            loop {
                if let Some(letter) = letters(&producer).await.into_iter().next() {
                    return letter;
                }
            }
        };
        let letter = soon("the dead letter", dying).await;
        assert_eq!(letter.reason, "delivery_limit", "{letter:?}");
    } else {
        let fifth = next(&mut deliveries).await;
        finish(&queue, "prod", &fifth).await.expect("it is held");
    }
    queue.close().await;
}
