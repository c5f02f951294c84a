//! `[connections.X.policy]`: what people write, and what comes of it.

use super::super::{Jobs, PolicySettings, Redelivered};
use super::{PROD, fails, load_text};

fn policy(rules: &str) -> PolicySettings {
    let text = format!("{PROD}[connections.prod.policy]\n{rules}");
    let mut settings = load_text(&text, &[]).unwrap();
    settings.policies.remove("prod").unwrap()
}

#[test]
fn no_policy_is_the_default() {
    assert!(load_text(PROD, &[]).unwrap().policies.is_empty());
}

#[test]
fn every_rule_is_read() {
    let policy = policy(
        r#"
        jobs = [42, "Nightly", "43"]
        task_kinds = ["notebook_task"]
        run_as = ["robot"]
        existing_clusters = []
        serverless = false
        node_types = ["Standard_DS3_v2"]
        max_workers = 0
        max_autotermination_minutes = 30
        tags = { Team = "ETL", CostCenter = "*" }
        spot_only = true
        max_timeout_seconds = 60
        git_hosts = ["GitHub.com"]
        spark_confs = ["spark.sql.*"]
        redelivered = "attend"
        "#,
    );
    let set = |entry: &str| Some([entry.to_owned()].into());
    let expected = PolicySettings {
        jobs: Some(Jobs {
            ids: [42].into(),
            names: ["Nightly".to_owned(), "43".to_owned()].into(),
        }),
        task_kinds: set("notebook_task"),
        run_as: set("robot"),
        existing_clusters: Some([].into()),
        serverless: Some(false),
        node_types: set("Standard_DS3_v2"),
        max_workers: Some(0),
        max_autotermination_minutes: Some(30),
        tags: Some(
            [("Team", "ETL"), ("CostCenter", "*")]
                .map(|(n, v)| (n.into(), v.into()))
                .into(),
        ),
        spot_only: true,
        max_timeout_seconds: Some(60),
        git_hosts: set("github.com"),
        spark_confs: set("spark.sql.*"),
        redelivered: Redelivered::Attend,
    };
    assert_eq!(policy, expected);
    assert_eq!(policy.rules().len(), 13);
}

#[test]
fn a_rule_that_can_mean_nothing_is_an_error() {
    let wrong = [
        ("", "connections.prod.policy"),
        ("redelivered = \"attend\"", "holds no rule"),
        ("max_wrokers = 3", "max_wrokers"),
        ("max_workers = -1", "max_workers"),
        ("max_timeout_seconds = 0", "max_timeout_seconds"),
        (
            "max_autotermination_minutes = 0",
            "max_autotermination_minutes",
        ),
        ("task_kinds = [\"notebook\"]", "notebook_task"),
        ("git_hosts = [\"https://github.com\"]", "no host"),
        ("spark_confs = [\"*.sql\"]", "at the end"),
        ("tags = { team = \"\" }", "tags.team"),
        ("tags = {}", "names no tag"),
        ("jobs = [\"\"]", "empty name"),
        ("run_as = [\" robot\"]", "space"),
        ("redelivered = \"maybe\"", "redelivered"),
    ];
    for (rules, word) in wrong {
        let text = format!("{PROD}[connections.prod.policy]\n{rules}\n");
        fails(&text, &[], &["connections.prod.policy", word]);
    }
}

#[test]
fn a_spark_connect_connection_takes_the_rules_that_it_can_apply_and_no_other() {
    let lake = |lines: &str, rules: &str| {
        format!(
            "[connections.lake]\ntype = \"spark_connect\"\n{lines}\n\
             [connections.lake.policy]\n{rules}\n"
        )
    };
    let server = "url = \"sc://127.0.0.1\"";
    let cluster = "host = \"https://a.example\"\ncluster_id = \"c\"\n\
                   auth = { type = \"pat\", token = \"t\" }";
    for lines in [server, cluster] {
        let applied =
            "max_timeout_seconds = 60\nspark_confs = [\"spark.sql.*\"]\nredelivered = \"attend\"";
        let settings = load_text(&lake(lines, applied), &[]).unwrap();
        let rules = settings.policies["lake"].rules();
        assert_eq!(rules, ["max_timeout_seconds", "spark_confs"]);
        for (rule, value) in [
            ("jobs", "[42]"),
            ("task_kinds", "[\"notebook_task\"]"),
            ("run_as", "[]"),
            ("existing_clusters", "[\"c\"]"),
            ("serverless", "false"),
            ("node_types", "[\"small\"]"),
            ("max_workers", "8"),
            ("max_autotermination_minutes", "30"),
            ("tags", "{ team = \"etl\" }"),
            ("spot_only", "true"),
            ("git_hosts", "[\"git.example\"]"),
        ] {
            let text = lake(lines, &format!("{applied}\n{rule} = {value}"));
            let setting = format!("connections.lake.policy.{rule}`");
            fails(&text, &[], &[&setting, "spark_connect"]);
        }
    }
}

#[test]
fn a_rule_may_come_from_the_environment() {
    let variables = [("SPARKFERRY__CONNECTIONS__PROD__POLICY__MAX_WORKERS", "8")];
    let settings = load_text(PROD, &variables).unwrap();
    assert_eq!(settings.policies["prod"].max_workers, Some(8));
}
