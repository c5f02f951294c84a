//! The status page: what `/api/runs` tells, for people. Three files that are part of the program, and
//! nothing from elsewhere.
//!
//! Labels, states and troubles are other people's text. The page puts them in as text alone; and
//! were there a gap, the policy lets no script run but the page's own file.

use axum::Router;
use axum::http::{HeaderName, header};
use axum::response::IntoResponse;
use axum::routing::get;

/// Scripts, styles and calls of our own and nothing else; in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The routes of the page and its parts.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route(
            "/",
            get(async || part("text/html", include_str!("page.html"))),
        )
        .route(
            "/page.css",
            get(async || part("text/css", include_str!("page.css"))),
        )
        .route(
            "/page.js",
            get(async || part("text/javascript", include_str!("page.js"))),
        )
}

fn part(kind: &str, text: &'static str) -> impl IntoResponse + use<> {
    let headers: [(HeaderName, String); 5] = [
        (header::CONTENT_TYPE, format!("{kind}; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, POLICY.to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
        // A newer version's page is seen at once.
        (header::CACHE_CONTROL, "no-cache".to_owned()),
    ];
    (headers, text)
}
