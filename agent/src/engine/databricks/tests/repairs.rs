//! Further attempts as repairs of the first attempt's run.

use sparkferry_shared::ErrorClass;

use super::*;

fn failing_twice() -> Work {
    tasks(json!([
        {"task_key": "well", "notebook_task": {"notebook_path": "/n",
            "base_parameters": {"sandbox.duration_ms": "20", "sandbox.output": "once"}}},
        {"task_key": "shaky", "notebook_task": {"notebook_path": "/n", "base_parameters":
            {"sandbox.duration_ms": "50", "sandbox.outcomes": "CLUSTER_ERROR,DRIVER_ERROR,SUCCESS",
             "sandbox.output": "at last"}}},
    ]))
}

async fn failed(attached: &mut Attached, code: &str) {
    let Ended::Failed(failure) = end(&mut *attached.run).await else {
        panic!("it failed");
    };
    assert_eq!(failure.error.class, ErrorClass::Infrastructure);
    assert_eq!(failure.error.code.as_deref(), Some(code));
}

#[tokio::test]
async fn repairs_go_on_where_a_dead_worker_left_them() {
    let ground = Ground::new().await;
    let asked = Asked::repairing(failing_twice());

    // A first worker repairs once and dies.
    let worker = ground.engine();
    let mut first = asked.attach(&worker, 1, false).await;
    failed(&mut first, "CLUSTER_ERROR").await;
    let run_id = first.run.facts().run_id;
    let second = asked.attach(&worker, 2, false).await;
    assert!(!second.adopted);
    drop((first, second, worker));

    // The next one walks from the first attempt.
    let worker = ground.engine();
    let mut first = asked.attach(&worker, 1, true).await;
    failed(&mut first, "CLUSTER_ERROR").await;
    assert!(first.run.facts().adopted);
    let mut second = asked.attach(&worker, 2, true).await;
    assert!(second.adopted);
    failed(&mut second, "DRIVER_ERROR").await;
    let mut third = asked.attach(&worker, 3, true).await;
    assert!(!third.adopted, "nobody had begun it");
    assert_eq!(end(&mut *third.run).await, Ended::Success);
    assert_eq!(third.run.facts().run_id, run_id, "a repair keeps the run");

    let found = output(&mut *third.run, 10_000).await;
    let results: Vec<_> = found["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| task["notebook_output"]["result"].as_str().unwrap())
        .collect();
    assert_eq!(results, ["once", "at last"]);

    // Its end is the wait's beginning: each attempt has its own times.
    let ends: Vec<_> = [&first, &second, &third]
        .map(|attached| attached.run.facts())
        .map(|facts| (facts.started_at.unwrap(), facts.ended_at.unwrap()))
        .to_vec();
    assert!(ends[0].1 <= ends[1].0 && ends[1].1 <= ends[2].0, "{ends:?}");

    // A third worker finds everything done.
    let worker = ground.engine();
    for (attempt, code) in [
        (1, Some("CLUSTER_ERROR")),
        (2, Some("DRIVER_ERROR")),
        (3, None),
    ] {
        let mut attached = asked.attach(&worker, attempt, true).await;
        assert!(attached.adopted);
        match code {
            Some(code) => failed(&mut attached, code).await,
            None => assert_eq!(end(&mut *attached.run).await, Ended::Success),
        }
    }
    let stats = ground.stats().await;
    assert_eq!(
        (&stats["runs_started"], &stats["repairs"]),
        (&json!(1), &json!(2))
    );
}

#[tokio::test]
async fn a_repair_whose_reply_is_lost_is_one_repair() {
    let ground = Ground::new().await;
    ground
        .rules(json!({"call": "runs/repair", "times": 1, "lose_reply": true}))
        .await;
    let asked = Asked::repairing(failing_twice());
    let worker = ground.engine();
    failed(&mut asked.attach(&worker, 1, false).await, "CLUSTER_ERROR").await;
    let Err(Fault::Passing { perhaps_done, .. }) = asked.try_attach(&worker, 2, false).await else {
        panic!("the reply was lost");
    };
    assert!(perhaps_done);
    let mut second = asked.attach(&worker, 2, false).await;
    assert!(second.adopted, "the lost call had begun it");
    failed(&mut second, "DRIVER_ERROR").await;
    assert_eq!(ground.stats().await["repairs"], 1);
}

#[tokio::test]
async fn workers_that_repair_at_once_make_one_repair() {
    let ground = Ground::new().await;
    let asked = Asked::repairing(failing_twice());
    let workers = [ground.engine(), ground.engine(), ground.engine()];
    failed(
        &mut asked.attach(&workers[0], 1, false).await,
        "CLUSTER_ERROR",
    )
    .await;
    let attached = workers.iter().map(|worker| asked.attach(worker, 2, true));
    for mut attached in futures_util::future::join_all(attached).await {
        failed(&mut attached, "DRIVER_ERROR").await;
    }
    assert_eq!(ground.stats().await["repairs"], 1);
}

#[tokio::test]
async fn what_cannot_be_repaired_is_refused() {
    let ground = Ground::new().await;
    let asked = Asked::repairing(submit(json!({"sandbox.duration_ms": "20"})));
    let worker = ground.engine();
    let mut first = asked.attach(&worker, 1, false).await;
    assert_eq!(end(&mut *first.run).await, Ended::Success);
    let Err(Fault::Refused(error)) = asked.try_attach(&worker, 2, false).await else {
        panic!("nothing failed");
    };
    assert!(error.message.contains("no tasks to repair"), "{error:?}");
}
