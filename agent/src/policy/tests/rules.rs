//! One rule after the other.

use serde_json::{Value, json};

use super::{cluster, judge, judged, outside, request, set, strict};
use crate::config::{PolicySettings, Redelivered};
use crate::policy::{CODE, json::read};
use sparkferry_shared::{ErrorClass, Work};

/// A one-time run of a notebook on a new cluster with these fields changed.
fn submit(changes: &Value) -> Value {
    let mut cluster = cluster();
    for (name, value) in changes.as_object().unwrap() {
        cluster[name] = value.clone();
    }
    json!({"submit_run": {"timeout_seconds": 60, "tasks": [{
        "task_key": "a", "notebook_task": {"notebook_path": "/n"}, "new_cluster": cluster,
    }]}})
}

#[test]
fn what_is_within_every_rule_passes() {
    judged(&strict(), &submit(&json!({}))).unwrap();
    let run_now = json!({
        "run_now": {"job_id": 42, "job_parameters": {"job_id": "43"}, "pipeline_params": {"full_refresh": true}},
        "timeout_seconds": 3600,
    });
    judged(&strict(), &run_now).unwrap();
    let by_name = json!({"run_now": {"job_name": "nightly"}, "timeout_seconds": 1});
    judged(&strict(), &by_name).unwrap();
    let session = json!({"timeout_seconds": 60, "spark_connect": {
        "steps": [{"sql": "SELECT 1"}],
        "conf": {"spark.sql.shuffle.partitions": "8", "spark.speculation": "true"},
    }});
    judged(&strict(), &session).unwrap();
}

#[test]
fn the_older_form_with_one_task_is_judged_as_well() {
    let mut body = cluster();
    body["num_workers"] = json!(9);
    let body =
        json!({"submit_run": {"new_cluster": body, "spark_python_task": {"python_file": "x"}}});
    let field = "submit_run.new_cluster.num_workers";
    outside(&strict(), &body, Some("max_workers"), field);
}

#[test]
fn a_job_is_named_by_the_list_to_the_letter() {
    let wrong = [
        (json!({"job_id": 43}), Some("jobs"), "run_now.job_id"),
        (json!({"job_id": "42"}), None, "run_now.job_id"),
        (json!({"job_id": 42.0}), None, "run_now.job_id"),
        (
            json!({"job_name": "Nightly"}),
            Some("jobs"),
            "run_now.job_name",
        ),
        (json!({"job_id": 42, "jobId": 43}), None, "run_now.jobId"),
        (
            json!({"job_id": 42, "spark_submit_params": ["--conf", "spark.jars=x"]}),
            Some("spark_confs"),
            "run_now.spark_submit_params",
        ),
    ];
    for (body, rule, field) in wrong {
        let body = json!({"run_now": body, "timeout_seconds": 60});
        outside(&strict(), &body, rule, field);
    }
}

#[test]
fn a_field_that_stands_twice_is_never_read_one_way_or_the_other() {
    for text in [
        r#"{"timeout_seconds": 60, "run_now": {"job_id": 42, "job_id": 42}}"#,
        r#"{"timeout_seconds": 60, "run_now": {"job_id": 43, "job\u005fid": 42}}"#,
    ] {
        let breach = judge(&strict(), &request(text), false).unwrap_err();
        assert_eq!((breach.rule, &*breach.field), (None, "run_now"), "{breach}");
        assert!(breach.why.contains("twice"), "{breach}");
    }
    let deep = r#"{"submit_run": {"tasks": [{"x": 1}, {"new_cluster": {"num_workers": 1, "num_workers": 99}}]}}"#;
    let breach = judge(&strict(), &request(deep), false).unwrap_err();
    assert_eq!(breach.field, "submit_run.tasks[1].new_cluster", "{breach}");
}

#[test]
fn what_is_nested_too_deeply_to_be_read_is_refused_and_nothing_breaks() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let body = format!(r#"{{"run_now": {{"job_id": 42, "only": {deep}}}}}"#);
    let Work::RunNow(body) = request(&body).work else {
        unreachable!()
    };
    let breach = read("run_now", &body).unwrap_err();
    assert!(breach.why.contains("recursion"), "{breach}");
}

