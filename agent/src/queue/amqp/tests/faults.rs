//! Stories of bad days: a node of our own is stopped, killed, frozen and starved.

use std::collections::HashSet;
use std::sync::Arc;

use sparkferry_ports::queue::{Listen, News, Producer, Queue};
use tokio::task::JoinSet;

use super::{Namespace, WORKER, finish, next, soon, submit, trouble, url, well};
use crate::queue::amqp::connect::Broker;
use crate::queue::amqp::declare::{Declarer, Role};
use crate::queue::amqp::{AmqpProducer, AmqpQueue, definitions};
pub(super) use sparkferry_testkit::story::broker::BrokerNode;

/// A node with a namespace on it. The node goes with everything on it.
fn node(settings: &str) -> (BrokerNode, Namespace) {
    let node = BrokerNode::start(settings);
    let namespace = Namespace::new(node.url().into());
    (node, namespace)
}

/// Calls that block, off the runtime.
async fn on<T: Send + 'static>(
    node: BrokerNode,
    act: impl FnOnce(&mut BrokerNode) -> T + Send + 'static,
) -> (BrokerNode, T) {
    let acting = tokio::task::spawn_blocking(move || {
        let mut node = node;
        let done = act(&mut node);
        (node, done)
    });
    acting.await.expect("the node does as it is told")
}

pub(super) async fn a_node(settings: &'static str) -> (BrokerNode, Namespace) {
    let starting = tokio::task::spawn_blocking(move || node(settings));
    starting.await.expect("a node starts")
}

/// A worker that finishes all it gets, with as many tasks as it has deliveries.
fn work(queue: &Arc<AmqpQueue>) -> tokio::task::JoinHandle<()> {
    let queue = Arc::clone(queue);
    tokio::spawn(async move {
        let mut deliveries = queue.consume("prod", 50).await;
        let mut runs = JoinSet::new();
        while let Some(delivery) = deliveries.recv().await {
            let queue = Arc::clone(&queue);
            // A lost lease is somebody else's, and comes again.
            runs.spawn(async move { finish(&queue, "prod", &delivery).await.ok() });
            while runs.try_join_next().is_some() {}
        }
    })
}

/// Results until all these ids have theirs.
async fn results(news: &mut tokio::sync::mpsc::Receiver<News>, mut wanted: HashSet<String>) {
    while !wanted.is_empty() {
        match soon("a result", news.recv()).await {
            Some(News::Result(result)) => drop(wanted.remove(result.id.as_str())),
            Some(News::Event(_)) => {}
            None => panic!("the listener ended"),
        }
    }
}

