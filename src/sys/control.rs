//! Ancillary data of datagrams (`cmsg(3)`), read and written as bytes.
//!
//! A control message is a native-endian header (`size_t` length that counts the header, `int`
//! level, `int` type), its data, and padding to the alignment of `size_t`. The kernel writes the
//! lengths; they are checked all the same.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::limits::CONTROL_BYTES;
use crate::wire::timestamp::NtpTimestamp;

const HEADER_BYTES: usize = size_of::<libc::cmsghdr>();
const ALIGNMENT: usize = size_of::<usize>();

/// Room for the control messages of one datagram, aligned as `cmsg(3)` asks for.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct ControlBuffer(pub [u8; CONTROL_BYTES]);

impl ControlBuffer {
    /// All zero.
    pub const ZERO: Self = Self([0; CONTROL_BYTES]);
}

/// The address that a datagram was sent to, and the interface it came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// `IP_PKTINFO`.
    V4(Ipv4Addr),
    /// `IPV6_PKTINFO` with the interface index.
    V6(Ipv6Addr, u32),
}

/// What the control messages of a received datagram say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// When the kernel took the datagram in (`SCM_TIMESTAMPNS`).
    pub arrival: Option<NtpTimestamp>,
    /// When its interface did, by that interface's own clock.
    pub hardware: Option<HardwareStamp>,
    /// Where it was sent to.
    pub destination: Option<Destination>,
    /// Datagrams that were dropped at its socket when it was queued (`SO_RXQ_OVFL`), modulo 2³².
    /// The kernel does not tell of none.
    pub drops: Option<u32>,
}

/// A timestamp of an interface, and what its translation takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardwareStamp {
    /// Nanoseconds of the interface's clock (`SCM_TIMESTAMPING`): the beginning of the frame.
    pub at: i64,
    /// The interface (`SCM_TIMESTAMPING_PKTINFO`), not a virtual one before it; 0 if the kernel
    /// does not say.
    pub interface: u32,
    /// Length of the frame without its check sequence; 0 likewise.
    pub frame_bytes: u32,
}

/// Reads the control messages in `control`; what is unknown or malformed is passed by.
pub fn read(control: &[u8]) -> Received {
    let mut received = Received::default();
    let (mut stamp, mut frame) = (None, None);
    let mut rest = control;
    while let Some((message, after)) = next_message(rest) {
        rest = after;
        match (message.level, message.kind) {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => received.arrival = timespec(message.data),
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPING) => stamp = hardware_stamp(message.data),
            (libc::SOL_SOCKET, SCM_TIMESTAMPING_PKTINFO) => frame = ts_pktinfo(message.data),
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                received.drops = message.data.first_chunk().copied().map(u32::from_ne_bytes);
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                received.destination = in_pktinfo(message.data);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                received.destination = in6_pktinfo(message.data);
            }
            _ => {}
        }
    }
    if let Some(at) = stamp {
        let (interface, frame_bytes) = frame.unwrap_or_default();
        received.hardware = Some(HardwareStamp { at, interface, frame_bytes });
    }
    received
}

struct Message<'a> {
    level: i32,
    kind: i32,
    data: &'a [u8],
}

fn next_message(control: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let (length, rest) = control.split_first_chunk()?;
    let (level, rest) = rest.split_first_chunk()?;
    let (kind, _) = rest.split_first_chunk()?;
    let length = usize::from_ne_bytes(*length);
    let data = control.get(HEADER_BYTES..length)?;
    let next = length.checked_next_multiple_of(ALIGNMENT)?.min(control.len());
    let message =
        Message { level: i32::from_ne_bytes(*level), kind: i32::from_ne_bytes(*kind), data };
    Some((message, &control[next..]))
}

/// `struct timespec`: seconds and nanoseconds, 8 bytes each.
fn timespec(data: &[u8]) -> Option<NtpTimestamp> {
    let (seconds, rest) = data.split_first_chunk()?;
    let nanoseconds = i64::from_ne_bytes(*rest.first_chunk()?);
    Some(NtpTimestamp::from_unix(i64::from_ne_bytes(*seconds), nanoseconds.try_into().ok()?))
}

