//! Connections of the type `spark_connect`.

use std::path::Path;

use super::super::{Compute, SparkConnectSettings};
use super::*;

fn lake(rest: &str) -> String {
    format!("[connections.lake]\ntype = \"spark_connect\"\n{rest}\n")
}

fn read(rest: &str) -> SparkConnectSettings {
    match &load_text(&lake(rest), &[]).unwrap().connections["lake"] {
        Connection::SparkConnect(settings) => (**settings).clone(),
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
fn an_authority_of_ones_own_is_for_tls_alone() {
    let tls = "tls.ca_file = \"/ca\"";
    let settings = read(&format!("url = \"sc://h:1/;use_ssl=true\"\n{tls}"));
    assert_eq!(settings.ca_file.as_deref(), Some(Path::new("/ca")));
    // The workspace's certificate is by the same authority as its compute's.
    let on = "host = \"h\"\ncluster_id = \"c\"\nauth = { type = \"pat\", token = \"t\" }";
    let settings = read(&format!("{on}\n{tls}"));
    let workspace = &settings.compute.as_ref().unwrap().workspace;
    assert_eq!(settings.ca_file.as_deref(), Some(Path::new("/ca")));
    assert_eq!(workspace.reach.ca_file, settings.ca_file);
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

const PAT: &str = r#"auth = { type = "pat", token = "t" }"#;

#[test]
fn a_cluster_answers_on_its_workspaces_host() {
    let settings = read(&format!("host = \"adb-1.net\"\ncluster_id = \"c1\"\n{PAT}"));
    let compute = settings.compute.unwrap();
    assert_eq!(compute.compute, Compute::Cluster("c1".to_owned()));
    assert_eq!(compute.workspace.host.as_str(), "https://adb-1.net/");
    assert_eq!(settings.endpoint.as_str(), "https://adb-1.net/");
    assert_eq!(settings.endpoint.port_or_known_default(), Some(443));
    assert!(settings.token.is_none());

    let settings = read(&format!("host = \"adb-1.net\"\nserverless = true\n{PAT}"));
    assert_eq!(settings.compute.unwrap().compute, Compute::Serverless);
    let settings = read("url = \"sc://h:1\"\nserverless = false");
    assert!(settings.compute.is_none());
}

#[test]
fn a_url_says_where_a_cluster_is_and_its_token_goes_by_tls() {
    let settings = read(&format!(
        "url = \"sc://adb-1.net:443\"\ncluster_id = \"c1\"\n{PAT}"
    ));
    assert_eq!(settings.endpoint.as_str(), "https://adb-1.net/");
    assert_eq!(
        settings.compute.unwrap().workspace.host.as_str(),
        "https://adb-1.net/"
    );
    let settings = read(&format!(
        "url = \"sc://adb-1.net:80\"\ncluster_id = \"c1\"\n{PAT}"
    ));
    assert_eq!(settings.endpoint.as_str(), "https://adb-1.net:80/");

    let settings = read(&format!(
        "url = \"sc://127.0.0.1:15002\"\nhost = \"http://127.0.0.1:8443\"\ncluster_id = \"c1\"\n{PAT}"
    ));
    assert_eq!(settings.endpoint.as_str(), "http://127.0.0.1:15002/");
    assert_eq!(
        settings.compute.unwrap().workspace.host.as_str(),
        "http://127.0.0.1:8443/"
    );
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
            "url = \"sc://h\"\ntls.ca_file = \"/ca\"",
            ["connections.lake.tls.ca_file", "use_ssl=true"],
        ),
        (
            "url = \"sc://h\"\nhosts = \"x\"",
            ["connections.lake", "unknown field"],
        ),
        (
            "url = \"sc://h\"\nhost = \"x\"",
            ["connections.lake.host", "cluster_id"],
        ),
        (
            "url = \"sc://h\"\nauth = { type = \"pat\", token = \"hunter2\" }",
            ["connections.lake.auth", "cluster_id"],
        ),
        (
            "host = \"x\"\ncluster_id = \"c\"\nserverless = true",
            ["connections.lake.serverless", "only one"],
        ),
        (
            "host = \"x\"\ncluster_id = \"\"",
            ["connections.lake.cluster_id", "empty"],
        ),
        (
            "url = \"sc://127.0.0.1\"\ncluster_id = \"c\"\nauth = { type = \"pat\", token = \"t\" }",
            ["connections.lake.host", "is needed"],
        ),
        (
            "host = \"x\"\ncluster_id = \"c\"\ntoken = \"hunter2\"\nauth = { type = \"pat\", token = \"t\" }",
            ["connections.lake.token", "belongs to `auth`"],
        ),
    ] {
        fails(&lake(rest), &[], &words);
    }
}
