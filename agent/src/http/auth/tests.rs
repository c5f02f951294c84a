//! Every kind of credentials against the stand-in, which checks what it is shown and lets tokens
//! expire.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};
use url::Url;

use super::{Credentials, Token};
use crate::config::{Auth, AzureWorkspace, Reach, SecretSource};
use crate::http::client::HttpClient;
use crate::sandbox::{Sandbox, SandboxOptions};

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
        Credentials::new(auth, &self.host, &Arc::new(http.unwrap())).unwrap()
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
async fn a_secret_that_was_rotated_is_used_and_one_that_was_revoked_is_told() {
    let ground = Ground::new().await;
    for auth in [ground.m2m(), ground.federation(), ground.principal(false)] {
        ground.allow("s3cret", "a.b.c").await;
        ground.file("secret", "s3cret");
        ground.file("subject", "a.b.c");
        let credentials = ground.credentials(&auth);
        let first = credentials.token().await.unwrap();
        ground.allow("n3wer", "d.e.f").await;
        assert_eq!(credentials.other_than(&first).await, None);
        let told = credentials.trouble().unwrap();
        assert!(told.contains("no token from 127.0.0.1"), "{told}");
        assert!(told.contains("still valid"), "{told}");
        for secret in ["s3cret", "a.b.c"] {
            assert!(!told.contains(secret), "{told}");
        }

        ground.file("secret", "n3wer\n");
        ground.file("subject", "d.e.f\n");
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(10)).await;
        tokio::time::resume();
        let second = credentials.other_than(&first).await.unwrap();
        assert_eq!(ground.me(&second).await, 200);
        assert_eq!(credentials.trouble(), None);
    }
}

#[tokio::test]
async fn a_secret_that_is_missing_or_empty_says_which_file() {
    let ground = Ground::new().await;
    let empty = ground.file("empty", " \n");
    let missing = SecretSource::File(ground.path("missing"));
    for (source, words) in [(&empty, "is empty"), (&missing, "can't be read")] {
        for auth in [
            Auth::Pat(source.clone()),
            Auth::OauthM2m {
                client_id: "app".to_owned(),
                client_secret: source.clone(),
            },
            Auth::Federation {
                token: source.clone(),
                client_id: None,
            },
        ] {
            let credentials = ground.credentials(&auth);
            let error = credentials.token().await.unwrap_err();
            let SecretSource::File(path) = source else {
                unreachable!("both are files")
            };
            assert!(error.contains(path.to_str().unwrap()), "{error}");
            assert!(error.contains(words), "{error}");
            assert_eq!(credentials.trouble(), Some(error));
        }
    }
}

#[tokio::test]
async fn a_token_file_that_vanishes_leaves_the_token_at_work_and_is_told() {
    let ground = Ground::new().await;
    let credentials = ground.credentials(&Auth::Pat(ground.file("token", "n0body")));
    let token = credentials.token().await.unwrap();
    fs::remove_file(ground.path("token")).unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(31)).await;
    assert_eq!(credentials.token().await.as_ref(), Ok(&token));
    assert!(
        credentials
            .trouble()
            .unwrap()
            .contains("token can't be read")
    );
    tokio::time::advance(Duration::from_secs(3)).await;
    ground.file("token", "n3w");
    let new = credentials.token().await.unwrap();
    assert_ne!(new, token);
    assert_eq!(credentials.trouble(), None);
}

#[tokio::test]
async fn a_rotated_file_is_read_when_the_old_token_is_refused() {
    let ground = Ground::new().await;
    let credentials = ground.credentials(&Auth::Pat(ground.file("token", "first")));
    let first = credentials.token().await.unwrap();
    assert_eq!(credentials.other_than(&first).await, None);
    ground.file("token", "second");
    assert_eq!(credentials.token().await.as_ref(), Ok(&first));
    let second = credentials.other_than(&first).await.unwrap();
    let values: Vec<_> = second.headers().map(|(_, value)| value).collect();
    assert_eq!(values, ["Bearer second"]);
    assert!(
        values
            .iter()
            .all(reqwest::header::HeaderValue::is_sensitive)
    );
    // Another caller that was refused with the first one is given the second one at once.
    assert_eq!(credentials.other_than(&first).await, Some(second));
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
