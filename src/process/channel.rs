//! The channel between the supervisor and the process of a role: a pair of Unix sockets that keep
//! the bounds of messages.
//!
//! Orders hold secrets of any length, so they travel as sealed memory files. Reports are short
//! text: the supervisor opens nothing that a process gives it to which strangers talk.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::cmsg_space;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg,
    socketpair,
};

use super::handover::{memory_file, read_memory_file};
use super::start::{Order, Report};
use crate::limits::REPORT_BYTES_MAX;

/// The supervisor's end. Nothing that it does waits.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// The role's end.
#[derive(Clone, Debug)]
pub struct Link(Arc<OwnedFd>);

/// Both ends of a new channel; the second is to be handed to a role.
pub fn pair() -> io::Result<(Channel, OwnedFd)> {
    let (domain, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let (ours, role_s) = socketpair(domain, kind, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((Channel(ours), role_s))
}

impl Channel {
    /// Sends an order.
    ///
    /// # Errors
    /// `WouldBlock` when the role has left too many orders unread; others when it has ended.
    pub fn order(&self, order: &Order) -> io::Result<()> {
        self.order_with(order, None)
    }

    /// Sends an order with a descriptor that it is about.
    ///
    /// # Errors
    /// As [`Channel::order`].
    pub fn order_with(&self, order: &Order, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let file = memory_file(order)?;
        let files: Vec<BorrowedFd<'_>> = [file.as_fd()].into_iter().chain(descriptor).collect();
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&files)), "there is room for two");
        // Without a byte of its own a packet could not be told from the end of the channel.
        sendmsg(&self.0, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next report; `None` when there is none now.
    ///
    /// # Errors
    /// `UnexpectedEof` when the role has closed its end; others when what it said is no report.
    pub fn next_report(&self) -> io::Result<Option<Report>> {
        let mut text = [0; REPORT_BYTES_MAX];
        match recv(&self.0, &mut text, RecvFlags::empty()) {
            Ok((0, _)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((bytes, _)) => Ok(Some(serde_json::from_slice(&text[..bytes])?)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Link {
    pub(super) fn new(channel: OwnedFd) -> Self {
        Self(Arc::new(channel))
    }

    /// Tells the supervisor.
    pub fn report(&self, report: &Report) {
        let mut text = serde_json::to_vec(report).unwrap_or_default();
        if text.len() > REPORT_BYTES_MAX {
            let reason = "its reason is too long to be told".to_owned();
            let cut = match report {
                Report::Refused(_) => Report::Refused(reason),
                _ => Report::Failed(reason),
            };
            text = serde_json::to_vec(&cut).unwrap_or_default();
        }
        // Without a supervisor there is nobody to tell; `next_order` notices its end.
        let _ = send(&self.0, &text, SendFlags::NOSIGNAL);
    }

    /// Waits for the next order; `None` when the supervisor has ended.
    ///
    /// # Errors
    /// When what came is no order.
    pub fn next_order(&self) -> io::Result<Option<Order>> {
        Ok(self.next_order_with()?.map(|(order, _)| order))
    }

    /// The same, with the descriptor that the order is about.
    ///
    /// # Errors
    /// As [`Link::next_order`].
    pub fn next_order_with(&self) -> io::Result<Option<(Order, Option<OwnedFd>)>> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut bytes = [IoSliceMut::new(&mut byte)];
        let received = loop {
            match recvmsg(&self.0, &mut bytes, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                result => break result?,
            }
        };
        if received.bytes == 0 {
            return Ok(None);
        }
        let files = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        });
        let mut files = files.ok_or(io::ErrorKind::InvalidData)?;
        let order = read_memory_file(files.next().ok_or(io::ErrorKind::InvalidData)?)?;
        Ok(Some((order, files.next())))
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_reports_arrive_in_order_and_the_end_is_seen() {
        let (channel, end) = pair().expect("a channel");
        let link = Link::new(end);
        assert_eq!(channel.next_report().expect("open"), None);
        channel.order(&Order::Ping).expect("sent");
        assert!(matches!(link.next_order().expect("open"), Some(Order::Ping)));
        let own = std::io::pipe().expect("a pipe");
        channel.order_with(&Order::Ping, Some(own.0.as_fd())).expect("sent");
        let (_, handed) = link.next_order_with().expect("open").expect("an order");
        assert!(handed.is_some());
        for report in [Report::Ready, Report::Refused("a reason".to_owned())] {
            link.report(&report);
            assert_eq!(channel.next_report().expect("open"), Some(report));
        }
        link.report(&Report::Failed("x".repeat(2 * REPORT_BYTES_MAX)));
        assert!(matches!(channel.next_report().expect("open"), Some(Report::Failed(_))));
        drop(link);
        let end = channel.next_report().expect_err("closed").kind();
        assert_eq!(end, io::ErrorKind::UnexpectedEof);

        let (channel, end) = pair().expect("a channel");
        drop(channel);
        assert!(Link::new(end).next_order().expect("closed").is_none());
    }

    #[test]
    fn a_role_that_reads_no_orders_never_makes_the_supervisor_wait() {
        let (channel, _end) = pair().expect("a channel");
        let refused = (0..100_000).find_map(|_| channel.order(&Order::Ping).err());
        assert_eq!(refused.map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
    }

    #[test]
    fn what_is_no_report_is_an_error() {
        let (channel, end) = pair().expect("a channel");
        send(&end, b"{\"Ready\":", SendFlags::NOSIGNAL).expect("sent");
        let error = channel.next_report().expect_err("half a report");
        assert_ne!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
