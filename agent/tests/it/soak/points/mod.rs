//! Every point at which a worker may die: before and after each step of a request. It is killed
//! there, or frozen until its request has gone to another worker; the books must balance.
//!
//! Nothing in the worker helps. What goes over its lines is understood by proxies, and held at the
//! point: the worker is struck when the world around it is in exactly that state.

mod calls;
mod frames;
mod line;
mod trap;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use sparkferry_ports::queue::{Listen, News};
use sparkferry_shared::{EventType, Outcome};
use tokio::process::Child;
use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;
use tokio::time::{interval, timeout};
use url::Url;

use self::line::Line;
use self::trap::{Point, Step, Trap};
use super::books::{Books, Left, Shelf};
use super::field::{HEARTBEAT_SECONDS, address};
use super::plan::Fate;
use super::strikes::lock;
use super::{shared_broker, submit};
use crate::stories::harness::{Ground, PATIENCE, Place, Work, Workspace, signal, stop};

/// Stories at a time: each is two workers, which wait for each other most of the time.
const AT_ONCE: usize = 12;
/// How long the runs work, in milliseconds.
const RUN_MS: usize = 300;
/// The worker that is struck, and the one that takes over.
const FIRST: &str = "first";
const SECOND: &str = "second";

/// What happens to the first worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and SIGCONT once its request is on loan to the other one.
    Freeze,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queue {
    Quorum,
    Sqlite,
}

/// One worker struck at one point.
#[derive(Debug, Clone, Copy)]
struct Case {
    queue: Queue,
    point: Point,
    blow: Blow,
}

impl Point {
    fn step(self) -> Step {
        let (Self::Before(step) | Self::After(step)) = self;
        step
    }
}

impl Case {
    fn fate(self) -> Fate {
        let (words, attempts) = match self.point.step() {
            Step::Again => ("CLUSTER_ERROR,SUCCESS", 2),
            _ => ("SUCCESS", 1),
        };
        Fate {
            work: Work::new(1, RUN_MS, words),
            outcome: Outcome::Success,
            attempts,
        }
    }

    /// How many runs there are at this point, for the second worker to find.
    fn runs_there(self) -> usize {
        match self.point {
            Point::Before(Step::Receive | Step::Start) | Point::After(Step::Receive) => 0,
            Point::After(Step::Again) => 2,
            _ => 1,
        }
    }

    /// How many results the first worker has brought to the queue.
    fn results_there(self) -> usize {
        match self.point {
            Point::After(Step::Publish | Step::Confirm | Step::Acknowledge)
            | Point::Before(Step::Confirm | Step::Acknowledge) => 1,
            _ => 0,
        }
    }

    /// Whether a result that was on its way when the first worker was frozen may still arrive: the broker
    /// notices the silence of each of its connections for itself, and that of the publishing one perhaps
    /// later. (The message is the same, so that consumers drop it.)
    fn may_publish_late(self) -> bool {
        let publishing = self.point == Point::Before(Step::Publish);
        publishing && self.blow == Blow::Freeze && self.queue == Queue::Quorum
    }

    /// Whether anything is left for the second worker to do.
    fn is_taken_over(self) -> bool {
        self.point != Point::After(Step::Acknowledge)
    }

    /// On `SQLite` nothing is seen of a commit. The one that settles the request is kept from
    /// happening by a lock, which is taken in time.
    fn trapped_at(self) -> Point {
        match (self.queue, self.point) {
            (Queue::Sqlite, Point::Before(Step::Publish)) => Point::Before(Step::Output),
            (_, point) => point,
        }
    }