/// `struct scm_timestamping`: three times, by software, none, and raw by hardware, of which those
/// that do not exist are zero.
fn hardware_stamp(data: &[u8]) -> Option<i64> {
    let (seconds, rest) = data.get(32..)?.split_first_chunk()?;
    let nanoseconds = i64::from_ne_bytes(*rest.first_chunk()?);
    let seconds = i64::from_ne_bytes(*seconds);
    let at = seconds.wrapping_mul(1_000_000_000).wrapping_add(nanoseconds);
    (at != 0).then_some(at)
}

/// `struct scm_ts_pktinfo`: interface index, length of the packet on layer 2.
fn ts_pktinfo(data: &[u8]) -> Option<(u32, u32)> {
    let (interface, rest) = data.split_first_chunk()?;
    Some((u32::from_ne_bytes(*interface), u32::from_ne_bytes(*rest.first_chunk()?)))
}

/// `struct in_pktinfo`: interface index, local address, header destination address.
fn in_pktinfo(data: &[u8]) -> Option<Destination> {
    let local: [u8; 4] = *data.get(4..)?.first_chunk()?;
    Some(Destination::V4(Ipv4Addr::from(local)))
}

/// `struct in6_pktinfo`: destination address, interface index.
fn in6_pktinfo(data: &[u8]) -> Option<Destination> {
    let (address, rest) = data.split_first_chunk::<16>()?;
    let interface = u32::from_ne_bytes(*rest.first_chunk()?);
    Some(Destination::V6(Ipv6Addr::from(*address), interface))
}

/// Writes the one control message that makes a reply leave from `destination`; returns its length.
///
/// The interface is given only where the address has no meaning without it (link-local):
/// elsewhere the routing table chooses the way back.
pub fn write_source(control: &mut ControlBuffer, destination: Destination) -> usize {
    let at = 0;
    match destination {
        Destination::V4(address) => {
            let mut data = [0; size_of::<libc::in_pktinfo>()];
            data[4..8].copy_from_slice(&address.octets());
            write_message(control, at, libc::IPPROTO_IP, libc::IP_PKTINFO, &data)
        }
        Destination::V6(address, interface) => {
            let mut data = [0; size_of::<libc::in6_pktinfo>()];
            data[..16].copy_from_slice(&address.octets());
            if address.is_unicast_link_local() {
                data[16..].copy_from_slice(&interface.to_ne_bytes());
            }
            write_message(control, at, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &data)
        }
    }
}

/// Writes behind the first `at` bytes the control message that makes the kernel send a payload as
/// datagrams of `segment_bytes` each, the last perhaps shorter (`UDP_SEGMENT`, udp(7)); returns
/// where it ends.
pub fn write_segment(control: &mut ControlBuffer, at: usize, segment_bytes: u16) -> usize {
    let data = segment_bytes.to_ne_bytes();
    write_message(control, at, libc::SOL_UDP, libc::UDP_SEGMENT, &data)
}

/// Writes behind the first `at` bytes the control message that makes the kernel stamp the datagram
/// when its device driver takes it (`SO_TIMESTAMPING`, the kernel's `timestamping.rst`), and its
/// interface when it leaves, if `by_hardware`; returns where it ends.
pub fn write_stamp_request(control: &mut ControlBuffer, at: usize, by_hardware: bool) -> usize {
    let hardware = if by_hardware { libc::SOF_TIMESTAMPING_TX_HARDWARE } else { 0 };
    let data = (libc::SOF_TIMESTAMPING_TX_SOFTWARE | hardware).to_ne_bytes();
    write_message(control, at, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, &data)
}

/// A transmit timestamp, as the error queue tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    /// Which of the datagrams that were to be stamped: the kernel counts them for each socket,
    /// modulo 2³² (`SOF_TIMESTAMPING_OPT_ID`).
    pub number: u32,
    /// When.
    pub stamp: DepartureStamp,
}

/// Who stamped a datagram, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DepartureStamp {
    /// The kernel, as the device driver took it.
    Software(NtpTimestamp),
    /// The interface as it left, by the nanoseconds of its own clock.
    Hardware(i64),
}

