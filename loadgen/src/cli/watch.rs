//! `--server-pid` and `--server-control`: what a server on this host does meanwhile.

use std::path::Path;

use super::CommandError;
use crate::counters::{Sample, Watch};
use crate::host::ServerUse;

/// From its beginning on.
pub(super) struct ServerWatch {
    process: Option<(u32, ServerUse)>,
    counters: Option<Watch>,
}

/// What the server did.
pub(super) struct Watched {
    pub(super) process: Option<ServerUse>,
    pub(super) counters: Vec<Sample>,
}

impl ServerWatch {
    pub(super) fn begin(pid: Option<u32>, control: Option<&Path>) -> Result<Self, CommandError> {
        let process = match pid {
            None => None,
            Some(pid) => Some((pid, look_at(pid)?)),
        };
        Ok(Self { process, counters: control.map(Watch::begin).transpose()? })
    }

    pub(super) fn finish(self) -> Watched {
        let process =
            self.process.and_then(|(pid, before)| Some(ServerUse::of(pid)?.since(&before)));
        Watched { process, counters: self.counters.map(Watch::finish).unwrap_or_default() }
    }
}

fn look_at(pid: u32) -> Result<ServerUse, CommandError> {
    ServerUse::of(pid).ok_or_else(|| {
        CommandError::usage(format_args!(
            "--server-pid: there is no process {pid} that may be looked at"
        ))
    })
}
