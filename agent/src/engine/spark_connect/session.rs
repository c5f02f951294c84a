//! One session, which is one attempt: its calls, all with the same user and the same names.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use spark_connect_proto::add_artifacts_request::{Batch, Payload, SingleChunkArtifact};
use spark_connect_proto::config_request::{self, Operation, operation};
use spark_connect_proto::execute_plan_request::{RequestOption, request_option};
use spark_connect_proto::get_status_request::OperationStatusRequest;
use spark_connect_proto::get_status_response::OperationStatus;
use spark_connect_proto::interrupt_request::{Interrupt, InterruptType};
use spark_connect_proto::release_execute_request::{Release, ReleaseAll};
use spark_connect_proto::{
    AddArtifactsRequest, ConfigRequest, ConfigResponse, ExecutePlanRequest,
    FetchErrorDetailsRequest, FetchErrorDetailsResponse, GetStatusRequest, InterruptRequest,
    KeyValue, ReattachExecuteRequest, ReattachOptions, ReleaseExecuteRequest,
    ReleaseSessionRequest, UserContext,
};
use sparkferry_shared::Key;
use tonic::{Code, Status};
use uuid::Uuid;

pub(super) use spark_connect_proto::get_status_response::operation_status::OperationState;

use super::memo::{self, Memo};
use super::server::{Answers, Call, Server, Stub};
use super::splice::spliced;

/// What the server is told that we are.
pub(super) const CLIENT: &str = concat!("sparkferry/", env!("CARGO_PKG_VERSION"));

/// A session of the server.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) server: Arc<Server>,
    pub(super) key: Key,
    id: String,
    /// The server's own name of the session, as its first answer told it. Sent along from then on:
    /// a server that was restarted in between says so instead of beginning anew.
    observed: Mutex<Option<String>>,
}

impl Session {
    pub(super) fn new(server: Arc<Server>, key: Key) -> Self {
        Self {
            server,
            id: key.to_string(),
            key,
            observed: Mutex::new(None),
        }
    }

    fn user(&self) -> UserContext {
        user(&self.server.user_id)
    }

    fn observed(&self) -> Option<String> {
        self.lock().clone()
    }

