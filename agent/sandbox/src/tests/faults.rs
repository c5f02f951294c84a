//! Faults on demand, as a client sees them, and the books afterwards.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Workspace, one};

fn submit_under(token: &str) -> Value {
    let mut body = one(&json!({"sandbox.duration_ms": 0}));
    body["idempotency_token"] = token.into();
    body
}

/// Sends a submit over a bare socket: what came back, and how the connection ended.
async fn bare(workspace: &Workspace, body: &Value) -> (String, Option<std::io::ErrorKind>) {
    let body = body.to_string();
    let mut socket = TcpStream::connect(workspace.host.strip_prefix("http://").unwrap())
        .await
        .unwrap();
    let request = format!(
        "POST /api/2.2/jobs/runs/submit HTTP/1.1\r\nhost: x\r\nauthorization: Bearer t\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    let ended = socket.read_to_end(&mut reply).await;
    (
        String::from_utf8(reply).unwrap(),
        ended.err().map(|error| error.kind()),
    )
}

#[tokio::test]
async fn a_lost_reply_has_had_its_effect_once() {
    let workspace = Workspace::start().await;
    workspace
        .rule(json!([{"call": "runs/submit", "lose_reply": true, "times": 1}]))
        .await;
    assert_eq!(
        bare(&workspace, &submit_under("k")).await,
        (String::new(), None)
    );
    let runs = workspace.get("/sandbox/runs").await;
    let run_id = workspace.submit(submit_under("k")).await;
    assert_eq!(runs[0]["run_id"], run_id);
    assert_eq!(runs[0]["token"], "k");
    let books = workspace.stats().await;
    assert_eq!(books["runs_by_token"], json!({"k": 1}));
    assert_eq!(
        books["calls"]["jobs/runs/submit"],
        json!({"total": 2, "by_status": {"200": 1}, "cut": 1})
    );
    workspace.stop().await;
}

#[tokio::test]
async fn a_reset_is_a_tcp_reset_before_the_effect() {
    let workspace = Workspace::start().await;
    workspace
        .rule(json!({"call": "jobs/runs/*", "reset": true, "times": 2}))
        .await;
    let (reply, ended) = bare(&workspace, &submit_under("k")).await;
    assert_eq!(
        (reply.as_str(), ended),
        ("", Some(std::io::ErrorKind::ConnectionReset))
    );
    let error = workspace
        .send(
            Method::POST,
            "/api/2.2/jobs/runs/submit",
            &submit_under("k"),
        )
        .await;
    assert!(error.unwrap_err().is_request());
    let books = workspace.stats().await;
    assert_eq!(books["runs_started"], 0);
    assert_eq!(
        books["calls"]["jobs/runs/submit"],
        json!({"total": 2, "by_status": {}, "cut": 2})
    );
    workspace.submit(submit_under("k")).await;
    assert_eq!(workspace.get("/sandbox/rules").await[0]["used"], 2);
    workspace.stop().await;
}

#[tokio::test]
async fn half_a_reply_ends_inside_the_body() {
    let workspace = Workspace::start().await;
    workspace
        .rule(json!({"call": "runs/submit", "half_reply": true, "times": 1}))
        .await;
    let (reply, ended) = bare(&workspace, &submit_under("k")).await;
    assert_eq!(ended, None);
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(
        body.starts_with("{\"run_id\"") && !body.ends_with('}'),
        "{body}"
    );
    assert_eq!(workspace.stats().await["runs_started"], 1);
    workspace.stop().await;
}

#[tokio::test]
async fn statuses_come_with_bodies_and_retry_after() {
    let workspace = Workspace::start().await;
    workspace
        .rule(json!([
            {"call": "runs/submit", "status": 429, "retry_after": 2, "times": 1},
            {"call": "runs/submit", "status": 503, "html": true, "times": 1},
            {"call": "runs/submit", "status": 500, "body": {"error": "x"}, "times": 1},
            {"call": "runs/submit", "body": "upstream connect error", "times": 1},
        ]))
        .await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        let path = "/api/2.2/jobs/runs/submit";
        let response = workspace
            .send(Method::POST, path, &submit_under("k"))
            .await
            .unwrap();
        let header = |name: &str| {
            response
                .headers()
                .get(name)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        let (after, kind) = (header("retry-after"), header("content-type").unwrap());
        let status = response.status().as_u16();
        seen.push((status, after, kind, response.text().await.unwrap()));
    }
    assert_eq!((seen[0].0, seen[0].1.as_deref()), (429, Some("2")));
    assert!(
        seen[0]
            .3
            .contains("\"error_code\":\"REQUEST_LIMIT_EXCEEDED\""),
        "{}",
        seen[0].3
    );
    assert!(
        seen[1].0 == 503 && seen[1].2.starts_with("text/html") && seen[1].3.starts_with("<html>")
    );
    assert_eq!((seen[2].0, seen[2].3.as_str()), (500, "{\"error\":\"x\"}"));
    assert_eq!(
        (seen[3].0, seen[3].3.as_str()),
        (503, "upstream connect error")
    );
    let books = workspace.stats().await;
    assert_eq!(books["runs_started"], 0);
    assert_eq!(
        books["calls"]["jobs/runs/submit"],
        json!({"total": 4, "by_status": {"429": 1, "500": 1, "503": 2}, "cut": 0})
    );
    workspace.stop().await;
}

#[tokio::test]
async fn an_outage_passes_by_itself() {
    let workspace = Workspace::start().await;
    // It goes over what is in store for the call besides.
    let besides = json!({"call": "jobs/list", "status": 500, "times": 1});
    let outage = json!({"outage_seconds": 0.5});
    workspace.rule(json!([besides, outage])).await;
    let (mut refused, mut failed) = (0, 0);
    loop {
        let (status, body) = workspace
            .call(Method::GET, "/api/2.2/jobs/list", Value::Null)
            .await;
        if status == 200 {
            break;
        }
        if status == 500 {
            failed += 1;
            continue;
        }
        assert_eq!(
            (status, &body["error_code"]),
            (503, &"TEMPORARILY_UNAVAILABLE".into())
        );
        refused += 1;
    }
    assert!(refused > 0 && failed == 1);
    assert_eq!(
        workspace.stats().await["calls"]["jobs/list"]["total"],
        refused + failed + 1
    );
    workspace
        .rule(json!({"outage_seconds": 600, "reset": true}))
        .await;
    assert!(
        workspace
            .send(Method::GET, "/api/2.2/jobs/list", &Value::Null)
            .await
            .is_err()
    );
    assert_eq!(
        workspace
            .call(Method::DELETE, "/sandbox/rules", Value::Null)
            .await
            .0,
        200
    );
    workspace.get("/api/2.2/jobs/list").await;
    workspace.stop().await;
}

#[tokio::test]
async fn a_late_reply_has_its_effect_at_once() {
    let workspace = Workspace::start().await;
    workspace
        .rule(json!({"call": "runs/submit", "delay_ms": 600_000}))
        .await;
    let waiting = workspace
        .client
        .post(format!("{}/api/2.2/jobs/runs/submit", workspace.host))
        .bearer_auth("t")
        .timeout(Duration::from_millis(200))
        .json(&submit_under("k"));
    assert!(waiting.send().await.unwrap_err().is_timeout());
    assert_eq!(workspace.stats().await["runs_by_token"], json!({"k": 1}));
    workspace.stop().await;
}

#[tokio::test]
async fn chance_is_repeatable_and_the_books_agree_with_it() {
    let mut sequences = Vec::new();
    for _ in 0..2 {
        let workspace = Workspace::start().await;
        workspace
            .rule(json!({"call": "runs/submit", "status": 500, "probability": 0.3, "seed": 7}))
            .await;
        let mut statuses = Vec::new();
        for n in 0..40 {
            let body = submit_under(&n.to_string());
            statuses.push(
                workspace
                    .call(Method::POST, "/api/2.2/jobs/runs/submit", body)
                    .await
                    .0,
            );
        }
        let failed = statuses.iter().filter(|status| **status == 500).count();
        assert!((1..40).contains(&failed), "{failed}");
        let books = workspace.stats().await;
        assert_eq!(books["runs_started"], 40 - failed);
        assert_eq!(
            books["calls"]["jobs/runs/submit"]["by_status"]["500"],
            failed
        );
        sequences.push(statuses);
        workspace.stop().await;
    }
    assert_eq!(sequences[0], sequences[1]);
}

#[tokio::test]
async fn faults_can_be_aimed_by_name() {
    let workspace = Workspace::start().await;
    workspace
        .rule(json!({"call": "runs/get", "run_name": "aimed", "status": 504}))
        .await;
    let mut body = one(&json!({}));
    let plain = workspace.submit(body.clone()).await;
    body["run_name"] = "aimed".into();
    let aimed = workspace.submit(body).await;
    workspace.run(plain).await;
    let path = format!("/api/2.2/jobs/runs/get?run_id={aimed}");
    assert_eq!(workspace.call(Method::GET, &path, Value::Null).await.0, 504);
    workspace.stop().await;
}

#[tokio::test]
async fn a_wrong_rule_is_refused_by_name() {
    let workspace = Workspace::start().await;
    let (status, _, message) = workspace
        .refused(Method::POST, "/sandbox/rules", json!([{"statu": 500}]))
        .await;
    assert_eq!(status, 400);
    assert!(message.contains("`statu`"), "{message}");
    workspace.stop().await;
}

#[tokio::test]
async fn under_many_faulty_calls_every_token_still_makes_one_run() {
    let workspace = Workspace::start().await;
    workspace
        .rule(json!([
            {"call": "runs/submit", "lose_reply": true, "probability": 0.1, "seed": 1},
            {"call": "runs/submit", "reset": true, "probability": 0.1, "seed": 2},
            {"call": "runs/submit", "status": 503, "probability": 0.1, "seed": 3},
            {"call": "runs/submit", "half_reply": true, "probability": 0.1, "seed": 4},
        ]))
        .await;
    let persist = async |n: i32| {
        let body = submit_under(&format!("k{n}"));
        let mut tries = 0;
        loop {
            tries += 1;
            let reply = workspace
                .send(Method::POST, "/api/2.2/jobs/runs/submit", &body)
                .await;
            let Ok(reply) = reply else { continue };
            let status = reply.status().as_u16();
            let Ok(answer) = reply.json::<Value>().await else {
                continue;
            };
            if status == 200 {
                return (answer["run_id"].as_i64().unwrap(), tries);
            }
        }
    };
    let done = futures_util::future::join_all((0..200).map(persist)).await;
    let ids: std::collections::BTreeSet<i64> = done.iter().map(|(run_id, _)| *run_id).collect();
    let tries: i64 = done.iter().map(|(_, tries)| *tries).sum();
    assert_eq!(ids.len(), 200);
    assert!(tries > 200, "{tries}");
    let books = workspace.stats().await;
    assert_eq!(books["runs_started"], 200);
    let by_token = books["runs_by_token"].as_object().unwrap();
    assert!(
        by_token.len() == 200 && by_token.values().all(|runs| runs == 1),
        "{by_token:?}"
    );
    let calls = &books["calls"]["jobs/runs/submit"];
    assert_eq!(calls["total"], tries);
    let answered: i64 = calls["by_status"]
        .as_object()
        .unwrap()
        .values()
        .map(|n| n.as_i64().unwrap())
        .sum();
    assert_eq!(answered + calls["cut"].as_i64().unwrap(), tries);
    assert_eq!(calls["by_status"]["200"], 200);
    workspace.post("/sandbox/reset", json!({})).await;
    let books = workspace.stats().await;
    assert_eq!(
        (
            &books["runs_started"],
            &books["calls"],
            &books["runs_by_outcome"]
        ),
        (&0.into(), &json!({}), &json!({}))
    );
    assert_eq!(
        workspace
            .get("/sandbox/runs")
            .await
            .as_array()
            .unwrap()
            .len(),
        200
    );
    workspace.stop().await;
}
