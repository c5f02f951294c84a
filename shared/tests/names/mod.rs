//! Once released, a field is added, never renamed: the names of all fields and values, and the
//! schemas as a whole, are kept beside the golden messages.

use std::collections::BTreeSet;
use std::fs;

use schemars::Schema;
use serde_json::Value;
use sparkferry_shared::schema;

use super::folder;

fn schemas() -> [(&'static str, Schema); 4] {
    [
        ("request", schema::request()),
        ("result", schema::result()),
        ("event", schema::event()),
        ("cancel", schema::cancel()),
    ]
}

fn blessing() -> bool {
    std::env::var_os("BLESS").is_some()
}

/// Writes down every name under `path`: `result.attempts[].run_id`, and for a value out of a
/// fixed set `result.outcome = SUCCESS`.
fn collect(path: &str, schema: &Value, root: &Value, names: &mut BTreeSet<String>) {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let target = root.pointer(reference.strip_prefix('#').unwrap()).unwrap();
        collect(path, target, root, names);
    }
    if let Some(value) = schema.get("const").and_then(Value::as_str) {
        names.insert(format!("{path} = {value}"));
    }
    for choice in ["anyOf", "oneOf", "allOf"] {
        for schema in schema
            .get(choice)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            collect(path, schema, root, names);
        }
    }
    for (name, schema) in schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let path = format!("{path}.{name}");
        names.insert(path.clone());
        collect(&path, schema, root, names);
    }
    if let Some(items) = schema.get("items") {
        collect(&format!("{path}[]"), items, root, names);
    }
}

#[test]
fn a_name_on_the_wire_is_kept_for_ever() {
    let mut names = BTreeSet::new();
    for (message, schema) in schemas() {
        collect(message, schema.as_value(), schema.as_value(), &mut names);
    }
    let file = folder().join("fields.txt");
    let kept: BTreeSet<String> = fs::read_to_string(&file)
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect();
    let gone: Vec<_> = kept.difference(&names).collect();
    assert!(
        gone.is_empty(),
        "Gone from the messages: {gone:#?}\n\
         Once released, a field is added, never renamed: messages that use it are on queues and in \
         programs. Bring it back, and add the new name beside it if there is one."
    );
    let new: Vec<_> = names.difference(&kept).collect();
    if new.is_empty() {
        return;
    }
    assert!(
        blessing(),
        "New in the messages: {new:#?}\n\
         A field that is released stays for ever. If the names are right, keep them: \
         BLESS=1 cargo test -p sparkferry-shared --test golden"
    );
    let lines: Vec<_> = names.into_iter().collect();
    fs::write(file, lines.join("\n") + "\n").unwrap();
}

#[test]
fn schemas_change_only_where_somebody_looks() {
    for (message, schema) in schemas() {
        let file = folder().join(format!("schema/{message}.json"));
        let now = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if blessing() {
            fs::write(&file, &now).unwrap();
        }
        let before = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            before == now,
            "The schema of a {message} is not what {} keeps. Is every old message still valid? \
             Then: BLESS=1 cargo test -p sparkferry-shared --test golden, and read the difference.",
            file.display()
        );
    }
}
