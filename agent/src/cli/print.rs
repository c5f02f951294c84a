//! Printing: results on stdout, everything else on stderr.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::problem::Problem;

/// Prints one line on stdout, at once.
pub(crate) fn line(text: &str) -> Result<(), Problem> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Prints a value as one line of JSON on stdout.
pub(crate) fn json_line(value: &impl Serialize) -> Result<(), Problem> {
    line(&serde_json::to_string(value).map_err(io::Error::from)?)
}

/// Prints a document of JSON on stdout, for people to read.
pub(crate) fn document(value: &impl Serialize) -> Result<(), Problem> {
    line(&serde_json::to_string_pretty(value).map_err(io::Error::from)?)
}

/// Says something on stderr. That nobody listens there is no reason to stop.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A table that fits the terminal, or has plain columns elsewhere.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.set_header(header);
    if !table.is_tty() {
        table.load_style(presets::NOTHING);
        return table;
    }
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic);
    if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        if let Some(width) = table.width() {
            table.set_width(width);
        }
        table.force_no_tty();
    }
    table
}

/// A text from elsewhere on one line, at most `limit` characters of it. Control characters, with
/// which a message could repaint the terminal, become spaces.
pub(crate) fn one_line(text: &str, limit: usize) -> String {
    let mut line = String::new();
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    for word in words.filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    match line.char_indices().nth(limit) {
        Some(_) => {
            let mut cut: String = line.chars().take(limit.saturating_sub(1)).collect();
            cut.push('…');
            cut
        }
        None => line,
    }
}

/// A duration as people say it: `0.4 s`, `12 s`, `3 min 05 s`, `2 h 00 min`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let mut text = String::new();
    // Writing to a String never fails.
    let _ = match seconds {
        0..10 => write!(text, "{}.{} s", seconds, time.subsec_millis() / 100),
        10..60 => write!(text, "{seconds} s"),
        60..3600 => write!(text, "{} min {:02} s", seconds / 60, seconds % 60),
        _ => write!(text, "{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        for (millis, text) in [
            (0, "0.0 s"),
            (449, "0.4 s"),
            (9_999, "9.9 s"),
            (12_700, "12 s"),
            (185_000, "3 min 05 s"),
            (7_200_000, "2 h 00 min"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn a_text_from_elsewhere_is_tamed() {
        assert_eq!(one_line("a\n\tb\u{1b}[31m c", 80), "a b [31m c");
        assert_eq!(one_line("äöü", 3), "äöü");
        assert_eq!(one_line("äöüß", 3), "äö…");
        assert_eq!(one_line("", 3), "");
    }
}
