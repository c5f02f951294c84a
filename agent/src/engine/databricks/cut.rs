//! Making an output fit: at most so many bytes of JSON, the largest texts cut first, and a flag on
//! everything that was cut. Pure.

use serde_json::{Map, Value, json};

use crate::engine::text::level;
use crate::engine::trim::size;

/// An entry of `output.tasks`.
pub(super) type Entry = Map<String, Value>;

/// What an entry is never without.
const NAMES: [&str; 3] = ["task_key", "run_id", "result_state"];
/// Of these the end tells more than the beginning.
const TAILS: [&str; 2] = ["logs", "error_trace"];
/// Room for what is added to an entry when something of it is cut: `,"logs_truncated":true`,
/// `,"truncated":true` twice.
const FLAG_BYTES: usize = 64;

/// `{"tasks": [...]}` in at most `limit` bytes. What is cut has `truncated: true`, and so has the
/// whole; tasks that don't fit at all are counted in `tasks_omitted`.
pub(super) fn bounded(mut entries: Vec<Entry>, limit: usize) -> Value {
    // The whole's own words.
    let room = limit.saturating_sub(64);
    shrink(&mut entries, room);
    if size(&entries) > room {
        for entry in &mut entries {
            let before = entry.len();
            entry.retain(|name, _| NAMES.contains(&name.as_str()) || name == "truncated");
            if entry.len() < before {
                entry.insert("truncated".into(), true.into());
            }
        }
    }
    let mut omitted = 0_usize;
    while !entries.is_empty() && size(&entries) > room {
        // In steps, so that thousands of entries are not measured thousands of times.
        let step = entries.len().div_ceil(10);
        entries.truncate(entries.len() - step);
        omitted += step;
    }
    let truncated = omitted > 0 || entries.iter().any(|entry| entry.contains_key("truncated"));
    let mut output = json!({"tasks": entries});
    if truncated {
        output["truncated"] = true.into();
    }
    if omitted > 0 {
        output["tasks_omitted"] = omitted.into();
    }
    output
}

/// Cuts the largest texts of these entries until all of them fit into `limit` bytes of JSON, or no
/// text is left.
pub(super) fn shrink(entries: &mut [Entry], limit: usize) {
    let whole = size(&entries);
    if whole <= limit {
        return;
    }
    let mut lengths = Vec::new();
    for (name, value) in entries.iter().flatten() {
        if !NAMES.contains(&name.as_str()) {
            texts(value, &mut |text| lengths.push(escaped(text)));
        }
    }
    let fixed = whole - lengths.iter().sum::<usize>() + entries.len() * FLAG_BYTES;
    let longest = level(&lengths, limit.saturating_sub(fixed));
    for entry in entries {
        cut_entry(entry, longest);
    }
}

fn cut_entry(entry: &mut Entry, longest: usize) {
    let mut flags = Vec::new();
    for (name, value) in entry.iter_mut() {
        if NAMES.contains(&name.as_str()) || !cut(value, longest, TAILS.contains(&name.as_str())) {
            continue;
        }
        flags.push("truncated");
        match (name.as_str(), value) {
            ("logs", _) => flags.push("logs_truncated"),
            ("notebook_output", Value::Object(output)) => {
                output.insert("truncated".into(), true.into());
            }
            _ => {}
        }
    }
    for flag in flags {
        entry.insert(flag.into(), true.into());
    }
}

/// Cuts every text in a value; true if one was longer.
fn cut(value: &mut Value, longest: usize, tail: bool) -> bool {
    match value {
        Value::String(text) if escaped(text) > longest => {
            *text = if tail {
                let chars = text.chars().rev();
                text[text.len() - fitting(chars, longest)..].to_owned()
            } else {
                text[..fitting(text.chars(), longest)].to_owned()
            };
            true
        }
        Value::Array(values) => values
            .iter_mut()
            .fold(false, |any, value| cut(value, longest, tail) | any),
        Value::Object(values) => values
            .values_mut()
            .fold(false, |any, value| cut(value, longest, tail) | any),
        _ => false,
    }
}

fn texts(value: &Value, found: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => found(text),
        Value::Array(values) => values.iter().for_each(|value| texts(value, found)),
        Value::Object(values) => values.values().for_each(|value| texts(value, found)),
        _ => {}
    }
}

