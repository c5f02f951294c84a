//! `sparkferry cancel`, at the moments when it is hardest to tell the truth.

use sparkferry_shared::{EventType, Id, Outcome};

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
