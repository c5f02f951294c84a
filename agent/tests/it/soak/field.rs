//! Where it happens: a queue, a workspace, workers, and proxies between them, all of which suffer.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use serde_json::json;
use tokio::process::Child;
use tokio::task::spawn_blocking;
use tokio::time::{interval, timeout};
use url::Url;
use uuid::Uuid;

use super::books::{Books, Left, Shelf, channel};
use super::plan::{Fault, Line, Plan};
use crate::proxy::Proxy;
use crate::stories::harness::{CONNECTION, Ground, PATIENCE, Place, Workspace, signal, stop};

/// After so long without a sign of life the broker gives a worker's deliveries to others.
const HEARTBEAT_SECONDS: &str = "2";
/// Workers hand back what they hold for longer, so that long runs change hands under fire too.
const HOLD_LIMIT_SECONDS: u32 = 12;
/// What [`Fault::Delay`] adds to each piece.
const DELAY: Duration = Duration::from_millis(100);

/// What the requests wait in.
#[derive(Debug, Clone)]
pub(super) enum Queue {
    /// RabbitMQ at this URL, with quorum queues, as workers declare them.
    Quorum(String),
    /// RabbitMQ, with classic queues of an operator's.
    Classic(String),
    Sqlite,
}

impl Queue {
    /// What it is called in the table.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Quorum(_) => "RabbitMQ, quorum",
            Self::Classic(_) => "RabbitMQ, classic",
            Self::Sqlite => "SQLite",
        }
    }
}

/// What was done so far.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) kills: usize,
    pub(super) freezes: usize,
    /// Cut, held or delayed connections, outages, expired tokens, locked databases.
    pub(super) others: usize,
}

/// One worker's place.
struct Post {
    worker: Child,
    /// What it calls itself in the log.
    name: String,
    /// It is frozen until this beat.
    frozen: Option<usize>,
}

pub(super) struct Field {
    posts: Vec<Post>,
    pub(super) done: Done,
    pub(super) ground: Arc<Ground>,
    pub(super) workspace: Workspace,
    shelf: Shelf,
    engine: Proxy,
    broker: Option<Proxy>,
    /// Holds the database's lock.
    lock: Option<rusqlite::Connection>,
}

impl Field {
    /// Each worker has at most `active` runs under way.
    pub(super) async fn new(queue: Queue, workers: usize, active: usize) -> Self {
        let workspace = Workspace::start().await;
        let engine = Proxy::to(address(&workspace.host.parse().expect("a URL"))).await;
        let connection = format!(
            r#"
type = "databricks"
host = "http://{}"
auth = {{ type = "oauth_m2m", client_id = "soak", client_secret = "any" }}
max_active_runs = {active}
submit_per_second = 300
poll_per_second = 100
poll_interval_seconds = {{ min = 0.2, max = 1.0 }}
"#,
            engine.address(),
        );
        let (place, broker) = match &queue {
            Queue::Quorum(url) | Queue::Classic(url) => {
                let mut way: Url = url.parse().expect("a URL");
                let broker = Proxy::to(address(&way)).await;
                way.set_port(Some(broker.address().port())).expect("a host");
                way.set_query(Some(&format!("heartbeat={HEARTBEAT_SECONDS}")));
                let place = Place::Proxied {
                    worker: way.into(),
                    producer: url.clone(),
                };
                (place, Some(broker))
            }
            Queue::Sqlite => (Place::Sqlite, None),
        };
        let ground = Arc::new(Ground::new(place, HOLD_LIMIT_SECONDS, &connection));
        let shelf = match &queue {
            Queue::Quorum(url) => Shelf::Amqp(url.clone()),
            Queue::Classic(url) => {
                declare_classic(url, &ground).await;
                Shelf::Amqp(url.clone())
            }
            Queue::Sqlite => Shelf::Sqlite(ground.database()),
        };
        let mut field = Self {
            posts: Vec::new(),
            done: Done::default(),
            ground,
            workspace,
            shelf,
            engine,
            broker,
            lock: None,
        };
        for _ in 0..workers {
            field.posts.push(field.post());
        }
        field
    }

    fn post(&self) -> Post {
        let name = format!("worker-{}", Uuid::now_v7().simple());
        let worker = self.ground.worker_with(&[
            ("SPARKFERRY__WORKER__NAME", &name),
            ("SPARKFERRY__LOG__LEVEL", "info"),
        ]);
        Post {
            worker,
            name,
            frozen: None,
        }
    }

    pub(super) fn books(&self) -> Books {
        Books::new(self.shelf.clone(), &self.ground.topology)
    }

    /// Suffers what the plan says, beat for beat, without an end. What is done is printed.
    pub(super) async fn suffer(&mut self, mut plan: Plan, pace: Duration) {
        let mut beats = interval(pace);
        beats.tick().await;
        for beat in 1.. {
            beats.tick().await;
            self.recover(beat).await;
            let faults = plan.beat();
            eprintln!("beat {beat}: {faults:?}");
            for fault in faults {
                self.strike(fault, beat).await;
            }
        }
    }

    /// Ends what lasts no longer than to this beat.
    async fn recover(&mut self, beat: usize) {
        for proxy in [Some(&self.engine), self.broker.as_ref()]
            .into_iter()
            .flatten()
        {
            proxy.pass();
        }
        self.lock = None;
        for post in &mut self.posts {
            if post.frozen.is_some_and(|until| until <= beat) {
                signal(&post.worker, "CONT").await;
                post.frozen = None;
            }
        }
    }

