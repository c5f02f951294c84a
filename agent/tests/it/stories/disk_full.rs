//! A disk that is full while results are to be written to it.

use sparkferry_ports::queue::News;

use super::harness::{FULL_DISK, Heard, Place, Story, Work, count, limit_files, stop};

const REQUESTS: usize = 20;

/// The file system says no in the words that it has for a file that may not grow; for SQLite a disk
/// without room is the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_finds_no_room_is_written_once_there_is_some() {
    let story = Story::new(Place::Sqlite, 600).await;
    let work: Vec<Work> = (0..REQUESTS)
        .map(|number| Work::new(number, 4_000, "SUCCESS"))
        .collect();
    let mut worker = story.worker();
    let (producer, mut news) = story.submit(&work).await;
    let active = |wanted: u64| move |stats: &_| count(stats, "/runs_active") == wanted;
    let all = REQUESTS as u64;
    story.workspace.until("all runs", active(all)).await;

    limit_files(&worker, Some(FULL_DISK)).await;
    story.workspace.until("all endings", active(0)).await;
    while let Ok(told) = news.try_recv() {
        assert!(
            matches!(told, News::Event(_)),
            "there is no room for {told:?}"
        );
    }
    limit_files(&worker, None).await;
    let mut heard = Heard::default();
    heard.listen(&mut news, REQUESTS).await;

    story.all_succeeded_once(&heard, REQUESTS).await;
    stop(&mut worker).await;
    producer.close().await;
}
