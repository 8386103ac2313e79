//! What each role is handed when its process is started.

use std::io;
use std::process::Child;

use super::channel::Channel;
use super::chronyd_socket::ChronydSocket;
use super::handover::{self, Purpose};
use super::log_files::LogFiles;
use super::role::Role;
use super::start::{ClockStart, ObserverStart};
use super::supervisor::Server;

impl Server {
    /// Starts the process of a role, the `index`th of those that it has.
    pub(super) fn spawn(&self, role: Role, index: usize) -> io::Result<(Child, Channel)> {
        let with =
            |purpose, descriptors: Vec<_>| descriptors.into_iter().map(move |d| (purpose, d));
        match role {
            Role::Responder => {
                let sockets = with(Purpose::NtpSocket, self.sockets.ntp_clones()?);
                let pages = with(Purpose::Page, self.pages.of_responder()?);
                handover::spawn(
                    role,
                    self.confinement,
                    &self.responder,
                    pages.chain(sockets).collect(),
                )
            }
            Role::KeyEstablishment => {
                let start = self.key_establishment().ok_or(io::ErrorKind::InvalidInput)?;
                let listeners = with(Purpose::KeListener, self.sockets.ke_clones()?);
                let pages = with(Purpose::Page, self.pages.of_key_establishment(index)?);
                handover::spawn(role, self.confinement, &start, pages.chain(listeners).collect())
            }
            Role::Clock => {
                let (socket, why_no_chronyd) = ChronydSocket::try_open(self.chronyd.as_ref());
                let leap = self.leap_file.as_ref().map(|file| file.news().clone());
                let settings = self.settings.clock.clone();
                let files = self.log_files.as_ref().map(LogFiles::open_all).unwrap_or_default();
                let (logs, files) = files.into_iter().unzip();
                let stamping = self.hardware.interfaces().to_vec();
                let start = ClockStart { settings, why_no_chronyd, leap, logs, stamping };
                let pages = with(Purpose::Page, self.pages.of_clock()?);
                let socket = with(Purpose::ChronydSocket, socket.into_iter().collect());
                let files = with(Purpose::LogFile, files);
                let clocks = with(Purpose::HardwareClock, self.hardware.clocks()?);
                let all = pages.chain(socket).chain(files).chain(clocks).collect();
                handover::spawn(role, self.confinement, &start, all)
            }
            Role::Observer => {
                let listener = self.sockets.observe_clone()?.ok_or(io::ErrorKind::InvalidInput)?;
                let listener = with(Purpose::HttpListener, vec![listener]);
                let pages = with(Purpose::Page, self.pages.of_observer()?);
                let start = ObserverStart { workers: self.pages.workers.len() };
                handover::spawn(role, self.confinement, &start, pages.chain(listener).collect())
            }
        }
    }
}
