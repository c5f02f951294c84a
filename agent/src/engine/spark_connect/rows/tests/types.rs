//! Every type of Spark's, as JSON.

use arrow_array::builder::{
    ArrayBuilder, Int32Builder, Int64Builder, ListBuilder, MapBuilder, StringBuilder,
};
use arrow_array::types::{Int32Type, IntervalMonthDayNano, IntervalMonthDayNanoType};
use serde_json::json;
use spark_connect_proto::data_type::{self, Kind};
use spark_connect_proto::{DataType, data_type::StructField};

use super::*;

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
                    .collect::<DictionaryArray<Int32Type>>(),
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
