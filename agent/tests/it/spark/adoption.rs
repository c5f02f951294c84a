//! Workers that die, as the engine sees it: one is dropped, the next one finds what it left.
//!
//! What was really done is counted by the rows of a table.

use std::sync::Arc;
use std::time::Duration;

use spark_connect_proto::get_status_response::operation_status::OperationState;
use sparkferry_agent::engine::spark_connect::SparkConnectEngine;
use sparkferry_ports::engine::{CLOSED, Change, Ended, Fault, Unknown};
use sparkferry_shared::ErrorClass;
use tokio::time::{interval, timeout};

use super::asked::{Asked, PATIENCE, change, end, output};
use super::conformance::{LONG, USER, engine_at};
use super::gate::{Gate, Hold};
use super::servers::SparkServer;

/// Takes some seconds, and writes one row.
fn slow_insert(mark: &str) -> String {
    format!(
        "INSERT INTO marks SELECT '{mark}' FROM \
         (SELECT count(*) AS n FROM range(0, 400000000) WHERE sqrt(id) < 0) WHERE n = 0"
    )
}

/// The stories share a server: each takes a minute to begin with.
struct Story {
    server: SparkServer,
}

impl Story {
    fn engine(&self) -> Arc<SparkConnectEngine> {
        engine_at(self.server.address())
    }

    async fn marks(&self, mark: &str) -> i64 {
        let query = format!("SELECT * FROM marks WHERE mark = '{mark}'");
        self.server.client().rows(&query).await.expect("a count")
    }

    async fn with_table(server: SparkServer) -> Self {
        let table = "CREATE TABLE marks (mark STRING) USING parquet";
        server.client().rows(table).await.expect("a table");
        Self { server }
    }

    /// In the middle of a slow INSERT.
    async fn killed_while_a_step_runs(&self) {
        let asked = Asked::new(&[slow_insert("running")]);
        let first = self.engine();
        let mut begun = asked.begin(&*first).await;
        assert!(!begun.adopted);
        assert!(matches!(change(&mut *begun.run).await, Change::State(_)));
        let start = begun.run.facts().started_at;
        drop((begun, first));

        let mut found = asked.take_over(&*self.engine()).await;
        assert!(found.adopted);
        assert_eq!(end(&mut *found.run).await, Ended::Success);
        let facts = found.run.facts();
        assert!(facts.adopted);
        assert_eq!(
            facts.started_at, start,
            "a timeout counts from the same moment"
        );
        assert_eq!(facts.operation_ids, [asked.names.key(1).step(1)]);
        assert_eq!(self.marks("running").await, 1);
        found.run.release().await;
    }

    /// At every step, as soon as it is begun; the last worker finds all rows.
    async fn killed_at_every_step(&self) {
        let insert = "INSERT INTO marks VALUES ('steps')".to_owned();
        let count = "SELECT count(*) AS n FROM marks WHERE mark = 'steps'".to_owned();
        let asked = Asked::new(&[insert.clone(), count.clone(), insert, count]);
        drop(asked.begin(&*self.engine()).await);
        for step in 2..=4 {
            let mut found = asked.take_over(&*self.engine()).await;
            while found.run.facts().operation_ids.len() < step {
                change(&mut *found.run).await;
            }
        }
        let mut found = asked.take_over(&*self.engine()).await;
        assert_eq!(end(&mut *found.run).await, Ended::Success);
        let output = output(&mut *found.run).await;
        assert_eq!(output["steps"][1]["rows"], serde_json::json!([[1]]));
        assert_eq!(output["steps"][3]["rows"], serde_json::json!([[2]]));
        assert_eq!(self.marks("steps").await, 2);
        // Acknowledged, it is forgotten, and its name can't be used again.
        found.run.release().await;
        let again = asked
            .try_attach(&*self.engine(), true, Unknown::Start)
            .await;
        assert!(matches!(again, Err(Fault::Lost(_))), "{again:?}");
    }

