//! Every kind of credentials against the stand-in, which checks what it is shown and lets tokens
//! expire.

mod files;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use sparkferry_sandbox::{Sandbox, SandboxOptions};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};
use url::Url;

use super::{Credentials, Token};
use crate::config::{Auth, AzureWorkspace, Reach, SecretSource};
use crate::http::client::HttpClient;

const ME: &str = "api/2.0/preview/scim/v2/Me";
const WORKSPACE_TOKEN: &str = "oidc/v1/token";
const AZURE_TOKEN: &str = "azure/oauth2/token";
const IDENTITY_TOKEN: &str = "metadata/identity/oauth2/token";

/// A workspace that takes one client, one foreign token and one identity, and nobody else.
struct Ground {
    host: Url,
    http: reqwest::Client,
    folder: TempDir,
    _serving: DropGuard,
}

impl Ground {
    async fn new() -> Self {
        // The first test installs it; the others find it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let sandbox = Sandbox::bind(SandboxOptions {
            listen: "127.0.0.1:0".parse().unwrap(),
            token: Some("n0body".to_owned().into()),
            exec: false,
            allow_remote: false,
        })
        .await
        .unwrap();
        let host = sandbox.host().parse().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(sandbox.serve(stop.clone()));
        let ground = Self {
            host,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            folder: tempfile::tempdir().unwrap(),
            _serving: stop.drop_guard(),
        };
        ground.allow("s3cret", "a.b.c").await;
        ground.file("secret", "s3cret");
        ground.file("subject", "a.b.c");
        ground
    }

    async fn post(&self, page: &str, body: Value) {
        let url = self.host.join(page).unwrap();
        let sent = self.http.post(url).body(body.to_string()).send();
        assert_eq!(sent.await.unwrap().status(), 200);
    }

    /// These are the secret of the client and the foreign token from now on.
    async fn allow(&self, secret: &str, subject: &str) {
        let clients = json!({
            "clients": {"app": secret}, "subjects": [subject], "identities": ["machine"],
        });
        self.post("sandbox/clients", clients).await;
    }

    async fn rules(&self, rules: Value) {
        self.post("sandbox/rules", rules).await;
    }

    /// How often a call was made.
    async fn calls(&self, call: &str) -> u64 {
        let stats = self.http.get(self.host.join("sandbox/stats").unwrap());
        let text = stats.send().await.unwrap().text().await.unwrap();
        let stats: Value = serde_json::from_str(&text).unwrap();
        stats["calls"][call]["total"].as_u64().unwrap_or(0)
    }

    fn file(&self, name: &str, content: &str) -> SecretSource {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        SecretSource::File(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn m2m(&self) -> Auth {
        Auth::OauthM2m {
            client_id: "app".to_owned(),
            client_secret: SecretSource::File(self.path("secret")),
        }
    }

    fn federation(&self) -> Auth {
        Auth::Federation {
            token: SecretSource::File(self.path("subject")),
            client_id: None,
        }
    }

    fn principal(&self, workspace: bool) -> Auth {
        Auth::AzureServicePrincipal {
            tenant_id: "tenant-1".to_owned(),
            client_id: "app".to_owned(),
            client_secret: SecretSource::File(self.path("secret")),
            authority_host: self.host.clone(),
            workspace: workspace.then(azure_workspace),
        }
    }

    fn identity(&self, client_id: &str, workspace: bool) -> Auth {
        Auth::AzureManagedIdentity {
            client_id: Some(client_id.to_owned()),
            endpoint: self.host.clone(),
            workspace: workspace.then(azure_workspace),
        }
    }

    fn credentials(&self, auth: &Auth) -> Credentials {
        let http = HttpClient::new(&Reach::default(), &self.host, Duration::from_secs(10));
        Credentials::new(&"test".into(), auth, &self.host, &Arc::new(http.unwrap())).unwrap()
    }

    /// The status of a call that shows a token.
    async fn me(&self, token: &Token) -> u16 {
        let mut request = self.http.get(self.host.join(ME).unwrap());
        for (name, value) in token.headers() {
            request = request.header(name, value);
        }
        request.send().await.unwrap().status().as_u16()
    }
}

fn azure_workspace() -> AzureWorkspace {
    AzureWorkspace {
        resource_id:
            "/subscriptions/s/resourceGroups/g/providers/Microsoft.Databricks/workspaces/w"
                .to_owned(),
        management: "https://management.core.windows.net/".to_owned(),
    }
}

#[tokio::test]
async fn every_kind_is_let_in_and_again_after_its_token_has_expired() {
    let ground = Ground::new().await;
    for (auth, call, asked) in [
        (ground.m2m(), WORKSPACE_TOKEN, 1),
        (ground.federation(), WORKSPACE_TOKEN, 1),
        (ground.principal(false), AZURE_TOKEN, 1),
        (ground.principal(true), AZURE_TOKEN, 2),
        (ground.identity("machine", false), IDENTITY_TOKEN, 1),
        (ground.identity("machine", true), IDENTITY_TOKEN, 2),
    ] {
        let before = ground.calls(call).await;
        let credentials = ground.credentials(&auth);
        let all = join_all((0..50).map(|_| credentials.token())).await;
        let token = all[0].clone().unwrap();
        assert!(
            all.iter().all(|other| *other == Ok(token.clone())),
            "{auth:?}"
        );
        assert_eq!(ground.me(&token).await, 200, "{auth:?}");
        assert_eq!(ground.calls(call).await - before, asked, "{auth:?}");

        // All tokens expire: the next call is refused, and another token is had once, however many
        // callers were refused.
        ground
            .rules(json!({"call": "preview/scim/v2/Me", "expire_tokens": true, "times": 1}))
            .await;
        assert_eq!(ground.me(&token).await, 401, "{auth:?}");
        let others = join_all((0..50).map(|_| credentials.other_than(&token))).await;
        let other = others[0].clone().unwrap();
        assert!(others.iter().all(|found| *found == Some(other.clone())));
        assert_eq!(ground.me(&other).await, 200, "{auth:?}");
        assert_eq!(ground.calls(call).await - before, 2 * asked, "{auth:?}");
        assert_eq!(credentials.token().await.as_ref(), Ok(&other));
        assert_eq!(credentials.trouble(), None);
    }
}

#[tokio::test]
async fn every_question_for_a_token_is_counted_by_its_kind() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let ground = Ground::new().await;
    for auth in [
        Auth::Pat(SecretSource::Value("n0body".to_owned().into())),
        ground.m2m(),
        ground.federation(),
        ground.principal(true),
        ground.identity("machine", false),
    ] {
        ground.credentials(&auth).token().await.unwrap();
    }
    ground.file("secret", "wrong");
    ground.credentials(&ground.m2m()).token().await.unwrap_err();
    ground
        .rules(json!({"call": "oidc/v1/token", "reset": true, "times": 1}))
        .await;
    ground.credentials(&ground.m2m()).token().await.unwrap_err();

    let told = recorder.handle().render();
    for (call, status, times) in [
        ("token/oauth_m2m", "200", 1),
        ("token/oauth_m2m", "401", 1),
        ("token/oauth_m2m", "fault", 1),
        ("token/federation", "200", 1),
        // One for the workspace, one for its management.
        ("token/azure_service_principal", "200", 2),
        ("token/azure_managed_identity", "200", 1),
    ] {
        let line = format!(
            r#"sparkferry_engine_calls_total{{connection="test",call="{call}",status="{status}"}} {times}"#
        );
        assert!(told.contains(&line), "{line} is not in {told}");
    }
    assert!(!told.contains("token/pat"), "it is sent as it is: {told}");
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires_by_our_own_clock() {
    let ground = Ground::new().await;
    ground.rules(json!({"expires_in": 1000})).await;
    let credentials = ground.credentials(&ground.m2m());
    let first = credentials.token().await.unwrap();
    tokio::time::pause();
    // A quarter of its life, and no more than five minutes, before its end.
    tokio::time::advance(Duration::from_secs(745)).await;
    assert_eq!(credentials.token().await.as_ref(), Ok(&first));
    tokio::time::advance(Duration::from_secs(10)).await;
    tokio::time::resume();
    let second = credentials.token().await.unwrap();
    assert_ne!(second, first);
    // By the workspace's clock no time has passed: the old one still serves there.
    assert_eq!(ground.me(&first).await, 200);
    assert_eq!(ground.me(&second).await, 200);
    assert_eq!(ground.calls(WORKSPACE_TOKEN).await, 2);
}

#[tokio::test]
async fn an_outage_of_the_endpoint_is_survived_with_the_old_token_while_it_serves() {
    let ground = Ground::new().await;
    let credentials = ground.credentials(&ground.m2m());
    let first = credentials.token().await.unwrap();
    ground
        .rules(json!({"call": "oidc/v1/token", "status": 503, "times": 2}))
        .await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_mins(56)).await;
    tokio::time::resume();
    assert_eq!(credentials.token().await.as_ref(), Ok(&first));
    let told = credentials.trouble().unwrap();
    assert!(
        told.contains("no token from 127.0.0.1") && told.contains("503"),
        "{told}"
    );
    tokio::time::pause();
    tokio::time::advance(Duration::from_mins(4)).await;
    tokio::time::resume();
    assert!(
        credentials.token().await.is_err(),
        "the old one has expired"
    );
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3)).await;
    tokio::time::resume();
    assert_ne!(credentials.token().await.unwrap(), first);
    assert_eq!(credentials.trouble(), None);
}

