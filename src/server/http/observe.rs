//! What every request gets: an id, a span, a measurement, a caught panic, a problem as its error.
//!
//! Owns: the form of `X-Request-Id`, the access line, where a trace goes on, turning any 4xx/5xx into problem+json.
//! Must not know: what a route does.
//! Invariant: no response leaves without a request id; a failure is logged once, here.
//!
//! tower-http's layers do the work. Ours is only what they cannot know: which ids are taken from clients, what is
//! measured, and how a problem is rendered.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer};
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::trace::TraceLayer;
use tracing::{Instrument as _, Span};

use super::listen::Peer;
use super::problem::Problem;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Counted;
use crate::telemetry::traces::{self, Asked};

const HEADER: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Puts it all around a router. The first layer is the outermost.
pub fn observed<S: Clone + Send + Sync + 'static>(routes: Router<S>, metrics: &Arc<Metrics>) -> Router<S> {
    let measured = metrics.clone();
    let answered =
        move |response: &Response, elapsed: Duration, _: &Span| answered(response, elapsed, &measured);
    let trace = TraceLayer::new_for_http()
        .make_span_with(span)
        .on_request(())
        .on_response(answered)
        .on_body_chunk(())
        .on_eos(())
        .on_failure(());
    let routes = routes.layer(
        ServiceBuilder::new()
            .map_request(without_strange_id)
            .layer(SetRequestIdLayer::new(HEADER, NewId))
            .layer(PropagateRequestIdLayer::new(HEADER))
            .layer(SetResponseHeaderLayer::overriding(
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            ))
            .layer(trace)
            .layer(from_fn_with_state(metrics.clone(), with_problems))
            .layer(CatchPanicLayer::custom(panicked)),
    );
    if traces::on() {
        routes.layer(from_fn(traced))
    } else {
        routes
    }
}

/// Traces a request: what it calls goes on in its span, and so does a trace that the client follows.
async fn traced(mut request: Request, next: Next) -> Response {
    let headers = request.headers();
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let route = request.extensions().get::<MatchedPath>();
    let peer = request.extensions().get::<Peer>();
    let span = traces::request(&Asked {
        method: match method_label(request.method()) {
            "other" => "_OTHER",
            method => method,
        },
        route: route.map(MatchedPath::as_str),
        path: request.uri().path(),
        version: version_label(request.version()),
        client: peer.map(|peer| peer.0.ip()),
        agent: text("user-agent"),
        traceparent: text("traceparent"),
        tracestate: text("tracestate"),
    });
    let place = traces::traceparent(&span).and_then(|text| HeaderValue::from_str(&text).ok());
    if let Some(place) = &place {
        // From here on the trace goes through this span.
        request.headers_mut().insert(TRACEPARENT, place.clone());
    }
    let mut response = next.run(request).instrument(span.clone()).await;
    let id = response.headers().get(HEADER).and_then(|id| id.to_str().ok());
    traces::answered(&span, response.status().as_u16(), id);
    if let Some(place) = place {
        response.headers_mut().insert(TRACEPARENT, place);
    }
    response
}

/// Makes the ids of requests that bring none.
#[derive(Debug, Clone, Copy)]
struct NewId;

impl MakeRequestId for NewId {
    fn make_request_id<B>(&mut self, _request: &axum::http::Request<B>) -> Option<RequestId> {
        let mut text = uuid::Uuid::encode_buffer();
        let id = uuid::Uuid::now_v7().hyphenated().encode_lower(&mut text);
        HeaderValue::from_str(id).ok().map(RequestId::new)
    }
}

/// A client's id stays when it is a plain word.
fn without_strange_id(mut request: Request) -> Request {
    let plain = |id: &HeaderValue| {
        (1..=128).contains(&id.len())
            && id
                .as_bytes()
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(b))
    };
    if !request.headers().get(HEADER).is_some_and(plain) {
        request.headers_mut().remove(HEADER);
    }
    request
}

fn id(request: &Request) -> Option<&RequestId> {
    request.extensions().get::<RequestId>()
}

fn text(id: Option<&RequestId>) -> &str {
    id.and_then(|id| id.header_value().to_str().ok())
        .unwrap_or_default()
}

fn span(request: &Request) -> Span {
    let peer = request.extensions().get::<Peer>();
    let (method, path) = (request.method(), request.uri().path());
    // Said in the macro: a span that nobody wants costs nothing.
    tracing::info_span!("request", request_id = text(id(request)), %method, %path,
        client = peer.map(|peer| tracing::field::display(peer.0.ip())), trace_id = traces::trace_id())
}

/// What was asked for, on the response, for the layer that sees only that.
#[derive(Debug, Clone)]
struct Wanted {
    route: Option<MatchedPath>,
    method: Method,
}

