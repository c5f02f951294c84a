//! One value as JSON.
//!
//! | Spark | JSON |
//! |---|---|
//! | boolean, whole numbers | as they are, also beyond 2^53 |
//! | float, double | a number; `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | decimal | a string, with its scale: `"1.50"` |
//! | string, char, varchar | a string |
//! | binary | base64 |
//! | date, time | `"2026-11-21"`, `"07:30:00.5"` |
//! | timestamp | an instant, RFC 3339 in UTC: `"2026-11-21T07:30:00.5Z"` |
//! | `timestamp_ntz` | the same without a zone |
//! | interval | ISO 8601: `"P1Y2M"`, `"-P1DT2H"` |
//! | array | a list |
//! | struct | an object; with names that repeat, a list of `[name, value]` |
//! | map | an object where the keys are texts, else a list of `[key, value]` |
//! | variant | what it holds, by these rules; see `variant` for its decimals |
//!
//! A date or an instant beyond the years -9999 to 9999 is a number: days, or microseconds, since
//! 1970.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Decimal256Type, DecimalType,
    DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, IntervalDayTimeType,
    IntervalMonthDayNanoType, IntervalYearMonthType, Time64MicrosecondType, Time64NanosecondType,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch, StructArray};
use arrow_schema::{DataType, IntervalUnit, TimeUnit};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value};

use super::{time, variant};

/// Why a value is not there.
#[derive(Debug)]
pub(super) enum Stop {
    /// No room is left for it.
    Full,
    /// It can't be read.
    Unreadable(String),
}

/// How much JSON may still be kept. What is spent is never more than what the JSON will take, so
/// whatever fits is kept.
#[derive(Debug)]
pub(super) struct Room {
    bytes: usize,
    left_out: bool,
}

impl Room {
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            bytes,
            left_out: false,
        }
    }

    /// Takes so many bytes.
    pub(super) fn spend(&mut self, bytes: usize) -> Result<(), Stop> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or(Stop::Full)?;
        Ok(())
    }

    /// A part of a value stands as null in its place.
    pub(super) fn leave_out(&mut self) {
        self.left_out = true;
    }

    /// Whether that happened.
    pub(super) fn left_out(&self) -> bool {
        self.left_out
    }
}

/// A row as a list.
pub(super) fn row(room: &mut Room, batch: &RecordBatch, row: usize) -> Result<Value, Stop> {
    room.spend("[]".len())?;
    let values = batch
        .columns()
        .iter()
        .map(|column| value(room, column, row));
    Ok(Value::Array(values.collect::<Result<_, _>>()?))
}

/// The value at `at`, which lies within the array.
pub(super) fn value(room: &mut Room, array: &dyn Array, at: usize) -> Result<Value, Stop> {
    if *array.data_type() == DataType::Null || array.is_null(at) {
        room.spend("null".len())?;
        return Ok(Value::Null);
    }
    match array.data_type() {
        DataType::Utf8 => text(room, array.as_string::<i32>().value(at)),
        DataType::LargeUtf8 => text(room, array.as_string::<i64>().value(at)),
        DataType::Utf8View => text(room, array.as_string_view().value(at)),
        DataType::Binary => bytes(room, array.as_binary::<i32>().value(at)),
        DataType::LargeBinary => bytes(room, array.as_binary::<i64>().value(at)),
        DataType::BinaryView => bytes(room, array.as_binary_view().value(at)),
        DataType::List(_) => list(room, &*array.as_list::<i32>().value(at)),
        DataType::LargeList(_) => list(room, &*array.as_list::<i64>().value(at)),
        DataType::Struct(of) if variant::is_variant(of) => variant::value(room, array, at),
        DataType::Struct(_) => structure(room, array.as_struct(), at),
        DataType::Map(..) => map(room, &array.as_map().value(at)),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let key = scalar(dictionary.keys(), at)?.as_u64().unwrap_or(u64::MAX);
            match usize::try_from(key) {
                Ok(key) if key < dictionary.values().len() => value(room, dictionary.values(), key),
                _ => Err(Stop::Unreadable("a key that its dictionary lacks".into())),
            }
        }
        _ => {
            let value = scalar(array, at)?;
            room.spend(value.as_str().map_or(1, |text| text.len() + 2))?;
            Ok(value)
        }
    }
}