/// Bytes of so many characters as fit into `longest` bytes of JSON.
fn fitting(chars: impl Iterator<Item = char>, longest: usize) -> usize {
    let mut written = 0;
    chars
        .take_while(|c| {
            written += width(*c);
            written <= longest
        })
        .map(char::len_utf8)
        .sum()
}

/// Bytes of a text in JSON, without its quotes.
fn escaped(text: &str) -> usize {
    text.chars().map(width).sum()
}

/// Bytes of a character in JSON, as `serde_json` writes it.
fn width(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        c if c < ' ' => 6,
        c => c.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(value: Value) -> Entry {
        match value {
            Value::Object(entry) => entry,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn what_fits_is_left_alone() {
        let entries = vec![entry(
            json!({"task_key": "a", "logs": "x", "logs_truncated": false}),
        )];
        let whole = json!({"tasks": entries.clone()});
        assert_eq!(bounded(entries, 1000), whole);
    }

    #[test]
    fn the_largest_texts_are_cut_first_logs_at_their_beginning() {
        let long = |start: &str, end: &str| format!("{start}{}{end}", "\n".repeat(5000));
        let output = bounded(
            vec![
                entry(json!({"task_key": "a", "notebook_output":
                    {"result": long("begin", "end"), "truncated": false}})),
                entry(
                    json!({"task_key": "b", "logs": long("begin", "end"), "logs_truncated": false}),
                ),
                entry(
                    json!({"task_key": "c", "notebook_output": {"result": "short", "truncated": false}}),
                ),
                entry(json!({"task_key": "d", "error_trace": long("begin", "end")})),
            ],
            4000,
        );
        let text = output.to_string();
        assert!(text.len() <= 4000 && text.len() > 3500, "{}", text.len());
        assert_eq!(output["truncated"], true);
        let tasks = output["tasks"].as_array().unwrap();
        let result = tasks[0]["notebook_output"]["result"].as_str().unwrap();
        assert!(result.starts_with("begin") && !result.ends_with("end"));
        assert_eq!(tasks[0]["notebook_output"]["truncated"], true);
        let logs = tasks[1]["logs"].as_str().unwrap();
        assert!(!logs.starts_with("begin") && logs.ends_with("end"));
        assert_eq!(tasks[1]["logs_truncated"], true);
        assert!(tasks[3]["error_trace"].as_str().unwrap().ends_with("end"));
        assert_eq!(tasks[2]["notebook_output"]["result"], "short");
        let flags: Vec<_> = tasks
            .iter()
            .map(|task| task.contains("truncated"))
            .collect();
        assert_eq!(flags, [true, true, false, true]);
    }

    trait Contains {
        fn contains(&self, name: &str) -> bool;
    }

    impl Contains for Value {
        fn contains(&self, name: &str) -> bool {
            self.get(name).is_some()
        }
    }

    #[test]
    fn too_many_tasks_are_counted() {
        let entries = (0..500)
            .map(|n| entry(json!({"task_key": n.to_string(), "run_id": n, "logs": "hello"})));
        let output = bounded(entries.collect(), 1024);
        assert!(output.to_string().len() <= 1024);
        let kept = output["tasks"].as_array().unwrap().len();
        assert!(kept > 10, "{kept}");
        assert_eq!(output["tasks_omitted"], 500 - kept);
        assert_eq!(
            (&output["truncated"], &output["tasks"][0]["truncated"]),
            (&json!(true), &json!(true))
        );
    }

    proptest! {
        #[test]
        fn the_limit_holds_whatever_the_texts_are(
            texts in prop::collection::vec(any::<String>(), 0..30),
            repeat in 1_usize..200,
            limit in 256_usize..20_000,
        ) {
            let entries: Vec<Entry> = texts
                .iter()
                .map(|text| entry(json!({"task_key": "t", "run_id": 1, "logs": text.repeat(repeat),
                    "sql_output": {"link": text, "more": [text, 1]}})))
                .collect();
            let whole = json!({"tasks": entries.clone()}).to_string().len();
            let output = bounded(entries, limit);
            prop_assert!(output.to_string().len() <= limit);
            prop_assert_eq!(output.get("truncated").is_some(), whole > limit.saturating_sub(64) + 10);
            prop_assert_eq!(escaped(&texts.concat()), serde_json::to_string(&texts.concat()).unwrap().len() - 2);
        }
    }
}
