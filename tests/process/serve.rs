//! The server as a process: signals, the folder it holds, what survives its death.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use crate::server::Server;

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
