//! Interfaces that stamp, told to do so, and their clocks, opened: by the supervisor, before it
//! gives up the right.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use nix::net::if_::if_nametoindex;
use serde::{Deserialize, Serialize};

use crate::config::hardware::StampingInterfaces;
use crate::host::stamping::{Obstacle, needed};
use crate::limits::hardware::HARDWARE_INTERFACES_MAX;
use crate::sys::interface::{set_stamping_mode, stamping_abilities, stamping_mode};

/// An interface that stamps, for the clock role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StampingInterface {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// The place of its clock among those that are handed over: the ports of a card share one.
    pub clock: usize,
    /// How fast bits come in, 10⁶ a second; 0 if that is not known. It is read once.
    pub megabits_per_second: u32,
}

/// The interfaces that stamp, and their clocks.
#[derive(Debug, Default)]
pub struct HardwareClocks {
    interfaces: Vec<StampingInterface>,
    /// By their number, N of `/dev/ptpN`.
    clocks: Vec<(u32, OwnedFd)>,
    obstacles: Vec<Obstacle>,
}

impl HardwareClocks {
    /// Makes the interfaces stamp, as far as they can. What they were told stays with them.
    pub fn prepare(wanted: &StampingInterfaces) -> Self {
        let mut prepared = Self::default();
        let (names, all) = match wanted {
            StampingInterfaces::None => return prepared,
            StampingInterfaces::All => (able(), true),
            StampingInterfaces::Named(names) => (names.clone(), false),
        };
        for name in names {
            if let Err(obstacle) = prepared.add(&name) {
                prepared.obstacles.push(obstacle);
            }
        }
        if all && prepared.interfaces.is_empty() && prepared.obstacles.is_empty() {
            prepared.obstacles.push(Obstacle::None);
        }
        prepared
    }

    fn add(&mut self, name: &str) -> Result<(), Obstacle> {
        let index = if_nametoindex(name).map_err(|_| Obstacle::Absent(name.to_owned()))?;
        if self.interfaces.len() == HARDWARE_INTERFACES_MAX {
            return Err(Obstacle::TooMany(name.to_owned()));
        }
        let refuses = |error| Obstacle::Refuses(name.to_owned(), error);
        let abilities = stamping_abilities(name).map_err(refuses)?;
        let mode = needed(name, &abilities, stamping_mode(name).ok())?;
        let number = abilities.clock.ok_or_else(|| Obstacle::NoClock(name.to_owned()))?;
        let clock = self
            .open(number)
            .map_err(|error| Obstacle::Unreadable(name.to_owned(), number, error))?;
        if let Some(mode) = mode {
            set_stamping_mode(name, mode).map_err(|error| match error.kind() {
                io::ErrorKind::PermissionDenied => Obstacle::Forbidden(name.to_owned()),
                _ => refuses(error),
            })?;
        }
        let speed = std::fs::read_to_string(format!("/sys/class/net/{name}/speed"));
        // "-1" where it is down, an error where it has none.
        let megabits_per_second = speed.ok().and_then(|it| it.trim().parse().ok()).unwrap_or(0);
        let name = name.to_owned();
        self.interfaces.push(StampingInterface { name, index, clock, megabits_per_second });
        Ok(())
    }

    /// The place of a clock, opened if it is not yet.
    fn open(&mut self, number: u32) -> io::Result<usize> {
        if let Some(place) = self.clocks.iter().position(|(known, _)| *known == number) {
            return Ok(place);
        }
        self.clocks.push((number, File::open(format!("/dev/ptp{number}"))?.into()));
        Ok(self.clocks.len() - 1)
    }

    /// Those that stamp.
    pub fn interfaces(&self) -> &[StampingInterface] {
        &self.interfaces
    }

    /// Why others do not.
    pub fn obstacles(&self) -> &[Obstacle] {
        &self.obstacles
    }

    /// Duplicates of the clocks, for the clock role.
    pub(super) fn clocks(&self) -> io::Result<Vec<OwnedFd>> {
        self.clocks.iter().map(|(_, clock)| clock.as_fd().try_clone_to_owned()).collect()
    }
}

/// The interfaces that can stamp all packets. Their names are not asked of the kernel by
/// if_nameindex(3), which takes a socket of a family that the packaged unit forbids.
fn able() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/sys/class/net") else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let is_able = |name: &String| {
        let abilities = stamping_abilities(name);
        abilities.is_ok_and(|abilities| needed(name, &abilities, None).is_ok())
    };
    let mut names: Vec<String> = names.filter(is_able).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn obstacles(wanted: &StampingInterfaces) -> Vec<String> {
        let prepared = HardwareClocks::prepare(wanted);
        assert!(prepared.interfaces.is_empty() && prepared.clocks.is_empty());
        prepared.obstacles.iter().map(Obstacle::cause).collect()
    }

    #[test]
    fn what_cannot_stamp_is_named_and_nothing_else_happens() {
        let named = ["lo", "no-such"].map(str::to_owned).to_vec();
        assert_eq!(
            obstacles(&StampingInterfaces::Named(named)),
            ["lo has no clock (PHC)", "there is no interface no-such"]
        );
        assert_eq!(obstacles(&StampingInterfaces::None), [""; 0]);
    }
}
