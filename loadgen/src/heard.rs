//! What interleaved clients remember of their last answer (RFC 9769 section 2): when the server
//! received its request, which the next request returns as its origin timestamp.

use timeball::wire::timestamp::NtpTimestamp;

/// Eight bytes for each client of one thread.
pub struct Heard {
    /// [`NtpTimestamp::ZERO`] for clients that have had no answer since their last request.
    receive_timestamps: Box<[NtpTimestamp]>,
}

impl Heard {
    /// Of so many clients that have not asked yet.
    pub fn new(clients: usize) -> Self {
        Self { receive_timestamps: vec![NtpTimestamp::ZERO; clients].into() }
    }

    /// For the client's next request; `None` makes it a basic one. Each is given out once: a server
    /// answers to none of them twice (RFC 9769 section 2).
    pub fn take(&mut self, client: usize) -> Option<NtpTimestamp> {
        let taken = std::mem::take(&mut self.receive_timestamps[client]);
        (taken != NtpTimestamp::ZERO).then_some(taken)
    }

    /// What the client's answer says.
    pub fn put(&mut self, client: usize, receive_timestamp: NtpTimestamp) {
        self.receive_timestamps[client] = receive_timestamp;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_given_out_once() {
        let mut heard = Heard::new(2);
        assert_eq!(heard.take(0), None, "the first request is a basic one");
        heard.put(0, NtpTimestamp::from_bits(7));
        heard.put(0, NtpTimestamp::from_bits(9));
        assert_eq!(heard.take(1), None, "another client's");
        assert_eq!(heard.take(0), Some(NtpTimestamp::from_bits(9)), "the last one");
        assert_eq!(heard.take(0), None, "its answer was lost, or is still on its way");
    }
}
