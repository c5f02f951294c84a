//! Further attempts that are repairs: the failed tasks of the first attempt's run, run again within
//! that run.
//!
//! Attempt n is the run's repair n - 1. How many repairs there were is read from the run each time
//! and never remembered, and Databricks itself refuses a second one at the same point (the run is
//! active, or `latest_repair_id` is not the latest): so there are never two for one attempt.

use serde::Serialize;
use sparkferry_ports::engine::Fault;
use sparkferry_shared::ErrorClass;

use super::call::Call;
use super::client::Client;
use super::error::CallError;
use super::known::Known;
use super::watch::get;
use super::wire::Done;

#[derive(Serialize)]
struct RepairRun {
    run_id: i64,
    rerun_all_failed_tasks: bool,
    /// Not for the first repair, and for every later one.
    #[serde(skip_serializing_if = "Option::is_none")]
    latest_repair_id: Option<i64>,
}

/// Finds the nth repair (from 1) of a run, or starts it. Says what is known of the run then, and
/// whether the repair was there already.
pub(super) async fn find_or_start(
    client: &Client,
    run_id: i64,
    nth: u32,
) -> Result<(Option<Known>, bool), Fault> {
    let known = read(client, run_id).await?;
    if known.repairs() >= nth {
        return Ok((Some(known), true));
    }
    if known.repairs() + 1 < nth {
        let done = known.repairs();
        return Err(not_yet(format!(
            "run {run_id} at {} shows {done} repairs where {} were made",
            client.host(),
            nth - 1
        )));
    }
    if !known.ended {
        return Err(not_yet(format!(
            "run {run_id} at {} is active and can't be repaired yet",
            client.host()
        )));
    }
    let repair = RepairRun {
        run_id,
        rerun_all_failed_tasks: true,
        latest_repair_id: known.latest_repair_id(),
    };
    let body = serde_json::to_vec(&repair).expect("numbers are JSON");
    match client.post::<Done>(Call::Repair, body.into()).await {
        Ok(Done {}) => Ok((None, false)),
        Err(CallError::Refused(refusal)) => {
            // Another worker may have been faster: then it is there.
            let known = read(client, run_id).await?;
            if known.repairs() >= nth {
                Ok((Some(known), true))
            } else if known.ended {
                Err(refusal.into())
            } else {
                Err(not_yet(refusal.to_error().message))
            }
        }
        // Perhaps it was done: the next call reads it.
        Err(error) => Err(error.into()),
    }
}

async fn read(client: &Client, run_id: i64) -> Result<Known, Fault> {
    match get(client, run_id, true).await {
        Ok(run) => Ok(Known::new(run)),
        Err(CallError::Refused(refusal)) if refusal.run_gone() => {
            let mut error = refusal.to_error();
            error.class = ErrorClass::Lost;
            Err(Fault::Lost(Box::new(error)))
        }
        Err(error) => Err(error.into()),
    }
}

fn not_yet(message: String) -> Fault {
    Fault::Passing {
        message,
        class: ErrorClass::Infrastructure,
        retry_after: None,
        perhaps_done: false,
    }
}
