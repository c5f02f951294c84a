//! `sparkferry dead` over letters that a worker buried.

use serde_json::Value;
use sparkferry_agent::queue::sqlite::{SqliteProducer, SqliteQueue};
use sparkferry_ports::queue::{Producer, Queue};
use sparkferry_shared::Topology;
use sparkferry_shared::decode::Unreadable;

use super::Place;

/// Has a worker bury so many messages of the connection `prod`.
async fn bury(place: &Place, letters: usize) {
    let file = place.folder.path().join("queue.db");
    let topology = Topology::new("sparkferry");
    let producer = SqliteProducer::open(&file, &topology).unwrap();
    for number in 0..letters {
        let id = format!("letter-{number}").parse().unwrap();
        let body = format!("no JSON {number}");
        producer.submit("prod", &id, body.into()).await.unwrap();
    }
    producer.close().await;
    let worker = SqliteQueue::open(&file, &topology, "w").unwrap();
    let mut deliveries = worker.consume("prod", 10).await;
    let why = Unreadable::NotJson("expected ident".to_owned());
    for _ in 0..letters {
        let delivery = deliveries.recv().await.unwrap();
        worker.bury(&delivery, &why).await.unwrap();
    }
    worker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_listed_requeued_and_dropped() {
    let place = Place::new();
    bury(&place, 3).await;
    let listed = || -> Vec<Value> {
        let ran = place.run(&["dead", "list", "--json"]).must(0, &[]);
        let lines = ran.out.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let letters = listed();
    assert_eq!(letters.len(), 3);
    assert_eq!(letters[0]["reason"], "not_json");
    assert_eq!(letters[0]["connection"], "prod");
    assert_eq!(letters[0]["body"], "no JSON 0");

    let table = place.run(&["dead", "list", "--limit", "1"]);
    let table = table.must(0, &["the oldest 1"]);
    assert!(table.out.contains("not_json") && table.out.contains("no JSON 0"));
    assert!(!table.out.contains("no JSON 1"));

    let dropped = place
        .run(&["dead", "drop", "--limit", "1"])
        .must(0, &["more"]);
    assert_eq!(dropped.out, "1 dropped\n");
    let requeued = place.run(&["dead", "requeue", "--json"]).must(0, &[]);
    assert_eq!(requeued.out, "{\"requeued\":2}\n");
    assert!(listed().is_empty());
}
