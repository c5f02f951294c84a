//! The calls that this program makes.

/// A call that this program makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "spark_connect"),
    expect(dead_code, reason = "clusters are started for Spark Connect alone")
)]
pub(super) enum Call {
    RunNow,
    Submit,
    /// The older form, without `tasks`.
    SubmitOneTask,
    Repair,
    Cancel,
    Get,
    GetOutput,
    List,
    JobsList,
    Me,
    ClusterGet,
    ClusterStart,
    LibraryStatus,
}

impl Call {
    /// What it is called in metrics and errors.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RunNow => "jobs/run-now",
            Self::Submit | Self::SubmitOneTask => "jobs/runs/submit",
            Self::Repair => "jobs/runs/repair",
            Self::Cancel => "jobs/runs/cancel",
            Self::Get => "jobs/runs/get",
            Self::GetOutput => "jobs/runs/get-output",
            Self::List => "jobs/runs/list",
            Self::JobsList => "jobs/list",
            Self::Me => "scim/v2/Me",
            Self::ClusterGet => "clusters/get",
            Self::ClusterStart => "clusters/start",
            Self::LibraryStatus => "libraries/cluster-status",
        }
    }

    /// Its path on the host. The SDKs use 2.2 for jobs.
    pub(super) fn path(self) -> String {
        match self {
            Self::Me => "api/2.0/preview/scim/v2/Me".to_owned(),
            // A later submit knows `tasks` alone.
            Self::ClusterGet | Self::ClusterStart | Self::SubmitOneTask => {
                format!("api/2.1/{}", self.name())
            }
            Self::LibraryStatus => format!("api/2.0/{}", self.name()),
            _ => format!("api/2.2/{}", self.name()),
        }
    }
}
