//! When to look, and how.

use serde_json::{Value, json};
use tokio::time::advance;

use super::*;

const MIN: Duration = Duration::from_secs(1);
const MAX: Duration = Duration::from_secs(30);
const OPEN: Sweeping = Sweeping::Possible { foreign_pages: 0 };

fn known(run: &Value) -> Known {
    Known::new(serde_json::from_str(&run.to_string()).unwrap())
}

fn running(run_id: i64, start_time: i64) -> Known {
    known(
        &json!({"run_id": run_id, "start_time": start_time, "state": {"life_cycle_state": "RUNNING"}}),
    )
}

fn ended(run_id: i64) -> Known {
    known(&json!({"run_id": run_id, "start_time": 1,
        "state": {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}}))
}

fn until_next(book: &Book) -> Duration {
    match book.plan(Sweeping::Impossible) {
        Plan::Wait(Some(due)) => due - Instant::now(),
        plan => panic!("{plan:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn looks_grow_rarer_with_a_runs_age() {
    let book = Book::new((MIN, MAX));
    let _following = book.follow(7, None, None, 0);
    let within = |wait: Duration, least: f64| {
        let wait = wait.as_secs_f64();
        assert!((least..=least * 1.2).contains(&wait), "{wait} for {least}");
    };
    within(until_next(&book), 1.0);
    for (age_seconds, least) in [(0, 1.0), (5, 1.0), (20, 2.0), (100, 10.0), (100_000, 30.0)] {
        book.saw(7, running(7, 1000), 1000 + age_seconds * 1000);
        within(until_next(&book), least);
    }
    // Looks that fail are repeated more and more slowly, a single one soon.
    for least in [2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
        book.missed(7, Miss::Fault);
        within(until_next(&book), least);
    }
    book.saw(7, running(7, 1000), 1000);
    within(until_next(&book), 1.0);
}

#[tokio::test(start_paused = true)]
async fn pages_are_read_where_more_looks_are_due_than_there_are_pages() {
    let book = Book::new((MIN, MAX));
    let _followings: Vec<_> = (0..100).map(|n| book.follow(n, None, None, 0)).collect();
    assert!(matches!(book.plan(OPEN), Plan::Wait(Some(_))));
    advance(MIN * 2).await;
    assert_eq!(book.plan(OPEN), Plan::Sweep);
    // While pages are read, nobody is asked for alone.
    assert_eq!(book.plan(Sweeping::UnderWay), Plan::Wait(None));
    // The runs of others fill so many pages that single looks are cheaper.
    let crowded = Sweeping::Possible { foreign_pages: 96 };
    assert!(matches!(book.plan(crowded), Plan::Get { .. }));
    assert!(matches!(book.plan(Sweeping::Impossible), Plan::Get { .. }));
    // Now they are old and rarely looked at; four that are hurried stand on four pages.
    book.recover();
    for n in 0..100 {
        book.saw(n, running(n, 1000), 1_000_000);
    }
    for n in 0..4 {
        book.hurry(n);
    }
    advance(MIN).await;
    assert!(matches!(book.plan(OPEN), Plan::Get { history: false, .. }));
}

#[tokio::test(start_paused = true)]
async fn what_no_page_shows_is_asked_for_alone() {
    let book = Book::new((MIN, MAX));
    let _followings: Vec<_> = (0..50).map(|n| book.follow(n, None, None, 0)).collect();
    advance(MIN * 2).await;
    assert_eq!(book.plan(OPEN), Plan::Sweep);
    assert_eq!(book.sweep_begins(), 50);
    for n in 0..48 {
        book.saw(n, running(n, 1000), 1000);
    }
    assert_eq!(book.left(), 2);
    let _late = book.follow(77, None, None, 0);
    book.swept();
    let mut alone = Vec::new();
    while let Plan::Get { run_id, .. } = book.plan(OPEN) {
        alone.push(run_id);
    }
    alone.sort_unstable();
    assert_eq!(alone, [48, 49]);
    // One has ended; the other was only hidden and comes back to the pages.
    book.saw(48, ended(48), 1000);
    book.saw(49, running(49, 1000), 1000);
    assert!(book.shares(49) && !book.shares(48));
}

#[tokio::test(start_paused = true)]
async fn a_repaired_run_is_asked_for_with_its_history_until_its_round_is_over() {
    let book = Book::new((MIN, MAX));
    let mut following = book.follow(7, Some(1), None, 0);
    assert!(!book.shares(7));
    advance(MIN * 2).await;
    assert_eq!(
        book.plan(OPEN),
        Plan::Get {
            run_id: 7,
            history: true
        }
    );
    // It was read before the repair was to be seen: not the end.
    book.saw(7, ended(7), 1000);
    advance(MAX * 2).await;
    assert_eq!(
        book.plan(OPEN),
        Plan::Get {
            run_id: 7,
            history: true
        }
    );
    let repaired = known(
        &json!({"run_id": 7, "repair_history": [{"id": 3, "type": "REPAIR"}],
        "state": {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}}),
    );
    book.saw(7, repaired, 1000);
    assert_eq!(book.plan(OPEN), Plan::Wait(None));
    assert!(
        matches!(&*following.seen.borrow_and_update(), Seen::Run(known) if known.repairs() == 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_run_is_gone_when_two_looks_say_so() {
    let book = Book::new((MIN, MAX));
    let following = book.follow(7, None, None, 0);
    book.missed(7, Miss::Gone("Run 7 does not exist."));
    assert!(matches!(&*following.seen.borrow(), Seen::Nothing));
    book.saw(7, running(7, 1000), 1000);
    book.missed(7, Miss::Gone("Run 7 does not exist."));
    assert!(matches!(&*following.seen.borrow(), Seen::Run(_)));
    book.missed(7, Miss::Fault);
    book.missed(7, Miss::Gone("Run 7 does not exist."));
    assert!(matches!(&*following.seen.borrow(), Seen::Gone(_)));
    assert_eq!(book.plan(OPEN), Plan::Wait(None));
}

#[tokio::test(start_paused = true)]
async fn followers_share_a_run_and_the_last_one_takes_it_along() {
    let book = Book::new((MIN, MAX));
    let first = book.follow(7, None, None, 0);
    let mut second = book.follow(7, None, Some(running(7, 1000)), 1000);
    assert!(matches!(&*first.seen.borrow(), Seen::Run(_)));
    drop(first);
    second.seen.mark_unchanged();
    book.saw(7, running(7, 1000), 2000);
    assert!(!second.seen.has_changed().unwrap(), "nothing new");
    book.saw(7, ended(7), 3000);
    assert!(matches!(&*second.seen.borrow(), Seen::Run(known) if known.ended));
    // Somebody follows it anew; the old follower leaves without taking it along.
    let third = book.follow(7, None, None, 4000);
    drop(second);
    assert!(book.shares(7));
    drop(third);
    assert_eq!(book.plan(OPEN), Plan::Wait(None));
    // What is over when it comes is not followed at all.
    let over = book.follow(8, None, Some(ended(8)), 0);
    assert_eq!(book.plan(OPEN), Plan::Wait(None));
    assert!(matches!(&*over.seen.borrow(), Seen::Run(_)));
}

#[tokio::test(start_paused = true)]
async fn looks_that_will_not_be_answered_are_due_again() {
    let book = Book::new((MIN, MAX));
    let _following = book.follow(7, None, None, 0);
    advance(MIN * 2).await;
    assert!(matches!(book.plan(OPEN), Plan::Get { run_id: 7, .. }));
    assert_eq!(book.plan(OPEN), Plan::Wait(None));
    book.recover();
    assert!(matches!(book.plan(OPEN), Plan::Wait(Some(_))));
}

#[test]
fn what_a_follower_costs_is_small() {
    let bytes = size_of::<Entry>() + size_of::<Following>() + size_of::<Known>();
    assert!(bytes <= 512, "{bytes}");
}
