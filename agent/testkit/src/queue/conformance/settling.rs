//! Stories of how a request ends: with a result, or among the dead letters.

use std::collections::HashSet;

use bytes::Bytes;
use sparkferry_ports::queue::{Listen, NotPublished, SettleDead};
use sparkferry_shared::decode::Unreadable;

use super::{
    AT_ONCE, Harness, PATIENCE, Producer, Queue, answer, finish, id, next, next_result,
    nothing_is_left, submit, success, within,
};

/// The producer hears the result, and the request is delivered to nobody again.
pub async fn a_finished_request_is_gone_and_its_result_heard<H: Harness>(harness: &H) {
    let [connection, _] = harness.connections();
    let (worker, producer) = (harness.worker().await, harness.producer().await);
    let mut news = producer
        .listen(Listen::Mine(vec![id("done")]))
        .await
        .expect("a producer may listen");
    submit(&*producer, connection, &id("done")).await;
    let mut deliveries = worker.consume(connection, 10).await;
    let delivery = next(&mut deliveries, &id("done")).await;
    finish(&*worker, connection, &id("done"), &delivery).await;
    let result = next_result(&mut news, PATIENCE).await;
    assert_eq!(
        (result.id.as_str(), result.connection.as_str()),
        ("done", connection)
    );
    worker.close().await;
    nothing_is_left(harness, connection).await;
}

/// Two deliveries that one result answers are both gone, and both producers hear it.
pub async fn one_result_answers_every_delivery_of_its_request<H: Harness>(harness: &H) {
    let [connection, _] = harness.connections();
    let worker = harness.worker().await;
    let mut deliveries = worker.consume(connection, 10).await;
    let mut listeners = Vec::new();
    let mut answers = Vec::new();
    // Two messages that the worker takes for the same request, as after a redelivery.
    for name in [id("twice-1"), id("twice-2")] {
        let producer = harness.producer().await;
        let news = producer
            .listen(Listen::Mine(vec![name.clone()]))
            .await
            .expect("a producer may listen");
        submit(&*producer, connection, &name).await;
        listeners.push((producer, news));
        answers.push(answer(&next(&mut deliveries, &name).await));
    }
    let result = success(connection, &id("twice-1"));
    within(AT_ONCE, "finishing", worker.finish(&answers, &result))
        .await
        .expect("the leases are held");
    for (_producer, news) in &mut listeners {
        assert_eq!(next_result(news, PATIENCE).await.id, id("twice-1"));
    }
    worker.close().await;
    nothing_is_left(harness, connection).await;
}

/// A result may come before its request is done: its producer hears it once from a worker, and who
/// receives the request after that worker's death settles it all the same.
pub async fn what_is_announced_is_heard_and_stays_on_loan<H: Harness>(harness: &H) {
    let [connection, _] = harness.connections();
    let (first, producer) = (harness.worker().await, harness.producer().await);
    let mut news = producer
        .listen(Listen::Mine(vec![id("early"), id("after")]))
        .await
        .expect("a producer may listen");
    submit(&*producer, connection, &id("early")).await;
    let mut deliveries = first.consume(connection, 10).await;
    let early = success(connection, &id("early"));
    let mut answers = [answer(&next(&mut deliveries, &id("early")).await)];
    let announced = first.announce(&answers, &early);
    within(AT_ONCE, "announcing", announced)
        .await
        .expect("the lease is held");
    assert_eq!(next_result(&mut news, PATIENCE).await.id, id("early"));
    first.close().await;
    let late = first.announce(&answers, &early);
    let late = within(AT_ONCE, "announcing", late).await;
    assert_eq!(late, Err(NotPublished::LeaseLost), "it is another worker's");

    let second = harness.worker().await;
    let mut deliveries = second.consume(connection, 10).await;
    answers[0] = answer(&next(&mut deliveries, &id("early")).await);
    answers[0].announced = true;
    within(AT_ONCE, "finishing", second.finish(&answers, &early))
        .await
        .expect("the lease is held");
    submit(&*producer, connection, &id("after")).await;
    let delivery = next(&mut deliveries, &id("after")).await;
    finish(&*second, connection, &id("after"), &delivery).await;
    assert_eq!(next_result(&mut news, PATIENCE).await.id, id("after"));
    second.close().await;
    nothing_is_left(harness, connection).await;
}

