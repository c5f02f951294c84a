//! What a file or stdin holds: one request, an array of them, or JSON lines. What `--sql` means.

use std::fmt;

use serde_json::value::RawValue;
use serde_json::{Value, json};
use sparkferry_shared::Id;

/// A value of the input, and where it stands there.
#[derive(Debug)]
pub(super) struct Entry {
    /// Where.
    pub(super) place: Place,
    /// The text that the producer wrote.
    pub(super) text: Box<RawValue>,
}

/// Where in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// An element of an array, from 0.
    Element(usize),
    /// The line that it begins on, from 1.
    Line(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Element(index) => write!(f, "element {index}"),
            Self::Line(line) => write!(f, "line {line}"),
        }
    }
}

/// Parts the input. A first `[` makes it an array; else it is one object after another, on as many
/// lines as they like.
///
/// # Errors
/// Where it is not JSON in UTF-8, or holds nothing.
pub(super) fn split(input: &[u8]) -> Result<Vec<Entry>, String> {
    let text = std::str::from_utf8(input).map_err(|e| format!("is no text in UTF-8: {e}"))?;
    // Some editors begin a file with this mark; JSON knows none.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let not_json = |e: serde_json::Error| format!("is not JSON: {e}");
    let entries = if text.trim_start().starts_with('[') {
        let elements: Vec<Box<RawValue>> = serde_json::from_str(text).map_err(not_json)?;
        elements
            .into_iter()
            .enumerate()
            .map(|(index, text)| Entry {
                place: Place::Element(index),
                text,
            })
            .collect()
    } else {
        lines(text).map_err(not_json)?
    };
    if entries.is_empty() {
        return Err("holds no request".to_owned());
    }
    Ok(entries)
}

fn lines(text: &str) -> Result<Vec<Entry>, serde_json::Error> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Box<RawValue>>();
    let mut entries = Vec::new();
    let mut line = 1;
    let mut counted = 0;
    loop {
        let rest = &text[values.byte_offset()..];
        let begins = text.len() - rest.trim_start().len();
        let Some(value) = values.next() else {
            return Ok(entries);
        };
        line += text[counted..begins].matches('\n').count();
        counted = begins;
        entries.push(Entry {
            place: Place::Line(line),
            text: value?,
        });
    }
}

/// One request whose steps are the statements, in their order.
pub(super) fn of_statements(id: Option<&Id>, statements: &[String]) -> Value {
    let steps: Vec<Value> = statements.iter().map(|sql| json!({"sql": sql})).collect();
    json!({"id": id, "spark_connect": {"steps": steps}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(input: &str) -> Vec<(Place, String)> {
        split(input.as_bytes())
            .unwrap()
            .into_iter()
            .map(|entry| (entry.place, entry.text.get().to_owned()))
            .collect()
    }

    #[test]
    fn one_object_an_array_and_lines_are_read() {
        let at = |line, text: &str| (Place::Line(line), text.to_owned());
        assert_eq!(places("{}"), [at(1, "{}")]);
        assert_eq!(places("\n{\n \"a\": 1}\n"), [at(2, "{\n \"a\": 1}")]);
        assert_eq!(
            places("{\"a\":1}\n\n {\"a\":2}\r\n{\"a\":3}"),
            [at(1, "{\"a\":1}"), at(3, "{\"a\":2}"), at(4, "{\"a\":3}")]
        );
        let element = |index, text: &str| (Place::Element(index), text.to_owned());
        assert_eq!(places(" [ {} ,\n[]]"), [element(0, "{}"), element(1, "[]")]);
    }

    #[test]
    fn a_byte_order_mark_is_no_matter() {
        assert_eq!(places("\u{feff}{}").len(), 1);
        assert_eq!(places("\u{feff}[{}]").len(), 1);
    }

    #[test]
    fn what_is_no_input_is_told_with_its_line() {
        for (input, expected) in [
            (&b""[..], "holds no request"),
            (b" \n", "holds no request"),
            (b"[]", "holds no request"),
            (b"{}\n{\"a\":1\n", "line 3"),
            (b"{}\n{\"a\":x}\n", "line 2"),
            (b"hello", "is not JSON"),
            (b"[{}", "is not JSON"),
            (b"[{}] {}", "trailing characters"),
            (b"\xff\xfe{}", "UTF-8"),
        ] {
            let error = split(input).unwrap_err();
            assert!(error.contains(expected), "{input:?}: {error}");
        }
    }
}
