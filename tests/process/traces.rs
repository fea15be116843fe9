//! Traces as a collector sees them, from a server and from a worker.

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::json;

use crate::collector::{Collector, text};
use crate::crash::{get, model, over, value};
use crate::schema::Schema;
use crate::server::{Process, Server};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENT_SPAN: &str = "b7ad6b7169203331";

fn hex(bytes: &[u8]) -> String {
    let digits = |byte: &u8| [byte >> 4, byte & 15].map(|n| char::from_digit(n.into(), 16).expect("a digit"));
    bytes.iter().flat_map(digits).collect()
}

fn attribute(span: &Span, name: &str) -> Option<String> {
    text(&span.attributes, name)
}

fn ask_for_a_job(server: &Server, model: &str) -> (String, String) {
    let body = json!({"model": model, "recipe": "W8A16", "formats": ["safetensors"]}).to_string();
    let headers = format!(
        "Content-Type: application/json\r\ntraceparent: 00-{TRACE}-{CLIENT_SPAN}-01\r\nUser-Agent: test/1"
    );
    let answer = server.try_ask("POST /v1/jobs", &headers, body.as_bytes());
    let (head, body) = answer.expect("answers");
    assert!(head.starts_with("HTTP/1.1 202"), "{head}\n{body}");
    let job = value(&body)["id"].as_str().expect("an id").to_owned();
    (job, head)
}

fn is_request_for_a_job(span: &Span) -> bool {
    span.name == "POST /v1/jobs"
}

fn is_attempt(span: &Span) -> bool {
    span.name == "attempt"
}

/// The span of the request, as the conventions want it, in the client's trace.
fn check_request(request: &Span, head: &str) {
    assert_eq!(hex(&request.trace_id), TRACE);
    assert_eq!(hex(&request.parent_span_id), CLIENT_SPAN);
    assert_eq!(request.kind, SpanKind::Server as i32);
    for (name, expected) in [
        ("http.request.method", "POST"),
        ("http.route", "/v1/jobs"),
        ("url.path", "/v1/jobs"),
        ("url.scheme", "http"),
        ("http.response.status_code", "202"),
        ("client.address", "127.0.0.1"),
        ("user_agent.original", "test/1"),
    ] {
        assert_eq!(attribute(request, name).as_deref(), Some(expected), "{name}");
    }
    let answered = format!("traceparent: 00-{TRACE}-{}-01", hex(&request.span_id));
    assert!(head.lines().any(|line| line == answered), "{answered}\n{head}");
}

/// The span of the attempt: a trace of its own, linked to the request.
fn check_attempt(attempt: &Span, request: &Span, job: &str) {
    assert_ne!(attempt.trace_id, request.trace_id);
    assert!(attempt.parent_span_id.is_empty(), "a root");
    assert_eq!(attempt.kind, SpanKind::Consumer as i32);
    assert_eq!(attempt.links.len(), 1, "{attempt:?}");
    assert_eq!(attempt.links[0].trace_id, request.trace_id);
    assert_eq!(attempt.links[0].span_id, request.span_id);
    assert_eq!(attribute(attempt, "modelpress.job.id").as_deref(), Some(job));
    assert_eq!(
        attribute(attempt, "modelpress.job.outcome").as_deref(),
        Some("succeeded")
    );
}

#[test]
fn a_request_and_its_attempt_arrive_linked() {
    let collector = Collector::start();
    let dir = tempfile::tempdir().expect("temp dir");
    let server = Server::start_with(
        dir.path(),
        &[
            ("MODELPRESS_OTLP_ENDPOINT", &collector.url()),
            ("MODELPRESS_OTLP_HEADERS", "authorization=Bearer secret"),
            ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ],
    );
    let model = model(&server);
    let (job, head) = ask_for_a_job(&server, &model);
    over(&server, &job);
    let request = collector.wait_for("the request", is_request_for_a_job);
    check_request(&request, &head);
    let attempt = collector.wait_for("the attempt", is_attempt);
    check_attempt(&attempt, &request, &job);
    let stage = collector.wait_for("a stage", |span| span.name.starts_with("stage "));
    assert_eq!(stage.parent_span_id, attempt.span_id);
    let statement = collector.wait_for("a statement of the request", |span| {
        span.parent_span_id == request.span_id && span.name == "job_insert"
    });
    assert_eq!(statement.kind, SpanKind::Client as i32);
    assert_eq!(attribute(&statement, "db.system.name").as_deref(), Some("sqlite"));
    assert_eq!(collector.resource("service.name").as_deref(), Some("modelpress"));
    assert!(
        collector
            .authorization()
            .iter()
            .all(|header| header == "Bearer secret")
    );
    let claims = collector.spans();
    let claims = claims.iter().filter(|span| span.name == "job_claim").count();
    assert_eq!(claims, 0, "polling is in no trace and makes none");
}

