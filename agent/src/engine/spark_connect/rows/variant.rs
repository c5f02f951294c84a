//! Spark's VARIANT: a value that carries its own type, in two binaries, `value` and `metadata`
//! (the names of all fields).
//!
//! It becomes the JSON that its content would be in a column, but for decimals: `parse_json` makes
//! every fraction one, so what a double holds exactly enough (15 digits) is a number again. What
//! this version doesn't know, and what is nested deeper than [`DEPTH`], is null, and the step is
//! `truncated`.

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, DecimalType};
use arrow_schema::{DataType, Fields};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::time;
use super::value::{Room, Stop, bytes, double, single, text};

/// Nested lists and objects in one variant, at most.
const DEPTH: usize = 64;
/// Whole numbers below this have at most 15 digits.
const DIGITS_15: u128 = 1_000_000_000_000_000;

/// Whether an Arrow struct is how Spark sends a variant.
pub(super) fn is_variant(fields: &Fields) -> bool {
    let binary = |name: &str| {
        fields.iter().any(|field| {
            field.name() == name
                && matches!(field.data_type(), DataType::Binary | DataType::LargeBinary)
        })
    };
    let marked = fields.iter().any(|field| {
        let mark = field.metadata().get("variant");
        field.name() == "metadata" && mark.is_some_and(|mark| mark == "true")
    });
    fields.len() == 2 && binary("value") && binary("metadata") && marked
}

/// The variant at `at`.
pub(super) fn value(room: &mut Room, array: &dyn Array, at: usize) -> Result<Value, Stop> {
    let part = |name: &str| {
        let column = array.as_struct().column_by_name(name)?;
        Some(match column.data_type() {
            DataType::LargeBinary => column.as_binary::<i64>().value(at),
            _ => column.as_binary::<i32>().value(at),
        })
    };
    let (Some(value), Some(metadata)) = (part("value"), part("metadata")) else {
        return Err(damaged());
    };
    let names = Names::read(metadata).ok_or_else(damaged)?;
    decode(room, &names, value, 0)
}

fn damaged() -> Stop {
    Stop::Unreadable("a variant is damaged".to_owned())
}

/// The names of all fields.
struct Names<'a> {
    offsets: Offsets<'a>,
    texts: &'a [u8],
}

impl<'a> Names<'a> {
    fn read(metadata: &'a [u8]) -> Option<Self> {
        let (header, rest) = metadata.split_first()?;
        if header & 0x0f != 1 {
            return None;
        }
        let width = usize::from(header >> 6) + 1;
        let (count, rest) = number(rest, width)?;
        let (offsets, texts) = Offsets::split(rest, count.checked_add(1)?, width)?;
        Some(Self { offsets, texts })
    }

    fn get(&self, id: usize) -> Option<&'a str> {
        let range = self.offsets.get(id)?..self.offsets.get(id.checked_add(1)?)?;
        std::str::from_utf8(self.texts.get(range)?).ok()
    }
}

/// Whole numbers of so many bytes, one after the other.
#[derive(Clone, Copy)]
struct Offsets<'a> {
    bytes: &'a [u8],
    width: usize,
}

impl<'a> Offsets<'a> {
    fn split(bytes: &'a [u8], count: usize, width: usize) -> Option<(Self, &'a [u8])> {
        let (bytes, rest) = bytes.split_at_checked(count.checked_mul(width)?)?;
        Some((Self { bytes, width }, rest))
    }

    fn get(self, at: usize) -> Option<usize> {
        let from = self.bytes.get(at.checked_mul(self.width)?..)?;
        number(from, self.width).map(|(number, _)| number)
    }
}

/// A whole number of at most 4 bytes, the least significant one first.
fn number(bytes: &[u8], width: usize) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_at_checked(width)?;
    let number = number.iter().rev();
    Some((
        number.fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        rest,
    ))
}

