//! Headers that speak of time.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};

/// The longest `Retry-After` that is believed. A server that asks for more is asked again then.
const LONGEST: Duration = Duration::from_hours(1);

/// How long the server asks to be left alone: `Retry-After` in seconds or as an HTTP date, at most an
/// hour. A date is counted from when the server sent its reply, by its own clock, or else from `now`.
/// What is neither is no wish.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = text.parse() {
        Duration::try_from_secs_f64(seconds).ok()?
    } else {
        let until = time(headers, &RETRY_AFTER)?;
        let since = date(headers).unwrap_or(now);
        Duration::try_from(until.duration_since(since)).unwrap_or_default()
    };
    Some(wait.min(LONGEST))
}

/// When the server sent its reply, by its own clock, to the second.
pub fn date(headers: &HeaderMap) -> Option<Timestamp> {
    time(headers, &DATE)
}

fn time(headers: &HeaderMap, name: &HeaderName) -> Option<Timestamp> {
    let text = headers.get(name)?.to_str().ok()?;
    Some(rfc2822::parse(text.trim()).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, text.parse().unwrap());
        retry_after(&headers, "2026-11-21T08:00:00Z".parse().unwrap())
    }

    #[test]
    fn a_wish_is_a_number_of_seconds_or_a_date() {
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked(" 0.5 "), Some(Duration::from_millis(500)));
        let date = |text| asked(text).map(|wait| wait.as_secs());
        assert_eq!(date("Sat, 21 Nov 2026 08:01:30 GMT"), Some(90));
        assert_eq!(date("Sat, 21 Nov 2026 07:00:00 GMT"), Some(0));
        assert_eq!(asked("999999999"), Some(LONGEST));
        for nonsense in ["", "soon", "-3", "NaN", "inf"] {
            assert_eq!(asked(nonsense), None, "{nonsense:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), Timestamp::UNIX_EPOCH), None);
    }

    #[test]
    fn a_date_is_the_servers_whatever_our_clock_says() {
        let mut headers = HeaderMap::new();
        let mut put = |name, text: &str| headers.insert(name, text.parse().unwrap());
        put(RETRY_AFTER, "Sat, 21 Nov 2026 08:01:30 GMT");
        put(DATE, "Sat, 21 Nov 2026 08:01:00 GMT");
        for now in ["2026-11-21T07:00:00Z", "2026-11-21T09:00:00Z"] {
            let asked = retry_after(&headers, now.parse().unwrap());
            assert_eq!(asked, Some(Duration::from_secs(30)), "{now}");
        }
    }
}
