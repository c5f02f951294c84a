//! A step's rows: Arrow batches in, JSON out, with the columns' types as Spark writes them.
//!
//! Guarantees: memory is bounded by the limits, however large the result is. Rows beyond them are
//! counted and not kept. A batch that can't be read is an error, whatever its bytes are: never a
//! panic, never a silent gap.
//!
//! | module | holds |
//! |---|---|
//! | `frames` | Arrow's stream format: reading a batch, or only counting its rows |
//! | `value` | one value as JSON |
//! | `time` | dates, instants and intervals as text |
//! | `variant` | Spark's VARIANT, which carries its own types |
//! | `types` | types as Spark writes them |
//! | `output` | all steps, cut to size |

mod frames;
mod output;
#[cfg(test)]
mod tests;
mod time;
mod types;
mod value;
mod variant;

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow_array::RecordBatch;
use serde_json::{Value, json};
use spark_connect_proto::DataType;
use spark_connect_proto::data_type::Kind;

use self::frames::Frames;
use self::value::{Room, Stop};
pub(super) use output::{fit, output};

/// A batch can't be read. The text is for a person and says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server's rows can't be read: {0}")]
pub(super) struct RowsError(String);

/// A column: its name, and its type as Spark writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Column {
    name: String,
    type_name: String,
}

/// One step's rows.
#[derive(Debug)]
pub(super) struct Rows {
    columns: Option<Vec<Column>>,
    kept: Vec<Value>,
    row_limit: u64,
    room: Room,
    /// Rows seen, also those that are not kept.
    row_count: u64,
    /// Something is missing: rows beyond a limit, or a part of a value.
    truncated: bool,
}

impl Rows {
    /// Keeps the first `row_limit` rows, or fewer where they would take more than `byte_limit`
    /// bytes of JSON. The bytes are estimated from below; [`output`] cuts exactly.
    pub(super) fn new(row_limit: u64, byte_limit: usize) -> Self {
        Self {
            columns: None,
            kept: Vec::new(),
            row_limit,
            room: Room::new(byte_limit),
            row_count: 0,
            truncated: false,
        }
    }

    /// The result's schema, as the server tells it. Without it, names and types are read off the
    /// first batch, whose types are coarser (no `char(3)`, no `interval day`).
    pub(super) fn schema(&mut self, schema: &DataType) {
        if let Some(Kind::Struct(fields)) = &schema.kind {
            let columns = fields.fields.iter().map(|field| Column {
                name: field.name.clone(),
                type_name: types::of_spark(field.data_type.as_ref()),
            });
            self.columns = Some(columns.collect());
        }
    }

    /// Adds a batch: a complete Arrow stream, as each `ArrowBatch` carries one.
    ///
    /// # Errors
    /// Where it can't be read. Rows of it may have been added: the step is then of no use.
    pub(super) fn batch(&mut self, batch: &[u8]) -> Result<(), RowsError> {
        // The library panics at some of what the format forbids. After an error nobody looks at
        // what is half done here.
        catch_unwind(AssertUnwindSafe(|| self.read(batch))).unwrap_or_else(|_| {
            Err(RowsError(
                "the Arrow stream is damaged (its reader panicked)".to_owned(),
            ))
        })
    }

    fn read(&mut self, batch: &[u8]) -> Result<(), RowsError> {
        let frames = Frames::split(batch)?;
        if self.columns.is_some() && self.truncated {
            // Nothing of it would be kept.
            self.row_count = self.row_count.saturating_add(frames.count_rows());
            return Ok(());
        }
        let (schema, batches) = frames.read()?;
        let fields = schema.fields();
        let columns = self.columns.get_or_insert_with(|| {
            let columns = fields.iter().map(|field| Column {
                name: field.name().clone(),
                type_name: types::of_arrow(field),
            });
            columns.collect()
        });
        if columns.len() != fields.len() {
            return Err(RowsError(format!(
                "a batch has {} columns where the result has {}",
                fields.len(),
                columns.len()
            )));
        }
        for batch in batches {
            self.add(&batch)?;
        }
        Ok(())
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<(), RowsError> {
        let before = self.row_count;
        self.row_count = before.saturating_add(batch.num_rows() as u64);
        for row in 0..batch.num_rows() {
            if self.truncated {
                break;
            }
            if self.kept.len() as u64 >= self.row_limit {
                self.truncated = true;
                break;
            }
            match value::row(&mut self.room, batch, row) {
                Ok(values) => self.kept.push(values),
                Err(Stop::Full) => self.truncated = true,
                Err(Stop::Unreadable(why)) => return Err(RowsError(why)),
            }
        }
        Ok(())
    }

    /// `{"columns": [{"name", "type"}], "rows": [[...]], "row_count", "truncated"}`. `row_count` is
    /// how many rows the server sent, also where fewer stand in `rows`; `truncated` is whether they
    /// are fewer, or a value is not whole. A step without a result has no columns.
    pub(super) fn into_value(self) -> Value {
        let columns = self.columns.unwrap_or_default().into_iter();
        let columns: Vec<Value> = columns
            .map(|column| json!({"name": column.name, "type": column.type_name}))
            .collect();
        json!({
            "columns": columns,
            "rows": self.kept,
            "row_count": self.row_count,
            "truncated": self.truncated || self.room.left_out(),
        })
    }
}