    /// Takes down what an answer tells of the server's own name of the session.
    pub(super) fn observe(&self, server_side: &str) {
        if !server_side.is_empty() {
            self.lock().get_or_insert_with(|| server_side.to_owned());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the session remembers of its run. Makes the session where there is none.
    pub(super) async fn memo(&self) -> Result<Option<Memo>, Status> {
        let keys = vec![memo::KEY.to_owned()];
        let get = config_request::GetOption { keys };
        let answer = self.config(operation::OpType::GetOption(get)).await?;
        let value = answer.pairs.into_iter().find_map(|pair| pair.value);
        Ok(value.and_then(|text| Memo::from_text(&text)))
    }

    /// Has the session remember this. A server that refuses the setting does so silently.
    pub(super) async fn remember(&self, memo: &Memo) -> Result<(), Status> {
        let pair = KeyValue {
            key: memo::KEY.to_owned(),
            value: Some(memo.to_text()),
        };
        let set = config_request::Set {
            pairs: vec![pair],
            silent: Some(true),
        };
        self.config(operation::OpType::Set(set)).await.map(drop)
    }

    /// Sets settings of the session; a wrong one is an error.
    pub(super) async fn set(&self, pairs: Vec<KeyValue>) -> Result<(), Status> {
        let set = config_request::Set {
            pairs,
            silent: None,
        };
        self.config(operation::OpType::Set(set)).await.map(drop)
    }

    async fn config(&self, operation: operation::OpType) -> Result<ConfigResponse, Status> {
        let body = ConfigRequest {
            session_id: self.id.clone(),
            client_observed_server_side_session_id: self.observed(),
            user_context: Some(self.user()),
            operation: Some(Operation {
                op_type: Some(operation),
            }),
            client_type: Some(CLIENT.to_owned()),
        };
        let send = |mut stub: Stub, request| async move { stub.config(request).await };
        let answer = self.server.call(Call::Config, &self.id, body, send).await?;
        self.observe(&answer.server_side_session_id);
        Ok(answer)
    }

    /// Gives files to the session. The same file twice is no error.
    pub(super) async fn add_artifacts(
        &self,
        artifacts: Vec<SingleChunkArtifact>,
    ) -> Result<(), Status> {
        let body = AddArtifactsRequest {
            session_id: self.id.clone(),
            user_context: Some(self.user()),
            client_observed_server_side_session_id: self.observed(),
            client_type: Some(CLIENT.to_owned()),
            payload: Some(Payload::Batch(Batch { artifacts })),
        };
        let messages = futures_util::stream::iter([body]);
        let call = Call::AddArtifacts;
        let send = |mut stub: Stub, request| async move { stub.add_artifacts(request).await };
        let answer = self.server.call(call, &self.id, messages, send).await?;
        self.observe(&answer.server_side_session_id);
        let broken = answer.artifacts.iter().find(|file| !file.is_crc_successful);
        match broken {
            Some(file) => Err(Status::unavailable(format!(
                "{} arrived damaged",
                file.name
            ))),
            None => Ok(()),
        }
    }

    /// Begins an operation and asks for its answers.
    pub(super) async fn execute(&self, operation: Uuid, plan: &Bytes) -> Result<Answers, Status> {
        let reattachable =
            request_option::RequestOption::ReattachOptions(ReattachOptions { reattachable: true });
        let request = ExecutePlanRequest {
            session_id: self.id.clone(),
            client_observed_server_side_session_id: self.observed(),
            user_context: Some(self.user()),
            operation_id: Some(operation.to_string()),
            plan: None,
            client_type: Some(CLIENT.to_owned()),
            request_options: vec![RequestOption {
                request_option: Some(reattachable),
            }],
            tags: Vec::new(),
        };
        self.server.execute(&self.id, spliced(&request, plan)).await
    }

    /// Asks for the answers of an operation after the last one seen, or from the first on. Whoever
    /// read them before is cut off.
    pub(super) async fn reattach(
        &self,
        operation: Uuid,
        last_response_id: Option<String>,
    ) -> Result<Answers, Status> {
        let body = ReattachExecuteRequest {
            session_id: self.id.clone(),
            client_observed_server_side_session_id: self.observed(),
            user_context: Some(self.user()),
            operation_id: operation.to_string(),
            client_type: Some(CLIENT.to_owned()),
            last_response_id,
        };
        self.server.reattach(&self.id, body).await
    }

    /// The state of an operation; `None` where the server has no such call.
    pub(super) async fn status(&self, operation: Uuid) -> Result<Option<OperationState>, Status> {
        let body = GetStatusRequest {
            session_id: self.id.clone(),
            user_context: Some(self.user()),
            client_type: Some(CLIENT.to_owned()),
            client_observed_server_side_session_id: self.observed(),
            operation_status: Some(OperationStatusRequest {
                operation_ids: vec![operation.to_string()],
                extensions: Vec::new(),
            }),
            extensions: Vec::new(),
        };
        let send = |mut stub: Stub, request| async move { stub.get_status(request).await };
        match self.server.call(Call::Status, &self.id, body, send).await {
            Ok(answer) => {
                let state = answer
                    .operation_statuses
                    .first()
                    .map(OperationStatus::state);
                Ok(Some(state.unwrap_or(OperationState::Unknown)))
            }
            Err(status) if status.code() == Code::Unimplemented => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Interrupts an operation; whether there was one to interrupt.
    pub(super) async fn interrupt(&self, operation: Uuid) -> Result<bool, Status> {
        let body = InterruptRequest {
            session_id: self.id.clone(),
            client_observed_server_side_session_id: self.observed(),
            user_context: Some(self.user()),
            client_type: Some(CLIENT.to_owned()),
            interrupt_type: InterruptType::OperationId.into(),
            interrupt: Some(Interrupt::OperationId(operation.to_string())),
        };
        let send = |mut stub: Stub, request| async move { stub.interrupt(request).await };
        let answer = self
            .server
            .call(Call::Interrupt, &self.id, body, send)
            .await?;
        Ok(!answer.interrupted_ids.is_empty())
    }

    /// What is behind an error; a server tells it once.
    pub(super) async fn error_details(
        &self,
        error_id: String,
    ) -> Result<FetchErrorDetailsResponse, Status> {
        let body = FetchErrorDetailsRequest {
            session_id: self.id.clone(),
            client_observed_server_side_session_id: self.observed(),
            user_context: Some(self.user()),
            error_id,
            client_type: Some(CLIENT.to_owned()),
        };
        let send = |mut stub: Stub, request| async move { stub.fetch_error_details(request).await };
        self.server
            .call(Call::ErrorDetails, &self.id, body, send)
            .await
    }

    /// Has the server forget the answers of an operation. Its state is still known afterwards.
    pub(super) async fn release_operation(&self, operation: Uuid) -> Result<(), Status> {
        let body = ReleaseExecuteRequest {
            session_id: self.id.clone(),
            client_observed_server_side_session_id: self.observed(),
            user_context: Some(self.user()),
            operation_id: operation.to_string(),
            client_type: Some(CLIENT.to_owned()),
            release: Some(Release::ReleaseAll(ReleaseAll {})),
        };
        let send = |mut stub: Stub, request| async move { stub.release_execute(request).await };
        let answer = self
            .server
            .call(Call::ReleaseExecute, &self.id, body, send)
            .await;
        answer.map(drop)
    }

    /// Ends the session.
    pub(super) async fn release(&self) -> Result<(), Status> {
        release(&self.server, self.id.clone()).await
    }
}

/// Ends a session. Its name can't be used again: what comes late starts nothing.
pub(super) async fn release(server: &Server, session_id: String) -> Result<(), Status> {
    let body = ReleaseSessionRequest {
        session_id: session_id.clone(),
        user_context: Some(user(&server.user_id)),
        client_type: Some(CLIENT.to_owned()),
        allow_reconnect: false,
    };
    let send = |mut stub: Stub, request| async move { stub.release_session(request).await };
    let answer = server
        .call(Call::ReleaseSession, &session_id, body, send)
        .await;
    answer.map(drop)
}

/// The user of every call.
pub(super) fn user(user_id: &str) -> UserContext {
    UserContext {
        user_id: user_id.to_owned(),
        user_name: user_id.to_owned(),
        extensions: Vec::new(),
    }
}
