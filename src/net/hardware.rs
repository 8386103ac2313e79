//! Timestamps of interfaces, translated for a worker's datagrams.
//!
//! The clock role says how ([`crate::page::hardware`]); where the host's own clocks stand is looked
//! at once for each batch that brings such a stamp.

use std::io;
use std::os::fd::AsFd;

use crate::clock::hardware::Anchor;
use crate::clock::host::anchor;
use crate::limits::hardware::FRAME_CHECK_BYTES;
use crate::page::hardware::{HardwareReader, StampedBy, Translations};
use crate::sys::control::HardwareStamp;
use crate::wire::timestamp::NtpTimestamp;

/// See the module.
#[derive(Debug)]
pub struct Translator {
    page: HardwareReader,
    translations: Translations,
    /// None until a batch needs it.
    anchor: Option<Anchor>,
    look: fn() -> Anchor,
}

impl Translator {
    /// Maps the page; fails for any other file.
    pub fn open(page: impl AsFd) -> io::Result<Self> {
        let page = HardwareReader::open(page)?;
        Ok(Self { page, translations: Translations::new(), anchor: None, look: anchor })
    }

    /// Another batch begins.
    pub(super) fn begin(&mut self) {
        self.anchor = None;
    }

    /// When a datagram's frame had wholly come in. The kernel took it at `software`.
    ///
    /// Interfaces stamp a frame's beginning. Of what arrives the end is told, as chrony does: so a
    /// switch, which passes a frame on when it is whole, takes equally long both ways, whatever the
    /// speeds of the two links.
    pub(super) fn arrival(
        &mut self,
        stamp: &HardwareStamp,
        software: NtpTimestamp,
    ) -> Option<NtpTimestamp> {
        let (stamped_by, anchor) = self.of(stamp.interface)?;
        let took = frame_nanoseconds(stamp.frame_bytes, stamped_by.megabits_per_second);
        stamped_by.translation.arrival(stamp.at.wrapping_add(took), software, &anchor)
    }

    /// When a reply left by `interface`. The driver took it at `software`, if it said so.
    pub(super) fn departure(
        &mut self,
        interface: u32,
        stamp: i64,
        software: Option<NtpTimestamp>,
    ) -> Option<NtpTimestamp> {
        let (stamped_by, anchor) = self.of(interface)?;
        let near = software.unwrap_or_else(|| anchor.system());
        stamped_by.translation.departure(stamp, near, &anchor)
    }

    /// The translation of an interface, and where the host's clocks stand.
    fn of(&mut self, interface: u32) -> Option<(StampedBy, Anchor)> {
        if let Some(news) = self.page.news() {
            self.translations = news;
        }
        let mut all = self.translations.iter();
        let stamped_by = *all.find(|stamped_by| stamped_by.interface == interface)?;
        let look = self.look;
        Some((stamped_by, *self.anchor.get_or_insert_with(look)))
    }
}

/// How long a frame takes to come in; nothing if the speed is not known.
fn frame_nanoseconds(bytes: u32, megabits_per_second: u32) -> i64 {
    if bytes == 0 || megabits_per_second == 0 {
        return 0;
    }
    i64::from(bytes.saturating_add(FRAME_CHECK_BYTES)) * 8000 / i64::from(megabits_per_second)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::clock::hardware::Translation;
    use crate::page::hardware::HardwarePage;

    /// The system's time of all tests, in nanoseconds since 1970.
    pub(in crate::net) const SYSTEM: i64 = 1_800_000_000_000_000_000;

    /// What the clock of interface 3 is ahead of it.
    pub(in crate::net) const PHC_AHEAD: i64 = 37_000_000_000;

    const NOW: Anchor = Anchor { monotonic: 5_000_000_000, system: SYSTEM };

    /// Translates stamps of interface 3, 1 Gbit/s, at a moment that does not pass. Its page
    /// changes when it is written.
    pub(in crate::net) fn translator() -> (HardwarePage, Translator) {
        let translation = Translation {
            phc: SYSTEM + PHC_AHEAD - 1_000_000_000,
            monotonic: NOW.monotonic - 1_000_000_000,
            rate: 0.0,
            error_nanoseconds: 500.0,
            error_rate: 1e-6,
        };
        let stamped_by = StampedBy { interface: 3, megabits_per_second: 1000, translation };
        let mut page = HardwarePage::create().expect("made");
        page.publish(&Translations::from_iter([stamped_by]));
        let translator =
            Translator { look: || NOW, ..Translator::open(page.file()).expect("ours") };
        (page, translator)
    }

    /// A time of the system's clock so many nanoseconds later.
    pub(in crate::net) fn system(nanoseconds: i64) -> NtpTimestamp {
        let time = SYSTEM + nanoseconds;
        NtpTimestamp::from_unix(time / 1_000_000_000, (time % 1_000_000_000) as u32)
    }

    #[test]
    fn arrivals_are_told_of_the_end_of_a_frame() {
        let (_page, mut translator) = translator();
        let at = SYSTEM + PHC_AHEAD - 20_000;
        let arrival = |translator: &mut Translator, interface, frame_bytes| {
            translator.arrival(&HardwareStamp { at, interface, frame_bytes }, system(-5_000))
        };
        assert_eq!(arrival(&mut translator, 3, 0), Some(system(-20_000)));
        // 94 bytes with their check sequence at 1 Gbit/s.
        assert_eq!(arrival(&mut translator, 3, 90), Some(system(-20_000 + 752)));
        assert_eq!(arrival(&mut translator, 2, 90), None, "another interface");
        assert_eq!(arrival(&mut translator, 0, 90), None, "one that nobody names");
        assert_eq!(frame_nanoseconds(90, 25_000), 30);
        assert_eq!(frame_nanoseconds(u32::MAX, 1), 34_359_738_360_000);
    }

    #[test]
    fn departures_are_held_against_the_kernel_s_or_the_moment_they_are_read() {
        let (_page, mut translator) = translator();
        let stamp = SYSTEM + PHC_AHEAD - 20_000;
        let left = Some(system(-20_000));
        assert_eq!(translator.departure(3, stamp, Some(system(-22_000))), left);
        assert_eq!(translator.departure(3, stamp, None), left);
        assert_eq!(translator.departure(3, stamp, Some(system(-20_000_000))), None);
        assert_eq!(translator.departure(3, stamp - 20_000_000, None), None);
        assert_eq!(translator.departure(2, stamp, None), None);
    }

    #[test]
    fn a_clock_that_is_lost_translates_nothing_and_is_taken_back() {
        let (mut page, mut translator) = translator();
        let stamp = SYSTEM + PHC_AHEAD;
        let kept = translator.of(3).expect("known").0;
        page.publish(&Translations::new());
        assert_eq!(translator.departure(3, stamp, None), None);
        page.publish(&Translations::from_iter([kept]));
        assert_eq!(translator.departure(3, stamp, None), Some(system(0)));
    }
}
