//! The names of queues and exchanges on the broker.

/// The names that follow from a namespace. The worker declares them, or the operator does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    namespace: String,
}

/// The namespace where none is set.
pub const DEFAULT_NAMESPACE: &str = "sparkferry";

impl Topology {
    /// The names under a namespace.
    pub fn new(namespace: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
        }
    }

    /// The namespace itself.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whether a producer may have results sent to this queue: of names under the namespace those of
    /// replies alone. To any other a result would be a request, or somebody else's result.
    pub fn takes_replies(&self, queue: &str) -> bool {
        let ours = queue.strip_prefix(&self.namespace);
        let ours = ours.and_then(|rest| rest.strip_prefix('.'));
        ours.is_none_or(|rest| rest.starts_with("replies."))
    }

    /// Direct exchange; the routing key of a request is its connection.
    pub fn requests_exchange(&self) -> String {
        format!("{}.requests", self.namespace)
    }

    /// Quorum queue with the requests of one connection.
    pub fn requests_queue(&self, connection: &str) -> String {
        format!("{}.requests.{connection}", self.namespace)
    }

    /// Topic exchange of results; the routing key is `{connection}.{OUTCOME}`.
    pub fn results_exchange(&self) -> String {
        format!("{}.results", self.namespace)
    }

    /// Quorum queue with all results, bound with `#`.
    pub fn results_queue(&self) -> String {
        format!("{}.results", self.namespace)
    }

    /// Topic exchange of events; the routing key is `{connection}.{type}`.
    pub fn events_exchange(&self) -> String {
        format!("{}.events", self.namespace)
    }

    /// Fanout exchange of cancels.
    pub fn control_exchange(&self) -> String {
        format!("{}.control", self.namespace)
    }

    /// Stream that keeps the cancels of a day for workers that start later.
    pub fn control_queue(&self) -> String {
        format!("{}.control", self.namespace)
    }

    /// Fanout exchange of what can't be read.
    pub fn dead_exchange(&self) -> String {
        format!("{}.dead", self.namespace)
    }

    /// Quorum queue with what can't be read.
    pub fn dead_queue(&self) -> String {
        format!("{}.dead", self.namespace)
    }
}

/// The header of a dead letter that tells why in one word.
pub const DEAD_REASON_HEADER: &str = "x-sparkferry-reason";
/// The header of a dead letter that tells why in a sentence.
pub const DEAD_ERROR_HEADER: &str = "x-sparkferry-error";
/// The header of a dead letter that tells from which connection's queue it came.
pub const DEAD_CONNECTION_HEADER: &str = "x-sparkferry-connection";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_our_names_those_of_replies_alone_take_replies() {
        let topology = Topology::new("ns");
        for taken in [
            "amq.gen-1",
            "ns",
            "nsx.results",
            "ns.replies.me.1",
            "other.ns.results",
        ] {
            assert!(topology.takes_replies(taken), "{taken}");
        }
        for refused in [
            "ns.results",
            "ns.requests.prod",
            "ns.dead",
            "ns.",
            "ns.replies",
        ] {
            assert!(!topology.takes_replies(refused), "{refused}");
        }
    }
}
