//! Requests beside the load, through a socket, to see what receive timestamps are off by.
//!
//! The load's frames are made by no socket, so nobody stamps them when they leave. A probe is
//! stamped when the veth takes it (`SOF_TIMESTAMPING_TX_SOFTWARE`), by the clock that the server
//! reads; from there it goes the way of the others. Probes are plain requests in basic mode: what
//! is in a request changes nothing in when it arrives.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd as _;

use timeball::client::request_header;
use timeball::limits::{BATCH_DATAGRAMS, DATAGRAM_BYTES};
use timeball::sys::control::DepartureStamp;
use timeball::sys::message::Envelope;
use timeball::sys::mmsg::{self, Outgoing};
use timeball::sys::socket::{UdpOptions, open_udp};
use timeball::wire::ntp::{Header, Mode};
use timeball::wire::timestamp::NtpTimestamp;

use crate::nanoseconds;

/// All probes of a run, by the number that the kernel gives to them: it counts from 0.
pub(crate) struct Probes {
    socket: UdpSocket,
    server: SocketAddrV4,
    probes: Vec<Probe>,
    /// Those before are not measured.
    measured_from: usize,
}

/// What came of one probe so far.
#[derive(Clone, Copy, Default)]
struct Probe {
    /// When it left, by the kernel.
    departure: Option<NtpTimestamp>,
    /// When it arrived, by its reply.
    arrival: Option<NtpTimestamp>,
}

impl Probes {
    pub(crate) fn open(server: SocketAddrV4) -> io::Result<Self> {
        let socket = open_udp((Ipv4Addr::UNSPECIFIED, 0).into(), false, &UdpOptions::default())?;
        Ok(Self { socket, server, probes: Vec::new(), measured_from: 0 })
    }

    /// Takes what has come of the probes so far, and sends another one.
    pub(crate) fn turn(&mut self) -> io::Result<()> {
        self.take_departures()?;
        self.take_replies()?;
        let number = NtpTimestamp::from_bits(self.probes.len() as u64);
        let mut request = request_header(number).emit();
        let mut envelope = Envelope::addressed(Some(self.server.into()), None, None);
        envelope.ask_for_stamp();
        let probe = Outgoing { envelope: &mut envelope, payload: &mut request };
        mmsg::send(self.socket.as_fd(), &mut [probe])?;
        self.probes.push(Probe::default());
        Ok(())
    }

    /// Measures from the next probe on.
    pub(crate) fn begin(&mut self) {
        self.measured_from = self.probes.len();
    }

    /// How much later than the probe left its receive timestamp is, of each that was answered.
    pub(crate) fn errors_ns(&self) -> Vec<i64> {
        let measured = &self.probes[self.measured_from..];
        let error = |probe: &Probe| Some(probe.arrival?.seconds_since(probe.departure?));
        measured.iter().filter_map(error).map(nanoseconds).collect()
    }

    fn take_departures(&mut self) -> io::Result<()> {
        let mut envelopes = [Envelope::EMPTY; BATCH_DATAGRAMS];
        let told = received(mmsg::recv_errors(self.socket.as_fd(), &mut envelopes))?;
        for departure in envelopes[..told].iter().filter_map(Envelope::departure) {
            let Some(probe) = self.probes.get_mut(departure.number as usize) else { continue };
            // No interface was asked.
            if let DepartureStamp::Software(at) = departure.stamp {
                probe.departure = Some(at);
            }
        }
        Ok(())
    }

    fn take_replies(&mut self) -> io::Result<()> {
        let mut envelopes = [Envelope::EMPTY; BATCH_DATAGRAMS];
        let mut payloads = [[0; DATAGRAM_BYTES]; BATCH_DATAGRAMS];
        let told = received(mmsg::recv(self.socket.as_fd(), &mut payloads, &mut envelopes))?;
        for (payload, envelope) in payloads.iter().zip(&envelopes[..told]) {
            let Some(reply) = Header::parse(&payload[..envelope.payload_bytes]) else { continue };
            let number = reply.origin_timestamp.to_bits() as usize;
            let probe = self.probes.get_mut(number);
            if let Some(probe) = probe.filter(|_| reply.mode == Mode::Server) {
                probe.arrival = Some(reply.receive_timestamp);
            }
        }
        Ok(())
    }
}

/// How many messages a receive call took; none is no error.
fn received(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}
