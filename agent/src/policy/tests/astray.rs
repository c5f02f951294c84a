//! Bodies in which a field stands twice, is spelt otherwise, or stands where nobody looks for it:
//! whatever else is in them, they never pass.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use super::anything::submit_run;
use super::{judge, judged, request, strict};

/// Writes JSON in which the first field of the `nth` object stands twice, the second time with
/// another value. Returns how many objects are left to be counted.
fn write_twice(value: &Value, mut nth: usize, text: &mut String) -> usize {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let twice = nth == 0;
            nth = nth.wrapping_sub(1);
            text.push('{');
            for (n, (name, value)) in fields.iter().enumerate() {
                *text += if n == 0 { "" } else { "," };
                let name = json!(name).to_string();
                *text += &name;
                text.push(':');
                nth = write_twice(value, nth, text);
                if n == 0 && twice {
                    text.push(',');
                    *text += &name;
                    *text += ":null";
                }
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (n, item) in items.iter().enumerate() {
                *text += if n == 0 { "" } else { "," };
                nth = write_twice(item, nth, text);
            }
            text.push(']');
        }
        value => *text += &value.to_string(),
    }
    nth
}

fn objects(value: &Value) -> usize {
    match value {
        Value::Object(fields) => {
            usize::from(!fields.is_empty()) + fields.values().map(objects).sum::<usize>()
        }
        Value::Array(items) => items.iter().map(objects).sum(),
        _ => 0,
    }
}

/// What a producer may fill as it likes.
const FREE: [&str; 11] = [
    "base_parameters",
    "custom_tags",
    "dbt_task",
    "job_parameters",
    "libraries",
    "notebook_task",
    "spark_conf",
    "spark_env_vars",
    "spark_python_task",
    "spec",
    "sql_task",
];

/// The paths of all fields where the policy looks.
fn fields(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                found.push(format!("{path}/{name}"));
                if !FREE.contains(&&**name) {
                    fields(value, &format!("{path}/{name}"), found);
                }
            }
        }
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                fields(item, &format!("{path}/{n}"), found);
            }
        }
        _ => {}
    }
}

/// Spells the name of the field at this path with a capital letter.
fn capitalize(body: &mut Value, path: &str) {
    let (parent, name) = path.rsplit_once('/').unwrap();
    let parent = body.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    let value = parent.remove(name).unwrap();
    let capital = name[..1].to_uppercase() + &name[1..];
    parent.insert(capital, value);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_field_that_stands_twice_passes_nowhere((body, _) in submit_run(), at: Index) {
        let mut text = String::new();
        write_twice(&body, at.index(objects(&body)), &mut text);
        let request = request(&format!(r#"{{"submit_run": {text}}}"#));
        let judged = judge(&strict(), &request, false);
        prop_assert!(judged.is_err());
    }

    #[test]
    fn a_name_in_other_letters_passes_nowhere((mut body, _) in submit_run(), at: Index) {
        let mut all = Vec::new();
        fields(&body, "", &mut all);
        capitalize(&mut body, &all[at.index(all.len())]);
        let judged = judged(&strict(), &json!({"submit_run": body}));
        prop_assert!(judged.is_err());
    }

    #[test]
    fn a_field_out_of_its_place_passes_nowhere(
        (mut body, _) in submit_run(),
        at: Index,
        field in select(vec![
            ("run_as", json!({"user_name": "admin"})),
            ("git_source", json!({"git_url": "https://evil.example/a"})),
            ("job_clusters", json!([{"new_cluster": {"num_workers": 99}}])),
            ("environments", json!([])),
            ("tasks", json!([{"run_job_task": {"job_id": 43}}])),
        ]),
    ) {
        let mut all = Vec::new();
        fields(&body, "", &mut all);
        // The objects that hold them, but for the body itself, whose fields these are.
        let holders: Vec<&str> = all
            .iter()
            .filter_map(|path| path.rsplit_once('/'))
            .map(|(holder, _)| holder)
            .filter(|holder| !holder.is_empty())
            .collect();
        let holder = body.pointer_mut(holders[at.index(holders.len())]).unwrap();
        holder[field.0] = field.1;
        let judged = judged(&strict(), &json!({"submit_run": body}));
        prop_assert!(judged.is_err());
    }
}
