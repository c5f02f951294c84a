//! Round trips with Arrow's own writer, every type, limits and damaged bytes.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::{
    ArrayBuilder, Int32Builder, Int64Builder, ListBuilder, MapBuilder, StringBuilder,
};
use arrow_array::types::{IntervalMonthDayNano, IntervalMonthDayNanoType};
use arrow_array::*;
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow_schema::{DataType as Arrow, Field, Fields, Schema};
use proptest::prelude::*;
use serde_json::{Value, json};
use spark_connect_proto::data_type::{self, Kind};
use spark_connect_proto::{DataType, data_type::StructField};

use super::{Rows, RowsError, output};

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

#[test]
fn every_plain_type_is_told_and_written() {
    let cases: Vec<((Field, ArrayRef), &str, Value)> = vec![
        (column(NullArray::new(1)), "void", json!([null])),
        (
            column(BooleanArray::from(vec![Some(true), None])),
            "boolean",
            json!([true, null]),
        ),
        (column(Int8Array::from(vec![-1])), "tinyint", json!([-1])),
        (column(Int16Array::from(vec![-2])), "smallint", json!([-2])),
        (column(Int32Array::from(vec![-3])), "int", json!([-3])),
        (
            column(Int64Array::from(vec![i64::MAX, i64::MIN])),
            "bigint",
            json!([i64::MAX, i64::MIN]),
        ),
        (
            column(Float32Array::from(vec![0.1, f32::NEG_INFINITY])),
            "float",
            json!([0.1, "-Infinity"]),
        ),
        (
            column(Float64Array::from(vec![0.1, f64::NAN, f64::INFINITY])),
            "double",
            json!([0.1, "NaN", "Infinity"]),
        ),
        (
            column(
                Decimal128Array::from(vec![150, -5])
                    .with_precision_and_scale(10, 2)
                    .unwrap(),
            ),
            "decimal(10,2)",
            json!(["1.50", "-0.05"]),
        ),
        (
            column(StringArray::from(vec!["naïve \"q\"\n"])),
            "string",
            json!(["naïve \"q\"\n"]),
        ),
        (
            column(LargeStringArray::from(vec!["x"])),
            "string",
            json!(["x"]),
        ),
        (
            column(StringViewArray::from(vec!["a text that is long"])),
            "string",
            json!(["a text that is long"]),
        ),
        (
            column(BinaryArray::from(vec![&b"\xff\x00"[..]])),
            "binary",
            json!(["/wA="]),
        ),
        (
            column(Date32Array::from(vec![20_778, -1])),
            "date",
            json!(["2026-11-21", "1969-12-31"]),
        ),
        (
            column(TimestampMicrosecondArray::from(vec![1_500_000]).with_timezone("Europe/Berlin")),
            "timestamp",
            json!(["1970-01-01T00:00:01.5Z"]),
        ),
        (
            column(TimestampMicrosecondArray::from(vec![1_500_000])),
            "timestamp_ntz",
            json!(["1970-01-01T00:00:01.5"]),
        ),
        (
            column(Time64NanosecondArray::from(vec![1])),
            "time(6)",
            json!(["00:00:00.000000001"]),
        ),
        (
            column(DurationMicrosecondArray::from(vec![90_000_000])),
            "interval day to second",
            json!(["PT1M30S"]),
        ),
        (
            column(IntervalYearMonthArray::from(vec![14])),
            "interval year to month",
            json!(["P1Y2M"]),
        ),
        (
            column(PrimitiveArray::<IntervalMonthDayNanoType>::from(vec![
                IntervalMonthDayNano::new(1, 2, 3_000_000_000),
            ])),
            "interval",
            json!(["P1M2DT3S"]),
        ),
        (
            column(
                ["a", "b", "a"]
                    .into_iter()
                    .collect::<DictionaryArray<types::Int32Type>>(),
            ),
            "string",
            json!(["a", "b", "a"]),
        ),
    ];
    for (column, type_name, values) in cases {
        let (told, written) = one(column);
        assert_eq!((told.as_str(), Value::from(written)), (type_name, values));
    }
}

#[test]
fn what_is_nested_stays_nested() {
    let mut lists = ListBuilder::new(Int32Builder::new());
    lists.append_value([Some(1), None]);
    lists.append_null();
    lists.append_value([]);
    let (told, values) = one(column(lists.finish()));
    assert_eq!(
        (told.as_str(), json!(values)),
        ("array<int>", json!([[1, null], null, []]))
    );

    let a: ArrayRef = Arc::new(Int32Array::from(vec![1]));
    let field = |name: &str| Arc::new(Field::new(name, Arrow::Int32, true));
    let of = StructArray::from(vec![
        (field("a"), Arc::clone(&a)),
        (field("b"), Arc::clone(&a)),
    ]);
    let (told, values) = one(column(of));
    assert_eq!(
        (told.as_str(), &values[0]),
        ("struct<a:int,b:int>", &json!({"a": 1, "b": 1}))
    );
    let same = StructArray::from(vec![(field("a"), Arc::clone(&a)), (field("a"), a)]);
    assert_eq!(one(column(same)).1[0], json!([["a", 1], ["a", 1]]));
}

