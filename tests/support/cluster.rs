//! A PostgreSQL of the test's own, which it may stop, start and make secure.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The cluster; it is stopped, and its files go, when this is dropped.
pub(crate) struct Cluster {
    pub(crate) address: SocketAddr,
    folder: tempfile::TempDir,
    programs: PathBuf,
    /// PostgreSQL does not run as root.
    user: Option<(u32, u32)>,
}

impl Cluster {
    /// Makes and starts one; nothing where `initdb` and `pg_ctl` are not installed.
    pub(crate) fn start() -> Option<Self> {
        let programs = programs()?;
        let folder = tempfile::tempdir().expect("temp folder");
        let user = id("-u").filter(|id| *id == 0).map(|_| other_user());
        if let Some((user, group)) = user {
            chown(folder.path(), Some(user), Some(group)).expect("given away");
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let cluster = Self {
            address: listener.local_addr().expect("an address"),
            folder,
            programs,
            user,
        };
        drop(listener);
        let data = cluster.data();
        let made = [
            "-D",
            &data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
            "--locale=C",
        ];
        works(&cluster.run("initdb", &made));
        let port = cluster.address.port();
        cluster.configure(&format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\nfsync = off\n\
             max_connections = 200\n"
        ));
        cluster.begin();
        Some(cluster)
    }

    /// The address as the server's setting is written, through a proxy's.
    pub(crate) fn url_at(address: SocketAddr) -> String {
        format!("postgres://postgres@{address}/postgres")
    }

    /// Adds to the configuration; a restart reads it.
    pub(crate) fn configure(&self, lines: &str) {
        use std::io::Write as _;
        let path = self.folder.path().join("data/postgresql.conf");
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .open(path)
            .expect("opens");
        file.write_all(lines.as_bytes()).expect("written");
    }

    /// Puts a file into the data folder that only the server may read.
    pub(crate) fn place(&self, name: &str, content: &[u8]) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.folder.path().join("data").join(name);
        std::fs::write(&path, content).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
        if let Some((user, group)) = self.user {
            chown(&path, Some(user), Some(group)).expect("given away");
        }
    }

    /// Ends it as a power cut does.
    pub(crate) fn crash(&self) {
        works(&self.run("pg_ctl", &["stop", "-D", &self.data(), "-m", "immediate"]));
    }

    /// Starts it and waits until it answers.
    pub(crate) fn begin(&self) {
        let log = self.folder.path().join("log").display().to_string();
        let started = self.run(
            "pg_ctl",
            &["start", "-w", "-t", "60", "-D", &self.data(), "-l", &log],
        );
        assert!(
            started.status.success(),
            "{}",
            std::fs::read_to_string(&log).unwrap_or_default()
        );
    }

    fn data(&self) -> String {
        self.folder.path().join("data").display().to_string()
    }

    fn run(&self, program: &str, args: &[&str]) -> Output {
        let mut command = Command::new(self.programs.join(program));
        command.args(args).current_dir("/");
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        // A server that goes on must not keep the test's pipes.
        let output = tempfile::tempfile().expect("temp file");
        let copy = output.try_clone().expect("cloned");
        let status = command
            .stdout(copy.try_clone().expect("cloned"))
            .stderr(copy)
            .status()
            .expect("runs");
        Output {
            status,
            stdout: read(output),
            stderr: Vec::new(),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.run("pg_ctl", &["stop", "-D", &self.data(), "-m", "immediate"]);
    }
}

fn read(mut file: std::fs::File) -> Vec<u8> {
    use std::io::{Read as _, Seek as _};
    let mut bytes = Vec::new();
    file.rewind().expect("rewinds");
    file.read_to_end(&mut bytes).expect("reads");
    bytes
}

fn works(output: &Output) {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

/// The folder of PostgreSQL's programs: on the path, or where Debian keeps them.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    folders.extend(versions.flatten().map(|version| version.path().join("bin")));
    let whole = |folder: &PathBuf| {
        ["initdb", "pg_ctl"]
            .iter()
            .all(|program| is_file(&folder.join(program)))
    };
    folders.into_iter().find(whole)
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file())
}

fn id(of: &str) -> Option<u32> {
    let output = Command::new("id").arg(of).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// Somebody who is not root: `postgres` if there is one.
fn other_user() -> (u32, u32) {
    let of = |flag: &str| {
        let output = Command::new("id").args([flag, "postgres"]).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse::<u32>().ok()
    };
    of("-u").zip(of("-g")).unwrap_or((65534, 65534))
}
