//! How long it takes from publishing a request to its run's start.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use sparkferry_agent::engine::fake::{FakeEngine, World};
use sparkferry_agent::engine::{Engine, table as engines};
use sparkferry_shared::{Key, Names};
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
    let engine = engines::open(CONNECTION, &settings.connections[CONNECTION]);
    let published = publish(engine.expect("an engine"), &sandbox_work(RUN)).await;
    let runs = workspace.tell("runs").await;
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
        began.duration_since(*at).as_secs_f64() * 1000.0
    });
    let mut waits: Vec<f64> = waits.collect();
    waits.sort_by(f64::total_cmp);
    let (half, most) = (percentile(&waits, 50), percentile(&waits, 99));
    table.promise(
        &format!("published to started, {A_SECOND} a second, engine: {engine}"),
        "within 25 ms",
        format!("half within {half:.1} ms, 99 % within {most:.1} ms"),
        most <= MOST_MS,
    );
}
