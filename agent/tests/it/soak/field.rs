//! Where it happens: a queue, a workspace, workers, and proxies between them, all of which suffer.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sparkferry_testkit::story::broker::BrokerNode;
use sparkferry_testkit::story::proxy::Proxy;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{interval, timeout};
use url::Url;
use uuid::Uuid;

use super::books::{Books, Left, Shelf};
use super::operator;
use super::plan::Line;
use super::poison::Poisoner;
use super::strikes::Ills;
use crate::stories::harness::{Ground, Place, Workspace, stop};

/// After so long without a sign of life the broker gives a worker's deliveries to others.
pub(super) const HEARTBEAT_SECONDS: &str = "2";
/// Workers hand back what they hold for longer, so that long runs change hands under fire too.
const HOLD_LIMIT_SECONDS: u32 = 12;
/// After so long a worker heeds signals.
const FIRST_MOMENTS: Duration = Duration::from_secs(10);

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
    /// All else that the plan has.
    pub(super) others: usize,
}

/// One worker's place.
pub(super) struct Post {
    pub(super) worker: Child,
    /// What it calls itself in the log.
    name: String,
    /// It is being killed. Whoever does that may be interrupted before another one takes the place.
    pub(super) killed: bool,
    /// It is frozen until this beat.
    pub(super) frozen: Option<usize>,
}

/// A broker of our own, which somebody may be killing and starting again just now.
#[derive(Clone)]
pub(super) struct Node(Arc<Mutex<BrokerNode>>);

impl Node {
    pub(super) async fn start(settings: &'static str) -> Self {
        let node = spawn_blocking(move || BrokerNode::start(settings)).await;
        Self(Arc::new(Mutex::new(node.expect("it starts"))))
    }

    pub(super) fn url(&self) -> String {
        self.0.lock().expect("unpoisoned").url()
    }

    /// Does something with it once nobody else does.
    pub(super) async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut BrokerNode) -> T + Send + 'static,
    ) -> T {
        let node = Arc::clone(&self.0);
        let done = spawn_blocking(move || work(&mut node.lock().expect("unpoisoned")));
        done.await.expect("it does as it is told")
    }

    /// Does something with it, or nothing (and says so) where somebody else has it.
    pub(super) async fn with_if_free(
        &self,
        work: impl FnOnce(&mut BrokerNode) + Send + 'static,
    ) -> bool {
        let node = Arc::clone(&self.0);
        let done = spawn_blocking(move || match node.try_lock() {
            Ok(mut node) => {
                work(&mut node);
                true
            }
            Err(_) => false,
        });
        done.await.expect("it does as it is told")
    }
}

pub(super) struct Field {
    pub(super) posts: Vec<Post>,
    pub(super) done: Done,
    pub(super) ground: Arc<Ground>,
    pub(super) workspace: Workspace,
    pub(super) queue: Queue,
    /// How often the queue was deleted with all requests in it.
    pub(super) deleted: watch::Sender<usize>,
    shelf: Shelf,
    pub(super) engine: Proxy,
    pub(super) broker: Option<Proxy>,
    /// The broker, where it is ours alone.
    pub(super) node: Option<Node>,
    pub(super) ills: Ills,
    /// Who sends requests with odd properties, if anybody does.
    pub(super) poisoner: Option<Poisoner>,
}

impl Field {
    /// Each worker has at most `active` runs under way. `node` is the queue's broker, where it is ours.
    pub(super) async fn new(
        queue: Queue,
        node: Option<Node>,
        workers: usize,
        active: usize,
    ) -> Self {
        let workspace = Workspace::start().await;
        let engine = Proxy::to(address(&workspace.host.parse().expect("a URL"))).await;
        let connection = format!(
            r#"
type = "databricks"
host = "http://{}"
auth = {{ type = "oauth_m2m", client_id = "soak", client_secret = "any" }}
max_active_runs = {active}
submit_per_second = 2000
poll_per_second = 2000
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
                let declared = operator::declare(url, &ground.topology).await;
                declared.expect("new names");
                Shelf::Amqp(url.clone())
            }
            Queue::Sqlite => Shelf::Sqlite(ground.database()),
        };
        let mut field = Self {
            posts: Vec::new(),
            done: Done::default(),
            ground,
            workspace,
            queue,
            deleted: watch::Sender::default(),
            shelf,
            engine,
            broker,
            node,
            ills: Ills::default(),
            poisoner: None,
        };
        for _ in 0..workers {
            field.posts.push(field.post());
        }
        field
    }

    pub(super) fn post(&self) -> Post {
        let name = format!("worker-{}", Uuid::now_v7().simple());
        let worker = self.ground.worker_with(&[
            ("SPARKFERRY__WORKER__NAME", &name),
            ("SPARKFERRY__LOG__LEVEL", "info"),
        ]);
        Post {
            worker,
            name,
            killed: false,
            frozen: None,
        }
    }

    pub(super) fn books(&self) -> Books {
        Books::new(self.shelf.clone(), &self.ground.topology)
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
        self.ground.until_at_work(&newer.name).await;
        let older = std::mem::replace(&mut self.posts[place], newer);
        self.dismiss(older).await;
    }

    /// Tells a worker to stop. In its first moments it has no ear for that. (That it is at work it can't
    /// say while its disk is full.)
    async fn dismiss(&self, mut post: Post) {
        if post.killed {
            post.worker.wait().await.expect("our own child");
            return;
        }
        let at_work = self.ground.until_at_work(&post.name);
        let _ = timeout(FIRST_MOMENTS, at_work).await;
        stop(&mut post.worker).await;
    }
}

/// Host and port of a URL on this machine.
pub(super) fn address(url: &Url) -> SocketAddr {
    let found = url.socket_addrs(|| Some(5672)).expect("a host");
    found[0]
}