#[test]
fn a_cluster_is_within_the_rules_in_every_field() {
    let wrong = [
        (
            json!({"node_type_id": "huge"}),
            "node_types",
            ".node_type_id",
        ),
        (json!({"node_type_id": null}), "node_types", ".node_type_id"),
        (
            json!({"driver_node_type_id": "huge"}),
            "node_types",
            ".driver_node_type_id",
        ),
        (
            json!({"instance_pool_id": "p"}),
            "node_types",
            ".instance_pool_id",
        ),
        (json!({"num_workers": null}), "max_workers", ".num_workers"),
        (
            json!({"autoscale": {"min_workers": 1, "max_workers": 9}}),
            "max_workers",
            ".autoscale.max_workers",
        ),
        (
            json!({"autotermination_minutes": 0}),
            "max_autotermination_minutes",
            ".autotermination_minutes",
        ),
        (
            json!({"autotermination_minutes": null}),
            "max_autotermination_minutes",
            ".autotermination_minutes",
        ),
        (
            json!({"custom_tags": {"team": "etl"}}),
            "tags",
            ".custom_tags.owner",
        ),
        (
            json!({"custom_tags": {"team": "x", "owner": "me"}}),
            "tags",
            ".custom_tags.team",
        ),
        (
            json!({"azure_attributes": {"availability": "SPOT_WITH_FALLBACK_AZURE"}}),
            "spot_only",
            ".azure_attributes.availability",
        ),
        (
            json!({"azure_attributes": {"availability": "SPOT_AZURE", "first_on_demand": 2}}),
            "spot_only",
            ".azure_attributes.first_on_demand",
        ),
        (
            json!({"aws_attributes": {"availability": "ON_DEMAND"}}),
            "spot_only",
            ".aws_attributes.availability",
        ),
        (json!({"azure_attributes": null}), "spot_only", ""),
        (
            json!({"spark_conf": {"spark.jars": "x"}}),
            "spark_confs",
            ".spark_conf",
        ),
        (
            json!({"spark_env_vars": {"JAVA_OPTS": "-Dspark.jars=x"}}),
            "spark_confs",
            ".spark_env_vars.JAVA_OPTS",
        ),
    ];
    for (changes, rule, field) in wrong {
        let field = format!("submit_run.tasks[0].new_cluster{field}");
        outside(&strict(), &submit(&changes), Some(rule), &field);
    }
    let single = json!({"num_workers": null, "is_single_node": true});
    judged(&strict(), &submit(&single)).unwrap();
}

#[test]
fn compute_that_cannot_be_looked_at_needs_its_own_rule() {
    let policy = PolicySettings {
        max_workers: Some(8),
        ..PolicySettings::default()
    };
    let on = |compute: Value| {
        let mut task = compute;
        task["notebook_task"] = json!({"notebook_path": "/n"});
        json!({"submit_run": {"tasks": [task]}})
    };
    let existing = on(json!({"existing_cluster_id": "c"}));
    let field = "submit_run.tasks[0].existing_cluster_id";
    outside(&policy, &existing, Some("existing_clusters"), field);
    let serverless = on(json!({}));
    outside(
        &policy,
        &serverless,
        Some("serverless"),
        "submit_run.tasks[0]",
    );
    let environment = on(json!({"environment_key": "e", "job_cluster_key": "c"}));
    let field = "submit_run.tasks[0].environment_key";
    outside(&policy, &environment, Some("serverless"), field);

    let generous = PolicySettings {
        existing_clusters: set(&["c"]),
        serverless: Some(true),
        ..policy
    };
    for body in [existing, serverless, environment] {
        judged(&generous, &body).unwrap();
    }
    // Where no rule speaks of clusters, none of them is in the way.
    let other = PolicySettings {
        run_as: set(&[]),
        ..PolicySettings::default()
    };
    judged(&other, &on(json!({"existing_cluster_id": "c"}))).unwrap();
    judged(&other, &on(json!({}))).unwrap();
}

#[test]
fn a_kind_of_task_that_nobody_listed_does_not_pass() {
    let body = |kind: &str| {
        let mut task = json!({"task_key": "a", "existing_cluster_id": "c-1"});
        task[kind] = json!({});
        json!({"timeout_seconds": 60, "submit_run": {"tasks": [task]}})
    };
    let field = "submit_run.tasks[0].spark_jar_task";
    outside(
        &strict(),
        &body("spark_jar_task"),
        Some("task_kinds"),
        field,
    );
    outside(
        &strict(),
        &body("quantum_task"),
        None,
        "submit_run.tasks[0].quantum_task",
    );
    outside(
        &strict(),
        &body("notebookTask"),
        None,
        "submit_run.tasks[0].notebookTask",
    );
    let empty = json!({"timeout_seconds": 60, "submit_run": {"tasks": []}});
    outside(&strict(), &empty, Some("task_kinds"), "submit_run");
    // Whoever lists a kind that came after this version may use it.
    let policy = PolicySettings {
        task_kinds: set(&["quantum_task"]),
        ..PolicySettings::default()
    };
    judged(&policy, &body("quantum_task")).unwrap();
}

