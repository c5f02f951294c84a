//! The table of engines: which one serves which type of connection. A further engine is one folder
//! and one line here.

use std::sync::Arc;

use super::Engine;
use super::databricks::{ClientError, DatabricksEngine};
use crate::config::Connection;

/// Makes the engine of a connection ready; calls nothing yet. To be called within a tokio runtime,
/// after a TLS provider is installed.
///
/// # Errors
/// Where the client can't be made.
pub fn open(name: &str, connection: &Connection) -> Result<Arc<dyn Engine>, ClientError> {
    match connection {
        Connection::Databricks(settings) => Ok(Arc::new(DatabricksEngine::new(name, settings)?)),
    }
}
