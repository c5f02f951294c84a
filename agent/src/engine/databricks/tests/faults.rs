//! Calls that go wrong: never two runs, never a run's ending.

use std::sync::atomic::{AtomicBool, Ordering};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::PrometheusBuilder;
use sparkferry_shared::ErrorClass;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::*;
use crate::engine::databricks::error::CallError;
use crate::engine::databricks::watch;

#[tokio::test]
async fn a_lost_reply_makes_one_run() {
    let ground = Ground::new().await;
    let engine = ground.engine();
    let job = ground
        .post("api/2.2/jobs/create", json!({"name": "j"}))
        .await;
    for fault in ["lose_reply", "half_reply"] {
        let rule = |call: &str| json!({"call": call, "times": 1, (fault): true});
        ground
            .rules(json!([rule("jobs/run-now"), rule("runs/submit")]))
            .await;
        for work in [Work::RunNow(body(job.clone())), submit(json!({}))] {
            let asked = Asked::new(work);
            let Err(Fault::Passing {
                perhaps_done,
                message,
                ..
            }) = asked.try_attach(&engine, 1, false).await
            else {
                panic!("the reply was lost");
            };
            assert!(perhaps_done, "{message}");
            let mut attached = asked.attach(&engine, 1, false).await;
            assert_eq!(end(&mut *attached.run).await, Ended::Success);
            let started = &ground.stats().await["runs_by_token"][asked.token(1)];
            assert_eq!(*started, 1);
        }
    }
}

#[tokio::test]
async fn too_many_calls_slow_the_whole_connection_down() {
    let ground = Ground::new().await;
    let engine = ground.engine();
    let long = Asked::new(submit(json!({"sandbox.duration_ms": "100000"})));
    let mut attached = long.attach(&engine, 1, false).await;
    state(&mut *attached.run).await;

    ground
        .rules(json!({"call": "runs/submit", "times": 1, "status": 429, "retry_after": 1}))
        .await;
    let other = Asked::new(submit(json!({})));
    let told = Instant::now();
    let Err(Fault::Passing {
        class,
        retry_after,
        perhaps_done,
        ..
    }) = other.try_attach(&engine, 1, false).await
    else {
        panic!("there were too many");
    };
    assert_eq!((class, perhaps_done), (ErrorClass::Throttled, false));
    assert_eq!(retry_after, Some(Duration::from_secs(1)));
    let looks = ground.calls("jobs/runs/get").await;
    // The next start waits for as long as the workspace asked, and so does the watch.
    engine.permit().await;
    other.attach(&engine, 1, false).await;
    let waited = told.elapsed();
    assert!(waited >= Duration::from_millis(990), "{waited:?}");
    let more = ground.calls("jobs/runs/get").await - looks;
    assert!(
        more <= 3,
        "{more} looks while the workspace wanted to be left alone"
    );
}

#[tokio::test]
async fn an_outage_ends_no_run() {
    let ground = Ground::new().await;
    let engine = ground.engine();
    for reset in [false, true] {
        let asked = Asked::new(submit(json!({"sandbox.duration_ms": "300"})));
        let mut attached = asked.attach(&engine, 1, false).await;
        ground
            .rules(json!({"outage_seconds": 1.0, "reset": reset}))
            .await;
        assert_eq!(end(&mut *attached.run).await, Ended::Success);
        let calls = &ground.stats().await["calls"]["jobs/runs/get"];
        assert!(
            calls["by_status"]["503"].as_u64().unwrap_or(0) + calls["cut"].as_u64().unwrap() > 0
        );
    }
}

#[tokio::test]
async fn a_state_of_tomorrow_is_waited_for_and_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let ground = Ground::new().await;
    let asked = Asked::new(submit(json!({"sandbox.duration_ms": "200"})));
    let engine = ground.engine();
    let mut attached = asked.attach(&engine, 1, false).await;
    let run_id = attached.run.facts().run_id;
    ground
        .rules(
            json!({"call": "runs/get", "times": 4, "status": 200, "body":
            {"run_id": run_id, "state": {"life_cycle_state": "HIBERNATING"},
             "status": {"state": "HIBERNATING"}}}),
        )
        .await;
    let mut words = Vec::new();
    let ended = loop {
        match change(&mut *attached.run).await {
            Change::State(state) => words.push(state.word),
            Change::Ended(ended) => break ended,
        }
    };
    assert_eq!(ended, Ended::Success);
    assert!(words.contains(&"HIBERNATING".to_owned()), "{words:?}");
    let metrics = recorder.handle().render();
    let counted = r#"sparkferry_unknown_states_total{connection="test"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
    let submits = r#"sparkferry_engine_calls_total{connection="test",call="jobs/runs/submit",status="200"} 1"#;
    assert!(metrics.contains(submits), "{metrics}");
}

