//! The table of engines: which one serves which type of connection. A further engine is one folder,
//! one feature and one line here.

use std::sync::Arc;

use sparkferry_ports::engine::Engine;

#[cfg(feature = "databricks")]
use super::databricks::{ClientError, DatabricksEngine};
#[cfg(feature = "spark_connect")]
use super::spark_connect::{ServerError, SparkConnectEngine};
use crate::config::{Connection, DatabricksSettings, Settings, SparkConnectSettings};

/// The client of a connection can't be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// A Databricks workspace's.
    #[cfg(feature = "databricks")]
    #[error(transparent)]
    Databricks(#[from] ClientError),
    /// A Spark Connect server's.
    #[cfg(feature = "spark_connect")]
    #[error(transparent)]
    SparkConnect(#[from] ServerError),
    /// The engine was left out of this program.
    #[error(
        "connections.{connection}: this program was built without the engine `{engine}`; build it \
         with `--features {engine}`, or take one that has all"
    )]
    Absent {
        /// The connection's name.
        connection: String,
        /// The engine's feature.
        engine: &'static str,
    },
}

/// Makes the engine of a connection ready; calls nothing yet. To be called within a tokio runtime,
/// after a TLS provider is installed.
///
/// # Errors
/// Where the client can't be made, and where this program has no such engine.
pub fn open(
    name: &str,
    connection: &Connection,
    settings: &Settings,
) -> Result<Arc<dyn Engine>, OpenError> {
    match connection {
        Connection::Databricks(workspace) => databricks(name, workspace),
        Connection::SparkConnect(server) => spark_connect(name, server, settings),
    }
}

#[cfg(feature = "databricks")]
fn databricks(name: &str, workspace: &DatabricksSettings) -> Result<Arc<dyn Engine>, OpenError> {
    Ok(Arc::new(DatabricksEngine::new(name, workspace)?))
}

#[cfg(not(feature = "databricks"))]
fn databricks(name: &str, _: &DatabricksSettings) -> Result<Arc<dyn Engine>, OpenError> {
    Err(absent(name, "databricks"))
}

#[cfg(feature = "spark_connect")]
fn spark_connect(
    name: &str,
    server: &SparkConnectSettings,
    settings: &Settings,
) -> Result<Arc<dyn Engine>, OpenError> {
    Ok(Arc::new(SparkConnectEngine::new(
        name,
        settings.topology.namespace(),
        settings.worker.max_output_bytes,
        server,
    )?))
}

#[cfg(not(feature = "spark_connect"))]
fn spark_connect(
    name: &str,
    _: &SparkConnectSettings,
    _: &Settings,
) -> Result<Arc<dyn Engine>, OpenError> {
    Err(absent(name, "spark_connect"))
}

#[cfg(not(all(feature = "databricks", feature = "spark_connect")))]
fn absent(connection: &str, engine: &'static str) -> OpenError {
    OpenError::Absent {
        connection: connection.to_owned(),
        engine,
    }
}
