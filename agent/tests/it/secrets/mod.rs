//! Secrets are seen nowhere: canaries stand in every place of a secret, and all that the program
//! writes is searched for them, with everything that it can log.

mod hostile;
mod place;

use serde_json::{Value, json};
use sparkferry_sandbox::{Sandbox, SandboxOptions};
use tokio_util::sync::CancellationToken;

use self::place::{Canaries, Place, http, names, until};

const RESOURCE: &str =
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.Databricks/workspaces/w";

/// Every way to be let in, by a secret that is right: each connection runs a request, and no secret
/// is seen.
#[tokio::test]
async fn every_way_to_be_let_in_runs_requests() {
    let mut place = Place::new("url = \"sqlite:queue.db\"");
    let [pat, secret, subject] = [place.secret(), place.secret(), place.secret()];
    let sandbox = Sandbox::bind(SandboxOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        token: Some(pat.clone().into()),
        exec: false,
        allow_remote: false,
    });
    let sandbox = sandbox.await.unwrap();
    let host = sandbox.host();
    tokio::spawn(sandbox.serve(CancellationToken::new()));
    let http = http();
    let post = |page: &str, body: Value| {
        http.post(format!("{host}/sandbox/{page}"))
            .json(&body)
            .send()
    };
    let clients =
        json!({"clients": {"app": secret}, "subjects": [subject], "identities": ["", "m"]});
    assert_eq!(post("clients", clients).await.unwrap().status(), 200);
    // They expire while the worker works.
    let rules = json!([{"expires_in": 2}, {"call": "runs/submit", "expire_tokens": true, "probability": 0.5}]);
    assert_eq!(post("rules", rules).await.unwrap().status(), 200);

    let [pat_file, secret_file, subject_file] =
        [&pat, &secret, &subject].map(|secret| place.file(secret));
    let profiles = place.file(&format!(
        "[one]\nhost = {host}\ntoken = {pat}\n[two]\nhost = {host}\nclient_id = app\nclient_secret = {secret}\n"
    ));
    let azure = format!(
        "type = \"azure_service_principal\", tenant_id = \"t\", client_id = \"app\", authority_host = \"{host}\""
    );
    let machine = format!("type = \"azure_managed_identity\", endpoint = \"{host}\"");
    for (name, auth) in [
        ("pat", format!("type = \"pat\", token = \"{pat}\"")),
        (
            "pat_file",
            format!("type = \"pat\", token_file = \"{pat_file}\""),
        ),
        (
            "oauth",
            format!("type = \"oauth_m2m\", client_id = \"app\", client_secret = \"{secret}\""),
        ),
        (
            "oauth_file",
            format!(
                "type = \"oauth_m2m\", client_id = \"app\", client_secret_file = \"{secret_file}\""
            ),
        ),
        ("azure", format!("{azure}, client_secret = \"{secret}\"")),
        (
            "azure_managing",
            format!(
                "{azure}, client_secret_file = \"{secret_file}\", azure_workspace_resource_id = \"{RESOURCE}\""
            ),
        ),
        ("machine", machine.clone()),
        (
            "machine_managing",
            format!("{machine}, client_id = \"m\", azure_workspace_resource_id = \"{RESOURCE}\""),
        ),
        (
            "federation",
            format!("type = \"federation\", token_file = \"{subject_file}\""),
        ),
        (
            "profile_pat",
            format!("type = \"profile\", profile = \"one\", config_file = \"{profiles}\""),
        ),
        (
            "profile_oauth",
            format!("type = \"profile\", profile = \"two\", config_file = \"{profiles}\""),
        ),
    ] {
        place.connection(name, &host, &format!("auth = {{ {auth} }}"));
    }
    // As the environment of Databricks' tools says.
    place.connection("environment", &host, "");
    place.variable("DATABRICKS_CLIENT_ID", "app");
    place.variable("DATABRICKS_CLIENT_SECRET", &secret);

    assert_eq!(
        place.start("check", &["check"]).ended().await,
        Some(0),
        "{}",
        place.said("check.out")
    );
    let worker = place.start("run", &["run"]);
    let served = place.served().await;
    let all = names(&place.configured(), &place.variables);
    let mut submitted = place.submit(&all, true);
    assert_eq!(
        submitted.ended().await,
        Some(0),
        "{}",
        place.said("submit.out")
    );
    let out = place.said("submit.out");
    let outcomes = out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let succeeded = outcomes.filter(|result| result["outcome"] == "SUCCESS");
    assert_eq!(succeeded.count(), all.len());
    worker.stop().await;
    place.searched(&Canaries::default(), &served);
    // What the workspace issued.
    for file in [
        "check.out",
        "check.err",
        "run.err",
        "queue.db",
        "queue.db-wal",
    ] {
        assert!(!place.said(file).contains("sandbox-0"), "{file}");
    }
}

