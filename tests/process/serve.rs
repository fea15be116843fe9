//! The server as a process.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;

/// A running `modelpress serve`, ended with the test.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts on a free port and waits for the line that names it.
    fn start(data: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_modelpress"))
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--log-format",
                "json",
                "--drain-seconds",
                "5",
                "--data-dir",
            ])
            .arg(data)
            .env_remove("MODELPRESS_CONFIG")
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped"));
        let address = loop {
            let mut line = String::new();
            assert_ne!(
                lines.read_line(&mut line).expect("readable"),
                0,
                "the server ended"
            );
            let entry: Value = serde_json::from_str(&line).expect("a JSON line");
            if entry["message"] == "serving" {
                break entry["address"]
                    .as_str()
                    .expect("an address")
                    .parse()
                    .expect("an address");
            }
        };
        // Someone must read the log, or the pipe fills up and the server waits.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Self { child, address }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([name, &id])
                .status()
                .expect("kill runs")
                .success()
        );
    }

    fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("ends")
    }

    /// One request on a connection of its own; answers head and body.
    fn ask(&self, head: &str, body: &[u8]) -> (String, String) {
        let mut socket = TcpStream::connect(self.address).expect("connects");
        let kind = if head.starts_with("PATCH") {
            "Content-Type: application/octet-stream\r\nUpload-Offset: 0"
        } else {
            "Content-Type: application/json"
        };
        let length = body.len();
        let request = format!(
            "{head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{kind}\r\nContent-Length: {length}\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).expect("sent");
        socket.write_all(body).expect("sent");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (head.to_owned(), body.to_owned())
    }

    fn id_of(&self, path: &str, body: &str) -> String {
        let (head, body) = self.ask(&format!("POST {path}"), body.as_bytes());
        assert!(head.starts_with("HTTP/1.1 201"), "{head}\n{body}");
        let made: Value = serde_json::from_str(&body).expect("JSON");
        made["id"].as_str().expect("an id").to_owned()
    }

    fn offset(&self, upload: &str) -> u64 {
        let (head, _) = self.ask(&format!("HEAD /v1/uploads/{upload}"), b"");
        let line = head.lines().find_map(|line| line.strip_prefix("upload-offset: "));
        line.expect("an offset").parse().expect("a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn sigterm_ends_the_server_in_order_and_healthcheck_saw_it_ready() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut server = Server::start(dir.path());
    let check = Command::new(env!("CARGO_BIN_EXE_modelpress"))
        .args(["healthcheck", "--listen", &server.address.to_string()])
        .output()
        .expect("runs");
    assert_eq!(check.status.code(), Some(0), "{check:?}");
    server.signal("-TERM");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut server = Server::start(dir.path());
    let model = server.id_of("/v1/models", "{}");
    // A request that does not end by itself keeps the drain waiting.
    let mut hung = TcpStream::connect(server.address).expect("connects");
    let head = format!(
        "PUT /v1/models/{model}/files/a.json HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n"
    );
    hung.write_all(head.as_bytes()).expect("sent");
    let mut reply = [0; 12];
    hung.read_exact(&mut reply)
        .expect("the server waits for the body now");
    server.signal("-INT");
    while TcpStream::connect(server.address).is_ok() {
        std::thread::yield_now();
    }
    server.signal("-INT");
    assert_eq!(server.wait().code(), Some(130));
}

#[test]
fn two_servers_do_not_share_a_data_folder() {
    let dir = tempfile::tempdir().expect("temp dir");
    let _first = Server::start(dir.path());
    let second = Command::new(env!("CARGO_BIN_EXE_modelpress"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir.path())
        .output()
        .expect("runs");
    assert_eq!(second.status.code(), Some(1), "{second:?}");
}

#[test]
fn what_was_acknowledged_survives_kill_9_and_what_was_not_is_not_claimed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut server = Server::start(dir.path());
    let upload = server.id_of("/v1/uploads", "{\"length\": 2000000}");
    let (head, body) = server.ask(&format!("PATCH /v1/uploads/{upload}"), &vec![7; 1_000_000]);
    assert!(head.starts_with("HTTP/1.1 204"), "{head}\n{body}");

    // Another piece, and the process dies in the middle of it.
    let mut socket = TcpStream::connect(server.address).expect("connects");
    let head = format!(
        "PATCH /v1/uploads/{upload} HTTP/1.1\r\nHost: x\r\nUpload-Offset: 1000000\r\nContent-Length: 1000000\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).expect("sent");
    socket.write_all(&vec![8; 300_000]).expect("sent");
    server.signal("-KILL");
    server.wait();

    let server = Server::start(dir.path());
    let offset = server.offset(&upload);
    assert!((1_000_000..=1_300_000).contains(&offset), "{offset}");
    let data = dir.path().join("store/uploads").join(&upload).join("data");
    assert!(
        data.metadata().expect("there").len() >= offset,
        "the offset is never past the bytes"
    );
}
