//! What a status carries besides its code and message: Google's `rpc.Status` with an `ErrorInfo`.

use std::collections::HashMap;
use std::time::Duration;

use prost::Message;
use tonic::Status;

/// The details that are read. Whatever is damaged counts as absent.
#[derive(Debug, Default)]
pub(super) struct Details {
    info: ErrorInfo,
    retry_after: Option<Duration>,
}

impl Details {
    pub(super) fn read(status: &Status) -> Self {
        let mut details = Self::default();
        let whole = RpcStatus::decode(status.details()).unwrap_or_default();
        for detail in whole.details {
            let type_name = detail.type_url.rsplit('/').next().unwrap_or_default();
            match type_name {
                "google.rpc.ErrorInfo" => {
                    details.info = ErrorInfo::decode(&*detail.value).unwrap_or_default();
                }
                "google.rpc.RetryInfo" => {
                    let info = RetryInfo::decode(&*detail.value).unwrap_or_default();
                    let delay = info.retry_delay.unwrap_or_default();
                    let seconds = u64::try_from(delay.seconds).unwrap_or_default();
                    let nanoseconds = u32::try_from(delay.nanos).unwrap_or_default();
                    let nanoseconds = nanoseconds.min(999_999_999);
                    details.retry_after = Some(Duration::new(seconds, nanoseconds));
                }
                _ => {}
            }
        }
        details
    }

    /// An entry of the metadata, if it says something.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let value = self.info.metadata.get(name)?;
        (!value.is_empty()).then_some(value)
    }

    /// Spark's error class, with its subclass: `INVALID_HANDLE.SESSION_CLOSED`.
    pub(super) fn error_class(&self) -> Option<&str> {
        self.get("errorClass")
    }

    pub(super) fn sql_state(&self) -> Option<&str> {
        self.get("sqlState")
    }

    /// The Java exception's name without its package.
    pub(super) fn exception(&self) -> Option<String> {
        let name = self.info.reason.rsplit(['.', '$']).next()?;
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// The server says that the same call may be made again, after so long.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(super) details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Any {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

/// `google.rpc.ErrorInfo`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ErrorInfo {
    #[prost(string, tag = "1")]
    pub(super) reason: String,
    #[prost(string, tag = "2")]
    pub(super) domain: String,
    #[prost(map = "string, string", tag = "3")]
    pub(super) metadata: HashMap<String, String>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    pub(super) retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Delay {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}
