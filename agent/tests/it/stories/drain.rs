//! SIGTERM while many runs are under way.

use sparkferry_shared::Outcome;

use super::harness::{Heard, Place, Story, Work, count, one_run_for_each_attempt, stop};

const RUNS: usize = 1000;
/// Long enough that all have begun before the first one ends.
const DURATION_MS: usize = 25_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_with_a_thousand_runs_hands_all_back_and_the_next_worker_finishes_them() {
    let story = Story::new(Place::shared_broker(), 600).await;
    let work: Vec<Work> = (0..RUNS)
        .map(|number| Work::new(number, DURATION_MS, "SUCCESS"))
        .collect();
    let mut first = story.worker();
    let (producer, mut news) = story.submit(&work).await;
    let all = RUNS as u64;
    story
        .workspace
        .until("all runs", |stats| count(stats, "/runs_active") == all)
        .await;

    stop(&mut first).await;
    let stats = story.workspace.stats().await;
    assert_eq!(count(&stats, "/runs_active"), all, "{stats}");

    let _second = story.worker();
    let mut heard = Heard::default();
    heard.listen(&mut news, RUNS).await;
    let outcomes = heard.results.values().map(|result| result.outcome);
    assert_eq!(outcomes.filter(|o| *o == Outcome::Success).count(), RUNS);
    let stats = story.workspace.stats().await;
    one_run_for_each_attempt(&heard, &stats);
    assert_eq!(count(&stats, "/runs_started"), all);
    assert_eq!(count(&stats, "/runs_by_outcome/SUCCESS"), all);
    assert_eq!(count(&stats, "/calls/jobs~1runs~1cancel/total"), 0);
    producer.close().await;
}
