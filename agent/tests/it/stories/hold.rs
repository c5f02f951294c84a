//! A run that lasts longer than a delivery may be held.

use sparkferry_ports::queue::News;
use sparkferry_shared::{EventType, Outcome};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::harness::{Heard, PATIENCE, Place, Story, Work, count, one_run_for_each_attempt, stop};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_held_past_the_limit_goes_back_and_the_run_goes_on() {
    let story = Story::new(Place::shared_broker(), 2).await;
    let work = [Work::new(1, 7_000, "SUCCESS")];
    let _worker = story.worker();
    let (producer, mut news) = story.submit(&work).await;
    let mut heard = Heard::default();
    heard.listen(&mut news, 1).await;

    let result = &heard.results[&work[0].id];
    assert_eq!(result.outcome, Outcome::Success, "{result:?}");
    let handed_back = (work[0].id.clone(), EventType::HandedBack);
    assert!(heard.events.contains(&handed_back), "{:?}", heard.events);
    let stats = story.workspace.stats().await;
    one_run_for_each_attempt(&heard, &stats);
    assert_eq!(count(&stats, "/runs_started"), 1);
    producer.close().await;
}

/// Waits until this worker tells this event.
async fn told(news: &mut Receiver<News>, worker: &str, wanted: EventType) {
    let telling = async {
        loop {
            match news.recv().await.expect("the producer listens") {
                News::Event(event) if event.event_type == wanted && event.worker == worker => {
                    return;
                }
                News::Event(_) => {}
                News::Result(result) => panic!("no {wanted} of {worker}, but {result:?}"),
            }
        }
    };
    let told = timeout(PATIENCE, telling).await;
    told.unwrap_or_else(|_| panic!("waited in vain for {wanted} of {worker}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_worker_hands_back_another_takes_and_there_is_one_run_and_one_result() {
    let story = Story::new(Place::shared_broker(), 2).await;
    let work = [Work::new(1, 20_000, "SUCCESS")];
    let named = |name| story.worker_with(&[("SPARKFERRY__WORKER__NAME", name)]);
    let mut first = named("first");
    let (producer, mut news) = story.submit(&work).await;
    told(&mut news, "first", EventType::Submitted).await;
    let mut second = named("second");
    told(&mut news, "second", EventType::Adopted).await;
    // And back: whoever holds it, it is the same run.
    told(&mut news, "second", EventType::HandedBack).await;
    let mut heard = Heard::default();
    heard.listen(&mut news, 1).await;

    let result = &heard.results[&work[0].id];
    assert_eq!(result.outcome, Outcome::Success, "{result:?}");
    let stats = story.workspace.stats().await;
    one_run_for_each_attempt(&heard, &stats);
    assert_eq!(count(&stats, "/runs_started"), 1);
    for worker in [&mut first, &mut second] {
        stop(worker).await;
    }
    assert_eq!(story.results_waiting().await, 1);
    producer.close().await;
}
