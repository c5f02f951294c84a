//! Stories of settling: many at a time, out of order, and what a result looks like on the wire.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use lapin::BasicProperties;
use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use sparkferry_ports::queue::Queue;

use super::{Namespace, finish, next, short, soon, submit, url, well};
use crate::queue::amqp::confirm::Published;
use crate::queue::amqp::message;
use crate::queue::amqp::publish::Message;

#[tokio::test]
async fn a_result_looks_as_the_contract_says() {
    let namespace = Namespace::new(url());
    let queue = namespace.open();
    well(&queue).await;
    let mut deliveries = queue.consume("prod", 10).await;
    let channel = namespace.channel().await;
    let replies = channel
        .queue_declare(
            short(""),
            QueueDeclareOptions::exclusive(),
            FieldTable::default(),
        )
        .await
        .expect("a queue for replies");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for (id, reply_to) in [("wire", replies.name().as_str()), ("gone", "no.such.queue")] {
        let mut headers = FieldTable::default();
        headers.insert(short("traceparent"), AMQPValue::LongString(trace.into()));
        let properties = BasicProperties::default()
            .with_message_id(short(id))
            .with_correlation_id(short("my order"))
            .with_reply_to(short(reply_to))
            .with_headers(headers);
        let exchange = namespace.topology.requests_exchange();
        let options = BasicPublishOptions::default();
        let sent =
            channel.basic_publish(short(&exchange), short("prod"), options, b"{}", properties);
        sent.await.expect("it is sent");
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.trace.parent.as_deref(), Some(trace));
        let finished = soon("finishing", finish(&queue, "prod", &delivery)).await;
        finished.expect("an unroutable reply holds nothing up");
    }
    let mut seen = Vec::new();
    for from in [&namespace.topology.results_queue(), replies.name().as_str()] {
        let got = channel.basic_get(short(from), BasicGetOptions { no_ack: true });
        let got = got.await.expect("a queue").expect("a result");
        let properties = &got.properties;
        assert_eq!(
            message::header(properties, "traceparent").as_deref(),
            Some(trace)
        );
        assert_eq!(
            message::text(properties.correlation_id().as_ref()).as_deref(),
            Some("my order")
        );
        assert_eq!(
            message::text(properties.kind().as_ref()).as_deref(),
            Some("sparkferry.result")
        );
        assert_eq!(
            message::text(properties.content_type().as_ref()).as_deref(),
            Some("application/json")
        );
        assert_eq!(properties.delivery_mode(), &Some(2));
        assert!(properties.timestamp().is_some());
        seen.push((properties.message_id().clone(), got.data.clone()));
    }
    assert_eq!(seen[0], seen[1]);
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_are_settled_in_any_order() {
    const MANY: usize = 4000;
    let namespace = Namespace::new(url());
    let queue = namespace.open();
    let producer = namespace.connect().await;
    // Over two channels.
    let mut deliveries = queue.consume("prod", 3000).await;
    let mut held = Vec::new();
    let names: Vec<String> = (0..MANY).map(|n| format!("many-{n}")).collect();
    join_all(names.iter().map(|name| submit(&producer, "prod", name))).await;
    while held.len() < 3000 {
        held.push(next(&mut deliveries).await);
    }
    fastrand::shuffle(&mut held);
    let mut answered = HashSet::new();
    while answered.len() < MANY {
        let finished = join_all(held.iter().map(|delivery| finish(&queue, "prod", delivery))).await;
        assert!(finished.iter().all(Result::is_ok));
        answered.extend(held.drain(..).filter_map(|delivery| delivery.message_id));
        while answered.len() + held.len() < MANY && held.len() < 100 {
            held.push(next(&mut deliveries).await);
        }
    }
    queue.close().await;
    let channel = namespace.channel().await;
    let passive = QueueDeclareOptions::durable().passive();
    let left = channel
        .queue_declare(
            short(&namespace.topology.requests_queue("prod")),
            passive,
            FieldTable::default(),
        )
        .await
        .expect("the queue is there");
    assert_eq!(left.message_count(), 0);
    let mut results = HashSet::new();
    let from = namespace.topology.results_queue();
    while let Some(got) = channel
        .basic_get(short(&from), BasicGetOptions::default())
        .await
        .expect("the queue is there")
    {
        let options = BasicAckOptions::default();
        channel
            .basic_ack(got.delivery_tag, options)
            .await
            .expect("an acknowledgement");
        assert!(
            results.insert(got.properties.message_id().clone()),
            "a result came twice"
        );
    }
    assert_eq!(results.len(), MANY);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_are_handed_back_in_no_time() {
    const MANY: u32 = 10_000;
    let namespace = Namespace::new(url());
    let queue = namespace.open();
    let producer = namespace.connect().await;
    let mut deliveries = queue.consume("prod", MANY).await;
    let names: Vec<String> = (0..MANY).map(|n| format!("held-{n}")).collect();
    join_all(names.iter().map(|name| submit(&producer, "prod", name))).await;
    let mut held = Vec::new();
    for _ in 0..MANY {
        held.push(next(&mut deliveries).await);
    }
    let began = Instant::now();
    queue.close().await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(3), "it took {took:?}");

    let heir = namespace.open();
    let mut inherited = heir.consume("prod", MANY).await;
    let mut names = HashSet::new();
    for _ in 0..MANY {
        let delivery = next(&mut inherited).await;
        assert!(delivery.seen_before);
        assert!(names.insert(delivery.message_id));
    }
    heir.close().await;
}

