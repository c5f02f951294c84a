//! Stories of what is too large: headers, results, events, dead letters, requests; and of addresses
//! for which the broker closes the connection.

use lapin::BasicProperties;
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use sparkferry_ports::queue::QueueError;
use sparkferry_shared::decode::Unreadable;
use sparkferry_shared::event::EventDetails;
use sparkferry_shared::topology::DEAD_ERROR_HEADER;
use sparkferry_shared::{Event, EventType};

use super::faults::a_node;
use super::*;
use crate::queue::amqp::message;

/// What the broker of these stories takes.
const MAX: usize = 65_536;
const SETTINGS: &str = "max_message_size = 65536";

async fn publish(
    channel: &Channel,
    namespace: &Namespace,
    properties: BasicProperties,
    body: &[u8],
) {
    let exchange = short(&namespace.topology.requests_exchange());
    let options = BasicPublishOptions::default();
    let sent = channel.basic_publish(exchange, short("prod"), options, body, properties);
    sent.await.expect("the broker takes it");
}

async fn get(channel: &Channel, queue: &str) -> lapin::message::BasicGetMessage {
    let got = channel.basic_get(short(queue), BasicGetOptions { no_ack: true });
    got.await.expect("a queue").expect("a message")
}

fn padded(connection: &str, delivery: &Delivery, size: usize) -> Outgoing {
    let mut result = success(connection, delivery);
    let mut body = result.body.to_vec();
    body.resize(size, b' ');
    result.body = body.into();
    result
}

