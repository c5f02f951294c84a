//! What decides how a run goes: dependencies, repairs, cancellation, limits, queues.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Workspace, notebook, one};

fn after(mut task: Value, upstream: &[&str], run_if: &str) -> Value {
    task["depends_on"] = upstream
        .iter()
        .map(|key| json!({"task_key": key}))
        .collect();
    task["run_if"] = run_if.into();
    task
}

fn results(run: &Value) -> Vec<(&str, &str)> {
    let tasks = run["tasks"].as_array().unwrap().iter();
    tasks
        .map(|task| {
            (
                task["task_key"].as_str().unwrap(),
                task["state"]["result_state"].as_str().unwrap(),
            )
        })
        .collect()
}

#[tokio::test]
async fn dependencies_decide_what_runs_and_leaves_decide_the_run() {
    let workspace = Workspace::start().await;
    let quick = json!({"sandbox.duration_ms": 10});
    let failing = json!({"sandbox.duration_ms": 10, "sandbox.outcome": "FAILED"});
    let run_id = workspace
        .submit(json!({"run_name": "dag", "tasks": [
            after(notebook("d", &quick), &["c"], "ALL_SUCCESS"),
            after(notebook("c", &quick), &["b"], "ALL_SUCCESS"),
            notebook("a", &quick),
            after(notebook("b", &failing), &["a"], "ALL_SUCCESS"),
            after(notebook("e", &quick), &["b"], "ALL_DONE"),
            after(notebook("f", &quick), &["a"], "AT_LEAST_ONE_FAILED"),
        ]}))
        .await;
    let run = workspace.end(run_id).await;
    assert_eq!(
        results(&run),
        [
            ("d", "UPSTREAM_FAILED"),
            ("c", "UPSTREAM_FAILED"),
            ("a", "SUCCESS"),
            ("b", "FAILED"),
            ("e", "SUCCESS"),
            ("f", "EXCLUDED")
        ]
    );
    assert!(run["tasks"][3]["start_time"].as_i64() >= run["tasks"][2]["end_time"].as_i64());
    assert_eq!(
        run["state"]["state_message"],
        "Task b failed with message: Workload failed, see run output for details."
    );

    let caught = json!({"run_name": "caught", "tasks": [
        notebook("b", &failing), after(notebook("e", &quick), &["b"], "ALL_DONE"),
    ]});
    let caught = workspace.submit(caught).await;
    assert_eq!(
        workspace.end(caught).await["state"]["result_state"],
        "SUCCESS_WITH_FAILURES"
    );
    let circle = json!({"tasks": [after(notebook("a", &quick), &["b"], ""), after(notebook("b", &quick), &["a"], "")]});
    assert_eq!(
        workspace
            .refused(Method::POST, "/api/2.2/jobs/runs/submit", circle)
            .await
            .0,
        400
    );
    workspace.stop().await;
}