/// Reads the control messages of a message of the error queue; `None` if it is no transmit
/// timestamp but an error. With one of the interface `SCM_TIMESTAMPNS` is when it was read: the
/// kernel puts that where a stamp of its own is missing.
pub fn read_departure(control: &[u8]) -> Option<Departure> {
    let (mut software, mut hardware, mut number) = (None, None, None);
    let mut rest = control;
    while let Some((message, after)) = next_message(rest) {
        rest = after;
        match (message.level, message.kind) {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => software = timespec(message.data),
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPING) => hardware = hardware_stamp(message.data),
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => {
                number = stamped_number(message.data);
            }
            _ => {}
        }
    }
    let hardware = hardware.map(DepartureStamp::Hardware);
    let stamp = hardware.or(software.map(DepartureStamp::Software))?;
    Some(Departure { number: number?, stamp })
}

/// `struct sock_extended_err`: error number, origin, type, code, padding, information, data. A
/// transmit timestamp of the device driver has the information 0 (`SCM_TSTAMP_SND`) and the number
/// as its data.
fn stamped_number(data: &[u8]) -> Option<u32> {
    let (error, rest) = data.split_first_chunk()?;
    let (&[origin, _, _, _], rest) = rest.split_first_chunk::<4>()?;
    let (information, rest) = rest.split_first_chunk()?;
    let is_stamp = u32::from_ne_bytes(*error) == libc::ENOMSG as u32
        && origin == libc::SO_EE_ORIGIN_TIMESTAMPING
        && u32::from_ne_bytes(*information) == SCM_TSTAMP_SND;
    is_stamp.then_some(u32::from_ne_bytes(*rest.first_chunk()?))
}

/// `asm/socket.h`.
const SCM_TIMESTAMPING_PKTINFO: i32 = 58;

/// `linux/errqueue.h`: the stamp was taken when the driver got the datagram.
const SCM_TSTAMP_SND: u32 = 0;

pub(super) fn write_message(
    control: &mut ControlBuffer,
    at: usize,
    level: i32,
    kind: i32,
    data: &[u8],
) -> usize {
    let length = HEADER_BYTES + data.len();
    let bytes = &mut control.0[at..];
    bytes[..8].copy_from_slice(&length.to_ne_bytes());
    bytes[8..12].copy_from_slice(&level.to_ne_bytes());
    bytes[12..16].copy_from_slice(&kind.to_ne_bytes());
    bytes[HEADER_BYTES..length].copy_from_slice(data);
    let padded = length.next_multiple_of(ALIGNMENT);
    bytes[length..padded].fill(0);
    at + padded
}

// The byte offsets above are those of Linux on 64-bit machines.
const _: () = assert!(HEADER_BYTES == 16 && ALIGNMENT == 8);
const _: () = assert!(size_of::<libc::in_pktinfo>() == 12 && size_of::<libc::in6_pktinfo>() == 20);
const _: () = assert!(size_of::<libc::timespec>() == 16);
const _: () = assert!(
    CONTROL_BYTES >= space(16) + space(48) + space(16) + space(20) + space(4),
    "all that are asked for"
);
const _: () = assert!(CONTROL_BYTES >= space(20) + space(2), "all that a client writes");
const _: () = assert!(CONTROL_BYTES >= space(20) + space(4), "all that a server writes");
const _: () = assert!(
    CONTROL_BYTES >= space(16) + space(48) + space(16 + 28),
    "all that an error queue tells"
);

