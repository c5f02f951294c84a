//! SIGTERM at moments when a worker has little to give back, or nobody to give it to.

use std::fs::{self, File};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};
use tokio::task::spawn_blocking;
use tokio::time::{interval, timeout};

use super::harness::{Heard, PATIENCE, Place, Story, Work, stop};

/// Nothing has to be awaited.
const PROMPT: Duration = Duration::from_secs(5);

async fn stops_promptly(worker: &mut Child) {
    let began = Instant::now();
    stop(worker).await;
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
}

async fn until(what: &str, mut say: impl FnMut() -> bool) {
    let mut looks = interval(Duration::from_millis(20));
    let looking = async {
        while !say() {
            looks.tick().await;
        }
    };
    let found = timeout(PATIENCE, looking).await;
    found.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

/// The producer's way to the broker is another one, so that the story's names can be taken off it.
fn behind(worker: String) -> Place {
    let Place::Amqp(producer) = Place::shared_broker() else {
        unreachable!("it is a broker");
    };
    Place::Proxied { worker, producer }
}

#[tokio::test]
async fn while_it_reads_its_configuration() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("agent.toml");
    let made = Command::new("mkfifo").arg(&file).status().await;
    assert!(made.expect("mkfifo is there").success());
    let worker = Command::new(env!("CARGO_BIN_EXE_sparkferry"))
        .args(["run", "--config"])
        .arg(&file)
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let mut worker = worker.expect("our own program");
    // Returns once it reads; and as long as nobody writes, it goes on reading.
    let opening = spawn_blocking(move || File::options().write(true).open(file));
    let opened = timeout(PATIENCE, opening).await.expect("it reads the file");
    let _silent = opened.expect("no panic").expect("a pipe");
    stops_promptly(&mut worker).await;
}

#[tokio::test]
async fn while_its_database_is_locked() {
    let story = Story::new(Place::Sqlite, 600).await;
    story.producer().await.close().await;
    let lock = rusqlite::Connection::open(story.database()).expect("it is there");
    lock.execute_batch("BEGIN EXCLUSIVE").expect("nobody else");
    let mut worker = story.worker();
    let open_files = format!("/proc/{}/fd", worker.id().expect("it runs"));
    until("the database to be opened", || {
        let files = fs::read_dir(&open_files).into_iter().flatten().flatten();
        let mut places = files.filter_map(|file| fs::read_link(file.path()).ok());
        places.any(|place| place == story.database())
    })
    .await;
    // It tries to give back first.
    stop(&mut worker).await;
}

#[tokio::test]
async fn while_the_broker_accepts_and_says_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("it is bound");
    let story = Story::new(behind(format!("amqp://guest:guest@{address}/%2f")), 600).await;
    let mut worker = story.worker();
    let accepting = spawn_blocking(move || silent.accept().map(|accepted| (accepted, silent)));
    let accepted = timeout(PATIENCE, accepting).await.expect("it connects");
    let _silence = accepted.expect("no panic").expect("a connection");
    stops_promptly(&mut worker).await;
}

#[tokio::test]
async fn while_the_broker_is_not_there() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = nobody.local_addr().expect("it is bound");
    drop(nobody);
    let story = Story::new(behind(format!("amqp://guest:guest@{address}/%2f")), 600).await;
    let mut worker = story.worker();
    until("the first attempts", || {
        story.log().contains("RabbitMQ can't be used")
    })
    .await;
    stops_promptly(&mut worker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_its_work_and_nothing_is_said_to_be_wrong() {
    let story = Story::new(Place::shared_broker(), 600).await;
    for number in 0..5 {
        let mut worker = story.worker();
        let (producer, mut news) = story.submit(&[Work::new(number, 100, "SUCCESS")]).await;
        Heard::default().listen(&mut news, 1).await;
        producer.close().await;
        stops_promptly(&mut worker).await;
        // Warnings and errors alone are logged in stories.
        assert_eq!(story.log(), "");
    }
}
