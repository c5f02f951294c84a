//! Secrets are seen nowhere: canaries stand in every place of a secret, and all that the program
//! writes is searched for them, with everything that it can log.

mod hostile;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sparkferry_agent::config;
use sparkferry_agent::sandbox::{Sandbox, SandboxOptions};
use tempfile::TempDir;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

const RESOURCE: &str =
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.Databricks/workspaces/w";

/// Texts that must be seen nowhere.
#[derive(Default)]
struct Canaries(Vec<String>);

impl Canaries {
    /// Another one.
    fn new(&mut self) -> String {
        let canary = format!("canary{:02}x{}", self.0.len(), Uuid::now_v7().simple());
        self.0.push(canary.clone());
        canary
    }

    /// None of them stands in a text, neither as it is nor within base64.
    fn are_not_in(&self, place: &str, text: &str) {
        for canary in &self.0 {
            let hidden = ["", "x", "xx"].map(|before| {
                let code = STANDARD.encode(format!("{before}{canary}"));
                code[4..code.len() - 4].to_owned()
            });
            for form in hidden.iter().chain([canary]) {
                if let Some(at) = text.find(form.as_str()) {
                    let before: Vec<char> = text[..at].chars().rev().take(300).collect();
                    let before: String = before.into_iter().rev().collect();
                    panic!("{place} shows {canary} behind {before}");
                }
            }
        }
    }
}

/// A folder with secrets in files, a queue and a configuration.
struct Place {
    folder: TempDir,
    canaries: Canaries,
    configuration: String,
    variables: HashMap<String, String>,
}

impl Place {
    fn new(queue: &str) -> Self {
        let configuration = format!(
            "[queue]\n{queue}\n[http]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n"
        );
        Self {
            folder: tempfile::tempdir().unwrap(),
            canaries: Canaries::default(),
            configuration,
            variables: HashMap::new(),
        }
    }

    fn secret(&mut self) -> String {
        self.canaries.new()
    }

    /// A file with a secret in it. Returns its path.
    fn file(&mut self, secret: &str) -> String {
        let path = self.folder.path().join(Uuid::now_v7().to_string());
        fs::write(&path, secret).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn secret_file(&mut self) -> String {
        let secret = self.secret();
        self.file(&secret)
    }

    /// Another connection; `auth` and further lines as they stand in the file.
    fn connection(&mut self, name: &str, host: &str, lines: &str) {
        write!(
            self.configuration,
            "[connections.{name}]\ntype = \"databricks\"\nhost = \"{host}\"\n\
             call_timeout_seconds = 5\n{lines}\n"
        )
        .unwrap();
    }

    fn variable(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn configured(&self) -> std::path::PathBuf {
        let path = self.path("agent.toml");
        fs::write(&path, &self.configuration).unwrap();
        path
    }

    /// The program, which logs all that it can into a file.
    fn start(&self, name: &str, arguments: &[&str]) -> Running {
        let out = File::create(self.path(&format!("{name}.out"))).unwrap();
        let err = File::create(self.path(&format!("{name}.err"))).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_sparkferry"))
            .arg("--config")
            .arg(self.configured())
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .envs(&self.variables)
            .env("RUST_LOG", "trace")
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap();
        Running(child)
    }

    fn said(&self, file: &str) -> String {
        let bytes = fs::read(self.path(file)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn submit(&self, connections: &[String], wait: bool) -> Running {
        let requests: Vec<Value> = connections
            .iter()
            .map(|name| {
                let task = json!({"task_key": "main", "notebook_task": {"notebook_path": "/n"}});
                json!({"id": name, "connection": name, "submit_run": {"tasks": [task]}})
            })
            .collect();
        let path = self.path("requests.json");
        fs::write(&path, json!(requests).to_string()).unwrap();
        let mut arguments = vec!["submit", path.to_str().unwrap(), "--json"];
        if wait {
            arguments.push("--wait");
        }
        self.start("submit", &arguments)
    }

    /// Waits until the worker tells where its page is.
    async fn page(&self) -> String {
        let said = until("the page", || {
            let log = self.said("run.err");
            let line = log.lines().find(|line| line.contains("serving /healthz"))?;
            serde_json::from_str::<Value>(line).ok()
        });
        format!("http://{}", said.await["address"].as_str().unwrap())
    }

    /// All that the page serves.
    async fn served(&self) -> String {
        let (http, page, mut all) = (http(), self.page().await, String::new());
        for path in ["/", "/api/runs", "/readyz", "/healthz", "/metrics"] {
            let reply = http.get(format!("{page}{path}")).send().await.unwrap();
            all += &reply.text().await.unwrap();
        }
        all
    }

    /// Searches everything that was written, and the settings as a developer sees them.
    fn searched(&self, issued: &Canaries, served: &str) {
        let settings = config::load(Some(&self.path("agent.toml")), &self.variables).unwrap();
        let mut texts = vec![
            ("the page".to_owned(), served.to_owned()),
            ("the settings".to_owned(), format!("{settings:#?}")),
        ];
        for entry in fs::read_dir(self.folder.path()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let written = [".out", ".err", ".db", ".db-wal"];
            if written.iter().any(|ending| name.ends_with(ending)) {
                texts.push((name.clone(), self.said(&name)));
            }
        }
        assert!(
            texts
                .iter()
                .any(|(name, text)| name.ends_with(".err") && text.len() > 1000)
        );
        for (place, text) in &texts {
            self.canaries.are_not_in(place, text);
            issued.are_not_in(place, text);
        }
    }
}

fn http() -> reqwest::Client {
    // Fails when another test of this process was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// A process that ends with its test.
struct Running(Child);

impl Running {
    async fn ended(&mut self) -> Option<i32> {
        let status = until("the end of a process", || self.0.try_wait().unwrap());
        status.await.code()
    }

    async fn stop(mut self) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args(["-s", "TERM", &pid]).status();
        assert!(sent.unwrap().success());
        assert_eq!(self.ended().await, Some(0));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let looking = async {
        let mut looks = interval(Duration::from_millis(100));
        loop {
            looks.tick().await;
            if let Some(found) = look() {
                return found;
            }
        }
    };
    let found = timeout(PATIENCE, looking).await;
    found.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

fn names(settings: &Path, variables: &HashMap<String, String>) -> Vec<String> {
    let settings = config::load(Some(settings), variables).unwrap();
    settings.connections.into_keys().collect()
}

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
