//! Databricks' compute as a Spark Connect server: a cluster, or serverless.

use url::Url;

use super::address::is_loopback;
use super::check::{Variables, value};
use super::databricks::databricks;
use super::file::DatabricksFile;
use super::shape::Tagged;
use super::{Compute, ComputeSettings, ConfigError};

/// What of a `spark_connect` connection is about Databricks.
pub(super) struct ComputeFile {
    pub(super) host: Option<String>,
    pub(super) auth: Option<Tagged>,
    pub(super) cluster_id: Option<String>,
    pub(super) serverless: Option<bool>,
}

/// The compute, if the connection names one. `endpoint` is where its URL leads, if it has one.
pub(super) fn compute(
    path: &str,
    file: ComputeFile,
    endpoint: Option<&Url>,
    variables: &Variables,
) -> Result<Option<ComputeSettings>, ConfigError> {
    let at = |key: &str| format!("{path}.{key}");
    let compute = match (file.cluster_id, file.serverless) {
        (Some(_), Some(true)) => {
            let why = "stands beside cluster_id: only one of them may be set";
            return Err(value(at("serverless"), why));
        }
        (Some(id), _) if id.trim().is_empty() => {
            return Err(value(at("cluster_id"), "is empty"));
        }
        (Some(id), _) => Compute::Cluster(id),
        (None, Some(true)) => Compute::Serverless,
        (None, _) => {
            for (key, stands) in [("host", file.host.is_some()), ("auth", file.auth.is_some())] {
                if stands {
                    let why = "belongs to compute on Databricks: cluster_id, or serverless = true, \
                               is missing beside it";
                    return Err(value(at(key), why));
                }
            }
            return Ok(None);
        }
    };
    // Workspace and compute are one host, but for tests on loopback.
    let host = file.host.or_else(|| {
        let endpoint = endpoint.filter(|endpoint| !is_loopback(endpoint))?;
        Some(format!("https://{}", endpoint.host_str()?))
    });
    let workspace = databricks(path, DatabricksFile::only(host, file.auth), variables)?;
    Ok(Some(ComputeSettings { workspace, compute }))
}
