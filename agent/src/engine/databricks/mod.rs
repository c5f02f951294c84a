//! Databricks: runs of jobs, and one-time runs.

mod state;
mod text;
