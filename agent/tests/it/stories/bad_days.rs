//! Bad days of what a worker is given: a secret, a certificate, a configuration. `/readyz` says what is
//! wrong and where; runs under way go on, and are seen to their end once it is put right.

use std::fs;
use std::net::TcpListener;

use serde_json::{Value, json};
use sparkferry_ports::queue::{News, Producer};
use sparkferry_shared::Outcome;
use sparkferry_testkit::story::broker::BrokerNode;
use sparkferry_testkit::story::proxy::Proxy;
use tempfile::TempDir;
use tokio::process::Child;
use tokio::sync::mpsc::Receiver;
use tokio::task::spawn_blocking;
use tokio::time::{Duration, interval, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::harness::{
    Heard, PATIENCE, Place, Story, Work, count, one_run_for_each_attempt, signal,
};
use crate::authority::{Age, Authority, terminate, write};

/// A worker with one request, and what it says of itself.
struct Day {
    story: Story,
    worker: Child,
    producer: Box<dyn Producer>,
    news: Receiver<News>,
    http: reqwest::Client,
    readyz: String,
}

impl Day {
    /// The request is on its way.
    async fn begin(story: Story) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        drop(listener);
        let worker = story.worker_with(&[("SPARKFERRY__HTTP__LISTEN", &address)]);
        let (producer, news) = story.submit(&[Work::new(1, 3000, "SUCCESS")]).await;
        Self {
            story,
            worker,
            producer,
            news,
            http: reqwest::Client::builder().no_proxy().build().expect("TLS"),
            readyz: format!("http://{address}/readyz"),
        }
    }

    /// The request's run is under way.
    async fn with_a_run(story: Story) -> Self {
        let day = Self::begin(story).await;
        let started = |stats: &Value| count(stats, "/runs_started") == 1;
        day.story.workspace.until("the run", started).await;
        day
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) {
        let looking = async {
            let mut looks = interval(Duration::from_millis(100));
            loop {
                looks.tick().await;
                // At first nobody listens.
                if let Ok(reply) = self.http.get(&self.readyz).send().await {
                    let told: Value = reply.json().await.expect("JSON");
                    if is_so(&told) {
                        return;
                    }
                }
            }
        };
        let came = timeout(PATIENCE, looking).await;
        came.unwrap_or_else(|_| panic!("/readyz never says {what}"));
    }

    /// What is wrong there is told in all these words.
    async fn says(&self, place: &str, words: &[&str]) {
        let told = |readiness: &Value| {
            let trouble = readiness.pointer(place).and_then(Value::as_str);
            trouble.is_some_and(|trouble| words.iter().all(|word| trouble.contains(word)))
        };
        self.until(&format!("{words:?}"), told).await;
    }

    /// Nothing is wrong any more, and the request succeeds by its one run.
    async fn ends_well(mut self) {
        let mut heard = Heard::default();
        heard.listen(&mut self.news, 1).await;
        let result = heard.results.values().next().expect("it came");
        assert_eq!(result.outcome, Outcome::Success, "{result:?}");
        let stats = self.story.workspace.stats().await;
        one_run_for_each_attempt(&heard, &stats);
        assert_eq!(count(&stats, "/runs_started"), 1);
        let well = |told: &Value| {
            let nothing = ["/queue", "/configuration", "/connections/prod"];
            told["ready"] == true
                && nothing
                    .iter()
                    .all(|of| told.pointer(of) == Some(&Value::Null))
        };
        self.until("that all is well", well).await;
        self.producer.close().await;
    }
}

const PROD: &str = "/connections/prod";

