//! Stories of deliveries: who gets what, how often, and who gets it next.

use std::collections::HashSet;

use bytes::Bytes;
use sparkferry_ports::queue::NotPublished;
use tokio::sync::mpsc::Receiver;

use super::{
    AT_ONCE, Delivery, Harness, PATIENCE, Producer, Queue, answer, body, finish, id, next,
    nothing_is_left, submit, success, within,
};

/// A request arrives with its body and its id, and while it is held nobody else gets it.
pub async fn a_request_is_delivered_once_while_it_is_held<H: Harness>(harness: &H) {
    let [connection, _] = harness.connections();
    let (holder, other) = (harness.worker().await, harness.worker().await);
    let producer = harness.producer().await;
    let mut health = holder.health();
    within(PATIENCE, "health", health.wait_for(|h| h.trouble.is_none()))
        .await
        .expect("the worker lives");

    let mut held = holder.consume(connection, 1).await;
    submit(&*producer, connection, &id("first")).await;
    let delivery = next(&mut held, &id("first")).await;
    assert_eq!(delivery.body, body(&id("first")));
    assert!(!delivery.seen_before);
    assert!(!delivery.lease.lost.is_cancelled());
    // A producer that names none leaves the id to stand for it.
    let correlation = delivery.correlation_id.as_deref().unwrap_or("first");
    assert_eq!(correlation, "first");

    let mut others = other.consume(connection, 10).await;
    submit(&*producer, connection, &id("second")).await;
    let second = next(&mut others, &id("second")).await;
    assert!(held.try_recv().is_err(), "one run at most, and it is held");
    finish(&*holder, connection, &id("first"), &delivery).await;
    finish(&*other, connection, &id("second"), &second).await;
    holder.close().await;
    other.close().await;
    nothing_is_left(harness, connection).await;
}

/// A request of nearly 1 MiB, the largest that the contract promises.
pub async fn a_large_request_arrives_whole<H: Harness>(harness: &H) {
    let [connection, _] = harness.connections();
    let (worker, producer) = (harness.worker().await, harness.producer().await);
    let mut deliveries = worker.consume(connection, 1).await;
    let large: Bytes = std::iter::repeat_n(b"0123456789abcdef", 65_530)
        .flatten()
        .copied()
        .collect();
    producer
        .submit(connection, &id("large"), large.clone())
        .await
        .expect("a large request is taken");
    let delivery = next(&mut deliveries, &id("large")).await;
    assert!(delivery.body == large, "the body arrived changed");
    finish(&*worker, connection, &id("large"), &delivery).await;
}

/// What one worker hands back another one receives, and is told that it was delivered before.
pub async fn what_is_handed_back_goes_to_another<H: Harness>(harness: &H) {
    let [connection, _] = harness.connections();
    let (first, second) = (harness.worker().await, harness.worker().await);
    let producer = harness.producer().await;
    let mut deliveries = first.consume(connection, 10).await;
    submit(&*producer, connection, &id("back")).await;
    let delivery = next(&mut deliveries, &id("back")).await;
    assert!(!delivery.seen_before);

    // While it consumes, whoever hands back may be the one to receive again.
    first.hand_back(&delivery.lease).await;
    let delivery = next(&mut deliveries, &id("back")).await;
    assert!(delivery.seen_before);

    first.stop_consuming().await;
    let mut others = second.consume(connection, 10).await;
    first.hand_back(&delivery.lease).await;
    let delivery = within(AT_ONCE, "the hand-back", next(&mut others, &id("back"))).await;
    assert!(delivery.seen_before);
    assert_eq!(delivery.body, body(&id("back")));
    finish(&*second, connection, &id("back"), &delivery).await;
}

/// A worker that dies gives everything up: also what it had not looked at yet.
pub async fn a_dead_workers_requests_go_to_another<H: Harness>(harness: &H) {
    let [connection, _] = harness.connections();
    let (doomed, heir) = (harness.worker().await, harness.worker().await);
    let producer = harness.producer().await;
    let mut deliveries = doomed.consume(connection, 10).await;
    for name in ["dead-1", "dead-2", "dead-3"] {
        submit(&*producer, connection, &id(name)).await;
    }
    next(&mut deliveries, &id("dead-1")).await;
    harness.kill(doomed).await;

    let mut inherited = heir.consume(connection, 10).await;
    let mut seen_before = HashSet::new();
    for delivery in take(&mut inherited, 3).await {
        let name = delivery.message_id.clone().expect("a message_id");
        if delivery.seen_before {
            seen_before.insert(name.clone());
        }
        finish(&*heir, connection, &id(&name), &delivery).await;
    }
    assert!(seen_before.contains("dead-1"), "it had been delivered");
    heir.close().await;
    nothing_is_left(harness, connection).await;
}

