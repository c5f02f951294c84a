//! A producer that may publish requests and nothing else, and sends them with properties that nobody
//! should send.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use sparkferry_agent::queue::amqp::definitions_with_users;
use sparkferry_shared::{Id, Outcome, Topology};
use sparkferry_testkit::story::poison::{Becomes, Poison, all};
use sparkferry_testkit::story::raw::RawProducer;
use tokio::time::{interval, timeout};
use url::Url;

use super::books::Books;
use super::field::{Field, Node, Queue};
use crate::stories::harness::{CONNECTION, Ground, PATIENCE, Work};

const USER: &str = "narrow";
/// How long a run takes, in milliseconds.
const DURATION_MS: usize = 300;
/// A broker that is frozen or gone confirms nothing: then it is sent again at the end.
const LIMIT: Duration = Duration::from_secs(1);
/// From one look at what became of all to the next.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The most dead letters that are looked at.
const LETTERS: usize = 10_000;

/// Whether a request is one of these.
pub(super) fn is_one(id: &Id) -> bool {
    id.as_str().starts_with("poison-")
}

/// The producer.
pub(super) struct Poisoner {
    url: String,
    kinds: Vec<Poison>,
    /// What was sent so far, perhaps in vain: by its id the kind.
    sent: BTreeMap<String, usize>,
}

impl Poisoner {
    /// On a broker of our own it has the rights of the shipped definitions; on one that all tests share,
    /// whose users are not ours to make, those of the tests.
    pub(super) async fn new(field: &Field) -> Self {
        let (Queue::Quorum(url) | Queue::Classic(url)) = &field.queue else {
            unreachable!("a file has no properties");
        };
        let mut url: Url = url.parse().expect("a URL");
        if let Some(node) = &field.node {
            allow(node, &field.ground.topology).await;
            url.set_username(USER).expect("a host");
            url.set_password(Some(USER)).expect("a host");
        }
        Self {
            url: url.into(),
            kinds: all(),
            sent: BTreeMap::new(),
        }
    }

    /// Sends one that was not sent so far.
    pub(super) async fn send_another(&mut self, ground: &Ground, number: usize) {
        let kind = number % self.kinds.len();
        let id = self.kinds[kind].id(self.sent.len());
        // Noted before: whoever does this may be interrupted.
        self.sent.insert(id.clone(), kind);
        self.send(ground, &id, kind).await;
    }

    async fn send(&self, ground: &Ground, id: &str, kind: usize) {
        let properties = &self.kinds[kind].properties;
        let mut work = Work::new(0, DURATION_MS, "SUCCESS");
        work.id = id.parse().expect("an id");
        let sending = async {
            let mut producer = RawProducer::connect(&self.url).await?;
            let exchange = ground.topology.requests_exchange();
            let key = CONNECTION.as_bytes();
            producer
                .publish(&exchange, key, properties, &work.body())
                .await
        };
        match timeout(LIMIT, sending).await {
            Ok(Ok(())) => {}
            other => eprintln!("{id} may not have been sent: {other:?}"),
        }
    }

    /// Waits until each has its result or its dead letter, and sends again what has neither: it may have
    /// been in a queue that was deleted. Returns how many are buried.
    pub(super) async fn until_all_is_told(self, ground: &Ground, books: &mut Books) -> u32 {
        let telling = async {
            let producer = ground.producer().await;
            let mut looks = interval(LOOK_EVERY);
            loop {
                looks.tick().await;
                books.look().await;
                let letters = producer
                    .dead_letters(LETTERS)
                    .await
                    .expect("the queue is there");
                let buried: BTreeSet<String> =
                    letters.iter().map(|letter| id_in(&letter.body)).collect();
                self.nothing_went_wrong(&buried, books);
                let mut silent = 0;
                for (id, kind) in &self.sent {
                    let answered = books.poison.keys().any(|answered| answered.as_str() == id);
                    if !answered && !buried.contains(id) {
                        silent += 1;
                        self.send(ground, id, *kind).await;
                    }
                }
                if silent == 0 {
                    producer.close().await;
                    return u32::try_from(buried.len()).expect("they are few");
                }
            }
        };
        let told = timeout(PATIENCE, telling).await;
        told.expect("each request with odd properties ends")
    }

    fn nothing_went_wrong(&self, buried: &BTreeSet<String>, books: &Books) {
        let becomes = |id: &str| self.kinds[self.sent[id]].becomes;
        for id in buried {
            assert_eq!(becomes(id), Becomes::Buried, "{id}");
        }
        for (id, result) in &books.poison {
            let told = (becomes(id.as_str()), result.outcome);
            assert_eq!(told, (Becomes::Succeeds, Outcome::Success), "{id}");
        }
    }
}

fn id_in(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).expect("a request");
    body["id"].as_str().expect("it has an id").to_owned()
}

/// Gives [`USER`] what the shipped definitions give to a producer.
async fn allow(node: &Node, topology: &Topology) {
    let definitions = definitions_with_users(topology, &[CONNECTION.to_owned()], "/");
    let producer = format!("{}-producer-{CONNECTION}", topology.namespace());
    let permissions = definitions["permissions"].as_array().expect("a list");
    let rights = permissions.iter().find(|one| one["user"] == *producer);
    let rights = rights.expect("it is among them").clone();
    node.with(move |node| {
        let text = |name: &str| rights[name].as_str().expect("a pattern").to_owned();
        let (configure, write, read) = (text("configure"), text("write"), text("read"));
        node.ctl(&["add_user", USER, USER]);
        node.ctl(&[
            "set_permissions",
            "-p",
            "/",
            USER,
            &configure,
            &write,
            &read,
        ]);
    })
    .await;
}
