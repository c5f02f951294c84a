//! Runs: states on the way, lists, dependencies, repairs, cancellation, limits.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Workspace, notebook, one};

#[tokio::test]
async fn a_run_walks_from_pending_to_running_to_its_end() {
    let workspace = Workspace::start().await;
    let choices =
        json!({"sandbox.setup_ms": 150, "sandbox.duration_ms": 150, "sandbox.output": "o"});
    let run_id = workspace.submit(one(&choices)).await;
    let pending = workspace.until(run_id, &["PENDING"]).await;
    assert_eq!(
        (&pending["status"]["state"], &pending["end_time"]),
        (&"PENDING".into(), &0.into())
    );
    assert_eq!(pending["state"].get("result_state"), None);
    let running = workspace.until(run_id, &["RUNNING"]).await;
    assert_eq!(running["tasks"][0]["status"]["state"], "RUNNING");
    let ended = workspace.end(run_id).await;
    assert_eq!(ended["state"]["result_state"], "SUCCESS");
    assert_eq!(
        (&ended["setup_duration"], &ended["execution_duration"]),
        (&150.into(), &150.into())
    );
    assert_eq!(
        workspace.output(&ended, 0).await["notebook_output"],
        json!({"result": "o", "truncated": false})
    );
    workspace.stop().await;
}

#[tokio::test]
async fn arguments_are_taken_as_clients_send_them() {
    let workspace = Workspace::start().await;
    let run_id = workspace.submit(one(&json!({}))).await;
    let body = json!({"run_id": run_id.to_string(), "page_token": null, "include_history": "True"});
    let (status, run) = workspace
        .call(Method::GET, "/api/2.0/jobs/runs/get?page_token=", body)
        .await;
    assert_eq!(
        (status, &run["run_id"], &run["repair_history"]),
        (200, &run_id.into(), &json!([]))
    );
    let refused = workspace
        .refused(Method::GET, "/api/2.2/jobs/runs/get?run_id=5", Value::Null)
        .await;
    assert_eq!(
        refused,
        (
            400,
            "INVALID_PARAMETER_VALUE".into(),
            "Run 5 does not exist.".into()
        )
    );
    let refused = workspace
        .refused(Method::GET, "/api/2.2/nothing", Value::Null)
        .await;
    assert_eq!(
        refused,
        (
            404,
            "ENDPOINT_NOT_FOUND".into(),
            "No API found for 'GET /api/2.2/nothing'".into()
        )
    );
    let refused = workspace
        .refused(
            Method::POST,
            "/api/2.2/jobs/runs/submit",
            one(&json!({"sandbox.colour": 1})),
        )
        .await;
    assert!(
        refused.2.contains("sandbox.colour") && refused.2.contains("sandbox.outcome"),
        "{}",
        refused.2
    );
    workspace.stop().await;
}

#[tokio::test]
async fn the_older_form_has_one_task_and_its_own_output() {
    let workspace = Workspace::start().await;
    let run_id = workspace
        .submit(json!({
            "run_name": "MyDatabricksJob",
            "new_cluster": {"spark_version": "7.3.x-scala2.12", "num_workers": 10, "custom_tags": {"sandbox.setup_ms": "1"}},
            "spark_python_task": {"python_file": "/Users/x/main.py", "parameters": ["param1", "--sandbox.logs=printed"]},
        }))
        .await;
    let run = workspace.end(run_id).await;
    assert_eq!(
        (&run["tasks"][0]["task_key"], &run["setup_duration"]),
        (&"main".into(), &1.into())
    );
    let output = workspace
        .get(&format!("/api/2.0/jobs/runs/get-output?run_id={run_id}"))
        .await;
    assert_eq!(
        (&output["logs"], &output["logs_truncated"]),
        (&"printed".into(), &false.into())
    );
    workspace.stop().await;
}