/// Everybody who is told a secret repeats it in every answer.
#[tokio::test]
async fn a_secret_that_is_repeated_to_us_is_seen_nowhere() {
    let mut place = Place::new("url = \"sqlite:queue.db\"");
    let (address, heard) = hostile::start();
    for refuse in ["", "/refuse"] {
        let host = |name: &str| format!("http://{address}{refuse}/{name}");
        let title = |name: &str| format!("{name}{}", refuse.replace('/', "_"));
        for file in [false, true] {
            let mut source = |key: &str| {
                if file {
                    format!("{key}_file = \"{}\"", place.secret_file())
                } else {
                    format!("{key} = \"{}\"", place.secret())
                }
            };
            let suffix = if file { "_file" } else { "" };
            let [pat, oauth, azure, managing] = [
                source("token"),
                source("client_secret"),
                source("client_secret"),
                source("client_secret"),
            ];
            let tenant = format!(
                "type = \"azure_service_principal\", tenant_id = \"t\", client_id = \"app\", authority_host = \"http://{address}{refuse}\""
            );
            for (name, auth) in [
                ("pat", format!("type = \"pat\", {pat}")),
                (
                    "oauth",
                    format!("type = \"oauth_m2m\", client_id = \"app\", {oauth}"),
                ),
                ("azure", format!("{tenant}, {azure}")),
                (
                    "managing",
                    format!("{tenant}, {managing}, azure_workspace_resource_id = \"{RESOURCE}\""),
                ),
            ] {
                let name = format!("{name}{suffix}");
                place.connection(&title(&name), &host(&name), &format!("auth = {{ {auth} }}"));
            }
        }
        let subject = place.secret_file();
        let auth = format!("auth = {{ type = \"federation\", token_file = \"{subject}\" }}");
        place.connection(&title("federation"), &host("federation"), &auth);
        let machine = format!(
            "auth = {{ type = \"azure_managed_identity\", endpoint = \"http://{address}{refuse}\", azure_workspace_resource_id = \"{RESOURCE}\" }}"
        );
        place.connection(&title("machine"), &host("machine"), &machine);
        let [token, secret] = [place.secret(), place.secret()];
        let profiles = place.file(&format!(
            "[one]\nhost = http://{address}\ntoken = {token}\n[two]\nhost = http://{address}\nclient_id = app\nclient_secret = {secret}\n"
        ));
        for profile in ["one", "two"] {
            let auth = format!(
                "auth = {{ type = \"profile\", profile = \"{profile}\", config_file = \"{profiles}\" }}"
            );
            place.connection(&title(profile), &host(profile), &auth);
        }
        // Through a proxy, which is told a password.
        for file in [false, true] {
            let proxy = format!("http://user:{}@{address}", place.secret());
            let proxy = if file {
                format!("proxy_file = \"{}\"", place.file(&proxy))
            } else {
                format!("proxy = \"{proxy}\"")
            };
            let secret = place.secret();
            let lines = format!(
                "auth = {{ type = \"oauth_m2m\", client_id = \"app\", client_secret = \"{secret}\" }}\n{proxy}"
            );
            let name = title(if file { "proxied_file" } else { "proxied" });
            place.connection(&name, "https://adb-1.example", &lines);
        }
    }
    for (name, variable) in [
        ("by_pat", "DATABRICKS_TOKEN"),
        ("by_oauth", "DATABRICKS_CLIENT_SECRET"),
        ("by_subject", "DATABRICKS_OIDC_TOKEN"),
        ("by_azure", "ARM_CLIENT_SECRET"),
        ("by_old", "DATABRICKS_CONNECTION_STRING"),
        ("by_setting", "SPARKFERRY__CONNECTIONS__PAT__AUTH__TOKEN"),
    ] {
        let secret = place.secret();
        if name == "by_old" {
            place.variable(variable, &format!("{{\"token\": \"{secret}\"}}"));
        } else {
            place.variable(variable, &secret);
        }
    }
    place.connection("environment", &format!("http://{address}/environment"), "");

    let checked = place.start("check", &["check", "--json"]).ended().await;
    assert_eq!(checked, Some(69));
    let mut watching = place.start("watch", &["watch", "--json"]);
    let worker = place.start("run", &["run"]);
    place.page().await;
    let all = names(&place.configured(), &place.variables);
    let mut submitted = place.submit(&all, false);
    assert_eq!(submitted.ended().await, Some(0));
    // Those that have a token are refused in every way that there is.
    let let_in = [
        "pat",
        "pat_file",
        "oauth",
        "azure_file",
        "managing",
        "federation",
        "machine",
    ];
    until("the answers", || {
        let heard = heard.lock().unwrap();
        let asked = |name: &&str| {
            let call = format!(" /{name}/api/2.2/jobs/runs/submit");
            heard.lines.iter().any(|line| line.contains(&call))
        };
        let_in.iter().all(asked).then_some(())
    })
    .await;
    let served = place.served().await;
    assert!(served.contains("no token from"), "{served}");
    worker.stop().await;
    let _ = watching.0.kill();
    watching.ended().await;
    let heard = heard.lock().unwrap();
    let canaries = place.canaries.0.len() + heard.issued.0.len();
    assert!(canaries >= 50, "{canaries}");
    let told = |file: &str, words: &str| {
        assert!(
            place.said(file).contains(words),
            "{words:?} is not in {file}"
        );
    };
    told("check.out", "[secret]");
    told("run.err", "[secret]");
    place.searched(&heard.issued, &served);
}

/// A broker that refuses the password, at the most talkative.
#[tokio::test]
async fn the_password_of_a_queue_is_seen_nowhere() {
    for file in [false, true] {
        let mut place = Place::new("");
        let url = format!("amqp://guest:{}@127.0.0.1:5672/%2f", place.secret());
        let line = if file {
            format!("[queue]\nurl_file = \"{}\"\n", place.file(&url))
        } else {
            format!("[queue]\nurl = \"{url}\"\n")
        };
        place.configuration = place.configuration.replace("[queue]\n\n", &line);
        place.connection(
            "prod",
            "http://127.0.0.1:9",
            "auth = { type = \"pat\", token = \"t\" }",
        );
        assert_eq!(place.start("check", &["check"]).ended().await, Some(69));
        let worker = place.start("run", &["run"]);
        place.page().await;
        until("the refusal", || {
            place
                .said("run.err")
                .contains("ACCESS_REFUSED")
                .then_some(())
        })
        .await;
        let served = place.served().await;
        worker.stop().await;
        place.searched(&Canaries::default(), &served);
    }
}
