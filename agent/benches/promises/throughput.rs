//! The worker beside a bare loop: the same broker, queues, messages and prefetch, turn by turn.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::json;
use sparkferry_testkit::engine::fake::{FakeEngine, World};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::ground::{CONNECTION, Ground, fake_work};
use super::table::Table;

/// Requests of one turn.
const REQUESTS: usize = 10_000;
/// Turns of each.
const ROUNDS: usize = 5;
/// Deliveries held at a time.
const PREFETCH: u16 = 500;
/// About so many bytes has the result of a run that succeeded and produced nothing.
const RESULT_BYTES: usize = 640;
/// Acknowledgements wait so long for company, as the worker's do.
const GATHER: Duration = Duration::from_millis(2);
/// What is wanted: the worker against the bare loop.
const AT_LEAST: f64 = 0.5;

pub(crate) async fn measure(table: &mut Table) {
    let ground = Ground::new().await;
    let mut ratios = Vec::new();
    let (mut bare, mut worker) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // Neither is always the first.
        for turn in [round % 2, 1 - round % 2] {
            if turn == 0 {
                bare.push(bare_turn(&ground).await);
            } else {
                worker.push(worker_turn(&ground).await);
            }
        }
        ratios.push(worker[round] / bare[round]);
    }
    for speeds in [&mut bare, &mut worker, &mut ratios] {
        speeds.sort_by(f64::total_cmp);
    }
    let middle = ROUNDS / 2;
    table.promise(
        "worker beside a bare lapin loop",
        "at least 0.5 of it",
        format!(
            "{:.2} ({:.2} to {:.2} in {ROUNDS} rounds)",
            ratios[middle],
            ratios[0],
            ratios[ROUNDS - 1]
        ),
        ratios[middle] >= AT_LEAST,
    );
    table.note(
        "requests a second, median",
        format!("worker {:.0}, bare {:.0}", worker[middle], bare[middle]),
    );
    ground.leave().await;
}

async fn worker_turn(ground: &Ground) -> f64 {
    ground.fill(REQUESTS, &fake_work(&json!({}))).await;
    let engine = Arc::new(FakeEngine::new(World::default()));
    let worker = ground.worker(engine, PREFETCH.into());
    let speed = speed(ground).await;
    worker.stop().await;
    ground.forget_results().await;
    speed
}

async fn bare_turn(ground: &Ground) -> f64 {
    ground.fill(REQUESTS, &fake_work(&json!({}))).await;
    let stop = CancellationToken::new();
    let told = stop.clone();
    let (url, requests, results) = (
        ground.url.clone(),
        ground.topology.requests_queue(CONNECTION),
        ground.topology.results_exchange(),
    );
    let looping = tokio::spawn(async move {
        let connect = || Connection::connect(&url, ConnectionProperties::default());
        let receiving = connect().await.expect("a connection");
        let publishing = connect().await.expect("a connection");
        let channel = receiving.create_channel().await.expect("a channel");
        let publisher = publishing.create_channel().await.expect("a channel");
        bare_loop(&channel, &publisher, &requests, &results, &told).await;
        for connection in [receiving, publishing] {
            let closed = connection.close(200, "done".into()).await;
            closed.expect("closed");
        }
    });
    let speed = speed(ground).await;
    stop.cancel();
    looping.await.expect("no panic");
    ground.forget_results().await;
    speed
}

/// Results a second: from the first tenth to the last one, so that neither's start counts.
async fn speed(ground: &Ground) -> f64 {
    let results = ground.topology.results_queue();
    ground.until_waiting(&results, REQUESTS / 10).await;
    let (began, before) = (Instant::now(), ground.waiting(&results).await);
    ground.until_waiting(&results, REQUESTS).await;
    let counted = u32::try_from(REQUESTS - before).expect("a count");
    f64::from(counted) / began.elapsed().as_secs_f64()
}

/// Consume, publish, confirm, acknowledge: as fast as lapin does it, and nothing else.
async fn bare_loop(
    channel: &Channel,
    publisher: &Channel,
    requests: &str,
    results: &str,
    stop: &CancellationToken,
) {
    let confirms = ConfirmSelectOptions::default();
    publisher.confirm_select(confirms).await.expect("confirms");
    let qos = BasicQosOptions::default();
    channel.basic_qos(PREFETCH, qos).await.expect("qos");
    let consumer = channel.basic_consume(
        requests.into(),
        "".into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    let mut consumer = consumer.await.expect("a consumer");
    let body = vec![b'r'; RESULT_BYTES];
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(2);
    let key = format!("{CONNECTION}.SUCCESS");
    let mut under_way = FuturesOrdered::new();
    let (mut confirmed, mut told) = (0, 0);
    let mut gather = interval(GATHER);
    gather.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            delivered = consumer.next() => {
                let delivered = delivered.expect("a delivery").expect("a delivery");
                let options = BasicPublishOptions { mandatory: true, immediate: false };
                let sent = publisher.basic_publish(
                    results.into(),
                    key.as_str().into(),
                    options,
                    &body,
                    properties.clone(),
                );
                let confirm = sent.await.expect("sent");
                let tag = delivered.delivery_tag;
                under_way.push_back(async move { (tag, confirm.await) });
            }
            Some((tag, confirm)) = under_way.next() => {
                assert!(confirm.expect("a confirm").is_ack());
                confirmed = tag;
            }
            _ = gather.tick() => if confirmed > told {
                told = confirmed;
                let options = BasicAckOptions { multiple: true };
                channel.basic_ack(told, options).await.expect("acknowledged");
            },
            () = stop.cancelled(), if confirmed == told => return,
        }
    }
}
