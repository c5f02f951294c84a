//! The settings of a Databricks workspace.

use std::time::Duration;

use super::address;
use super::ambient::Ambient;
use super::auth::{Known, Said, auth};
use super::check::{Variables, value};
use super::file::DatabricksFile;
use super::reach::reach;
use super::{ConfigError, DatabricksSettings};

pub(super) fn databricks(
    path: &str,
    file: DatabricksFile,
    variables: &Variables,
) -> Result<DatabricksSettings, ConfigError> {
    let at = |key: &str| format!("{path}.{key}");
    let positive = |key: &str, number: f64| {
        if number > 0.0 && number.is_finite() {
            Ok(number)
        } else {
            Err(value(at(key), format!("{number} is not more than 0")))
        }
    };
    let min = positive("poll_interval_seconds.min", file.poll_interval_seconds.min)?;
    let max = positive("poll_interval_seconds.max", file.poll_interval_seconds.max)?;
    if min > max {
        return Err(value(
            at("poll_interval_seconds"),
            format!("min, {min}, is more than max, {max}"),
        ));
    }
    if file.max_active_runs == 0 {
        return Err(value(at("max_active_runs"), "must be at least 1"));
    }
    if file.call_timeout_seconds == 0 {
        return Err(value(at("call_timeout_seconds"), "must be at least 1"));
    }
    let auth_path = at("auth");
    let said = Said::read(&auth_path, file.auth, variables)?;
    let ambient = match &said {
        Said::Profile(name, file) => {
            Ambient::of_profile(&auth_path, name, file.as_deref(), variables)?
        }
        _ => Ambient::of_environment(variables, file.host.is_some())?,
    };
    let host = file.host.or_else(|| ambient.text("host")).ok_or_else(|| {
        value(
            at("host"),
            "is needed, such as https://adb-1.azuredatabricks.net (or set DATABRICKS_HOST)",
        )
    })?;
    let host = address::https(&at("host"), &host)?;
    if !matches!(said, Said::Kind(..)) {
        not_another_workspace(&at("host"), &host, &ambient)?;
    }
    let known = Known {
        path: &auth_path,
        host: &host,
        ambient: &ambient,
        variables,
    };
    let auth = auth(said, &known)?;
    Ok(DatabricksSettings {
        auth,
        reach: reach(path, file.tls, file.proxy, file.proxy_file, variables)?,
        host,
        max_active_runs: file.max_active_runs,
        submit_per_second: positive("submit_per_second", file.submit_per_second)?,
        poll_per_second: positive("poll_per_second", file.poll_per_second)?,
        poll_interval: (Duration::from_secs_f64(min), Duration::from_secs_f64(max)),
        call_timeout: Duration::from_secs(file.call_timeout_seconds),
    })
}

/// A profile's secrets belong to its workspace: they are not shown to another one.
fn not_another_workspace(
    setting: &str,
    host: &url::Url,
    ambient: &Ambient<'_>,
) -> Result<(), ConfigError> {
    let Some((its_host, place)) = ambient.profile_host() else {
        return Ok(());
    };
    if address::https(setting, &its_host)?.origin() == host.origin() {
        return Ok(());
    }
    Err(value(
        setting,
        format!(
            "is {host}, but {place} is for {its_host}: its secrets would go to another workspace. \
             Leave `host` out, or name another profile"
        ),
    ))
}
