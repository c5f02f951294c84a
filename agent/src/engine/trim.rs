//! Making any JSON fit: the longest texts are cut first, then the longest lists, and every object
//! around a cut says `truncated`. Pure.

use serde_json::{Map, Value, json};

/// The longest texts and lists that are tried, one level after the other, until all fits.
const TEXTS: std::ops::RangeInclusive<u32> = 8..=20;
const MEMBERS: std::ops::RangeInclusive<u32> = 4..=12;
/// What is left where nothing else helps: texts, and members of lists and objects.
const LEAST: (usize, usize) = (64, 4);
/// Of these the end tells more than the beginning.
const TAILS: [&str; 2] = ["logs", "error_trace"];
/// A list of these describes its neighbours and is never cut.
const WHOLE: [&str; 1] = ["columns"];
/// What a run's state is never without, where it is of a sane length.
const FACTS: [&str; 3] = ["life_cycle_state", "result_state", "state"];
const FACT_BYTES: usize = 64;
const FLAG: &str = "truncated";

/// The value in at most `room` bytes of JSON; where `room` is less than a few facts and a flag take,
/// in `{"truncated":true}`.
pub(crate) fn trim(mut value: Value, room: usize) -> Value {
    if size(&value) <= room {
        return value;
    }
    let texts = TEXTS.rev().map(|bits| (1 << bits, usize::MAX));
    let members = MEMBERS.rev().map(|bits| (1 << *TEXTS.start(), 1 << bits));
    for (text, members) in texts.chain(members).chain([LEAST]) {
        if cut(&mut value, text, members) && value.is_object() && size(&value) <= room {
            return value;
        }
    }
    let mut facts = Map::from_iter([(FLAG.to_owned(), Value::Bool(true))]);
    for name in FACTS {
        let fact = value.get(name).and_then(Value::as_str);
        if let Some(fact) = fact.filter(|fact| fact.len() <= FACT_BYTES) {
            facts.insert(name.to_owned(), fact.into());
        }
    }
    let facts = Value::Object(facts);
    if size(&facts) <= room {
        facts
    } else {
        json!({FLAG: true})
    }
}

/// Cuts texts to so many bytes, lists and objects to so many members. True if anything in it is cut.
fn cut(value: &mut Value, text: usize, members: usize) -> bool {
    match value {
        Value::String(whole) => cut_text(whole, text, false),
        Value::Array(list) => {
            let longer = list.len() > members;
            list.truncate(members);
            list.iter_mut()
                .fold(longer, |any, value| cut(value, text, members) | any)
        }
        Value::Object(object) => cut_object(object, text, members),
        _ => false,
    }
}

fn cut_object(object: &mut Map<String, Value>, text: usize, members: usize) -> bool {
    let mut any = object.get(FLAG) == Some(&Value::Bool(true));
    if object.len() > members {
        let mut left = members;
        object.retain(|name, _| {
            let kept = FACTS.contains(&name.as_str()) || left > 0;
            left = left.saturating_sub(1);
            kept
        });
        any = true;
    }
    let mut logs = false;
    for (name, value) in object.iter_mut() {
        any |= match value {
            Value::String(whole) if TAILS.contains(&name.as_str()) => {
                let shorter = cut_text(whole, text, true);
                logs |= shorter && name == "logs";
                shorter
            }
            Value::Array(list) if WHOLE.contains(&name.as_str()) => list
                .iter_mut()
                .fold(false, |any, value| cut(value, text, members) | any),
            value => cut(value, text, members),
        };
    }
    if logs {
        object.insert("logs_truncated".to_owned(), true.into());
    }
    if any {
        object.insert(FLAG.to_owned(), true.into());
    }
    any
}

fn cut_text(whole: &mut String, bytes: usize, tail: bool) -> bool {
    if whole.len() <= bytes {
        return false;
    }
    *whole = if tail {
        super::text::tail(whole, bytes)
    } else {
        super::text::head(whole, bytes)
    }
    .to_owned();
    true
}

