//! `sparkferry cancel`, at the moments when it is hardest to tell the truth.

use serde_json::{Value, json};
use sparkferry_ports::queue::{News, Producer};
use sparkferry_shared::{EventType, Id, Outcome, RunResult};
use tokio::process::Child;
use tokio::sync::mpsc::Receiver;

use super::harness::{Heard, Place, Story, Work, count, stop};

/// Long enough that nobody waits for it here.
const LONG: usize = 3_600_000;

async fn cancel(story: &Story, id: &str) {
    let mut command = story.command("cancel");
    let told = command.args([id, "--reason", "enough"]).output().await;
    let told = told.expect("our own program");
    assert!(told.status.success(), "{told:?}");
}

fn outcome(heard: &Heard, id: &Id) -> Outcome {
    heard.results[id].outcome
}

/// Cancelled: one that runs (twice), one while no worker is there, one before any worker saw it, one
/// that is done, and one that nobody knows.
async fn cancelled_at_every_moment(place: Place) {
    let story = Story::new(place, 600).await;
    let work = [
        Work::new(1, LONG, "SUCCESS"),
        Work::new(2, LONG, "SUCCESS"),
        Work::new(3, 100, "SUCCESS"),
    ];
    let [running, left, done] = [&work[0].id, &work[1].id, &work[2].id];
    let mut first = story.worker();
    let (producer, mut news) = story.submit(&work).await;
    let mut heard = Heard::default();
    heard.events_of(&mut news, EventType::Submitted, 3).await;
    for id in ["nobody", running.as_str(), running.as_str()] {
        cancel(&story, id).await;
    }
    heard.listen(&mut news, 2).await;
    assert_eq!(outcome(&heard, running), Outcome::Canceled);
    assert_eq!(outcome(&heard, done), Outcome::Success);
    cancel(&story, done.as_str()).await;
    producer.close().await;
    // A message says to the second when it was sent: what is sent from here on was sent later.
    let (producer, mut news) = story.submit(&[Work::new(5, 1_100, "SUCCESS")]).await;
    heard.listen(&mut news, 3).await;
    producer.close().await;

    stop(&mut first).await;
    let again = Work::new(3, 100, "SUCCESS");
    let unseen = Work::new(4, LONG, "SUCCESS");
    cancel(&story, left.as_str()).await;
    let (producer, mut news) = story.submit(&[again, unseen]).await;
    let unseen: Id = "work-4".parse().expect("an id");
    cancel(&story, unseen.as_str()).await;
    let _second = story.worker();
    let mut later = Heard::default();
    later.listen(&mut news, 2).await;
    assert_eq!(outcome(&later, &unseen), Outcome::Canceled);
    assert!(later.results[&unseen].attempts.is_empty());
    assert_eq!(
        outcome(&later, done),
        Outcome::Success,
        "it was done before"
    );
    producer.close().await;

    // Of the one that was left, the run is found and cancelled too.
    let stats = story
        .workspace
        .until("no run", |stats| count(stats, "/runs_active") == 0)
        .await;
    assert_eq!(count(&stats, "/runs_started"), 4, "{stats}");
    assert_eq!(count(&stats, "/runs_by_outcome/CANCELED"), 2, "{stats}");
    assert_eq!(count(&stats, "/runs_by_outcome/SUCCESS"), 2, "{stats}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_rabbitmq_a_cancel_is_true_at_every_moment() {
    cancelled_at_every_moment(Place::shared_broker()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_a_cancel_is_true_at_every_moment() {
    cancelled_at_every_moment(Place::Sqlite).await;
}

/// A work whose id is its number's, and what becomes of it, told in news.
struct Cancelled {
    story: Story,
    producer: Box<dyn Producer>,
    news: Receiver<News>,
    heard: Heard,
    _worker: Child,
}

impl Cancelled {
    /// A worker is there, and has been told of these.
    async fn begin(story: Story, work: &[Work]) -> Self {
        let worker = story.worker();
        let (producer, news) = story.submit(work).await;
        Self {
            story,
            producer,
            news,
            heard: Heard::default(),
            _worker: worker,
        }
    }

    /// Cancels it when so many have had such an event; returns its result, and what the books say.
    async fn cancel_at(mut self, event: EventType, of: usize, id: &str) -> (RunResult, Value) {
        self.heard.events_of(&mut self.news, event, of).await;
        cancel(&self.story, id).await;
        let id: Id = id.parse().expect("an id");
        while !self.heard.results.contains_key(&id) {
            let more = self.heard.results.len() + 1;
            self.heard.listen(&mut self.news, more).await;
        }
        self.producer.close().await;
        let result = self.heard.results.remove(&id).expect("it is there");
        let stats = self.story.workspace.stats().await;
        (result, stats)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_waits_for_its_turn_to_start_it_is_never_started() {
    let story = Story::new(Place::shared_broker(), 600).await;
    // The second one's turn comes a minute after the first one's.
    story.reconfigure("submit_per_second = 300", "submit_per_second = 0.017");
    let mut cancelled = Cancelled::begin(story, &[Work::new(1, LONG, "SUCCESS")]).await;
    let Cancelled { news, heard, .. } = &mut cancelled;
    heard.events_of(news, EventType::Submitted, 1).await;
    cancelled.producer.close().await;
    let second = [Work::new(2, LONG, "SUCCESS")];
    (cancelled.producer, cancelled.news) = cancelled.story.submit(&second).await;
    let (result, stats) = cancelled.cancel_at(EventType::Accepted, 1, "work-2").await;
    assert_eq!(result.outcome, Outcome::Canceled);
    assert!(result.attempts.is_empty(), "{result:?}");
    assert_eq!(count(&stats, "/runs_started"), 1, "{stats}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_starts_the_run_is_awaited_and_cancelled() {
    let story = Story::new(Place::shared_broker(), 600).await;
    let slow = json!({"call": "jobs/runs/submit", "delay_ms": 6_000});
    story.workspace.rules(slow).await;
    let cancelled = Cancelled::begin(story, &[Work::new(1, LONG, "SUCCESS")]).await;
    let (result, stats) = cancelled.cancel_at(EventType::Accepted, 1, "work-1").await;
    assert_eq!(result.outcome, Outcome::Canceled);
    assert_eq!(result.attempts.len(), 1, "{result:?}");
    assert_eq!(count(&stats, "/runs_started"), 1, "{stats}");
    assert_eq!(count(&stats, "/runs_by_outcome/CANCELED"), 1, "{stats}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_two_attempts_no_other_one_is_made() {
    let story = Story::new(Place::shared_broker(), 600).await;
    let work = Work {
        retry_after_ms: 600_000,
        ..Work::new(1, 100, "CLUSTER_ERROR,SUCCESS")
    };
    let cancelled = Cancelled::begin(story, &[work]).await;
    let (result, stats) = cancelled.cancel_at(EventType::Retrying, 1, "work-1").await;
    assert_eq!(result.outcome, Outcome::Canceled);
    assert_eq!(result.attempts.len(), 1, "{result:?}");
    assert_eq!(count(&stats, "/runs_started"), 1, "{stats}");
}

/// Nobody attends to a run whose request wanted no ending: its cancel is heard by whoever receives the
/// request again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_submitted_is_cancelled_by_a_cancel_and_the_same_request_again() {
    let story = Story::new(Place::shared_broker(), 600).await;
    let work = || Work {
        wait: false,
        ..Work::new(1, LONG, "SUCCESS")
    };
    let id = work().id;
    let _worker = story.worker();
    let (producer, mut news) = story.submit(&[work()]).await;
    let mut heard = Heard::default();
    heard.listen(&mut news, 1).await;
    assert_eq!(outcome(&heard, &id), Outcome::Submitted);
    producer.close().await;

    cancel(&story, id.as_str()).await;
    // What is sent from the next second on was sent later.
    let (producer, mut news) = story.submit(&[Work::new(2, 1_100, "SUCCESS")]).await;
    Heard::default().listen(&mut news, 1).await;
    producer.close().await;
    let (producer, mut news) = story.submit(&[work()]).await;
    let mut heard = Heard::default();
    heard.listen(&mut news, 1).await;
    assert_eq!(outcome(&heard, &id), Outcome::Canceled);
    producer.close().await;
    let stats = story.workspace.stats().await;
    assert_eq!(count(&stats, "/runs_started"), 2, "{stats}");
    assert_eq!(count(&stats, "/runs_active"), 0, "{stats}");
}
