//! Results that are larger than the broker takes.

use serde_json::json;
use sparkferry_shared::Outcome;
use sparkferry_testkit::story::broker::BrokerNode;

use super::harness::{Heard, Place, Story, Work, one_run_for_each_attempt};

/// What the broker takes; an output of the sandbox is larger.
const MAX: usize = 65_536;
const OUTPUT: usize = 200_000;
const REQUESTS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_the_broker_does_not_take_arrives_smaller_and_is_still_a_success() {
    let starting = || BrokerNode::start("max_message_size = 65536");
    let node = tokio::task::spawn_blocking(starting).await;
    let node = node.expect("a node starts");
    let story = Story::new(Place::Amqp(node.url()), 600).await;
    let printed = json!([{ "output": "o".repeat(OUTPUT) }]);
    story.workspace.rules(printed).await;
    let mut worker = story.worker();
    let work: Vec<Work> = (0..REQUESTS)
        .map(|number| Work::new(number, 200, "SUCCESS"))
        .collect();
    // By `reply_to`, as every producer of ours asks for it.
    let (producer, mut news) = story.submit(&work).await;
    let mut heard = Heard::default();
    heard.listen(&mut news, REQUESTS).await;
    one_run_for_each_attempt(&heard, &story.workspace.stats().await);
    let results = story.take_results(REQUESTS).await;
    for result in heard.results.values().chain(&results) {
        assert_eq!(result.outcome, Outcome::Success, "{:?}", result.error);
        assert!(result.truncated, "{result:?}");
        let size = serde_json::to_vec(result).expect("JSON").len();
        assert!((MAX / 4..=MAX).contains(&size), "{size}");
        let output = result.output.as_ref().expect("an output");
        let task = &output["tasks"][0];
        assert_eq!(
            (&task["result_state"], &task["truncated"]),
            (&json!("SUCCESS"), &json!(true))
        );
    }
    assert_eq!(story.results_waiting().await, 0, "a result came twice");
    assert_eq!(worker.try_wait().expect("our own child"), None);
    producer.close().await;
    drop(story);
    drop(node);
}
