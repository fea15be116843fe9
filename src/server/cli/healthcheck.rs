//! `modelpress healthcheck`: one request to `/readyz`, so that a container needs no other tool.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::{ConfigArgs, FAILED, Failure, say};

const TIMEOUT: Duration = Duration::from_secs(2);

pub(super) fn run(args: ConfigArgs) -> Result<(), Failure> {
    let address = reachable(args.load()?.listen);
    let silent = |error| Failure::new(FAILED, format!("{address} does not answer: {error}"));
    let status = ask(address).map_err(silent)?;
    if status.contains(" 200 ") {
        say("ready");
        return Ok(());
    }
    Err(Failure::new(FAILED, format!("{address} is not ready: {status}")))
}

/// A server that listens on every address is asked on the local one.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(
        format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut head = [0; 64];
    let n = stream.read(&mut head)?;
    let text = String::from_utf8_lossy(&head[..n]);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
