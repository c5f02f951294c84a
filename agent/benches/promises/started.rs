//! How long it takes from publishing a request to its run's start; and how long a bare consumer
//! waits for the same message, which is what the broker and the machine themselves take.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use jiff::Timestamp;
use lapin::options::BasicConsumeOptions;
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use serde_json::{Value, json};
use sparkferry_agent::engine::table as engines;
use sparkferry_ports::engine::Engine;
use sparkferry_shared::{Key, Names};
use sparkferry_testkit::engine::fake::{FakeEngine, World};
use tokio::time::{interval, sleep};

use super::ground::{CONNECTION, Ground, Workspace, fake_work, sandbox_work};
use super::table::{Table, percentile};

/// Requests a second.
const A_SECOND: u32 = 100;
/// Requests altogether.
const REQUESTS: usize = 1000;
/// At most so many milliseconds.
const MOST_MS: f64 = 25.0;
/// How long a run takes, and how long the last of them may take to begin.
const RUN: Duration = Duration::from_millis(200);
const LAST: Duration = Duration::from_secs(2);

pub(crate) async fn measure(table: &mut Table) {
    let world = World::default();
    let engine = Arc::new(FakeEngine::new(world.clone()));
    let work = fake_work(&json!({"duration_ms": 200}));
    let published = publish(engine, &work).await;
    let began = |key: &Key| world.started_at(key);
    tell(table, "memory", &published, began);

    let workspace = Workspace::start().await;
    let ground = Ground::new().await;
    let connection = format!("host = \"{}\"\nsubmit_per_second = 500", workspace.host);
    let settings = ground.settings("", &connection);
    ground.leave().await;
    let engine = engines::open(CONNECTION, &settings.connections[CONNECTION], &settings);
    let published = publish(engine.expect("an engine"), &sandbox_work(RUN)).await;
    let runs = workspace.page("runs").await;
    let began: HashMap<&str, i64> = runs
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|run| Some((run["token"].as_str()?, run["start_time"].as_i64()?)))
        .collect();
    let began = |key: &Key| {
        let began = began.get(&*key.to_string())?;
        Timestamp::from_millisecond(*began).ok()
    };
    tell(table, "databricks", &published, began);
    bare(table).await;
}

/// The same requests, with nobody but a consumer at the other end.
async fn bare(table: &mut Table) {
    let ground = Ground::new().await;
    let connected = Connection::connect(&ground.url, ConnectionProperties::default()).await;
    let connection = connected.expect("RabbitMQ answers");
    let channel = connection.create_channel().await.expect("a channel");
    let consumer = channel.basic_consume(
        ground.topology.requests_queue(CONNECTION).into(),
        "".into(),
        BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        },
        FieldTable::default(),
    );
    let mut consumer = consumer.await.expect("a consumer");
    let hearing = tokio::spawn(async move {
        let mut heard = Vec::with_capacity(REQUESTS);
        while heard.len() < REQUESTS {
            let delivered = consumer.next().await.expect("a delivery");
            delivered.expect("a delivery");
            // In one queue they arrive in the order in which they set out.
            heard.push(Timestamp::now());
        }
        heard
    });
    let mut pace = interval(Duration::from_secs(1) / A_SECOND);
    let mut published = Vec::with_capacity(REQUESTS);
    for number in 0..REQUESTS {
        pace.tick().await;
        let id = format!("request-{number}");
        published.push(ground.publish(&id, &fake_work(&json!({}))).await);
    }
    let heard = hearing.await.expect("no panic");
    let pairs = heard.into_iter().zip(published);
    let mut waits: Vec<f64> = pairs.map(|(heard, at)| milliseconds(heard, at)).collect();
    table.note(
        &format!("published to heard by a bare consumer, {A_SECOND} a second"),
        shares(&mut waits),
    );
    let closed = connection.close(200, "done".into()).await;
    closed.expect("closed");
    ground.leave().await;
}

/// Publishes requests at an even pace; returns the names of their runs and when they set out.
async fn publish(engine: Arc<dyn Engine>, work: &Value) -> Vec<(Key, Timestamp)> {
    let ground = Ground::new().await;
    let worker = ground.worker(engine, 1000);
    // Its start is no part of any request's way.
    ground.warm_up(100, work).await;
    let mut published = Vec::with_capacity(REQUESTS);
    let mut pace = interval(Duration::from_secs(1) / A_SECOND);
    let namespace = ground.topology.namespace();
    for number in 0..REQUESTS {
        pace.tick().await;
        let id = format!("request-{number}");
        let key = Names::new(namespace, CONNECTION, &id).key(1);
        published.push((key, ground.publish(&id, work).await));
    }
    sleep(LAST).await;
    worker.stop().await;
    ground.leave().await;
    published
}

fn tell(
    table: &mut Table,
    engine: &str,
    published: &[(Key, Timestamp)],
    began: impl Fn(&Key) -> Option<Timestamp>,
) {
    let waits = published.iter().map(|(key, at)| {
        let began = began(key).expect("every request begins");
        milliseconds(began, *at)
    });
    let mut waits: Vec<f64> = waits.collect();
    let seen = shares(&mut waits);
    table.promise(
        &format!("published to started, {A_SECOND} a second, engine: {engine}"),
        "within 25 ms",
        seen,
        percentile(&waits, 99) <= MOST_MS,
    );
}

fn milliseconds(later: Timestamp, earlier: Timestamp) -> f64 {
    later.duration_since(earlier).as_secs_f64() * 1000.0
}

/// Sorts the waits, and tells them in words.
fn shares(waits: &mut [f64]) -> String {
    waits.sort_by(f64::total_cmp);
    let (half, most) = (percentile(waits, 50), percentile(waits, 99));
    format!("half within {half:.1} ms, 99 % within {most:.1} ms")
}
