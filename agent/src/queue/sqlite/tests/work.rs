//! What SQLite promises beyond the port.

use rusqlite::params;
use sparkferry_ports::queue::{Listen, News, Producer, Queue};
use sparkferry_shared::Topology;
use sparkferry_testkit::queue::conformance::{Harness, PATIENCE};
use tokio::time::timeout;

use super::{SqliteHarness, answer, count, id, next, result};
use crate::queue::sqlite::database::now;
use crate::queue::sqlite::{check, settle};

#[tokio::test]
async fn a_living_worker_keeps_its_leases_while_dead_ones_lose_theirs() {
    let harness = SqliteHarness::new();
    let (holder, other) = (harness.worker().await, harness.worker().await);
    let producer = harness.producer().await;
    let mut deliveries = holder.consume("prod", 1).await;
    let kept = id("kept");
    producer
        .submit("prod", &kept, "{}".into())
        .await
        .expect("taken");
    let delivery = next(&mut deliveries).await;
    let mut others = other.consume("prod", 1).await;

    for name in ["dies-1", "dies-2", "dies-3"] {
        let name = id(name);
        producer
            .submit("lake", &name, "{}".into())
            .await
            .expect("taken");
        let doomed = harness.worker().await;
        next(&mut doomed.consume("lake", 1).await).await;
        harness.kill(doomed).await;
        let mut inherited = other.consume("lake", 1).await;
        let again = next(&mut inherited).await;
        let done = result(&name, b"{}".to_vec());
        assert!(other.finish(&answer(&again), &done).await.is_ok());
    }
    assert!(others.try_recv().is_err());
    assert!(!delivery.lease.lost.is_cancelled());
    let done = result(&kept, b"{}".to_vec());
    assert!(holder.finish(&answer(&delivery), &done).await.is_ok());
}

#[tokio::test]
async fn exactly_one_result_is_kept_however_many_workers_finish() {
    let harness = SqliteHarness::new();
    let frozen = harness.named("frozen", harness.database());
    let producer = harness.producer().await;
    let mut deliveries = frozen.consume("prod", 1).await;
    let name = id("one");
    producer
        .submit("prod", &name, "{}".into())
        .await
        .expect("taken");
    let before = next(&mut deliveries).await;
    harness.hold_for_dead("frozen");
    // The worker may not have noticed; its result must not count all the same.
    let late = frozen
        .finish(&answer(&before), &result(&name, b"{}".to_vec()))
        .await;
    assert!(late.is_err());

    let again = next(&mut deliveries).await;
    assert!(again.seen_before);
    let finished = frozen
        .finish(&answer(&again), &result(&name, b"{}".to_vec()))
        .await;
    assert!(finished.is_ok());
    let twice = frozen
        .finish(&answer(&again), &result(&name, b"{}".to_vec()))
        .await;
    assert!(twice.is_err(), "it is settled");
    let db = harness.database().connection;
    assert_eq!(count(&db, "results"), 1);
    assert_eq!(count(&db, "requests WHERE state = 2 AND body IS NULL"), 1);
}

#[tokio::test]
async fn old_cancels_and_events_are_forgotten() {
    let harness = SqliteHarness::new();
    let db = harness.database().connection;
    let day = settle::MEMORY_MS;
    for (age, name) in [(day + 60_000, "old"), (1000, "young")] {
        let cancel = format!(r#"{{"cancel":"{name}"}}"#).into_bytes();
        db.execute(
            "INSERT INTO cancels (namespace, sent_at, body) VALUES ('stories', ?1, ?2)",
            params![now() - age, cancel],
        )
        .expect("written");
        db.execute(
            "INSERT INTO events (namespace, id, told_at, body) VALUES ('stories', ?1, ?2, x'')",
            params![name, now() - age],
        )
        .expect("written");
    }
    let worker = harness.worker().await;
    let mut cancels = worker.cancels().await;
    assert_eq!(
        cancels.recv().await.expect("one in force").cancel.cancel,
        id("young")
    );
    // It forgets with its first beat, which comes before its first answer.
    worker.close().await;
    assert_eq!(count(&db, "events"), 1);
    assert_eq!(count(&db, "cancels"), 1);
}

#[tokio::test]
async fn a_submit_of_what_waits_or_runs_is_the_same_work() {
    let harness = SqliteHarness::new();
    let (first, second) = (harness.producer().await, harness.producer().await);
    let name = id("same");
    let mut news = second
        .listen(Listen::Mine(vec![name.clone()]))
        .await
        .expect("listens");
    first
        .submit("prod", &name, "{}".into())
        .await
        .expect("taken");
    second
        .submit("prod", &name, "{}".into())
        .await
        .expect("taken");
    let worker = harness.worker().await;
    let mut deliveries = worker.consume("prod", 5).await;
    let delivery = next(&mut deliveries).await;
    second
        .submit("prod", &name, "{}".into())
        .await
        .expect("taken");
    assert_eq!(count(&harness.database().connection, "requests"), 1);
    let json = r#"{"id":"same","outcome":"SUCCESS","connection":"prod","worker":"w",
        "received_at":"2026-11-21T00:00:00Z","finished_at":"2026-11-21T00:00:01Z",
        "redelivered":false}"#;
    let finished = worker
        .finish(&answer(&delivery), &result(&name, json.into()))
        .await;
    assert!(finished.is_ok());
    let heard = timeout(PATIENCE, news.recv()).await.expect("in time");
    assert!(matches!(heard, Some(News::Result(result)) if result.id == name));
    assert!(deliveries.try_recv().is_err());
}

#[tokio::test]
async fn check_counts_what_waits_runs_and_is_done() {
    let harness = SqliteHarness::new();
    let path = harness.path();
    let line = check(&path, &harness.topology)
        .await
        .expect("nothing wrong");
    assert!(line.contains("not there yet"), "{line}");
    assert!(!path.exists(), "checking makes nothing");

    let producer = harness.producer().await;
    for name in ["a", "b", "c"] {
        producer
            .submit("prod", &id(name), "{}".into())
            .await
            .expect("taken");
    }
    let worker = harness.worker().await;
    let mut deliveries = worker.consume("prod", 2).await;
    let delivery = next(&mut deliveries).await;
    next(&mut deliveries).await;
    let finished = worker
        .finish(&answer(&delivery), &result(&id("a"), b"{}".to_vec()))
        .await;
    assert!(finished.is_ok());
    next(&mut deliveries).await;
    let line = check(&path, &harness.topology)
        .await
        .expect("nothing wrong");
    let counts = "0 requests waiting, 2 running, 1 done, 0 dead letters";
    assert!(line.ends_with(counts), "{line}");
    let other = check(&path, &Topology::new("other"))
        .await
        .expect("nothing wrong");
    assert!(other.contains("0 requests waiting, 0 running"), "{other}");
}

#[tokio::test]
async fn closing_leaves_nothing_to_run_out() {
    let harness = SqliteHarness::new();
    let (worker, producer) = (harness.worker().await, harness.producer().await);
    let mut deliveries = worker.consume("prod", 5).await;
    for name in ["looked-at", "not-looked-at"] {
        producer
            .submit("prod", &id(name), "{}".into())
            .await
            .expect("taken");
    }
    next(&mut deliveries).await;
    worker.close().await;
    let db = harness.database().connection;
    assert_eq!(count(&db, "workers"), 0);
    assert_eq!(count(&db, "requests WHERE state = 0"), 2);
}
