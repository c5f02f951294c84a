//! Doors for `agent/fuzz`, to what stands behind the port.

use sparkferry_shared::Work;

use super::{databricks, spark_connect};

/// Reads the body of a Databricks reply in every way that there is.
pub(crate) fn reply(body: &[u8]) {
    databricks::fuzzing::reply(body);
}

/// Reads an Arrow stream as the rows of a Spark Connect step.
pub(crate) fn rows(data: &[u8]) {
    spark_connect::fuzzing::rows(data);
}

/// Prepares a Spark Connect request.
pub(crate) fn prepared(work: &Work) {
    spark_connect::fuzzing::prepared(work);
}
