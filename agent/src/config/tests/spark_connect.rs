//! Connections of the type `spark_connect`.

use super::super::SparkConnectSettings;
use super::*;

fn lake(rest: &str) -> String {
    format!("[connections.lake]\ntype = \"spark_connect\"\n{rest}\n")
}

fn read(rest: &str) -> SparkConnectSettings {
    match &load_text(&lake(rest), &[]).unwrap().connections["lake"] {
        Connection::SparkConnect(settings) => settings.clone(),
        other @ Connection::Databricks(_) => panic!("{other:?}"),
    }
}

fn token_of(settings: &SparkConnectSettings) -> String {
    let token = settings.token.as_ref().unwrap().read_at_start().unwrap();
    token.expose().to_owned()
}

#[test]
fn an_address_is_enough() {
    let settings = read(r#"url = "sc://127.0.0.1:15002""#);
    assert_eq!(settings.endpoint.as_str(), "http://127.0.0.1:15002/");
    assert_eq!(settings.max_active_runs, 16);
    assert!(settings.token.is_none() && settings.headers.is_empty() && settings.user_id.is_none());
    let port = |url: &str| {
        read(&format!("url = {url:?}"))
            .endpoint
            .port_or_known_default()
    };
    assert_eq!(port("sc://spark.internal"), Some(15002));
    assert_eq!(port("sc://spark.internal:443/;use_ssl=true"), Some(443));
    assert_eq!(port("sc://spark.internal:80/"), Some(80));
    assert_eq!(port("sc://[::1]:7/"), Some(7));
}

#[test]
fn parameters_are_settings_and_headers() {
    let settings = read(
        r#"url = "sc://spark.internal:443/;use_ssl=true;token=a%2Fb+c;user_id=me;x-databricks-cluster-id=0123-1""#,
    );
    assert_eq!(settings.endpoint.as_str(), "https://spark.internal/");
    assert_eq!(token_of(&settings), "a/b+c");
    assert_eq!(settings.user_id.as_deref(), Some("me"));
    let [(name, value)] = &settings.headers[..] else {
        panic!("{settings:?}");
    };
    assert_eq!(
        (name.as_str(), value.expose()),
        ("x-databricks-cluster-id", "0123-1")
    );
    let shown = format!("{settings:?}");
    assert!(!shown.contains("a/b") && !shown.contains("0123"), "{shown}");
}

#[test]
fn a_token_has_a_setting_of_its_own_too() {
    let settings = read("url = \"sc://localhost:15002\"\ntoken = \"t\"\nmax_active_runs = 3");
    assert_eq!(
        (token_of(&settings).as_str(), settings.max_active_runs),
        ("t", 3)
    );
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "from a file\n").unwrap();
    let settings = read(&format!("url = \"sc://localhost\"\ntoken_file = {file:?}"));
    assert_eq!(token_of(&settings), "from a file");
}

#[test]
fn what_is_wrong_is_told_without_the_secret() {
    for (rest, words) in [
        ("max_active_runs = 1", ["connections.lake.url", "is needed"]),
        (
            r#"url = "http://hunter2:1""#,
            ["connections.lake.url", "sc://"],
        ),
        (
            r#"url = "sc:///;token=hunter2""#,
            ["connections.lake.url", "no host"],
        ),
        (
            r#"url = "sc://hunter2@h:1""#,
            ["connections.lake.url", "no user"],
        ),
        (
            r#"url = "sc://h:1;token=hunter2""#,
            ["connections.lake.url", "slash"],
        ),
        (
            r#"url = "sc://h:1/hunter2""#,
            ["connections.lake.url", "a path"],
        ),
        (
            r#"url = "sc://h:1/;hunter2""#,
            ["connections.lake.url", "without a value"],
        ),
        (
            r#"url = "sc://h:1/;use_ssl=hunter2""#,
            ["connections.lake.url", "true or false"],
        ),
        (
            r#"url = "sc://h:1/;token=""#,
            ["connections.lake.url", "empty"],
        ),
        (
            r#"url = "sc://h:1/;token=hunter2""#,
            ["connections.lake.url", "clear text"],
        ),
        (
            r#"url = "sc://h:1/;token=hunter2;use_ssl=false""#,
            ["connections.lake.url", "clear text"],
        ),
        (
            r#"url = "sc://h:1/;session_id=hunter2""#,
            ["connections.lake.url", "session_id"],
        ),
        (
            r#"url = "sc://h:1/;authorization=hunter2""#,
            ["connections.lake.url", "token="],
        ),
        (
            r#"url = "sc://h:1/;X-Y=hunter2""#,
            ["connections.lake.url", "no header"],
        ),
        (
            "url = \"sc://127.0.0.1/;token=hunter2\"\ntoken = \"hunter2\"",
            ["connections.lake.token", "only one"],
        ),
        (
            "url = \"sc://127.0.0.1\"\nmax_active_runs = 0",
            ["connections.lake.max_active_runs", "at least 1"],
        ),
        (
            "url = \"sc://h\"\nhost = \"x\"",
            ["connections.lake", "unknown field"],
        ),
    ] {
        fails(&lake(rest), &[], &words);
    }
}