/// A worker whose leases ran out is told so, can settle nothing that others have now, and goes on
/// receiving.
pub async fn a_worker_that_lost_its_leases_notices_and_goes_on<H: Harness>(harness: &H) {
    let [connection, _] = harness.connections();
    let (severed, other) = (harness.worker().await, harness.worker().await);
    let producer = harness.producer().await;
    let mut deliveries = severed.consume(connection, 1).await;
    submit(&*producer, connection, &id("lost")).await;
    let before = next(&mut deliveries, &id("lost")).await;

    let mut others = other.consume(connection, 1).await;
    harness.sever(&severed).await;
    within(PATIENCE, "the lost token", before.lease.lost.cancelled()).await;
    let answers = [answer(&before)];
    let late = success(connection, &id("lost"));
    let late = within(AT_ONCE, "LeaseLost", severed.finish(&answers, &late)).await;
    assert_eq!(late, Err(NotPublished::LeaseLost));
    // Nor does handing back what is not ours take it from whoever has it.
    severed.hand_back(&before.lease).await;

    // Either may be the one to receive it again; it then holds one run, and the next request is
    // the other's.
    let lost = id("lost");
    let severed_has_it = within(PATIENCE, "the request to come back", async {
        tokio::select! {
            again = next(&mut deliveries, &lost) => (true, again),
            again = next(&mut others, &lost) => (false, again),
        }
    });
    let (severed_has_it, again) = severed_has_it.await;
    assert!(again.seen_before);
    submit(&*producer, connection, &id("after")).await;
    if severed_has_it {
        let after = next(&mut others, &id("after")).await;
        finish(&*severed, connection, &lost, &again).await;
        finish(&*other, connection, &id("after"), &after).await;
    } else {
        let after = next(&mut deliveries, &id("after")).await;
        finish(&*other, connection, &lost, &again).await;
        finish(&*severed, connection, &id("after"), &after).await;
    }
    severed.close().await;
    other.close().await;
    nothing_is_left(harness, connection).await;
}

/// No more than `max_active_runs` are unsettled; what is settled makes room.
pub async fn at_most_max_active_runs_are_unsettled<H: Harness>(harness: &H) {
    let [connection, _] = harness.connections();
    let (narrow, wide) = (harness.worker().await, harness.worker().await);
    let producer = harness.producer().await;
    for number in 1..=5 {
        submit(&*producer, connection, &id(&format!("run-{number}"))).await;
    }
    let mut few = narrow.consume(connection, 2).await;
    let held = take(&mut few, 2).await;
    let mut rest = wide.consume(connection, 3).await;
    let rest = take(&mut rest, 3).await;
    assert!(few.try_recv().is_err(), "two were under way");
    let names: HashSet<_> = held.iter().chain(&rest).map(|d| &d.message_id).collect();
    assert_eq!(names.len(), 5, "five requests, each delivered once");

    // Both are full now; the one that settles is the one that gets the next.
    submit(&*producer, connection, &id("run-6")).await;
    let first = id(held[0].message_id.as_deref().expect("a message_id"));
    finish(&*narrow, connection, &first, &held[0]).await;
    next(&mut few, &id("run-6")).await;
}

/// A connection with all its runs under way does not keep another one waiting.
pub async fn connections_do_not_hold_each_other_up<H: Harness>(harness: &H) {
    let [slow, quick] = harness.connections();
    let (worker, producer) = (harness.worker().await, harness.producer().await);
    let mut slow_ones = worker.consume(slow, 1).await;
    let mut quick_ones = worker.consume(quick, 1).await;
    for number in 1..=5 {
        submit(&*producer, slow, &id(&format!("slow-{number}"))).await;
    }
    next(&mut slow_ones, &id("slow-1")).await;
    for number in 1..=3 {
        let name = id(&format!("quick-{number}"));
        submit(&*producer, quick, &name).await;
        let delivery = next(&mut quick_ones, &name).await;
        finish(&*worker, quick, &name, &delivery).await;
    }
    assert!(slow_ones.try_recv().is_err(), "one slow run was under way");
}

