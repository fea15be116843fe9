//! Clients that take and give nothing back: slow ones, silent ones, very many. The numbers are small here and are those
//! of the README with `MODELPRESS_LOAD=full`, which needs some 12,000 open files (`ulimit -n`).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::crash::{get, model, value};
use crate::server::Server;

fn is_full() -> bool {
    std::env::var("MODELPRESS_LOAD").is_ok_and(|size| size == "full")
}

fn sized(small: usize, full: usize) -> usize {
    if is_full() { full } else { small }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

/// A job that waits for ever: this server has no workers.
fn waiting_job(server: &Server) -> String {
    let body = json!({"model": model(server), "recipe": "W8A16", "formats": ["safetensors"]}).to_string();
    let (head, body) = server.ask("POST /v1/jobs", body.as_bytes());
    assert!(head.starts_with("HTTP/1.1 202"), "{head}\n{body}");
    value(&body)["id"].as_str().expect("an id").to_owned()
}

/// The answer to one request on a connection of its own, and how long it took.
async fn ask(address: SocketAddr, path: &str) -> (String, Duration) {
    let begun = Instant::now();
    let mut socket = TcpStream::connect(address).await.expect("connects");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("answers");
    (answer, begun.elapsed())
}

/// Sends `head` and then a byte now and then, until the server has had enough. Answers how long that took.
async fn dribble(address: SocketAddr, head: String) -> Duration {
    let begun = Instant::now();
    let mut socket = TcpStream::connect(address).await.expect("connects");
    socket.write_all(head.as_bytes()).await.expect("sent");
    let (mut read, mut write) = socket.split();
    let end = async {
        let mut rest = Vec::new();
        // What it says, if anything, is a refusal; then it closes, cleanly or not.
        let _closed = read.read_to_end(&mut rest).await;
        assert!(
            !rest.starts_with(b"HTTP/1.1 2"),
            "{:?}",
            String::from_utf8_lossy(&rest)
        );
    };
    let drip = async {
        while write.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = end => begun.elapsed(),
        () = drip => begun.elapsed(),
    }
}

#[test]
fn slow_clients_are_dropped_and_keep_nobody_waiting() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = Server::start_with(
        dir.path(),
        &[
            ("MODELPRESS_WORKERS", "0"),
            ("MODELPRESS_HEADER_TIMEOUT_SECONDS", "2"),
            ("MODELPRESS_REQUEST_TIMEOUT_SECONDS", "2"),
            ("MODELPRESS_IDLE_TIMEOUT_SECONDS", "2"),
        ],
    );
    let address = server.address;
    let draft = server.id_of("/v1/models", "{}");
    run(async {
        let mut slow = JoinSet::new();
        for n in 0..200 {
            let head = match n % 4 {
                0 => "GET /v1/jobs HTTP/1.1\r\nHost: x\r\nX-Slow: ".to_owned(),
                1 => "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n{"
                    .to_owned(),
                2 => format!("PUT /v1/models/{draft}/files/f{n}.json HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n"),
                // Never silent: too slow.
                _ => format!("PUT /v1/models/{draft}/files/f{n}.json HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n"),
            };
            slow.spawn(dribble(address, head));
        }
        // Meanwhile everybody else is served.
        while !slow.is_empty() {
            for path in ["/livez", "/v1/jobs"] {
                let (answer, took) = ask(address, path).await;
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                assert!(took < Duration::from_secs(5), "{path} took {took:?}");
            }
            while let Some(dropped) = slow.try_join_next() {
                let after = dropped.expect("no panic");
                assert!(after < Duration::from_secs(20), "dropped after {after:?}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

/// A number out of the metrics' text.
fn metric(text: &str, name: &str) -> f64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.expect(name).parse().expect("a number")
}

#[test]
fn thousands_may_listen_to_a_job_that_waits() {
    let listeners = sized(300, 5000);
    let dir = tempfile::tempdir().expect("temp dir");
    let most = (listeners + 200).to_string();
    let server = Server::start_with(
        dir.path(),
        &[
            ("MODELPRESS_WORKERS", "0"),
            ("MODELPRESS_MAX_CONNECTIONS", &most),
            ("MODELPRESS_MAX_EVENT_STREAMS", &most),
        ],
    );
    let job = waiting_job(&server);
    let before = metric(
        &server.ask("GET /metrics", b"").1,
        "modelpress_process_resident_memory_bytes",
    );
    let address = server.address;
    run(async {
        let request =
            format!("GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n");
        let mut open = Vec::with_capacity(listeners);
        for _ in 0..listeners {
            let mut socket = TcpStream::connect(address)
                .await
                .expect("connects; raise ulimit -n");
            socket.write_all(request.as_bytes()).await.expect("sent");
            open.push(socket);
        }
        for socket in &mut open {
            let mut first = [0; 12];
            socket.read_exact(&mut first).await.expect("a stream");
            assert_eq!(&first, b"HTTP/1.1 200");
        }
        let (answer, took) = ask(address, &format!("/v1/jobs/{job}")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(took < Duration::from_secs(2), "{took:?}");
        let text = ask(address, "/metrics").await.0;
        assert_eq!(metric(&text, "modelpress_event_streams") as usize, listeners);
        let more = metric(&text, "modelpress_process_resident_memory_bytes") - before;
        let each = more / listeners as f64 / 1024.0;
        println!("{listeners} listeners: {each:.1} KiB each");
        assert!(each < 100.0, "{each} KiB each");
    });
    // One change reaches all of them: they end with the job.
    let (head, _) = server.ask(&format!("POST /v1/jobs/{job}/cancel"), b"");
    assert!(
        head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.1 202"),
        "{head}"
    );
}

#[test]
fn a_thousand_may_poll() {
    let (pollers, seconds) = (sized(100, 1000), sized(3, 20) as u64);
    let dir = tempfile::tempdir().expect("temp dir");
    let most = (pollers + 100).to_string();
    let server = Server::start_with(
        dir.path(),
        &[("MODELPRESS_WORKERS", "0"), ("MODELPRESS_MAX_CONNECTIONS", &most)],
    );
    let job = waiting_job(&server);
    let address = server.address;
    let answers = run(async {
        let end = Instant::now() + Duration::from_secs(seconds);
        let request = format!("GET /v1/jobs/{job} HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut polling = JoinSet::new();
        for n in 0..pollers {
            let request = request.clone();
            polling.spawn(async move {
                // Not all at the same moment.
                tokio::time::sleep(Duration::from_millis(1000 * n as u64 / pollers as u64)).await;
                let mut socket = TcpStream::connect(address).await.expect("connects");
                let (mut answers, mut buffer) = (0, vec![0; 16384]);
                while Instant::now() < end {
                    socket.write_all(request.as_bytes()).await.expect("sent");
                    let read = socket.read(&mut buffer).await.expect("answers");
                    assert!(
                        buffer[..read].starts_with(b"HTTP/1.1 200"),
                        "{:?}",
                        &buffer[..read]
                    );
                    answers += 1;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                answers
            });
        }
        polling.join_all().await.into_iter().sum::<u64>()
    });
    println!("{answers} answers to {pollers} pollers");
    // All are served; how fast is the bench's.
    assert!(answers >= pollers as u64 * seconds / 2, "{answers}");
    assert_eq!(get(&server, &format!("/v1/jobs/{job}"))["status"], "queued");
    assert!(server.peak_kib() < 300 << 10, "{} KiB", server.peak_kib());
}
