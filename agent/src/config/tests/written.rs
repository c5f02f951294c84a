//! What another reading of the settings changed.

use super::load_text;

const TWO: &str = r#"
default_connection = "a"
[queue]
url = "sqlite:x.db"
[connections.a]
type = "databricks"
host = "https://a.example"
auth = { type = "pat", token = "one" }
[connections.b]
type = "databricks"
host = "https://b.example"
auth = { type = "pat", token = "one" }
"#;

/// The connections and the sections that are written otherwise in the second text.
fn changed(older: &str, newer: &str, variables: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
    let older = load_text(older, &[]).unwrap().written;
    let newer = load_text(newer, variables).unwrap().written;
    (
        older.changed_connections(&newer).into_iter().collect(),
        older.changed_sections(&newer).into_iter().collect(),
    )
}

#[test]
fn the_same_text_in_another_order_changes_nothing() {
    let (connection, rest) = TWO.split_at(TWO.find("[connections.b]").unwrap());
    let turned = connection.replace("[queue]", &format!("{rest}[queue]"));
    assert_eq!(changed(TWO, &turned, &[]), (vec![], vec![]));
}

#[test]
fn a_connection_that_is_changed_added_or_removed_is_named() {
    // A secret counts, though nothing prints it.
    let other = TWO.replacen("\"one\"", "\"two\"", 1);
    assert_eq!(changed(TWO, &other, &[]).0, ["a"]);
    let one = TWO.split_at(TWO.find("[connections.b]").unwrap()).0;
    assert_eq!(changed(TWO, one, &[]), (vec!["b".to_owned()], vec![]));
    assert_eq!(changed(one, TWO, &[]), (vec!["b".to_owned()], vec![]));
    let variable = [("SPARKFERRY__CONNECTIONS__A__MAX_ACTIVE_RUNS", "7")];
    assert_eq!(changed(TWO, TWO, &variable).0, ["a"]);
}

#[test]
fn every_other_section_is_named_by_itself() {
    let other = TWO
        .replace("default_connection = \"a\"", "namespace = \"other\"")
        .replace("x.db", "y.db");
    let (connections, sections) = changed(TWO, &other, &[]);
    assert!(connections.is_empty());
    assert_eq!(sections, ["default_connection", "namespace", "queue"]);
}
