//! The clocks of interfaces, read once a second, and what comes of it for the workers.

use std::os::fd::OwnedFd;

use super::super::hardware::StampingInterface;
use crate::clock::account::HardwareAccount;
use crate::clock::hardware::{Anchor, HardwareClock, Translation};
use crate::clock::host::anchor;
use crate::page::hardware::{HardwarePage, StampedBy};
use crate::sys::phc::{self, Look, Method};

/// All that are followed.
#[derive(Default)]
pub(super) struct Phcs {
    interfaces: Vec<StampingInterface>,
    clocks: Vec<Phc>,
}

impl Phcs {
    /// Of these interfaces, whose clocks are `devices`.
    pub(super) fn new(interfaces: Vec<StampingInterface>, devices: Vec<OwnedFd>) -> Self {
        Self { interfaces, clocks: devices.into_iter().map(Phc::new).collect() }
    }

    /// Reads each clock once and publishes how stamps are translated. The first look withdraws what
    /// a process before this one has published: the clocks are followed anew.
    pub(super) fn look(&mut self, page: &mut HardwarePage) {
        if self.interfaces.is_empty() {
            return;
        }
        self.clocks.iter_mut().for_each(Phc::look);
        let stamped_by = self.interfaces.iter().filter_map(|interface| {
            let StampingInterface { index, clock, megabits_per_second, .. } = *interface;
            let translation = self.clocks.get(clock)?.translation?;
            Some(StampedBy { interface: index, megabits_per_second, translation })
        });
        page.publish(&stamped_by.collect());
    }

    /// How each of them fares.
    pub(super) fn account(&self) -> Vec<HardwareAccount> {
        let of = |interface: &StampingInterface| {
            let phc = self.clocks.get(interface.clock);
            HardwareAccount::new(
                interface.name.clone(),
                phc.and_then(|phc| phc.translation).as_ref(),
                phc.map(|phc| phc.why.clone()).unwrap_or_default(),
            )
        };
        self.interfaces.iter().map(of).collect()
    }
}

/// One clock.
struct Phc {
    device: OwnedFd,
    /// How it was read, if the last reading went well.
    method: Option<Method>,
    clock: HardwareClock,
    translation: Option<Translation>,
    /// Why the last look has shown nothing; empty if it has.
    why: String,
}

impl Phc {
    fn new(device: OwnedFd) -> Self {
        let clock = HardwareClock::default();
        Self { device, method: None, clock, translation: None, why: String::new() }
    }

    fn look(&mut self) {
        let look = self.read(&anchor());
        self.translation = self.clock.take(&look);
    }

    fn read(&mut self, anchor: &Anchor) -> Look {
        // The way that went well last, then the others: a card may lose its best one.
        for method in self.method.take().into_iter().chain(Method::ALL) {
            match phc::read(&self.device, method, anchor) {
                Ok(look) => {
                    (self.method, self.why) = (Some(method), String::new());
                    return look;
                }
                // The last one's reason stands: the way that every driver has.
                Err(error) => self.why = error.to_string(),
            }
        }
        Look::new()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::page::hardware::{HardwareReader, Translations};

    /// A device that is gone, as after a card was pulled.
    #[test]
    fn a_clock_that_cannot_be_read_is_published_by_nobody_and_says_why() {
        let mut page = HardwarePage::create().expect("made");
        let mut reader = HardwareReader::open(page.file()).expect("mapped");
        let interface = StampingInterface {
            name: "eth0".to_owned(),
            index: 3,
            clock: 0,
            megabits_per_second: 1000,
        };
        let translation = Translation {
            phc: 0,
            monotonic: 0,
            rate: 0.0,
            error_nanoseconds: 0.0,
            error_rate: 0.0,
        };
        let before = StampedBy { interface: 3, megabits_per_second: 1000, translation };
        page.publish(&[before].into_iter().collect());
        assert!(reader.news().is_some_and(|it| it.len() == 1));
        let device = File::open("/dev/null").expect("there").into();
        let mut phcs = Phcs::new(vec![interface], vec![device]);
        phcs.look(&mut page);
        assert_eq!(reader.news(), Some(Translations::new()), "that of the role before is gone");
        let account = &phcs.account()[0];
        assert_eq!((account.interface.as_str(), account.is_followed), ("eth0", false));
        assert_eq!(account.why, "Inappropriate ioctl for device (os error 25)");
    }
}
