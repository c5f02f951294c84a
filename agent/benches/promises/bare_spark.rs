//! The calls that the engine makes for a statement, by the generated client alone: what the server
//! and the machine themselves take.

use proto::execute_plan_request::{RequestOption, request_option};
use proto::execute_plan_response::ResponseType;
use proto::release_execute_request::{Release, ReleaseAll};
use proto::spark_connect_service_client::SparkConnectServiceClient;
use spark_connect_proto as proto;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

/// The most that a message may have, in bytes.
const LARGEST_MESSAGE: usize = 128 << 20;
/// A setting that the session keeps.
const KEPT: &str = "bench.kept";

/// A client of a server.
pub(crate) struct BareSpark {
    stub: SparkConnectServiceClient<Channel>,
}

impl BareSpark {
    /// Connects with the first call.
    pub(crate) fn connect(port: u16) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"));
        let channel = endpoint
            .expect("an address")
            .tcp_nodelay(true)
            .connect_lazy();
        Self {
            stub: SparkConnectServiceClient::new(channel)
                .max_decoding_message_size(LARGEST_MESSAGE),
        }
    }

    /// Runs a statement in a session of its own; returns the size of its rows, in bytes of Arrow.
    ///
    /// As the engine does: what the session remembers is read, written and read again; the
    /// operation; its ending is written; operation and session are released.
    pub(crate) async fn statement(&mut self, query: &str) -> usize {
        let session = Uuid::now_v7().to_string();
        let operation = Uuid::now_v7().to_string();
        self.config(&session, read()).await;
        self.config(&session, write()).await;
        self.config(&session, read()).await;
        let bytes = self.execute(&session, &operation, query).await;
        self.config(&session, write()).await;
        let release = proto::ReleaseExecuteRequest {
            session_id: session.clone(),
            user_context: Some(user()),
            operation_id: operation,
            release: Some(Release::ReleaseAll(ReleaseAll {})),
            ..Default::default()
        };
        let released = self.stub.release_execute(release).await;
        released.expect("released");
        let release = proto::ReleaseSessionRequest {
            session_id: session,
            user_context: Some(user()),
            ..Default::default()
        };
        let released = self.stub.release_session(release).await;
        released.expect("released");
        bytes
    }

    async fn execute(&mut self, session: &str, operation: &str, query: &str) -> usize {
        let relation = proto::Relation {
            common: None,
            rel_type: Some(proto::relation::RelType::Sql(proto::Sql {
                query: query.to_owned(),
                ..Default::default()
            })),
        };
        let reattachable = request_option::RequestOption::ReattachOptions(proto::ReattachOptions {
            reattachable: true,
        });
        let request = proto::ExecutePlanRequest {
            session_id: session.to_owned(),
            user_context: Some(user()),
            operation_id: Some(operation.to_owned()),
            plan: Some(proto::Plan {
                op_type: Some(proto::plan::OpType::Root(relation)),
            }),
            request_options: vec![RequestOption {
                request_option: Some(reattachable),
            }],
            ..Default::default()
        };
        let answers = self.stub.execute_plan(request).await;
        let mut answers = answers.expect("it begins").into_inner();
        let mut bytes = 0;
        while let Some(answer) = answers.message().await.expect("an answer") {
            if let Some(ResponseType::ArrowBatch(batch)) = answer.response_type {
                bytes += batch.data.len();
            }
        }
        bytes
    }

    async fn config(&mut self, session: &str, operation: proto::config_request::Operation) {
        let request = proto::ConfigRequest {
            session_id: session.to_owned(),
            user_context: Some(user()),
            operation: Some(operation),
            ..Default::default()
        };
        self.stub.config(request).await.expect("an answer");
    }
}

fn read() -> proto::config_request::Operation {
    use proto::config_request::{GetOption, operation::OpType};
    let keys = vec![KEPT.to_owned()];
    proto::config_request::Operation {
        op_type: Some(OpType::GetOption(GetOption { keys })),
    }
}

fn write() -> proto::config_request::Operation {
    use proto::config_request::{Set, operation::OpType};
    let pair = proto::KeyValue {
        key: KEPT.to_owned(),
        value: Some("so much".to_owned()),
    };
    proto::config_request::Operation {
        op_type: Some(OpType::Set(Set {
            pairs: vec![pair],
            silent: Some(true),
        })),
    }
}

fn user() -> proto::UserContext {
    proto::UserContext {
        user_id: "bench".to_owned(),
        ..Default::default()
    }
}
