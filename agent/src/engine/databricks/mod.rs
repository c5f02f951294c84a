//! Databricks behind the engine port.