async fn with_problems(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let _under_way = Counted::new(&metrics.http_requests_in_flight);
    let (uri, id) = (request.uri().clone(), id(&request).cloned());
    let asked = Wanted {
        route: request.extensions().get::<MatchedPath>().cloned(),
        method: request.method().clone(),
    };
    let mut response = finish(next.run(request).await, uri.path(), id.as_ref());
    response.extensions_mut().insert(asked);
    response
}

/// Renders the problem with what is known only here, and logs a failure of ours.
fn finish(mut response: Response, path: &str, id: Option<&RequestId>) -> Response {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let problem = response
        .extensions_mut()
        .remove::<Problem>()
        .unwrap_or_else(|| Problem::from_status(status));
    if status.is_server_error() {
        tracing::error!(code = problem.code(), cause = problem.cause(), "request failed");
    } else if let Some(cause) = problem.cause() {
        tracing::info!(code = problem.code(), cause, "request refused");
    }
    let mut rendered = problem.render(path, text(id));
    // A layer's own headers (Allow on a 405, for one) stay.
    for (name, value) in response.headers() {
        if !rendered.headers().contains_key(name) && name != header::CONTENT_LENGTH {
            rendered.headers_mut().insert(name.clone(), value.clone());
        }
    }
    rendered
}

/// Measures and logs; the layer has entered the request's span.
fn answered(response: &Response, elapsed: Duration, metrics: &Metrics) {
    let asked = response.extensions().get::<Wanted>();
    let route = asked.and_then(|asked| asked.route.as_ref());
    let route = route.map_or("unmatched", MatchedPath::as_str);
    let method = asked.map_or("other", |asked| method_label(&asked.method));
    let elapsed_seconds = elapsed.as_secs_f64();
    metrics
        .http_request_duration
        .with_label_values(&[route, method, status_label(response.status())])
        .observe(elapsed_seconds);
    let status = response.status().as_u16();
    if is_routine(route) {
        tracing::debug!(status, elapsed_seconds, "request answered");
    } else {
        tracing::info!(status, elapsed_seconds, "request answered");
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the layer hands it over")]
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let cause = format!("handler panicked: {}", text.unwrap_or("no message"));
    Problem::internal(cause).into_response()
}

fn is_routine(route: &str) -> bool {
    matches!(route, "/livez" | "/readyz" | "/metrics")
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn version_label(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

fn status_label(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use tower::ServiceExt as _;

    fn routes(metrics: &Arc<Metrics>) -> Router {
        let routes = Router::new()
            .route("/panics", get(async || -> StatusCode { panic!("a secret") }))
            .route("/bare", get(async || StatusCode::IM_A_TEAPOT))
            .route("/never", get(async || std::future::pending::<StatusCode>().await));
        observed(routes, metrics)
    }

    fn request(path: &str, id: &str) -> Request {
        let request = Request::builder().uri(path).header(HEADER, id);
        request.body(Body::empty()).expect("a request")
    }

    async fn shown(routes: &Router, path: &str) -> serde_json::Value {
        let response = routes.clone().oneshot(request(path, "abc")).await;
        let response = response.expect("never fails");
        assert_eq!(response.headers()[HEADER], "abc");
        assert_eq!(response.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
        let body = to_bytes(response.into_body(), 10_000).await.expect("a body");
        serde_json::from_slice(&body).expect("JSON")
    }

    #[tokio::test]
    async fn panics_and_bare_statuses_become_problems() {
        let metrics = Arc::new(Metrics::new().expect("unique names"));
        let routes = routes(&metrics);
        let panic = shown(&routes, "/panics").await;
        assert_eq!(
            (&panic["code"], &panic["request_id"], &panic["instance"]),
            (&"internal".into(), &"abc".into(), &"/panics".into())
        );
        assert!(!panic.to_string().contains("a secret"), "{panic}");
        let bare = shown(&routes, "/bare").await;
        assert_eq!(
            (&bare["code"], &bare["detail"]),
            (&"bad_request".into(), &"i'm a teapot".into())
        );
        let text = metrics.text().expect("encodes");
        for (route, status) in [("/panics", "5xx"), ("/bare", "4xx")] {
            let line = format!("{{method=\"GET\",route=\"{route}\",status=\"{status}\"}} 1\n");
            assert!(text.contains(&line), "{line}{text}");
        }
    }

    #[tokio::test]
    async fn a_client_that_leaves_is_not_counted_any_more() {
        let metrics = Arc::new(Metrics::new().expect("unique names"));
        let mut never = Box::pin(routes(&metrics).oneshot(request("/never", "abc")));
        assert!(futures_util::poll!(&mut never).is_pending());
        assert_eq!(metrics.http_requests_in_flight.get(), 1);
        drop(never);
        assert_eq!(metrics.http_requests_in_flight.get(), 0);
    }
}