#[test]
fn code_comes_from_listed_hosts_only() {
    let body = |url: &str| {
        let mut body = submit(&json!({}));
        body["submit_run"]["git_source"] = json!({"git_url": url, "git_provider": "gitHub"});
        body
    };
    for url in ["https://git.example/a/b", "https://GIT.example/a"] {
        judged(&strict(), &body(url)).unwrap();
    }
    for url in [
        "https://evil.example/a",
        "https://git.example.evil.example/a",
        "https://git.example@evil.example/a",
        r"https://git.example\@evil.example/a",
        "https://git.example:1/a",
        "http://git.example/a",
        "git@git.example:a/b",
        "https://git.example",
        " https://git.example/a",
    ] {
        outside(
            &strict(),
            &body(url),
            Some("git_hosts"),
            "submit_run.git_source.git_url",
        );
    }
    let mut package = submit(&json!({}));
    package["submit_run"]["environments"] = json!([{"environment_key": "e", "spec": {
        "dependencies": ["a @ git+https://git.example/a", "b @ GIT+https://evil.example/b"],
    }}]);
    let field = "submit_run.environments[0].spec.dependencies[1]";
    outside(&strict(), &package, Some("git_hosts"), field);
}

#[test]
fn nobody_acts_as_somebody_who_is_not_listed() {
    let body = |run_as: Value| {
        let mut body = submit(&json!({}));
        body["submit_run"]["run_as"] = run_as;
        body
    };
    judged(&strict(), &body(json!({"service_principal_name": "robot"}))).unwrap();
    judged(&strict(), &body(Value::Null)).unwrap();
    let field = "submit_run.run_as.user_name";
    let admin = body(json!({"user_name": "admin"}));
    outside(&strict(), &admin, Some("run_as"), field);
    outside(&strict(), &body(json!("admin")), None, "submit_run.run_as");
}

#[test]
fn an_attempt_is_bounded_by_whoever_can_bound_it() {
    let policy = PolicySettings {
        max_timeout_seconds: Some(60),
        ..PolicySettings::default()
    };
    let field = "timeout_seconds";
    for unbounded in [
        json!({"run_now": {"job_id": 1}}),
        json!({"run_now": {"job_id": 1}, "timeout_seconds": 61}),
        json!({"run_now": {"job_id": 1}, "timeout_seconds": 60, "wait": false}),
        json!({"run_now": {"job_id": 1}, "timeout_seconds": 60, "on_timeout": "abandon"}),
        json!({"submit_run": {"timeout_seconds": 0, "existing_cluster_id": "c", "notebook_task": {}}}),
    ] {
        outside(&policy, &unbounded, Some("max_timeout_seconds"), field);
    }
    // Databricks keeps to its own limit, whoever looks on.
    let own = json!({"wait": false, "submit_run": {"timeout_seconds": 60, "existing_cluster_id": "c", "notebook_task": {}}});
    judged(&policy, &own).unwrap();
}

#[test]
fn a_session_sets_listed_confs_only_and_no_value_is_told() {
    let body = json!({"timeout_seconds": 60, "spark_connect": {
        "steps": [{"sql": "SELECT 1"}], "conf": {"fs.azure.account.key.x": "hunter2"},
    }});
    outside(&strict(), &body, Some("spark_confs"), "spark_connect.conf");
    let told = judged(&strict(), &body).unwrap_err().to_string();
    assert!(
        told.contains("fs.azure.account.key.x") && !told.contains("hunter2"),
        "{told}"
    );
}

#[test]
fn what_was_delivered_before_is_judged_too_unless_told_otherwise() {
    let body = request(r#"{"run_now": {"job_id": 43}, "timeout_seconds": 60}"#);
    let breach = judge(&strict(), &body, true).unwrap_err();
    let error = breach.to_error(true);
    assert_eq!(error.class, ErrorClass::Request);
    assert_eq!(error.code.as_deref(), Some(CODE));
    assert!(error.message.contains("unattended"), "{}", error.message);
    assert!(!breach.to_error(false).message.contains("unattended"));

    let tightened = PolicySettings {
        redelivered: Redelivered::Attend,
        ..strict()
    };
    judge(&tightened, &body, true).unwrap();
    judge(&tightened, &body, false).unwrap_err();
}
