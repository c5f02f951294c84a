//! A worker is killed at a chosen call, before the server hears of it or after the server has done
//! it; another one is started, and comes to the one true ending.

use std::fs;
use std::path::Path;

use serde_json::json;
use sparkferry_shared::{Outcome, RunResult};
use uuid::Uuid;

use super::gate::Gate;
use super::gate::Hold::{self, After, Before};
use super::servers::SparkServer;
use super::stage::{Stage, rows, statements, with};
use crate::stories::harness::Place;

/// Where workers die, one after the other: the number of a call is counted over all of them.
type Deaths = &'static [(&'static str, u32, Hold)];

/// Workers die so; what becomes of a request whose steps write one row, and show it.
///
/// The calls of a worker that is left alone: `Config` for the memo (1), to set it (2), for it again
/// (3); `ExecutePlan` of the table (1), `Config` (4); of the row (2), `Config` (5); of the query (3),
/// `Config` for the ending (6); then the releases.
async fn told(server: &SparkServer, deaths: Deaths, rerun_if_lost: bool) -> RunResult {
    let gate = Gate::before(server.address()).await;
    let name = format!("t{}", Uuid::now_v7().simple());
    let path = server.path(&name);
    let stage = Stage::new(Place::shared_broker(), gate.address());
    let location = path.display();
    let steps = [
        format!("CREATE TABLE {name} (n int) USING parquet LOCATION '{location}'"),
        format!("INSERT INTO {name} VALUES (7)"),
        format!("SELECT n FROM {name}"),
    ];
    let request = statements("x", &steps.each_ref().map(String::as_str));
    let request = with(request, &json!({"rerun_if_lost": rerun_if_lost}));
    let mut submitted = stage.submit(&[request]).await;
    for (held, (call, number, hold)) in (1..).zip(deaths) {
        gate.hold(call, *number, *hold);
        let mut worker = stage.ground.worker();
        gate.held(held).await;
        // SIGKILL, and its end awaited.
        worker.kill().await.expect("our own child");
    }
    let _last = stage.ground.worker();
    let result = submitted.result().await;
    submitted.producer.close().await;
    // Whoever takes the next request has nothing more to tell of this one.
    let mut later = stage.submit(&[statements("later", &["SELECT 1"])]).await;
    assert_eq!(later.result().await.outcome, Outcome::Success);
    later.producer.close().await;
    let results = stage.ground.results_there().await;
    assert_eq!(results.len(), 2, "{deaths:?}: {results:?}");
    let written = rows_in(&path);
    assert!(written <= 1, "{deaths:?}: {written} rows, {result:?}");
    if result.outcome == Outcome::Success {
        assert_eq!(written, 1, "{deaths:?}: {result:?}");
        assert_eq!(result.attempts.len(), 1, "{deaths:?}: {result:?}");
    }
    result
}

async fn succeeds(server: &SparkServer, deaths: Deaths) -> RunResult {
    let result = told(server, deaths, false).await;
    assert_eq!(result.outcome, Outcome::Success, "{deaths:?}: {result:?}");
    result
}

async fn succeeds_with_rows(server: &SparkServer, deaths: Deaths) {
    let result = succeeds(server, deaths).await;
    assert_eq!(rows(&result, 2), json!([[7]]), "{deaths:?}: {result:?}");
}

async fn is_lost(server: &SparkServer, deaths: Deaths) {
    let result = told(server, deaths, false).await;
    assert_eq!(result.outcome, Outcome::Lost, "{deaths:?}: {result:?}");
}

/// Nobody can tell whether it ran: LOST, unless it may be run again.
async fn is_lost_unless_it_may_run_again(server: &SparkServer, deaths: Deaths) {
    is_lost(server, deaths).await;
    let result = told(server, deaths, true).await;
    assert_eq!(result.outcome, Outcome::Success, "{deaths:?}: {result:?}");
}

/// Each insert of one row is one file of parquet.
fn rows_in(folder: &Path) -> usize {
    let Ok(files) = fs::read_dir(folder) else {
        return 0;
    };
    let names = files.map(|file| file.expect("a file").file_name());
    let parquet = names.filter(|name| {
        let name = name.to_string_lossy();
        name.ends_with(".parquet") && !name.starts_with(['.', '_'])
    });
    parquet.count()
}

/// All points. Sail keeps no answers that were sent, so that an operation whose answers were on their
/// way, or whose end was not written down, is LOST; its row is never written twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sail() {
    let server = SparkServer::sail().await;
    let points: &[Deaths] = &[
        &[("Config", 1, Before)],
        &[("Config", 1, After)],
        &[("Config", 2, Before)],
    ];
    for &deaths in points {
        is_lost_unless_it_may_run_again(&server, deaths).await;
    }
    let points: &[Deaths] = &[
        &[("Config", 2, After)],
        &[("Config", 3, Before)],
        &[("Config", 3, After)],
        &[("ExecutePlan", 1, Before)],
        &[("Config", 4, After)],
        &[("ExecutePlan", 2, Before)],
        &[("Config", 5, After)],
        &[("ExecutePlan", 3, Before)],
        &[("Config", 3, Before), ("ExecutePlan", 1, Before)],
    ];
    for &deaths in points {
        succeeds_with_rows(&server, deaths).await;
    }
    let points: &[Deaths] = &[
        &[("Config", 6, After)],
        &[("ReleaseExecute", 1, Before)],
        &[("ReleaseExecute", 1, After)],
        &[("ReleaseSession", 1, Before)],
        &[("ReleaseSession", 1, After)],
    ];
    for &deaths in points {
        succeeds(&server, deaths).await;
    }
    let points: &[Deaths] = &[&[("Config", 4, Before)], &[("Config", 5, Before)]];
    for &deaths in points {
        is_lost(&server, deaths).await;
    }
    // Its answers may have been sent by then, or not.
    let result = told(&server, &[("ExecutePlan", 2, After)], false).await;
    let outcome = result.outcome;
    assert!(
        matches!(outcome, Outcome::Lost | Outcome::Success),
        "{result:?}"
    );
}

/// Those that matter: around the writing step, and whoever takes over dies too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_apache_spark() {
    let server = SparkServer::apache().await;
    is_lost_unless_it_may_run_again(&server, &[("Config", 2, Before)]).await;
    let points: &[Deaths] = &[
        &[("Config", 2, After)],
        &[("Config", 3, After)],
        &[("ExecutePlan", 1, Before)],
        &[("ExecutePlan", 1, After)],
        &[("Config", 4, Before)],
        &[("ExecutePlan", 2, Before)],
        &[("ExecutePlan", 2, After)],
        &[("Config", 5, Before)],
        &[("Config", 5, After)],
        &[("Config", 6, Before)],
        &[("Config", 6, After)],
        &[("ExecutePlan", 2, After), ("ReattachExecute", 1, Before)],
        &[
            ("ExecutePlan", 2, After),
            ("ReattachExecute", 1, After),
            ("ReattachExecute", 3, After),
            ("ReleaseExecute", 1, Before),
        ],
        &[("ReleaseExecute", 2, After)],
        &[("ReleaseSession", 1, Before)],
        &[("ReleaseSession", 1, After)],
    ];
    for &deaths in points {
        succeeds_with_rows(&server, deaths).await;
    }
}
