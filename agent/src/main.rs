//! The program `sparkferry`: what must come first in a process, then the command line.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Every TLS connection needs the provider; the HTTP client panics without one. It can only
    // have been installed already by somebody who came before `main`.
    let _ = rustls::crypto::ring::default_provider().install_default();
    sparkferry_agent::cli::main()
}
