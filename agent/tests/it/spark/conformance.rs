//! The engine's promises, kept on real servers.
//!
//! On Apache Spark every run that is counted writes a row, so that what is counted is what was
//! done. Sail can't write and answer in one operation, and counts nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::{Value, json};
use sparkferry_agent::config::SparkConnectSettings;
use sparkferry_agent::engine::spark_connect::SparkConnectEngine;
use sparkferry_ports::engine::Engine;
use sparkferry_shared::{Key, Work};
use sparkferry_testkit::engine::conformance::{self, Harness, SAID, Scenario};
use uuid::Uuid;

use super::client::BareClient;
use super::servers::SparkServer;

/// Who all workers of a ground are to the server.
pub(super) const USER: &str = "sparkferry-conformance";

/// As another worker has it.
pub(super) fn engine_at(address: SocketAddr) -> Arc<SparkConnectEngine> {
    let settings = SparkConnectSettings {
        endpoint: format!("http://{address}/").parse().expect("an address"),
        user_id: None,
        headers: Vec::new(),
        ca_file: None,
        token: None,
        compute: None,
        max_active_runs: 16,
    };
    let engine = SparkConnectEngine::new("conformance", "conformance", 256 * 1024, &settings);
    Arc::new(engine.expect("a client"))
}

/// Statements as a request's work.
pub(super) fn steps(statements: &[String]) -> Work {
    let steps: Vec<Value> = statements.iter().map(|sql| json!({ "sql": sql })).collect();
    let work = serde_json::from_value(json!({ "steps": steps }));
    Work::SparkConnect(work.expect("steps"))
}

/// Something that takes minutes, and can be interrupted.
pub(super) const LONG: &str = "SELECT count(*) FROM range(0, 10000000000000) WHERE sqrt(id) < 0";

struct Ground {
    server: SparkServer,
    /// Whether one operation can write a row and then answer.
    writes: bool,
    /// The mark of the rows of the check under way, and who of its runs wrote how many.
    counted: Mutex<(String, HashMap<Key, u64>)>,
}

impl Ground {
    fn new(server: SparkServer, writes: bool) -> Self {
        Self {
            server,
            writes,
            counted: Mutex::default(),
        }
    }

    fn client(&self) -> BareClient {
        self.server.client()
    }

    /// The statement, as one operation that writes a row first.
    fn counted(&self, mark: &str, sql: &str) -> String {
        if self.writes {
            format!("BEGIN INSERT INTO started VALUES ('{mark}'); {sql}; END")
        } else {
            sql.to_owned()
        }
    }
}

#[async_trait]
impl Harness for Ground {
    fn engine(&self) -> Arc<dyn Engine> {
        engine_at(self.server.address())
    }

    fn work(&self, scenario: Scenario) -> Option<Work> {
        let mark = Uuid::now_v7().to_string();
        let said = format!("SELECT '{SAID}' AS said");
        let once = |sql: &str| steps(&[self.counted(&mark, sql)]);
        let work = match scenario {
            Scenario::Succeeds => once(&said),
            Scenario::FailsByUser => once(&format!("SELECT raise_error('{SAID}')")),
            // An executor or a disk would have to fail; a statement can't pretend it.
            Scenario::FailsByInfrastructure => return None,
            Scenario::UntilCancelled => once(LONG),
            Scenario::ThreeTasks => steps(&[said.clone(), said.clone(), said.clone()]),
            Scenario::LargeOutput => {
                steps(&["SELECT id, repeat('all hands ', 20) AS text FROM range(900)".to_owned()])
            }
        };
        *self.counted.lock().expect("no panic") = (mark, HashMap::new());
        Some(work)
    }

    fn three_tasks(&self) -> Option<u64> {
        None
    }

    async fn runs_started(&self, key: Key) -> u64 {
        if !self.writes {
            return 1;
        }
        let mark = self.counted.lock().expect("no panic").0.clone();
        let query = format!("SELECT * FROM started WHERE mark = '{mark}'");
        let rows = self.client().rows(&query).await.expect("a count");
        let mut counted = self.counted.lock().expect("no panic");
        let others = counted.1.iter().filter(|(other, _)| **other != key);
        let others: u64 = others.map(|(_, rows)| rows).sum();
        let own = u64::try_from(rows).expect("rows") - others;
        counted.1.insert(key, own);
        own
    }

    async fn forget(&self, key: Key) {
        let mut client = self.client();
        let released = client.release(USER, key.as_uuid()).await;
        released.expect("the session is released");
    }
}

#[tokio::test]
async fn apache_spark_keeps_the_promises_of_an_engine() {
    let ground = Ground::new(SparkServer::apache().await, true);
    let table = "CREATE TABLE started (mark STRING) USING parquet";
    ground.client().rows(table).await.expect("a table");
    conformance::all(&ground).await;
}

/// Sail keeps what it can. What is left out, and why:
/// - `one_name_one_run`: the same operation asked for twice at once runs twice, and whoever reads
///   second finds nothing;
/// - `a_dropped_run_is_left_alone`: an operation whose answers were begun to be read can't be read
///   again (`task context not found for operation`).
#[tokio::test]
async fn sail_keeps_what_it_can() {
    let ground = Ground::new(SparkServer::sail().await, false);
    conformance::a_dropped_call_starts_no_second_run(&ground).await;
    conformance::each_attempt_has_its_own_run(&ground).await;
    conformance::runs_end_as_they_ended(&ground).await;
    conformance::an_ended_run_is_found_as_it_is(&ground).await;
    conformance::a_cancelled_run_ends_cancelled(&ground).await;
    conformance::a_forgotten_run_is_lost(&ground).await;
    conformance::output_is_there_and_bounded(&ground).await;
    conformance::progress_is_told(&ground).await;
}
