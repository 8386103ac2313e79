//! A client of key establishment that does as the test says: any bytes in any TLS records. Who
//! ended the connection, and how, is part of the answer.
//!
//! Requests and answers are written and read here by hand: the server's own code would make the
//! same mistake twice.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, ClientConnection};
use timeball::ke::client::roots_from_file;

use super::common::server::{ANSWER_WAIT, Server};

/// The application protocol of RFC 8915 section 4.
pub const ALPN: &[u8] = b"ntske/1";

/// The bit of a record's type that says "refuse me if you do not know me".
pub const CRITICAL: u16 = 0x8000;
pub const END_OF_MESSAGE: u16 = 0;
pub const NEXT_PROTOCOL: u16 = 1;
pub const ERROR: u16 = 2;
pub const WARNING: u16 = 3;
pub const AEAD: u16 = 4;
pub const COOKIE: u16 = 5;
pub const SERVER: u16 = 6;
pub const PORT: u16 = 7;
pub const COMPLIANT_128GCM: u16 = 1024;

/// One record; `kind` includes the critical bit.
pub fn record(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("a body that fits");
    [&kind.to_be_bytes()[..], &length.to_be_bytes(), body].concat()
}

pub fn ids(kind: u16, ids: &[u16]) -> Vec<u8> {
    let body: Vec<u8> = ids.iter().flat_map(|id| id.to_be_bytes()).collect();
    record(CRITICAL | kind, &body)
}

pub fn end_of_message() -> Vec<u8> {
    record(CRITICAL | END_OF_MESSAGE, &[])
}

/// A request for these protocols and algorithms, with `more` in front of End of Message.
pub fn request(protocols: &[u16], aeads: &[u16], more: &[u8]) -> Vec<u8> {
    let head = [ids(NEXT_PROTOCOL, protocols), ids(AEAD, aeads)].concat();
    [&head, more, &end_of_message()].concat()
}

/// What every client asks for.
pub fn good_request() -> Vec<u8> {
    request(&[0], &[15], &[])
}

/// How the server ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As it should: with close_notify.
    CloseNotify,
    Alert(AlertDescription),
    /// TCP was closed without a word of TLS.
    Cut,
    Reset,
}

/// TLS 1.3, trusting the server's certificate.
pub fn config(server: &Server, alpn: &[&[u8]]) -> ClientConfig {
    let roots = roots_from_file(&server.certificate()).expect("the certificate");
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

/// A TCP connection with a time limit.
pub fn tcp(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).expect("connected");
    socket.set_read_timeout(Some(ANSWER_WAIT)).expect("set");
    socket.set_write_timeout(Some(ANSWER_WAIT)).expect("set");
    socket.set_nodelay(true).expect("set");
    socket
}

pub struct Client {
    pub tls: ClientConnection,
    pub socket: TcpStream,
}

impl Client {
    /// Done with the handshake, on 127.0.0.1.
    pub fn connect(server: &Server) -> Self {
        Self::handshake(Arc::new(config(server, &[ALPN])), server.ke()).expect("a handshake")
    }

    /// Takes the handshake to its end, one way or the other.
    pub fn handshake(config: Arc<ClientConfig>, address: SocketAddr) -> Result<Self, End> {
        let name = ServerName::try_from("localhost").expect("a name");
        let tls = ClientConnection::new(config, name).expect("a configuration that works");
        let mut client = Self { tls, socket: tcp(address) };
        while client.tls.is_handshaking() {
            client.flush().map_err(|error| end_of(&error))?;
            client.receive()?;
        }
        client.flush().map_err(|error| end_of(&error))?;
        Ok(client)
    }

