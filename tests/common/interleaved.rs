//! A client in interleaved mode (RFC 9769 section 2), to make requests and judge replies by.

use timeball::wire::ntp::{Header, Mode};
use timeball::wire::timestamp::NtpTimestamp;

use super::plain_request;

/// What a client keeps from one exchange to the next.
#[derive(Default)]
pub struct InterleavedClient {
    /// Receive timestamp of the last reply.
    origin: NtpTimestamp,
    /// Its own clock, which counts events.
    events: u64,
    /// When the last reply came, and when the request under way was sent.
    received: NtpTimestamp,
    sent: NtpTimestamp,
}

/// What mode a reply is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyMode {
    Basic,
    Interleaved,
}

impl InterleavedClient {
    fn now(&mut self) -> NtpTimestamp {
        self.events += 1;
        NtpTimestamp::from_bits(0x1234_5678_0000_0000 + self.events)
    }

    /// The next request: the first one has no origin and no receive timestamp.
    pub fn request(&mut self) -> Vec<u8> {
        let mut request = plain_request(4, Mode::Client);
        self.prepare(&mut request);
        request
    }

    /// Turns a request into the next one, by its header alone.
    pub fn prepare(&mut self, request: &mut [u8]) {
        self.sent = self.now();
        request[24..32].copy_from_slice(&self.origin.to_bits().to_be_bytes());
        request[32..40].copy_from_slice(&self.received.to_bits().to_be_bytes());
        request[40..48].copy_from_slice(&self.sent.to_bits().to_be_bytes());
    }

    /// Takes the reply to the last request; fails if it is in no mode.
    pub fn reply(&mut self, reply: &[u8]) -> (ReplyMode, Header) {
        let header = Header::parse(reply).expect("a header");
        assert_ne!(header.receive_timestamp, header.transmit_timestamp, "line 111");
        let mode = if header.origin_timestamp == self.sent {
            ReplyMode::Basic
        } else {
            assert_eq!(header.origin_timestamp, self.received, "line 113");
            ReplyMode::Interleaved
        };
        self.received = self.now();
        self.origin = header.receive_timestamp;
        (mode, header)
    }
}
