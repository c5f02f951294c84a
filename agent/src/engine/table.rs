//! The table of engines: which one serves which type of connection. A further engine is one folder
//! and one line here.

use std::sync::Arc;

use super::Engine;
use super::databricks::{ClientError, DatabricksEngine};
use super::spark_connect::{ServerError, SparkConnectEngine};
use crate::config::{Connection, Settings};

/// The client of a connection can't be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// A Databricks workspace's.
    #[error(transparent)]
    Databricks(#[from] ClientError),
    /// A Spark Connect server's.
    #[error(transparent)]
    SparkConnect(#[from] ServerError),
}

/// Makes the engine of a connection ready; calls nothing yet. To be called within a tokio runtime,
/// after a TLS provider is installed.
///
/// # Errors
/// Where the client can't be made.
pub fn open(
    name: &str,
    connection: &Connection,
    settings: &Settings,
) -> Result<Arc<dyn Engine>, OpenError> {
    Ok(match connection {
        Connection::Databricks(workspace) => Arc::new(DatabricksEngine::new(name, workspace)?),
        Connection::SparkConnect(server) => Arc::new(SparkConnectEngine::new(
            name,
            settings.topology.namespace(),
            settings.worker.max_output_bytes,
            server,
        )?),
    })
}
