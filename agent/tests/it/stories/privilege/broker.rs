//! A broker with the shipped definitions, and what its users may do there.

use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use sparkferry_agent::queue::amqp::AmqpProducer;
use sparkferry_shared::Topology;
use sparkferry_testkit::story::broker::BrokerNode;
use tokio::task::spawn_blocking;

use super::shipped;

const PASSWORD: &str = "pass";

/// A node with the shipped definitions, whose users have passwords.
pub(super) struct Broker {
    pub(super) node: BrokerNode,
}

impl Broker {
    pub(super) async fn start() -> Self {
        let starting = spawn_blocking(|| {
            let node = BrokerNode::start("");
            let file = shipped();
            node.ctl(&["import_definitions", file.to_str().expect("a path")]);
            for user in ["worker", "producer-prod", "producer-lake", "operator"] {
                node.ctl(&["change_password", &format!("sparkferry-{user}"), PASSWORD]);
            }
            Self { node }
        });
        starting.await.expect("it starts")
    }

    pub(super) fn url(&self, user: &str) -> String {
        let login = format!("sparkferry-{user}:{PASSWORD}@");
        let url = self.node.url().replace("guest:guest@", &login);
        url.replace("/%2f", "/sparkferry")
    }

    pub(super) async fn producer(&self, user: &str) -> AmqpProducer {
        let topology = Topology::new("sparkferry");
        let url = self.url(user).into();
        let connecting = AmqpProducer::connect(&url, &topology, false);
        connecting.await.expect("it may connect")
    }

    pub(super) async fn channel(&self, user: &str) -> Channel {
        let url = self.url(user);
        let connecting = Connection::connect(&url, ConnectionProperties::default());
        let connection = connecting.await.expect("it may connect");
        connection.create_channel().await.expect("it is connected")
    }

    /// Whether publishing is allowed; that no queue may get it is another matter.
    pub(super) async fn may_publish(&self, user: &str, exchange: &str, key: &str) -> bool {
        let channel = self.channel(user).await;
        let options = ConfirmSelectOptions::default();
        channel.confirm_select(options).await.expect("a channel");
        let publishing = channel.basic_publish(
            exchange.into(),
            key.into(),
            BasicPublishOptions::default(),
            b"{}",
            BasicProperties::default(),
        );
        allowed(publishing.await.expect("it is sent").await)
    }

    pub(super) async fn may_consume(&self, user: &str, queue: &str) -> bool {
        let channel = self.channel(user).await;
        let consuming = channel.basic_consume(
            queue.into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        allowed(consuming.await)
    }

    pub(super) async fn may_declare(&self, user: &str, queue: &str) -> bool {
        let options = QueueDeclareOptions::durable();
        let channel = self.channel(user).await;
        allowed(
            channel
                .queue_declare(queue.into(), options, FieldTable::default())
                .await,
        )
    }

    pub(super) async fn may_bind(&self, user: &str, queue: &str, exchange: &str) -> bool {
        let channel = self.channel(user).await;
        let binding = channel.queue_bind(
            queue.into(),
            exchange.into(),
            "#".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        allowed(binding.await)
    }
}

/// Refused is refused for want of a permission, and for nothing else.
pub(super) fn allowed<T>(tried: lapin::Result<T>) -> bool {
    match tried {
        Ok(_) => true,
        Err(error) => {
            assert!(error.to_string().contains("ACCESS_REFUSED"), "{error}");
            false
        }
    }
}
