//! What the stories share: a server, a queue of its own, requests, and a look at operations.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use spark_connect_proto::get_status_response::operation_status::OperationState;
use sparkferry_ports::queue::{News, Producer};
use sparkferry_shared::{Id, Key, Names, RunResult};
use tokio::sync::mpsc::Receiver;
use tokio::time::{interval, timeout};

use super::client::BareClient;
use crate::stories::harness::{CONNECTION, Ground, Heard, PATIENCE, Place};

/// How long a delivery is held: longer than any story lasts.
const HOLD_LIMIT: u32 = 600;

/// A queue whose workers run on one server.
pub(super) struct Stage {
    pub(super) ground: Ground,
}

/// What was submitted, and who hears of it.
pub(super) struct Submitted {
    pub(super) producer: Box<dyn Producer>,
    pub(super) news: Receiver<News>,
    pub(super) heard: Heard,
    count: usize,
}

impl Stage {
    /// The workers reach the server at `server`.
    pub(super) fn new(place: Place, server: SocketAddr) -> Self {
        let connection = format!("type = \"spark_connect\"\nurl = \"sc://{server}\"\n");
        Self::with(place, &connection)
    }

    /// The workers have these settings of the connection.
    pub(super) fn with(place: Place, connection: &str) -> Self {
        Self {
            ground: Ground::new(place, HOLD_LIMIT, connection),
        }
    }

    /// Submits requests, each of them JSON with an id.
    pub(super) async fn submit(&self, requests: &[Value]) -> Submitted {
        let bodies = requests.iter().map(|request| {
            let id = request["id"].as_str().expect("an id");
            (id.parse().expect("an id"), request.to_string().into_bytes())
        });
        let (producer, news) = self.ground.submit(bodies.collect()).await;
        Submitted {
            producer,
            news,
            heard: Heard::default(),
            count: requests.len(),
        }
    }

    /// The computed name of a request's first attempt.
    pub(super) fn key(&self, id: &str) -> Key {
        Names::new(self.ground.topology.namespace(), CONNECTION, id).key(1)
    }

    /// Waits until an operation of a request's first attempt is in this state.
    pub(super) async fn until(
        &self,
        judge: &mut BareClient,
        id: &str,
        step: u32,
        wanted: OperationState,
    ) {
        let session = self.key(id);
        let operation = session.step(step);
        let user = format!("sparkferry-{}", self.ground.topology.namespace());
        let mut looks = interval(Duration::from_millis(100));
        let looking = async {
            loop {
                looks.tick().await;
                if judge.state(&user, session, operation).await == Some(wanted) {
                    return;
                }
            }
        };
        let seen = timeout(PATIENCE, looking).await;
        seen.unwrap_or_else(|_| panic!("waited in vain for step {step} of {id} to be {wanted:?}"));
    }
}

impl Submitted {
    /// Waits for all results.
    pub(super) async fn all(&mut self) -> &Heard {
        self.heard.listen(&mut self.news, self.count).await;
        &self.heard
    }

    /// Waits for the result of the only request.
    pub(super) async fn result(&mut self) -> RunResult {
        assert_eq!(self.count, 1);
        let heard = self.all().await;
        heard.results.values().next().expect("it is there").clone()
    }
}

/// A request of statements that is retried at once, where it earns it.
pub(super) fn statements(id: &str, statements: &[&str]) -> Value {
    let steps: Vec<Value> = statements.iter().map(|sql| json!({"sql": sql})).collect();
    json!({
        "id": id,
        "min_retry_interval_millis": 100,
        "max_retry_interval_millis": 200,
        "spark_connect": {"steps": steps},
    })
}

/// The same with more fields.
pub(super) fn with(mut request: Value, fields: &Value) -> Value {
    for (name, value) in fields.as_object().expect("fields") {
        match (&mut request[name], value) {
            (Value::Object(old), Value::Object(new)) => old.extend(new.clone()),
            (old, new) => *old = new.clone(),
        }
    }
    request
}

/// A statement that takes so long in the server, and inserts one row with this number.
pub(super) fn slow_insert(table: &str, number: usize, milliseconds: u32) -> String {
    format!(
        "INSERT INTO {table} SELECT {number}, java_method('java.lang.Thread', 'sleep', \
         {milliseconds}L) FROM range(1)"
    )
}

/// The rows of a step in a result.
pub(super) fn rows(result: &RunResult, step: usize) -> Value {
    let output = result.output.as_ref();
    let output = output.unwrap_or_else(|| panic!("no output: {result:?}"));
    output["steps"][step]["rows"].clone()
}

/// A result by its id.
pub(super) fn of<'a>(heard: &'a Heard, id: &str) -> &'a RunResult {
    &heard.results[&id.parse::<Id>().expect("an id")]
}
