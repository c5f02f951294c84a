//! Types as Spark writes them: `bigint`, `decimal(10,2)`, `array<struct<a:int>>`.

use std::fmt::Write;

use arrow_schema::{DataType as ArrowType, Field, IntervalUnit, TimeUnit};
use spark_connect_proto::DataType;
use spark_connect_proto::data_type::Kind;

use super::variant;

/// The fields of a year-month interval, by Spark's numbers.
const YEAR_MONTH: [&str; 2] = ["year", "month"];
/// The fields of a day-time interval, by Spark's numbers.
const DAY_TIME: [&str; 4] = ["day", "hour", "minute", "second"];

/// A type that the server tells. A type that this version doesn't know is `unknown`.
pub(super) fn of_spark(data_type: Option<&DataType>) -> String {
    let mut text = String::new();
    write(&mut text, data_type);
    text
}

fn write(text: &mut String, data_type: Option<&DataType>) {
    let Some(kind) = data_type.and_then(|data_type| data_type.kind.as_ref()) else {
        text.push_str("unknown");
        return;
    };
    // Writing to a String never fails.
    let _ = match kind {
        Kind::Null(_) => write!(text, "void"),
        Kind::Binary(_) => write!(text, "binary"),
        Kind::Boolean(_) => write!(text, "boolean"),
        Kind::Byte(_) => write!(text, "tinyint"),
        Kind::Short(_) => write!(text, "smallint"),
        Kind::Integer(_) => write!(text, "int"),
        Kind::Long(_) => write!(text, "bigint"),
        Kind::Float(_) => write!(text, "float"),
        Kind::Double(_) => write!(text, "double"),
        Kind::Decimal(of) => {
            let (precision, scale) = (of.precision.unwrap_or(10), of.scale.unwrap_or(0));
            write!(text, "decimal({precision},{scale})")
        }
        Kind::String(of) if of.collation.is_empty() || of.collation == "UTF8_BINARY" => {
            write!(text, "string")
        }
        Kind::String(of) => write!(text, "string collate {}", of.collation),
        Kind::Char(of) => write!(text, "char({})", of.length),
        Kind::VarChar(of) => write!(text, "varchar({})", of.length),
        Kind::Date(_) => write!(text, "date"),
        Kind::Timestamp(_) => write!(text, "timestamp"),
        Kind::TimestampNtz(_) => write!(text, "timestamp_ntz"),
        Kind::TimestampLtzNanos(of) => write!(text, "timestamp_ltz({})", of.precision.unwrap_or(9)),
        Kind::TimestampNtzNanos(of) => write!(text, "timestamp_ntz({})", of.precision.unwrap_or(9)),
        Kind::Time(of) => write!(text, "time({})", of.precision.unwrap_or(6)),
        Kind::CalendarInterval(_) => write!(text, "interval"),
        Kind::YearMonthInterval(of) => interval(text, &YEAR_MONTH, of.start_field, of.end_field),
        Kind::DayTimeInterval(of) => interval(text, &DAY_TIME, of.start_field, of.end_field),
        Kind::Variant(_) => write!(text, "variant"),
        Kind::Geometry(of) => spatial(text, "geometry", of.srid),
        Kind::Geography(of) => spatial(text, "geography", of.srid),
        Kind::Unparsed(of) => write!(text, "{}", of.data_type_string),
        Kind::Udt(of) if of.sql_type.is_none() => write!(text, "udt"),
        Kind::Udt(of) => {
            write(text, of.sql_type.as_deref());
            Ok(())
        }
        Kind::Array(of) => {
            text.push_str("array<");
            write(text, of.element_type.as_deref());
            write!(text, ">")
        }
        Kind::Map(of) => {
            text.push_str("map<");
            write(text, of.key_type.as_deref());
            text.push(',');
            write(text, of.value_type.as_deref());
            write!(text, ">")
        }
        Kind::Struct(of) => {
            text.push_str("struct<");
            for (n, field) in of.fields.iter().enumerate() {
                let comma = if n > 0 { "," } else { "" };
                let _ = write!(text, "{comma}{}:", field.name);
                write(text, field.data_type.as_ref());
            }
            write!(text, ">")
        }
    };
}

