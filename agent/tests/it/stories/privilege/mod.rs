//! A broker that its operator made from `config/definitions.json`, where nobody may do more than
//! they must.

mod broker;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties, ExchangeKind};
use serde_json::Value;
use sparkferry_ports::queue::{Listen, Producer, SettleDead};
use sparkferry_shared::{Cancel, EventType, Outcome};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::task::block_in_place;

use self::broker::{Broker, allowed};
use super::harness::{Heard, Work, Workspace};

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/definitions.json")
}

/// A worker's settings; the connections are those of the shipped definitions.
fn configuration(queue: &str, host: &str) -> String {
    let connection = |name: &str| {
        format!(
            "[connections.{name}]\ntype = \"databricks\"\nhost = \"{host}\"\n\
             auth = {{ type = \"pat\", token = \"any\" }}\nsubmit_per_second = 100\n\
             poll_interval_seconds = {{ min = 0.2, max = 1.0 }}\n"
        )
    };
    format!(
        "[queue]\n{queue}\n[http]\nlisten = \"\"\n[log]\nlevel = \"warn\"\n{}{}",
        connection("lake"),
        connection("prod"),
    )
}

struct Program {
    folder: TempDir,
}

impl Program {
    fn new(configuration: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("agent.toml"), configuration).expect("our own folder");
        Self { folder }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sparkferry"));
        command
            .args(["--config", "agent.toml"])
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    fn worker(&self) -> Child {
        self.command(&["run"]).spawn().expect("our own program")
    }
}

#[tokio::test]
async fn the_shipped_definitions_are_what_the_program_prints() {
    let program = Program::new(&configuration("", "http://127.0.0.1:9"));
    let mut command = program.command(&["topology", "--users", "--vhost", "sparkferry"]);
    let printed = command.output().await.expect("our own program").stdout;
    let printed = String::from_utf8(printed).expect("text");
    let shipped = std::fs::read_to_string(shipped()).expect("it is shipped");
    assert_eq!(
        serde_json::from_str::<Value>(&shipped).expect("JSON"),
        serde_json::from_str::<Value>(&printed).expect("JSON"),
        "config/definitions.json is to be:\n{printed}"
    );
}

