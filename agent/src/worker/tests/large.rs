//! Results that are larger than their queue takes.

use super::*;

/// What its queue takes of a result.
const LARGEST: usize = 8 * 1024;

/// A request whose run brings an output.
fn large(id: &str, plan: &Value, wait: bool) -> Message {
    let message = Message::run_now(CONNECTION, id, plan);
    let mut body: Value = serde_json::from_slice(&message.body).expect("JSON");
    body["wait"] = wait.into();
    // More than there is room for beside the output.
    body["labels"] = json!({ "why": "x".repeat(10 * 1024) });
    Message {
        body: body.to_string().into(),
        ..message
    }
}

#[tokio::test(start_paused = true)]
async fn a_result_that_its_queue_does_not_take_is_published_as_a_smaller_one() {
    let mut story = Story::begin();
    story.queue.largest.store(LARGEST, Ordering::Relaxed);
    story.world.wants_attendance();
    for (id, outcome, wait) in [
        ("waits", Outcome::Success, true),
        ("goes", Outcome::Submitted, false),
    ] {
        let plan = json!({ "duration_ms": 60_000, "output": "o".repeat(900) });
        story.queue.put(large(id, &plan, wait));
        let result = story.result().await;
        assert!(result.body.len() <= LARGEST);
        let result: RunResult = serde_json::from_slice(&result.body).expect("a result");
        assert_eq!((result.id.as_str(), result.outcome), (id, outcome));
        assert!(result.truncated && result.labels.is_empty());
        story.queue.until_all_settled().await;
    }
    assert_eq!(story.world.runs_started(), 2);
    assert!(story.results.try_recv().is_err(), "a third result");
    story.end().await;
}
