//! An S3-compatible object store in this process, over a folder that goes with it.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::net::SocketAddr;
use std::path::PathBuf;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::sync::oneshot;

/// The bucket that is there.
const BUCKET: &str = "bucket";
const KEY: &str = "test-key";
const SECRET: &str = "test/secret+";

/// The server; it ends when this is dropped.
pub(crate) struct S3 {
    pub(crate) address: SocketAddr,
    root: tempfile::TempDir,
    _end: oneshot::Sender<()>,
}

impl S3 {
    /// Starts on a free port, on a thread of its own: tests with and without a runtime can use it.
    pub(crate) fn start() -> Self {
        let root = tempfile::tempdir().expect("temp folder");
        std::fs::create_dir(root.path().join(BUCKET)).expect("a bucket");
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root.path()).expect("opens"));
        service.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = service.build();
        let (tell, told) = std::sync::mpsc::channel();
        let (end, mut ended) = oneshot::channel::<()>();
        let serve = async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
            tell.send(listener.local_addr().expect("an address"))
                .expect("someone waits");
            loop {
                let (socket, _) = tokio::select! {
                    accepted = listener.accept() => accepted.expect("accepts"),
                    _ = &mut ended => return,
                };
                let service = service.clone();
                tokio::spawn(async move {
                    let connection = Builder::new(TokioExecutor::new());
                    let _broken_off = connection.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(serve);
        });
        Self {
            address: told.recv().expect("it starts"),
            root,
            _end: end,
        }
    }

    /// The address of a store in the bucket, as the server's setting is written.
    pub(crate) fn url(&self, prefix: &str) -> String {
        Self::url_at(self.address, prefix)
    }

    /// The same through another address, such as a proxy's.
    pub(crate) fn url_at(address: SocketAddr, prefix: &str) -> String {
        let secret = SECRET.replace('+', "%2B");
        format!(
            "s3://{BUCKET}/{prefix}?endpoint=http://{address}&region=us-east-1&access_key_id={KEY}\
             &secret_access_key={secret}&allow_http=true"
        )
    }

    /// The folder in which the objects of the bucket are.
    pub(crate) fn folder(&self) -> PathBuf {
        self.root.path().join(BUCKET)
    }
}
