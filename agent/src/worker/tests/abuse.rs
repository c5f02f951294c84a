//! Messages that nobody would send, by the thousand, and requests that break their driver.
//!
//! Each message is answered or buried, whatever it holds, and none makes its driver panic.
//! `FUZZ_MESSAGES` says how many there are, `FUZZ_SEED` which ones: `make fuzz`.

use std::env;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use fastrand::Rng;
use serde_json::{Value, json};
use sparkferry_shared::{ErrorClass, Outcome, RunResult, Undecodable, decode};
use sparkferry_testkit::engine::fake::{Call, Trouble};
use sparkferry_testkit::queue::memory::Message;

use super::{CONNECTION, OTHER, STRICT, Story};

/// The messages of a short run.
const MESSAGES: usize = 5_000;
/// So many stand in the queue at once.
const ROUND: usize = 100;

/// Requests that are right, to be bent.
const RIGHT: [&str; 4] = [
    r#"{"id":"a-1","run_now":{"job_id":7,"job_parameters":{"day":"2026-11-21"}},"max_retries":2,"labels":{"team":"etl"}}"#,
    r#"{"id":"a-2","connection":"prod","submit_run":{"tasks":[{"task_key":"m","notebook_task":{"notebook_path":"/n"},"new_cluster":{"num_workers":2,"node_type_id":"s"}}],"timeout_seconds":60},"retry_on":["infrastructure"],"on_failure":"repair"}"#,
    r#"{"id":"a-3","spark_connect":{"steps":[{"sql":"SELECT :x","args":{"x":1.5}},{"plan":"CgA="}],"conf":{"spark.a":"b"},"artifacts":[{"name":"pyfiles/x.py","data":"eA=="}],"row_limit":10},"deadline":"2026-11-21T00:00:00Z"}"#,
    r#"{"id":"a-4","run_now":{"job_name":"nightly"},"wait":false,"on_timeout":"abandon","min_retry_interval_millis":1,"max_retry_interval_millis":2,"timeout_seconds":9}"#,
];

const FIELDS: [&str; 21] = [
    "id",
    "connection",
    "run_now",
    "submit_run",
    "spark_connect",
    "max_retries",
    "retry_on",
    "min_retry_interval_millis",
    "max_retry_interval_millis",
    "on_failure",
    "timeout_seconds",
    "deadline",
    "on_timeout",
    "wait",
    "rerun_if_lost",
    "labels",
    "idempotency_token",
    "tasks",
    "steps",
    "job_id",
    "\u{0}\u{202e}",
];

const TEXTS: [&str; 12] = [
    "",
    "a",
    "prod",
    "infrastructure",
    "9999-12-30T22:00:00Z",
    "-009999-01-02T01:59:59Z",
    "2026-11-21T00:00:60Z",
    "\u{0}",
    "\u{1f4a9}",
    "../../etc/passwd",
    "%s%n",
    "{{job.id}}",
];

const NUMBERS: [&str; 10] = [
    "0",
    "-0.0",
    "-1",
    "1e308",
    "1e999",
    "4294967296",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775808",
    "0.1e-9999999",
];

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())]
}

/// Any value, as text; most are JSON.
fn value(rng: &mut Rng, depth: u32) -> String {
    match rng.u32(..if depth > 3 { 5 } else { 9 }) {
        0 => pick(rng, &["null", "true", "false", "nul", ""]).to_owned(),
        1 | 2 => pick(rng, &NUMBERS).to_owned(),
        3 => Value::from(pick(rng, &TEXTS)).to_string(),
        4 => nested(rng, 400),
        5 | 6 => {
            let values: Vec<String> = (0..rng.u32(..4)).map(|_| value(rng, depth + 1)).collect();
            format!("[{}]", values.join(","))
        }
        _ => object(rng, depth + 1),
    }
}

/// An object whose names may stand in it twice.
fn object(rng: &mut Rng, depth: u32) -> String {
    let fields: Vec<String> = (0..rng.u32(..6))
        .map(|_| {
            let name = Value::from(pick(rng, &FIELDS));
            format!("{name}:{}", value(rng, depth))
        })
        .collect();
    format!("{{{}}}", fields.join(","))
}

/// Brackets in brackets.
fn nested(rng: &mut Rng, most: usize) -> String {
    let depth = rng.usize(..most);
    let (open, close) = pick(rng, &[("[", "]"), ("{\"a\":", "}")]);
    let inner = if open == "[" { "" } else { "1" };
    open.repeat(depth) + inner + &close.repeat(depth)
}

/// A right request with some of its bytes changed, taken out, or put in again.
fn bent(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = pick(rng, &RIGHT).as_bytes().to_vec();
    for _ in 0..=rng.u32(..4) {
        let place = rng.usize(..bytes.len());
        let end = place + rng.usize(..=(bytes.len() - place).min(20));
        match rng.u32(..4) {
            0 => bytes[place] = rng.u8(..),
            1 => drop(bytes.drain(place..end)),
            2 => {
                let again = bytes[place..end].to_vec();
                bytes.splice(place..place, again);
            }
            _ => bytes.truncate(end),
        }
        if bytes.is_empty() {
            bytes.push(b'{');
        }
    }
    bytes
}

