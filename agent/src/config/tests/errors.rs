//! What is wrong, where, and without a secret.

use std::collections::HashMap;

use super::super::{Auth, SecretSource, load};
use super::{PROD, SECRET, fails, load_text, prod, token};

#[test]
fn an_error_names_the_setting() {
    for (text, words) in [
        ("names = 1", ["names", "unknown field"]),
        ("[queue]\nhold = 1", ["queue.hold", "unknown field"]),
        (
            "[queue]\nhold_limit_seconds = \"soon\"",
            ["queue.hold_limit_seconds", "integer"],
        ),
        (
            "[queue]\nhold_limit_seconds = -1",
            ["queue.hold_limit_seconds", "integer"],
        ),
        (
            "[queue]\nhold_limit_seconds = 0",
            ["queue.hold_limit_seconds", "at least 1"],
        ),
        (
            "[queue]\nmax_message_bytes = 0",
            ["queue.max_message_bytes", "at least 1"],
        ),
        ("[queue]\nurl = \"kafka://x\"", ["queue.url", "\"kafka\""]),
        ("[queue]\nurl = \"no url\"", ["queue.url", "amqp://"]),
        ("[queue]\nurl = \"amqp://\"", ["queue.url", "no host"]),
        ("[queue]\nurl = \"sqlite:\"", ["queue.url", "needs a file"]),
        (
            "[queue]\nurl = \"sqlite::memory:\"",
            ["queue.url", "needs a file"],
        ),
        ("[queue]\nurl = \"\"", ["queue.url", "empty"]),
        (
            "[queue]\nurl = \"a\"\nurl_file = \"b\"",
            ["queue.url", "only one of"],
        ),
        (
            "[queue]\nurl_file = \"/no/such/file\"",
            ["queue.url_file", "/no/such/file"],
        ),
        (
            "[queue]\nurl_file = \"${CREDENTIALS_DIRECTORY}/x\"",
            ["queue.url_file", "LoadCredential"],
        ),
        (
            "[http]\nlisten = \"here\"",
            ["http.listen", "127.0.0.1:8790"],
        ),
        (
            "[log]\nformat = \"xml\"",
            ["log.format", "auto, text, json"],
        ),
        (
            "[worker]\nmax_output_bytes = 5",
            ["worker.max_output_bytes", "1024"],
        ),
        ("namespace = \"a.b\"", ["namespace", "a.b"]),
        (
            "default_connection = \"x\"",
            ["default_connection", "\"x\""],
        ),
        ("connections = 5", ["connections", "map"]),
        ("[connections]\nprod = 5", ["connections.prod", "no table"]),
        (
            "[connections.prod]\nhost = \"x\"",
            ["connections.prod", "`type` is missing"],
        ),
        (
            "[connections.prod]\ntype = \"x\"",
            ["connections.prod.type", "databricks"],
        ),
        (
            "[connections.\"a.b\"]\ntype = \"databricks\"",
            ["connections.a.b", "no name"],
        ),
    ] {
        fails(text, &[], &words);
    }
    for (line, words) in [
        ("hosts = 1", ["connections.prod.hosts", "unknown field"]),
        (
            "max_active_runs = \"many\"",
            ["connections.prod.max_active_runs", "integer"],
        ),
        (
            "max_active_runs = 0",
            ["connections.prod.max_active_runs", "at least 1"],
        ),
        (
            "max_active_runs = 4294967296",
            ["connections.prod.max_active_runs", "32 bit"],
        ),
        (
            "submit_per_second = 0",
            ["connections.prod.submit_per_second", "more than 0"],
        ),
        (
            "poll_per_second = nan",
            ["connections.prod.poll_per_second", "more than 0"],
        ),
        (
            "call_timeout_seconds = 0",
            ["connections.prod.call_timeout_seconds", "at least 1"],
        ),
        (
            "poll_interval_seconds = { min = 9, max = 3 }",
            ["connections.prod.poll_interval_seconds", "more than max"],
        ),
        (
            "poll_interval_seconds = { mid = 9 }",
            [
                "connections.prod.poll_interval_seconds.mid",
                "unknown field",
            ],
        ),
    ] {
        fails(&format!("{PROD}{line}\n"), &[], &words);
    }
}

#[test]
fn a_file_that_is_none_says_which_and_where() {
    let error = load(Some("/no/such/agent.toml".as_ref()), &HashMap::new()).unwrap_err();
    assert!(error.to_string().contains("/no/such/agent.toml"), "{error}");
    fails(
        "[queue]\nurl = \"amqp://u:hunter2@h\n",
        &[],
        &["agent.toml", "line 2, column"],
    );
    fails(
        "[queue]\nurl = amqp://u:hunter2@h\n",
        &[],
        &["agent.toml", "line 2, column"],
    );
}

