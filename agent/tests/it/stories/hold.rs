//! A run that lasts longer than a delivery may be held.

use sparkferry_shared::{EventType, Outcome};

use super::harness::{Heard, Place, Story, Work, count, one_run_for_each_attempt};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_held_past_the_limit_goes_back_and_the_run_goes_on() {
    let story = Story::new(Place::shared_broker(), 2).await;
    let work = [Work::new(1, 7_000, "SUCCESS")];
    let _worker = story.worker();
    let (producer, mut news) = story.submit(&work).await;
    let mut heard = Heard::default();
    heard.listen(&mut news, 1).await;

    let result = &heard.results[&work[0].id];
    assert_eq!(result.outcome, Outcome::Success, "{result:?}");
    let handed_back = (work[0].id.clone(), EventType::HandedBack);
    assert!(heard.events.contains(&handed_back), "{:?}", heard.events);
    let stats = story.workspace.stats().await;
    one_run_for_each_attempt(&heard, &stats);
    assert_eq!(count(&stats, "/runs_started"), 1);
    producer.close().await;
}