/// Messages that are routed and messages that are not, side by side on one channel.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_back_is_told_from_what_arrived() {
    let namespace = Namespace::new(url());
    let queue = namespace.open();
    well(&queue).await;
    let channel = namespace.channel().await;
    let (results, exchange) = (
        short(&namespace.topology.results_queue()),
        short(&namespace.topology.results_exchange()),
    );
    let none = FieldTable::default();
    let unbound = channel.queue_unbind(results.clone(), exchange.clone(), short("#"), none);
    unbound.await.expect("it was bound");
    let options = QueueBindOptions::default();
    let none = FieldTable::default();
    let bound = channel.queue_bind(results, exchange.clone(), short("prod.#"), options, none);
    bound.await.expect("it is bound");

    let publishing = (0..3000).map(|n| {
        let (queue, exchange) = (&queue, exchange.clone());
        async move {
            let (key, expected) = match n % 3 {
                0 => ("lake.SUCCESS", Published::Returned),
                _ => ("prod.SUCCESS", Published::Confirmed),
            };
            let properties = BasicProperties::default()
                .with_delivery_mode(2)
                .with_message_id(short(&format!("message-{n}")));
            let message = Message {
                exchange,
                routing_key: short(key),
                properties,
                body: Bytes::from_static(b"{}"),
            };
            assert_eq!(queue.results.publish(message).await, expected, "{n}");
        }
    });
    soon("all confirms", join_all(publishing)).await;
    queue.close().await;
}

#[tokio::test]
async fn who_sent_garbage_is_told() {
    let namespace = Namespace::new(url());
    let queue = namespace.open();
    let channel = namespace.channel().await;
    let options = QueueDeclareOptions::exclusive();
    let replies = channel.queue_declare(short(""), options, FieldTable::default());
    let replies = replies.await.expect("a queue for replies");
    let name = replies.name().as_str();
    let reply = queue.reply(name, Some("my order"), Bytes::from_static(b"no"));
    soon("the reply", reply).await;
    let nobody = queue.reply("no.such.queue", None, Bytes::from_static(b"no"));
    soon("the reply that nobody gets", nobody).await;
    let got = channel.basic_get(short(name), BasicGetOptions { no_ack: true });
    let got = got.await.expect("a queue").expect("a reply");
    assert_eq!(got.data, b"no");
    let correlation = message::text(got.properties.correlation_id().as_ref());
    assert_eq!(correlation.as_deref(), Some("my order"));
    queue.close().await;
}