/// Closing gives everything back, without waiting for leases to run out.
pub async fn closing_hands_everything_back_at_once<H: Harness>(harness: &H) {
    let [connection, _] = harness.connections();
    let (leaving, staying) = (harness.worker().await, harness.worker().await);
    let producer = harness.producer().await;
    let mut deliveries = leaving.consume(connection, 20).await;
    for number in 0..20 {
        submit(&*producer, connection, &id(&format!("close-{number}"))).await;
    }
    let before = take(&mut deliveries, 20).await;
    within(AT_ONCE, "closing", leaving.close()).await;
    let mut others = staying.consume(connection, 20).await;
    let after = within(AT_ONCE, "what was handed back", take(&mut others, 20)).await;
    assert!(after.iter().all(|delivery| delivery.seen_before));
    let names = |of: &[Delivery]| -> HashSet<_> {
        of.iter().filter_map(|d| d.message_id.clone()).collect()
    };
    assert_eq!(names(&before), names(&after));
}

/// After `stop_consuming` nothing more is taken, the receivers end, and what is held can be
/// finished.
pub async fn when_consuming_stops_what_is_held_stays_held<H: Harness>(harness: &H) {
    let [connection, _] = harness.connections();
    let (stopping, other) = (harness.worker().await, harness.worker().await);
    let producer = harness.producer().await;
    let mut deliveries = stopping.consume(connection, 10).await;
    submit(&*producer, connection, &id("held")).await;
    let delivery = next(&mut deliveries, &id("held")).await;
    stopping.stop_consuming().await;
    let end = within(AT_ONCE, "the receiver's end", deliveries.recv()).await;
    assert!(end.is_none());

    let mut others = other.consume(connection, 10).await;
    submit(&*producer, connection, &id("next")).await;
    let marker = next(&mut others, &id("next")).await;
    assert!(!delivery.lease.lost.is_cancelled());
    finish(&*stopping, connection, &id("held"), &delivery).await;
    finish(&*other, connection, &id("next"), &marker).await;
    stopping.close().await;
    other.close().await;
    nothing_is_left(harness, connection).await;
}

async fn take(deliveries: &mut Receiver<Delivery>, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::with_capacity(count);
    while taken.len() < count {
        let what = format!("delivery {} of {count}", taken.len() + 1);
        let delivery = within(PATIENCE, &what, deliveries.recv()).await;
        taken.push(delivery.expect("the receiver goes on"));
    }
    taken
}

/// A worker closes one receiver and opens another on the same queue: the new one alone is given
/// requests, and what came by the old one can still be settled.
pub async fn one_subscription_takes_the_place_of_another<H: Harness>(harness: &H) {
    const LATER: usize = 20;
    let [connection, _] = harness.connections();
    let (worker, producer) = (harness.worker().await, harness.producer().await);
    let mut old = worker.consume(connection, 10).await;
    for name in ["kept", "back"] {
        submit(&*producer, connection, &id(name)).await;
    }
    let kept = next(&mut old, &id("kept")).await;
    let back = next(&mut old, &id("back")).await;

    old.close();
    let mut new = worker.consume(connection, 100).await;
    worker.hand_back(&back.lease).await;
    within(AT_ONCE, "the end of the old receiver", async {
        while let Some(unread) = old.recv().await {
            worker.hand_back(&unread.lease).await;
        }
    })
    .await;
    // It may have been given to the old one again before that had ended.
    let back = next(&mut new, &id("back")).await;
    assert!(back.seen_before);
    for number in 0..LATER {
        let later = id(&format!("later-{number}"));
        submit(&*producer, connection, &later).await;
        let delivery = next(&mut new, &later).await;
        finish(&*worker, connection, &later, &delivery).await;
    }
    assert!(!kept.lease.lost.is_cancelled());
    finish(&*worker, connection, &id("kept"), &kept).await;
    finish(&*worker, connection, &id("back"), &back).await;
    worker.close().await;
    nothing_is_left(harness, connection).await;
}