    /// Two that don't know of each other: both come to the same ending.
    async fn two_at_once(&self) {
        let asked = Asked::new(&[slow_insert("two"), "SELECT 7 AS n".to_owned()]);
        let (one, other) = (self.engine(), self.engine());
        let mut begun = asked.begin(&*one).await;
        let mut found = asked.take_over(&*other).await;
        let ended = tokio::join!(end(&mut *begun.run), end(&mut *found.run));
        assert_eq!(ended, (Ended::Success, Ended::Success));
        for run in [&mut begun.run, &mut found.run] {
            let output = output(&mut **run).await;
            assert_eq!(output["steps"][1]["rows"], serde_json::json!([[7]]));
        }
        assert_eq!(self.marks("two").await, 1);
    }

    /// More rows than the server keeps: they are gone with the worker that read them, and the
    /// server's word about the ending is enough.
    async fn rows_that_were_read_are_gone(&self) {
        let large = "SELECT id, repeat('x', 1000) AS text FROM range(40000)".to_owned();
        let asked = Asked::new(&[large]);
        let mut begun = asked.begin(&*self.engine()).await;
        assert_eq!(end(&mut *begun.run).await, Ended::Success);
        drop(begun);
        for memo in [true, false] {
            if !memo {
                let mut client = self.server.client();
                let unset = client.unset(USER, asked.session(), "sparkferry.run").await;
                unset.expect("the memo is gone");
            }
            let mut found = asked.take_over(&*self.engine()).await;
            assert_eq!(end(&mut *found.run).await, Ended::Success, "memo: {memo}");
            let output = output(&mut *found.run).await;
            assert_eq!(output["steps"][0]["truncated"], true, "{output}");
            assert!(output["steps"][0]["unavailable"].is_string(), "{output}");
        }
    }

    /// A cancel is for the run, whoever drives it.
    async fn cancelled_by_another_worker(&self) {
        let asked = Asked::new(&[
            LONG.to_owned(),
            "INSERT INTO marks VALUES ('never')".to_owned(),
        ]);
        drop(asked.begin(&*self.engine()).await);
        let mut found = asked.take_over(&*self.engine()).await;
        found.run.cancel().await.expect("it is delivered");
        let ended = end(&mut *found.run).await;
        assert!(matches!(ended, Ended::Canceled(_)), "{ended:?}");
        let mut later = asked.take_over(&*self.engine()).await;
        assert_eq!(end(&mut *later.run).await, ended);
        assert_eq!(self.marks("never").await, 0);
    }

    /// Another operation has the name already: by its name it is this one, and it is followed.
    async fn the_name_is_taken_by_another_plan(&self) {
        let gate = Gate::before(self.server.address()).await;
        let engine = engine_at(gate.address());
        let asked = Asked::new(&["INSERT INTO marks VALUES ('late')".to_owned()]);
        gate.hold("ExecutePlan", 1, Hold::Before);
        let first = async {
            gate.held(1).await;
            let mut other = self.server.client();
            let key = asked.names.key(1);
            let begun = other.execute(USER, key, 1, "INSERT INTO marks VALUES ('first')");
            begun.await.expect("it begins");
            gate.open();
        };
        let (mut begun, ()) = tokio::join!(asked.begin(&*engine), first);
        assert_eq!(end(&mut *begun.run).await, Ended::Success);
        assert_eq!(self.marks("first").await, 1);
        assert_eq!(self.marks("late").await, 0);
    }

    /// The session is ended while its run goes on, by somebody who may: nobody runs it again.
    async fn the_session_is_closed(&self) {
        let asked = Asked::new(&[LONG.to_owned()]);
        let gate = Gate::before(self.server.address()).await;
        let mut begun = asked.begin(&*engine_at(gate.address())).await;
        assert!(matches!(change(&mut *begun.run).await, Change::State(_)));
        drop(begun);
        let mut client = self.server.client();
        let released = client.release(USER, asked.session()).await;
        released.expect("the session is released");
        for unknown in [Unknown::Lost, Unknown::Start] {
            let found = asked.try_attach(&*self.engine(), true, unknown).await;
            let Err(Fault::Lost(error)) = found else {
                panic!("it is lost: {found:?}");
            };
            assert_eq!(error.code.as_deref(), Some(CLOSED));
        }
    }