/// A value of bounded size.
fn scalar(array: &dyn Array, at: usize) -> Result<Value, Stop> {
    Ok(match array.data_type() {
        DataType::Boolean => array.as_boolean().value(at).into(),
        DataType::Int8 => get::<Int8Type>(array, at).into(),
        DataType::Int16 => get::<Int16Type>(array, at).into(),
        DataType::Int32 => get::<Int32Type>(array, at).into(),
        DataType::Int64 => get::<Int64Type>(array, at).into(),
        DataType::UInt8 => get::<UInt8Type>(array, at).into(),
        DataType::UInt16 => get::<UInt16Type>(array, at).into(),
        DataType::UInt32 => get::<UInt32Type>(array, at).into(),
        DataType::UInt64 => get::<UInt64Type>(array, at).into(),
        DataType::Float32 => single(get::<Float32Type>(array, at)),
        DataType::Float64 => double(get::<Float64Type>(array, at)),
        DataType::Decimal128(precision, scale) => {
            Decimal128Type::format_decimal(get::<Decimal128Type>(array, at), *precision, *scale)
                .into()
        }
        DataType::Decimal256(precision, scale) => {
            Decimal256Type::format_decimal(get::<Decimal256Type>(array, at), *precision, *scale)
                .into()
        }
        DataType::Date32 => time::date(get::<Date32Type>(array, at)),
        DataType::Timestamp(unit, zone) => {
            let count = match unit {
                TimeUnit::Second => get::<TimestampSecondType>(array, at),
                TimeUnit::Millisecond => get::<TimestampMillisecondType>(array, at),
                TimeUnit::Microsecond => get::<TimestampMicrosecondType>(array, at),
                TimeUnit::Nanosecond => get::<TimestampNanosecondType>(array, at),
            };
            time::instant(time::nanoseconds(count, *unit), zone.is_some())
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            time::of_day(get::<Time64MicrosecondType>(array, at).saturating_mul(1_000))
        }
        DataType::Time64(_) => time::of_day(get::<Time64NanosecondType>(array, at)),
        DataType::Duration(unit) => {
            let count = match unit {
                TimeUnit::Second => get::<DurationSecondType>(array, at),
                TimeUnit::Millisecond => get::<DurationMillisecondType>(array, at),
                TimeUnit::Microsecond => get::<DurationMicrosecondType>(array, at),
                TimeUnit::Nanosecond => get::<DurationNanosecondType>(array, at),
            };
            time::duration(time::nanoseconds(count, *unit))
        }
        DataType::Interval(IntervalUnit::YearMonth) => {
            time::interval(get::<IntervalYearMonthType>(array, at), 0, 0)
        }
        DataType::Interval(IntervalUnit::DayTime) => {
            let of = get::<IntervalDayTimeType>(array, at);
            time::interval(0, of.days.into(), i128::from(of.milliseconds) * 1_000_000)
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let of = get::<IntervalMonthDayNanoType>(array, at);
            time::interval(of.months, of.days.into(), of.nanoseconds.into())
        }
        other => {
            return Err(Stop::Unreadable(format!(
                "a value of Arrow's type {other}, which stands for none of Spark's"
            )));
        }
    })
}

fn get<T: ArrowPrimitiveType>(array: &dyn Array, at: usize) -> T::Native {
    array.as_primitive::<T>().value(at)
}

pub(super) fn text(room: &mut Room, text: &str) -> Result<Value, Stop> {
    room.spend(text.len() + 2)?;
    Ok(text.into())
}

pub(super) fn bytes(room: &mut Room, bytes: &[u8]) -> Result<Value, Stop> {
    room.spend(bytes.len().div_ceil(3) * 4 + 2)?;
    Ok(BASE64_STANDARD.encode(bytes).into())
}

/// The shortest number that is this one among the singles: 0.1, not 0.10000000149011612.
pub(super) fn single(number: f32) -> Value {
    double(number.to_string().parse().unwrap_or(f64::NAN))
}

/// JSON has no number for the rest.
pub(super) fn double(number: f64) -> Value {
    match number {
        n if n.is_finite() => n.into(),
        n if n.is_nan() => "NaN".into(),
        n if n > 0.0 => "Infinity".into(),
        _ => "-Infinity".into(),
    }
}

fn list(room: &mut Room, items: &dyn Array) -> Result<Value, Stop> {
    room.spend("[]".len())?;
    let items = (0..items.len()).map(|at| value(room, items, at));
    Ok(Value::Array(items.collect::<Result<_, _>>()?))
}

fn structure(room: &mut Room, of: &StructArray, at: usize) -> Result<Value, Stop> {
    let mut fields = Vec::with_capacity(of.num_columns());
    for (name, column) in of.column_names().into_iter().zip(of.columns()) {
        fields.push((text(room, name)?, value(room, column, at)?));
    }
    Ok(object(fields))
}

fn map(room: &mut Room, entries: &StructArray) -> Result<Value, Stop> {
    room.spend("{}".len())?;
    let mut pairs = Vec::new();
    for at in 0..entries.len() {
        let key = value(room, entries.column(0), at)?;
        pairs.push((key, value(room, entries.column(1), at)?));
    }
    // An empty map shows by its type what its keys would be.
    let texts = [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View];
    if pairs.is_empty() && !texts.contains(entries.column(0).data_type()) {
        return Ok(Value::Array(Vec::new()));
    }
    Ok(object(pairs))
}

/// An object, if it can be one: its keys are texts and differ.
fn object(pairs: Vec<(Value, Value)>) -> Value {
    let mut names: Vec<&str> = pairs.iter().filter_map(|(key, _)| key.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    if names.len() < pairs.len() {
        let pairs = pairs.into_iter();
        return pairs
            .map(|(key, value)| Value::from([key, value]))
            .collect();
    }
    let pairs = pairs.into_iter().map(|(key, value)| match key {
        Value::String(key) => (key, value),
        other => (other.to_string(), value),
    });
    Value::Object(pairs.collect::<Map<_, _>>())
}
