//! The bare protocol, to judge from outside what a worker did: no re-attaching, no care.

use proto::execute_plan_response::ResponseType;
use proto::get_status_response::operation_status::OperationState;
use proto::spark_connect_service_client::SparkConnectServiceClient;
use spark_connect_proto as proto;
use sparkferry_shared::Key;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use uuid::Uuid;

/// A session of its own on a server.
pub(super) struct BareClient {
    stub: SparkConnectServiceClient<Channel>,
    session: String,
    token: Option<String>,
}

impl BareClient {
    /// Connects with the first call. A token goes along with each.
    pub(super) fn of(port: u16, token: Option<&str>) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"));
        Self {
            stub: SparkConnectServiceClient::new(endpoint.expect("an address").connect_lazy()),
            session: Uuid::now_v7().to_string(),
            token: token.map(str::to_owned),
        }
    }

    fn request<T>(&self, body: T) -> Request<T> {
        let mut request = Request::new(body);
        if let Some(token) = &self.token {
            let bearer = format!("Bearer {token}").parse().expect("a header's value");
            request.metadata_mut().insert("authorization", bearer);
        }
        request
    }

    /// Runs a query and says how many rows it has.
    pub(super) async fn rows(&mut self, query: &str) -> Result<i64, Status> {
        let request = self.request(proto::ExecutePlanRequest {
            session_id: self.session.clone(),
            user_context: Some(user("judge")),
            plan: Some(plan(query)),
            ..proto::ExecutePlanRequest::default()
        });
        let mut replies = self.stub.execute_plan(request).await?.into_inner();
        let mut rows = 0;
        while let Some(reply) = replies.message().await? {
            if let Some(ResponseType::ArrowBatch(batch)) = reply.response_type {
                rows += batch.row_count;
            }
        }
        Ok(rows)
    }

    /// Begins the operation of a step in somebody's session, and leaves it.
    pub(super) async fn execute(
        &mut self,
        user_id: &str,
        session: Key,
        step: u32,
        query: &str,
    ) -> Result<(), Status> {
        use proto::execute_plan_request::{RequestOption, request_option};
        let reattachable = proto::ReattachOptions { reattachable: true };
        let option = request_option::RequestOption::ReattachOptions(reattachable);
        let request = self.request(proto::ExecutePlanRequest {
            session_id: session.to_string(),
            user_context: Some(user(user_id)),
            operation_id: Some(session.step(step).to_string()),
            plan: Some(plan(query)),
            request_options: vec![RequestOption {
                request_option: Some(option),
            }],
            ..proto::ExecutePlanRequest::default()
        });
        self.stub.execute_plan(request).await.map(drop)
    }

    /// The state of somebody's operation, as far as the server knows it.
    pub(super) async fn state(
        &mut self,
        user_id: &str,
        session: Key,
        operation: Uuid,
    ) -> Option<OperationState> {
        let request = self.request(proto::GetStatusRequest {
            session_id: session.to_string(),
            user_context: Some(user(user_id)),
            operation_status: Some(proto::get_status_request::OperationStatusRequest {
                operation_ids: vec![operation.to_string()],
                ..Default::default()
            }),
            ..proto::GetStatusRequest::default()
        });
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
        let request = self.request(proto::ConfigRequest {
            session_id: session.to_string(),
            user_context: Some(user(user_id)),
            operation: Some(Operation {
                op_type: Some(OpType::Unset(Unset { keys })),
            }),
            ..proto::ConfigRequest::default()
        });
        self.stub.config(request).await.map(drop)
    }

    /// Ends somebody's session, and with it all that the server knows of its operations.
    pub(super) async fn release(&mut self, user_id: &str, session: Uuid) -> Result<(), Status> {
        let request = self.request(proto::ReleaseSessionRequest {
            session_id: session.to_string(),
            user_context: Some(user(user_id)),
            ..proto::ReleaseSessionRequest::default()
        });
        self.stub.release_session(request).await.map(drop)
    }
}

fn plan(query: &str) -> proto::Plan {
    let sql = proto::Sql {
        query: query.to_owned(),
        ..proto::Sql::default()
    };
    proto::Plan {
        op_type: Some(proto::plan::OpType::Root(proto::Relation {
            common: None,
            rel_type: Some(proto::relation::RelType::Sql(sql)),
        })),
    }
}

fn user(id: &str) -> proto::UserContext {
    proto::UserContext {
        user_id: id.to_owned(),
        ..proto::UserContext::default()
    }
}
