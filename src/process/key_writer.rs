//! Writes the key file in a thread of its own, for a supervisor that waits for no disk.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::cookie::store::{KeyFile, Stamp, StoreError, WriteLock};

/// What replaces the text of a key file: [`KeyFile::replace`], or what a test has in its place.
pub type Replace = dyn Fn(&KeyFile, &str, Option<Stamp>) -> Result<Stamp, StoreError> + Send + Sync;

/// Writes one file, one text after the other.
pub struct KeyWriter {
    file: KeyFile,
    /// The thread has a share: until it has ended nobody else may write, also without this writer.
    lock: Arc<WriteLock>,
    replace: Arc<Replace>,
    /// Where the result of the write that was begun will come.
    under_way: Option<Receiver<Result<Stamp, StoreError>>>,
}

impl KeyWriter {
    /// One of `file`, whose lock is `lock`, by means of `replace`.
    pub fn new(file: KeyFile, lock: WriteLock, replace: Arc<Replace>) -> Self {
        Self { file, lock: Arc::new(lock), replace, under_way: None }
    }

    /// Whether the result of a write is still to be taken.
    pub fn is_writing(&self) -> bool {
        self.under_way.is_some()
    }

    /// Begins to write `text` over the version `known`. The thread is new each time, since one of
    /// the start would be outside of the sandbox, which closes later; and writes are rare.
    ///
    /// # Errors
    /// There can be no thread.
    pub fn begin(&mut self, text: Zeroizing<String>, known: Option<Stamp>) -> io::Result<()> {
        assert!(!self.is_writing(), "the later one could be overtaken by the earlier one");
        let (file, lock) = (self.file.clone(), Arc::clone(&self.lock));
        let replace = Arc::clone(&self.replace);
        let (done, under_way) = sync_channel(1);
        thread::Builder::new().name("keys".to_owned()).spawn(move || {
            let result = replace(&file, &text, known);
            // Wiped and given back before anybody can know that this is over.
            drop((text, lock));
            // Nobody takes it if the writer is gone.
            let _ = done.send(result);
        })?;
        self.under_way = Some(under_way);
        Ok(())
    }

    /// The result of the write that was begun, once; `None` if it does not come within `wait`.
    pub fn result(&mut self, wait: Duration) -> Option<Result<Stamp, StoreError>> {
        let result = match self.under_way.as_ref()?.recv_timeout(wait) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => return None,
            Err(RecvTimeoutError::Disconnected) => panic!("the thread that writes has panicked"),
        };
        self.under_way = None;
        Some(result)
    }
}
