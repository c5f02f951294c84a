//! The cluster of a Spark Connect connection.

use super::super::{Client, Cluster};
use super::*;
use sparkferry_shared::ErrorClass;

/// A cluster that needs so long to start; it is up.
async fn create(ground: &Ground, start_ms: u32) {
    let body = json!({"cluster_id": "c1", "spark_version": "15.4.x-scala2.12",
        "custom_tags": {"sandbox.start_ms": start_ms.to_string()}});
    ground.post("api/2.1/clusters/create", body).await;
}

async fn stop(ground: &Ground) {
    ground
        .post("api/2.1/clusters/delete", json!({"cluster_id": "c1"}))
        .await;
}

impl Ground {
    /// The cluster, as another worker sees it.
    fn cluster(&self) -> Cluster {
        let settings = self.settings();
        let client = Client::new("lake", &settings).unwrap();
        Cluster::new(client, "c1", settings.poll_interval.0)
    }
}

/// Asks as the flow does, until something else than "not yet" is said.
async fn awaited(cluster: &Cluster) -> (Result<(), Fault>, Vec<String>) {
    let since = Instant::now();
    let mut told = Vec::new();
    let asking = async {
        loop {
            match cluster.ready(since).await {
                Err(Fault::Waiting {
                    message,
                    retry_after,
                }) => {
                    told.push(message);
                    sleep(retry_after).await;
                }
                answer => return answer,
            }
        }
    };
    let answer = timeout(Duration::from_secs(20), asking).await.unwrap();
    (answer, told)
}

#[tokio::test]
async fn a_cluster_that_is_down_is_started_once_by_many() {
    let ground = Ground::new().await;
    create(&ground, 200).await;
    stop(&ground).await;
    let workers = [ground.cluster(), ground.cluster(), ground.cluster()];
    let runs = workers
        .iter()
        .flat_map(|cluster| [awaited(cluster), awaited(cluster)]);
    for (answer, told) in futures_util::future::join_all(runs).await {
        assert_eq!(answer, Ok(()));
        let told = told.join("\n");
        assert!(told.contains("cluster c1 at 127.0.0.1"), "{told}");
        assert!(told.contains("PENDING: Starting Spark"), "{told}");
    }
    let started = ground.stats().await["calls"]["clusters/start"].clone();
    assert_eq!(started["by_status"]["200"], 1, "{started}");
    assert!(workers.iter().all(|cluster| cluster.trouble().is_none()));
}

#[tokio::test]
async fn a_cluster_that_is_up_costs_one_look() {
    let ground = Ground::new().await;
    create(&ground, 0).await;
    let cluster = ground.cluster();
    for _ in 0..5 {
        assert_eq!(cluster.ready(Instant::now()).await, Ok(()));
    }
    assert_eq!(ground.calls("clusters/get").await, 1);
    assert_eq!(ground.calls("clusters/start").await, 0);
    let headers = cluster.headers().await.unwrap();
    assert_eq!(headers["authorization"], "Bearer t0k3n");
    assert!(!format!("{headers:?} {cluster:?}").contains("t0k3n"));
}

#[tokio::test]
async fn libraries_are_awaited() {
    let ground = Ground::new().await;
    create(&ground, 0).await;
    let library = json!({"pypi": {"package": "simplejson"}});
    let body = json!({"cluster_id": "c1", "libraries": [library.clone()]});
    ground.post("api/2.0/libraries/install", body).await;
    let cluster = ground.cluster();
    let statuses = |status: &str| {
        json!({"cluster_id": "c1", "library_statuses": [{"library": library, "status": status,
            "messages": ["no such package"]}]})
    };
    ground
        .rules(
            json!({"call": "libraries/cluster-status", "times": 2, "status": 200,
            "body": statuses("INSTALLING")}),
        )
        .await;
    let (answer, told) = awaited(&cluster).await;
    assert_eq!(answer, Ok(()));
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].ends_with("installs pypi simplejson"), "{told:?}");
}

#[tokio::test]
async fn a_cluster_that_does_not_exist_is_refused() {
    let ground = Ground::new().await;
    let cluster = ground.cluster();
    match cluster.ready(Instant::now()).await {
        Err(Fault::Refused(error)) => {
            assert!(
                error.message.contains("Cluster c1 does not exist"),
                "{}",
                error.message
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(cluster.trouble().unwrap().contains("c1"));
}

#[tokio::test]
async fn a_cluster_that_never_comes_up_is_started_three_times() {
    let ground = Ground::new().await;
    let shown = json!({"cluster_id": "c1", "state": "TERMINATED", "state_message": "no machines",
        "termination_reason": {"code": "CLOUD_PROVIDER_RESOURCE_STOCKOUT", "type": "CLOUD_FAILURE",
            "parameters": {"region": "north"}}});
    ground
        .rules(json!([
            {"call": "clusters/get", "status": 200, "body": shown},
            {"call": "clusters/start", "status": 200, "body": {}},
        ]))
        .await;
    let cluster = ground.cluster();
    let since = Instant::now();
    let (answer, told) = awaited(&cluster).await;
    let Err(Fault::Unready(error)) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(error.class, ErrorClass::Infrastructure);
    assert_eq!(
        error.code.as_deref(),
        Some("CLOUD_PROVIDER_RESOURCE_STOCKOUT")
    );
    for words in ["cluster c1", "no machines", "north", "after 3 starts"] {
        assert!(error.message.contains(words), "{}", error.message);
    }
    assert_eq!((told.len(), ground.calls("clusters/start").await), (3, 3));
    // Whoever waited along hears the same, and no start is added.
    assert_eq!(cluster.ready(since).await, Err(Fault::Unready(error)));
    assert_eq!(ground.calls("clusters/start").await, 3);
    // A further attempt has it started again.
    let answer = cluster.ready(Instant::now()).await;
    assert!(matches!(answer, Err(Fault::Waiting { .. })), "{answer:?}");
    assert_eq!(ground.calls("clusters/start").await, 4);
}

#[tokio::test]
async fn what_goes_wrong_on_the_way_to_a_cluster_passes() {
    let ground = Ground::new().await;
    create(&ground, 0).await;
    let cluster = ground.cluster();
    ground
        .rules(json!({"call": "clusters/get", "times": 1, "lose_reply": true}))
        .await;
    let Err(Fault::Passing { perhaps_done, .. }) = cluster.ready(Instant::now()).await else {
        panic!("the reply was lost");
    };
    assert!(!perhaps_done, "no run can have begun");
    assert!(cluster.trouble().is_some());
}
