//! Requests, cancels and dead letters with properties that nobody should send: each costs itself at
//! most, and nobody's connection.

use std::collections::BTreeMap;

use serde_json::Value;
use sparkferry_ports::queue::{DeadLetter, Producer, SettleDead};
use sparkferry_shared::{Cancel, Outcome, RunResult};
use sparkferry_testkit::story::poison::{Becomes, Poison, all};
use sparkferry_testkit::story::raw::{RawProducer, short};
use tokio::process::Command;

use super::harness::{CONNECTION, Heard, OTHER, Place, Story, Work, count, stop};

fn url(place: &Place) -> String {
    match place {
        Place::Amqp(url) => url.clone(),
        _ => unreachable!("it is a broker"),
    }
}

/// A request with the id of the nth poison.
fn body(poison: &Poison, nth: usize) -> Vec<u8> {
    let mut work = Work::new(0, 200, "SUCCESS");
    work.id = poison.id(nth).parse().expect("an id");
    work.body()
}

fn becomes(what: Becomes) -> Vec<String> {
    let numbered = all().into_iter().enumerate();
    let chosen = numbered.filter(|(_, poison)| poison.becomes == what);
    chosen.map(|(nth, poison)| poison.id(nth)).collect()
}

/// The ids in the letters' bodies.
fn ids(letters: &[DeadLetter]) -> Vec<String> {
    let id = |letter: &DeadLetter| {
        let body: Value = serde_json::from_slice(&letter.body).expect("a request");
        body["id"].as_str().expect("it has an id").to_owned()
    };
    let mut ids: Vec<String> = letters.iter().map(id).collect();
    ids.sort_by_key(|id| {
        id.split('-')
            .nth(1)
            .and_then(|nth| nth.parse::<usize>().ok())
    });
    ids
}

async fn letters(producer: &dyn Producer) -> Vec<DeadLetter> {
    let letters = producer.dead_letters(100).await;
    letters.expect("the queue is there, and can be read")
}

