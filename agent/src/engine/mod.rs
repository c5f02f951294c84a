//! The engines, each in a room of its own behind the port [`sparkferry_ports::engine`].
//!
//! | module | holds |
//! |---|---|
//! | `databricks` | a workspace, by its Jobs API |
//! | `spark_connect` | a Spark Connect server |
//! | [`table`] | which engine serves which type of connection |
//! | `text`, `trim` | texts and JSON, cut to size |

#[cfg(feature = "databricks")]
pub mod databricks;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
#[cfg(feature = "spark_connect")]
pub mod spark_connect;
pub mod table;
mod text;
pub(crate) mod trim;