/// A request that is done and submitted again brings its result again: from the queue's memory, or
/// from a worker that receives it again.
pub async fn a_finished_request_submitted_again<H: Harness>(harness: &H) {
    let [connection, _] = harness.connections();
    let worker = harness.worker().await;
    let mut deliveries = worker.consume(connection, 10).await;
    for round in 1..=2 {
        let producer = harness.producer().await;
        let mut news = producer
            .listen(Listen::Mine(vec![id("again")]))
            .await
            .expect("a producer may listen");
        submit(&*producer, connection, &id("again")).await;
        if round == 1 || !harness.remembers_results() {
            let delivery = next(&mut deliveries, &id("again")).await;
            finish(&*worker, connection, &id("again"), &delivery).await;
        }
        assert_eq!(next_result(&mut news, PATIENCE).await.id, id("again"));
        producer.close().await;
    }
    worker.close().await;
    nothing_is_left(harness, connection).await;
}

/// What can't be read is kept, with the reason, until somebody requeues or drops it.
pub async fn what_cannot_be_read_is_buried<H: Harness>(harness: &H) {
    let [connection, other] = harness.connections();
    let (worker, producer) = (harness.worker().await, harness.producer().await);
    let mut deliveries = worker.consume(connection, 10).await;
    let garbage = Bytes::from_static(b"\xff\x00 no JSON");
    producer
        .submit(connection, &id("garbage"), garbage.clone())
        .await
        .expect("a queue takes any bytes");
    let why = Unreadable::NotJson("expected value at line 1".to_owned());
    let delivery = next(&mut deliveries, &id("garbage")).await;
    within(AT_ONCE, "burying", worker.bury(&delivery, &why))
        .await
        .expect("the lease is held");

    for _look in 1..=2 {
        let dead = producer.dead_letters(10).await.expect("dead letters");
        assert_eq!(dead.len(), 1, "they stay where they are");
        assert_eq!(dead[0].reason, "not_json");
        assert_eq!(dead[0].error, why.to_string());
        assert_eq!(dead[0].connection.as_deref(), Some(connection));
        assert_eq!(dead[0].message_id.as_deref(), Some("garbage"));
        assert_eq!(dead[0].body, garbage);
    }

    let requeued = producer.settle_dead(SettleDead::Requeue, 10).await;
    assert_eq!(requeued.expect("requeue"), 1);
    let delivery = next(&mut deliveries, &id("garbage")).await;
    assert_eq!(delivery.body, garbage);
    let dead = producer.dead_letters(10).await.expect("dead letters");
    assert!(dead.is_empty());

    within(AT_ONCE, "burying", worker.bury(&delivery, &why))
        .await
        .expect("the lease is held");
    let mut others = worker.consume(other, 10).await;
    let second = id("garbage-2");
    producer
        .submit(other, &second, garbage.clone())
        .await
        .expect("a queue takes any bytes");
    let delivery = next(&mut others, &second).await;
    let why = Unreadable::TooLarge { size: 9, limit: 8 };
    within(AT_ONCE, "burying", worker.bury(&delivery, &why))
        .await
        .expect("the lease is held");
    let dead = producer.dead_letters(10).await.expect("dead letters");
    let reasons: HashSet<_> = dead.iter().map(|letter| letter.reason.as_str()).collect();
    assert_eq!(reasons, HashSet::from(["not_json", "too_large"]));

    let dropped = producer.settle_dead(SettleDead::Drop, 1).await;
    assert_eq!(dropped.expect("drop"), 1, "no more than asked for");
    let left = producer.dead_letters(10).await.expect("dead letters");
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].reason, "too_large", "the oldest goes first");
    let dropped = producer.settle_dead(SettleDead::Drop, 10).await;
    assert_eq!(dropped.expect("drop"), 1);
    worker.close().await;
    nothing_is_left(harness, connection).await;
}
