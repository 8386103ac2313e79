//! The server's session of key establishment, as a machine that takes bytes and moments.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};
use time::OffsetDateTime;
use timeball::aead::Algorithm;
use timeball::certificate::self_signed;
use timeball::ke::client::client_config;
use timeball::ke::cookies::{Cookie, CookieError, CookieSource, CookieVec};
use timeball::ke::negotiate::Policy;
use timeball::ke::session::{Outcome, Services, Session};
use timeball::ke::tls::{CertificateStore, Pair, server_config};
use timeball::limits::COOKIES_PER_REPLY;
use timeball::wire::ke::{Request, Response};

/// A connection: one byte of flags, one with the size of the pieces in which the server gets what
/// is sent (0: whole), two that choose a byte of it to damage, then what is sent. Flag 1: within
/// TLS, behind a real handshake; otherwise in place of it. Flag 2: the byte is damaged. Flag 4: in
/// the end time is up; otherwise the client closes. Returns how it ended.
///
/// # Panics
/// If an outcome changes, does not come, or is not that of the same bytes in one piece; if cookies
/// are given for anything but a good request behind an undamaged handshake, or an answer to such a
/// request does not hold them.
pub fn ke_session(input: &[u8]) -> Option<Outcome> {
    let (&[flags, piece_bytes, high, low], sent) = input.split_first_chunk()?;
    let is_tls = flags & 1 != 0;
    let damaged = (flags & 2 != 0).then(|| usize::from(u16::from_be_bytes([high, low])));
    let is_late = flags & 4 != 0;
    let piece_bytes = match piece_bytes {
        0 => usize::MAX,
        bytes => usize::from(bytes),
    };
    let meet = |piece_bytes| {
        let mut connection = Connection::new(piece_bytes, damaged);
        match is_tls {
            true => connection.speak_tls(sent),
            false => connection.send(sent),
        }
        connection.finish(is_late)
    };
    let (outcome, said) = meet(piece_bytes);
    if damaged.is_none() {
        // Where a damaged byte stands depends on what the two had sent before.
        assert_eq!(meet(usize::MAX).0, outcome);
    }
    let is_good = is_tls && Request::parse(sent).is_ok();
    match Response::parse(&said) {
        Ok(Response::Agreement(agreement)) if !agreement.cookies.is_empty() => {
            assert!(is_good && matches!(outcome, Outcome::Served { .. }));
            assert_eq!(agreement.cookies.len(), COOKIES_PER_REPLY);
        }
        _ => assert!(damaged.is_some() || !matches!(outcome, Outcome::Served { .. })),
    }
    Some(outcome)
}

/// A server's session and the end of the client that speaks to it.
struct Connection {
    session: Session,
    cookies: ZeroCookies,
    outcome: Option<Outcome>,
    piece_bytes: usize,
    /// How many bytes until the one to damage.
    damaged: Option<usize>,
    /// What the server sent.
    output: Vec<u8>,
    /// What the client found in it.
    said: Vec<u8>,
}

impl Connection {
    fn new(piece_bytes: usize, damaged: Option<usize>) -> Self {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            session: Session::new(local, begin() + PATIENCE),
            cookies: ZeroCookies,
            outcome: None,
            piece_bytes,
            damaged,
            output: Vec::new(),
            said: Vec::new(),
        }
    }

    /// Lets a real client say `text` as soon as it may, until nobody has more to say.
    fn speak_tls(&mut self, text: &[u8]) {
        let name = "localhost".try_into().expect("a name");
        let config = Arc::clone(&identity().client);
        let mut client = ClientConnection::new(config, name).expect("TLS 1.3");
        let mut has_spoken = false;
        loop {
            if !client.is_handshaking() && !has_spoken {
                client.writer().write_all(text).expect("into memory");
                has_spoken = true;
            }
            let mut sent = Vec::new();
            while client.write_tls(&mut sent).is_ok_and(|bytes| bytes > 0) {}
            self.send(&sent);
            let output = std::mem::take(&mut self.output);
            if sent.is_empty() && output.is_empty() {
                return;
            }
            let mut rest = &output[..];
            while !rest.is_empty() && client.read_tls(&mut rest).is_ok() {
                if client.process_new_packets().is_err() {
                    return;
                }
            }
            let _ = client.reader().read_to_end(&mut self.said);
        }
    }

    /// Gives the session these bytes in pieces, and takes what it answers.
    fn send(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        if let Some(damaged) = self.damaged {
            match bytes.get_mut(damaged) {
                Some(byte) => {
                    *byte ^= 0x55;
                    self.damaged = None;
                }
                None => self.damaged = Some(damaged - bytes.len()),
            }
        }
        for piece in bytes.chunks(self.piece_bytes) {
            let (tls, policy) = (&identity().server, &identity().policy);
            let mut services = Services { tls, policy, cookies: &mut self.cookies };
            self.session.receive(piece, &mut services);
            self.note();
        }
        while self.session.has_output() {
            let sent = self.session.send(&mut self.output).expect("into memory");
            assert!(sent > 0);
        }
    }

    fn note(&mut self) {
        let outcome = self.session.outcome();
        assert!(self.outcome.is_none() || outcome == self.outcome);
        self.outcome = outcome;
    }

    fn finish(mut self, is_late: bool) -> (Outcome, Vec<u8>) {
        self.session.tick(begin());
        self.note();
        match is_late {
            true => self.session.tick(begin() + PATIENCE),
            false => self.session.end_of_input(),
        }
        self.note();
        let outcome = self.outcome.expect("it has ended");
        // What comes behind the end changes nothing.
        self.send(&[0; 3]);
        assert_eq!(self.session.outcome(), Some(outcome));
        (outcome, self.said)
    }
}

/// The time of a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// When all connections begin.
fn begin() -> Instant {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    *BEGIN.get_or_init(Instant::now)
}

/// Cookies that open nowhere.
struct ZeroCookies;

impl CookieSource for ZeroCookies {
    fn cookies(
        &mut self,
        algorithm: Algorithm,
        c2s: &[u8],
        s2c: &[u8],
        out: &mut CookieVec,
    ) -> Result<(), CookieError> {
        assert_eq!([c2s.len(), s2c.len()], [algorithm.key_bytes(); 2]);
        for number in 0..COOKIES_PER_REPLY {
            out.push(Cookie::from_iter([number as u8; 64]));
        }
        Ok(())
    }
}

struct Identity {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    policy: Policy,
}

fn identity() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let (names, days) = (["localhost".to_owned()], time::Duration::days(1));
        let made = self_signed(&names, days, OffsetDateTime::now_utc()).expect("a certificate");
        let (certificate, key) = (made.certificate_pem.as_bytes(), made.key_pem.as_bytes());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(certificate).expect("PEM")).expect("a root");
        let pair = Pair::from_pem(certificate, key, Path::new("-"), Path::new("-"));
        let store = CertificateStore::new(vec![pair.expect("a pair")]).expect("a store");
        Identity {
            server: server_config(Arc::new(store)).expect("TLS 1.3"),
            client: client_config(Arc::new(roots)),
            policy: Policy::default(),
        }
    })
}
