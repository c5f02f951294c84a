//! The worker's HTTP side: the status page, `/healthz`, `/readyz`, `/metrics`, `/api/runs`.
//!
//! It reads and never changes anything, and holds no secret, so it asks for no password; it listens
//! on loopback unless told otherwise.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::page;
use super::runs::{Overview, Readiness};

/// Where the answers come from.
pub trait Source: Send + Sync {
    /// What the status page shows, with at most `limit` requests of each connection.
    fn overview(&self, limit: usize) -> Overview;
    /// Whether the worker can do its work.
    fn readiness(&self) -> Readiness;
}

#[derive(Clone)]
struct App {
    source: Arc<dyn Source>,
    metrics: PrometheusHandle,
}

/// Listens; the address tells the port where 0 was asked for.
pub async fn bind(listen: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Serves until `stop` is cancelled.
pub async fn serve(
    listener: TcpListener,
    source: Arc<dyn Source>,
    metrics: PrometheusHandle,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let app = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(prometheus))
        .route("/api/runs", get(runs))
        .merge(page::routes())
        .with_state(App { source, metrics });
    axum::serve(listener, app)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await
}

async fn readyz(State(app): State<App>) -> impl IntoResponse {
    let readiness = app.source.readiness();
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(readiness))
}

async fn prometheus(State(app): State<App>) -> impl IntoResponse {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.metrics.render())
}

#[derive(Deserialize)]
struct Limit {
    limit: Option<usize>,
}

async fn runs(State(app): State<App>, Query(Limit { limit }): Query<Limit>) -> impl IntoResponse {
    Json(app.source.overview(limit.unwrap_or(1000)))
}
