//! `--set KEY=VALUE`: one value of a request, given on the command line.

use std::str::FromStr;

use serde_json::value::{RawValue, to_raw_value};
use sparkferry_shared::Body;

/// One value and where it goes.
#[derive(Debug, Clone)]
pub(super) struct Assignment {
    /// As it was written, for errors.
    key: String,
    path: Vec<String>,
    value: Box<RawValue>,
}

impl FromStr for Assignment {
    type Err = String;

    /// `run_now.job_parameters.day=2026-11-21`: names parted by dots (`\.` is a dot inside a name),
    /// numbers for the elements of a list (`tasks.0` or `tasks[0]`). A value that is JSON is taken as
    /// JSON, any other as a string.
    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text
            .split_once('=')
            .ok_or("expected KEY=VALUE, such as run_now.job_id=42")?;
        let path = path(key)?;
        let value = match serde_json::from_str::<Box<RawValue>>(value) {
            Ok(value) => value,
            Err(_) => to_raw_value(value).map_err(|e| e.to_string())?,
        };
        Ok(Self {
            key: key.to_owned(),
            path,
            value,
        })
    }
}

/// The names in a key.
fn path(key: &str) -> Result<Vec<String>, String> {
    let mut path = vec![String::new()];
    let mut characters = key.chars();
    while let Some(c) = characters.next() {
        let name = path.last_mut().ok_or("a key has a name")?;
        match c {
            '\\' => name.push(characters.next().ok_or("the key ends in a backslash")?),
            '.' => path.push(String::new()),
            '[' => {
                let index: String = characters.by_ref().take_while(|&c| c != ']').collect();
                path.push(index);
            }
            c => name.push(c),
        }
    }
    if path.iter().any(String::is_empty) {
        return Err(format!(
            "the key {key:?} has an empty name; expected NAME.NAME=VALUE"
        ));
    }
    Ok(path)
}

impl Assignment {
    /// Puts the value into a request. Objects on the way to it are made where they are missing;
    /// every other value stays the text that it was.
    ///
    /// # Errors
    /// Where something on the way is neither an object nor a list that long.
    pub(super) fn apply(&self, request: &RawValue) -> Result<Box<RawValue>, String> {
        put(Some(request), &self.path, &self.value)
            .map_err(|why| format!("--set {}: {why}", self.key))
    }
}

fn put(
    into: Option<&RawValue>,
    path: &[String],
    value: &RawValue,
) -> Result<Box<RawValue>, String> {
    let Some((name, rest)) = path.split_first() else {
        return Ok(value.to_owned());
    };
    let text = into.map_or("null", RawValue::get);
    let wrong = |e: serde_json::Error| e.to_string();
    match text.as_bytes().first() {
        Some(b'{' | b'n') => {
            let mut body: Option<Body> = serde_json::from_str(text).map_err(wrong)?;
            let mut body = body.take().unwrap_or_default();
            let inner = put(body.get(name), rest, value)?;
            body.set(name, &inner).map_err(wrong)?;
            to_raw_value(&body).map_err(wrong)
        }
        Some(b'[') => {
            let mut list: Vec<Box<RawValue>> = serde_json::from_str(text).map_err(wrong)?;
            let length = list.len();
            let element = name
                .parse::<usize>()
                .ok()
                .and_then(|index| list.get_mut(index))
                .ok_or_else(|| format!("{name:?} is no element of a list of {length} (from 0)"))?;
            *element = put(Some(element), rest, value)?;
            to_raw_value(&list).map_err(wrong)
        }
        _ => Err(format!("{name:?} can't be put into a plain value")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(request: &str, assignment: &str) -> Result<String, String> {
        let request: Box<RawValue> = serde_json::from_str(request).unwrap();
        let assignment: Assignment = assignment.parse()?;
        Ok(assignment.apply(&request)?.get().to_owned())
    }

    #[test]
    fn a_value_goes_to_its_place_and_the_others_stay() {
        for (request, assignment, expected) in [
            (
                r#"{"run_now":{"job_id":1.10}}"#,
                "run_now.job_parameters.day=2026-11-21",
                r#"{"run_now":{"job_id":1.10,"job_parameters":{"day":"2026-11-21"}}}"#,
            ),
            (r#"{"a":1}"#, "a=true", r#"{"a":true}"#),
            (r#"{"a":1}"#, r#"a="5""#, r#"{"a":"5"}"#),
            (r#"{"a":1}"#, "a=", r#"{"a":""}"#),
            (r#"{"a":1}"#, "a=x=y", r#"{"a":"x=y"}"#),
            (r#"{"a":null}"#, "a.b=[1, 2]", r#"{"a":{"b":[1, 2]}}"#),
            (
                r#"{"c":{"spark.x":"1"}}"#,
                r"c.spark\.x=y",
                r#"{"c":{"spark.x":"y"}}"#,
            ),
            (
                r#"{"tasks":[{"k":1},{"k":2}]}"#,
                "tasks.1.k=3",
                r#"{"tasks":[{"k":1},{"k":3}]}"#,
            ),
            (
                r#"{"tasks":[{"k":1},{"k":2}]}"#,
                "tasks[0].k=3",
                r#"{"tasks":[{"k":3},{"k":2}]}"#,
            ),
        ] {
            assert_eq!(set(request, assignment).unwrap(), expected, "{assignment}");
        }
    }

    #[test]
    fn a_place_that_is_none_is_told() {
        for (assignment, expected) in [
            ("a", "KEY=VALUE"),
            ("=1", "empty name"),
            ("a..b=1", "empty name"),
            ("a\\=1", "ends in a backslash"),
            ("n.b=1", "--set n.b: \"b\" can't be put into a plain value"),
            ("l.2=1", "no element of a list of 2"),
            ("l.x=1", "no element of a list of 2"),
        ] {
            let error = set(r#"{"n":1,"l":[1,2]}"#, assignment).unwrap_err();
            assert!(error.contains(expected), "{assignment}: {error}");
        }
    }
}
