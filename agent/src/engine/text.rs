//! Cutting texts where characters part.

/// The beginning of a text, at most `bytes` bytes.
pub(super) fn head(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// The end of a text, at most `bytes` bytes.
pub(super) fn tail(text: &str, bytes: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(bytes))..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_never_parts_a_character() {
        assert_eq!(head("naïve", 10), "naïve");
        assert_eq!(head("naïve", 3), "na");
        assert_eq!(tail("naïve", 3), "ve");
        assert_eq!(tail("naïve", 4), "ïve");
        assert_eq!((head("x", 0), tail("x", 0)), ("", ""));
    }
}
