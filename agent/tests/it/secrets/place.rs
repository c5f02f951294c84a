//! A folder with secrets in it, the program in that folder, and the search through all that it wrote.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sparkferry_agent::config;
use tempfile::TempDir;
use tokio::time::{interval, timeout};
use uuid::Uuid;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// Texts that must be seen nowhere.
#[derive(Default)]
pub(super) struct Canaries(pub(super) Vec<String>);

impl Canaries {
    /// Another one.
    pub(super) fn another(&mut self) -> String {
        let canary = format!("canary{:02}x{}", self.0.len(), Uuid::now_v7().simple());
        self.0.push(canary.clone());
        canary
    }

    /// None of them stands in a text, neither as it is nor within base64.
    pub(super) fn are_not_in(&self, place: &str, text: &str) {
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
pub(super) struct Place {
    folder: TempDir,
    pub(super) canaries: Canaries,
    pub(super) configuration: String,
    pub(super) variables: HashMap<String, String>,
}

impl Place {
    pub(super) fn new(queue: &str) -> Self {
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

    pub(super) fn secret(&mut self) -> String {
        self.canaries.another()
    }

    /// A file with a secret in it. Returns its path.
    pub(super) fn file(&mut self, secret: &str) -> String {
        let path = self.folder.path().join(Uuid::now_v7().to_string());
        fs::write(&path, secret).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(super) fn secret_file(&mut self) -> String {
        let secret = self.secret();
        self.file(&secret)
    }

    /// Another connection; `auth` and further lines as they stand in the file.
    pub(super) fn connection(&mut self, name: &str, host: &str, lines: &str) {
        write!(
            self.configuration,
            "[connections.{name}]\ntype = \"databricks\"\nhost = \"{host}\"\n\
             call_timeout_seconds = 5\n{lines}\n"
        )
        .unwrap();
    }

    pub(super) fn variable(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn configured(&self) -> PathBuf {
        let path = self.path("agent.toml");
        fs::write(&path, &self.configuration).unwrap();
        path
    }

    /// The program, which logs all that it can into a file.
    pub(super) fn start(&self, name: &str, arguments: &[&str]) -> Running {
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

    pub(super) fn said(&self, file: &str) -> String {
        let bytes = fs::read(self.path(file)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(super) fn submit(&self, connections: &[String], wait: bool) -> Running {
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
    pub(super) async fn page(&self) -> String {
        let said = until("the page", || {
            let log = self.said("run.err");
            let line = log
                .lines()
                .find(|line| line.contains("serving the status page"))?;
            serde_json::from_str::<Value>(line).ok()
        });
        format!("http://{}", said.await["address"].as_str().unwrap())
    }

    /// All that the page serves.
    pub(super) async fn served(&self) -> String {
        let (http, page, mut all) = (http(), self.page().await, String::new());
        for path in ["/", "/api/runs", "/readyz", "/healthz", "/metrics"] {
            let reply = http.get(format!("{page}{path}")).send().await.unwrap();
            all += &reply.text().await.unwrap();
        }
        all
    }

    /// Searches everything that was written, and the settings as a developer sees them.
    pub(super) fn searched(&self, issued: &Canaries, served: &str) {
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
                .any(|(name, text)| name == "run.err" && text.len() > 1000)
        );
        for (place, text) in &texts {
            self.canaries.are_not_in(place, text);
            issued.are_not_in(place, text);
        }
    }
}

pub(super) fn http() -> reqwest::Client {
    // Fails when another test of this process was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// A process that ends with its test.
pub(super) struct Running(pub(super) Child);

impl Running {
    pub(super) async fn ended(&mut self) -> Option<i32> {
        let status = until("the end of a process", || self.0.try_wait().unwrap());
        status.await.code()
    }

    pub(super) async fn stop(mut self) {
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

pub(super) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
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

pub(super) fn names(settings: &Path, variables: &HashMap<String, String>) -> Vec<String> {
    let settings = config::load(Some(settings), variables).unwrap();
    settings.connections.into_keys().collect()
}