#[tokio::test]
async fn credentials_that_are_not_accepted_now_are_nobodys_fault() {
    let ground = Ground::new().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, "0utdated").unwrap();
    let engine = ground.engine_with(|settings| {
        settings.auth = Auth::Pat(SecretSource::File(path.clone()));
    });
    let asked = Asked::new(submit(json!({})));
    let Err(Fault::Passing {
        class,
        message,
        perhaps_done,
        ..
    }) = asked.try_attach(&engine, 1, false).await
    else {
        panic!("the token is outdated");
    };
    assert_eq!((class, perhaps_done), (ErrorClass::Auth, false));
    assert!(!message.contains("0utdated"), "{message}");
    // The file is rotated, and read again at the refusal.
    std::fs::write(&path, "t0k3n").unwrap();
    asked.try_attach(&engine, 1, false).await.unwrap();
    // A file that is being rotated may be missing for a moment, and is not needed meanwhile.
    std::fs::remove_file(&path).unwrap();
    asked.try_attach(&engine, 1, false).await.unwrap();
    let cold = ground.engine_with(|settings| {
        settings.auth = Auth::Pat(SecretSource::File(path.clone()));
    });
    let Err(Fault::Passing { class, message, .. }) = asked.try_attach(&cold, 1, false).await else {
        panic!("there is no token");
    };
    assert_eq!(class, ErrorClass::Auth);
    assert!(message.contains("can't be read"), "{message}");
}

#[tokio::test]
async fn a_missing_permission_is_told_from_credentials_that_are_not_accepted() {
    let ground = Ground::new().await;
    let engine = ground.engine();
    let denied = |code: &str, message: &str, times: u8| {
        json!({"call": "runs/submit", "times": times, "status": 403,
            "body": {"error_code": code, "message": message}})
    };
    let missing = "User x does not have Manage Run permissions on job 5";
    ground.rules(denied("PERMISSION_DENIED", missing, 2)).await;
    let asked = Asked::new(submit(json!({})));
    let Err(Fault::Refused(error)) = asked.try_attach(&engine, 1, false).await else {
        panic!("we are let in, and may not do this");
    };
    assert_eq!(error.class, ErrorClass::Auth);
    assert_eq!(error.code.as_deref(), Some("PERMISSION_DENIED"));
    assert!(error.message.contains(missing));
    assert_eq!(ground.calls("preview/scim/v2/Me").await, 1);
    assert_eq!(engine.trouble(), None);

    // The same words while nobody is let in.
    let engine = ground.engine();
    ground
        .rules(json!([denied("PERMISSION_DENIED", missing, 1),
            {"call": "preview/scim/v2/Me", "times": 1, "status": 403}]))
        .await;
    let outcome = asked.try_attach(&engine, 1, false).await;
    assert!(
        matches!(
            outcome,
            Err(Fault::Passing {
                class: ErrorClass::Auth,
                ..
            })
        ),
        "{outcome:?}"
    );
    ground
        .rules(denied("403", "Invalid access token.", 1))
        .await;
    let engine = ground.engine();
    let outcome = asked.try_attach(&engine, 1, false).await;
    assert!(
        matches!(
            outcome,
            Err(Fault::Passing {
                class: ErrorClass::Auth,
                ..
            })
        ),
        "{outcome:?}"
    );
    let trouble = engine.trouble().expect("nobody is let in");
    assert!(
        trouble.contains("does not accept our credentials"),
        "{trouble}"
    );
    asked.attach(&engine, 1, false).await;
    assert_eq!(engine.trouble(), None);
}

/// Access that is withdrawn for a while refuses no request, whatever was known before.
#[tokio::test]
async fn a_request_is_not_refused_by_what_was_true_a_moment_ago() {
    let ground = Ground::new().await;
    let engine = ground.engine();
    let asked = Asked::new(submit(json!({})));
    let denied = json!({"call": "runs/submit", "times": 2, "status": 403});
    ground.rules(denied).await;
    let refused = asked.try_attach(&engine, 1, false).await;
    assert!(matches!(refused, Err(Fault::Refused(_))), "{refused:?}");

    // We were let in a moment ago; now nobody is.
    ground
        .rules(json!({"call": "*", "times": 2, "status": 403}))
        .await;
    let outcome = asked.try_attach(&engine, 1, false).await;
    assert!(matches!(outcome, Err(Fault::Passing { .. })), "{outcome:?}");
    // And access comes back between the refusal and our look.
    ground
        .rules(json!({"call": "*", "times": 1, "status": 403}))
        .await;
    asked.attach(&engine, 1, false).await;
}