#[tokio::test]
async fn an_endpoint_that_is_none_or_away_says_what_to_do() {
    let ground = Ground::new().await;
    ground
        .rules(json!({"call": "oidc/v1/token", "html": true, "status": 200, "times": 1}))
        .await;
    let error = ground.credentials(&ground.m2m()).token().await.unwrap_err();
    assert!(error.contains("is this address right"), "{error}");
    ground
        .rules(json!({"call": "oidc/v1/token", "reset": true, "times": 1}))
        .await;
    let error = ground.credentials(&ground.m2m()).token().await.unwrap_err();
    assert!(error.contains("a firewall"), "{error}");
    let other = ground.credentials(&ground.identity("other", false));
    let error = other.token().await.unwrap_err();
    assert!(error.contains("Identity not found"), "{error}");
    assert!(error.contains("client_id"), "{error}");
}

#[tokio::test]
async fn nothing_prints_a_token() {
    let ground = Ground::new().await;
    let value = |text: &str| Auth::Pat(SecretSource::Value(text.to_owned().into()));
    let credentials = ground.credentials(&value("hunter2"));
    let token = credentials.token().await.unwrap();
    assert!(!format!("{credentials:?} {token:?}").contains("hunter2"));
    let mut echo = "User with token hunter2 is unknown".to_owned();
    token.censor(&mut echo);
    assert_eq!(echo, "User with token [secret] is unknown");
    let error = ground.credentials(&value("hun\nter2")).token().await;
    assert!(!error.unwrap_err().contains("ter2"));
    // An endpoint that repeats what it was told.
    ground
        .rules(json!({"call": "oidc/v1/token", "status": 401, "times": 1,
            "body": {"error": "invalid_client", "error_description": "s3cret is wrong"}}))
        .await;
    let error = ground.credentials(&ground.m2m()).token().await.unwrap_err();
    assert!(error.contains("[secret] is wrong"), "{error}");
}