#[test]
fn a_token_is_needed_and_only_one() {
    let with = |auth: &str| PROD.replace(r#"{ type = "pat", token = "t" }"#, auth);
    fails(
        &with(r#"{ type = "pat" }"#),
        &[],
        &["connections.prod.auth", "DATABRICKS_TOKEN"],
    );
    fails(
        &with(r#"{ type = "pat", token = "" }"#),
        &[],
        &["connections.prod.auth.token", "empty"],
    );
    fails(
        &with(r#"{ type = "pat", token = "hunter2", token_file = "x" }"#),
        &[],
        &["connections.prod.auth.token", "token_file", "only one"],
    );
    fails(
        &with(r#"{ type = "oauth" }"#),
        &[],
        &["connections.prod.auth.type", "pat"],
    );
    fails(
        &with(r#"{ token = "hunter2" }"#),
        &[],
        &["connections.prod.auth", "`type`"],
    );
    fails(
        &with(r#"{ type = "pat", tokens = "hunter2" }"#),
        &[],
        &["connections.prod.auth.tokens"],
    );
}

#[test]
fn a_token_can_come_from_systemds_credentials() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "from-a-file\n").unwrap();
    let text = PROD.replace(
        r#"token = "t""#,
        r#"token_file = "${CREDENTIALS_DIRECTORY}/token""#,
    );
    let credentials = ("CREDENTIALS_DIRECTORY", dir.path().to_str().unwrap());
    let settings = load_text(&text, &[credentials]).unwrap();
    assert_eq!(token(&settings), "from-a-file");
    assert!(matches!(
        &prod(&settings).auth,
        Auth::Pat(SecretSource::File(path)) if path.starts_with(dir.path())
    ));
    fails(
        &text,
        &[],
        &["connections.prod.auth.token_file", "LoadCredential"],
    );
}

#[test]
fn a_token_is_not_sent_in_clear_text_over_a_network() {
    let with = |host: &str| PROD.replace("https://adb-1.azuredatabricks.net", host);
    for host in [
        "http://adb-1.net",
        "http://10.0.0.1:80",
        "http://localhost.evil.example",
        "http://[2001:db8::1]",
    ] {
        fails(&with(host), &[], &["connections.prod.host", "clear text"]);
    }
    for host in [
        "http://127.0.0.1:8080",
        "http://localhost:1",
        "http://[::1]:1",
        "https://10.0.0.1",
        "x.example",
    ] {
        assert!(load_text(&with(host), &[]).is_ok(), "{host}");
    }
    fails(&with("ftp://x"), &[], &["connections.prod.host", "\"ftp\""]);
    fails(
        &with("https://token:hunter2@x"),
        &[],
        &["connections.prod.host", "`auth`"],
    );
    fails(
        &with("token:hunter2@x"),
        &[],
        &["connections.prod.host", "`auth`"],
    );
}

#[test]
fn a_secret_is_shown_nowhere() {
    let text = PROD.replace("\"t\"", "\"hunter2\"") + "[queue]\nurl = \"amqp://u:hunter2@h/%2f\"\n";
    let shown = format!("{:?}", load_text(&text, &[]).unwrap());
    assert!(!shown.contains(SECRET), "{shown}");

    // In the wrong shape or the wrong place.
    let url = |url: &str| format!("[queue]\nurl = {url}\n");
    for text in [
        url("{ hunter2 = 1 }"),
        url("[\"hunter2\"]"),
        url("\"hunter2\""),
        url("\"x://u:hunter2@h\""),
        url("\"amqp://u:hunter2@h:port\""),
        "queue = \"amqp://u:hunter2@h\"\n".to_owned(),
        "connections = \"hunter2\"\n".to_owned(),
        "[connections]\nprod = \"hunter2\"\n".to_owned(),
        PROD.replace(r#"{ type = "pat", token = "t" }"#, "\"hunter2\""),
        PROD.replace("\"t\"", "[\"hunter2\"]"),
        PROD.replace("\"t\"", "{ value = \"hunter2\" }"),
    ] {
        fails(&text, &[], &[]);
    }
    for variable in [
        "SPARKFERRY__QUEUE",
        "SPARKFERRY__CONNECTIONS",
        "SPARKFERRY__CONNECTIONS__PROD__AUTH",
    ] {
        fails(PROD, &[(variable, SECRET)], &[]);
    }
    for number in ["4711", "47.11", "true"] {
        let told = fails(
            &PROD.replace("\"t\"", number),
            &[],
            &["connections.prod.auth.token", "quotes"],
        );
        assert!(!told.contains(number), "{told}");
    }
}