#[test]
fn a_failure_is_marked_and_a_route_that_is_none_has_no_template() {
    let collector = Collector::start();
    let dir = tempfile::tempdir().expect("temp dir");
    // The usual variables do, too.
    let server = Server::start_with(
        dir.path(),
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url()),
            ("OTEL_BSP_SCHEDULE_DELAY", "50"),
            ("OTEL_SERVICE_NAME", "press-7"),
        ],
    );
    let (head, _) = server.ask("GET /nowhere/7", b"");
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    let lost = collector.wait_for("a request", |span| span.name == "GET");
    assert_eq!(attribute(&lost, "http.route"), None);
    assert_eq!(attribute(&lost, "url.path").as_deref(), Some("/nowhere/7"));
    assert_eq!(
        attribute(&lost, "http.response.status_code").as_deref(),
        Some("404")
    );
    assert_eq!(collector.resource("service.name").as_deref(), Some("press-7"));
}

#[test]
fn what_waits_is_sent_when_the_server_ends() {
    let collector = Collector::start();
    let dir = tempfile::tempdir().expect("temp dir");
    let mut server = Server::start_with(
        dir.path(),
        &[
            ("MODELPRESS_OTLP_ENDPOINT", &collector.url()),
            ("OTEL_BSP_SCHEDULE_DELAY", "600000"),
        ],
    );
    get(&server, "/v1/jobs");
    assert!(collector.spans().is_empty(), "nothing is due yet");
    server.signal("-TERM");
    assert_eq!(server.wait().code(), Some(0));
    collector.wait_for("the request", |span| span.name == "GET /v1/jobs");
}

#[test]
fn a_collector_that_is_gone_hinders_nobody() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", gone.local_addr().expect("bound"));
    // It accepts and never answers.
    let dir = tempfile::tempdir().expect("temp dir");
    let server = Server::start_with(
        dir.path(),
        &[
            ("MODELPRESS_OTLP_ENDPOINT", &url),
            ("OTEL_BSP_SCHEDULE_DELAY", "10"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "16"),
        ],
    );
    for _ in 0..200 {
        get(&server, "/v1/jobs");
    }
    let model = model(&server);
    let (job, _) = ask_for_a_job(&server, &model);
    assert_eq!(over(&server, &job)["status"], "succeeded");
    drop(gone);
}

#[test]
fn a_worker_elsewhere_links_to_the_servers_span() {
    let Some(schema) = Schema::create("worker_traces") else {
        println!(
            "SKIPPED: a_worker_elsewhere_links_to_the_servers_span (set MODELPRESS_TEST_POSTGRES_URL to run it)"
        );
        return;
    };
    let collector = Collector::start();
    let dir = tempfile::tempdir().expect("temp dir");
    let url = collector.url();
    let variables = [
        ("MODELPRESS_DATABASE_URL", schema.url.as_str()),
        ("MODELPRESS_OTLP_ENDPOINT", &url),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ];
    let serve = [&variables[..], &[("MODELPRESS_WORKERS", "0")]].concat();
    let server = Server::start_with(dir.path(), &serve);
    let worker = Process::worker(dir.path(), &variables);
    let model = model(&server);
    let (job, head) = ask_for_a_job(&server, &model);
    over(&server, &job);
    let request = collector.wait_for("the request", is_request_for_a_job);
    check_request(&request, &head);
    let attempt = collector.wait_for("the attempt", is_attempt);
    check_attempt(&attempt, &request, &job);
    drop(worker);
    drop(server);
}