/// Makes the exchange of requests a direct one, as workers that declare it do.
async fn requests_become_direct(broker: &Broker) {
    let all = [
        "set_permissions",
        "-p",
        "sparkferry",
        "guest",
        ".*",
        ".*",
        ".*",
    ];
    broker.node.ctl(&all);
    let url = broker.node.url().replace("/%2f", "/sparkferry");
    let connecting = Connection::connect(&url, ConnectionProperties::default());
    let connection = connecting.await.expect("the administrator");
    let channel = connection.create_channel().await.expect("it is connected");
    let name = "sparkferry.requests";
    let gone = channel.exchange_delete(name.into(), ExchangeDeleteOptions::default());
    gone.await.expect("it was there");
    let made = channel.exchange_declare(
        name.into(),
        ExchangeKind::Direct,
        ExchangeDeclareOptions::default(),
        FieldTable::default(),
    );
    made.await.expect("it is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_shipped_definitions_everybody_can_work_and_nobody_can_do_more() {
    let broker = Broker::start().await;
    let workspace = Workspace::start().await;
    let queue = format!("url = \"{}\"\ndeclare = false", broker.url("worker"));
    let program = Program::new(&configuration(&queue, &workspace.host));
    let check = program.command(&["check"]).output().await.expect("it runs");
    assert!(check.status.success(), "{check:?}");
    // It looks for nothing that it may not see.
    let told = String::from_utf8(check.stdout).expect("text");
    assert!(!told.contains("may not look"), "{told}");
    let _worker = program.worker();

    everybody_can_work(&broker, &workspace).await;
    a_producer_reaches_its_own_connection_alone(&broker).await;
    a_worker_makes_nothing_and_starts_nothing(&broker).await;
    an_operator_takes_no_requests(&broker).await;
    what_cannot_be_seen_is_no_error(&broker, &program).await;

    // Why the definitions have a topic exchange: on a direct one keys are not looked at.
    requests_become_direct(&broker).await;
    assert!(
        broker
            .may_publish("producer-prod", "sparkferry.requests", "lake")
            .await
    );
}

/// Since RabbitMQ 4.3 who has no permission on a name may not even look for it.
async fn what_cannot_be_seen_is_no_error(broker: &Broker, program: &Program) {
    let ctl = |arguments: &[&str]| block_in_place(|| broker.node.ctl(arguments));
    let user = "sparkferry-worker";
    let write = r"^sparkferry\.results$";
    ctl(&[
        "set_permissions",
        "-p",
        "sparkferry",
        user,
        "^$",
        write,
        ".*",
    ]);
    let check = program.command(&["check"]).output().await.expect("it runs");
    assert!(check.status.success(), "{check:?}");
    let told = String::from_utf8(check.stdout).expect("text");
    assert!(!told.contains("may not look"), "it may read all: {told}");

    ctl(&[
        "set_permissions",
        "-p",
        "sparkferry",
        user,
        "^$",
        write,
        "^$",
    ]);
    let check = program.command(&["check"]).output().await.expect("it runs");
    assert!(check.status.success(), "{check:?}");
    let told = String::from_utf8(check.stdout).expect("text");
    let hidden = "may not look for: sparkferry.events, sparkferry.dead, sparkferry.control";
    let numbers = ctl(&["version"]);
    let mut numbers = numbers.trim().split('.').map(str::parse::<u32>);
    let mut next = || numbers.next().expect("a number").expect("a number");
    let version = (next(), next());
    assert_eq!(told.contains(hidden), version >= (4, 3), "{told}");
}

async fn everybody_can_work(broker: &Broker, workspace: &Workspace) {
    // A producer: events, results, replies.
    let producer = broker.producer("producer-prod").await;
    let work = [
        Work::new(1, 100, "SUCCESS"),
        Work::new(2, 600_000, "SUCCESS"),
    ];
    let ids = work.iter().map(|work| work.id.clone()).collect();
    let mut news = producer.listen(Listen::Mine(ids)).await.expect("it may");
    for work in &work {
        let sent = producer.submit("prod", &work.id, work.body().into()).await;
        sent.expect("its own connection");
    }
    // The operator cancels what would last too long.
    let running = |stats: &Value| stats["runs_started"] == 2;
    workspace.until("both runs", running).await;
    let operator = broker.producer("operator").await;
    let cancel = Cancel {
        cancel: work[1].id.clone(),
        connection: None,
        reason: None,
    };
    let watching = operator.listen(Listen::Everything).await;
    drop(watching.expect("it may watch"));
    operator.cancel(&cancel).await.expect("it may cancel");
    let mut heard = Heard::default();
    heard.listen(&mut news, 2).await;
    assert_eq!(heard.results[&work[0].id].outcome, Outcome::Success);
    assert_eq!(heard.results[&work[1].id].outcome, Outcome::Canceled);
    let accepted = (work[0].id.clone(), EventType::Accepted);
    assert!(heard.events.contains(&accepted), "{:?}", heard.events);

    // What can't be read goes to the dead letters, where the operator finds it.
    let id = "any".parse().expect("an id");
    let sent = producer.submit("prod", &id, "no JSON".into()).await;
    sent.expect("nobody reads it here");
    let letter = async {
        loop {
            let letters = operator.dead_letters(10).await.expect("it may look");
            if let Some(letter) = letters.into_iter().next() {
                return letter;
            }
            tokio::task::yield_now().await;
        }
    };
    let letter = tokio::time::timeout(super::harness::PATIENCE, letter).await;
    let letter = letter.expect("it is buried");
    assert_eq!(letter.body, "no JSON");
    assert_eq!(letter.connection.as_deref(), Some("prod"));
    let dropped = operator.settle_dead(SettleDead::Drop, 10).await;
    assert_eq!(dropped.expect("it may drop"), 1);
    producer.close().await;
    operator.close().await;
}

async fn a_producer_reaches_its_own_connection_alone(broker: &Broker) {
    let user = "producer-prod";
    // Its own client says so, and does not try for ever.
    let producer = broker.producer(user).await;
    let work = Work::new(3, 0, "SUCCESS");
    let sent = producer.submit("lake", &work.id, work.body().into()).await;
    let refused = sent.expect_err("another connection").to_string();
    assert!(refused.contains("sparkferry-producer-prod"), "{refused}");
    assert!(refused.contains("topic 'lake'"), "{refused}");
    producer.close().await;

    assert!(
        broker
            .may_publish(user, "sparkferry.requests", "prod")
            .await
    );
    for (exchange, key) in [
        ("sparkferry.requests", "lake"),
        ("sparkferry.requests", "prod.x"),
        // By the default exchange every queue can be reached.
        ("", "sparkferry.requests.lake"),
        ("", "sparkferry.requests.prod"),
        ("sparkferry.results", "prod.SUCCESS"),
        ("sparkferry.events", "prod.finished"),
        ("sparkferry.control", ""),
        ("sparkferry.dead", ""),
    ] {
        assert!(
            !broker.may_publish(user, exchange, key).await,
            "{exchange} {key}"
        );
    }
    for queue in [
        "sparkferry.requests.prod",
        "sparkferry.requests.lake",
        "sparkferry.results",
        "sparkferry.dead",
        "sparkferry.control",
    ] {
        assert!(!broker.may_consume(user, queue).await, "{queue}");
    }
    assert!(!broker.may_declare(user, "mine").await);
    let channel = broker.channel(user).await;
    let options = QueueDeclareOptions::exclusive();
    let own = channel
        .queue_declare("".into(), options, FieldTable::default())
        .await;
    let own = own.expect("one that the broker names").name().clone();
    let binding = channel.queue_bind(
        own,
        "sparkferry.results".into(),
        "#".into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    assert!(!allowed(binding.await), "results of others");
}

async fn a_worker_makes_nothing_and_starts_nothing(broker: &Broker) {
    let user = "worker";
    assert!(!broker.may_declare(user, "mine").await);
    assert!(
        !broker
            .may_publish(user, "sparkferry.requests", "prod")
            .await
    );
    assert!(!broker.may_publish(user, "sparkferry.control", "").await);
    assert!(!broker.may_consume(user, "sparkferry.results").await);
    assert!(!broker.may_consume(user, "sparkferry.dead").await);
    assert!(
        !broker
            .may_bind(user, "sparkferry.requests.prod", "sparkferry.requests")
            .await
    );
    let channel = broker.channel(user).await;
    let declaring = channel.exchange_declare(
        "mine".into(),
        ExchangeKind::Fanout,
        ExchangeDeclareOptions::default(),
        FieldTable::default(),
    );
    assert!(!allowed(declaring.await), "an exchange");
}

async fn an_operator_takes_no_requests(broker: &Broker) {
    assert!(
        !broker
            .may_consume("operator", "sparkferry.requests.prod")
            .await
    );
    assert!(
        !broker
            .may_publish("operator", "sparkferry.results", "prod.SUCCESS")
            .await
    );
    assert!(!broker.may_declare("operator", "mine").await);
    assert!(broker.may_consume("operator", "sparkferry.results").await);
}
