//! A connection with a policy: what is outside it never reaches the workspace.

use serde_json::{Value, json};
use sparkferry_ports::queue::Listen;
use sparkferry_shared::{ErrorClass, Id, Outcome};

use super::harness::{CONNECTION, Heard, Place, Story, count};

fn cluster(workers: u32) -> Value {
    json!({"spark_version": "15.4.x-scala2.12", "node_type_id": "small", "num_workers": workers})
}

fn notebook(cluster: &Value) -> Value {
    json!({"task_key": "a", "new_cluster": cluster, "notebook_task": {"notebook_path": "/n"}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_outside_a_policy_is_rejected_and_the_workspace_hears_nothing_of_it() {
    let story = Story::new(Place::Sqlite, 600).await;
    story.add_settings(&format!(
        "[connections.{CONNECTION}.policy]\njobs = []\nmax_workers = 8\n"
    ));
    let large = notebook(&cluster(9));
    let each = json!({"task_key": "e", "for_each_task": {"inputs": "[1]", "task": large}});
    let outside = [
        (json!({"run_now": {"job_id": 7}}), "jobs", "run_now.job_id"),
        (
            json!({"submit_run": {"tasks": [notebook(&cluster(8)), large]}}),
            "max_workers",
            "submit_run.tasks[1].new_cluster.num_workers",
        ),
        (
            json!({"submit_run": {"tasks": [each]}}),
            "max_workers",
            "submit_run.tasks[0].for_each_task.task.new_cluster.num_workers",
        ),
        (
            json!({"submit_run": {"existing_cluster_id": "c", "notebook_task": {"notebook_path": "/n"}}}),
            "existing_clusters",
            "submit_run.existing_cluster_id",
        ),
    ];
    let within = json!({"submit_run": {"tasks": [notebook(&cluster(8))]}});
    let bodies = outside.iter().map(|(body, _, _)| body).chain([&within]);
    let requests: Vec<(Id, Value)> = bodies
        .enumerate()
        .map(|(n, body)| (format!("r-{n}").parse().expect("an id"), body.clone()))
        .collect();

    let _worker = story.worker();
    let producer = story.producer().await;
    let ids = requests.iter().map(|(id, _)| id.clone()).collect();
    let mut news = producer.listen(Listen::Mine(ids)).await.expect("a queue");
    for (id, body) in &requests {
        let mut body = body.clone();
        body["id"] = id.as_str().into();
        let sent = producer.submit(CONNECTION, id, body.to_string().into());
        sent.await.expect("the queue takes it");
    }
    let mut heard = Heard::default();
    heard.listen(&mut news, requests.len()).await;

    for ((id, _), (_, rule, field)) in requests.iter().zip(&outside) {
        let result = &heard.results[id];
        assert_eq!(result.outcome, Outcome::Rejected, "{result:?}");
        assert!(result.attempts.is_empty(), "{result:?}");
        let error = result.error.as_ref().expect("why");
        assert_eq!(error.class, ErrorClass::Request);
        assert_eq!(error.code.as_deref(), Some("POLICY"));
        for part in [*rule, *field] {
            assert!(error.message.contains(part), "{part}: {}", error.message);
        }
    }
    let (id, _) = &requests[outside.len()];
    assert_eq!(heard.results[id].outcome, Outcome::Success);
    let stats = story.workspace.stats().await;
    assert_eq!(count(&stats, "/runs_started"), 1, "{stats}");
    producer.close().await;
}
