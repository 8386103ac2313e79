//! Control messages as the kernel would write them: what no interface of this machine can stamp is
//! injected here.

use super::control::{ControlBuffer, write_message};
use super::message::Envelope;

/// A control buffer, filled from its beginning.
pub(crate) struct Control {
    buffer: ControlBuffer,
    end: usize,
}

impl Control {
    pub(crate) fn new() -> Self {
        Self { buffer: ControlBuffer::ZERO, end: 0 }
    }

    /// `SCM_TIMESTAMPNS`: a time of the system's clock, in nanoseconds since 1970.
    pub(crate) fn software(self, system: i64) -> Self {
        self.with(libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, &timespec(system))
    }

    /// `SCM_TIMESTAMPING` of an interface's clock, without a stamp by software.
    pub(crate) fn hardware(self, phc: i64) -> Self {
        let data = [timespec(0), timespec(0), timespec(phc)].concat();
        self.with(libc::SOL_SOCKET, libc::SCM_TIMESTAMPING, &data)
    }

    /// `SCM_TIMESTAMPING_PKTINFO`.
    pub(crate) fn frame(self, interface: u32, bytes: u32) -> Self {
        let data = [interface, bytes, 0, 0].map(u32::to_ne_bytes).concat();
        self.with(libc::SOL_SOCKET, 58, &data)
    }

    /// `IP_RECVERR`: `struct sock_extended_err` and a `sockaddr_in`.
    pub(crate) fn error(self, error: i32, origin: u8, information: u32, number: u32) -> Self {
        let mut data = [0; 32];
        data[..4].copy_from_slice(&error.to_ne_bytes());
        data[4] = origin;
        data[8..12].copy_from_slice(&information.to_ne_bytes());
        data[12..16].copy_from_slice(&number.to_ne_bytes());
        self.with(libc::IPPROTO_IP, libc::IP_RECVERR, &data)
    }

    /// The same of a transmit timestamp with this number.
    pub(crate) fn departed(self, number: u32) -> Self {
        self.error(libc::ENOMSG, libc::SO_EE_ORIGIN_TIMESTAMPING, 0, number)
    }

    pub(crate) fn parts(self) -> (ControlBuffer, usize) {
        (self.buffer, self.end)
    }

    /// An envelope that came with it.
    pub(crate) fn envelope(self) -> Envelope {
        let mut envelope = Envelope::EMPTY;
        envelope.control_bytes = self.end;
        envelope.control = self.buffer;
        envelope
    }

    fn with(mut self, level: i32, kind: i32, data: &[u8]) -> Self {
        self.end = write_message(&mut self.buffer, self.end, level, kind, data);
        self
    }
}

/// `struct timespec`, normal also for times before its beginning.
fn timespec(nanoseconds: i64) -> Vec<u8> {
    let parts = [nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000)];
    parts.map(i64::to_ne_bytes).concat()
}