    async fn strike(&mut self, fault: Fault, beat: usize) {
        match fault {
            Fault::Kill { worker } => {
                let victim = &mut self.posts[worker].worker;
                // SIGKILL, and its end awaited.
                victim.kill().await.expect("our own child");
                self.posts[worker] = self.post();
                self.done.kills += 1;
                return;
            }
            Fault::Freeze { worker, beats } => {
                let post = &mut self.posts[worker];
                signal(&post.worker, "STOP").await;
                post.frozen = Some(beat + beats);
                self.done.freezes += 1;
                return;
            }
            Fault::Cut(line) => self.proxy(line).cut(),
            Fault::CutAfter(line, bytes) => self.proxy(line).cut_after(bytes),
            Fault::Hold(line) => self.proxy(line).hold(),
            Fault::Delay(line) => self.proxy(line).delay(DELAY),
            Fault::Outage { milliseconds } => {
                let seconds = f64::from(milliseconds) / 1000.0;
                let outage = json!({"call": "*", "status": 503, "outage_seconds": seconds});
                self.workspace.rules(outage).await;
            }
            Fault::ExpireTokens => {
                let expiry = json!({"call": "*", "expire_tokens": true, "times": 1});
                self.workspace.rules(expiry).await;
            }
            Fault::LockDatabase => self.lock = lock(self.ground.database()).await,
        }
        self.done.others += 1;
    }

    pub(super) fn proxy(&self, line: Line) -> &Proxy {
        match line {
            Line::Engine => &self.engine,
            Line::Broker => self.broker.as_ref().expect("the plan knows the queue"),
        }
    }

    /// Nothing lasts any longer. Workers settle what they hold and are stopped, which they do as
    /// they promise; what is left in the queues then is nobody's.
    pub(super) async fn settle(&mut self, books: &mut Books) -> Left {
        self.recover(usize::MAX).await;
        let mut looks = interval(Duration::from_secs(1));
        loop {
            for post in std::mem::take(&mut self.posts) {
                self.dismiss(post).await;
            }
            books.look().await;
            let left = books.left().await;
            if left.requests == 0 {
                return left;
            }
            // A worker that died between confirm and acknowledgement leaves its request to another.
            eprintln!("{left:?}: another worker is to settle it");
            self.posts.push(self.post());
            looks.reset();
            looks.tick().await;
        }
    }

    /// Replaces a worker as one is replaced in good order: the new one works before the old one is
    /// told to stop.
    pub(super) async fn replace(&mut self, place: usize) {
        let newer = self.post();
        self.until_at_work(&newer).await;
        let older = std::mem::replace(&mut self.posts[place], newer);
        self.dismiss(older).await;
    }

    /// Tells a worker to stop. Before it is at work it has no ear for that, and nothing to hand back.
    async fn dismiss(&self, mut post: Post) {
        self.until_at_work(&post).await;
        stop(&mut post.worker).await;
    }

    async fn until_at_work(&self, post: &Post) {
        let said = |line: &str| line.contains("\"working\"") && line.contains(&post.name);
        let looking = async {
            let mut looks = interval(Duration::from_millis(100));
            while !self.ground.log().lines().any(said) {
                looks.tick().await;
            }
        };
        let came = timeout(PATIENCE, looking).await;
        came.expect("waited in vain for a worker");
    }
}

/// Host and port of a URL on this machine.
fn address(url: &Url) -> SocketAddr {
    let found = url.socket_addrs(|| Some(5672)).expect("a host");
    found[0]
}

/// Takes the lock of a database, where it can be had at once.
async fn lock(path: PathBuf) -> Option<rusqlite::Connection> {
    let locking = spawn_blocking(move || -> rusqlite::Result<rusqlite::Connection> {
        let database = rusqlite::Connection::open(path)?;
        database.busy_timeout(Duration::from_secs(1))?;
        database.execute_batch("BEGIN IMMEDIATE")?;
        Ok(database)
    });
    locking.await.expect("no panic").ok()
}

/// Queues of the older kind under our names, before any worker comes: they use them as they are.
async fn declare_classic(url: &str, ground: &Ground) {
    let (_connection, channel) = channel(url).await.expect("the broker is there");
    let topology = &ground.topology;
    let places = [
        (
            topology.requests_exchange(),
            ExchangeKind::Direct,
            topology.requests_queue(CONNECTION),
            CONNECTION,
        ),
        (
            topology.results_exchange(),
            ExchangeKind::Topic,
            topology.results_queue(),
            "#",
        ),
    ];
    for (exchange, kind, queue, key) in places {
        let options = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let exchange: ShortString = exchange.as_str().into();
        let declared =
            channel.exchange_declare(exchange.clone(), kind, options, FieldTable::default());
        declared.await.expect("a new name");
        let options = QueueDeclareOptions::durable();
        let declared = channel.queue_declare(queue.as_str().into(), options, FieldTable::default());
        declared.await.expect("a new name");
        let bound = channel.queue_bind(
            queue.as_str().into(),
            exchange,
            key.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        bound.await.expect("both are there");
    }
}
