//! Messages that can't be read, by the thousand, among requests that can.

use std::collections::BTreeSet;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use sparkferry_shared::{Outcome, Undecodable, decode};
use tokio::time::{interval, timeout};

use super::harness::{
    CONNECTION, Heard, PATIENCE, Place, Story, Work, count, one_run_for_each_attempt,
};

const GOOD: usize = 50;
const POISON: usize = 2_000;
/// What the worker takes at most; its default.
const LIMIT: usize = 1 << 20;

/// The nth message that nobody should send. Some have an id, most have none.
fn poison(number: usize, rng: &mut fastrand::Rng) -> Vec<u8> {
    match number % 9 {
        0 => (0..rng.usize(..500)).map(|_| rng.u8(..)).collect(),
        1 => format!(r#"{{"id":"poison-{number}","run_now":{{}}}}"#).into_bytes(),
        2 => format!(r#"{{"id":"a","id":"poison-{number}"}}"#).into_bytes(),
        3 => {
            let deep = "[".repeat(5_000) + &"]".repeat(5_000);
            format!(r#"{{"id":"poison-{number}","labels":{deep}}}"#).into_bytes()
        }
        4 => format!(r#"{{"id":"poison-{number}","run_now":{{"job_id":1}},"max_retries":1e99}}"#)
            .into_bytes(),
        5 => b"\xff\xfe{\x00}\x00".to_vec(),
        6 => "[".repeat(rng.usize(1..20_000)).into_bytes(),
        7 if number % 200 == 7 => vec![b'{'; LIMIT + 1],
        7 => format!(r#"{{"id":"poison {number}","run_now":{{"job_id":1}}}}"#).into_bytes(),
        _ => format!(r#"{{"id":"poison-{number}","unknown-{number}":null}}"#).into_bytes(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_rabbitmq_poison_is_answered_or_buried_and_good_requests_succeed() {
    let place = Place::shared_broker();
    let Place::Amqp(url) = &place else {
        unreachable!("it is a broker");
    };
    let connection = Connection::connect(url, ConnectionProperties::default()).await;
    let connection = connection.expect("the broker is there");
    let channel = connection.create_channel().await.expect("a channel");
    let selected = channel.confirm_select(ConfirmSelectOptions::default());
    selected.await.expect("confirms");
    let story = Story::new(place, 600).await;
    let mut worker = story.worker();
    let work: Vec<Work> = (0..GOOD)
        .map(|number| Work::new(number, 200, "SUCCESS"))
        .collect();
    let (producer, mut news) = story.submit(&work).await;

    let mut rng = fastrand::Rng::with_seed(7);
    let (mut rejected, mut dead) = (BTreeSet::new(), 0);
    let exchange: ShortString = story.topology.requests_exchange().into();
    for number in 0..POISON {
        let body = poison(number, &mut rng);
        match decode(&body, None, Some(CONNECTION), LIMIT) {
            Ok(request) => panic!("{request:?} is no poison"),
            Err(Undecodable::Reject { id, .. }) => drop(rejected.insert(id)),
            Err(Undecodable::Bury(_)) => dead += 1,
        }
        let published = channel.basic_publish(
            exchange.clone(),
            CONNECTION.into(),
            BasicPublishOptions::default(),
            &body,
            BasicProperties::default(),
        );
        published.await.expect("the broker takes it");
    }
    assert!(rejected.len() > 500 && dead > 500);
    let again: Vec<Work> = (GOOD..2 * GOOD)
        .map(|number| Work::new(number, 200, "SUCCESS"))
        .collect();
    let mut heard = Heard::default();
    heard.listen(&mut news, GOOD).await;
    producer.close().await;
    let (producer, mut news) = story.submit(&again).await;
    heard.listen(&mut news, 2 * GOOD).await;

    let outcomes = heard.results.values().map(|result| result.outcome);
    let good = outcomes.filter(|o| *o == Outcome::Success).count();
    assert_eq!(good, 2 * GOOD);
    let stats = story.workspace.stats().await;
    one_run_for_each_attempt(&heard, &stats);
    assert_eq!(count(&stats, "/runs_started"), 2 * GOOD as u64);
    // The good ones came last, but burying and answering take their time.
    let settled = async {
        let mut looks = interval(Duration::from_millis(200));
        loop {
            looks.tick().await;
            let letters = producer.dead_letters(POISON).await;
            let letters = letters.expect("the queue is there").len();
            let results = story.results_waiting().await as usize;
            if letters >= dead && results >= 2 * GOOD + rejected.len() {
                return (letters, results);
            }
        }
    };
    let settled = timeout(PATIENCE, settled).await;
    let settled = settled.expect("all of them in time");
    assert_eq!(settled, (dead, 2 * GOOD + rejected.len()));
    assert_eq!(worker.try_wait().expect("our own child"), None);
    producer.close().await;
}