#[tokio::test]
async fn lists_are_paged_newest_first_and_filtered() {
    let workspace = Workspace::start().await;
    let mut made = Vec::new();
    for n in 0..53 {
        let long = if n % 2 == 0 { 600_000 } else { 0 };
        made.push(
            workspace
                .submit(one(&json!({"sandbox.duration_ms": long})))
                .await,
        );
    }
    made.reverse();
    let mut listed = Vec::new();
    let mut sizes = Vec::new();
    let mut token = String::new();
    loop {
        let path =
            format!("/api/2.2/jobs/runs/list?limit=25&run_type=SUBMIT_RUN&page_token={token}");
        let page = workspace.get(&path).await;
        let runs = page["runs"].as_array().unwrap();
        sizes.push(runs.len());
        listed.extend(runs.iter().map(|run| run["run_id"].as_i64().unwrap()));
        // A run that comes while the pages are turned moves nothing.
        workspace.submit(one(&json!({}))).await;
        match page["next_page_token"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    assert_eq!((listed, sizes), (made, vec![25, 25, 3]));
    let active = workspace
        .get("/api/2.2/jobs/runs/list?active_only=true&limit=1")
        .await;
    assert_eq!(active["runs"][0].get("tasks"), None);
    let refused = workspace
        .refused(Method::GET, "/api/2.2/jobs/runs/list?limit=26", Value::Null)
        .await;
    assert_eq!(
        refused.2,
        "Invalid limit 26 - it has to be no more than 25."
    );
    let both = "/api/2.2/jobs/runs/list?active_only=true&completed_only=TRUE";
    assert_eq!(
        workspace.refused(Method::GET, both, Value::Null).await.0,
        400
    );
    workspace.stop().await;
}

#[tokio::test]
async fn tasks_come_a_hundred_a_page() {
    let workspace = Workspace::start().await;
    let tasks: Vec<Value> = (0..230)
        .map(|n| notebook(&format!("t{n}"), &json!({})))
        .collect();
    let run_id = workspace
        .submit(json!({"run_name": "big", "tasks": tasks}))
        .await;
    let mut sizes = Vec::new();
    let mut token = String::new();
    loop {
        let page = workspace
            .get(&format!(
                "/api/2.2/jobs/runs/get?run_id={run_id}&page_token={token}"
            ))
            .await;
        assert_eq!(page["run_id"], run_id);
        sizes.push(page["tasks"].as_array().unwrap().len());
        match page["next_page_token"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(sizes, [100, 100, 30]);
    workspace.stop().await;
}

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
            notebook("a", &json!({"sandbox.duration_ms": 20})),
            after(notebook("b", &json!({"sandbox.duration_ms": 20, "sandbox.outcomes": "CLUSTER_ERROR,FAILED,SUCCESS"})), &["a"], ""),
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
            (&json!("ORIGINAL"), &json!(0), &json!("CLUSTER_ERROR")),
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
    let choices = json!({"sandbox.duration_ms": 600_000, "sandbox.cancel_ms": 200});
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
        "tasks": [notebook("main", &json!({"sandbox.duration_ms": 150}))]});
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
async fn jobs_are_found_by_name_in_any_case_and_take_parameters() {
    let workspace = Workspace::start().await;
    for name in ["Orders", "orders", "other"] {
        workspace
            .post("/api/2.1/jobs/create", json!({"name": name}))
            .await;
    }
    let found = workspace
        .get("/api/2.2/jobs/list?name=ORDERS&limit=1")
        .await;
    assert_eq!(found["jobs"][0]["settings"]["name"], "orders");
    let next = found["next_page_token"].as_str().unwrap();
    let found = workspace
        .get(&format!("/api/2.2/jobs/list?name=ORDERS&page_token={next}"))
        .await;
    assert_eq!(
        (
            &found["jobs"][0]["settings"]["name"],
            found.get("next_page_token")
        ),
        (&"Orders".into(), None)
    );
    let job_id = &found["jobs"][0]["job_id"];
    workspace.rule(json!([{"job_name": "Orders", "outcome": "DRIVER_ERROR", "duration_ms": 0, "times": 1}])).await;
    let start = json!({"job_id": job_id, "notebook_params": {"a": "b"}});
    let mut codes = Vec::new();
    for _ in 0..2 {
        let run_id = workspace.post("/api/2.2/jobs/run-now", start.clone()).await["run_id"]
            .as_i64()
            .unwrap();
        let run = workspace.end(run_id).await;
        assert_eq!(
            run["overriding_parameters"],
            json!({"notebook_params": {"a": "b"}})
        );
        codes.push(
            run["status"]["termination_details"]["code"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
    }
    assert_eq!(codes, ["DRIVER_ERROR", "SUCCESS"]);
    workspace.stop().await;
}