#[test]
fn a_map_is_an_object_where_its_keys_are_texts() {
    fn maps<K: ArrayBuilder>(keys: K, put: impl Fn(&mut K, i32)) -> (String, Vec<Value>) {
        let mut maps = MapBuilder::new(None, keys, Int32Builder::new());
        for n in 1..=2 {
            put(maps.keys(), n);
            maps.values().append_value(n * 10);
        }
        maps.append(true).unwrap();
        maps.append(true).unwrap();
        maps.append(false).unwrap();
        one(column(maps.finish()))
    }

    let (told, values) = maps(StringBuilder::new(), |keys, n| {
        keys.append_value(n.to_string());
    });
    assert_eq!(told, "map<string,int>");
    assert_eq!(json!(values), json!([{"1": 10, "2": 20}, {}, null]));
    let (told, values) = maps(Int64Builder::new(), |keys, n| {
        keys.append_value(n.into());
    });
    assert_eq!(told, "map<bigint,int>");
    assert_eq!(json!(values), json!([[[1, 10], [2, 20]], [], null]));
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

#[test]
fn a_variant_is_what_it_holds() {
    // {"a": [1, "x", 2.5, null]}
    let value = [
        2, 1, 0, 0, 18, // an object: 1 field, id 0, from 0 to 18
        3, 4, 0, 2, 4, 10, 11, // a list: 4 items, from 0, 2, 4, 10 to 11
        0x0c, 1, // an 8-bit number
        0x05, b'x', // a short text
        0x20, 1, 25, 0, 0, 0, // a decimal of scale 1
        0, // null
    ];
    let metadata = [1, 1, 0, 1, b'a'];
    let (told, values) = one(variant(&value, &metadata));
    assert_eq!(
        (told.as_str(), &values[0]),
        ("variant", &json!({"a": [1, "x", 2.5, null]}))
    );

    let mut long = vec![0x28, 1];
    long.extend(12_345_678_901_234_567_890_i128.to_le_bytes());
    assert_eq!(one(variant(&long, &NO_NAMES)).1[0], "1234567890123456789.0");
    let mut instant = vec![12 << 2];
    instant.extend(1_000_000_i64.to_le_bytes());
    assert_eq!(
        one(variant(&instant, &NO_NAMES)).1[0],
        "1970-01-01T00:00:01Z"
    );
}

#[test]
fn a_variant_that_is_too_deep_or_unknown_is_null_and_said_so() {
    let mut deep = vec![0];
    for _ in 0..60 {
        let length = u8::try_from(deep.len()).unwrap();
        let mut list = vec![3, 1, 0, length];
        list.append(&mut deep);
        deep = list;
    }
    let unknown = vec![63 << 2];
    assert_eq!(
        read(&stream(vec![variant(&deep, &NO_NAMES)])).unwrap()["truncated"],
        false
    );
    for _ in 0..10 {
        let mut list = vec![
            7,
            1,
            0,
            0,
            u8::try_from(deep.len() & 255).unwrap(),
            u8::try_from(deep.len() >> 8).unwrap(),
        ];
        list[0] = 3 | 1 << 2;
        list.append(&mut deep);
        deep = list;
    }
    for value in [deep, unknown] {
        let value = read(&stream(vec![variant(&value, &NO_NAMES)])).unwrap();
        assert_eq!(value["truncated"], true);
        assert_eq!(value["rows"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn rows_beyond_the_limit_are_counted_and_not_kept() {
    let mut rows = Rows::new(5, 1 << 20);
    for _ in 0..3 {
        rows.batch(&numbers(4)).unwrap();
    }
    assert_eq!(rows.kept.len(), 5);
    let value = rows.into_value();
    assert_eq!(value["rows"], json!([[0], [1], [2], [3], [0]]));
    assert_eq!(
        (&value["row_count"], &value["truncated"]),
        (&json!(12), &json!(true))
    );

    let mut exactly = Rows::new(4, 1 << 20);
    exactly.batch(&numbers(4)).unwrap();
    assert_eq!(exactly.into_value()["truncated"], false);
}

#[test]
fn memory_is_bounded_by_the_byte_limit() {
    let mut rows = Rows::new(u64::MAX, 1000);
    for _ in 0..100 {
        rows.batch(&numbers(1000)).unwrap();
    }
    assert!(
        (100..=400).contains(&rows.kept.len()),
        "{}",
        rows.kept.len()
    );
    let value = rows.into_value();
    assert_eq!(
        (&value["row_count"], &value["truncated"]),
        (&json!(100_000), &json!(true))
    );

    // One value that is larger, and a list whose items take no memory in Arrow.
    let long = "x".repeat(2000);
    let nulls = ListArray::new(
        Arc::new(Field::new_list_field(Arrow::Null, true)),
        arrow_buffer::OffsetBuffer::new(vec![0, i32::MAX].into()),
        Arc::new(NullArray::new(i32::MAX as usize)),
        None,
    );
    for column in [column(StringArray::from(vec![long])), column(nulls)] {
        let mut rows = Rows::new(1000, 1000);
        rows.batch(&stream(vec![column])).unwrap();
        let value = rows.into_value();
        assert_eq!(
            (&value["rows"], &value["row_count"]),
            (&json!([]), &json!(1))
        );
        assert_eq!(value["truncated"], true);
    }
}

#[test]
fn the_servers_schema_names_the_columns() {
    let of = |kind| DataType { kind: Some(kind) };
    let field = |name: &str, kind| StructField {
        name: name.to_owned(),
        data_type: Some(of(kind)),
        ..StructField::default()
    };
    let schema = |kinds: Vec<Kind>| {
        let fields = kinds.into_iter().map(|kind| field("n", kind));
        of(Kind::Struct(data_type::Struct {
            fields: fields.collect(),
            ..Default::default()
        }))
    };
    let long = || Kind::Long(data_type::Long::default());
    let boxed = |kind| Some(Box::new(of(kind)));
    let day_time = |start, end| {
        Kind::DayTimeInterval(data_type::DayTimeInterval {
            start_field: start,
            end_field: end,
            ..Default::default()
        })
    };
    let kinds = vec![
        long(),
        Kind::Char(data_type::Char {
            length: 3,
            ..Default::default()
        }),
        Kind::String(data_type::String {
            collation: "UTF8_LCASE".to_owned(),
            ..Default::default()
        }),
        day_time(Some(0), Some(3)),
        day_time(Some(1), Some(1)),
        Kind::Map(Box::new(data_type::Map {
            key_type: boxed(long()),
            value_type: boxed(Kind::Struct(data_type::Struct {
                fields: vec![field("a", long()), field("b", long())],
                ..Default::default()
            })),
            ..Default::default()
        })),
        Kind::Udt(Box::new(data_type::Udt {
            sql_type: boxed(long()),
            ..Default::default()
        })),
        Kind::Geometry(data_type::Geometry {
            srid: 4326,
            ..Default::default()
        }),
    ];
    let mut rows = Rows::new(10, 1000);
    rows.schema(&schema(kinds));
    let value = rows.into_value();
    let told: Vec<_> = value["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["type"])
        .collect();
    assert_eq!(
        json!(told),
        json!([
            "bigint",
            "char(3)",
            "string collate UTF8_LCASE",
            "interval day to second",
            "interval hour",
            "map<bigint,struct<a:bigint,b:bigint>>",
            "bigint",
            "geometry(4326)"
        ])
    );
    assert_eq!(
        (&value["rows"], &value["row_count"]),
        (&json!([]), &json!(0))
    );

    let mut rows = Rows::new(10, 1000);
    rows.schema(&schema(vec![long(), long()]));
    let error = rows.batch(&numbers(1)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("1 columns where the result has 2"),
        "{error}"
    );
}

#[test]
fn compressed_batches_are_read_and_their_claims_checked() {
    let columns = || vec![column(StringArray::from_iter_values(["sparkferry"; 1000]))];
    let plain = read(&stream(columns())).unwrap();
    let mut packed = compressed(columns(), Some(CompressionType::ZSTD));
    assert_eq!(read(&packed).unwrap(), plain);
    // The text's buffer claims far more than it holds.
    let claim = 10_000_i64.to_le_bytes();
    let at = packed.windows(8).rposition(|bytes| bytes == claim).unwrap();
    packed[at..at + 8].copy_from_slice(&(i64::MAX / 2).to_le_bytes());
    let error = read(&packed).unwrap_err().to_string();
    assert!(error.contains("claims"), "{error}");
}

#[test]
fn damaged_streams_are_errors() {
    let whole = numbers(100);
    for length in 1..whole.len() - 8 {
        assert!(
            read(&whole[..length]).is_err(),
            "{length} of {}",
            whole.len()
        );
    }
    for bytes in [&b""[..], b"\xff\xff\xff\xff", b"not Arrow at all", &[0; 8]] {
        let error = read(bytes).unwrap_err().to_string();
        assert!(
            error.starts_with("the server's rows can't be read: "),
            "{error}"
        );
    }
}

#[test]
fn outputs_fit_largest_steps_cut_first() {
    let step = |count: i64| {
        let mut rows = Rows::new(u64::MAX, 1 << 20);
        rows.batch(&numbers(count)).unwrap();
        rows.into_value()
    };
    assert_eq!(output(Vec::new(), 1000), None);
    let both = output(vec![step(1), step(2)], 1000).unwrap();
    assert_eq!(both, json!({"steps": [step(1), step(2)]}));

    let cut = output(vec![step(3), step(1000)], 1000).unwrap();
    assert!(
        (900..=1000).contains(&cut.to_string().len()),
        "{}",
        cut.to_string().len()
    );
    assert_eq!(
        (&cut["truncated"], &cut["steps"][0]),
        (&json!(true), &step(3))
    );
    assert_eq!(cut["steps"][1]["truncated"], true);
    assert_eq!(cut["steps"][1]["row_count"], 1000);

    let many = output(vec![step(1); 100], 1000).unwrap();
    let kept = many["steps"].as_array().unwrap().len();
    assert!(kept > 5 && many.to_string().len() <= 1000, "{many}");
    assert_eq!(
        (&many["steps_omitted"], &many["truncated"]),
        (&json!(100 - kept), &json!(true))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_arrow_writes_is_what_is_read(
        rows in prop::collection::vec((any::<Option<i64>>(), any::<Option<String>>(),
            any::<Option<f64>>(), prop::collection::vec(any::<Option<i32>>(), 0..5)), 0..50),
        limit in 0_u64..60,
    ) {
        let mut lists = ListBuilder::new(Int32Builder::new());
        for row in &rows {
            lists.append_value(row.3.iter().copied());
        }
        let bytes = stream(vec![
            column(rows.iter().map(|row| row.0).collect::<Int64Array>()),
            column(rows.iter().map(|row| row.1.clone()).collect::<StringArray>()),
            column(rows.iter().map(|row| row.2).collect::<Float64Array>()),
            column(lists.finish()),
        ]);
        let mut read = Rows::new(limit, 1 << 20);
        read.batch(&bytes).unwrap();
        let expected: Vec<Value> = rows
            .iter()
            .take(usize::try_from(limit).unwrap())
            .map(|(a, b, c, d)| json!([a, b, c.map(super::value::double), d]))
            .collect();
        let value = read.into_value();
        prop_assert_eq!(&value["rows"], &json!(expected));
        prop_assert_eq!(&value["row_count"], rows.len());
        prop_assert_eq!(&value["truncated"], rows.len() as u64 > limit);
    }

    #[test]
    fn no_damage_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        kind in 0_usize..3,
    ) {
        let mut lists = ListBuilder::new(StringBuilder::new());
        lists.append_value([Some("a"), None, Some("bc")]);
        let mut bytes = match kind {
            0 => stream(vec![column(lists.finish())]),
            1 => stream(vec![variant(&[2, 1, 0, 0, 2, 0x0c, 1], &[1, 1, 0, 1, b'a'])]),
            _ => compressed(
                vec![column(StringArray::from_iter_values(["sparkferry"; 100]))],
                Some(CompressionType::ZSTD),
            ),
        };
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        // Either is fine: rows that look whole, or an error.
        if let Ok(value) = read(&bytes) {
            prop_assert!(value["rows"].is_array());
        }
    }

    #[test]
    fn no_noise_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(read(&bytes).is_err());
    }

    #[test]
    fn the_limit_of_an_output_holds(
        steps in prop::collection::vec(prop::collection::vec(any::<String>(), 0..20), 1..10),
        limit in 64_usize..5000,
    ) {
        let steps: Vec<Value> = steps
            .into_iter()
            .map(|texts| {
                let mut rows = Rows::new(100, 1 << 20);
                rows.batch(&stream(vec![column(StringArray::from(texts))])).unwrap();
                rows.into_value()
            })
            .collect();
        let whole = json!({"steps": steps}).to_string().len();
        let output = output(steps, limit).unwrap();
        prop_assert!(output.to_string().len() <= limit, "{} > {limit}", output.to_string().len());
        prop_assert!(whole > limit.saturating_sub(70) || output.get("truncated").is_none());
        prop_assert!(whole <= limit || output["truncated"] == true);
    }
}
