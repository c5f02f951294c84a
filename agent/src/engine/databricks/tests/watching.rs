//! What following runs costs.

use futures_util::future::join_all;

use super::*;
use crate::engine::databricks::book::{Plan, Sweeping};

#[tokio::test]
async fn many_runs_cost_far_fewer_calls_than_one_for_each_look() {
    const RUNS: u64 = 500;
    let ground = Ground::new().await;
    let engine = ground.engine_with(|settings| {
        settings.poll_interval = (Duration::from_millis(300), Duration::from_millis(300));
    });
    let asked: Vec<_> = (0..RUNS)
        .map(|_| Asked::new(submit(json!({"sandbox.duration_ms": "3000"}))))
        .collect();
    let attached = join_all(asked.iter().map(|asked| asked.attach(&engine, 1, false))).await;
    let ended = attached
        .into_iter()
        .map(|mut attached| async move { end(&mut *attached.run).await });
    assert!(
        join_all(ended)
            .await
            .iter()
            .all(|ended| *ended == Ended::Success)
    );
    let pages = ground.calls("jobs/runs/list").await;
    let gets = ground.calls("jobs/runs/get").await;
    println!("{RUNS} runs: {pages} pages, {gets} gets");
    // Each run was looked at about eight times before it ended, and its ending takes a get.
    assert!(pages >= 20, "{pages}");
    assert!(gets <= RUNS * 3 / 2, "{gets}");
    assert!(pages + gets < RUNS * 8 / 3, "{pages} + {gets}");
}

#[tokio::test]
async fn few_runs_among_many_of_others_are_asked_for_one_by_one() {
    let ground = Ground::new().await;
    let others = ground.engine_with(|settings| {
        settings.poll_interval = (Duration::from_secs(100), Duration::from_secs(100));
    });
    let long = || Asked::new(submit(json!({"sandbox.duration_ms": "100000"})));
    let foreign: Vec<_> = (0..400).map(|_| long()).collect();
    let own: Vec<_> = (0..5).map(|_| long()).collect();
    // Ours are the oldest, so they stand on the last page. They are followed only once all are there.
    join_all(own.iter().map(|asked| asked.attach(&others, 1, false))).await;
    let _foreign = join_all(foreign.iter().map(|asked| asked.attach(&others, 1, false))).await;
    let engine = ground.engine();
    let _own = join_all(own.iter().map(|asked| asked.attach(&engine, 1, true))).await;
    let gets = timeout(Duration::from_mins(1), async {
        loop {
            match ground.calls("jobs/runs/get").await {
                gets if gets > 20 => return gets,
                _ => tokio::task::yield_now().await,
            }
        }
    });
    let gets = gets.await.expect("they are looked at");
    let pages = ground.calls("jobs/runs/list").await;
    println!("5 runs among 400: {pages} pages, {gets} gets");
    assert!(pages <= 12, "it gives up what costs more: {pages}");
}

#[tokio::test]
async fn a_list_that_is_refused_is_done_without() {
    let ground = Ground::new().await;
    let engine = ground.engine();
    ground
        .rules(json!({"call": "runs/list", "status": 400}))
        .await;
    let asked: Vec<_> = (0..40)
        .map(|_| Asked::new(submit(json!({"sandbox.duration_ms": "500"}))))
        .collect();
    let attached = join_all(asked.iter().map(|asked| asked.attach(&engine, 1, false))).await;
    let ended = attached
        .into_iter()
        .map(|mut attached| async move { end(&mut *attached.run).await });
    assert!(
        join_all(ended)
            .await
            .iter()
            .all(|ended| *ended == Ended::Success)
    );
    assert_eq!(ground.calls("jobs/runs/list").await, 1);
}

#[tokio::test]
async fn what_nobody_follows_is_forgotten() {
    let ground = Ground::new().await;
    let engine = ground.engine();
    let asked = Asked::new(submit(json!({"sandbox.duration_ms": "100000"})));
    let mut first = asked.attach(&engine, 1, false).await;
    let mut second = asked.attach(&engine, 1, false).await;
    state(&mut *first.run).await;
    drop(first);
    state(&mut *second.run).await;
    let book = &engine.workspace.book;
    assert_ne!(book.plan(Sweeping::Impossible), Plan::Wait(None));
    drop(second);
    assert_eq!(book.plan(Sweeping::Impossible), Plan::Wait(None));
    let stats = ground.stats().await;
    assert_eq!(
        (&stats["runs_active"], &stats["runs_started"]),
        (&json!(1), &json!(1))
    );
}

#[tokio::test]
async fn the_watch_ends_with_the_last_of_engine_and_runs() {
    let ground = Ground::new().await;
    let engine = ground.engine();
    let asked = Asked::new(submit(json!({"sandbox.duration_ms": "300"})));
    let mut attached = asked.attach(&engine, 1, false).await;
    let client = Arc::downgrade(&engine.workspace.client);
    drop(engine);
    assert_eq!(
        end(&mut *attached.run).await,
        Ended::Success,
        "it is followed on"
    );
    drop(attached);
    // The aborted task lets go of its share as soon as the runtime gets to it.
    timeout(Duration::from_secs(5), async {
        while client.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("nothing is left");
}
