//! Stories of producers that may publish for one connection alone, and would like more.

use lapin::BasicProperties;
use lapin::options::{BasicGetOptions, BasicPublishOptions, BasicRejectOptions};
use lapin::types::{AMQPValue, FieldArray, FieldTable};
use sparkferry_ports::queue::{Producer, Queue, SettleDead};
use sparkferry_shared::decode::Unreadable;
use sparkferry_shared::topology::{DEAD_CONNECTION_HEADER, DEAD_ERROR_HEADER, DEAD_REASON_HEADER};

use super::{Namespace, next, short, soon, submit, url, well};

/// A producer of one connection must not have its request run on another.
#[tokio::test]
async fn of_what_the_broker_makes_a_dead_letter_its_own_word_counts() {
    let namespace = Namespace::new(url());
    let producer = namespace.connect().await;
    // Declares the queue.
    submit(&producer, "prod", "first").await;
    let channel = namespace.channel().await;
    let topology = &namespace.topology;
    let mut headers = FieldTable::default();
    for (name, value) in [
        (DEAD_CONNECTION_HEADER, "lake"),
        (DEAD_REASON_HEADER, "made up"),
        (DEAD_ERROR_HEADER, "made up"),
    ] {
        headers.insert(short(name), AMQPValue::LongString(value.into()));
    }
    let properties = BasicProperties::default()
        .with_message_id(short("forged"))
        .with_headers(headers);
    let (exchange, options) = (
        short(&topology.requests_exchange()),
        BasicPublishOptions::default(),
    );
    let sent = channel.basic_publish(exchange, short("prod"), options, b"{}", properties);
    sent.await.expect("it is sent");
    let name = topology.requests_queue("prod");
    let mut seen = 0;
    let dying = async {
        while seen < 2 {
            let got = channel.basic_get(short(&name), BasicGetOptions::default());
            if let Some(got) = got.await.expect("the queue is there") {
                seen += 1;
                let forget = BasicRejectOptions { requeue: false };
                let rejected = channel.basic_reject(got.delivery_tag, forget);
                rejected.await.expect("a channel");
            }
        }
        loop {
            let letters = producer.dead_letters(10).await.expect("the queue is there");
            if letters.len() == 2 {
                return letters;
            }
        }
    };
    let letters = soon("both letters", dying).await;
    for letter in letters {
        assert_eq!(letter.connection.as_deref(), Some("prod"), "{letter:?}");
        assert_eq!(letter.reason, "rejected", "{letter:?}");
    }
    producer.close().await;
}

/// RabbitMQ judges the routing key alone, and routes by these headers, too.
#[tokio::test]
async fn what_was_copied_from_another_connection_is_buried_and_stays_there() {
    let namespace = Namespace::new(url());
    let queue = namespace.open();
    well(&queue).await;
    let mut deliveries = queue.consume("lake", 10).await;
    let producer = namespace.connect().await;
    submit(&producer, "lake", "ours").await;
    assert_eq!(next(&mut deliveries).await.unreadable, None);
    let channel = namespace.channel().await;
    let exchange = short(&namespace.topology.requests_exchange());
    for header in ["CC", "BCC"] {
        let keys = FieldArray::from(vec![AMQPValue::LongString("lake".into())]);
        let mut headers = FieldTable::default();
        headers.insert(short(header), AMQPValue::FieldArray(keys));
        let properties = BasicProperties::default()
            .with_message_id(short("copied"))
            .with_headers(headers);
        let (key, options) = (short("prod"), BasicPublishOptions::default());
        let sent = channel.basic_publish(exchange.clone(), key, options, b"{}", properties);
        sent.await.expect("it is sent");
        let copy = next(&mut deliveries).await;
        let why = copy
            .unreadable
            .clone()
            .expect("it is not for this connection");
        assert_eq!(why, Unreadable::Misrouted("prod".to_owned()));
        soon("burying", queue.bury(&copy, &why))
            .await
            .expect("it is held");
    }
    let letters = producer.dead_letters(10).await.expect("the queue is there");
    let told = |letter: &sparkferry_ports::queue::DeadLetter| {
        (letter.reason.clone(), letter.connection.clone())
    };
    let told: Vec<_> = letters.iter().map(told).collect();
    assert_eq!(told, vec![("misrouted".to_owned(), None); 2]);
    let requeued = producer.settle_dead(SettleDead::Requeue, 10).await;
    assert_eq!(requeued.expect("the queue is there"), 0);
    producer.close().await;
    queue.close().await;
}

/// `user_id` must be who publishes, and after `expiration` it would be dead again.
#[tokio::test]
async fn a_dead_letter_of_somebody_elses_goes_back_all_the_same() {
    let namespace = Namespace::new(url());
    let queue = namespace.open();
    well(&queue).await;
    let producer = namespace.connect().await;
    submit(&producer, "prod", "first").await;
    let channel = namespace.channel().await;
    let mut headers = FieldTable::default();
    let connection = AMQPValue::LongString("prod".into());
    headers.insert(short(DEAD_CONNECTION_HEADER), connection);
    let keys = FieldArray::from(vec![AMQPValue::LongString("lake".into())]);
    headers.insert(short("CC"), AMQPValue::FieldArray(keys));
    let properties = BasicProperties::default()
        .with_message_id(short("again"))
        .with_correlation_id(short("order"))
        .with_expiration(short("86400000"))
        .with_user_id(short("guest"))
        .with_headers(headers);
    let dead = short(&namespace.topology.dead_exchange());
    let options = BasicPublishOptions::default();
    let sent = channel.basic_publish(dead, short(""), options, b"{}", properties);
    sent.await.expect("it is sent");
    let requeuing = async {
        // (It may not be there at once.)
        while producer
            .settle_dead(SettleDead::Requeue, 10)
            .await
            .expect("it goes back")
            == 0
        {}
    };
    soon("the letter", requeuing).await;
    let name = namespace.topology.requests_queue("prod");
    let mut found = None;
    while let Some(got) = {
        let got = channel.basic_get(short(&name), BasicGetOptions::default());
        got.await.expect("the queue is there")
    } {
        found = Some(got.delivery.properties);
    }
    let found = found.expect("it is there");
    let text = |text: &Option<lapin::types::ShortString>| text.as_ref().map(ToString::to_string);
    assert_eq!(text(found.message_id()).as_deref(), Some("again"));
    assert_eq!(text(found.correlation_id()).as_deref(), Some("order"));
    assert_eq!((found.user_id(), found.expiration()), (&None, &None));
    let headers = found.headers().as_ref().expect("some");
    assert!(!headers.inner().contains_key("CC"));
    producer.close().await;
    queue.close().await;
}
