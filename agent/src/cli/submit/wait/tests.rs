//! A batch against a queue that plays a script.

use std::future::{pending, ready};
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use sparkferry_ports::queue::{DeadLetter, QueueError, SettleDead};
use sparkferry_shared::{Cancel, Outcome};
use tokio::sync::mpsc;

use super::super::input::Place;
use super::*;

/// A queue whose answer to a request is what its id says: `SUCCESS-1` succeeds, `never-1` has no
/// result, `gone-1` is refused.
struct Scripted {
    news: Mutex<Option<mpsc::Sender<News>>>,
    sent: Mutex<Vec<String>>,
}

impl Scripted {
    fn new() -> Self {
        Self {
            news: Mutex::new(None),
            sent: Mutex::new(Vec::new()),
        }
    }
}

fn result(connection: &str, id: &Id, outcome: Outcome) -> News {
    let now = "2026-11-21T03:40:19Z".parse().unwrap();
    News::Result(Box::new(RunResult {
        id: id.clone(),
        outcome,
        connection: connection.to_owned(),
        kind: None,
        labels: std::collections::BTreeMap::default(),
        attempts: Vec::new(),
        output: None,
        error: None,
        received_at: now,
        finished_at: now,
        worker: "w".to_owned(),
        redelivered: false,
        truncated: false,
    }))
}

#[async_trait]
impl Producer for Scripted {
    async fn listen(&self, to: Listen) -> Result<mpsc::Receiver<News>, QueueError> {
        assert!(matches!(to, Listen::Mine(_)));
        let (news, heard) = mpsc::channel(100);
        *self.news.lock().unwrap() = Some(news);
        Ok(heard)
    }

    async fn submit(&self, connection: &str, id: &Id, _: Bytes) -> Result<(), QueueError> {
        self.sent.lock().unwrap().push(id.to_string());
        let (word, _) = id.as_str().split_once('-').unwrap();
        if word == "gone" {
            return Err(QueueError::Unreachable {
                place: "amqp://broker".to_owned(),
                why: "closed".to_owned(),
            });
        }
        let Some(outcome) = Outcome::ALL.into_iter().find(|o| o.as_str() == word) else {
            return Ok(());
        };
        let news = self.news.lock().unwrap().clone().expect("listens first");
        // A stranger's result and a second copy must change nothing.
        for told in [
            result("elsewhere", id, Outcome::Rejected),
            result(connection, id, outcome),
            result(connection, id, Outcome::Rejected),
        ] {
            news.try_send(told).unwrap();
        }
        Ok(())
    }

    async fn cancel(&self, _: &Cancel) -> Result<(), QueueError> {
        unreachable!("submit cancels nothing")
    }

    async fn dead_letters(&self, _: usize) -> Result<Vec<DeadLetter>, QueueError> {
        unreachable!("submit reads no dead letters")
    }

    async fn settle_dead(&self, _: SettleDead, _: usize) -> Result<usize, QueueError> {
        unreachable!("submit settles no dead letters")
    }

    async fn close(&self) {}
}

fn batch(ids: &[&str]) -> Vec<Ready> {
    let ready = |(index, id): (usize, &&str)| Ready {
        place: Place::Line(index + 1),
        id: id.parse().unwrap(),
        fresh: false,
        connection: "prod".to_owned(),
        body: Bytes::from_static(b"{}"),
    };
    ids.iter().enumerate().map(ready).collect()
}

async fn see(ids: &[&str], timeout: Option<u64>, stop: impl Future<Output = ()>) -> (u8, String) {
    let options = Options {
        json: false,
        bars: false,
        timeout: timeout.map(Duration::from_secs),
    };
    match see_through(&Scripted::new(), &batch(ids), &options, stop).await {
        Ok(exit) => (exit.code(), String::new()),
        Err(Problem::Told { exit, text }) => (exit.code(), text),
        Err(Problem::OutputClosed) => panic!("the output is open"),
    }
}

#[tokio::test]
async fn the_worst_result_decides_and_copies_and_strangers_do_not() {
    let all_well = ["SUCCESS-1", "SUBMITTED-2"];
    assert_eq!(see(&all_well, None, pending()).await.0, 0);
    assert_eq!(see(&["SUCCESS-1", "LOST-2"], None, pending()).await.0, 75);
    let mixed = ["LOST-1", "SUCCESS_WITH_FAILURES-2", "SUCCESS-3"];
    assert_eq!(see(&mixed, None, pending()).await.0, 1);
    assert_eq!(
        see(&["FAILED-1", "REJECTED-2"], None, pending()).await.0,
        65
    );
}

#[tokio::test(start_paused = true)]
async fn a_timeout_and_a_signal_end_the_waiting() {
    assert_eq!(
        see(&["SUCCESS-1", "never-2"], Some(60), pending()).await.0,
        1
    );
    assert_eq!(see(&["never-1"], None, ready(())).await.0, 130);
}

#[tokio::test]
async fn a_queue_that_goes_away_is_told_with_what_is_missing() {
    let (code, text) = see(&["never-1", "gone-2", "never-3"], None, pending()).await;
    assert_eq!(code, 69);
    for part in [
        "amqp://broker",
        "1 of 3 requests are confirmed",
        "never-3",
        "nothing is run twice",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn every_request_is_sent_once() {
    let ids: Vec<String> = (0..30).map(|n| format!("SUCCESS-{n}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let queue = Scripted::new();
    let options = Options {
        json: false,
        bars: false,
        timeout: None,
    };
    let exit = see_through(&queue, &batch(&ids), &options, pending())
        .await
        .unwrap();
    assert_eq!(exit, Exit::Success);
    let sent: Vec<String> = queue.sent.lock().unwrap().clone();
    assert_eq!(sent, ids);
}