    /// Starts the worker that is to be struck, and the lines that it has to the world.
    async fn first(
        self,
        ground: &Ground,
        workspace: &Workspace,
        trap: &Arc<Trap>,
    ) -> (Child, Vec<Line>) {
        let calls = calls::line(address(&workspace.host.parse().expect("a URL")), trap).await;
        let host = format!("http://{}", calls.address());
        let mut variables = vec![
            ("SPARKFERRY__WORKER__NAME", FIRST.to_owned()),
            ("SPARKFERRY__CONNECTIONS__PROD__HOST", host),
        ];
        let mut lines = vec![calls];
        if self.queue == Queue::Quorum {
            let mut url: Url = shared_broker().parse().expect("a URL");
            let frames = frames::line(address(&url), &ground.topology, trap).await;
            url.set_port(Some(frames.address().port())).expect("a host");
            url.set_query(Some(&format!("heartbeat={HEARTBEAT_SECONDS}")));
            variables.push(("SPARKFERRY__QUEUE__URL", url.into()));
            lines.push(frames);
        }
        let variables: Vec<_> = variables.iter().map(|(k, v)| (*k, v.as_str())).collect();
        (ground.worker_with(&variables), lines)
    }

    /// Waits until the first worker is at the point.
    async fn reached(
        self,
        ground: &Ground,
        trap: &Trap,
        books: &mut Books,
    ) -> Option<rusqlite::Connection> {
        match (self.queue, self.point) {
            (Queue::Sqlite, Point::Before(Step::Publish)) => {
                trap.sprung().await;
                let locked = loop {
                    if let Some(locked) = lock(ground.database()).await {
                        break locked;
                    }
                };
                trap.open();
                ground
                    .until_logged(|line| line.contains("can't be written"))
                    .await;
                Some(locked)
            }
            (Queue::Sqlite, Point::After(Step::Acknowledge)) => {
                books.read(1, &watch::Sender::default()).await;
                None
            }
            _ => {
                trap.sprung().await;
                None
            }
        }
    }

    /// Stops the first worker. Within a commit it would keep the database locked for all, and nobody
    /// could do anything until it wakes: then it is stopped a moment later.
    async fn freeze(self, first: &Child, ground: &Ground, locked: Option<rusqlite::Connection>) {
        signal(first, "STOP").await;
        // Until then it might take the lock that is given up here.
        until_it_stands_still(first).await;
        if self.queue == Queue::Sqlite && locked.is_none() {
            while lock(ground.database()).await.is_none() {
                signal(first, "CONT").await;
                signal(first, "STOP").await;
            }
        }
    }

    /// Hears what the second worker tells, up to an event of this type.
    async fn hear(self, news: &mut Receiver<News>, wanted: EventType, heard: &mut Vec<EventType>) {
        let hearing = async {
            loop {
                if let News::Event(event) = news.recv().await.expect("the watcher listens")
                    && event.worker == SECOND
                {
                    heard.push(event.event_type);
                    if event.event_type == wanted {
                        return;
                    }
                }
            }
        };
        let came = timeout(PATIENCE, hearing).await;
        assert!(came.is_ok(), "{self:?}: no {wanted} among {heard:?}");
    }

