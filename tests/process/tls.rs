//! TLS to PostgreSQL, by the parameters of the database's address.

use std::path::Path;
use std::process::Command;

use crate::cluster::Cluster;

/// Runs openssl in a folder; false where there is none.
fn openssl(folder: &Path, args: &str) -> bool {
    let output = Command::new("openssl")
        .args(args.split(' '))
        .current_dir(folder)
        .output();
    output.is_ok_and(|output| {
        assert!(
            output.status.success(),
            "{args}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        true
    })
}

/// An authority, and a certificate of it for `localhost`.
fn certify(folder: &Path, authority: &str) -> bool {
    std::fs::write(folder.join("names"), "subjectAltName = DNS:localhost\n").expect("written");
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(
        folder,
        &format!(
            "req -x509 {key} -days 2 -subj /CN={authority} -keyout {authority}.key -out {authority}.pem"
        ),
    ) && openssl(
        folder,
        &format!("req {key} -subj /CN=localhost -keyout server.key -out server.csr"),
    ) && openssl(
        folder,
        &format!(
            "x509 -req -in server.csr -CA {authority}.pem -CAkey {authority}.key -CAcreateserial -days 2 \
                 -extfile names -out server.pem"
        ),
    )
}

#[test]
fn a_database_is_reached_over_tls_and_must_be_who_it_says() {
    const TEST: &str = "a_database_is_reached_over_tls_and_must_be_who_it_says";
    let folder = tempfile::tempdir().expect("temp folder");
    let Some(cluster) = Cluster::start() else {
        println!("SKIPPED: {TEST} (needs PostgreSQL's initdb and pg_ctl)");
        return;
    };
    if !certify(folder.path(), "other") || !certify(folder.path(), "ours") {
        println!("SKIPPED: {TEST} (needs openssl to make certificates)");
        return;
    }
    let read = |name: &str| std::fs::read(folder.path().join(name)).expect("made");
    cluster.place("server.pem", &read("server.pem"));
    cluster.place("server.key", &read("server.key"));
    cluster.place("pg_hba.conf", b"hostssl all all 127.0.0.1/32 trust\n");
    cluster.configure("ssl = on\nssl_cert_file = 'server.pem'\nssl_key_file = 'server.key'\n");
    cluster.crash();
    cluster.begin();

    let port = cluster.address.port();
    let reaches = |host: &str, parameters: &str| {
        let parameters = parameters.replace("DIR", &folder.path().display().to_string());
        let url = format!("postgres://postgres@{host}:{port}/postgres?{parameters}");
        let output = Command::new(env!("CARGO_BIN_EXE_modelpress"))
            .args(["migrate", "--database-url", &url])
            .env_remove("MODELPRESS_CONFIG")
            .current_dir(folder.path())
            .output()
            .expect("runs");
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    for (host, parameters, expected) in [
        ("localhost", "sslmode=verify-full&sslrootcert=DIR/ours.pem", true),
        ("127.0.0.1", "sslmode=require", true),
        ("127.0.0.1", "sslmode=verify-ca&sslrootcert=DIR/ours.pem", true),
        // Not the name in the certificate; not the authority that signed it; not over TLS.
        ("127.0.0.1", "sslmode=verify-full&sslrootcert=DIR/ours.pem", false),
        (
            "localhost",
            "sslmode=verify-full&sslrootcert=DIR/other.pem",
            false,
        ),
        ("localhost", "sslmode=verify-full", false),
        ("127.0.0.1", "sslmode=disable", false),
    ] {
        let (reached, said) = reaches(host, parameters);
        assert_eq!(reached, expected, "{host} {parameters}: {said}");
    }
}
