//! Whether a cluster has its libraries.

use serde::Deserialize;
use serde_json::Value;

use super::text;

/// The longest text that is taken over, in bytes.
const TEXT_BYTES: usize = 1024;

/// What is read of `libraries/cluster-status`.
#[derive(Debug, Deserialize)]
pub(super) struct Libraries {
    #[serde(default)]
    library_statuses: Vec<Library>,
}

#[derive(Debug, Deserialize)]
struct Library {
    /// Its kind and name.
    #[serde(default, rename = "library")]
    named: Value,
    #[serde(default)]
    status: String,
    #[serde(default)]
    messages: Vec<String>,
}

/// How a cluster stands with its libraries; the texts say which ones.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Ready,
    Installing(String),
    Failed(String),
}

impl Libraries {
    /// One that failed decides, then one that is not there yet. What is skipped, or goes with the
    /// next start, is as good as there.
    pub(super) fn standing(&self) -> Standing {
        let with = |statuses: &[&str], show: fn(&Library) -> String| {
            let all = self.library_statuses.iter();
            let those = all.filter(|library| statuses.contains(&library.status.as_str()));
            let those: Vec<String> = those.map(show).collect();
            text::head(&those.join(", "), TEXT_BYTES).to_owned()
        };
        let failed = with(&["FAILED"], |library| {
            format!("{} ({})", library.name(), library.messages.join("; "))
        });
        let installing = with(&["PENDING", "RESOLVING", "INSTALLING"], Library::name);
        if !failed.is_empty() {
            Standing::Failed(failed)
        } else if !installing.is_empty() {
            Standing::Installing(installing)
        } else {
            Standing::Ready
        }
    }
}

impl Library {
    /// `{"pypi": {"package": "x"}}` is `pypi x`.
    fn name(&self) -> String {
        let Some((kind, of)) = self.named.as_object().and_then(|kinds| kinds.iter().next()) else {
            return self.named.to_string();
        };
        let name = of
            .get("package")
            .or_else(|| of.get("coordinates"))
            .unwrap_or(of);
        match name.as_str() {
            Some(name) => format!("{kind} {name}"),
            None => format!("{kind} {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn standing(libraries: &Value) -> Standing {
        let statuses = json!({"cluster_id": "c1", "library_statuses": libraries});
        let libraries: Libraries = serde_json::from_value(statuses).unwrap();
        libraries.standing()
    }

    #[test]
    fn what_failed_is_named_before_what_is_not_there_yet() {
        let pypi = json!({"library": {"pypi": {"package": "simplejson"}}, "status": "INSTALLING"});
        let jar = json!({"library": {"jar": "dbfs:/x.jar"}, "status": "PENDING"});
        let maven = json!({"library": {"maven": {"coordinates": "org.apache:iceberg:1"}},
            "status": "FAILED", "messages": ["no such artifact"]});
        let there = json!({"library": {"whl": "/x.whl"}, "status": "INSTALLED"});
        let later = json!({"library": {"whl": "/y.whl"}, "status": "UNINSTALL_ON_RESTART"});
        assert_eq!(standing(&json!([there, later])), Standing::Ready);
        assert_eq!(
            standing(&json!([there, pypi, jar])),
            Standing::Installing("pypi simplejson, jar dbfs:/x.jar".to_owned())
        );
        assert_eq!(
            standing(&json!([pypi, maven])),
            Standing::Failed("maven org.apache:iceberg:1 (no such artifact)".to_owned())
        );
        let none: Libraries = serde_json::from_str("{}").unwrap();
        assert_eq!(none.standing(), Standing::Ready);
    }
}
