//! Cutting to size: how much of each may stay, and texts where characters part.

/// The beginning of a text, at most `bytes` bytes.
pub(super) fn head(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// The end of a text, at most `bytes` bytes.
pub(super) fn tail(text: &str, bytes: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(bytes))..]
}

/// The most that each of these may keep so that together they take `room` at most: the smaller ones
/// stay whole, the larger ones are cut to the same level. Found by halving.
#[cfg(any(feature = "databricks", feature = "spark_connect"))]
pub(super) fn level(sizes: &[usize], room: usize) -> usize {
    let fits = |most: usize| sizes.iter().map(|size| (*size).min(most)).sum::<usize>() <= room;
    let (mut low, mut high) = (0, sizes.iter().copied().max().unwrap_or(0));
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
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
