//! The promises of speed and size, measured: `make bench`, or one of them by
//! `cargo bench --bench promises -- throughput`.
//!
//! | promise | measured as |
//! |---|---|
//! | `held` | memory of one run among 20 000 that are held, with the engine in memory |
//! | `worker` | a real `sparkferry run` against the sandbox: idle, with 20 000 runs, and told to stop |
//! | `throughput` | the worker beside a bare lapin loop on the same broker, turn by turn |
//! | `spark` | a statement on a real Sail beside the bare calls, by turns; operations at once; a large result's memory |
//! | `started` | from publishing a request to its run's start, at 100 requests a second |
//!
//! Needs RabbitMQ (`TEST_AMQP_URL`, by default the one on 127.0.0.1); without Sail, `spark` is skipped
//! and the table says so. Machines are shared and their
//! speed changes from minute to minute, so speed is told as a ratio of things that were measured by
//! turns. Ends with 1 where a promise is not kept.

mod bare_spark;
mod ground;
mod held;
mod spark;
mod started;
mod table;
mod throughput;
mod worker;

use std::process::ExitCode;

use table::Table;

/// As in the program itself: what is measured is its memory too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // It can only have been installed already by somebody who came before `main`.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // cargo adds flags of its own.
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(measure(&wanted))
}

async fn measure(wanted: &[String]) -> ExitCode {
    let asked = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let mut table = Table::default();
    // First: what others leave in this process's memory would hide what a run takes.
    if asked("held") {
        held::measure(&mut table).await;
    }
    // Metrics cost time too; the worker's own process has them.
    let _metrics = sparkferry_agent::observe::metrics::install().expect("the first recorder");
    if asked("spark") {
        spark::measure(&mut table).await;
    }
    if asked("worker") {
        worker::measure(&mut table).await;
    }
    if asked("throughput") {
        throughput::measure(&mut table).await;
    }
    if asked("started") {
        started::measure(&mut table).await;
    }
    table.print();
    if table.is_kept() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