/// Where a story's secrets and certificates lie.
fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_waits_for_a_secret_that_is_missing() {
    let story = Story::new(Place::Sqlite, 600).await;
    let folder = folder();
    let file = folder.path().join("token");
    story.reconfigure("token = \"any\"", &format!("token_file = {file:?}"));
    let day = Day::begin(story).await;
    let place = file.display().to_string();
    day.says(PROD, &["auth.token_file", &place, "can't be read"])
        .await;
    fs::write(&file, " \n").expect("our own folder");
    day.says(PROD, &["auth.token_file", &place, "is empty"])
        .await;
    let stats = day.story.workspace.stats().await;
    assert_eq!(count(&stats, "/runs_started"), 0);
    fs::write(&file, "any\n").expect("our own folder");
    day.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_expires_and_its_file_is_gone() {
    let story = Story::new(Place::Sqlite, 600).await;
    let folder = folder();
    let file = folder.path().join("token");
    fs::write(&file, "first").expect("our own folder");
    story.reconfigure("token = \"any\"", &format!("token_file = {file:?}"));
    let day = Day::with_a_run(story).await;

    day.story.workspace.rules(json!({"status": 401})).await;
    let expired = "does not accept our credentials";
    day.says(PROD, &[expired]).await;
    fs::remove_file(&file).expect("it is there");
    let place = file.display().to_string();
    day.says(PROD, &[expired, "auth.token_file", &place, "can't be read"])
        .await;
    fs::write(&file, " \n").expect("our own folder");
    day.says(PROD, &[expired, "auth.token_file", &place, "is empty"])
        .await;
    fs::write(&file, "second\n").expect("our own folder");
    let only_refused = |told: &Value| {
        let trouble = told.pointer(PROD).and_then(Value::as_str);
        trouble.is_some_and(|trouble| trouble.ends_with(expired))
    };
    day.until("that the new token is refused", only_refused)
        .await;
    day.story.workspace.calm().await;
    day.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workspace_shows_a_certificate_of_an_authority_that_is_not_believed() {
    let story = Story::new(Place::Sqlite, 600).await;
    let folder = folder();
    let (ca, server) = (folder.path().join("ca.pem"), folder.path().join("server"));
    let authority = Authority::new("our authority");
    write(&ca, &authority.pem());
    authority.issue(&server, "localhost", Age::Valid);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a free port");
    let behind = story.workspace.host.strip_prefix("http://");
    let behind = behind.expect("it speaks no TLS").parse();
    let behind = behind.expect("an address");
    let secured = listener.local_addr().expect("it is bound");
    let terminating = terminate(listener, server.clone(), behind, "http/1.1");
    let _terminating = AbortOnDropHandle::new(tokio::spawn(terminating));
    let proxy = Proxy::to(secured).await;
    story.reconfigure(
        &format!("host = \"{}\"", story.workspace.host),
        &format!(
            "host = \"https://localhost:{}\"\ntls.ca_file = {ca:?}",
            proxy.address().port()
        ),
    );
    let day = Day::with_a_run(story).await;

    Authority::new("another").issue(&server, "localhost", Age::Valid);
    proxy.cut();
    day.says(PROD, &["localhost", "not known here", "tls.ca_file"])
        .await;
    authority.issue(&server, "localhost", Age::Valid);
    day.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_password_of_the_broker_is_changed() {
    let node = spawn_blocking(|| {
        let node = BrokerNode::start("");
        node.ctl(&["add_user", "ferry", "first"]);
        node.ctl(&["set_permissions", "ferry", ".*", ".*", ".*"]);
        node
    });
    let node = node.await.expect("it starts");
    let story = Story::new(Place::Amqp(node.url()), 600).await;
    let folder = folder();
    let file = folder.path().join("url");
    let url = |login: &str| node.url().replace("guest:guest", login);
    let now_holds = |url: String| fs::write(&file, url).expect("our own folder");
    now_holds(url("ferry:first"));
    let direct = format!("url = \"{}\"", node.url());
    story.reconfigure(&direct, &format!("url_file = {file:?}"));
    let day = Day::with_a_run(story).await;

    let node = spawn_blocking(move || {
        node.ctl(&["change_password", "ferry", "second"]);
        node.ctl(&["close_all_user_connections", "ferry", "its password is new"]);
        node
    });
    let node = node.await.expect("it takes them");
    let url = |login: &str| node.url().replace("guest:guest", login);
    let place = file.display().to_string();
    day.says("/queue", &["ferry", "password is not accepted"])
        .await;
    fs::remove_file(&file).expect("it is there");
    day.says("/queue", &["queue.url_file", &place, "can't be read"])
        .await;
    now_holds(url("ferry:second").replace("%2f", "other"));
    day.says("/queue", &["queue.url_file", "leads elsewhere"])
        .await;
    now_holds(url("ferry:second"));
    day.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_configuration_is_read_again() {
    let day = Day::with_a_run(Story::new(Place::Sqlite, 600).await).await;
    let (right, wrong) = ("max_active_runs = 1000", "max_active_runs = 0");
    day.story.reconfigure(right, wrong);
    signal(&day.worker, "HUP").await;
    let setting = "connections.prod.max_active_runs";
    day.says("/configuration", &["agent.toml", setting, "at least 1"])
        .await;
    day.story.reconfigure(wrong, right);
    signal(&day.worker, "HUP").await;
    day.ends_well().await;
}