    async fn play(self) {
        let fate = self.fate();
        let workspace = Workspace::start().await;
        let place = match self.queue {
            Queue::Quorum => Place::shared_broker(),
            Queue::Sqlite => Place::Sqlite,
        };
        let connection = format!(
            r#"
type = "databricks"
host = "{}"
auth = {{ type = "pat", token = "any" }}
poll_interval_seconds = {{ min = 0.1, max = 0.1 }}
"#,
            workspace.host
        );
        let ground = Ground::new(place, 600, &connection);
        let results = match self.queue {
            Queue::Quorum => Shelf::Amqp(shared_broker()),
            Queue::Sqlite => Shelf::Sqlite(ground.database()),
        };
        let mut books = Books::new(results, &ground.topology);
        let trap = Arc::new(Trap::at(self.trapped_at()));
        let (mut first, lines) = self.first(&ground, &workspace, &trap).await;
        let watcher = ground.producer().await;
        let news = watcher.listen(Listen::Everything).await;
        let mut news = news.expect("the queue is there");
        submit(&ground, std::slice::from_ref(&fate)).await;
        let came = timeout(PATIENCE, self.reached(&ground, &trap, &mut books)).await;
        let lock = came.unwrap_or_else(|_| panic!("{self:?}: nothing came there"));

        let second = [
            ("SPARKFERRY__WORKER__NAME", SECOND),
            ("SPARKFERRY__LOG__LEVEL", "info"),
        ];
        let mut events = Vec::new();
        let mut second = match self.blow {
            Blow::Kill => {
                first.kill().await.expect("our own child");
                drop(lock);
                let second = ground.worker_with(&second);
                ground.until_at_work(SECOND).await;
                // Only now its queue learns that it is gone: what had passed is settled there.
                drop(lines);
                second
            }
            Blow::Freeze => {
                self.freeze(&first, &ground, lock).await;
                let second = ground.worker_with(&second);
                ground.until_at_work(SECOND).await;
                if self.is_taken_over() {
                    self.hear(&mut news, EventType::Accepted, &mut events).await;
                }
                signal(&first, "CONT").await;
                trap.open();
                second
            }
        };
        if self.is_taken_over() {
            self.hear(&mut news, EventType::Finished, &mut events).await;
        }
        books.read(1, &watch::Sender::default()).await;
        stop(&mut second).await;
        if self.blow == Blow::Freeze {
            stop(&mut first).await;
        }
        books.look().await;

        let nothing = Left {
            requests: 0,
            dead: 0,
        };
        assert_eq!(books.left().await, nothing, "{self:?}");
        let stats = workspace.stats().await;
        books.balance(&[fate], &stats, &workspace.page("runs").await);
        let taken_over = usize::from(self.is_taken_over());
        let copies = self.results_there() + taken_over;
        let came = 1 + books.twice;
        if self.may_publish_late() {
            assert!(came == copies || came == copies + 1, "{self:?}: {came}");
        } else {
            assert_eq!(came, copies, "{self:?}");
        }
        let adopted = events.iter().filter(|e| **e == EventType::Adopted).count();
        let expected = self.runs_there() * taken_over;
        match self.blow {
            Blow::Kill => assert_eq!(adopted, expected, "{self:?}: {events:?}"),
            // It may have started one when it woke, before the other did.
            Blow::Freeze => assert!(adopted >= expected, "{self:?}: {events:?}"),
        }
        watcher.close().await;
    }
}

/// Waits until every thread of a process that was told to stop has stopped.
async fn until_it_stands_still(process: &Child) {
    let threads = format!("/proc/{}/task", process.id().expect("it is there"));
    let stopped = |thread: fs::DirEntry| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The state follows the name, which stands in parentheses.
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('T'))
    };
    let mut looks = interval(Duration::from_millis(5));
    let looking = async {
        loop {
            looks.tick().await;
            let mut threads = fs::read_dir(&threads).expect("it is there");
            if threads.all(|thread| thread.is_ok_and(stopped)) {
                return;
            }
        }
    };
    let came = timeout(PATIENCE, looking).await;
    came.expect("a process that is told to stop stops");
}

/// Plays them all, and says at the end which ones failed.
async fn play(queue: Queue, points: impl Iterator<Item = Point>) {
    let cases =
        points.flat_map(|point| [Blow::Kill, Blow::Freeze].map(|blow| Case { queue, point, blow }));
    let playing = stream::iter(cases).map(|case| async move {
        let played = tokio::spawn(case.play()).await;
        played.is_err().then_some(case)
    });
    let failed = playing
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready);
    let failed: Vec<Case> = failed.collect().await;
    assert!(failed.is_empty(), "{failed:#?}");
}

fn around(steps: &[Step]) -> impl Iterator<Item = Point> {
    steps
        .iter()
        .flat_map(|step| [Point::Before(*step), Point::After(*step)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_rabbitmq_a_worker_may_die_or_freeze_before_and_after_each_step() {
    let steps = [
        Step::Receive,
        Step::Start,
        Step::Reply,
        Step::Poll,
        Step::Again,
        Step::Output,
        Step::Publish,
        Step::Confirm,
        Step::Acknowledge,
    ];
    play(Queue::Quorum, around(&steps)).await;
}

/// The request comes by a commit, and the result goes by another one, as soon as the output is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_a_worker_may_die_or_freeze_before_and_after_each_step() {
    let steps = [Step::Start, Step::Reply, Step::Poll, Step::Again];
    let last = [
        Point::Before(Step::Output),
        Point::Before(Step::Publish),
        Point::After(Step::Acknowledge),
    ];
    play(Queue::Sqlite, around(&steps).chain(last)).await;
}
