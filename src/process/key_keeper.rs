//! Keeps the master keys: on the disk, in the page that the roles read, and never too old.
//!
//! The supervisor owns the one keeper. It calls [`KeyKeeper::tick`] when [`KeyKeeper::next_due`]
//! says so, and [`KeyKeeper::reload`] when the operator asks. All moments are arguments, in time
//! since boot ([`since_boot`](crate::sys::boottime::since_boot)).
//!
//! A key is on the disk, as next, before it can become current: when a ring could not be written
//! the server goes on with it in memory, and turns it no further until it is written. So a restart
//! at any moment finds every key that cookies were made with.
//!
//! A disk that does not answer is waited for as long as [`KEY_FILE_WRITE_WAIT`], once for each
//! write. From then on its ring counts as one that could not be written, and the result is taken
//! when it comes; until then nothing else is written, and no other file is read.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::key_writer::{KeyWriter, Replace};
use crate::aead::{Algorithm, NonceGenerator};
use crate::config::checked::KeyRotation;
use crate::cookie::ntskeys;
use crate::cookie::ring::KeyRing;
use crate::cookie::rotation::Rotation;
use crate::cookie::store::{KeyFile, Loaded, Stamp, StoreError};
use crate::limits::{KEY_FILE_LOOK_INTERVAL, KEY_FILE_RETRY_INTERVAL, KEY_FILE_WRITE_WAIT};
use crate::page::key::KeyPage;

/// Why the keys cannot be kept. Except at the start, the ring in use stays in use.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The key file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A write of the key file is under way, and nobody knows whether it will succeed.
    #[error(
        "the master keys in {} are still being written, as the disk does not answer; look for \
         what holds it up (/proc/pressure/io, dmesg), and try again when it has answered",
        path.display()
    )]
    Unanswered {
        /// The key file.
        path: PathBuf,
    },
    /// The key file is written in a thread of its own.
    #[error("cannot start a thread to write the master keys: {0}; allow the service more tasks")]
    Thread(io::Error),
    /// The page for the roles cannot be made.
    #[error("cannot share the master keys with the roles: {0}; allow memfd_create and mmap")]
    Page(#[from] io::Error),
    /// The keys are not ours to rotate.
    #[error(
        "another program makes these keys (keys.rotate = \"external\"); rotate them there, and \
         the server follows"
    )]
    External,
}

/// What the keeper has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyEvent {
    /// The ring has turned.
    Turned {
        /// Identifier.
        current: u32,
    },
    /// The keys of the file are in use.
    Taken {
        /// Identifier of the current key.
        current: u32,
    },
}

/// The times of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotationTimes {
    /// Age of the newest key.
    pub newest_age: Duration,
    /// How long until the ring turns.
    pub due_in: Duration,
}

impl fmt::Display for KeyEvent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Turned { current } => {
                write!(out, "the master keys were rotated; {current:08X} is current now")
            }
            Self::Taken { current } => {
                write!(out, "new master keys were read; {current:08X} is current now")
            }
        }
    }
}

/// See the module.
pub struct KeyKeeper {
    file: KeyFile,
    /// The version of the file that was read or written last; in `external` mode, looked at last.
    known: Option<Stamp>,
    ring: KeyRing,
    page: KeyPage,
    mode: Mode,
}

enum Mode {
    /// We make the keys.
    Own {
        writer: KeyWriter,
        rotation: Rotation,
        random: Box<NonceGenerator>,
        /// When to try again to write a ring that is not on the disk.
        unsaved: Option<Duration>,
    },
    /// Another program replaces the file.
    External { look_at: Duration },
}

impl KeyKeeper {
    /// Reads the keys in `directory`, or makes them if they are ours to make and there are none.
    pub fn open(
        directory: &Path,
        rotation: KeyRotation,
        random: NonceGenerator,
        now: Duration,
    ) -> Result<Self, KeeperError> {
        Self::open_with(directory, rotation, random, now, Arc::new(KeyFile::replace))
    }

    /// The same, with this way to write the file from then on.
    pub fn open_with(
        directory: &Path,
        rotation: KeyRotation,
        mut random: NonceGenerator,
        now: Duration,
        replace: Arc<Replace>,
    ) -> Result<Self, KeeperError> {
        let file = KeyFile::in_directory(directory);
        let (Loaded { ring, stamp, .. }, mode) = match rotation {
            KeyRotation::Every(interval) => {
                let lock = file.lock()?;
                let loaded = file.load_or_create(Algorithm::AesSivCmac256, &mut random)?;
                let rotation = Rotation::new(interval, loaded.age, now);
                let writer = KeyWriter::new(file.clone(), lock, replace);
                let random = Box::new(random);
                (loaded, Mode::Own { writer, rotation, random, unsaved: None })
            }
            KeyRotation::External => {
                (file.load()?, Mode::External { look_at: now + KEY_FILE_LOOK_INTERVAL })
            }
        };
        let page = KeyPage::create(&ring)?;
        Ok(Self { file, known: Some(stamp), ring, page, mode })
    }