/// `interval day to second`, or `interval day` where both ends are the same field.
fn interval(
    text: &mut String,
    fields: &[&str],
    start: Option<i32>,
    end: Option<i32>,
) -> std::fmt::Result {
    let field = |number: Option<i32>| fields.get(usize::try_from(number?).ok()?).copied();
    let first = field(start).unwrap_or(fields[0]);
    match field(end).unwrap_or(fields[fields.len() - 1]) {
        last if last == first => write!(text, "interval {first}"),
        last => write!(text, "interval {first} to {last}"),
    }
}

/// A reference system below 0 stands for "any".
fn spatial(text: &mut String, name: &str, srid: i32) -> std::fmt::Result {
    if srid < 0 {
        write!(text, "{name}(any)")
    } else {
        write!(text, "{name}({srid})")
    }
}

/// The type that Spark would have sent as this Arrow type.
pub(super) fn of_arrow(field: &Field) -> String {
    let fields = |fields: &arrow_schema::Fields| {
        let fields: Vec<String> = fields
            .iter()
            .map(|field| format!("{}:{}", field.name(), of_arrow(field)))
            .collect();
        fields.join(",")
    };
    match field.data_type() {
        ArrowType::Null => "void".to_owned(),
        ArrowType::Boolean => "boolean".to_owned(),
        ArrowType::Int8 => "tinyint".to_owned(),
        ArrowType::Int16 | ArrowType::UInt8 => "smallint".to_owned(),
        ArrowType::Int32 | ArrowType::UInt16 => "int".to_owned(),
        ArrowType::Int64 | ArrowType::UInt32 => "bigint".to_owned(),
        ArrowType::UInt64 => "decimal(20,0)".to_owned(),
        ArrowType::Float16 | ArrowType::Float32 => "float".to_owned(),
        ArrowType::Float64 => "double".to_owned(),
        ArrowType::Decimal32(precision, scale)
        | ArrowType::Decimal64(precision, scale)
        | ArrowType::Decimal128(precision, scale)
        | ArrowType::Decimal256(precision, scale) => format!("decimal({precision},{scale})"),
        ArrowType::Utf8 | ArrowType::LargeUtf8 | ArrowType::Utf8View => "string".to_owned(),
        ArrowType::Binary
        | ArrowType::LargeBinary
        | ArrowType::BinaryView
        | ArrowType::FixedSizeBinary(_) => "binary".to_owned(),
        ArrowType::Date32 | ArrowType::Date64 => "date".to_owned(),
        ArrowType::Timestamp(TimeUnit::Nanosecond, Some(_)) => "timestamp_ltz(9)".to_owned(),
        ArrowType::Timestamp(TimeUnit::Nanosecond, None) => "timestamp_ntz(9)".to_owned(),
        ArrowType::Timestamp(_, Some(_)) => "timestamp".to_owned(),
        ArrowType::Timestamp(_, None) => "timestamp_ntz".to_owned(),
        ArrowType::Time32(_) | ArrowType::Time64(_) => "time(6)".to_owned(),
        ArrowType::Duration(_) | ArrowType::Interval(IntervalUnit::DayTime) => {
            "interval day to second".to_owned()
        }
        ArrowType::Interval(IntervalUnit::YearMonth) => "interval year to month".to_owned(),
        ArrowType::Interval(IntervalUnit::MonthDayNano) => "interval".to_owned(),
        ArrowType::List(of)
        | ArrowType::LargeList(of)
        | ArrowType::ListView(of)
        | ArrowType::LargeListView(of)
        | ArrowType::FixedSizeList(of, _) => format!("array<{}>", of_arrow(of)),
        ArrowType::Struct(of) if variant::is_variant(of) => "variant".to_owned(),
        ArrowType::Struct(of) => format!("struct<{}>", fields(of)),
        ArrowType::Map(entries, _) => match entries.data_type() {
            ArrowType::Struct(of) if of.len() == 2 => {
                format!("map<{},{}>", of_arrow(&of[0]), of_arrow(&of[1]))
            }
            _ => "unknown".to_owned(),
        },
        ArrowType::Dictionary(_, values) => {
            of_arrow(&Field::new(field.name(), (**values).clone(), true))
        }
        ArrowType::Union(..) | ArrowType::RunEndEncoded(..) => "unknown".to_owned(),
    }
}
