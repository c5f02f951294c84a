//! RabbitMQ stopped and started under load.

use sparkferry_testkit::story::broker::BrokerNode;
use tokio::task::spawn_blocking;

use super::harness::{Heard, Place, Story, Work};

const REQUESTS: usize = 100;
/// How many results are awaited before each stop.
const BETWEEN: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_stopped_and_started_under_load_loses_nothing_and_runs_nothing_twice() {
    let node = spawn_blocking(|| BrokerNode::start("")).await;
    let mut node = node.expect("it starts");
    let story = Story::new(Place::Amqp(node.url()), 600).await;
    let work: Vec<Work> = (0..REQUESTS)
        .map(|number| Work::new(number, 200 + 100 * number, "SUCCESS"))
        .collect();
    let _workers = [story.worker(), story.worker()];
    let (producer, mut news) = story.submit(&work).await;
    let mut heard = Heard::default();
    for stop in 1..=2 {
        heard.listen(&mut news, stop * BETWEEN).await;
        let again = spawn_blocking(move || {
            node.stop();
            node.start_again();
            node
        });
        node = again.await.expect("it starts again");
    }
    heard.listen(&mut news, REQUESTS).await;

    story.all_succeeded_once(&heard, REQUESTS).await;
    producer.close().await;
}
