//! A content header: a message's properties.

use super::cursor::Cursor;
use super::fault::Fault;
use super::headers::Headers;

/// What stands before the properties: the class, the weight, and the size of the body.
pub(super) const PREFIX_BYTES: usize = 2 + 2 + 8;

/// The properties of a message in the order in which they come. The first one's flag is the highest
/// bit.
pub(super) const PROPERTIES: [(&str, Kind); 14] = [
    ("content_type", Kind::ShortString),
    ("content_encoding", Kind::ShortString),
    ("headers", Kind::Table),
    ("delivery_mode", Kind::Octet),
    ("priority", Kind::Octet),
    ("correlation_id", Kind::ShortString),
    ("reply_to", Kind::ShortString),
    ("expiration", Kind::ShortString),
    ("message_id", Kind::ShortString),
    ("timestamp", Kind::Timestamp),
    ("type", Kind::ShortString),
    ("user_id", Kind::ShortString),
    ("app_id", Kind::ShortString),
    ("cluster_id", Kind::ShortString),
];
/// What of unreadable properties goes with the message all the same: whose it is, and who wants to know.
const KEPT: [&str; 4] = ["correlation_id", "reply_to", "message_id", "timestamp"];
const HEADERS: usize = 2;

/// The type of a property.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    ShortString,
    Table,
    Octet,
    Timestamp,
}

/// What was found in a content header.
#[derive(Default)]
struct Found<'a> {
    fault: Option<Fault>,
    /// Each that can be read, by its place in [`PROPERTIES`], as it stands there.
    readable: Vec<(usize, &'a [u8])>,
    headers: Option<Headers<'a>>,
}

/// Looks at a content header and returns what stands for it where it can't stay as it is: where lapin
/// can't parse it, and where it is larger than `max` bytes.
pub(super) fn inspect(content: &[u8], max: usize) -> Option<Vec<u8>> {
    let (prefix, properties) = content.split_at_checked(PREFIX_BYTES)?;
    let found = walk(properties);
    let reduce = found.headers.as_ref().is_some_and(|headers| headers.reduce);
    if found.fault.is_none() && !reduce && content.len() <= max {
        return None;
    }
    Some(written(prefix, &found, max))
}

/// Stands for a content header of which only the beginning is known, for it is too large.
pub(super) fn too_large(prefix: &[u8]) -> Vec<u8> {
    let found = Found {
        fault: Some(Fault::TooLarge),
        ..Found::default()
    };
    written(prefix, &found, usize::MAX)
}

fn walk(properties: &[u8]) -> Found<'_> {
    let mut found = Found::default();
    let mut cursor = Cursor::new(properties);
    let Some(flags) = cursor.short() else {
        found.fault = Some(Fault::Malformed);
        return found;
    };
    for (at, (_, kind)) in PROPERTIES.iter().enumerate() {
        if flags & (1 << (15 - at)) == 0 {
            continue;
        }
        let before = cursor.rest();
        let value = match kind {
            Kind::ShortString => cursor.short_string(),
            Kind::Table => cursor.long_string(),
            Kind::Octet => cursor.take(1),
            Kind::Timestamp => cursor.take(8),
        };
        let Some(value) = value else {
            found.fault = Some(Fault::Malformed);
            return found;
        };
        let property = &before[..before.len() - cursor.rest().len()];
        match kind {
            Kind::Table => {
                let headers = Headers::inspect(value);
                found.fault = found.fault.or(headers.fault);
                found.headers = Some(headers);
                found.readable.push((at, property));
            }
            Kind::ShortString if std::str::from_utf8(value).is_err() => {
                let place = u8::try_from(at).unwrap_or_default();
                found.fault = found.fault.or(Some(Fault::NotUtf8(place)));
            }
            _ => found.readable.push((at, property)),
        }
    }
    // The two lowest flags stand for nothing; one of them for more flags, which nobody has ever had.
    if flags & 0b11 != 0 || !cursor.rest().is_empty() {
        found.fault = found.fault.or(Some(Fault::Malformed));
    }
    found
}

fn written(prefix: &[u8], found: &Found<'_>, max: usize) -> Vec<u8> {
    let keep =
        |at: usize| at != HEADERS && (found.fault.is_none() || KEPT.contains(&PROPERTIES[at].0));
    let kept = || found.readable.iter().filter(|(at, _)| keep(*at));
    let others: usize = kept().map(|(_, property)| property.len()).sum();
    let room = max.saturating_sub(PREFIX_BYTES + 2 + others);
    let none = Headers::default();
    let headers = found.headers.as_ref().unwrap_or(&none);
    let headers = headers.reduced(found.fault, room);

    let mut flags: u16 = 0;
    let mut properties = Vec::new();
    for at in 0..PROPERTIES.len() {
        let property = match &headers {
            Some(headers) if at == HEADERS => Some(headers.as_slice()),
            _ => kept()
                .find(|(kept, _)| *kept == at)
                .map(|(_, property)| *property),
        };
        if let Some(property) = property {
            flags |= 1 << (15 - at);
            properties.extend_from_slice(property);
        }
    }
    [prefix, &flags.to_be_bytes(), &properties].concat()
}
