//! Spark Connect: statements and DataFrame programs in a session that outlives its worker.
//!
//! | module | holds |
//! |---|---|
//! | `attach` | from an attempt's name to its run: found, or begun |
//! | `run`, `board` | one run as the flow sees it, and what is known of it |
//! | `walk`, `memo` | its steps in order, and what the session remembers of them |
//! | `operation`, `resolve` | one operation through broken streams; what became of one that is silent |
//! | `prepare`, `literal` | from the request to plans, settings and files |
//! | `cluster` | the way in where the server is compute on Databricks |
//! | `session`, `server`, `splice` | the calls, plans as bytes |
//! | `channel`, `entrance` | how the server is reached, what lets us in |
//! | `table`, `rows` | a step's rows: Arrow in, JSON out |
//! | `error`, `fault` | what a call that went wrong means |

mod attach;
mod board;
mod channel;
#[cfg(feature = "databricks")]
mod cluster;
mod entrance;
mod error;
mod fault;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod literal;
mod memo;
mod operation;
mod prepare;
mod resolve;
mod rows;
mod run;
mod server;
mod session;
mod splice;
mod table;
mod walk;

use std::sync::Arc;

use async_trait::async_trait;
use spark_connect_proto::analyze_plan_request::{Analyze, SparkVersion};
use spark_connect_proto::{AnalyzePlanRequest, analyze_plan_response};
use sparkferry_ports::engine::{Attached, Engine, Fault, Start};
use sparkferry_shared::ErrorClass;
use tokio::time::Instant;
use uuid::Uuid;

#[cfg(feature = "databricks")]
use self::cluster::OnDatabricks;
use self::entrance::{Entrance, Open};
use self::error::Said;
use self::fault::fault;
use self::server::{Call, Server, Stub};
use crate::config::{ComputeSettings, SparkConnectSettings};

pub use server::ServerError;

/// A Spark Connect server. All runs share one channel, which is made with the first call.
#[derive(Debug)]
pub struct SparkConnectEngine {
    server: Arc<Server>,
    /// The most that a step's rows take, in bytes of JSON.
    byte_limit: usize,
}

impl SparkConnectEngine {
    /// Makes ready to run on a server; calls nothing yet. To be called within a tokio runtime,
    /// after a TLS provider is installed. `name` is the connection's, for metrics; the namespace
    /// makes the user that all workers present; an output is never larger than `max_output_bytes`.
    ///
    /// # Errors
    /// Where the client can't be made.
    pub fn new(
        name: &str,
        namespace: &str,
        max_output_bytes: usize,
        settings: &SparkConnectSettings,
    ) -> Result<Self, ServerError> {
        let server = Server::new(name, namespace, settings, |settings| {
            Ok(match &settings.compute {
                Some(compute) => on_databricks(name, settings, compute)?,
                None => Box::new(Open::new(settings)?),
            })
        })?;
        Ok(Self {
            server: Arc::new(server),
            byte_limit: max_output_bytes,
        })
    }
}

#[cfg(feature = "databricks")]
fn on_databricks(
    name: &str,
    settings: &SparkConnectSettings,
    compute: &ComputeSettings,
) -> Result<Box<dyn Entrance>, String> {
    Ok(Box::new(OnDatabricks::new(name, settings, compute)?))
}

#[cfg(not(feature = "databricks"))]
fn on_databricks(
    _: &str,
    _: &SparkConnectSettings,
    _: &ComputeSettings,
) -> Result<Box<dyn Entrance>, String> {
    Err(
        "its server is compute on Databricks, and this program was built without the engine \
         `databricks`, which lets in there"
            .to_owned(),
    )
}

#[async_trait]
impl Engine for SparkConnectEngine {
    async fn attach_or_start(&self, start: &Start<'_>) -> Result<Attached, Fault> {
        attach::attach(&self.server, start, self.byte_limit).await
    }

    async fn permit(&self) {
        self.server.permit().await;
    }

    /// A Spark Connect server cancels after some minutes what nobody attends, and later steps are sent
    /// by the worker.
    fn needs_attendance(&self) -> bool {
        true
    }

    /// Asks for Spark's version, in a session that is given back at once. A server that answers, and
    /// fails at that, is there all the same: Sail takes the version from PySpark, if it has one.
    async fn check(&self) -> Result<String, Fault> {
        let server = &self.server;
        server.entrance.ready(Instant::now()).await?;
        let session_id = Uuid::now_v7().to_string();
        let body = AnalyzePlanRequest {
            session_id: session_id.clone(),
            user_context: Some(session::user(&server.user_id)),
            client_type: Some(session::CLIENT.to_owned()),
            analyze: Some(Analyze::SparkVersion(SparkVersion {})),
            ..AnalyzePlanRequest::default()
        };
        let send =
            |mut stub: Stub, request| async move { Box::pin(stub.analyze_plan(request)).await };
        let answer = server.call(Call::Version, &session_id, body, send).await;
        let result = match answer {
            Ok(answer) => answer.result,
            Err(status) => match error::read(&status, &server.place(Call::Version)) {
                Said::Failed(error) if error.class == ErrorClass::User => None,
                _ => return Err(fault(server, Call::Version, &status)),
            },
        };
        session::release(server, session_id).await.ok();
        let version = match result {
            Some(analyze_plan_response::Result::SparkVersion(spark)) => {
                format!("Spark {}", spark.version)
            }
            _ => "it answers, and tells no version".to_owned(),
        };
        let (host, user) = (&server.host, &server.user_id);
        Ok(format!("{host}, {version}, as {user}"))
    }

    fn trouble(&self) -> Option<String> {
        self.server.trouble()
    }
}
