//! Upload speed: `PUT` of a large file through the real server, against writing the same bytes to the same disk
//! with fsync. Run with `cargo bench --bench upload`; `UPLOAD_MIB=4096 UPLOAD_ROUNDS=7` change the size and rounds.
//!
//! The rounds alternate, so that a busy machine slows both alike; medians are compared.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench reports to people and stops at the first surprise"
)]

#[path = "../support/mod.rs"]
mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Instant;

use support::app::TestApp;

const CHUNK: usize = 1 << 20;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn chunk() -> Vec<u8> {
    (0..CHUNK).map(|i| (i * 31 % 251) as u8).collect()
}

/// Seconds to write and fsync the bytes.
fn plain(folder: &Path, mib: usize) -> f64 {
    let chunk = chunk();
    let path = folder.join("plain");
    let begun = Instant::now();
    let mut file = std::fs::File::create(&path).expect("created");
    for _ in 0..mib {
        file.write_all(&chunk).expect("written");
    }
    file.sync_all().expect("synced");
    let seconds = begun.elapsed().as_secs_f64();
    std::fs::remove_file(path).expect("removed");
    seconds
}

/// Seconds until the server has answered 201.
fn upload(address: std::net::SocketAddr, model: &str, name: usize, mib: usize) -> f64 {
    // Another first byte each round: equal bytes would be stored once.
    let mut chunk = chunk();
    chunk[0] = name as u8;
    let begun = Instant::now();
    let mut socket = TcpStream::connect(address).expect("connects");
    let length = mib * CHUNK;
    let head = format!(
        "PUT /v1/models/{model}/files/f{name}.json HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).expect("sent");
    for _ in 0..mib {
        socket.write_all(&chunk).expect("sent");
    }
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("answers");
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    begun.elapsed().as_secs_f64()
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn main() {
    let (mib, rounds) = (setting("UPLOAD_MIB", 2048), setting("UPLOAD_ROUNDS", 5));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let app = runtime.block_on(TestApp::start());
    let model = runtime.block_on(app.draft());
    let (mut through, mut disk) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        disk.push(plain(app.dir.path(), mib));
        through.push(upload(app.address, &model, round, mib));
        let speed = |seconds: f64| mib as f64 / seconds;
        println!(
            "round {round}: write + fsync {:.0} MiB/s, upload {:.0} MiB/s",
            speed(disk[round]),
            speed(through[round])
        );
        for file in app.stored_files() {
            std::fs::remove_file(app.dir.path().join("data/store").join(file)).expect("removed");
        }
    }
    let ratio = median(disk) / median(through);
    println!(
        "upload runs at {:.0} % of write + fsync ({mib} MiB, {rounds} rounds; promised: 80 %)",
        ratio * 100.0
    );
    runtime.block_on(app.stop());
}
