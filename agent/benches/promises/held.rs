//! What a held run takes in the worker's memory.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sparkferry_testkit::engine::fake::{FakeEngine, World};
use tokio::time::{interval, sleep, timeout};

use super::ground::{Ground, PATIENCE, fake_work, resident_kib};
use super::table::Table;

/// Runs held at once.
const RUNS: u32 = 20_000;
/// The most that one of them may take, in bytes.
const MOST: usize = 6 << 10;
/// Until what was begun is done, and memory that is free is given back.
const CALM: Duration = Duration::from_secs(3);

/// With the engine in memory, whose own runs count too.
pub(crate) async fn measure(table: &mut Table) {
    let ground = Ground::new().await;
    let world = World::default();
    // Once around: what the first requests set up stays, and belongs to none of them.
    let worker = ground.worker(Arc::new(FakeEngine::new(world.clone())), RUNS);
    ground.warm_up(1000, &fake_work(&json!({}))).await;
    sleep(CALM).await;
    let (before, started) = (resident_kib("self"), world.runs_started());

    let long = Duration::from_hours(1).as_millis();
    let work = fake_work(&json!({"duration_ms": u64::try_from(long).expect("an hour")}));
    let runs = usize::try_from(RUNS).expect("a count");
    ground.fill(runs, &work).await;
    let mut looks = interval(Duration::from_millis(100));
    let begun = timeout(PATIENCE, async {
        while world.runs_started() < started + runs {
            looks.tick().await;
        }
    });
    begun.await.expect("all of them begin");
    sleep(CALM).await;
    tell(table, "memory", before, resident_kib("self"), runs);
    worker.stop().await;
    ground.leave().await;
}

/// Tells what a run takes.
pub(crate) fn tell(table: &mut Table, engine: &str, before: usize, after: usize, runs: usize) {
    let each = after.saturating_sub(before) * 1024 / runs;
    table.promise(
        &format!("a held run of {runs}, engine: {engine}"),
        "at most 6.0 KiB",
        format!(
            "{}.{} KiB (from {} to {} MiB)",
            each / 1024,
            each % 1024 * 10 / 1024,
            before / 1024,
            after / 1024
        ),
        each <= MOST,
    );
}