    /// The page, for handing over to roles.
    pub fn page(&self) -> BorrowedFd<'_> {
        self.page.file()
    }

    /// The ring in use.
    pub fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// The times of the ring; none when another program makes the keys.
    pub fn rotation_times(&self, now: Duration) -> Option<RotationTimes> {
        match &self.mode {
            Mode::Own { rotation, .. } => {
                Some(RotationTimes { newest_age: rotation.age(now), due_in: rotation.due_in(now) })
            }
            Mode::External { .. } => None,
        }
    }

    /// Turns the ring before it is time. One that is not on the disk has to be written first.
    pub fn rotate(&mut self, now: Duration) -> Result<KeyEvent, KeeperError> {
        match self.mode {
            Mode::External { .. } => return Err(KeeperError::External),
            Mode::Own { unsaved: Some(_), .. } => self.save(now)?,
            Mode::Own { .. } => {}
        }
        self.turn(now)
    }

    /// How long until [`KeyKeeper::tick`] has something to do.
    pub fn next_due(&self, now: Duration) -> Duration {
        match &self.mode {
            Mode::Own { unsaved: Some(retry_at), .. } => retry_at.saturating_sub(now),
            Mode::Own { rotation, .. } => rotation.due_in(now),
            Mode::External { look_at } => look_at.saturating_sub(now),
        }
    }

    /// Does what is due: turns the ring, writes what could not be written, or looks whether the
    /// file was replaced.
    pub fn tick(&mut self, now: Duration) -> Result<Option<KeyEvent>, KeeperError> {
        if !self.next_due(now).is_zero() {
            return Ok(None);
        }
        match &mut self.mode {
            Mode::Own { unsaved: Some(_), .. } => self.save(now).map(|()| None),
            Mode::Own { .. } => self.turn(now).map(Some),
            Mode::External { look_at } => {
                *look_at = now + KEY_FILE_LOOK_INTERVAL;
                self.look(now)
            }
        }
    }

    /// Takes the keys of a file that somebody has replaced; a file that is gone is written again. A
    /// file that is no good is an error, and stays as it is; the ring in use stays in use. While a
    /// write is under way it is an error too: that could still go over what was put there.
    pub fn reload(&mut self, now: Duration) -> Result<Option<KeyEvent>, KeeperError> {
        if let Mode::Own { writer, .. } = &self.mode {
            if writer.is_writing() {
                self.save(now)?;
            }
            match self.file.stamp()? {
                None => return self.save(now).map(|()| None),
                found if found == self.known => return Ok(None),
                Some(_) => {}
            }
        }
        self.take_file(now).map(Some)
    }

    /// Another rule for the same keys. Who makes the keys cannot change without a restart: `false`
    /// is returned then, and nothing has changed.
    pub fn set_rotation(&mut self, to: KeyRotation) -> bool {
        match (&mut self.mode, to) {
            (Mode::Own { rotation, .. }, KeyRotation::Every(interval)) => {
                rotation.set_interval(interval);
                true
            }
            (Mode::External { .. }, KeyRotation::External) => true,
            _ => false,
        }
    }

    /// Turns the ring. First to every reader, whose old ring has the new current key as its next;
    /// then to the disk, whose old file has it too.
    fn turn(&mut self, now: Duration) -> Result<KeyEvent, KeeperError> {
        if let Mode::Own { rotation, random, .. } = &mut self.mode {
            self.ring.rotate(|bytes| random.fill(bytes));
            rotation.turned(now);
        }
        self.page.publish(&self.ring);
        self.save(now)?;
        Ok(KeyEvent::Turned { current: self.ring.current().id() })
    }

    /// Writes the ring, or takes the result of the write that is under way, which is of the same
    /// ring: one that is not on the disk does not change.
    fn save(&mut self, now: Duration) -> Result<(), KeeperError> {
        let Mode::Own { writer, rotation, unsaved, .. } = &mut self.mode else { return Ok(()) };
        *unsaved = Some(now + KEY_FILE_RETRY_INTERVAL);
        let result = if writer.is_writing() {
            writer.result(Duration::ZERO)
        } else {
            let text = ntskeys::emit(&self.ring, rotation.age(now).as_secs_f64());
            writer.begin(text, self.known).map_err(KeeperError::Thread)?;
            writer.result(KEY_FILE_WRITE_WAIT)
        };
        let unanswered = || KeeperError::Unanswered { path: self.file.path().to_owned() };
        self.known = Some(result.ok_or_else(unanswered)??);
        *unsaved = None;
        Ok(())
    }

    /// One attempt for each version of the file, so one message if it is no good.
    fn look(&mut self, now: Duration) -> Result<Option<KeyEvent>, KeeperError> {
        let found = self.file.stamp()?;
        if std::mem::replace(&mut self.known, found) == found {
            return Ok(None);
        }
        self.take_file(now).map(Some)
    }

    fn take_file(&mut self, now: Duration) -> Result<KeyEvent, KeeperError> {
        let loaded = self.file.load()?;
        self.known = Some(loaded.stamp);
        self.ring = loaded.ring;
        if let Mode::Own { rotation, unsaved, .. } = &mut self.mode {
            rotation.reset(loaded.age, now);
            *unsaved = None;
        }
        self.page.publish(&self.ring);
        Ok(KeyEvent::Taken { current: self.ring.current().id() })
    }
}