/// A right request with one field that holds anything.
fn wild(rng: &mut Rng, number: usize) -> Vec<u8> {
    let mut request: Value = serde_json::from_str(pick(rng, &RIGHT)).unwrap();
    let fields = request.as_object_mut().unwrap();
    fields.insert("id".into(), format!("wild-{number}").into());
    let field = pick(rng, &FIELDS[1..]);
    // In place of what was there, or beside it.
    if rng.bool() {
        fields.remove(field);
    }
    let whole = request.to_string();
    let (begin, name) = (&whole[..whole.len() - 1], Value::from(field));
    format!("{begin},{name}:{}}}", value(rng, 0)).into_bytes()
}

fn body(rng: &mut Rng, number: usize) -> Vec<u8> {
    match rng.u32(..1000) {
        0 => vec![b' '; (1 << 20) + rng.usize(..3)],
        1 => nested(rng, 200_000).into_bytes(),
        2 => {
            let deep = nested(rng, 200_000);
            format!(r#"{{"id":"deep-{number}","run_now":{{"job_id":1,"a":{deep}}}}}"#).into_bytes()
        }
        3 => {
            let long = "x".repeat(rng.usize(..1 << 20));
            format!(r#"{{"id":"{long}","{long}":1}}"#).into_bytes()
        }
        4..150 => (0..rng.usize(..300)).map(|_| rng.u8(..)).collect(),
        150..500 => bent(rng),
        500..800 => wild(rng, number),
        _ => object(rng, 0).into_bytes(),
    }
}

fn message(rng: &mut Rng, number: usize) -> Message {
    let name = match rng.u32(..4) {
        0 => Some(pick(rng, &TEXTS).repeat(rng.usize(..40))),
        1 => Some(format!("property-{number}")),
        _ => None,
    };
    Message {
        connection: pick(rng, &[CONNECTION, OTHER, STRICT]).to_owned(),
        body: body(rng, number).into(),
        name,
        reply_to: rng.bool().then(|| "me".to_owned()),
        ..Message::default()
    }
}

/// A number from the environment.
fn setting<T: std::str::FromStr>(name: &str, otherwise: T) -> T {
    let set = env::var(name).ok();
    let number = set.map(|text| text.parse().ok().unwrap_or_else(|| panic!("{name}={text}")));
    number.unwrap_or(otherwise)
}

#[tokio::test(start_paused = true)]
async fn whatever_stands_in_a_message_it_is_answered_or_buried() {
    let (wanted, seed) = (setting("FUZZ_MESSAGES", MESSAGES), setting("FUZZ_SEED", 1));
    println!("FUZZ_MESSAGES={wanted} FUZZ_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let mut story = Story::begin();
    let (mut to_bury, mut to_reply, mut answered) = (0, 0, 0);
    for number in 0..wanted {
        let message = message(&mut rng, number);
        let name = message.name.as_deref();
        let read = decode(&message.body, name, Some(&message.connection), 1 << 20);
        if let Err(Undecodable::Bury(_)) = read {
            to_bury += 1;
            to_reply += usize::from(message.reply_to.is_some());
        }
        story.queue.put(message);
        if number % ROUND == ROUND - 1 || number + 1 == wanted {
            story.queue.until_all_settled().await;
            while let Ok(result) = story.results.try_recv() {
                answered += 1;
                check(&result.body, result.outcome);
            }
        }
    }
    let buried = story.queue.buried.load(Ordering::Relaxed);
    println!("{answered} answered, {buried} buried");
    assert_eq!(buried, to_bury);
    assert_eq!(story.queue.replied.load(Ordering::Relaxed), to_reply);
    // Copies of an id that came together share an answer.
    assert!(answered <= wanted - buried && answered > 0);
    story.end().await;
}

/// It is a result, and no driver panicked for it.
fn check(body: &Bytes, outcome: Outcome) {
    let result: RunResult = serde_json::from_slice(body).unwrap();
    assert_eq!(result.outcome, outcome);
    let message = result.error.map(|error| error.message).unwrap_or_default();
    assert!(!message.contains("crashed its driver"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_breaks_its_driver_hurts_no_other() {
    let mut story = Story::begin();
    story
        .world
        .expect_trouble(Call::AttachOrStart, Trouble::Panics);
    for number in 0..50 {
        let plan = json!({ "duration_ms": 1000 });
        let id = format!("work-{number}");
        story.queue.put(Message::run_now(CONNECTION, &id, &plan));
    }
    let mut rejected = 0;
    for _ in 0..50 {
        let result = story.result().await;
        if result.outcome == Outcome::Rejected {
            let result: RunResult = serde_json::from_slice(&result.body).unwrap();
            assert_eq!(result.error.unwrap().class, ErrorClass::Request);
            rejected += 1;
        } else {
            assert_eq!(result.outcome, Outcome::Success);
        }
    }
    assert_eq!((rejected, story.world.runs_started()), (1, 49));
    assert_eq!(story.queue.unsettled(), 0);
    story.end().await;
}
