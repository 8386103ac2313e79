//! The NTP header (RFC 5905 section 7.3), 48 bytes, versions 1 to 4.

use super::timestamp::{NtpShort, NtpTimestamp};

/// Length of the header, and of the smallest datagram, in bytes.
pub const HEADER_BYTES: usize = 48;

/// Where the header's fields lie, in bytes from the start of the datagram.
mod offset {
    pub(super) const STRATUM: usize = 1;
    pub(super) const POLL: usize = 2;
    pub(super) const PRECISION: usize = 3;
    pub(super) const ROOT_DELAY: usize = 4;
    pub(super) const ROOT_DISPERSION: usize = 8;
    pub(super) const REFERENCE_ID: usize = 12;
    pub(super) const REFERENCE_TIMESTAMP: usize = 16;
    pub(super) const ORIGIN_TIMESTAMP: usize = 24;
    pub(super) const RECEIVE_TIMESTAMP: usize = 32;
    pub(super) const TRANSMIT_TIMESTAMP: usize = 40;
}

/// Leap indicator (RFC 5905 figure 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Leap {
    /// No warning.
    None = 0,
    /// The last minute of the day has 61 seconds.
    Insert = 1,
    /// The last minute of the day has 59 seconds.
    Delete = 2,
    /// The clock is not synchronised.
    Unsynchronised = 3,
}

impl Leap {
    /// From the two low bits.
    pub(crate) fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::None,
            1 => Self::Insert,
            2 => Self::Delete,
            _ => Self::Unsynchronised,
        }
    }
}

/// Association mode (RFC 5905 figure 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// 0; the mode of an NTPv1 client, which has no mode field (RFC 1059).
    Reserved = 0,
    /// 1.
    SymmetricActive = 1,
    /// 2.
    SymmetricPassive = 2,
    /// 3.
    Client = 3,
    /// 4.
    Server = 4,
    /// 5.
    Broadcast = 5,
    /// 6, `ntpq`.
    Control = 6,
    /// 7, `ntpdc`.
    Private = 7,
}

impl Mode {
    fn from_bits(bits: u8) -> Self {
        match bits & 7 {
            0 => Self::Reserved,
            1 => Self::SymmetricActive,
            2 => Self::SymmetricPassive,
            3 => Self::Client,
            4 => Self::Server,
            5 => Self::Broadcast,
            6 => Self::Control,
            _ => Self::Private,
        }
    }
}

/// Reference identifier: an IPv4 address, a hash of an IPv6 address, or four characters
/// (RFC 5905 figure 12; kiss codes in section 7.4).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ReferenceId(pub [u8; 4]);

impl ReferenceId {
    /// Of a server without a reference.
    pub const NONE: Self = Self([0; 4]);
    /// Kiss code: the request's NTS authentication failed (RFC 8915 section 5.7).
    pub const KISS_NTSN: Self = Self(*b"NTSN");
    /// Kiss code: asked too often (RFC 5905 section 7.4).
    pub const KISS_RATE: Self = Self(*b"RATE");
}

impl std::fmt::Debug for ReferenceId {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, out)
    }
}

/// Eight hexadecimal digits, as chrony prints it, with the text where it is one.
impl std::fmt::Display for ReferenceId {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:08X}", u32::from_be_bytes(self.0))?;
        let text_bytes = self.0.iter().position(|&byte| byte == 0).unwrap_or(self.0.len());
        let (text, padding) = self.0.split_at(text_bytes);
        let is_text = !text.is_empty()
            && text.iter().all(u8::is_ascii_graphic)
            && padding.iter().all(|&byte| byte == 0);
        if is_text { write!(out, " ({})", text.escape_ascii()) } else { Ok(()) }
    }
}