/// Its trace headers would make the header of the result too large for a frame.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_parent_without_an_end_is_not_passed_on() {
    let namespace = Namespace::new(url());
    let queue = namespace.open();
    well(&queue).await;
    let channel = namespace.channel().await;
    let mut deliveries = queue.consume("prod", 10).await;
    let mut headers = FieldTable::default();
    for name in ["traceparent", "tracestate"] {
        // As much as still is delivered.
        let long = "0".repeat(15 << 10);
        headers.insert(short(name), AMQPValue::LongString(long.into()));
    }
    headers.insert(
        short("x"),
        AMQPValue::LongString("0".repeat(1 << 10).into()),
    );
    let properties = BasicProperties::default()
        .with_message_id(short("traced"))
        .with_headers(headers);
    publish(&channel, &namespace, properties, b"{}").await;
    let delivery = next(&mut deliveries).await;
    assert_eq!(delivery.trace, TraceContext::default());
    soon("the end", finish(&queue, "prod", &delivery))
        .await
        .expect("it is held");
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_the_broker_does_not_take_costs_itself_alone() {
    let (node, namespace) = a_node(SETTINGS).await;
    let queue = namespace.open();
    let producer = namespace.connect().await;
    let mut deliveries = queue.consume("prod", 50).await;
    for n in 0..40 {
        submit(&producer, "prod", &format!("result-{n}")).await;
    }
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(next(&mut deliveries).await);
    }
    // All at a time: some are larger than the broker takes.
    let size = |n: usize| {
        if n.is_multiple_of(4) {
            MAX + 1 + n
        } else {
            MAX - n
        }
    };
    let finishing = held.iter().enumerate().map(|(n, delivery)| {
        let result = padded("prod", delivery, size(n));
        let answers = [answer(delivery)];
        let queue = &queue;
        async move { queue.finish(&answers, &result).await }
    });
    let ended = soon("all ends", futures_util::future::join_all(finishing)).await;
    for (n, ended) in ended.into_iter().enumerate() {
        let expected = if size(n) > MAX {
            Err(NotPublished::TooLarge { max: MAX })
        } else {
            Ok(())
        };
        assert_eq!(ended, expected, "{n}");
    }
    // What is known is measured before it is sent, and the loan is still there.
    for delivery in held.iter().step_by(4) {
        let result = padded("prod", delivery, 1 << 20);
        let ended = queue.finish(&[answer(delivery)], &result).await;
        assert_eq!(ended, Err(NotPublished::TooLarge { max: MAX }));
        let result = padded("prod", delivery, MAX);
        let ended = soon("the end", queue.finish(&[answer(delivery)], &result)).await;
        ended.expect("it is held");
    }
    well(&queue).await;
    queue.close().await;
    drop(namespace);
    drop(node);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_that_the_broker_does_not_take_is_cut_and_says_so() {
    let (node, namespace) = a_node(SETTINGS).await;
    let queue = namespace.open();
    well(&queue).await;
    let channel = namespace.channel().await;
    let mut deliveries = queue.consume("prod", 10).await;
    let properties = BasicProperties::default().with_message_id(short("dead"));
    publish(&channel, &namespace, properties, b"no JSON").await;
    let mut delivery = next(&mut deliveries).await;
    // The broker took more when it took this.
    delivery.body = vec![b'x'; 200_000].into();
    let why = Unreadable::NotJson("x".repeat(50_000));
    soon("the burial", queue.bury(&delivery, &why))
        .await
        .expect("it is held");
    let letter = get(&channel, &namespace.topology.dead_queue()).await;
    assert_eq!(letter.data.len(), MAX);
    let error = message::header(&letter.properties, DEAD_ERROR_HEADER).expect("an error");
    assert!(
        error.contains("200000") && error.contains("first 65536"),
        "{error}"
    );
    assert!(error.len() < 2048);
    queue.close().await;
    drop(namespace);
    drop(node);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_the_broker_does_not_take_is_dropped_and_others_are_told() {
    let (node, namespace) = a_node(SETTINGS).await;
    let queue = namespace.open();
    well(&queue).await;
    let channel = namespace.channel().await;
    let options = QueueDeclareOptions::exclusive();
    let events = channel.queue_declare(short(""), options, FieldTable::default());
    let events = events.await.expect("a queue").name().clone();
    let bound = channel.queue_bind(
        events.clone(),
        short(&namespace.topology.events_exchange()),
        short("#"),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    bound.await.expect("it is bound");
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let heard = channel.basic_consume(events, short(""), options, FieldTable::default());
    let mut heard = heard.await.expect("a consumer");
    let tell = |state: String| {
        queue.tell(Event {
            event_type: EventType::StateChanged,
            id: id("event"),
            connection: "prod".to_owned(),
            at: Timestamp::now(),
            worker: WORKER.to_owned(),
            labels: BTreeMap::new(),
            attempt: None,
            details: EventDetails {
                state: Some(state),
                ..EventDetails::default()
            },
        });
    };
    tell("S".repeat(MAX));
    let mut looks = tokio::time::interval(Duration::from_millis(50));
    let told = async {
        loop {
            // Those that were on their way with it may be lost, too.
            looks.tick().await;
            tell("SMALL".to_owned());
            if let Ok(Some(event)) = timeout(
                Duration::from_millis(10),
                futures_util::StreamExt::next(&mut heard),
            )
            .await
            {
                return event.expect("it is delivered").data;
            }
        }
    };
    let event = soon("an event", told).await;
    assert!(String::from_utf8_lossy(&event).contains("SMALL"));
    // From now on it is known, and costs nothing.
    queue.events.flushed().await;
    for _ in 0..10 {
        tell("S".repeat(MAX));
        tell("NEXT".to_owned());
    }
    let mut next = 0;
    while next < 10 {
        let event = soon("an event", futures_util::StreamExt::next(&mut heard)).await;
        let event = event.expect("events go on").expect("it is delivered");
        next += usize::from(String::from_utf8_lossy(&event.data).contains("NEXT"));
    }
    well(&queue).await;
    queue.close().await;
    drop(namespace);
    drop(node);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_the_broker_does_not_take_is_refused_in_words() {
    let (node, namespace) = a_node(SETTINGS).await;
    let producer = namespace.connect().await;
    for _ in 0..2 {
        let body = Bytes::from(vec![b' '; 70_000]);
        let huge = id("huge");
        let refused = producer.submit("prod", &huge, body);
        let refused = soon("the refusal", refused).await.expect_err("too large");
        assert!(
            matches!(refused, QueueError::TooLarge { .. }),
            "{refused:?}"
        );
        let told = refused.to_string();
        for part in ["`huge`", "70000 bytes", "max_message_size 65536"] {
            assert!(told.contains(part), "{told}");
        }
    }
    submit(&producer, "prod", "small").await;
    producer.close().await;
    drop(namespace);
    drop(node);
}

/// What looks like an address of RabbitMQ's direct reply-to. 3.10 closes the connection for those of
/// two parts (by a dot) whose first is not in base64, or not of a process.
fn made_up_addresses() -> Vec<String> {
    // An external term of Erlang's, of no process.
    let terms = [
        "g1gCYQFhAg==",
        "g2dkAA1ub2RlQGxvY2FsaG9zdAAAAAEAAAAAAA==",
        "AAAA",
    ];
    let mut addresses: Vec<String> = ["", ".", ".garbage", ".%%%.%%%", ".AAAA", "..", ".é", "AAAA"]
        .map(|end| format!("amq.rabbitmq.reply-to{end}"))
        .to_vec();
    addresses.extend(terms.map(|term| format!("amq.rabbitmq.reply-to.{term}.key")));
    addresses.push(format!("amq.rabbitmq.reply-to.{}", "A".repeat(233)));
    addresses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_made_up_address_for_replies_costs_nobody_else_anything() {
    let namespace = Namespace::new(url());
    let queue = namespace.open();
    well(&queue).await;
    let channel = namespace.channel().await;
    let options = QueueDeclareOptions::exclusive();
    let replies = channel.queue_declare(short(""), options, FieldTable::default());
    let replies = replies
        .await
        .expect("a queue for replies")
        .name()
        .to_string();
    let mut deliveries = queue.consume("prod", 100).await;
    let publishing = queue.publishing.live().await;
    let (mut told, mut held) = (0, Vec::new());
    for (n, made_up) in made_up_addresses().iter().enumerate() {
        for reply_to in [made_up.as_str(), &replies] {
            let properties =
                BasicProperties::default().with_message_id(short(&format!("{n}-{told}")));
            publish(&channel, &namespace, properties, b"{}").await;
            told += 1;
            let mut delivery = next(&mut deliveries).await;
            // Some of these the broker would not take from a producer.
            delivery.reply_to = Some(reply_to.to_owned());
            held.push(delivery);
        }
    }
    let finishing = held.iter().map(|delivery| finish(&queue, "prod", delivery));
    let ended = soon("all ends", futures_util::future::join_all(finishing)).await;
    assert!(ended.iter().all(Result::is_ok), "{ended:?}");
    for _ in 0..told / 2 {
        get(&channel, &replies).await;
    }
    let mut results = std::collections::HashSet::new();
    for _ in 0..told {
        let result = get(&channel, &namespace.topology.results_queue()).await;
        assert!(
            results.insert(result.properties.message_id().clone()),
            "a result came twice"
        );
    }
    assert!(!publishing.is_over(), "the connection for results ended");
    well(&queue).await;
    queue.close().await;
}

/// RabbitMQ's direct reply-to, used as it is meant.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn direct_replies_arrive_after_a_made_up_address() {
    let namespace = Namespace::new(url());
    let queue = namespace.open();
    well(&queue).await;
    let channel = namespace.channel().await;
    let direct = "amq.rabbitmq.reply-to";
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let heard = channel.basic_consume(short(direct), short(""), options, FieldTable::default());
    let mut heard = heard.await.expect("a consumer");
    let mut deliveries = queue.consume("prod", 10).await;
    for (name, reply_to) in [("bad", "amq.rabbitmq.reply-to.AAAA.key"), ("good", direct)] {
        let properties = BasicProperties::default()
            .with_message_id(short(name))
            .with_reply_to(short(reply_to));
        publish(&channel, &namespace, properties, b"{}").await;
        let delivery = next(&mut deliveries).await;
        finish(&queue, "prod", &delivery).await.expect("it is held");
    }
    let reply = soon("the reply", futures_util::StreamExt::next(&mut heard)).await;
    let reply = reply.expect("it goes on").expect("a reply");
    let result: RunResult = serde_json::from_slice(&reply.data).expect("a result");
    assert_eq!(result.id.as_str(), "good");
    queue.close().await;
}