async fn submit_all(producer: &AmqpProducer, names: &[String]) {
    for name in names {
        submit(producer, "prod", name).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_broker_stops_dies_and_throws_everybody_out() {
    let (node, namespace) = a_node("").await;
    // Nobody is there at first.
    let (node, ()) = on(node, BrokerNode::stop).await;
    let queue = namespace.open();
    trouble(&queue, "is RabbitMQ running").await;
    let (mut node, ()) = on(node, BrokerNode::start_again).await;
    well(&queue).await;
    let producer = namespace.connect().await;
    let mut news = producer
        .listen(Listen::Mine(Vec::new()))
        .await
        .expect("ears");
    let worker = work(&queue);
    let (back, told) = on(node, |node| {
        node.ctl(&["list_connections", "client_properties"])
    })
    .await;
    node = back;
    for role in ["receiving", "publishing"] {
        let name = format!("sparkferry worker, {role}: {WORKER}");
        assert!(told.contains(&name), "{told}");
    }
    for round in ["stop", "kill", "close"] {
        let names: Vec<String> = (0..300).map(|n| format!("{round}-{n}")).collect();
        let fault = on(node, move |node| match round {
            "stop" => {
                node.stop();
                node.start_again();
            }
            "kill" => {
                node.kill();
                node.start_again();
            }
            _ => drop(node.ctl(&["close_all_connections", "a story"])),
        });
        let all = async {
            submit_all(&producer, &names).await;
            results(&mut news, names.iter().cloned().collect()).await;
        };
        let ((back, ()), ()) = tokio::join!(fault, all);
        node = back;
        well(&queue).await;
    }
    queue.close().await;
    worker.await.expect("the worker ends");
    producer.close().await;
    drop(namespace);
    drop(node);
}

/// RabbitMQ may keep the end of a quorum queue to itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_deleted_and_made_anew_at_once_is_consumed_again() {
    let namespace = Namespace::new(url());
    let queue = namespace.open();
    let producer = namespace.connect().await;
    let mut deliveries = queue.consume("prod", 10).await;
    submit(&producer, "prod", "before").await;
    let before = next(&mut deliveries).await;
    let broker = Broker::new(&namespace.url).expect("a URL");
    let connected = broker.connect("sparkferry test, by hand").await;
    let by_hand = connected.expect("the broker is there");
    let channel = by_hand.create_channel().await.expect("a channel");
    let declarer = Declarer::new(&namespace.topology, Role::Producer, true);

    finish(&queue, "prod", &before).await.expect("it is held");

    namespace.delete_requests(&channel).await;
    let made = declarer.ensure_requests(&broker, &by_hand, "prod").await;
    made.expect("nobody minds");
    submit(&producer, "prod", "after").await;
    let after = next(&mut deliveries).await;
    assert_eq!(after.message_id.as_deref(), Some("after"));
    finish(&queue, "prod", &after).await.expect("it is held");
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_broker_is_noticed_and_awaited() {
    let (node, namespace) = a_node("").await;
    let queue = namespace.open();
    let producer = namespace.connect().await;
    let mut deliveries = queue.consume("prod", 10).await;
    submit(&producer, "prod", "frozen").await;
    let held = next(&mut deliveries).await;
    node.freeze();
    trouble(&queue, "not reachable").await;
    soon("the lost token", held.lease.lost.cancelled()).await;
    node.thaw();
    let again = next(&mut deliveries).await;
    finish(&queue, "prod", &again).await.expect("it is held");
    well(&queue).await;
    queue.close().await;
    drop(namespace);
    drop(node);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_without_memory_blocks_and_goes_on() {
    let (node, namespace) = a_node("").await;
    let queue = namespace.open();
    let producer = namespace.connect().await;
    let mut deliveries = queue.consume("prod", 1).await;
    submit(&producer, "prod", "first").await;
    submit(&producer, "prod", "second").await;
    let first = next(&mut deliveries).await;
    let watermark = |mark: &'static str| {
        move |node: &mut BrokerNode| drop(node.ctl(&["set_vm_memory_high_watermark", mark]))
    };
    let (node, ()) = on(node, watermark("0.000001")).await;
    let relief = async {
        let told = trouble(&queue, "blocked").await;
        assert!(told.contains("memory"), "{told}");
        on(node, watermark("0.4")).await.0
    };
    let (finished, node) = tokio::join!(finish(&queue, "prod", &first), relief);
    finished.expect("the lease was held all the time");
    let second = next(&mut deliveries).await;
    assert_eq!(second.message_id.as_deref(), Some("second"));
    well(&queue).await;
    queue.close().await;
    drop(namespace);
    drop(node);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_definitions_and_a_user_without_rights_are_enough() {
    let (node, mut namespace) = a_node("").await;
    let ns = namespace.topology.namespace().to_owned();
    let made = definitions(&namespace.topology, &Namespace::connections(), "/").to_string();
    let (node, ()) = on(node, move |node| {
        let file = node.file("definitions.json", &made);
        node.ctl(&["import_definitions", &file.to_string_lossy()]);
        node.ctl(&["add_user", "ferry", "secret"]);
        let write = format!("^({ns}\\.(results|events|dead)|amq\\.default)$");
        let read = format!("^{ns}\\.(requests\\..*|control)$");
        node.ctl(&["set_permissions", "ferry", "^$", &write, &read]);
    })
    .await;
    let admin = namespace.connect().await;
    let ferry = node.url().replacen("guest:guest", "ferry:secret", 1);
    namespace.url = ferry.into();
    namespace.declare = false;
    let queue = namespace.open();
    well(&queue).await;
    let mut cancels = queue.cancels().await;
    let mut deliveries = queue.consume("prod", 10).await;
    submit(&admin, "prod", "plain").await;
    let delivery = next(&mut deliveries).await;
    finish(&queue, "prod", &delivery).await.expect("it is held");
    let cancel = sparkferry_shared::Cancel {
        cancel: super::id("plain"),
        connection: None,
        reason: None,
    };
    admin.cancel(&cancel).await.expect("the stream is bound");
    let heard = soon("the cancel", cancels.recv()).await;
    let heard = heard.expect("cancels go on");
    assert_eq!(heard.cancel, cancel);
    assert!(heard.sent_at.is_some(), "{heard:?}");
    queue.close().await;
    drop(namespace);
    drop(node);
}
