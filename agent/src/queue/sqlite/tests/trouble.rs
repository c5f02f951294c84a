//! Bad days: a lock, a full disk, a replaced file, a wrong file.

use std::path::PathBuf;
use std::sync::{Arc, Barrier};

use rusqlite::Connection;
use sparkferry_ports::queue::{Producer, Queue, QueueError};
use sparkferry_testkit::queue::conformance::{Harness, PATIENCE};
use tempfile::TempDir;
use tokio::time::timeout;

use super::{SqliteHarness, answer, count, id, next, result};
use crate::queue::sqlite::database::Database;
use crate::queue::sqlite::{SqliteQueue, check};

#[tokio::test]
async fn a_locked_database_is_trouble_that_passes_and_loses_nothing() {
    let harness = SqliteHarness::new();
    let worker = harness.worker().await;
    let producer = harness.producer().await;
    let mut deliveries = worker.consume("prod", 1).await;
    let name = id("patient");
    producer
        .submit("prod", &name, "{}".into())
        .await
        .expect("taken");
    let delivery = next(&mut deliveries).await;

    let locker = harness.database();
    let lock = locker.write().expect("its turn comes");
    let mut health = worker.health();
    let (finishing, done) = (Arc::clone(&worker), result(&name, b"{}".to_vec()));
    let answers = answer(&delivery);
    let finishing = tokio::spawn(async move { finishing.finish(&answers, &done).await });
    let troubled = timeout(PATIENCE, health.wait_for(|health| health.trouble.is_some())).await;
    let text = troubled
        .expect("in time")
        .expect("the worker lives")
        .to_string();
    assert!(text.contains("keeps the database locked"), "{text}");
    assert!(!finishing.is_finished());

    drop(lock);
    let finished = timeout(PATIENCE, finishing).await.expect("in time");
    assert!(finished.expect("no panic").is_ok());
    let well = timeout(PATIENCE, health.wait_for(|health| health.trouble.is_none())).await;
    assert!(well.is_ok());
}

#[tokio::test]
async fn a_full_disk_is_trouble_that_passes_and_loses_nothing() {
    let harness = SqliteHarness::new();
    let database = harness.database();
    // What another program could free again: room for a large result.
    let filler = harness.database().connection;
    filler
        .execute_batch("CREATE TABLE filler (x); INSERT INTO filler VALUES (zeroblob(2000000))")
        .expect("room");
    let pages: i64 = filler
        .query_row("PRAGMA page_count", [], |row| row.get(0))
        .expect("read");
    database
        .connection
        .query_row(
            &format!("PRAGMA max_page_count = {}", pages + 8),
            [],
            |_| Ok(()),
        )
        .expect("set");
    let worker = harness.named("cramped", database);
    let producer = harness.producer().await;
    let mut deliveries = worker.consume("prod", 1).await;
    let name = id("full");
    producer
        .submit("prod", &name, "{}".into())
        .await
        .expect("taken");
    let delivery = next(&mut deliveries).await;

    let mut health = worker.health();
    let (finishing, large) = (Arc::clone(&worker), result(&name, vec![b'x'; 1_000_000]));
    let answers = answer(&delivery);
    let finishing = tokio::spawn(async move { finishing.finish(&answers, &large).await });
    let troubled = timeout(PATIENCE, health.wait_for(|health| health.trouble.is_some())).await;
    let text = troubled
        .expect("in time")
        .expect("the worker lives")
        .to_string();
    assert!(text.contains("the disk is full"), "{text}");
    assert_eq!(count(&filler, "results"), 0);
    assert_eq!(count(&filler, "requests WHERE state = 1"), 1);

    filler.execute("DELETE FROM filler", []).expect("freed");
    let finished = timeout(PATIENCE, finishing).await.expect("in time");
    assert!(finished.expect("no panic").is_ok());
    assert_eq!(count(&filler, "results"), 1);
}

/// As a worker and its first producer may, which are started together.
#[test]
fn all_who_open_a_new_file_in_the_same_moment_get_in() {
    for _ in 0..50 {
        let folder = TempDir::new().expect("a temporary directory");
        let path = folder.path().join("queue.db");
        let together = Barrier::new(4);
        let open = || {
            together.wait();
            Database::open(&path).map(drop).expect("it opens");
        };
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(open);
            }
        });
    }
}

#[tokio::test]
async fn a_database_that_is_replaced_is_opened_anew() {
    let harness = SqliteHarness::new();
    let worker = harness.worker().await;
    let producer = harness.producer().await;
    let mut deliveries = worker.consume("prod", 5).await;
    producer
        .submit("prod", &id("old"), "{}".into())
        .await
        .expect("taken");
    let old = next(&mut deliveries).await;
    producer.close().await;
    for suffix in ["", "-wal", "-shm"] {
        let file = format!("{}{suffix}", harness.path().display());
        std::fs::remove_file(file).expect("it is there");
    }
    let producer = harness.producer().await;
    producer
        .submit("prod", &id("new"), "{}".into())
        .await
        .expect("taken");
    let new = next(&mut deliveries).await;
    assert_eq!(new.message_id.as_deref(), Some("new"));
    assert!(old.lease.lost.is_cancelled());
}

#[tokio::test]
async fn a_file_that_is_no_queue_is_refused_and_left_alone() {
    let harness = SqliteHarness::new();
    let refusal = |path: PathBuf| match SqliteQueue::open(&path, &harness.topology, "w") {
        Err(QueueError::Refused { place, why }) => {
            assert_eq!(place, format!("sqlite:{}", path.display()));
            why
        }
        other => panic!("expected a refusal, got {other:?}"),
    };
    let folder = harness.folder.path();

    let why = refusal(folder.join("nowhere/queue.db"));
    assert!(why.contains("does not exist: make it"), "{why}");
    let why = refusal(folder.to_owned());
    assert!(why.contains("this is a directory"), "{why}");

    let why = refusal(PathBuf::from("/proc/queue.db"));
    assert!(why.contains("can't be opened for writing"), "{why}");

    let text = folder.join("notes.txt");
    std::fs::write(
        &text,
        "not a database at all, only a few notes\n".repeat(50),
    )
    .expect("written");
    let why = refusal(text.clone());
    assert!(why.contains("no SQLite database"), "{why}");
    assert!(
        std::fs::read(&text)
            .expect("read")
            .starts_with(b"not a database")
    );

    let foreign = folder.join("foreign.db");
    let other = Connection::open(&foreign).expect("opens");
    other
        .execute_batch("CREATE TABLE books (title TEXT)")
        .expect("made");
    let why = refusal(foreign);
    assert!(why.contains("another program"), "{why}");
    assert_eq!(count(&other, "sqlite_schema"), 1, "nothing was added to it");

    let newer = harness.database().connection;
    newer.pragma_update(None, "user_version", 99).expect("set");
    let why = refusal(harness.path());
    assert!(
        why.contains("newer Sparkferry (tables of version 99"),
        "{why}"
    );
}

#[tokio::test]
async fn check_says_where_no_file_can_be_made() {
    let harness = SqliteHarness::new();
    let Err(error) = check(&PathBuf::from("/proc/queue.db"), &harness.topology).await else {
        panic!("/proc takes no files");
    };
    let text = error.to_string();
    assert!(
        text.contains("nothing can be written to the directory /proc"),
        "{text}"
    );
}
