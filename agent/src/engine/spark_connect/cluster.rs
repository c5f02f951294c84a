//! The way into compute on Databricks: the workspace's token, the header that says which compute is
//! meant, and a cluster that is started where it is down.

use async_trait::async_trait;
use sparkferry_ports::engine::Fault;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

use super::entrance::{Entrance, headers_of};
use crate::config::{Compute, ComputeSettings, SparkConnectSettings};
use crate::engine::databricks::{Client, Cluster};

/// Names the cluster that a call is for.
const CLUSTER_ID: &str = "x-databricks-cluster-id";
/// Names the serverless session that a call is for: the session's own id.
const SESSION_ID: &str = "x-databricks-session-id";

/// Compute of a workspace.
#[derive(Debug)]
pub(super) struct OnDatabricks {
    /// Those of the settings.
    headers: MetadataMap,
    compute: At,
}

#[derive(Debug)]
enum At {
    Cluster(Box<Cluster>, MetadataValue<Ascii>),
    Serverless(Box<Client>),
}

impl OnDatabricks {
    /// `connection` is the connection's name, for metrics.
    ///
    /// # Errors
    /// Where the HTTP client can't be made, or a header's value can't be sent.
    pub(super) fn new(
        connection: &str,
        settings: &SparkConnectSettings,
        compute: &ComputeSettings,
    ) -> Result<Self, String> {
        let client = Client::new(connection, &compute.workspace).map_err(|error| error.why)?;
        let compute = match &compute.compute {
            Compute::Cluster(id) => {
                let header = MetadataValue::try_from(id)
                    .map_err(|_| "the cluster_id can't be sent as a header".to_owned())?;
                let interval = compute.workspace.poll_interval.0;
                At::Cluster(Box::new(Cluster::new(client, id, interval)), header)
            }
            Compute::Serverless => At::Serverless(Box::new(client)),
        };
        Ok(Self {
            headers: headers_of(settings)?,
            compute,
        })
    }
}

#[async_trait]
impl Entrance for OnDatabricks {
    async fn ready(&self, since: Instant) -> Result<(), Fault> {
        match &self.compute {
            At::Cluster(cluster, _) => cluster.ready(since).await,
            At::Serverless(_) => Ok(()),
        }
    }

    async fn headers(&self, session_id: &str) -> Result<MetadataMap, String> {
        let (token, name, value) = match &self.compute {
            At::Cluster(cluster, id) => (cluster.headers().await?, CLUSTER_ID, id.clone()),
            At::Serverless(client) => {
                let id = MetadataValue::try_from(session_id).map_err(|error| error.to_string())?;
                (client.headers().await?, SESSION_ID, id)
            }
        };
        let mut headers = self.headers.clone().into_headers();
        headers.extend(token);
        let mut headers = MetadataMap::from_headers(headers);
        headers.insert(name, value);
        Ok(headers)
    }

    fn trouble(&self) -> Option<String> {
        match &self.compute {
            At::Cluster(cluster, _) => cluster.trouble(),
            At::Serverless(client) => client.trouble(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Auth, DatabricksSettings, Reach, SecretSource};

    fn entrance(compute: Compute) -> OnDatabricks {
        // The first test installs it; the others find it.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let workspace = DatabricksSettings {
            host: "http://127.0.0.1:1".parse().unwrap(),
            auth: Auth::Pat(SecretSource::Value("t0k3n".to_owned().into())),
            reach: Reach::default(),
            max_active_runs: 1,
            submit_per_second: 1.0,
            poll_per_second: 1.0,
            poll_interval: (Duration::from_secs(1), Duration::from_secs(1)),
            call_timeout: Duration::from_secs(1),
        };
        let settings = SparkConnectSettings {
            endpoint: "http://127.0.0.1:1".parse().unwrap(),
            user_id: None,
            headers: vec![("x-place".to_owned(), "harbour".to_owned().into())],
            ca_file: None,
            token: None,
            compute: Some(Box::new(ComputeSettings { workspace, compute })),
            max_active_runs: 1,
        };
        let compute = settings.compute.clone().unwrap();
        OnDatabricks::new("lake", &settings, &compute).unwrap()
    }

    #[tokio::test]
    async fn a_call_says_which_compute_it_is_for_and_who_we_are() {
        let cluster = entrance(Compute::Cluster("c1".to_owned()));
        let serverless = entrance(Compute::Serverless);
        for (entrance, name, value) in [
            (&cluster, "x-databricks-cluster-id", "c1"),
            (&serverless, "x-databricks-session-id", "8dd7"),
        ] {
            let headers = entrance.headers("8dd7").await.unwrap();
            assert_eq!(headers.len(), 3, "{headers:?}");
            assert_eq!(headers.get(name).unwrap(), value);
            assert_eq!(headers.get("authorization").unwrap(), "Bearer t0k3n");
            assert_eq!(headers.get("x-place").unwrap(), "harbour");
            assert!(!format!("{headers:?} {entrance:?}").contains("t0k3n"));
        }
        assert!(serverless.ready(Instant::now()).await.is_ok());
        assert!(matches!(
            cluster.ready(Instant::now()).await,
            Err(Fault::Passing {
                perhaps_done: false,
                ..
            })
        ));
        assert!(cluster.trouble().unwrap().contains("127.0.0.1:1"));
    }
}