fn decode(room: &mut Room, names: &Names<'_>, value: &[u8], depth: usize) -> Result<Value, Stop> {
    let (first, rest) = value.split_first().ok_or_else(damaged)?;
    let header = first >> 2;
    match first & 3 {
        0 => primitive(room, header, rest),
        1 => {
            let short = rest.get(..header.into()).ok_or_else(damaged)?;
            text(room, std::str::from_utf8(short).map_err(|_| damaged())?)
        }
        _ if depth >= DEPTH => {
            room.leave_out();
            Ok(Value::Null)
        }
        2 => {
            let large = header & 16 != 0;
            let (width, id_width) = (
                usize::from(header & 3) + 1,
                usize::from(header >> 2 & 3) + 1,
            );
            let (count, rest) = number(rest, if large { 4 } else { 1 }).ok_or_else(damaged)?;
            let (ids, rest) = Offsets::split(rest, count, id_width).ok_or_else(damaged)?;
            let (offsets, values) = Offsets::split(rest, count + 1, width).ok_or_else(damaged)?;
            room.spend("{}".len())?;
            let mut object = Map::new();
            for at in 0..count {
                let name = ids
                    .get(at)
                    .and_then(|id| names.get(id))
                    .ok_or_else(damaged)?;
                let from = offsets.get(at).and_then(|from| values.get(from..));
                room.spend(name.len() + 2)?;
                let value = decode(room, names, from.ok_or_else(damaged)?, depth + 1)?;
                object.insert(name.to_owned(), value);
            }
            Ok(Value::Object(object))
        }
        _ => {
            let large = header & 4 != 0;
            let width = usize::from(header & 3) + 1;
            let (count, rest) = number(rest, if large { 4 } else { 1 }).ok_or_else(damaged)?;
            let (offsets, values) = Offsets::split(rest, count + 1, width).ok_or_else(damaged)?;
            room.spend("[]".len())?;
            let items = (0..count).map(|at| {
                let from = offsets.get(at).and_then(|from| values.get(from..));
                decode(room, names, from.ok_or_else(damaged)?, depth + 1)
            });
            Ok(Value::Array(items.collect::<Result<_, _>>()?))
        }
    }
}

fn primitive(room: &mut Room, kind: u8, bytes_of: &[u8]) -> Result<Value, Stop> {
    let long = || {
        let (length, rest) = number(bytes_of, 4).ok_or_else(damaged)?;
        rest.get(..length).ok_or_else(damaged)
    };
    let value = match kind {
        0 => Value::Null,
        1 => true.into(),
        2 => false.into(),
        3 => i8::from_le_bytes(fixed(bytes_of)?).into(),
        4 => i16::from_le_bytes(fixed(bytes_of)?).into(),
        5 => i32::from_le_bytes(fixed(bytes_of)?).into(),
        6 => i64::from_le_bytes(fixed(bytes_of)?).into(),
        7 => double(f64::from_le_bytes(fixed(bytes_of)?)),
        8..=10 => {
            let (scale, digits) = bytes_of.split_first().ok_or_else(damaged)?;
            let unscaled = match kind {
                8 => i32::from_le_bytes(fixed(digits)?).into(),
                9 => i64::from_le_bytes(fixed(digits)?).into(),
                _ => i128::from_le_bytes(fixed(digits)?),
            };
            decimal(unscaled, *scale)?
        }
        11 => time::date(i32::from_le_bytes(fixed(bytes_of)?)),
        12 | 13 => time::instant(
            i128::from(i64::from_le_bytes(fixed(bytes_of)?)) * 1_000,
            kind == 12,
        ),
        14 => single(f32::from_le_bytes(fixed(bytes_of)?)),
        15 => return bytes(room, long()?),
        16 => return text(room, std::str::from_utf8(long()?).map_err(|_| damaged())?),
        17 => time::of_day(i64::from_le_bytes(fixed(bytes_of)?).saturating_mul(1_000)),
        18 | 19 => time::instant(i64::from_le_bytes(fixed(bytes_of)?).into(), kind == 18),
        20 => Uuid::from_bytes(fixed(bytes_of)?).to_string().into(),
        _ => {
            room.leave_out();
            Value::Null
        }
    };
    room.spend(value.as_str().map_or(1, |text| text.len() + 2))?;
    Ok(value)
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Stop> {
    bytes.first_chunk().copied().ok_or_else(damaged)
}

fn decimal(unscaled: i128, scale: u8) -> Result<Value, Stop> {
    let scale = i8::try_from(scale)
        .ok()
        .filter(|scale| *scale <= 38)
        .ok_or_else(damaged)?;
    let text = Decimal128Type::format_decimal(unscaled, 38, scale);
    Ok(match text.parse::<f64>() {
        Ok(number) if unscaled.unsigned_abs() < DIGITS_15 => double(number),
        _ => text.into(),
    })
}