/// Bytes of a value in JSON.
pub(crate) fn size(value: &impl serde::Serialize) -> usize {
    struct Count(usize);

    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let mut count = Count(0);
    // Counting never fails, and neither do JSON values.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_fits_is_left_alone() {
        let value = json!({"state": "TERMINATED", "truncated": false, "more": [1, "two"]});
        assert_eq!(trim(value.clone(), size(&value)), value);
    }

    #[test]
    fn long_texts_are_cut_before_lists_and_everything_around_a_cut_says_so() {
        let long = "begin".to_owned() + &"x".repeat(100_000) + "end";
        let tasks = json!([
            {"task_key": "a", "logs": long, "logs_truncated": false},
            {"task_key": "b", "notebook_output": {"result": long, "truncated": false}},
            {"task_key": "c", "logs": "short", "logs_truncated": false},
        ]);
        let output = trim(json!({"tasks": tasks}), 20_000);
        assert!(size(&output) <= 20_000 && size(&output) > 10_000);
        let [a, b, c] = [0, 1, 2].map(|n| &output["tasks"][n]);
        assert!(a["logs"].as_str().unwrap().ends_with("xend"));
        assert_eq!(
            (&a["logs_truncated"], &a["truncated"]),
            (&json!(true), &json!(true))
        );
        let result = b["notebook_output"]["result"].as_str().unwrap();
        assert!(result.starts_with("beginx"));
        assert_eq!(b["notebook_output"]["truncated"], true);
        assert_eq!(*c, tasks[2]);
        assert_eq!(output["truncated"], true);
    }

    #[test]
    fn rows_are_cut_and_columns_are_not() {
        let columns: Vec<Value> = (0..20)
            .map(|n| json!({"name": n.to_string(), "type": "int"}))
            .collect();
        let rows: Vec<Value> = (0..5000).map(|n| json!([n, n])).collect();
        let step = json!({"columns": columns, "rows": rows, "row_count": 5000, "truncated": false});
        let output = trim(json!({"steps": [step]}), 8_000);
        let step = &output["steps"][0];
        assert_eq!(step["columns"].as_array().unwrap().len(), 20);
        let left = step["rows"].as_array().unwrap().len();
        assert!((256..5000).contains(&left), "{left}");
        assert_eq!(
            (&step["row_count"], &step["truncated"]),
            (&json!(5000), &json!(true))
        );
    }

    #[test]
    fn of_a_huge_state_the_facts_stay() {
        let mut state = json!({"life_cycle_state": "TERMINATED", "result_state": "SUCCESS",
            "state_message": "m".repeat(1 << 20)});
        let whole = state.clone();
        let kept = trim(state.clone(), 2048);
        assert_eq!(kept["result_state"], "SUCCESS");
        assert!(kept["state_message"].as_str().unwrap().len() >= 1024);
        for n in 0..500 {
            state[format!("a{n}").repeat(100)] = json!({"deep": [[["m".repeat(1000)]]]});
        }
        for state in [state, whole] {
            let least = json!({"life_cycle_state": "TERMINATED", "result_state": "SUCCESS",
                "truncated": true});
            assert_eq!(trim(state.clone(), 100), least);
            assert_eq!(trim(state, 50), json!({"truncated": true}));
        }
        assert_eq!(
            trim(json!("m".repeat(1000)), 500),
            json!({"truncated": true})
        );
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (any::<String>(), 1..500_usize).prop_map(|(text, n)| text.repeat(n).into()),
        ];
        leaf.prop_recursive(4, 64, 12, |inner| {
            let names = prop_oneof!["logs|rows|columns|state|truncated", any::<String>()];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..12).prop_map(Value::from),
                prop::collection::vec((names, inner), 0..12)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn anything_fits_and_says_so(value in any_json(), room in 0..5_000_usize) {
            let whole = size(&value);
            let trimmed = trim(value.clone(), room);
            prop_assert!(size(&trimmed) <= room.max(18));
            if whole <= room {
                prop_assert_eq!(trimmed, value);
            } else {
                prop_assert_eq!(&trimmed["truncated"], &json!(true));
            }
        }
    }
}
