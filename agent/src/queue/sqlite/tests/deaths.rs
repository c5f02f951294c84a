//! How workers see one another's end.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use sparkferry_ports::queue::{Producer, Queue};
use sparkferry_testkit::queue::conformance::Harness;

use super::{SqliteHarness, answer, count, id, next, result};
use crate::queue::sqlite::lease::{self, Seen};
use crate::queue::sqlite::presence::Presence;
use crate::queue::sqlite::settle;

/// So long that no story sees a second beat.
const NEVER: Duration = Duration::from_hours(1);

/// The files by which sessions show that they are there.
fn files(harness: &SqliteHarness) -> Vec<PathBuf> {
    let folder = format!("{}-sessions", harness.path().display());
    let files = fs::read_dir(folder).into_iter().flatten();
    files
        .map(|file| file.expect("it can be read").path())
        .collect()
}

#[tokio::test]
async fn a_death_is_seen_without_waiting_for_a_silence() {
    let harness = SqliteHarness::new();
    let producer = harness.producer().await;
    let name = id("inherited");
    producer
        .submit("prod", &name, "{}".into())
        .await
        .expect("taken");
    let doomed = harness.beating("doomed", harness.database(), NEVER);
    next(&mut doomed.consume("prod", 1).await).await;
    let heir = harness.beating("heir", harness.database(), NEVER);
    let mut inherited = heir.consume("prod", 1).await;
    harness.kill(doomed).await;
    let again = next(&mut inherited).await;
    assert!(again.seen_before);

    // Also by one that starts only now.
    harness.kill(heir).await;
    let late = harness.beating("late", harness.database(), NEVER);
    let again = next(&mut late.consume("prod", 1).await).await;
    let done = result(&name, b"{}".to_vec());
    assert!(late.finish(&answer(&again), &done).await.is_ok());
    assert_eq!(files(&harness).len(), 1, "the dead leave nothing behind");
    late.close().await;
    assert_eq!(files(&harness), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn one_that_stands_still_is_seen_by_its_silence() {
    let harness = SqliteHarness::new();
    let producer = harness.producer().await;
    producer
        .submit("prod", &id("held"), "{}".into())
        .await
        .expect("taken");
    // A session as a stopped process has it: its lock is held, and its beat stands still.
    let database = harness.database();
    let presence = Presence::beside(&harness.path());
    let tx = database.write().expect("its turn comes");
    let pulse = lease::beat(&tx, None, "stopped", &Seen::new(), &presence).expect("it begins");
    let taken = settle::take(&tx, pulse.session, "stories", "prod", 1).expect("one waits");
    assert_eq!(taken.len(), 1);
    tx.commit().expect("it is committed");

    let worker = harness.worker().await;
    let mut deliveries = worker.consume("prod", 1).await;
    let again = next(&mut deliveries).await;
    assert!(again.seen_before);
    let sessions = count(&database.connection, "workers");
    assert_eq!(sessions, 1, "that of the living");
    drop(pulse);
    // What the stopped one left is swept away by the next that begins.
    assert_eq!(files(&harness).len(), 2);
    let next = harness.worker().await;
    let mut cancels = next.cancels().await;
    assert!(cancels.try_recv().is_err());
    assert_eq!(files(&harness).len(), 2, "those of the two that are there");
}

#[tokio::test]
async fn nobody_else_may_read_what_is_in_the_queue() {
    let harness = SqliteHarness::new();
    let worker = harness.worker().await;
    worker.cancels().await;
    let mut beside: Vec<PathBuf> = ["", "-wal", "-shm"]
        .map(|suffix| format!("{}{suffix}", harness.path().display()).into())
        .to_vec();
    beside.extend(files(&harness));
    assert_eq!(beside.len(), 4);
    for file in beside {
        let mode = fs::metadata(&file)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
}