#[tokio::test]
async fn a_workspace_that_cannot_be_reached_has_done_nothing() {
    let ground = Ground::new().await;
    let port = {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        taken.local_addr().unwrap().port()
    };
    let engine = ground.engine_with(|settings| {
        settings.host = format!("http://127.0.0.1:{port}").parse().unwrap();
    });
    let asked = Asked::new(submit(json!({})));
    let Err(Fault::Passing {
        class,
        message,
        perhaps_done,
        ..
    }) = asked.try_attach(&engine, 1, false).await
    else {
        panic!("nobody is there");
    };
    assert_eq!((class, perhaps_done), (ErrorClass::Infrastructure, false));
    assert!(
        message.contains(&format!("127.0.0.1:{port}: can't be reached")),
        "{message}"
    );

    // One that takes the call and never answers may have done it.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("http://{}", silent.local_addr().unwrap());
    let engine = ground.engine_with(|settings| {
        settings.host = host.parse().unwrap();
        settings.call_timeout = Duration::from_millis(100);
    });
    let Err(Fault::Passing {
        message,
        perhaps_done,
        ..
    }) = asked.try_attach(&engine, 1, false).await
    else {
        panic!("nobody answers");
    };
    assert!(
        perhaps_done && message.contains("no answer in time"),
        "{message}"
    );
}

/// What stands in between may mix replies up, and no sandbox does.
#[tokio::test]
async fn a_reply_about_another_run_says_nothing_about_this_one() {
    let ground = Ground::new().await;
    let mixed_up = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("http://{}", mixed_up.local_addr().unwrap());
    let body = r#"{"run_id": 8, "status": {"state": "TERMINATED",
        "termination_details": {"code": "SUCCESS", "type": "SUCCESS"}}}"#;
    let answering = tokio::spawn(async move {
        let (mut stream, _) = mixed_up.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let reply = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(reply.as_bytes()).await.unwrap();
    });
    let engine = ground.engine_with(|settings| settings.host = host.parse().unwrap());
    let looked = watch::get(&engine.workspace.client, 7, false).await;
    let Err(CallError::Passing(passing)) = looked else {
        panic!("it is another run's ending");
    };
    assert!(passing.message.contains("asked about run 7"), "{passing:?}");
    answering.await.unwrap();
}

/// Panics at the first look, and records nothing.
struct PanicsOnce(AtomicBool);

impl Recorder for PanicsOnce {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let look = key.labels().any(|label| label.value() == "jobs/runs/get");
        assert!(
            !look || self.0.swap(true, Ordering::Relaxed),
            "a bug of ours"
        );
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[tokio::test]
async fn a_panic_in_the_watch_does_not_end_it() {
    let recorder = PanicsOnce(AtomicBool::new(false));
    let _guard = metrics::set_default_local_recorder(&recorder);
    let ground = Ground::new().await;
    let asked = Asked::new(submit(json!({})));
    let mut attached = asked.attach(&ground.engine(), 1, false).await;
    assert_eq!(end(&mut *attached.run).await, Ended::Success);
    assert!(recorder.0.load(Ordering::Relaxed), "it panicked");
}

#[tokio::test]
async fn a_token_is_not_shown_even_by_half() {
    let ground = Ground::new().await;
    let engine = ground.engine();
    let mut shown = Vec::new();
    // Wherever a long text is cut.
    for before in 1000..1030 {
        let text = format!("{}t0k3n", "x".repeat(before));
        for (status, body) in [
            (400, json!({"error_code": "INVALID", "message": text})),
            (200, json!(format!("{}t0k3n", "x".repeat(before - 920)))),
        ] {
            let rule =
                json!({"call": "preview/scim/v2/Me", "status": status, "body": body, "times": 1});
            ground.rules(rule).await;
            shown.push(engine.check().await.unwrap_err().to_error().message);
        }
    }
    assert_eq!(shown.len(), 60);
    for text in shown {
        assert!(!text.contains("xt0"), "{text}");
    }
}