#[tokio::test]
async fn a_repair_keeps_the_run_and_adds_attempts() {
    let workspace = Workspace::start().await;
    let repair = "/api/2.2/jobs/runs/repair";
    let run_id = workspace
        .submit(json!({"run_name": "r", "tasks": [
            notebook("a", &json!({"sandbox.duration_ms": 1000})),
            after(notebook("b", &json!({"sandbox.duration_ms": 500, "sandbox.outcomes": "CLUSTER_ERROR,FAILED,SUCCESS"})), &["a"], ""),
        ]}))
        .await;
    let all = json!({"run_id": run_id, "rerun_all_failed_tasks": true});
    assert_eq!(
        workspace.refused(Method::POST, repair, all.clone()).await.1,
        "INVALID_STATE"
    );
    let run = workspace.end(run_id).await;
    assert_eq!(
        run["status"]["termination_details"]["code"],
        "CLUSTER_ERROR"
    );
    assert_eq!(run.get("repair_history"), None);
    let first = workspace.post(repair, all.clone()).await["repair_id"].clone();
    assert_eq!(workspace.run(run_id).await["end_time"], 0);
    workspace.end(run_id).await;
    assert_eq!(
        workspace.refused(Method::POST, repair, all.clone()).await.0,
        400
    );
    let mut next = all.clone();
    next["latest_repair_id"] = 1.into();
    assert_eq!(
        workspace
            .refused(Method::POST, repair, next.clone())
            .await
            .0,
        400
    );
    next["latest_repair_id"] = first.clone();
    let second = workspace.post(repair, next).await["repair_id"].clone();
    let run = workspace.end(run_id).await;
    assert_eq!(run["state"]["result_state"], "SUCCESS");
    let attempts: Vec<_> = run["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| {
            (
                task["task_key"].as_str().unwrap(),
                task["attempt_number"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(attempts, [("a", 0), ("b", 0), ("b", 1), ("b", 2)]);
    let history = run["repair_history"].as_array().unwrap();
    let told: Vec<_> = history
        .iter()
        .map(|item| {
            (
                &item["type"],
                &item["id"],
                &item["status"]["termination_details"]["code"],
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (&json!("ORIGINAL"), &Value::Null, &json!("CLUSTER_ERROR")),
            (&json!("REPAIR"), &first, &json!("RUN_EXECUTION_ERROR")),
            (&json!("REPAIR"), &second, &json!("SUCCESS")),
        ]
    );
    assert_eq!(
        history[2]["task_run_ids"],
        json!([run["tasks"][3]["run_id"]])
    );
    let books = workspace.stats().await;
    assert_eq!(
        (&books["runs_started"], &books["repairs"]),
        (&1.into(), &2.into())
    );
    workspace.stop().await;
}

#[tokio::test]
async fn cancelling_takes_a_moment_and_an_ended_run_stays_as_it_is() {
    let workspace = Workspace::start().await;
    let choices = json!({"sandbox.duration_ms": 600_000, "sandbox.cancel_ms": 1000});
    let run_id = workspace.submit(one(&choices)).await;
    let cancel = json!({"run_id": run_id});
    assert_eq!(
        workspace
            .post("/api/2.2/jobs/runs/cancel", cancel.clone())
            .await,
        json!({})
    );
    let run = workspace.run(run_id).await;
    assert_eq!(
        (&run["state"]["life_cycle_state"], &run["status"]["state"]),
        (&"TERMINATING".into(), &"TERMINATING".into())
    );
    assert_eq!(
        workspace
            .refused(Method::POST, "/api/2.2/jobs/runs/delete", cancel.clone())
            .await
            .1,
        "INVALID_STATE"
    );
    let run = workspace.end(run_id).await;
    assert_eq!(run["state"]["result_state"], "CANCELED");
    assert_eq!(run["state"]["user_cancelled_or_timedout"], true);
    assert_eq!(
        run["status"]["termination_details"]["code"],
        "USER_CANCELED"
    );

    let done = workspace
        .submit(one(&json!({"sandbox.duration_ms": 0})))
        .await;
    let before = workspace.end(done).await;
    workspace
        .post("/api/2.2/jobs/runs/cancel", json!({"run_id": done}))
        .await;
    assert_eq!(workspace.run(done).await, before);
    let books = workspace.get("/sandbox/runs").await;
    assert_eq!(
        (&books[0]["cancelled"], &books[1]["cancelled"]),
        (&true.into(), &false.into())
    );
    assert_eq!(
        workspace.stats().await["runs_by_outcome"],
        json!({"CANCELED": 1, "SUCCESS": 1})
    );
    workspace.stop().await;
}

#[tokio::test]
async fn a_run_past_its_limit_is_timed_out() {
    let workspace = Workspace::start().await;
    let mut body = one(&json!({"sandbox.duration_ms": 600_000}));
    body["timeout_seconds"] = 1.into();
    let run_id = workspace.submit(body).await;
    let run = workspace.end(run_id).await;
    assert_eq!(run["state"]["result_state"], "TIMEDOUT");
    assert_eq!(
        run["end_time"].as_i64().unwrap() - run["start_time"].as_i64().unwrap(),
        1000
    );
    workspace.stop().await;
}

#[tokio::test]
async fn a_full_job_queues_or_skips() {
    let workspace = Workspace::start().await;
    let job = json!({"name": "Narrow", "max_concurrent_runs": 1, "queue": {"enabled": true},
        "tasks": [notebook("main", &json!({"sandbox.duration_ms": 700}))]});
    let job_id = workspace.post("/api/2.2/jobs/create", job).await["job_id"].clone();
    let start = json!({"job_id": job_id});
    let mut runs = Vec::new();
    for _ in 0..3 {
        runs.push(
            workspace.post("/api/2.2/jobs/run-now", start.clone()).await["run_id"]
                .as_i64()
                .unwrap(),
        );
    }
    let queued = workspace.run(runs[1]).await;
    assert_eq!(
        (
            &queued["state"]["life_cycle_state"],
            &queued["status"]["state"]
        ),
        (&"QUEUED".into(), &"QUEUED".into())
    );
    assert_eq!(
        queued["status"]["queue_details"]["code"],
        "MAX_CONCURRENT_RUNS_REACHED"
    );
    let no_queue = json!({"job_id": job_id, "queue": {"enabled": false}});
    let skipped = workspace.post("/api/2.2/jobs/run-now", no_queue).await["run_id"]
        .as_i64()
        .unwrap();
    let skipped = workspace.run(skipped).await;
    assert_eq!(skipped["state"]["life_cycle_state"], "SKIPPED");
    assert_eq!(
        skipped["state"]["result_state"],
        "MAXIMUM_CONCURRENT_RUNS_REACHED"
    );
    workspace
        .post("/api/2.2/jobs/runs/cancel", json!({"run_id": runs[1]}))
        .await;
    assert_eq!(
        workspace.end(runs[1]).await["state"]["result_state"],
        "CANCELED"
    );
    let first = workspace.end(runs[0]).await;
    let last = workspace.end(runs[2]).await;
    assert_eq!(last["state"]["result_state"], "SUCCESS");
    assert_eq!(last["tasks"][0]["start_time"], first["end_time"]);
    assert_eq!(workspace.stats().await["max_concurrent_runs"], 1);
    workspace.stop().await;
}

#[tokio::test]
async fn cancel_all_takes_queued_runs_or_all_runs_of_a_job() {
    let workspace = Workspace::start().await;
    let job = json!({"name": "n", "max_concurrent_runs": 1, "queue": {"enabled": true},
        "tasks": [notebook("main", &json!({"sandbox.duration_ms": 600_000}))]});
    let job_id = workspace.post("/api/2.2/jobs/create", job).await["job_id"].clone();
    let start = async || {
        let run = workspace
            .post("/api/2.2/jobs/run-now", json!({"job_id": job_id}))
            .await;
        run["run_id"].as_i64().unwrap()
    };
    let (first, second, third) = (start().await, start().await, start().await);
    let cancel_all = "/api/2.2/jobs/runs/cancel-all";
    workspace
        .post(cancel_all, json!({"all_queued_runs": true}))
        .await;
    for run_id in [second, third] {
        assert_eq!(
            workspace.end(run_id).await["state"]["result_state"],
            "CANCELED"
        );
    }
    assert_eq!(
        workspace.run(first).await["state"]["life_cycle_state"],
        "RUNNING"
    );
    let fourth = start().await;
    workspace
        .post("/api/2.2/jobs/delete", json!({"job_id": job_id}))
        .await;
    assert_eq!(
        workspace.end(fourth).await["state"]["result_state"],
        "CANCELED"
    );
    let gone = workspace
        .refused(Method::POST, cancel_all, json!({"job_id": job_id}))
        .await;
    assert!(
        gone.2.starts_with("Job ") && gone.2.ends_with(" does not exist."),
        "{}",
        gone.2
    );

    let other = workspace
        .post("/api/2.2/jobs/create", json!({"name": "o"}))
        .await["job_id"]
        .clone();
    let settings = json!({"tasks": [
        notebook("a", &json!({"sandbox.duration_ms": 600_000})),
        after(notebook("b", &json!({})), &["a"], "ALL_SUCCESS"),
    ]});
    workspace
        .post(
            "/api/2.1/jobs/update",
            json!({"job_id": other, "new_settings": settings}),
        )
        .await;
    let job = workspace
        .get(&format!("/api/2.2/jobs/get?job_id={other}"))
        .await;
    assert_eq!(
        (
            &job["settings"]["name"],
            &job["settings"]["tasks"][1]["task_key"]
        ),
        (&"o".into(), &"b".into())
    );
    let whole = workspace
        .post("/api/2.2/jobs/run-now", json!({"job_id": other}))
        .await;
    let only = workspace
        .post(
            "/api/2.2/jobs/run-now",
            json!({"job_id": other, "only": ["b"]}),
        )
        .await;
    let only = workspace.end(only["run_id"].as_i64().unwrap()).await;
    assert_eq!(results(&only), [("b", "SUCCESS")]);
    workspace.post(cancel_all, json!({"job_id": other})).await;
    let whole = workspace.end(whole["run_id"].as_i64().unwrap()).await;
    assert_eq!(whole["state"]["result_state"], "CANCELED");
    workspace.stop().await;
}
