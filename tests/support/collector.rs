//! A collector of traces: takes OTLP over HTTP, as protobuf, and keeps every span.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

/// What arrived.
#[derive(Debug, Default)]
struct Kept {
    spans: Vec<Span>,
    resource: Vec<KeyValue>,
    authorization: Vec<String>,
}

/// A collector on a free port, on a thread of its own that ends with the test's process.
#[derive(Debug)]
pub(crate) struct Collector {
    kept: Arc<Mutex<Kept>>,
    address: SocketAddr,
}

async fn take(State(kept): State<Arc<Mutex<Kept>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if headers["content-type"] != "application/x-protobuf" {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE;
    }
    let Ok(request) = ExportTraceServiceRequest::decode(body) else {
        return StatusCode::BAD_REQUEST;
    };
    let mut kept = kept.lock().expect("whole");
    let authorization = headers.get("authorization").and_then(|value| value.to_str().ok());
    kept.authorization.extend(authorization.map(str::to_owned));
    for of_resource in request.resource_spans {
        kept.resource = of_resource.resource.map(|r| r.attributes).unwrap_or_default();
        let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        kept.spans.extend(spans);
    }
    StatusCode::OK
}

impl Collector {
    pub(crate) fn start() -> Self {
        let kept: Arc<Mutex<Kept>> = Arc::default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("set");
        let address = listener.local_addr().expect("bound");
        let router = Router::new()
            .route("/v1/traces", post(take))
            .with_state(kept.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                axum::serve(listener, router).await
            })
        });
        Self { kept, address }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every span that is here now.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.kept.lock().expect("whole").spans.clone()
    }

    /// Waits for a span.
    pub(crate) fn wait_for(&self, what: &str, wanted: impl Fn(&Span) -> bool) -> Span {
        let patience = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(found) = self.spans().into_iter().find(|span| wanted(span)) {
                return found;
            }
            assert!(Instant::now() < patience, "{what}: {:#?}", self.spans());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn resource(&self, name: &str) -> Option<String> {
        text(&self.kept.lock().expect("whole").resource, name)
    }

    pub(crate) fn authorization(&self) -> Vec<String> {
        self.kept.lock().expect("whole").authorization.clone()
    }
}

/// An attribute as text.
pub(crate) fn text(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match &found.value {
        Some(AnyValue {
            value: Some(Value::StringValue(text)),
        }) => Some(text.clone()),
        Some(AnyValue {
            value: Some(Value::IntValue(number)),
        }) => Some(number.to_string()),
        other => Some(format!("{other:?}")),
    }
}
