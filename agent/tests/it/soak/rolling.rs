//! Workers replaced one after another under load, again and again, as a deployment does it.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use super::books::Left;
use super::field::{Field, Queue};
use super::plan::fates;
use super::{shared_broker, submit};

const REQUESTS: usize = 200;
const WORKERS: usize = 3;

async fn replaced_again_and_again(queue: Queue) {
    let fates = fates(4, REQUESTS, 6_000);
    let mut field = Field::new(queue, None, WORKERS, 30).await;
    let mut books = field.books();
    let ground = Arc::clone(&field.ground);
    let progress = watch::Sender::default();
    let work = async { tokio::join!(submit(&ground, &fates), books.read(REQUESTS, &progress)) };
    let mut replaced = 0;
    let replacing = async {
        // The first ones, at least, are to have work when they are told to go.
        let mut begun = progress.subscribe();
        begun
            .wait_for(|answered| !answered.is_empty())
            .await
            .expect("it is read");
        loop {
            field.replace(replaced % WORKERS).await;
            replaced += 1;
        }
    };
    tokio::select! {
        _ = work => {}
        () = replacing => unreachable!("it goes on until all results are there"),
    }
    assert!(replaced >= WORKERS, "only {replaced} were replaced");
    let nothing = Left {
        requests: 0,
        dead: 0,
    };
    assert_eq!(field.settle(&mut books).await, nothing);
    let stats = field.workspace.stats().await;
    // The balance says it, too: whatever was not to be cancelled ended otherwise.
    books.balance(&fates, &stats, &field.workspace.page("runs").await);
    let runs = field.workspace.page("runs").await;
    let cancelled = |run: &Value| run["cancelled"] == true;
    assert!(
        !runs.as_array().expect("a list").iter().any(cancelled),
        "{runs}"
    );
    eprintln!(
        "{replaced} replaced, the latest result {:?} after its run",
        books.latest()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_rabbitmq_nothing_is_cancelled_doubled_or_lost() {
    replaced_again_and_again(Queue::Quorum(shared_broker())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_nothing_is_cancelled_doubled_or_lost() {
    replaced_again_and_again(Queue::Sqlite).await;
}