    /// A server that starts again knows nothing: what ran is lost, and not run again unasked.
    async fn the_server_is_killed(&mut self) {
        let asked = Asked::new(&[LONG.to_owned()]);
        let mut begun = asked.begin(&*self.engine()).await;
        assert!(matches!(change(&mut *begun.run).await, Change::State(_)));
        let gate = Gate::before(self.server.address()).await;
        let changed = Asked::new(&[LONG.to_owned()]);
        let mut other = changed.begin(&*engine_at(gate.address())).await;
        assert!(matches!(change(&mut *other.run).await, Change::State(_)));
        gate.hold("ReattachExecute", 1, Hold::Before);
        self.server.kill().await;
        let (ended, ()) = tokio::join!(end(&mut *other.run), async {
            gate.held(1).await;
            self.server.start_again().await;
            // Somebody was faster, and the session is there again, with nothing in it.
            let mut client = self.server.client();
            let touched = client.unset(USER, changed.session(), "x").await;
            touched.expect("the session is there");
            gate.open();
        });
        let Ended::Lost(failure) = ended else {
            panic!("it is lost: {ended:?}");
        };
        let message = &failure.error.message;
        assert!(message.contains("was restarted meanwhile"), "{message}");

        let Ended::Lost(failure) = end(&mut *begun.run).await else {
            panic!("it is lost");
        };
        assert_eq!(failure.error.class, ErrorClass::Lost);
        let found = asked.try_attach(&*self.engine(), true, Unknown::Lost).await;
        assert!(matches!(found, Err(Fault::Lost(_))), "{found:?}");
        // Allowed to, it gets another attempt. Whoever walks again from the first one on finds that
        // it is over, though the server forgot it.
        let next = asked.next(failure.error.clone());
        let mut second = next.begin(&*self.engine()).await;
        assert!(!second.adopted);
        let again = asked
            .try_attach(&*self.engine(), true, Unknown::Start)
            .await;
        let mut again = again.expect("it is there");
        assert_eq!(end(&mut *again.run).await, Ended::Lost(failure));
        second.run.cancel().await.expect("it is delivered");
        end(&mut *second.run).await;
    }
}

#[tokio::test]
async fn a_run_on_apache_spark_is_taken_over() {
    let mut story = Story::with_table(SparkServer::apache().await).await;
    story.killed_while_a_step_runs().await;
    story.killed_at_every_step().await;
    story.two_at_once().await;
    story.rows_that_were_read_are_gone().await;
    story.cancelled_by_another_worker().await;
    story.the_name_is_taken_by_another_plan().await;
    story.the_session_is_closed().await;
    story.the_server_is_killed().await;
}

/// The state of the only operation, once it is this.
async fn reaches(story: &Story, asked: &Asked, wanted: OperationState) {
    let mut looks = interval(Duration::from_millis(200));
    let reached = async {
        loop {
            looks.tick().await;
            let key = asked.names.key(1);
            let state = story.server.client().state(USER, key, key.step(1)).await;
            if state == Some(wanted) {
                return;
            }
        }
    };
    timeout(PATIENCE, reached).await.expect("in time");
}

/// Nobody came for longer than the server waits.
#[tokio::test]
async fn what_nobody_attended_is_told_as_it_is() {
    let impatient = [
        ("spark.connect.execute.manager.detachedTimeout", "2s"),
        ("spark.connect.execute.manager.maintenanceInterval", "1s"),
    ];
    let server = SparkServer::apache_with(&impatient).await;
    let story = Story::with_table(server).await;

    let asked = Asked::new(&[LONG.to_owned()]);
    drop(asked.begin(&*story.engine()).await);
    reaches(&story, &asked, OperationState::Cancelled).await;
    let mut found = asked.take_over(&*story.engine()).await;
    let ended = end(&mut *found.run).await;
    assert!(
        matches!(ended, Ended::Lost(_)),
        "the server stopped it: {ended:?}"
    );

    let asked = Asked::new(&["INSERT INTO marks VALUES ('done')".to_owned()]);
    let mut begun = asked.begin(&*story.engine()).await;
    assert_eq!(end(&mut *begun.run).await, Ended::Success);
    drop(begun);
    reaches(&story, &asked, OperationState::Succeeded).await;
    let mut client = story.server.client();
    let unset = client.unset(USER, asked.session(), "sparkferry.run").await;
    unset.expect("the memo is gone");
    let mut found = asked.take_over(&*story.engine()).await;
    assert_eq!(end(&mut *found.run).await, Ended::Success);
    assert_eq!(story.marks("done").await, 1);
}