/// The header's fields, all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Leap indicator.
    pub leap: Leap,
    /// Version number, 0 to 7 as found; timeball speaks 1 to 4.
    pub version: u8,
    /// Association mode.
    pub mode: Mode,
    /// 1 primary, 2 to 15 secondary, 0 unspecified or a kiss-o'-death.
    pub stratum: u8,
    /// Poll interval, log₂ seconds.
    pub poll: i8,
    /// Clock precision, log₂ seconds.
    pub precision: i8,
    /// Round trip to the primary source.
    pub root_delay: NtpShort,
    /// Error bound against the primary source.
    pub root_dispersion: NtpShort,
    /// What the clock follows.
    pub reference_id: ReferenceId,
    /// When the clock was last set or corrected.
    pub reference_timestamp: NtpTimestamp,
    /// The client's transmit timestamp, returned to it.
    pub origin_timestamp: NtpTimestamp,
    /// When the request arrived.
    pub receive_timestamp: NtpTimestamp,
    /// When this packet left.
    pub transmit_timestamp: NtpTimestamp,
}

impl Header {
    /// Reads the first 48 bytes of a datagram; `None` if it is shorter. Every 48 bytes are a
    /// header: what they mean is for the caller to judge.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = datagram.first_chunk()?;
        Some(Self {
            leap: Leap::from_bits(bytes[0] >> 6),
            version: (bytes[0] >> 3) & 7,
            mode: Mode::from_bits(bytes[0]),
            stratum: bytes[offset::STRATUM],
            poll: bytes[offset::POLL] as i8,
            precision: bytes[offset::PRECISION] as i8,
            root_delay: NtpShort::from_bits(u32_at(bytes, offset::ROOT_DELAY)),
            root_dispersion: NtpShort::from_bits(u32_at(bytes, offset::ROOT_DISPERSION)),
            reference_id: ReferenceId(u32_at(bytes, offset::REFERENCE_ID).to_be_bytes()),
            reference_timestamp: timestamp_at(bytes, offset::REFERENCE_TIMESTAMP),
            origin_timestamp: timestamp_at(bytes, offset::ORIGIN_TIMESTAMP),
            receive_timestamp: timestamp_at(bytes, offset::RECEIVE_TIMESTAMP),
            transmit_timestamp: timestamp_at(bytes, offset::TRANSMIT_TIMESTAMP),
        })
    }

    /// The 48 bytes of the wire.
    pub fn emit(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = (self.leap as u8) << 6 | (self.version & 7) << 3 | self.mode as u8;
        bytes[offset::STRATUM] = self.stratum;
        bytes[offset::POLL] = self.poll as u8;
        bytes[offset::PRECISION] = self.precision as u8;
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(offset::ROOT_DELAY, &self.root_delay.to_bits().to_be_bytes());
        put(offset::ROOT_DISPERSION, &self.root_dispersion.to_bits().to_be_bytes());
        put(offset::REFERENCE_ID, &self.reference_id.0);
        put(offset::REFERENCE_TIMESTAMP, &self.reference_timestamp.to_bits().to_be_bytes());
        put(offset::ORIGIN_TIMESTAMP, &self.origin_timestamp.to_bits().to_be_bytes());
        put(offset::RECEIVE_TIMESTAMP, &self.receive_timestamp.to_bits().to_be_bytes());
        put(offset::TRANSMIT_TIMESTAMP, &self.transmit_timestamp.to_bits().to_be_bytes());
        bytes
    }
}

fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn timestamp_at(bytes: &[u8; HEADER_BYTES], at: usize) -> NtpTimestamp {
    let high = u64::from(u32_at(bytes, at));
    NtpTimestamp::from_bits(high << 32 | u64::from(u32_at(bytes, at + 4)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_48_bytes_survive_the_round_trip(
            datagram in proptest::array::uniform::<_, HEADER_BYTES>(any::<u8>()),
        ) {
            let header = Header::parse(&datagram).expect("48 bytes are a header");
            prop_assert_eq!(header.emit(), datagram);
        }
    }

    #[test]
    fn c090_shorter_than_a_header_is_none() {
        assert_eq!(Header::parse(&[0; HEADER_BYTES - 1]), None);
    }

    #[test]
    fn reference_id_shows_its_text() {
        assert_eq!(ReferenceId::KISS_NTSN.to_string(), "4E54534E (NTSN)");
        assert_eq!(ReferenceId(*b"GPS\0").to_string(), "47505300 (GPS)");
        assert_eq!(ReferenceId([127, 127, 1, 1]).to_string(), "7F7F0101");
        assert_eq!(ReferenceId::NONE.to_string(), "00000000");
    }
}
