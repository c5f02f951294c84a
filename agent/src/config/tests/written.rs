//! What another reading of the settings changed.

use std::fs;
use std::path::Path;

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

/// What counts as changed when a file beside the settings goes from one text to another.
fn rewritten(settings: &str, file: &Path, older: &str, newer: &str) -> (Vec<String>, Vec<String>) {
    let settings = settings.replace("FILE", file.to_str().unwrap());
    fs::write(file, older).unwrap();
    let before = load_text(&settings, &[]).unwrap().written;
    fs::write(file, newer).unwrap();
    let after = load_text(&settings, &[]).unwrap().written;
    (
        before.changed_connections(&after).into_iter().collect(),
        before.changed_sections(&after).into_iter().collect(),
    )
}

#[test]
fn a_profile_counts_but_for_its_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("databrickscfg");
    let settings = "[connections.a]\ntype = \"databricks\"\n\
         auth = { type = \"profile\", profile = \"p\", config_file = \"FILE\" }\n";
    let profile = "[p]\nhost = https://a.example\nclient_id = app\nclient_secret = one\n";
    let changed = |newer: &str| rewritten(settings, &file, profile, newer);
    // It is read each time it is needed.
    assert_eq!(changed(&profile.replace("one", "two")), (vec![], vec![]));
    for newer in [
        profile.replace("app", "other"),
        profile.replace("a.example", "b.example"),
        profile.replace("client_secret = one", "token = one"),
    ] {
        assert_eq!(changed(&newer), (vec!["a".to_owned()], vec![]), "{newer}");
    }
}

#[test]
fn a_url_in_a_file_counts_but_for_what_is_read_there_anew() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("url");
    let lake = "[connections.lake]\ntype = \"spark_connect\"\nurl_file = \"FILE\"\n";
    let url = "sc://spark.example:443/;use_ssl=true;token=one;x-team=etl";
    let changed = |newer: &str| rewritten(lake, &file, url, newer);
    assert_eq!(changed(&url.replace("one", "two")), (vec![], vec![]));
    for newer in [
        url.replace("spark.", "other."),
        url.replace("etl", "ml"),
        url.replace("token=one", "user_id=me"),
    ] {
        assert_eq!(
            changed(&newer),
            (vec!["lake".to_owned()], vec![]),
            "{newer}"
        );
    }

    let queue = "[queue]\nurl_file = \"FILE\"\n";
    let url = "amqp://me:one@broker/sparkferry";
    let changed = |newer: &str| rewritten(queue, &file, url, newer);
    assert_eq!(changed("amqp://you:two@broker/sparkferry").1, [""; 0]);
    for newer in [
        "amqp://me:one@other/sparkferry",
        "amqp://me:one@broker/test",
        "amqps://me:one@broker/sparkferry",
        "sqlite:x.db",
    ] {
        assert_eq!(
            changed(newer),
            (vec![], vec!["queue".to_owned()]),
            "{newer}"
        );
    }
}