async fn output(command: &mut Command) -> String {
    let output = command.output().await.expect("our own program");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_rabbitmq_a_request_with_odd_properties_costs_itself_at_most() {
    let place = Place::shared_broker();
    let mut raw = RawProducer::connect(&url(&place))
        .await
        .expect("the broker is there");
    let story = Story::new(place, 600).await;
    let mut worker = story.worker();
    let work: Vec<Work> = (0..20)
        .map(|number| Work::new(number, 200, "SUCCESS"))
        .collect();
    // The queue is there as soon as something was submitted to it.
    let (producer, mut news) = story.submit(&work[..10]).await;
    let exchange = story.topology.requests_exchange();
    for (nth, poison) in all().iter().enumerate() {
        let body = body(poison, nth);
        let sent = raw.publish(&exchange, CONNECTION.as_bytes(), &poison.properties, &body);
        sent.await
            .unwrap_or_else(|error| panic!("{}: {error}", poison.name));
    }
    let mut heard = Heard::default();
    heard.listen(&mut news, 10).await;
    producer.close().await;
    let (producer, mut news) = story.submit(&work[10..]).await;
    heard.listen(&mut news, 20).await;

    let run = becomes(Becomes::Succeeds);
    let results = story.take_results(20 + run.len()).await;
    let results: BTreeMap<String, RunResult> = results
        .into_iter()
        .map(|result| (result.id.to_string(), result))
        .collect();
    for id in run {
        assert_eq!(results[&id].outcome, Outcome::Success, "{id}");
    }
    let buried = letters(&*producer).await;
    assert_eq!(ids(&buried), becomes(Becomes::Buried));
    for letter in &buried {
        assert_eq!(letter.reason, "unreadable_properties");
        assert_eq!(letter.connection.as_deref(), Some(CONNECTION));
    }
    assert_eq!(worker.try_wait().expect("our own child"), None);
    let log = story.log();
    assert!(
        !log.contains("can't be used") && !log.contains("panicked"),
        "{log}"
    );

    // What was wrong with them was left behind: sent back, they run.
    let requeued = producer.settle_dead(SettleDead::Requeue, 100).await;
    assert_eq!(requeued.expect("all of them"), buried.len());
    let results = story.take_results(buried.len()).await;
    assert!(
        results
            .iter()
            .all(|result| result.outcome == Outcome::Success)
    );
    stop(&mut worker).await;
    producer.close().await;
}

/// To the requests of another connection a result would be a request, among the results one of somebody
/// else's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_rabbitmq_nobody_has_results_sent_to_a_queue_of_ours() {
    let place = Place::shared_broker();
    let raw = RawProducer::connect(&url(&place)).await;
    let mut raw = raw.expect("the broker is there");
    let story = Story::new(place, 600).await;
    let mut worker = story.worker();
    // The queue is there as soon as something was submitted to it.
    let (producer, mut news) = story.submit(&[Work::new(9, 200, "SUCCESS")]).await;
    Heard::default().listen(&mut news, 1).await;
    story.take_results(1).await;
    let topology = &story.topology;
    let queues = [
        topology.results_queue(),
        topology.requests_queue(OTHER),
        topology.dead_queue(),
    ];
    for (nth, queue) in queues.iter().enumerate() {
        let mut work = Work::new(nth, 200, "SUCCESS");
        work.id = format!("forged-{nth}").parse().expect("an id");
        let properties = [&(1_u16 << 9).to_be_bytes()[..], &short(queue.as_bytes())].concat();
        let exchange = topology.requests_exchange();
        let key = CONNECTION.as_bytes();
        let body = work.body();
        let sent = raw.publish(&exchange, key, &properties, &body);
        sent.await.expect("the broker takes it");
    }
    let results = story.take_results(queues.len()).await;
    for result in results {
        assert_eq!(result.outcome, Outcome::Rejected, "{}", result.id);
        let error = result.error.expect("it tells why").message;
        assert!(error.starts_with("reply_to: "), "{error}");
    }
    let stats = story.workspace.stats().await;
    assert_eq!(count(&stats, "/runs_started"), 1);
    stop(&mut worker).await;
    assert_eq!(story.results_waiting().await, 0);
    assert_eq!(letters(&*producer).await.len(), 0);
    producer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_rabbitmq_dead_letters_with_odd_properties_can_be_listed_and_dropped() {
    let place = Place::shared_broker();
    let mut raw = RawProducer::connect(&url(&place))
        .await
        .expect("the broker is there");
    let story = Story::new(place, 600).await;
    let producer = story.producer().await;
    let exchange = story.topology.dead_exchange();
    for (nth, poison) in all().iter().enumerate() {
        let body = body(poison, nth);
        let sent = raw.publish(&exchange, b"caf\xe9", &poison.properties, &body);
        sent.await
            .unwrap_or_else(|error| panic!("{}: {error}", poison.name));
    }
    let there = letters(&*producer).await;
    assert_eq!(there.len(), all().len());
    let listed = output(story.command("dead").args(["list", "--json"])).await;
    assert!(
        listed.contains("headers are nested more than 32 deep"),
        "{listed}"
    );
    // Nothing tells where they came from: they stay.
    let requeued = producer.settle_dead(SettleDead::Requeue, 100).await;
    assert_eq!(requeued.expect("the queue is there"), 0);
    output(story.command("dead").arg("drop")).await;
    assert_eq!(letters(&*producer).await.len(), 0);
    producer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_rabbitmq_a_cancel_with_odd_properties_keeps_no_worker_from_the_others() {
    let place = Place::shared_broker();
    let mut raw = RawProducer::connect(&url(&place))
        .await
        .expect("the broker is there");
    let story = Story::new(place, 600).await;
    let work = Work::new(1, 600_000, "SUCCESS");
    let (producer, mut news) = story.submit(std::slice::from_ref(&work)).await;
    let exchange = story.topology.control_exchange();
    for poison in all() {
        let sent = raw.publish(&exchange, b"caf\xe9", &poison.properties, b"{}");
        sent.await
            .unwrap_or_else(|error| panic!("{}: {error}", poison.name));
    }
    // It is before a worker that starts later, and so is the cancel that counts.
    let cancel = Cancel {
        cancel: work.id.clone(),
        connection: None,
        reason: Some("enough".to_owned()),
    };
    producer.cancel(&cancel).await.expect("the stream is there");
    let mut worker = story.worker();
    let mut heard = Heard::default();
    heard.listen(&mut news, 1).await;
    assert_eq!(heard.results[&work.id].outcome, Outcome::Canceled);
    let log = story.log();
    assert!(!log.contains("can't be read, trying again"), "{log}");
    assert!(!log.contains("can't be used"), "{log}");
    stop(&mut worker).await;
    producer.close().await;
}
