//! Methods that the broker sends: the names in them that others have chosen.

use std::ops::Range;

use super::cursor::Cursor;

/// A field of a method.
enum Field {
    /// A short string.
    Text,
    /// So many bytes of something else.
    Other(usize),
}

use Field::{Other, Text};

/// By class and method: the fields of a broker's method up to its last text. Routing keys are their
/// publisher's, and a text that tells an error may be cut in the middle of a character.
const TEXTS: [((u16, u16), &[Field]); 10] = [
    (CONNECTION_CLOSE, &[Other(2), Text]),
    (CONNECTION_BLOCKED, &[Text]),
    (CHANNEL_CLOSE, &[Other(2), Text]),
    (QUEUE_DECLARE_OK, &[Text]),
    (BASIC_CONSUME_OK, &[Text]),
    (BASIC_CANCEL, &[Text]),
    (BASIC_CANCEL_OK, &[Text]),
    // Code and text; exchange and routing key.
    (BASIC_RETURN, &[Other(2), Text, Text, Text]),
    // The consumer; the delivery's tag, and whether it was delivered before; exchange and routing key.
    (BASIC_DELIVER, &[Text, Other(9), Text, Text]),
    // The same without a consumer.
    (BASIC_GET_OK, &[Other(9), Text, Text]),
];
const CONNECTION_CLOSE: (u16, u16) = (10, 50);
const CONNECTION_BLOCKED: (u16, u16) = (10, 60);
const CHANNEL_CLOSE: (u16, u16) = (20, 40);
const QUEUE_DECLARE_OK: (u16, u16) = (50, 11);
const BASIC_CONSUME_OK: (u16, u16) = (60, 21);
const BASIC_CANCEL: (u16, u16) = (60, 30);
const BASIC_CANCEL_OK: (u16, u16) = (60, 31);
const BASIC_RETURN: (u16, u16) = (60, 50);
const BASIC_DELIVER: (u16, u16) = (60, 60);
const BASIC_GET_OK: (u16, u16) = (60, 71);

/// Which method it is: its class and its number there.
pub(super) fn of(method: &[u8]) -> Option<(u16, u16)> {
    let mut cursor = Cursor::new(method);
    Some((cursor.short()?, cursor.short()?))
}

/// Puts a question mark for each byte that is not UTF-8 in the method's texts.
pub(super) fn make_readable(method: &mut [u8]) {
    let Some(of) = of(method) else { return };
    let Some((_, fields)) = TEXTS.iter().find(|(known, _)| *known == of) else {
        return;
    };
    for text in texts(method, fields) {
        replace(&mut method[text]);
    }
}

/// Where the method's texts are, as far as it has the form that it should have.
fn texts(method: &[u8], fields: &[Field]) -> Vec<Range<usize>> {
    let mut cursor = Cursor::new(method);
    let mut found = Vec::new();
    // Class and method.
    cursor.take(4);
    for field in fields {
        let taken = match field {
            Text => cursor.short_string(),
            Other(count) => cursor.take(*count),
        };
        let Some(taken) = taken else { break };
        if matches!(field, Text) {
            let end = method.len() - cursor.rest().len();
            found.push(end - taken.len()..end);
        }
    }
    found
}

fn replace(text: &mut [u8]) {
    while let Err(error) = std::str::from_utf8(text) {
        let from = error.valid_up_to();
        let to = error.error_len().map_or(text.len(), |length| from + length);
        text[from..to].fill(b'?');
    }
}
