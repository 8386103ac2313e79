//! The paths, and what every answer says to browsers.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::exposition::CONTENT_TYPE;
use super::facts::Facts;
use super::health::unknown;
use super::metrics;
use crate::process::status::Status;

/// What a browser is told with every answer. The page runs its own script and asks its own server;
/// nothing else is loaded, framed or sent anywhere.
const BROWSER: [(HeaderName, HeaderValue); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// Everything that can be asked for.
pub fn routes(facts: Arc<Facts>, is_loopback: bool) -> Router {
    Router::new()
        .route("/", page("text/html; charset=utf-8", include_str!("page/index.html")))
        .route("/status.css", page("text/css; charset=utf-8", include_str!("page/status.css")))
        .route("/status.js", page("text/javascript; charset=utf-8", include_str!("page/status.js")))
        .route("/charts.js", page("text/javascript; charset=utf-8", include_str!("page/charts.js")))
        .route("/icon.svg", page("image/svg+xml", include_str!("page/icon.svg")))
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .route("/api/status", get(status))
        .with_state(facts)
        .layer(middleware::from_fn_with_state(is_loopback, guard))
}

fn page(kind: &'static str, text: &'static str) -> axum::routing::MethodRouter<Arc<Facts>> {
    get(move || async move { ([(header::CONTENT_TYPE, kind)], text) })
}

async fn metrics(State(facts): State<Arc<Facts>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics::render(&facts))
}

async fn health(State(facts): State<Arc<Facts>>) -> impl IntoResponse {
    let health = facts.standing().map_or_else(unknown, |standing| standing.status.health);
    let code = if health.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(health))
}

async fn status(State(facts): State<Arc<Facts>>) -> Result<Json<Status>, StatusCode> {
    let standing = facts.standing().ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(Json(standing.status))
}

/// Refuses what another site's page could ask for through a browser on this host: a name that its
/// owner lets point to a loopback address (DNS rebinding) is in `Host`.
async fn guard(State(is_loopback): State<bool>, request: Request, next: Next) -> Response {
    let mut response = if is_loopback && !is_local(request.headers()) {
        let what = "ask for this page by a loopback address or as localhost\n";
        (StatusCode::MISDIRECTED_REQUEST, what).into_response()
    } else {
        next.run(request).await
    };
    response.headers_mut().extend(BROWSER);
    response
}

fn is_local(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_are_not_local() {
        let is_local = |host: &'static str| {
            is_local(&HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]))
        };
        for host in ["127.0.0.1", "127.0.0.1:9975", "[::1]:9975", "[::1]", "localhost:9975"] {
            assert!(is_local(host), "{host}");
        }
        for host in ["", "example.org", "example.org:9975", "127.0.0.1.example.org", ":9975"] {
            assert!(!is_local(host), "{host}");
        }
    }
}
