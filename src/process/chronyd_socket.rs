//! A socket to chronyd's Unix socket. Only root and chronyd's own group may enter its directory, so
//! the supervisor opens it and hands it to the clock role, again whenever chronyd was restarted.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// The way to chronyd's socket.
#[derive(Debug)]
pub struct ChronydSocket {
    /// chronyd's socket.
    path: PathBuf,
    /// Ours beside it. chronyd answers to a path, and can reach its own directory for certain.
    own: PathBuf,
}

impl ChronydSocket {
    /// For the chronyd that listens at `path`.
    pub fn new(path: &Path) -> Self {
        let own = path.with_file_name(format!("timeball.{}.sock", std::process::id()));
        Self { path: path.to_owned(), own }
    }

    /// Where our socket is made.
    pub fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// A socket by this way, or why there is none; neither without a way.
    pub(super) fn try_open(way: Option<&Self>) -> (Option<OwnedFd>, Option<String>) {
        match way.map(Self::open) {
            None => (None, None),
            Some(Ok(socket)) => (Some(socket), None),
            Some(Err(why)) => (None, Some(why)),
        }
    }

    /// Opens a socket in the place of the one before.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub fn open(&self) -> Result<OwnedFd, String> {
        let _ = fs::remove_file(&self.own);
        self.connect().map_err(|error| {
            let path = self.path.display();
            match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    format!("no chronyd listens at {path}")
                }
                io::ErrorKind::PermissionDenied => format!(
                    "may not use {path}: start timeball as root after chronyd, or set \
                     clock.chronyd = \"127.0.0.1:323\""
                ),
                _ => format!("cannot use {path}: {error}"),
            }
        })
    }

    fn connect(&self) -> io::Result<OwnedFd> {
        let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
        socket.bind(&SockAddr::unix(&self.own)?)?;
        // chronyd has a user of its own, and its directory lets nobody else in.
        fs::set_permissions(&self.own, fs::Permissions::from_mode(0o666))?;
        socket.connect(&SockAddr::unix(&self.path)?)?;
        Ok(socket.into())
    }
}

impl Drop for ChronydSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.own);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn a_socket_is_opened_again_and_again_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("chronyd.sock");
        let way = ChronydSocket::new(&path);
        assert_eq!(
            way.open().expect_err("nobody"),
            format!("no chronyd listens at {path:?}").replace('"', "")
        );
        for _ in 0..2 {
            let chronyd = UnixDatagram::bind(&path).expect("made");
            let ours = UnixDatagram::from(way.open().expect("there"));
            ours.send(b"question").expect("sent");
            let (_, from) = chronyd.recv_from(&mut [0; 8]).expect("it came");
            chronyd.send_to(b"answer", from.as_pathname().expect("a path")).expect("sent");
            assert_eq!(ours.recv(&mut [0; 8]).expect("it came"), 6);
            fs::remove_file(&path).expect("there");
        }
        drop(way);
        assert_eq!(fs::read_dir(directory.path()).expect("there").count(), 0);
    }
}