    /// Sends `bytes`, in a TLS record of their own if they fit into one.
    pub fn try_say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tls.set_buffer_limit(None);
        self.tls.writer().write_all(bytes)?;
        self.flush()
    }

    pub fn say(&mut self, bytes: &[u8]) {
        self.try_say(bytes).expect("sent");
    }

    pub fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    /// Reads until the server has ended the connection: what it said, and how it ended.
    pub fn finish(&mut self) -> (Vec<u8>, End) {
        let mut received = Vec::new();
        loop {
            if let Err(end) = self.receive() {
                return (received, end);
            }
            let mut piece = [0; 4096];
            loop {
                match self.tls.reader().read(&mut piece) {
                    Ok(0) => return (received, End::CloseNotify),
                    Ok(length) => received.extend(&piece[..length]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    /// What comes behind close_notify, until the server closes TCP.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.socket.read_to_end(&mut rest) {
            Ok(_) => rest,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => rest,
            Err(error) => panic!("TCP was not closed: {error}"),
        }
    }

    /// The answer to `request`; the server has to close the connection behind it.
    pub fn ask(mut self, request: &[u8]) -> Reply {
        self.say(request);
        self.reply()
    }

    /// The answer to what has been said.
    pub fn reply(&mut self) -> Reply {
        let (bytes, end) = self.finish();
        assert_eq!(end, End::CloseNotify, "after {bytes:02x?}");
        Reply { records: parse(&bytes), bytes, c2s: self.export(15, 0), s2c: self.export(15, 1) }
    }

    /// RFC 8915 section 5.1: protocol 0, the algorithm, 0 for C2S and 1 for S2C.
    fn export(&self, algorithm: u16, direction: u8) -> [u8; 32] {
        let [high, low] = algorithm.to_be_bytes();
        self.export_as(b"EXPORTER-network-time-security", &[0, 0, high, low, direction])
    }

    pub fn export_as(&self, label: &[u8], context: &[u8]) -> [u8; 32] {
        self.tls.export_keying_material([0; 32], label, Some(context)).expect("keys")
    }

    fn receive(&mut self) -> Result<(), End> {
        match self.tls.read_tls(&mut self.socket) {
            Ok(0) => Err(End::Cut),
            Ok(_) => match self.tls.process_new_packets() {
                Ok(_) => Ok(()),
                Err(rustls::Error::AlertReceived(alert)) => Err(End::Alert(alert)),
                Err(error) => panic!("the server's TLS is wrong: {error}"),
            },
            Err(error) => Err(end_of(&error)),
        }
    }
}

fn end_of(error: &io::Error) -> End {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => End::Reset,
        _ => panic!("the server did not end the connection: {error}"),
    }
}

/// The answer to `request` on a connection of its own.
pub fn ask(server: &Server, request: &[u8]) -> Reply {
    Client::connect(server).ask(request)
}

/// As [`ask`], at another address than 127.0.0.1.
pub fn ask_at(server: &Server, address: SocketAddr, request: &[u8]) -> Reply {
    let client = Client::handshake(Arc::new(config(server, &[ALPN])), address);
    client.expect("a handshake").ask(request)
}

#[derive(Debug)]
pub struct Record {
    pub critical: bool,
    pub kind: u16,
    pub body: Vec<u8>,
}

/// An answer, and the keys of AEAD 15 that belong to its connection.
#[derive(Debug)]
pub struct Reply {
    pub records: Vec<Record>,
    pub bytes: Vec<u8>,
    pub c2s: [u8; 32],
    pub s2c: [u8; 32],
}

impl Reply {
    pub fn bodies(&self, kind: u16) -> Vec<&[u8]> {
        let records = self.records.iter().filter(|record| record.kind == kind);
        records.map(|record| record.body.as_slice()).collect()
    }

    /// The numbers in the one record of this type.
    pub fn ids(&self, kind: u16) -> Vec<u16> {
        let [body] = self.bodies(kind)[..] else { panic!("one record {kind}: {self:?}") };
        assert!(body.len().is_multiple_of(2), "{self:?}");
        body.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
    }

    pub fn cookies(&self) -> Vec<&[u8]> {
        self.bodies(COOKIE)
    }

    /// Nothing but this Error and End of Message, to the byte.
    pub fn assert_error(&self, code: u8) {
        let expected = [0x80, 2, 0, 2, 0, code, 0x80, 0, 0, 0];
        assert_eq!(self.bytes, expected, "expected Error {code}");
    }

    /// NTPv4 with AEAD 15, and cookies for it.
    pub fn assert_agreed(&self) {
        assert_eq!(self.ids(NEXT_PROTOCOL), [0]);
        assert_eq!(self.ids(AEAD), [15]);
        assert!(!self.cookies().is_empty());
    }
}

/// All records of an answer, which end where it ends.
fn parse(bytes: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    let mut rest = bytes;
    while let Some(([a, b, c, d], behind)) = rest.split_first_chunk::<4>() {
        let kind = u16::from_be_bytes([*a, *b]);
        let length = usize::from(u16::from_be_bytes([*c, *d]));
        assert!(length <= behind.len(), "a record is cut off: {bytes:02x?}");
        let (body, next) = behind.split_at(length);
        let critical = kind & CRITICAL != 0;
        records.push(Record { critical, kind: kind & !CRITICAL, body: body.to_vec() });
        rest = next;
    }
    assert!(rest.is_empty(), "bytes behind the last record: {bytes:02x?}");
    records
}
