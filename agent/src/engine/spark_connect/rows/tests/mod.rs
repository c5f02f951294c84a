//! Round trips with Arrow's own writer, every type, limits and damaged bytes.

mod damage;
mod limits;
mod types;
mod variants;

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::*;
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow_schema::{DataType as Arrow, Field, Fields, Schema};
use serde_json::Value;

use super::{Rows, RowsError};

/// One Arrow stream.
fn stream(columns: Vec<(Field, ArrayRef)>) -> Vec<u8> {
    compressed(columns, None)
}

fn compressed(columns: Vec<(Field, ArrayRef)>, by: Option<CompressionType>) -> Vec<u8> {
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).unwrap();
    let options = IpcWriteOptions::default().try_with_compression(by).unwrap();
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &schema, options).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

fn column(array: impl Array + 'static) -> (Field, ArrayRef) {
    let array: ArrayRef = Arc::new(array);
    (Field::new("c", array.data_type().clone(), true), array)
}

fn read(batch: &[u8]) -> Result<Value, RowsError> {
    let mut rows = Rows::new(1000, 1 << 20);
    rows.batch(batch)?;
    Ok(rows.into_value())
}

/// The only column's type and values.
fn one((field, array): (Field, ArrayRef)) -> (String, Vec<Value>) {
    let value = read(&stream(vec![(field, array)])).unwrap();
    assert_eq!(value["truncated"], false);
    let rows = value["rows"].as_array().unwrap();
    assert_eq!(value["row_count"], rows.len());
    let type_name = value["columns"][0]["type"].as_str().unwrap().to_owned();
    (type_name, rows.iter().map(|row| row[0].clone()).collect())
}

fn numbers(count: i64) -> Vec<u8> {
    stream(vec![column(Int64Array::from_iter_values(0..count))])
}

/// A column of one variant.
fn variant(value: &[u8], metadata: &[u8]) -> (Field, ArrayRef) {
    let mark = HashMap::from([("variant".to_owned(), "true".to_owned())]);
    let binary = |name: &str| Field::new(name, Arrow::Binary, false);
    let fields = Fields::from(vec![
        binary("value"),
        binary("metadata").with_metadata(mark),
    ]);
    let part = |bytes: &[u8]| Arc::new(BinaryArray::from(vec![bytes])) as ArrayRef;
    column(StructArray::new(
        fields,
        vec![part(value), part(metadata)],
        None,
    ))
}

const NO_NAMES: [u8; 3] = [1, 0, 0];
