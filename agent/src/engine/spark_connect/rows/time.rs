//! Dates, instants and intervals as text.

use std::fmt::Write;

use arrow_schema::TimeUnit;
use jiff::tz::Offset;
use jiff::{Span, Timestamp, civil};
use serde_json::Value;

const NANOSECONDS_IN_SECOND: i128 = 1_000_000_000;
const NANOSECONDS_IN_DAY: i128 = 86_400 * NANOSECONDS_IN_SECOND;

/// So many of a unit.
pub(super) fn nanoseconds(count: i64, unit: TimeUnit) -> i128 {
    let each = match unit {
        TimeUnit::Second => NANOSECONDS_IN_SECOND,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    };
    i128::from(count) * each
}

/// A date, by the days since 1970.
pub(super) fn date(days: i32) -> Value {
    let since = Span::new().try_days(days);
    let date = since.and_then(|days| civil::date(1970, 1, 1).checked_add(days));
    date.map_or_else(|_| days.into(), |date| date.to_string().into())
}

/// A moment, by the nanoseconds since 1970: an instant, or the same by a clock in no zone.
pub(super) fn instant(nanoseconds: i128, zoned: bool) -> Value {
    match Timestamp::from_nanosecond(nanoseconds) {
        Ok(instant) if zoned => instant.to_string().into(),
        Ok(instant) => Offset::UTC.to_datetime(instant).to_string().into(),
        Err(_) => whole(nanoseconds.div_euclid(1_000)),
    }
}

/// A time of day, by the nanoseconds since midnight.
pub(super) fn of_day(nanoseconds: i64) -> Value {
    let midnight = civil::Date::constant(1970, 1, 1).at(0, 0, 0, 0);
    let since = Span::new().try_nanoseconds(nanoseconds);
    match since.and_then(|since| midnight.checked_add(since)) {
        Ok(time) if time.date() == midnight.date() => time.time().to_string().into(),
        _ => nanoseconds.into(),
    }
}

fn whole(number: i128) -> Value {
    i64::try_from(number).map_or_else(|_| number.to_string().into(), Value::from)
}

/// Days and parts of days.
pub(super) fn duration(nanoseconds: i128) -> Value {
    let days = nanoseconds / NANOSECONDS_IN_DAY;
    interval(0, days, nanoseconds % NANOSECONDS_IN_DAY)
}

/// An interval as ISO 8601 has it. A sign stands in front of the whole where all parts share it,
/// else at each part: `-P1DT2H`, `P1M-2D`.
pub(super) fn interval(months: i32, days: i128, nanoseconds: i128) -> Value {
    let parts = [i128::from(months), days, nanoseconds];
    let negative = parts.iter().all(|part| *part <= 0) && parts.iter().any(|part| *part < 0);
    let [months, days, nanoseconds] = parts.map(|part| if negative { -part } else { part });
    let mut text = String::from(if negative { "-P" } else { "P" });
    let mut put = |number: i128, unit: char| {
        if number != 0 {
            // Writing to a String never fails.
            let _ = write!(text, "{number}{unit}");
        }
    };
    put(months / 12, 'Y');
    put(months % 12, 'M');
    put(days, 'D');
    let seconds = nanoseconds / NANOSECONDS_IN_SECOND;
    let fraction = (nanoseconds % NANOSECONDS_IN_SECOND).abs();
    if nanoseconds != 0 {
        text.push('T');
        let mut put = |number: i128, unit: char| {
            if number != 0 {
                let _ = write!(text, "{number}{unit}");
            }
        };
        put(seconds / 3_600, 'H');
        put(seconds / 60 % 60, 'M');
        if fraction == 0 {
            put(seconds % 60, 'S');
        } else {
            let sign = if nanoseconds < 0 { "-" } else { "" };
            let fraction = format!("{fraction:09}");
            let fraction = fraction.trim_end_matches('0');
            let _ = write!(text, "{sign}{}.{fraction}S", (seconds % 60).abs());
        }
    }
    if text == "P" {
        text.push_str("T0S");
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_iso_8601() {
        let second = NANOSECONDS_IN_SECOND;
        for (months, days, nanoseconds, text) in [
            (0, 0, 0, "PT0S"),
            (14, 0, 0, "P1Y2M"),
            (-14, 0, 0, "-P1Y2M"),
            (1, -2, 0, "P1M-2D"),
            (0, 1, 2 * 3_600 * second, "P1DT2H"),
            (0, 0, 61 * second + 500_000_000, "PT1M1.5S"),
            (0, 0, -1_000, "-PT0.000001S"),
            (1, 0, -1_500_000_000, "P1MT-1.5S"),
            (i32::MIN, 0, 0, "-P178956970Y8M"),
        ] {
            assert_eq!(interval(months, days, nanoseconds), text);
        }
        assert_eq!(duration(-26 * 3_600 * second), "-P1DT2H");
    }

    #[test]
    fn what_no_calendar_holds_is_a_number() {
        assert_eq!(date(-1), "1969-12-31");
        assert_eq!(date(i32::MAX), i32::MAX);
        assert_eq!(instant(1, true), "1970-01-01T00:00:00.000000001Z");
        assert_eq!(instant(-1_000, false), "1969-12-31T23:59:59.999999");
        assert_eq!(instant(i128::from(i64::MAX) * 1_000, true), i64::MAX);
        assert_eq!(of_day(27_000_500_000_000), "07:30:00.5");
        assert_eq!(of_day(-1), -1);
        assert_eq!(of_day(i64::MAX), i64::MAX);
    }
}
