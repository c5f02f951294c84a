//! Settings and secrets out of variables.

use super::super::{LogFormat, QueuePlace};
use super::{PROD, SECRET, fails, load_text, prod, token};

#[test]
fn variables_win_over_the_file() {
    let settings = load_text(
        PROD,
        &[
            ("SPARKFERRY__NAMESPACE", "other"),
            ("SPARKFERRY__QUEUE__URL", "amqp://guest:guest@broker"),
            ("SPARKFERRY__QUEUE__DECLARE", "false"),
            ("SPARKFERRY__QUEUE__HOLD_LIMIT_SECONDS", "5"),
            ("SPARKFERRY__WORKER__NAME", "007"),
            ("SPARKFERRY__LOG__FORMAT", "json"),
            (
                "SPARKFERRY__CONNECTIONS__PROD__HOST",
                "adb-2.azuredatabricks.net",
            ),
            ("SPARKFERRY__CONNECTIONS__PROD__MAX_ACTIVE_RUNS", "7"),
            ("SPARKFERRY__CONNECTIONS__PROD__SUBMIT_PER_SECOND", "0.5"),
            (
                "SPARKFERRY__CONNECTIONS__PROD__POLL_INTERVAL_SECONDS__MAX",
                "60",
            ),
            ("SPARKFERRY__HTTP__LISTEN", ""),
            ("HOME", "/root"),
        ],
    )
    .unwrap();
    assert_eq!(settings.topology.namespace(), "other");
    assert!(
        matches!(&settings.queue.place, QueuePlace::Amqp(url) if url.first().expose() == "amqp://guest:guest@broker")
    );
    assert!(!settings.queue.declare);
    assert_eq!(settings.queue.hold_limit.as_secs(), 5);
    assert_eq!(settings.worker.name, "007");
    assert_eq!(settings.log.format, LogFormat::Json);
    assert!(
        settings.http_listen.is_some(),
        "an empty variable is no setting"
    );
    let prod = prod(&settings);
    assert_eq!(prod.host.as_str(), "https://adb-2.azuredatabricks.net/");
    assert_eq!(prod.max_active_runs, 7);
    assert!((prod.submit_per_second - 0.5).abs() < f64::EPSILON);
    assert_eq!(prod.poll_interval.0.as_secs(), 1);
    assert_eq!(prod.poll_interval.1.as_secs(), 60);
}

#[test]
fn a_connection_can_come_from_variables_alone() {
    let settings = load_text(
        "",
        &[
            ("SPARKFERRY__CONNECTIONS__PROD__TYPE", "databricks"),
            ("SPARKFERRY__CONNECTIONS__PROD__HOST", "https://x.example"),
            ("SPARKFERRY__CONNECTIONS__PROD__AUTH__TYPE", "pat"),
            ("SPARKFERRY__CONNECTIONS__PROD__AUTH__TOKEN", "00123"),
        ],
    );
    assert_eq!(token(&settings.unwrap()), "00123");
}

#[test]
fn a_secret_that_looks_like_a_number_stays_as_it_is() {
    for secret in [
        "0042",
        "1e5",
        "1.10",
        "true",
        "TRUE",
        "99999999999999999999",
        "-0",
    ] {
        let variable = ("SPARKFERRY__CONNECTIONS__PROD__AUTH__TOKEN", secret);
        assert_eq!(token(&load_text(PROD, &[variable]).unwrap()), secret);
    }
}

#[test]
fn a_variable_that_would_be_overlooked_is_refused() {
    fails(
        "",
        &[("SPARKFERRY_QUEUE__URL", SECRET)],
        &["SPARKFERRY_QUEUE__URL", "two underscores"],
    );
    fails("", &[("SPARKFERRY_LOG", "debug")], &["SPARKFERRY_LOG"]);
    fails(
        "",
        &[("SPARKFERRY__QUEUE_URL", SECRET)],
        &["queue_url", "unknown field"],
    );
    fails(
        "",
        &[("SPARKFERRY__QUEUE__URLL", SECRET)],
        &["queue.urll", "unknown field"],
    );
}

#[test]
fn what_kubernetes_sets_beside_a_service_is_no_mistake() {
    let links = [
        ("SPARKFERRY_SERVICE_HOST", "10.0.0.1"),
        ("SPARKFERRY_SERVICE_PORT_HTTP", "8790"),
        ("SPARKFERRY_PORT", "tcp://10.0.0.1:8790"),
        ("SPARKFERRY_PORT_8790_TCP_ADDR", "10.0.0.1"),
        ("SPARKFERRY_STATUS_SERVICE_HOST", "10.0.0.2"),
    ];
    assert!(load_text("", &links).is_ok());
}

#[test]
fn the_environment_of_databricks_own_tools_serves() {
    let bare = "[connections.prod]\ntype = \"databricks\"\n";
    let host = ("DATABRICKS_HOST", "adb-1.azuredatabricks.net");
    let settings = load_text(bare, &[host, ("DATABRICKS_TOKEN", "0815")]).unwrap();
    assert_eq!(
        prod(&settings).host.as_str(),
        "https://adb-1.azuredatabricks.net/"
    );
    assert_eq!(token(&settings), "0815");

    let old = (
        "DATABRICKS_CONNECTION_STRING",
        r#"{"host":"https://old.example","token":"o"}"#,
    );
    let settings = load_text(bare, &[old]).unwrap();
    assert_eq!(
        (prod(&settings).host.as_str(), token(&settings).as_str()),
        ("https://old.example/", "o")
    );

    let settings = load_text(PROD, &[host, ("DATABRICKS_TOKEN", "other"), old]).unwrap();
    assert_eq!(
        prod(&settings).host.as_str(),
        "https://adb-1.azuredatabricks.net/"
    );
    assert_eq!(token(&settings), "t", "the file wins");

    let broken = [("DATABRICKS_CONNECTION_STRING", "{\"token\":\"hunter2\"")];
    fails(bare, &broken, &["DATABRICKS_CONNECTION_STRING", "not JSON"]);
    let number = [(
        "DATABRICKS_CONNECTION_STRING",
        r#"{"host":"x","token":["hunter2"]}"#,
    )];
    fails(bare, &number, &["DATABRICKS_CONNECTION_STRING"]);
    fails(bare, &[], &["connections.prod.host", "DATABRICKS_HOST"]);
    fails(
        bare,
        &[host],
        &["connections.prod.auth", "DATABRICKS_TOKEN"],
    );
}
