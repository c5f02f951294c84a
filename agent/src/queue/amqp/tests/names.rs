//! Stories of names: what is declared, checked, missing, or the operator's own.

use lapin::options::QueueBindOptions;
use lapin::types::{AMQPValue, FieldTable};
use sparkferry_ports::queue::{Producer, Queue, QueueError};
use sparkferry_shared::{Cancel, Topology};

use super::{CONNECTIONS, Namespace, finish, id, next, short, soon, submit, trouble, url, well};
use crate::config::BrokerUrl;
use crate::queue::amqp::{AmqpProducer, check, definitions};

#[tokio::test]
async fn what_the_operator_forgot_is_named() {
    let mut namespace = Namespace::new(url());
    namespace.declare = false;
    let queue = namespace.open();
    // What a worker uses; it publishes no requests.
    let missing = namespace.topology.results_exchange();
    let told = trouble(&queue, &missing).await;
    assert!(told.contains("sparkferry topology"), "{told}");

    let (settings, connections) = (namespace.settings(), Namespace::connections());
    let checked = check(&namespace.url, &settings, &namespace.topology, &connections);
    let error = checked.await.expect_err("nothing is there");
    assert!(matches!(&error, QueueError::Refused { .. }), "{error}");
    assert!(error.to_string().contains(&missing), "{error}");
    queue.close().await;
}

#[tokio::test]
async fn a_check_tells_the_version_and_the_user() {
    let namespace = Namespace::new(url());
    let (settings, connections) = (namespace.settings(), Namespace::connections());
    let checked = check(&namespace.url, &settings, &namespace.topology, &connections);
    let line = checked.await.expect("all is well");
    assert!(
        line.contains("RabbitMQ 3.") || line.contains("RabbitMQ 4."),
        "{line}"
    );
    assert!(line.contains("user \"guest\""), "{line}");
    assert!(!line.contains("guest:guest"), "{line}");
    assert!(line.contains("consumer timeout: "), "{line}");
}

