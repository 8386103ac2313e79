//! Errors of the client that need no server of ours. The rest is tested with the server.

use std::net::{Ipv4Addr, TcpListener};

use super::*;

#[test]
fn what_went_wrong_is_said_in_one_sentence() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let error = establish(&options("127.0.0.1", free)).unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error}");
    assert!(error.to_string().starts_with("127.0.0.1 does not take connections on TCP port"));

    let error = establish(&options("no such host", 1)).unwrap_err();
    assert!(matches!(error, ClientError::Name { .. }), "{error}");
}

#[test]
fn a_server_that_says_nothing_ends_in_a_timeout() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut options = options("127.0.0.1", silent.local_addr().unwrap().port());
    options.timeout = Duration::from_millis(50);
    let error = establish(&options).unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
}

#[test]
fn a_server_that_speaks_something_else_is_told_apart() {
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = other.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = other.accept().unwrap();
        // All of the ClientHello, or closing would send a reset.
        let _ = stream.read(&mut [0; 4096]);
        stream.write_all(b"220 mail.example.org ESMTP\r\n").unwrap();
    });
    let error = establish(&options("127.0.0.1", port)).unwrap_err();
    assert!(matches!(error, ClientError::Tls { .. }), "{error}");
    thread.join().unwrap();
}

#[test]
fn roots_come_from_a_file_that_has_some() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    assert!(matches!(roots_from_file(&file), Err(RootsError::Read { .. })));
    std::fs::write(&file, "garbage").unwrap();
    assert!(matches!(roots_from_file(&file), Err(RootsError::Malformed(_))));
    let names = ["time.test".to_owned()];
    let now = time::OffsetDateTime::now_utc();
    let pair = crate::certificate::self_signed(&names, time::Duration::days(1), now).unwrap();
    std::fs::write(&file, &pair.certificate_pem).unwrap();
    assert_eq!(roots_from_file(&file).unwrap().len(), 1);
}

fn options(host: &str, port: u16) -> Options {
    Options {
        host: host.to_owned(),
        port,
        config: client_config(Arc::new(RootCertStore::empty())),
        offer: Offer::default(),
        timeout: Duration::from_secs(10),
    }
}
