//! `modelpress serve` as a child process.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A running `modelpress serve`, ended with the test.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

/// Another `modelpress` process, ended with the test.
pub(crate) struct Process(Child);

impl Process {
    /// `modelpress worker` beside servers on the same database and folder.
    pub(crate) fn worker(data: &Path, variables: &[(&str, &str)]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_modelpress"))
            .args([
                "worker",
                "--log-filter",
                "error",
                "--drain-seconds",
                "5",
                "--data-dir",
            ])
            .arg(data)
            .env_remove("MODELPRESS_CONFIG")
            .envs(variables.iter().copied())
            .spawn();
        Self(child.expect("starts"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl Server {
    /// Starts on a free port and waits for the line that names it.
    pub(crate) fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    /// The same with variables.
    pub(crate) fn start_with(data: &Path, variables: &[(&str, &str)]) -> Self {
        Self::begin("serve", data, variables)
    }

    /// The same, or a worker, which has no address.
    pub(crate) fn begin(verb: &str, data: &Path, variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_modelpress"))
            .args([
                verb,
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
            .envs(variables.iter().copied())
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
            if entry["message"] == "serving" || entry["message"] == "working" {
                let address = entry["address"].as_str().unwrap_or("0.0.0.0:0");
                break address.parse().expect("an address");
            }
        };
        // Someone must read the log, or the pipe fills up and the server waits.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Self { child, address }
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([name, &id])
                .status()
                .expect("kill runs")
                .success()
        );
    }

    /// The processes that work for it.
    pub(crate) fn children(&self) -> Vec<u32> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let lists = tasks.into_iter().flatten().flatten().map(|task| {
            // A thread may end meanwhile.
            std::fs::read_to_string(task.path().join("children")).unwrap_or_default()
        });
        let ids = |list: String| -> Vec<u32> {
            list.split_ascii_whitespace()
                .filter_map(|id| id.parse().ok())
                .collect()
        };
        lists.flat_map(ids).collect()
    }

    /// The most memory that the process held so far.
    pub(crate) fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.split_ascii_whitespace().next());
        number.expect("a peak").parse().expect("a number")
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("is ours") {
                return status;
            }
            assert!(
                begun.elapsed() < Duration::from_mins(1),
                "the server does not end"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// One request on a connection of its own; answers head and body.
    pub(crate) fn ask(&self, head: &str, body: &[u8]) -> (String, String) {
        let headers = if head.starts_with("PATCH") {
            "Content-Type: application/octet-stream\r\nUpload-Offset: 0"
        } else {
            "Content-Type: application/json"
        };
        self.try_ask(head, headers, body).expect("answers")
    }

    /// The same with any headers, while the server may be dying.
    pub(crate) fn try_ask(
        &self,
        head: &str,
        headers: &str,
        body: &[u8],
    ) -> std::io::Result<(String, String)> {
        let mut socket = TcpStream::connect(self.address)?;
        let length = body.len();
        let request = format!(
            "{head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\nContent-Length: {length}\r\n\r\n"
        );
        socket.write_all(request.as_bytes())?;
        socket.write_all(body)?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        let parts = answer.split_once("\r\n\r\n");
        let (head, body) = parts.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        Ok((head.to_owned(), body.to_owned()))
    }

    pub(crate) fn id_of(&self, path: &str, body: &str) -> String {
        let (head, body) = self.ask(&format!("POST {path}"), body.as_bytes());
        assert!(head.starts_with("HTTP/1.1 201"), "{head}\n{body}");
        let made: Value = serde_json::from_str(&body).expect("JSON");
        made["id"].as_str().expect("an id").to_owned()
    }

    pub(crate) fn offset(&self, upload: &str) -> u64 {
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
