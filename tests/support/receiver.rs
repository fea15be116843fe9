//! A receiver of webhooks on this machine that really listens.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use modelpress_server::deliver::sign::signatures;
use modelpress_server::domain::webhook::Secret;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// A request as it came in: its head's lines, and its body.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub(super) head: Vec<String>,
    pub(super) body: String,
}

impl Heard {
    pub(super) fn header(&self, name: &str) -> &str {
        let found = self
            .head
            .iter()
            .find_map(|line| line.strip_prefix(&format!("{name}: ")));
        found.expect(name)
    }

    /// Signed by exactly these, as the other side would check it.
    pub(super) fn is_signed_by(&self, secrets: &[&str]) -> bool {
        let secrets: Vec<Secret> = secrets
            .iter()
            .map(|text| text.parse().expect("a secret"))
            .collect();
        let timestamp = self.header("webhook-timestamp").parse().expect("a number");
        let expected = signatures(&secrets, self.header("webhook-id"), timestamp, &self.body);
        self.header("webhook-signature") == expected
    }
}

/// A server that writes down what it hears and answers from a script; 204 when that is over.
#[derive(Clone)]
pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    script: Arc<Mutex<VecDeque<&'static str>>>,
    news: Arc<Notify>,
}

impl Receiver {
    pub(super) async fn start(script: &[&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let receiver = Self {
            address: listener.local_addr().expect("bound"),
            heard: Arc::default(),
            script: Arc::new(Mutex::new(script.iter().copied().collect())),
            news: Arc::default(),
        };
        let here = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let here = here.clone();
                tokio::spawn(async move { here.answer(stream).await });
            }
        });
        receiver
    }

    async fn answer(&self, mut stream: TcpStream) {
        let mut read = Vec::new();
        let end = loop {
            let mut piece = [0; 4096];
            let n = stream.read(&mut piece).await.unwrap_or(0);
            if n == 0 {
                return;
            }
            read.extend_from_slice(&piece[..n]);
            let text = String::from_utf8_lossy(&read);
            if let Some(end) = text.find("\r\n\r\n") {
                let length = text
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "));
                if read.len() >= end + 4 + length.map_or(0, |n| n.parse::<usize>().expect("a number")) {
                    break end;
                }
            }
        };
        let text = String::from_utf8(read).expect("text");
        let heard = Heard {
            head: text[..end].lines().map(str::to_owned).collect(),
            body: text[end + 4..].to_owned(),
        };
        let answer = self
            .script
            .lock()
            .expect("whole")
            .pop_front()
            .unwrap_or("204 No Content");
        self.heard.lock().expect("whole").push(heard);
        let (status, body) = answer.split_once('|').unwrap_or((answer, ""));
        let reply = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let _gone = stream.write_all(reply.as_bytes()).await;
        self.news.notify_one();
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    pub(super) fn heard(&self) -> Vec<Heard> {
        self.heard.lock().expect("whole").clone()
    }

    /// Waits until so many requests were heard.
    pub(super) async fn hears(&self, count: usize) -> Vec<Heard> {
        let wait = async {
            while self.heard().len() < count {
                self.news.notified().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait)
            .await
            .expect("hears it");
        self.heard()
    }
}
