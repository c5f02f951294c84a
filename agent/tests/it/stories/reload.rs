//! The configuration read again, under load.

use std::process::Output;

use sparkferry_shared::{EventType, Outcome};
use tokio::process::{Child, Command};

use super::harness::{Heard, Place, Story, Work, count, one_run_for_each_attempt};

const RUNS: usize = 60;
const DURATION_MS: usize = 12_000;

async fn signal(worker: &Child, name: &str) -> Output {
    let pid = worker.id().expect("it runs").to_string();
    let sent = Command::new("kill").args(["-s", name, &pid]).output();
    sent.await.expect("kill is there")
}

/// The connection is changed while its runs are under way: all go on as they are, and their requests
/// come to the same worker again. Then a broken file, which changes nothing.
async fn the_connection_is_changed_while_it_works(place: Place) {
    let story = Story::new(place, 600).await;
    let all = RUNS as u64;
    let work: Vec<Work> = (0..RUNS)
        .map(|number| Work::new(number, DURATION_MS, "SUCCESS"))
        .collect();
    let mut worker = story.worker();
    let (producer, mut news) = story.submit(&work).await;
    story
        .workspace
        .until("all runs", |stats| count(stats, "/runs_active") == all)
        .await;

    story.reconfigure("max_active_runs = 1000", "max_active_runs = 900");
    signal(&worker, "HUP").await;
    let mut heard = Heard::default();
    heard
        .events_of(&mut news, EventType::HandedBack, RUNS)
        .await;
    story.reconfigure("max_active_runs = 900", "max_active_runs = ");
    signal(&worker, "HUP").await;
    heard.listen(&mut news, RUNS).await;

    let outcomes = heard.results.values().map(|result| result.outcome);
    assert_eq!(outcomes.filter(|o| *o == Outcome::Success).count(), RUNS);
    assert!(heard.results.values().all(|result| result.redelivered));
    let stats = story.workspace.stats().await;
    one_run_for_each_attempt(&heard, &stats);
    assert_eq!(count(&stats, "/runs_started"), all);
    assert_eq!(count(&stats, "/calls/jobs~1runs~1cancel/total"), 0);
    producer.close().await;

    // It was the same process all the time, and it drains as ever.
    signal(&worker, "TERM").await;
    let ended = worker.wait().await.expect("our own child");
    assert_eq!(ended.code(), Some(0));
    let log = story.log();
    assert!(log.contains("the configuration is refused"), "{log}");
}

#[tokio::test]
async fn the_connection_is_changed_while_it_works_on_rabbitmq() {
    the_connection_is_changed_while_it_works(Place::shared_broker()).await;
}

#[tokio::test]
async fn the_connection_is_changed_while_it_works_on_sqlite() {
    the_connection_is_changed_while_it_works(Place::Sqlite).await;
}