/// `CMSG_SPACE`: what a message with so much data takes.
const fn space(data_bytes: usize) -> usize {
    (HEADER_BYTES + data_bytes).next_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::injected;
    use super::*;

    #[test]
    fn what_is_written_for_a_reply_is_read_back() {
        for destination in [
            Destination::V4(Ipv4Addr::new(192, 0, 2, 1)),
            Destination::V6("2001:db8::1".parse().expect("an address"), 0),
            Destination::V6("fe80::1".parse().expect("an address"), 7),
        ] {
            let mut control = ControlBuffer::ZERO;
            let length = write_source(&mut control, destination);
            assert_eq!(read(&control.0[..length]).destination, Some(destination));
        }
    }

    #[test]
    fn the_interface_is_given_for_link_local_only() {
        let mut control = ControlBuffer::ZERO;
        let global = "2001:db8::1".parse().expect("an address");
        let length = write_source(&mut control, Destination::V6(global, 7));
        let read = read(&control.0[..length]).destination;
        assert_eq!(read, Some(Destination::V6(global, 0)));
    }

    /// As the kernel writes it: header, count, padding.
    #[test]
    fn a_count_of_drops_is_read() {
        let mut control = ControlBuffer::ZERO;
        let drops = u32::MAX - 1;
        let length = write_message(
            &mut control,
            0,
            libc::SOL_SOCKET,
            libc::SO_RXQ_OVFL,
            &drops.to_ne_bytes(),
        );
        assert_eq!(read(&control.0[..length]).drops, Some(drops));
    }

    const SYSTEM: i64 = 1_800_000_000_000_000_005;

    /// A message of the error queue as the kernel writes it on IPv4.
    fn error_message(error: i32, origin: u8, information: u32) -> (ControlBuffer, usize) {
        injected::Control::new().software(SYSTEM).error(error, origin, information, 7).parts()
    }

    #[test]
    fn a_transmit_timestamp_is_told_from_an_error() {
        let stamping = libc::SO_EE_ORIGIN_TIMESTAMPING;
        let read = |error, origin, information| {
            let (control, end) = error_message(error, origin, information);
            read_departure(&control.0[..end])
        };
        let at = NtpTimestamp::from_unix(1_800_000_000, 5);
        let departure = Some(Departure { number: 7, stamp: DepartureStamp::Software(at) });
        assert_eq!(read(libc::ENOMSG, stamping, SCM_TSTAMP_SND), departure);
        assert_eq!(read(libc::ENOMSG, stamping, SCM_TSTAMP_SND + 1), None);
        assert_eq!(read(libc::ENOMSG, libc::SO_EE_ORIGIN_LOCAL, 0), None);
        assert_eq!(read(libc::ECONNREFUSED, libc::SO_EE_ORIGIN_ICMP, 0), None);
        let (control, _) = error_message(libc::ENOMSG, stamping, SCM_TSTAMP_SND);
        assert_eq!(read_departure(&control.0[..32]), None, "a time without a number");
        assert_eq!(read_departure(&control.0[32..]), None, "a number without a time");
    }

    #[test]
    fn a_stamp_of_the_interface_comes_beside_the_kernel_s() {
        let phc = 1_800_000_037_000_000_000;
        let control = injected::Control::new().software(SYSTEM).hardware(phc).frame(3, 90);
        let (control, end) = control.parts();
        let received = read(&control.0[..end]);
        assert_eq!(received.arrival, Some(NtpTimestamp::from_unix(1_800_000_000, 5)));
        let stamp = HardwareStamp { at: phc, interface: 3, frame_bytes: 90 };
        assert_eq!(received.hardware, Some(stamp));
        // Before Linux 4.13, or without NAPI, nobody says which interface it was.
        let (control, end) = injected::Control::new().software(SYSTEM).hardware(-1).parts();
        let unknown = HardwareStamp { at: -1, interface: 0, frame_bytes: 0 };
        assert_eq!(read(&control.0[..end]).hardware, Some(unknown));
        assert_eq!(read(&control.0[..32 + 40]).hardware, None, "cut off");
        let (control, end) = injected::Control::new().hardware(0).frame(3, 90).parts();
        assert_eq!(read(&control.0[..end]).hardware, None, "the third time is missing");
    }

    #[test]
    fn a_departure_by_hardware_is_not_when_it_was_read() {
        let stamping = libc::SO_EE_ORIGIN_TIMESTAMPING;
        let control = injected::Control::new().software(SYSTEM).hardware(-5);
        let (control, end) = control.error(libc::ENOMSG, stamping, SCM_TSTAMP_SND, 7).parts();
        let expected = Departure { number: 7, stamp: DepartureStamp::Hardware(-5) };
        assert_eq!(read_departure(&control.0[..end]), Some(expected));
    }

    #[test]
    fn a_reply_asks_its_interface_only_if_told_to() {
        for (by_hardware, flags) in [(false, 2_u32), (true, 3)] {
            let mut control = ControlBuffer::ZERO;
            let end = write_stamp_request(&mut control, 0, by_hardware);
            let (message, _) = next_message(&control.0[..end]).expect("a message");
            assert_eq!((message.level, message.kind), (libc::SOL_SOCKET, libc::SO_TIMESTAMPING));
            assert_eq!(message.data[..4], flags.to_ne_bytes());
        }
    }

    proptest! {
        #[test]
        fn any_control_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            read(&bytes);
            read_departure(&bytes);
        }
    }
}
