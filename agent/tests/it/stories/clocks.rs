//! A machine whose clock is set while its worker has runs under way.

use std::fs;
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use sparkferry_shared::{EventType, Outcome};

use super::harness::{Heard, Place, Story, Work, count, one_run_for_each_attempt, stop};

const RUNS: usize = 10;
/// Their first run ends while the clock is an hour ahead, their second while it is an hour behind.
const RETRIED: usize = 5;
const HOUR_AHEAD: &str = "+3600";
const HOUR_BEHIND: &str = "-3600";

/// The library that stands before the system's clock, of Debian's package of its name.
fn libfaketime() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").expect("Linux has it");
    let mut found = folders.filter_map(|folder| {
        let library = folder.ok()?.path().join("faketime/libfaketimeMT.so.1");
        library.exists().then_some(library)
    });
    let found = found.next();
    found.expect("libfaketime is not installed: agent/tests/prepare.sh test")
}

async fn stepped(place: Place) {
    let story = Story::new(place, 600).await;
    let clock = tempfile::NamedTempFile::new().expect("a file");
    let set = |to: &str| fs::write(clock.path(), to).expect("our own file");
    set("+0");
    let library = libfaketime();
    let mut worker = story.worker_with(&[
        ("SPARKFERRY__WORKER__NAME", "stepped"),
        ("LD_PRELOAD", library.to_str().expect("a name")),
        (
            "FAKETIME_TIMESTAMP_FILE",
            clock.path().to_str().expect("a name"),
        ),
        ("FAKETIME_NO_CACHE", "1"),
        // Setting a clock moves no timer that counts from when it was wound up.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ]);
    let work: Vec<Work> = (0..RUNS + RETRIED)
        .map(|number| match number {
            0..RUNS => Work::new(number, 9_000, "SUCCESS"),
            _ => Work {
                retry_after_ms: 2_000,
                ..Work::new(number, 3_000, "CLUSTER_ERROR,SUCCESS")
            },
        })
        .collect();
    let (producer, mut news) = story.submit(&work).await;
    let mut heard = Heard::default();
    let all = RUNS + RETRIED;
    heard.events_of(&mut news, EventType::Submitted, all).await;

    set(HOUR_AHEAD);
    // On SQLite it sees when its neighbour's requests would be free, by its own clock.
    let mut other = story.worker_with(&[("SPARKFERRY__WORKER__NAME", "steady")]);
    heard
        .events_of(&mut news, EventType::Retrying, RETRIED)
        .await;
    set(HOUR_BEHIND);
    heard.listen(&mut news, all).await;

    let stats = story.workspace.stats().await;
    one_run_for_each_attempt(&heard, &stats);
    assert_eq!(count(&stats, "/runs_started"), (RUNS + 2 * RETRIED) as u64);
    let half_an_hour = SignedDuration::from_mins(30);
    let mut behind = 0;
    for result in heard.results.values() {
        assert_eq!(result.outcome, Outcome::Success, "{result:?}");
        let age = result.finished_at.duration_until(Timestamp::now());
        behind += usize::from(age > half_an_hour);
    }
    assert!(behind > 0, "the clock was not set: {:?}", heard.results);
    stop(&mut worker).await;
    stop(&mut other).await;
    producer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn set_forth_and_back_on_rabbitmq() {
    stepped(Place::shared_broker()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn set_forth_and_back_on_sqlite() {
    stepped(Place::Sqlite).await;
}
