//! Targets that read what arrives over HTTP: headers, cursors, keys, bodies, and whole requests to a running server.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use modelpress_server::app::App;
use modelpress_server::child::Host;
use modelpress_server::config::{Config, Settings};
use modelpress_server::domain::JobId;
use modelpress_server::domain::key::read_token;
use modelpress_server::domain::model::{check_file_name, is_name};
use modelpress_server::http::page::Cursors;
use modelpress_server::http::routes::jobs::create::JobIn;
use modelpress_server::http::{conditional, headers as read, input};
use modelpress_server::telemetry::LogFormat;

pub(crate) fn cursor(data: &[u8]) {
    let cursors = Cursors::new(b"a secret");
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    assert!(cursors.open("f", text).is_err(), "nobody guesses a tag");
    let sealed = cursors.seal("f", text);
    assert_eq!(cursors.open("f", &sealed).ok().as_deref(), Some(text));
    assert!(cursors.open("g", &sealed).is_err(), "another list");
    let _id_or_refused = cursors.open_id::<JobId>("f", Some(&sealed));
}

/// Lines `name: value` as headers.
fn header_map(text: &[u8]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for line in text.split(|b| *b == b'\n').take(32) {
        let Some(colon) = line.iter().position(|b| *b == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            map.append(name, value);
        }
    }
    map
}

pub(crate) fn headers(data: &[u8]) {
    let map = header_map(data);
    let _ = read::idempotency_key(&map);
    let _ = read::repr_digest(&map);
    let _ = read::upload_checksum(&map);
    let _ = read::upload_metadata(&map);
    let _ = read::content_length(&map);
    let _ = read::media_type(&map);
    let _ = read::accepted(&map, &["application/json", "text/event-stream"]);
    for name in ["upload-length", "upload-offset"] {
        let _ = read::optional_number(&map, name);
        let _ = read::number(&map, name);
    }
    for name in ["upload-complete", "upload-defer-length"] {
        let _ = read::boolean(&map, name);
    }
    let _ = input::not_encoded(&map);
}

pub(crate) fn range(data: &[u8]) {
    let Some((size, lines)) = data.split_at_checked(8) else {
        return;
    };
    let bytes = u64::from_le_bytes(size.try_into().expect("eight"));
    let answer = conditional::decide(&header_map(lines), "\"abc\"", bytes);
    if let conditional::Answer::Part { first, last } = answer {
        assert!(first <= last && last < bytes, "{first} {last} {bytes}");
    }
}

pub(crate) fn key(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok((id, secret)) = read_token(text) {
        assert_eq!(secret.token(id), text, "one way to write a key");
    }
    let _ = check_file_name(text);
    let _ = is_name(text);
}

pub(crate) fn json(data: &[u8]) {
    let _ = input::parse::<JobIn>(data);
    let _ = input::parse::<BTreeMap<String, String>>(data);
}

/// A server with its data in memory. It has no program to read models with: requests end where that would begin.
static SERVER: LazyLock<SocketAddr> = LazyLock::new(|| {
    let folder = tempfile::Builder::new()
        .tempdir_in(if std::path::Path::new("/dev/shm").is_dir() {
            "/dev/shm"
        } else {
            "/tmp"
        })
        .expect("a folder");
    let settings = Settings {
        data_dir: Some(folder.path().to_owned()),
        listen: Some("127.0.0.1:0".into()),
        workers: Some(0),
        log_format: Some(LogFormat::Json),
        idle_timeout_seconds: Some(1),
        request_timeout_seconds: Some(5),
        max_file_bytes: Some(modelpress_server::config::ByteSize(1 << 20)),
        ..Settings::default()
    };
    let config = Config {
        children: Host::of("/bin/false".into()),
        ..Config::load(None, settings).expect("valid")
    };
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let app = App::start(config).await.expect("starts");
            send.send(app.address().expect("bound")).expect("heard");
            app.run(std::future::pending()).await;
        });
        drop(folder);
    });
    receive.recv().expect("it starts")
});

/// First byte: which request. Then header lines, an empty one, the body.
const REQUESTS: &[&str] = &[
    "POST /v1/models HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=b\r\n",
    "POST /v1/datasets HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=b\r\n",
    "POST /v1/uploads HTTP/1.1\r\nTus-Resumable: 1.0.0\r\n",
    "POST /v1/uploads HTTP/1.1\r\nUpload-Draft-Interop-Version: 8\r\n",
    "POST /v1/uploads HTTP/1.1\r\nContent-Type: application/json\r\n",
    "PATCH /v1/uploads/upl_01939a6b2b3c7d0e8f00000000000001 HTTP/1.1\r\nContent-Type: application/offset+octet-stream\r\nTus-Resumable: 1.0.0\r\n",
    "PATCH /v1/uploads/upl_01939a6b2b3c7d0e8f00000000000001 HTTP/1.1\r\nContent-Type: application/partial-upload\r\n",
    "POST /v1/models HTTP/1.1\r\nContent-Type: application/json\r\n",
    "POST /v1/jobs HTTP/1.1\r\nContent-Type: application/json\r\n",
    "POST /v1/plans HTTP/1.1\r\nContent-Type: application/json\r\n",
    "POST /v1/keys HTTP/1.1\r\nContent-Type: application/json\r\n",
    "GET /v1/jobs HTTP/1.1\r\n",
];

pub(crate) fn http(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else {
        return;
    };
    let head = REQUESTS[usize::from(*which) % REQUESTS.len()];
    let split = rest.windows(2).position(|pair| pair == b"\n\n");
    let (lines, body) = split.map_or((&b""[..], rest), |at| (&rest[..at], &rest[at + 2..]));
    let mut request = format!(
        "{head}Host: x\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    )
    .into_bytes();
    for (name, value) in &header_map(lines) {
        let ours = [
            "host",
            "connection",
            "content-length",
            "transfer-encoding",
            "expect",
            "upgrade",
        ];
        if !ours.contains(&name.as_str()) {
            request.extend_from_slice(name.as_str().as_bytes());
            request.extend_from_slice(b": ");
            request.extend_from_slice(value.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
    }
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(body);
    let mut socket = TcpStream::connect(*SERVER).expect("listens");
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("set");
    if socket.write_all(&request).is_err() {
        return;
    }
    let mut answer = Vec::new();
    let read = socket.read_to_end(&mut answer);
    assert!(read.is_ok() || !answer.is_empty(), "no answer: {read:?}");
    assert!(
        answer.starts_with(b"HTTP/1.1 "),
        "{:?}",
        String::from_utf8_lossy(&answer)
    );
}
