//! What a parser says, without what it found: bodies hold what only their engine should see.

/// The most of a field's path, or of a text, that is told, in bytes.
const MAX_BYTES: usize = 400;
const EXPECTED: &str = ", expected ";

/// `invalid type: string "hunter2", expected a map` without what stands in quotes.
pub(crate) fn without_values(text: &str) -> String {
    let kinds = ["invalid type: ", "invalid value: "];
    let found = kinds
        .into_iter()
        .find_map(|kind| Some((kind, text.strip_prefix(kind)?)));
    if let Some((kind, found)) = found
        && let Some(end) = found.rfind(EXPECTED)
    {
        let what = found[..end].split(['"', '`']).next().unwrap_or_default();
        return bounded(&format!("{kind}{}{}", what.trim(), &found[end..]));
    }
    if text.starts_with("unknown variant `")
        && let Some(end) = text.rfind("`, expected ")
    {
        return bounded(&format!("unknown variant{}", &text[end + 1..]));
    }
    // What a type's own parser says may quote what it was given.
    match (text.find('"'), text.rfind('"')) {
        (Some(from), Some(to)) if from < to => {
            bounded(&format!("{}\"...{}", &text[..from], &text[to..]))
        }
        _ => bounded(text),
    }
}

/// A text of a length that can be told.
pub(super) fn bounded(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_BYTES);
    if end == text.len() {
        return text.to_owned();
    }
    format!("{}...", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_not_told() {
        for (said, told) in [
            (
                r#"invalid type: string "a, expected \"x\"", expected a map"#,
                "invalid type: string, expected a map",
            ),
            (
                "invalid value: integer `-1`, expected u32",
                "invalid value: integer, expected u32",
            ),
            (
                "unknown variant `hunter2`, expected one of `a`, `b`",
                "unknown variant, expected one of `a`, `b`",
            ),
            (
                r#"failed to parse "hunter2": no offset"#,
                r#"failed to parse "...": no offset"#,
            ),
            (
                "invalid type: map, expected a string",
                "invalid type: map, expected a string",
            ),
            ("must not be empty", "must not be empty"),
        ] {
            assert_eq!(without_values(said), told);
        }
        assert_eq!(without_values(&"ä".repeat(1000)).len(), MAX_BYTES + 3);
    }
}
