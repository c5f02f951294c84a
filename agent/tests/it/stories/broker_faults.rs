//! What an operator and a broker in need do to workers that are at work.

use lapin::options::QueueDeleteOptions;
use lapin::{Connection, ConnectionProperties};
use sparkferry_testkit::story::broker::BrokerNode;
use tokio::task::spawn_blocking;

use super::harness::{CONNECTION, Heard, Place, Story, Work, count};

const REQUESTS: usize = 40;

/// `rabbitmqctl`, off the runtime.
async fn ctl(node: BrokerNode, arguments: &'static [&'static str]) -> BrokerNode {
    let told = spawn_blocking(move || {
        node.ctl(arguments);
        node
    });
    told.await.expect("it does as it is told")
}

/// The hold limit stands above the broker's timeout, as a setting that was never thought of would.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timeouts_closed_connections_and_a_memory_alarm_lose_nothing() {
    let node = spawn_blocking(|| BrokerNode::start("consumer_timeout = 3000")).await;
    let mut node = node.expect("it starts");
    let story = Story::new(Place::Amqp(node.url()), 600).await;
    let work: Vec<Work> = (0..REQUESTS)
        .map(|number| Work::new(number, 12_000 + 50 * number, "SUCCESS"))
        .collect();
    let _workers = [story.worker(), story.worker()];
    let (producer, mut news) = story.submit(&work).await;
    let active = |wanted: u64| move |stats: &_| count(stats, "/runs_active") == wanted;
    let all = REQUESTS as u64;
    story.workspace.until("all runs", active(all)).await;

    node = ctl(node, &["close_all_connections", "the operator wants it so"]).await;
    node = ctl(node, &["set_vm_memory_high_watermark", "0.000001"]).await;
    // No result can be published now.
    story.workspace.until("all endings", active(0)).await;
    node = ctl(node, &["set_vm_memory_high_watermark", "0.4"]).await;
    let mut heard = Heard::default();
    heard.listen(&mut news, REQUESTS).await;
    story.all_succeeded_once(&heard, REQUESTS).await;
    producer.close().await;
    drop(node);
}

/// The messages are gone with the queue; their ids name the same runs all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_deleted_under_a_worker_is_there_again_and_requests_sent_again_are_the_same_runs() {
    let place = Place::shared_broker();
    let Place::Amqp(url) = &place else {
        unreachable!("it is a broker");
    };
    let connection = Connection::connect(url, ConnectionProperties::default()).await;
    let connection = connection.expect("the broker is there");
    let channel = connection.create_channel().await.expect("a channel");
    let story = Story::new(place, 600).await;
    let work: Vec<Work> = (0..5)
        .map(|number| Work::new(number, 8_000, "SUCCESS"))
        .collect();
    let _worker = story.worker();
    let (producer, _news) = story.submit(&work).await;
    story
        .workspace
        .until("all runs", |stats| count(stats, "/runs_active") == 5)
        .await;

    let queue = story.topology.requests_queue(CONNECTION);
    let deleted = channel.queue_delete(queue.into(), QueueDeleteOptions::default());
    deleted.await.expect("it was there");
    producer.close().await;
    let (producer, mut news) = story.submit(&work).await;
    let mut heard = Heard::default();
    heard.listen(&mut news, 5).await;
    story.all_succeeded_once(&heard, 5).await;
    producer.close().await;
}
