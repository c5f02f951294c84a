//! What a step produced: its rows as far as they can be had.

use bytes::Bytes;
use serde_json::{Value, json};
use spark_connect_proto::relation::RelType;
use spark_connect_proto::{DataType, Relation};

use super::rows::Rows;

/// The rows of one step.
#[derive(Debug)]
pub(super) struct Table {
    rows: Rows,
    /// Why they can't be had.
    missing: Option<String>,
}

impl Table {
    pub(super) fn new(row_limit: u64, byte_limit: usize) -> Self {
        Self {
            rows: Rows::new(row_limit, byte_limit),
            missing: None,
        }
    }

    pub(super) fn schema(&mut self, schema: &DataType) {
        self.rows.schema(schema);
    }

    /// Rows that can't be read take nothing away from the run: the server says how it ended.
    pub(super) fn batch(&mut self, data: &Bytes) {
        if self.missing.is_none()
            && let Err(error) = self.rows.batch(data)
        {
            self.missing = Some(error.to_string());
        }
    }

    /// The answer of an SQL command in a producer's plan, which holds its rows, or else is a plan
    /// that nobody runs.
    pub(super) fn command(&mut self, relation: Option<Relation>) {
        if let Some(RelType::LocalRelation(local)) = relation.and_then(|r| r.rel_type)
            && let Some(data) = local.data
        {
            self.batch(&data);
        }
    }

    /// The step ended well, and the server keeps (some of) its rows no longer.
    pub(super) fn gone(&mut self, why: &str) {
        self.missing.get_or_insert_with(|| why.to_owned());
    }

    /// `{"columns", "rows", "row_count", "truncated"}`; rows that can't be had are told in a field
    /// `unavailable`, and how many there were is not known.
    pub(super) fn into_value(self) -> Value {
        let mut value = self.rows.into_value();
        if let Some(why) = self.missing {
            value["rows"] = json!([]);
            value["row_count"] = Value::Null;
            value["truncated"] = true.into();
            value["unavailable"] = why.into();
        }
        value
    }
}
