//! The server: one channel for all operations, and one call on it.
//!
//! Guarantees: every call but a stream is bounded in time; every call is counted; the headers are
//! asked for anew with each one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use spark_connect_proto::spark_connect_service_client::SparkConnectServiceClient;
use spark_connect_proto::{ExecutePlanResponse, ReattachExecuteRequest};
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

use super::channel::Channels;
use super::entrance::Entrance;
use super::error;
use super::splice::SpliceCodec;
use crate::config::SparkConnectSettings;
use crate::http::pace::{Brake, Pace};
use crate::observe::metrics;

/// How long a call may take whose answer is one message.
const CALL_TIMEOUT: Duration = Duration::from_mins(1);
/// The largest message that is read, in bytes: what servers send at most.
const LARGEST_MESSAGE: usize = 128 << 20;
/// Runs begun a second: what a restart of many workers may ask of one server's driver.
const BEGUN_PER_SECOND: f64 = 50.0;

/// The generated client.
pub(super) type Stub = SparkConnectServiceClient<Channel>;

/// Answers of an operation.
pub(super) type Answers = Streaming<ExecutePlanResponse>;

/// The calls, as they are counted and named in texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Version,
    Config,
    AddArtifacts,
    Execute,
    Reattach,
    Status,
    Interrupt,
    ErrorDetails,
    ReleaseExecute,
    ReleaseSession,
}

impl Call {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Version => "AnalyzePlan",
            Self::Config => "Config",
            Self::AddArtifacts => "AddArtifacts",
            Self::Execute => "ExecutePlan",
            Self::Reattach => "ReattachExecute",
            Self::Status => "GetStatus",
            Self::Interrupt => "Interrupt",
            Self::ErrorDetails => "FetchErrorDetails",
            Self::ReleaseExecute => "ReleaseExecute",
            Self::ReleaseSession => "ReleaseSession",
        }
    }
}

/// One Spark Connect server.
#[derive(Debug)]
pub(super) struct Server {
    connection: Arc<str>,
    /// Host and port, for texts.
    pub(super) host: String,
    /// The user of every call.
    pub(super) user_id: String,
    pub(super) entrance: Box<dyn Entrance>,
    channels: Channels,
    brake: Arc<Brake>,
    beginning: Pace,
    /// What went wrong with the last call, if the server is to blame or out of reach.
    trouble: Mutex<Option<String>>,
}

/// The client can't be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the client for {host} can't be made: {why}")]
pub struct ServerError {
    /// The server.
    pub host: String,
    /// Why.
    pub why: String,
}

impl Server {
    /// Makes ready to call; the connection is made with the first call, and again whenever it is
    /// lost. To be called within a tokio runtime.
    pub(super) fn new(
        connection: &str,
        namespace: &str,
        settings: &SparkConnectSettings,
        entrance: impl FnOnce(&SparkConnectSettings) -> Result<Box<dyn Entrance>, String>,
    ) -> Result<Self, ServerError> {
        let url = &settings.endpoint;
        let host = format!(
            "{}:{}",
            url.host_str().unwrap_or_default(),
            url.port_or_known_default().unwrap_or_default()
        );
        let failed = |why: String| ServerError {
            host: host.clone(),
            why,
        };
        let user_id = settings.user_id.clone();
        let brake = Brake::new();
        Ok(Self {
            connection: connection.into(),
            user_id: user_id.unwrap_or_else(|| format!("sparkferry-{namespace}")),
            entrance: entrance(settings).map_err(failed)?,
            channels: Channels::new(url, settings.ca_file.as_deref()).map_err(failed)?,
            beginning: Pace::new(BEGUN_PER_SECOND, Arc::clone(&brake)),
            brake,
            trouble: Mutex::new(None),
            host,
        })
    }

    /// Waits until one more run may be begun.
    pub(super) async fn permit(&self) {
        self.beginning.turn().await;
    }

    /// What is wrong with the server, as the last call tells, or with the way in.
    pub(super) fn trouble(&self) -> Option<String> {
        let own = self.lock_trouble().clone();
        own.or_else(|| self.entrance.trouble())
            .or_else(|| self.channels.trouble())
    }

    /// Where a call went, for texts.
    pub(super) fn place(&self, call: Call) -> String {
        format!("{} at {}", call.name(), self.host)
    }

    async fn stub(&self) -> Stub {
        SparkConnectServiceClient::new(self.channels.now().await)
            .max_decoding_message_size(LARGEST_MESSAGE)
    }