#[tokio::test]
async fn who_is_not_let_in_is_told_so() {
    let wrong = url()
        .first()
        .expose()
        .replacen("guest:guest", "guest:wrong", 1);
    let wrong: BrokerUrl = wrong.into();
    let refused = AmqpProducer::connect(&wrong, &Topology::new("x"), true).await;
    let error = refused.err().expect("the password is wrong");
    assert!(matches!(&error, QueueError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("password"), "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");

    let nowhere: BrokerUrl = "amqp://127.0.0.1:1/".to_owned().into();
    let refused = AmqpProducer::connect(&nowhere, &Topology::new("x"), true).await;
    let error = refused.err().expect("nobody listens there");
    assert!(matches!(&error, QueueError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("is RabbitMQ running"), "{error}");
}

/// Classic queues refuse what we would say of a quorum queue, its consumer timeout among it; the limit is
/// that of earlier versions of ours.
#[tokio::test]
async fn an_operators_queue_is_used_as_it_is() {
    let quorum = AMQPValue::LongString("quorum".into());
    let limit = AMQPValue::LongLongInt(1_000_000);
    let limited = [("x-queue-type", quorum), ("x-delivery-limit", limit)];
    for arguments in [&[], &limited[..]] {
        let namespace = Namespace::new(url());
        let channel = namespace.channel().await;
        namespace.make_requests(&channel, arguments).await;
        let queue = namespace.open();
        well(&queue).await;
        let producer = namespace.connect().await;
        let mut deliveries = queue.consume("prod", 10).await;
        submit(&producer, "prod", "as-it-is").await;
        let delivery = next(&mut deliveries).await;
        finish(&queue, "prod", &delivery).await.expect("it is held");
        queue.close().await;
    }
}

#[tokio::test]
async fn a_deleted_queue_is_declared_again() {
    let namespace = Namespace::new(url());
    let queue = namespace.open();
    let producer = namespace.connect().await;
    let mut deliveries = queue.consume("prod", 10).await;
    submit(&producer, "prod", "before").await;
    let before = next(&mut deliveries).await;

    let channel = namespace.channel().await;
    namespace.delete_requests(&channel).await;
    soon("the lost token", before.lease.lost.cancelled()).await;

    // The producer has declared the queue once and doesn't know that it is gone.
    submit(&producer, "prod", "after").await;
    let again = next(&mut deliveries).await;
    assert_eq!(again.message_id.as_deref(), Some("after"));
    finish(&queue, "prod", &again).await.expect("it is held");
    queue.close().await;
}

#[tokio::test]
async fn a_connection_without_a_queue_is_named() {
    let mut namespace = Namespace::new(url());
    namespace.open().close().await;
    let worker = namespace.open();
    well(&worker).await;
    namespace.declare = false;
    let producer = namespace.connect().await;
    let refused = producer.submit("nobody", &id("x"), "{}".into()).await;
    let error = refused.expect_err("there is no such queue").to_string();
    assert!(
        error.contains("no queue for connection `nobody`"),
        "{error}"
    );
    worker.close().await;
}

#[tokio::test]
async fn a_producer_without_a_topology_is_told_what_is_missing() {
    let mut namespace = Namespace::new(url());
    namespace.declare = false;
    let producer = namespace.connect().await;
    let request = id("x");
    let submitting = producer.submit("prod", &request, "{}".into());
    let error = soon("the submission", submitting).await;
    let error = error.expect_err("there is no exchange").to_string();
    assert!(
        error.contains(&namespace.topology.requests_exchange()) && error.contains("is not there"),
        "{error}"
    );
    let cancel = Cancel {
        cancel: request.clone(),
        connection: None,
        reason: None,
    };
    let error = soon("the cancel", producer.cancel(&cancel)).await;
    let error = error.expect_err("there is no exchange").to_string();
    assert!(
        error.contains(&namespace.topology.control_exchange()) && error.contains("is not there"),
        "{error}"
    );
    producer.close().await;
}

#[tokio::test]
async fn results_that_route_nowhere_wait_for_a_queue() {
    let namespace = Namespace::new(url());
    let queue = namespace.open();
    let producer = namespace.connect().await;
    let mut deliveries = queue.consume("prod", 10).await;
    submit(&producer, "prod", "unroutable").await;
    let delivery = next(&mut deliveries).await;

    let channel = namespace.channel().await;
    let results = namespace.topology.results_queue();
    let exchange = namespace.topology.results_exchange();
    let (all, none) = (short("#"), FieldTable::default());
    let unbound = channel.queue_unbind(short(&results), short(&exchange), all.clone(), none);
    unbound.await.expect("it was bound");
    let rebind = async {
        let told = trouble(&queue, "route nowhere").await;
        assert!(told.contains("prod.SUCCESS"), "{told}");
        let options = QueueBindOptions::default();
        let none = FieldTable::default();
        let bound = channel.queue_bind(short(&results), short(&exchange), all, options, none);
        bound.await.expect("it is bound again");
    };
    let (finished, ()) = tokio::join!(finish(&queue, "prod", &delivery), rebind);
    finished.expect("the lease was held all the time");
    well(&queue).await;
    queue.close().await;
}

#[test]
fn definitions_name_everything() {
    let topology = Topology::new("ns");
    let definitions = definitions(&topology, &CONNECTIONS.map(str::to_owned), "/");
    let names = |of: &str, field: &str| -> Vec<String> {
        let all = definitions[of].as_array().expect("a list");
        all.iter()
            .map(|one| one[field].as_str().expect("a name").to_owned())
            .collect()
    };
    assert_eq!(
        names("queues", "name"),
        [
            "ns.results",
            "ns.dead",
            "ns.control",
            "ns.requests.prod",
            "ns.requests.lake"
        ]
    );
    assert_eq!(
        names("bindings", "routing_key"),
        ["#", "", "", "prod", "lake"]
    );
    assert_eq!(
        names("exchanges", "type"),
        ["direct", "topic", "topic", "fanout", "fanout"]
    );
}
