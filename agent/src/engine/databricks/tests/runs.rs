//! Starting runs and what becomes of them.

use sparkferry_shared::ErrorClass;

use super::*;

#[tokio::test]
async fn a_job_is_found_by_its_name_and_only_one_may_have_it() {
    let ground = Ground::new().await;
    let engine = ground.engine();
    let job = ground
        .post(
            "api/2.2/jobs/create",
            json!({"name": "Nightly Load", "tasks":
            [{"task_key": "main", "notebook_task": {"notebook_path": "/n"}}]}),
        )
        .await;
    let by_name = || {
        let body = json!({"job_name": "nightly load", "notebook_params":
            {"sandbox.duration_ms": "50", "sandbox.output": "by name"}});
        Asked::new(Work::RunNow(self::body(body)))
    };
    let asked = by_name();
    let mut attached = asked.attach(&engine, 1, false).await;
    assert_eq!(end(&mut *attached.run).await, Ended::Success);
    let found = output(&mut *attached.run, 1000).await;
    assert_eq!(found["tasks"][0]["notebook_output"]["result"], "by name");
    // The name is looked up once for a while.
    by_name().attach(&engine, 1, false).await;
    assert_eq!(ground.calls("jobs/list").await, 1);

    // The job goes, and another one takes the name: the kept id leads nowhere and is looked up.
    ground.post("api/2.2/jobs/delete", job).await;
    let other = json!({"name": "nightly load"});
    ground.post("api/2.2/jobs/create", other.clone()).await;
    by_name().attach(&engine, 1, false).await;
    assert_eq!(ground.calls("jobs/list").await, 2);

    ground.post("api/2.2/jobs/create", other).await;
    let Err(Fault::Refused(error)) = by_name().try_attach(&ground.engine(), 1, false).await else {
        panic!("two jobs have the name");
    };
    assert_eq!(error.class, ErrorClass::Request);
    assert!(
        error.message.contains("run_now.job_name: 2 jobs"),
        "{error:?}"
    );
    // One that is written just so is meant, whatever others there are.
    let just_so = json!({"name": "Nightly load"});
    ground.post("api/2.2/jobs/create", just_so).await;
    let just_so = Asked::new(Work::RunNow(body(json!({"job_name": "Nightly load"}))));
    just_so.attach(&ground.engine(), 1, false).await;
    let nobody = Asked::new(Work::RunNow(body(json!({"job_name": "nightly"}))));
    let Err(Fault::Refused(error)) = nobody.try_attach(&engine, 1, false).await else {
        panic!("no job has the name");
    };
    assert!(
        error.message.contains("run_now.job_name: no job"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_body_passes_through_as_it_was_written() {
    let ground = Ground::new().await;
    let engine = ground.engine();
    // The older form of one task's fields at the top level.
    let old: Body = serde_json::from_str(
        r#"{"run_name": "MyDatabricksJob", "new_cluster": {"spark_version": "7.3.x-scala2.12",
            "node_type_id": "r3.xlarge", "num_workers": 10},
            "spark_python_task": {"python_file": "/Users/x/main.py",
            "parameters": ["param1", "--sandbox.logs=ran"]}}"#,
    )
    .unwrap();
    let mut attached = Asked::new(Work::SubmitRun(old))
        .attach(&engine, 1, false)
        .await;
    assert_eq!(end(&mut *attached.run).await, Ended::Success);
    let found = output(&mut *attached.run, 1000).await;
    let task = &found["tasks"][0];
    assert_eq!(
        (&task["task_key"], &task["logs"]),
        (&json!("main"), &json!("ran"))
    );
    assert_eq!(task["result_state"], "SUCCESS");
    let facts = attached.run.facts();
    assert_eq!(
        facts.status.unwrap()["termination_details"]["code"],
        "SUCCESS"
    );
    assert!(facts.run_page_url.unwrap().contains("/run/"));
}

#[tokio::test]
async fn what_databricks_refuses_is_refused_in_its_words() {
    let ground = Ground::new().await;
    let asked = Asked::new(Work::RunNow(body(json!({"job_id": 5}))));
    let Err(Fault::Refused(error)) = asked.try_attach(&ground.engine(), 1, false).await else {
        panic!("there is no such job");
    };
    assert_eq!(error.class, ErrorClass::Request);
    assert_eq!(error.code.as_deref(), Some("INVALID_PARAMETER_VALUE"));
    let port = ground.host.rsplit(':').next().unwrap();
    assert_eq!(
        error.message,
        format!(
            "jobs/run-now at 127.0.0.1:{port}: 400 INVALID_PARAMETER_VALUE Job 5 does not exist."
        )
    );
}

#[tokio::test]
async fn the_first_failed_task_speaks_for_the_run() {
    let ground = Ground::new().await;
    let engine = ground.engine();
    let task = |key: &str, after: &[&str], choices: Value| {
        let after: Vec<Value> = after.iter().map(|key| json!({"task_key": key})).collect();
        json!({"task_key": key, "depends_on": after, "notebook_task":
            {"notebook_path": "/n", "base_parameters": choices}})
    };
    let fails = |ms: &str, error: &str| {
        json!({"sandbox.duration_ms": ms, "sandbox.outcome": "FAILED", "sandbox.error": error,
            "sandbox.trace": format!("Traceback ... {}{error}", "x".repeat(20_000))})
    };
    let asked = Asked::new(tasks(json!([
        task("late", &[], fails("200", "too late")),
        task("early", &[], fails("50", "ValueError: no such plaza")),
        task("well", &[], json!({"sandbox.output": "fine"})),
        task("after", &["early"], json!({})),
    ])));
    let mut attached = asked.attach(&engine, 1, false).await;
    let Ended::Failed(failure) = end(&mut *attached.run).await else {
        panic!("it failed");
    };
    let error = failure.error;
    assert_eq!(error.class, ErrorClass::User);
    assert_eq!(error.code.as_deref(), Some("RUN_EXECUTION_ERROR"));
    assert_eq!(error.message, "task early: ValueError: no such plaza");
    let trace = error.trace.unwrap();
    assert!(trace.ends_with("no such plaza") && trace.len() <= 8192);
    let told: Vec<_> = error.tasks.iter().map(|task| &*task.task_key).collect();
    assert_eq!(told, ["early", "late"], "what did not run did not fail");
    // The run itself shows the trap.
    let state = attached.run.facts().state.unwrap();
    assert_eq!(
        (&state["life_cycle_state"], &state["result_state"]),
        (&json!("INTERNAL_ERROR"), &json!("FAILED"))
    );
    let found = output(&mut *attached.run, 1000).await;
    assert_eq!(found["tasks"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn an_ending_stands_though_its_errors_cannot_be_read() {
    let ground = Ground::new().await;
    ground
        .rules(json!({"call": "runs/get-output", "status": 500}))
        .await;
    let asked = Asked::new(submit(json!({"sandbox.outcome": "FAILED"})));
    let mut attached = asked.attach(&ground.engine(), 1, false).await;
    let Ended::Failed(failure) = end(&mut *attached.run).await else {
        panic!("it failed");
    };
    assert_eq!(failure.error.class, ErrorClass::User);
    assert!(failure.error.message.contains("Workload failed"));
    assert!(ground.calls("jobs/runs/get-output").await > 1);
}

#[tokio::test]
async fn two_hundred_and_fifty_tasks_are_read_page_by_page() {
    let ground = Ground::new().await;
    let engine = ground.engine();
    let all: Vec<Value> = (0..250)
        .map(|n| {
            json!({"task_key": format!("t{n}"), "notebook_task": {"notebook_path": "/n",
                "base_parameters": {"sandbox.output": format!("{n}{}", "!".repeat(5000))}}})
        })
        .collect();
    let mut attached = Asked::new(tasks(json!(all)))
        .attach(&engine, 1, false)
        .await;
    assert_eq!(end(&mut *attached.run).await, Ended::Success);
    // A fault in the middle: what was read is kept.
    ground
        .rules(json!({"call": "runs/get-output", "probability": 0.05, "seed": 7, "status": 503}))
        .await;
    let found = output(&mut *attached.run, 256 * 1024).await;
    assert!(found.to_string().len() <= 256 * 1024);
    assert_eq!(found["truncated"], true);
    let told = found["tasks"].as_array().unwrap();
    assert_eq!(told.len(), 250);
    for (n, task) in told.iter().enumerate() {
        assert_eq!(task["task_key"], format!("t{n}"));
        let result = task["notebook_output"]["result"].as_str().unwrap();
        assert!(result.starts_with(&n.to_string()) && result.len() > 500);
    }
    let good = &ground.stats().await["calls"]["jobs/runs/get-output"]["by_status"]["200"];
    assert_eq!(*good, 250, "each output is read once");
}

#[tokio::test]
async fn a_run_that_is_deleted_is_lost() {
    let ground = Ground::new().await;
    let engine = ground.engine();
    let asked = Asked::new(submit(json!({"sandbox.duration_ms": "50"})));
    let mut first = asked.attach(&engine, 1, false).await;
    assert_eq!(end(&mut *first.run).await, Ended::Success);
    // Somebody follows it whose watch has not seen the ending.
    let slow = ground.engine_with(|settings| {
        settings.poll_interval = (Duration::from_millis(300), Duration::from_millis(300));
    });
    let mut other = asked.attach(&slow, 1, false).await;
    let run_id = other.run.facts().run_id.unwrap();
    ground
        .post("api/2.2/jobs/runs/delete", json!({"run_id": run_id}))
        .await;
    let Ended::Lost(failure) = end(&mut *other.run).await else {
        panic!("it is lost");
    };
    assert_eq!(failure.error.class, ErrorClass::Lost);
    assert!(failure.error.message.contains("does not exist"));
    let Err(Fault::Lost(error)) = asked.try_attach(&engine, 1, true).await else {
        panic!("its token is spent");
    };
    assert_eq!(error.class, ErrorClass::Lost);
    assert_eq!(ground.stats().await["runs_started"], 1);
}

#[tokio::test]
async fn check_says_who_we_are_or_what_is_wrong() {
    let ground = Ground::new().await;
    let said = ground.engine().check().await.unwrap();
    assert!(
        said.starts_with("127.0.0.1:") && said.contains('@'),
        "{said}"
    );
    let stranger = ground.engine_with(|settings| {
        settings.auth = Auth::Pat(SecretSource::Value("wr0ng".to_owned().into()));
    });
    let Err(Fault::Passing { class, message, .. }) = stranger.check().await else {
        panic!("its token is wrong");
    };
    assert_eq!(class, ErrorClass::Auth);
    assert!(!message.contains("wr0ng"), "{message}");
}
