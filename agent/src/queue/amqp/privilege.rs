//! Definitions for a broker on which nobody may do more than they must.
//!
//! Everything is the operator's: workers run with `declare = false` and may configure nothing. What
//! is not a queue's type stands in policies, which can be changed while the queues are in use.
//!
//! One thing is otherwise than where the worker declares it: the exchange of requests is a topic
//! exchange. To who publishes it is the same, since no connection's name has a dot or a wildcard in
//! it. But RabbitMQ limits *routing keys* only on topic exchanges, and without that a producer that
//! may publish for one connection may publish for all.

use serde_json::{Map, Value, json};
use sparkferry_shared::Topology;

use super::topology::definitions;

/// The definitions of [`definitions`] in a virtual host, with users: one for workers, one for the
/// producers of each connection, one for the operator. None of them can log in by password before
/// it is given one; by certificate (EXTERNAL) they can as they are.
pub fn definitions_with_users(topology: &Topology, connections: &[String], vhost: &str) -> Value {
    let mut all = definitions(topology, connections, vhost);
    let requests = topology.requests_exchange();
    for exchange in list(&mut all["exchanges"]) {
        if exchange["name"] == *requests {
            exchange["type"] = "topic".into();
        }
    }
    all["policies"] = list(&mut all["queues"])
        .iter_mut()
        .filter_map(|queue| policy(topology, queue))
        .fold(Vec::new(), |mut policies, policy| {
            // The queues of all connections share theirs.
            if !policies.contains(&policy) {
                policies.push(policy);
            }
            policies
        })
        .into();
    let users = users(topology, connections);
    all["users"] = users.iter().map(User::account).collect();
    all["permissions"] = users.iter().map(|user| user.permissions(vhost)).collect();
    all["topic_permissions"] = users
        .iter()
        .filter_map(|user| user.routing_keys(topology, vhost))
        .collect();
    all
}

fn list(value: &mut Value) -> &mut [Value] {
    value.as_array_mut().map_or(&mut [], Vec::as_mut_slice)
}

/// Takes a queue's arguments for a policy of its own; its type alone has to stay.
fn policy(topology: &Topology, queue: &mut Value) -> Option<Value> {
    let arguments = queue["arguments"].as_object_mut()?;
    let kind = arguments.remove("x-queue-type")?;
    let definition: Map<String, Value> = std::mem::take(arguments)
        .into_iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("x-")?.to_owned(), value)))
        .collect();
    arguments.insert("x-queue-type".into(), kind);
    let name = queue["name"].as_str()?;
    let of_connections = topology.requests_queue("");
    let (name, pattern) = if name.starts_with(&of_connections) {
        let requests = topology.requests_exchange();
        let pattern = format!("^{}", escaped(&of_connections));
        (requests, pattern)
    } else {
        (name.to_owned(), format!("^{}$", escaped(name)))
    };
    Some(json!({
        "name": name, "vhost": queue["vhost"], "pattern": pattern, "apply-to": "queues",
        "priority": 0, "definition": definition,
    }))
}

/// Somebody who logs in, and the patterns of what they may use.
struct User {
    name: String,
    configure: &'static str,
    write: String,
    read: String,
    /// The one connection that requests may be published for; `None` where there is no limit.
    only: Option<String>,
}

/// Queues that the broker names, of which each belongs to the connection that asked for it.
const OWN: &str = r"amq\.gen-.*";

fn users(topology: &Topology, connections: &[String]) -> Vec<User> {
    let namespace = topology.namespace();
    let ns = escaped(namespace);
    let worker = User {
        name: format!("{namespace}-worker"),
        configure: "^$",
        // The default exchange is for replies.
        write: format!(r"^(amq\.default|{ns}\.(results|events|dead))$"),
        read: format!(r"^{ns}\.(control|requests\.({}))$", connections.join("|")),
        only: None,
    };
    let producers = connections.iter().map(|connection| User {
        name: format!("{namespace}-producer-{connection}"),
        configure: r"^amq\.gen-.*$",
        write: format!(r"^({OWN}|{ns}\.requests)$"),
        read: format!(r"^({OWN}|{ns}\.events)$"),
        only: Some(connection.clone()),
    });
    let operator = User {
        name: format!("{namespace}-operator"),
        configure: r"^amq\.gen-.*$",
        write: format!(r"^({OWN}|{ns}\.(control|requests))$"),
        read: format!(r"^({OWN}|{ns}\.(events|results|dead))$"),
        only: None,
    };
    std::iter::once(worker)
        .chain(producers)
        .chain([operator])
        .collect()
}

impl User {
    /// An empty hash is no password: nobody can log in with one.
    fn account(&self) -> Value {
        json!({
            "name": self.name, "password_hash": "",
            "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": [], "limits": {},
        })
    }

    fn permissions(&self, vhost: &str) -> Value {
        json!({
            "user": self.name, "vhost": vhost,
            "configure": self.configure, "write": self.write, "read": self.read,
        })
    }

    fn routing_keys(&self, topology: &Topology, vhost: &str) -> Option<Value> {
        let connection = self.only.as_deref()?;
        Some(json!({
            "user": self.name, "vhost": vhost, "exchange": topology.requests_exchange(),
            "write": format!("^{connection}$"), "read": "^$",
        }))
    }
}

/// A name in a pattern. Names are made of letters, digits, `-`, `_` and dots.
fn escaped(name: &str) -> String {
    name.replace('.', r"\.")
}
