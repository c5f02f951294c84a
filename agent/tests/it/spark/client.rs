//! The bare protocol, to judge from outside what a worker did: no re-attaching, no care.

use proto::execute_plan_response::ResponseType;
use proto::get_status_response::operation_status::OperationState;
use proto::spark_connect_service_client::SparkConnectServiceClient;
use spark_connect_proto as proto;
use sparkferry_shared::Key;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

/// A session of its own on a server.
pub(super) struct BareClient {
    stub: SparkConnectServiceClient<Channel>,
    session: String,
}

impl BareClient {
    /// Connects with the first call.
    pub(super) fn of(port: u16) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"));
        Self {
            stub: SparkConnectServiceClient::new(endpoint.expect("an address").connect_lazy()),
            session: Uuid::now_v7().to_string(),
        }
    }

    /// Runs a query and says how many rows it has.
    pub(super) async fn rows(&mut self, query: &str) -> Result<i64, Status> {
        let relation = proto::Relation {
            common: None,
            rel_type: Some(proto::relation::RelType::Sql(proto::Sql {
                query: query.to_owned(),
                ..proto::Sql::default()
            })),
        };
        let request = proto::ExecutePlanRequest {
            session_id: self.session.clone(),
            user_context: Some(user("judge")),
            plan: Some(proto::Plan {
                op_type: Some(proto::plan::OpType::Root(relation)),
            }),
            ..proto::ExecutePlanRequest::default()
        };
        let mut replies = self.stub.execute_plan(request).await?.into_inner();
        let mut rows = 0;
        while let Some(reply) = replies.message().await? {
            if let Some(ResponseType::ArrowBatch(batch)) = reply.response_type {
                rows += batch.row_count;
            }
        }
        Ok(rows)
    }

    /// The state of somebody's operation, as far as the server knows it.
    pub(super) async fn state(
        &mut self,
        user_id: &str,
        session: Key,
        operation: Uuid,
    ) -> Option<OperationState> {
        let request = proto::GetStatusRequest {
            session_id: session.to_string(),
            user_context: Some(user(user_id)),
            operation_status: Some(proto::get_status_request::OperationStatusRequest {
                operation_ids: vec![operation.to_string()],
                ..Default::default()
            }),
            ..proto::GetStatusRequest::default()
        };
        let reply = self.stub.get_status(request).await.ok()?.into_inner();
        let status = reply.operation_statuses.first()?;
        Some(status.state())
    }

    /// Takes a setting out of somebody's session.
    pub(super) async fn unset(
        &mut self,
        user_id: &str,
        session: Uuid,
        key: &str,
    ) -> Result<(), Status> {
        use proto::config_request::{Operation, Unset, operation::OpType};
        let keys = vec![key.to_owned()];
        let request = proto::ConfigRequest {
            session_id: session.to_string(),
            user_context: Some(user(user_id)),
            operation: Some(Operation {
                op_type: Some(OpType::Unset(Unset { keys })),
            }),
            ..proto::ConfigRequest::default()
        };
        self.stub.config(request).await.map(drop)
    }

    /// Ends somebody's session, and with it all that the server knows of its operations.
    pub(super) async fn release(&mut self, user_id: &str, session: Uuid) -> Result<(), Status> {
        let request = proto::ReleaseSessionRequest {
            session_id: session.to_string(),
            user_context: Some(user(user_id)),
            ..proto::ReleaseSessionRequest::default()
        };
        self.stub.release_session(request).await.map(drop)
    }
}

fn user(id: &str) -> proto::UserContext {
    proto::UserContext {
        user_id: id.to_owned(),
        ..proto::UserContext::default()
    }
}
