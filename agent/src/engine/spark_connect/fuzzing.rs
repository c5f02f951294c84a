//! A door for `agent/fuzz`: the rows that a server sends, and what a producer sends to it.

use bytes::Bytes;
use prost::Message;
use serde_json::Value;
use spark_connect_proto::{DataType, Relation};
use sparkferry_shared::Work;

use super::prepare::prepare;
use super::rows::output;
use super::table::Table;

/// Limits that keep little, and much.
const LIMITS: [(u64, usize); 3] = [(0, 1 << 10), (2, 200), (1000, 1 << 16)];

/// Reads an Arrow stream (and the same bytes as a schema and as a relation) into a step's rows. The
/// caller panics where a promise is broken.
pub(in crate::engine) fn rows(data: &[u8]) {
    let data = Bytes::copy_from_slice(data);
    let mut counts = Vec::new();
    for (row_limit, byte_limit) in LIMITS {
        let mut table = Table::new(row_limit, byte_limit);
        // The second time they may only be counted.
        table.batch(&data);
        table.batch(&data);
        let value = table.into_value();
        let kept = value["rows"].as_array().map_or(0, Vec::len);
        assert!(kept as u64 <= row_limit, "{kept} rows of {row_limit}");
        counts.push(value["row_count"].clone());
        fits(value, byte_limit);
    }
    // However little is kept, all are counted; or none, where they can't be read.
    counts.retain(|count| *count != Value::Null);
    assert!(counts.windows(2).all(|two| two[0] == two[1]), "{counts:?}");
    if let Ok(schema) = DataType::decode(&data[..]) {
        let mut table = Table::new(1, 200);
        table.schema(&schema);
        table.batch(&data);
        fits(table.into_value(), 200);
    }
    if let Ok(relation) = Relation::decode(&data[..]) {
        let mut table = Table::new(1, 200);
        table.command(Some(relation));
        fits(table.into_value(), 200);
    }
}

fn fits(step: Value, limit: usize) {
    let size = output(vec![step], limit).map_or(0, |output| output.to_string().len());
    assert!(size <= limit, "{size} of {limit}");
}

/// Prepares what a request sends to a server.
pub(in crate::engine) fn prepared(work: &Work) {
    // What can't be prepared is refused.
    let _ = prepare(work);
}