    /// A call whose answer is one message.
    pub(super) async fn call<B, T, F>(
        &self,
        call: Call,
        session_id: &str,
        body: B,
        send: impl FnOnce(Stub, Request<B>) -> F,
    ) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let request = self.request(session_id, body).await?;
        // On the heap: the generated calls are tens of kilobytes.
        let answer = timeout(CALL_TIMEOUT, Box::pin(send(self.stub().await, request))).await;
        let answer = answer.unwrap_or_else(|_| {
            let seconds = CALL_TIMEOUT.as_secs();
            Err(Status::deadline_exceeded(format!(
                "no answer within {seconds} s"
            )))
        });
        self.count(call, answer.as_ref().err());
        answer.map(Response::into_inner)
    }

    /// Begins an operation; the body is a whole `ExecutePlanRequest`. Returns when the server
    /// begins to answer, which may take as long as the operation: bound it.
    pub(super) async fn execute(&self, session_id: &str, body: Bytes) -> Result<Answers, Status> {
        let request = self.request(session_id, body).await?;
        let path = "/spark.connect.SparkConnectService/ExecutePlan";
        let mut grpc =
            Grpc::new(self.channels.now().await).max_decoding_message_size(LARGEST_MESSAGE);
        let answer = async {
            grpc.ready()
                .await
                .map_err(|error| Status::from_error(error.into()))?;
            let path = PathAndQuery::from_static(path);
            grpc.server_streaming(request, path, SpliceCodec).await
        };
        let answer = answer.await;
        self.count(Call::Execute, answer.as_ref().err());
        answer.map(Response::into_inner)
    }

    /// Asks for the answers of an operation. Returns when the server begins to answer: bound it.
    pub(super) async fn reattach(
        &self,
        session_id: &str,
        body: ReattachExecuteRequest,
    ) -> Result<Answers, Status> {
        let request = self.request(session_id, body).await?;
        let answer = self.stub().await.reattach_execute(request).await;
        self.count(Call::Reattach, answer.as_ref().err());
        answer.map(Response::into_inner)
    }

    async fn request<B>(&self, session_id: &str, body: B) -> Result<Request<B>, Status> {
        let mut request = Request::new(body);
        let headers = self.entrance.headers(session_id).await;
        *request.metadata_mut() = headers.map_err(|why| {
            *self.lock_trouble() = Some(why.clone());
            Status::unauthenticated(why)
        })?;
        Ok(request)
    }

    /// What every answer, and every answer that did not come, tells about the server.
    pub(super) fn count(&self, call: Call, error: Option<&Status>) {
        let code = error.map_or(Code::Ok, Status::code);
        let answered = !matches!(
            code,
            Code::Unavailable | Code::Unknown | Code::DeadlineExceeded | Code::Cancelled
        );
        let status = answered.then_some(code as u16);
        metrics::engine_call(&self.connection, call.name(), status);
        if answered {
            self.brake.reached();
        }
        *self.lock_trouble() = match (code, error) {
            (Code::Unauthenticated, _) => {
                Some(format!("{} does not accept our credentials", self.host))
            }
            (Code::ResourceExhausted, _) => Some(format!("{} has too much to do", self.host)),
            (_, Some(error)) if !answered => {
                let why = error::of_tls(error).unwrap_or_else(|| error.message().to_owned());
                Some(format!("{} can't be reached: {why}", self.host))
            }
            _ => None,
        };
    }

    fn lock_trouble(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SecretSource;
    use crate::engine::spark_connect::entrance::Open;

    #[tokio::test]
    async fn a_token_that_can_not_be_had_is_told_until_a_call_succeeds() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let settings = SparkConnectSettings {
            endpoint: "http://127.0.0.1:1/".parse().unwrap(),
            user_id: None,
            headers: Vec::new(),
            ca_file: None,
            token: Some(SecretSource::File(file.clone())),
            compute: None,
            max_active_runs: 1,
        };
        let open = |settings: &_| Ok(Box::new(Open::new(settings)?) as Box<dyn Entrance>);
        let server = Server::new("lake", "test", &settings, open).unwrap();
        for (content, words) in [(None, "can't be read"), (Some(" \n"), "is empty")] {
            if let Some(content) = content {
                std::fs::write(&file, content).unwrap();
            }
            let status = server.request("", ()).await.unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated);
            let trouble = server.trouble().unwrap();
            for part in ["token_file: ", file.to_str().unwrap(), words] {
                assert!(trouble.contains(part), "{part} is not in {trouble}");
            }
        }
        std::fs::write(&file, "t").unwrap();
        server.request("", ()).await.unwrap();
        server.count(Call::Version, None);
        assert_eq!(server.trouble(), None);
    }
}
