//! Who may call, where the sandbox listens, and clusters.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Sandbox, Workspace, options};

const ME: &str = "/api/2.0/preview/scim/v2/Me";

/// The status and error code of a call with this header.
async fn with(workspace: &Workspace, authorization: Option<&str>) -> (u16, String) {
    let mut request = workspace.client.get(format!("{}{ME}", workspace.host));
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    (
        status,
        body["error_code"].as_str().unwrap_or_default().to_owned(),
    )
}

async fn issued(workspace: &Workspace, form: &[(&str, &str)]) -> (u16, Value) {
    let url = format!("{}/oidc/v1/token", workspace.host);
    let form = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form)
        .finish();
    let response = workspace.client.post(url).body(form).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn any_token_serves_unless_one_is_named() {
    let workspace = Workspace::start().await;
    assert_eq!(
        with(&workspace, None).await,
        (401, "UNAUTHENTICATED".into())
    );
    assert_eq!(with(&workspace, Some("Bearer anything")).await.0, 200);
    workspace.stop().await;

    let mut named = options(false);
    named.token = Some("right".into());
    let workspace = Workspace::with(named).await;
    assert_eq!(
        with(&workspace, Some("Bearer wrong")).await,
        (401, "UNAUTHENTICATED".into())
    );
    assert_eq!(with(&workspace, Some("bearer right")).await.0, 200);
    // token:right
    assert_eq!(
        with(&workspace, Some("Basic dG9rZW46cmlnaHQ=")).await.0,
        200
    );
    assert_eq!(
        with(&workspace, Some("Basic dG9rZW46d3Jvbmc=")).await.0,
        401
    );
    let (_, token) = issued(
        &workspace,
        &[
            ("grant_type", "client_credentials"),
            ("client_id", "i"),
            ("client_secret", "s"),
        ],
    )
    .await;
    let bearer = format!("Bearer {}", token["access_token"].as_str().unwrap());
    assert_eq!(
        (
            token["expires_in"].as_i64(),
            with(&workspace, Some(&bearer)).await.0
        ),
        (Some(3600), 200)
    );
    assert_eq!(
        workspace.stats().await["calls"]["preview/scim/v2/Me"]["by_status"],
        json!({"200": 3, "401": 2})
    );
    workspace.stop().await;
}

#[tokio::test]
async fn issued_tokens_expire_by_time_and_by_rule() {
    let workspace = Workspace::start().await;
    let config = workspace.get("/.well-known/databricks-config").await;
    assert_eq!(config["oidc_endpoint"], format!("{}/oidc", workspace.host));
    let server = workspace
        .get("/oidc/.well-known/oauth-authorization-server")
        .await;
    assert_eq!(
        server["token_endpoint"],
        format!("{}/oidc/v1/token", workspace.host)
    );
    let exchange = [
        (
            "grant_type",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("subject_token", "a.b.c"),
    ];
    let (status, token) = issued(&workspace, &exchange).await;
    let bearer = format!("Bearer {}", token["access_token"].as_str().unwrap());
    assert_eq!(
        (status, with(&workspace, Some(&bearer)).await.0),
        (200, 200)
    );
    workspace.rule(json!([{"call": "preview/scim/v2/Me", "expire_tokens": true, "times": 1}, {"expires_in": 0}])).await;
    assert_eq!(
        with(&workspace, Some(&bearer)).await,
        (401, "UNAUTHENTICATED".into())
    );
    let (_, token) = issued(&workspace, &exchange).await;
    assert_eq!(token["expires_in"], 0);
    let bearer = format!("Bearer {}", token["access_token"].as_str().unwrap());
    assert_eq!(with(&workspace, Some(&bearer)).await.0, 401);
    let (status, error) = issued(&workspace, &[("grant_type", "client_credentials")]).await;
    assert_eq!((status, &error["error"]), (401, &"invalid_client".into()));
    workspace.stop().await;
}

#[tokio::test]
async fn only_loopback_unless_allowed() {
    let mut remote = options(false);
    remote.listen = ([0, 0, 0, 0], 0).into();
    let refused = Sandbox::bind(remote).await.unwrap_err().to_string();
    assert!(
        refused.contains("0.0.0.0:0") && refused.contains("127.0.0.1"),
        "{refused}"
    );
    let mut remote = options(true);
    remote.listen = ([0, 0, 0, 0], 0).into();
    remote.allow_remote = true;
    let refused = Sandbox::bind(remote).await.unwrap_err().to_string();
    assert!(refused.contains("without a token"), "{refused}");
    let mut remote = options(false);
    remote.listen = ([0, 0, 0, 0], 0).into();
    remote.allow_remote = true;
    let allowed = Sandbox::bind(remote).await.unwrap();
    assert_eq!(
        allowed.host(),
        format!("http://127.0.0.1:{}", allowed.address().port())
    );
    let mut taken = options(false);
    taken.listen = ([127, 0, 0, 1], allowed.address().port()).into();
    let refused = Sandbox::bind(taken).await.unwrap_err().to_string();
    assert!(
        refused.starts_with("the sandbox cannot listen on 127.0.0.1:"),
        "{refused}"
    );
}

#[tokio::test]
async fn clusters_start_stop_and_serve_runs() {
    let workspace = Workspace::start().await;
    let missing = workspace
        .refused(
            Method::GET,
            "/api/2.1/clusters/get?cluster_id=xyz",
            Value::Null,
        )
        .await;
    assert_eq!(
        missing,
        (
            400,
            "INVALID_PARAMETER_VALUE".into(),
            "Cluster xyz does not exist".into()
        )
    );
    let create = json!({"cluster_id": "c1", "spark_version": "15.4.x-scala2.12", "custom_tags": {"sandbox.start_ms": "1000"}});
    workspace.post("/api/2.1/clusters/create", create).await;
    let state = async || {
        workspace.get("/api/2.1/clusters/get?cluster_id=c1").await["state"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let c1 = json!({"cluster_id": "c1"});
    assert_eq!(state().await, "PENDING");
    let racing = workspace
        .refused(Method::POST, "/api/2.0/clusters/start", c1.clone())
        .await;
    assert_eq!(
        racing,
        (
            400,
            "INVALID_STATE".into(),
            "Cluster c1 is in unexpected state Pending.".into()
        )
    );
    while state().await != "RUNNING" {}
    workspace.post("/api/2.1/clusters/delete", c1.clone()).await;
    while state().await != "TERMINATED" {}
    let stopped = workspace.get("/api/2.1/clusters/get?cluster_id=c1").await;
    assert_eq!(stopped["termination_reason"]["code"], "USER_REQUEST");

    // A run wakes its cluster and waits for it.
    let task = json!({"task_key": "main", "existing_cluster_id": "c1", "notebook_task": {"notebook_path": "/n"}});
    let run_id = workspace.submit(json!({"tasks": [task]})).await;
    assert_eq!(state().await, "PENDING");
    assert_eq!(workspace.end(run_id).await["setup_duration"], 1000);
    assert_eq!(state().await, "RUNNING");
    workspace.stop().await;
}
