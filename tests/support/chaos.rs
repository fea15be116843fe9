//! A network that breaks when a test says so: a TCP proxy that cuts, stalls or refuses connections.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// Everything passes.
    Well,
    /// Nothing passes, and nobody is told.
    Stalled,
    /// Who connects is sent away.
    Refusing,
}

/// Its mood, and how often everything was cut.
type State = (Mood, u64);

/// The proxy; it ends when this is dropped.
pub(crate) struct Chaos {
    pub(crate) address: SocketAddr,
    state: watch::Sender<State>,
}

impl Chaos {
    /// Stands before an address, on a free port and a thread of its own.
    pub(crate) fn before(target: SocketAddr) -> Self {
        let (state, seen) = watch::channel((Mood::Well, 0));
        let (tell, told) = std::sync::mpsc::channel();
        let serve = async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
            tell.send(listener.local_addr().expect("an address"))
                .expect("someone waits");
            let mut ended = seen.clone();
            loop {
                let client = tokio::select! {
                    accepted = listener.accept() => accepted.expect("accepts").0,
                    () = over(&mut ended) => return,
                };
                if seen.borrow().0 != Mood::Refusing {
                    tokio::spawn(connect(client, target, seen.clone()));
                }
            }
        };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(serve);
        });
        Self {
            address: told.recv().expect("it starts"),
            state,
        }
    }

    /// Cuts every connection there is.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| state.1 += 1);
    }

    /// Lets nothing pass for a while.
    pub(crate) fn stall(&self, time: Duration) {
        self.state.send_modify(|state| state.0 = Mood::Stalled);
        std::thread::sleep(time);
        self.state.send_modify(|state| state.0 = Mood::Well);
    }

    /// Cuts every connection and takes none for a while.
    pub(crate) fn refuse(&self, time: Duration) {
        self.state
            .send_modify(|state| *state = (Mood::Refusing, state.1 + 1));
        std::thread::sleep(time);
        self.state.send_modify(|state| state.0 = Mood::Well);
    }
}

async fn over(state: &mut watch::Receiver<State>) {
    while state.changed().await.is_ok() {}
}

async fn connect(client: TcpStream, target: SocketAddr, mut state: watch::Receiver<State>) {
    let born = state.borrow().1;
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    for socket in [&client, &server] {
        socket.set_nodelay(true).expect("set");
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = pump(from_client, to_server, state.clone()) => {}
        () = pump(from_server, to_client, state.clone()) => {}
        _cut = state.wait_for(|state| state.1 > born) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<State>) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        let is_over = state.wait_for(|state| state.0 != Mood::Stalled).await.is_err();
        if is_over || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
