//! `timeball tracking`, `sources` and `ntpdata`: the clock of a running server.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::control::{Show, finish, show};
use super::keys::in_words;
use crate::clock::account::HardwareAccount;
use crate::clock::leap::{LeapKind, Smear};
use crate::clock::leap_watch::{LeapAccount, SmearAccount};
use crate::clock::record::SourceState;
use crate::clock::source::Source;
use crate::process::clock_status::{
    ClockStatus, NtpDataStatus, SourceStatus, SourcesStatus, TrackingStatus,
};
use crate::process::control::Request;
use crate::wire::candm::Smoothing;

pub(super) fn tracking(arguments: &Show) -> ExitCode {
    finish(show(arguments, Request::Tracking, print_tracking))
}

pub(super) fn sources(arguments: &Show) -> ExitCode {
    finish(show(arguments, Request::Sources, print_sources))
}

pub(super) fn ntpdata(arguments: &Show) -> ExitCode {
    finish(show(arguments, Request::NtpData, print_ntpdata))
}

fn print_tracking(tracking: &TrackingStatus, out: &mut dyn Write) -> io::Result<()> {
    // As chronyc names them, where they mean the same.
    let mut line = |label: &str, text: String| writeln!(out, "{label:<18} {text}");
    let TrackingStatus { source_state, why, .. } = tracking;
    line("Source", format!("{}, {}", source(tracking.source), in_state(*source_state, why)))?;
    line("Last word", last_word(tracking))?;
    line("Reference ID", reference(tracking))?;
    line("Stratum", tracking.stratum.to_string())?;
    line("Ref time (UTC)", utc(tracking.reference_unix_seconds))?;
    line("System time", system_time(tracking.correction_seconds))?;
    line("Root delay", format!("{:.9} s", tracking.root_delay_seconds))?;
    let rate = tracking.dispersion_rate_ppm;
    let dispersion = tracking.root_dispersion_seconds;
    line("Root dispersion", format!("{dispersion:.9} s, growing by {rate:.3} ppm"))?;
    line("Leap status", tracking.leap.clone())?;
    if let Some(leap_file) = &tracking.leap_file {
        line("Leap file", leap_file_in_words(leap_file))?;
        if let Some(smear) = &leap_file.smear {
            line("Leap smear", smear_in_words(smear))?;
        }
    }
    let Some(chronyd) = &tracking.chronyd else { return Ok(()) };
    writeln!(out, "\nchronyd says")?;
    let mut line = |label: &str, text: String| writeln!(out, "{label:<18} {text}");
    line("Last offset", format!("{:+.9} s", chronyd.last_offset_seconds))?;
    line("RMS offset", format!("{:.9} s", chronyd.rms_offset_seconds))?;
    line("Frequency", format!("{:+.3} ppm", chronyd.frequency_ppm))?;
    line("Residual freq", format!("{:+.3} ppm", chronyd.residual_frequency_ppm))?;
    line("Skew", format!("{:.3} ppm", chronyd.skew_ppm))?;
    line("Update interval", format!("{:.1} s", chronyd.update_interval_seconds))?;
    let Some(Smoothing { is_leap_only, offset_seconds }) = tracking.smoothing else {
        return Ok(());
    };
    let what = if is_leap_only { "leap seconds" } else { "what it corrects" };
    line("Smoothing", format!("of {what}, {offset_seconds:+.9} s now, which is told too"))
}

/// The clock's line in `timeball status`.
pub(super) fn at_a_glance(clock: &ClockStatus) -> String {
    let kernel = match (clock.kernel_is_synchronised, clock.kernel_error_bound_seconds) {
        (Some(true), Some(bound)) => format!("the kernel says synchronised, within {bound:.6} s"),
        (Some(false), _) => "the kernel says unsynchronised".to_owned(),
        _ => "the kernel does not say how it fares".to_owned(),
    };
    let stratum = clock.stratum;
    match clock.source {
        Source::Kernel if stratum > 0 => format!("kernel, stratum {stratum}; {kernel}"),
        Source::Kernel => format!("kernel; {kernel}, and so are clients told"),
        Source::Local => format!("local, stratum {stratum}, nobody vouches for it; {kernel}"),
        Source::Follow => {
            let followed = clock.followed.as_deref().unwrap_or_default();
            let state = in_state(clock.source_state, &clock.why);
            let told = match (stratum, clock.holdover_left_seconds) {
                (0, _) => "clients are told unsynchronised".to_owned(),
                (_, Some(left)) if clock.source_state != SourceState::Synchronised => {
                    format!("stratum {stratum} is told for {} more", words(left))
                }
                _ => format!("stratum {stratum}, within {:.6} s", clock.root_dispersion_seconds),
            };
            format!("follows {followed}: {state}; {told}")
        }
    }
}

fn print_sources(sources: &SourcesStatus, out: &mut dyn Write) -> io::Result<()> {
    let SourcesStatus { state, why, .. } = sources;
    writeln!(out, "{}, {}\n", source(sources.source), in_state(*state, why))?;
    writeln!(
        out,
        "{:<9} {:<24} {:>7} {:>5} {:>8} {:>14} {:>12}  reference",
        "asked for", "at", "stratum", "reach", "heard", "offset", "distance"
    )?;
    for source in &sources.sources {
        print_source(source, out)?;
    }
    if let Some(kernel) = &sources.kernel {
        let says = if kernel.is_synchronised { "synchronised" } else { "unsynchronised" };
        let bound = kernel.error_bound_seconds;
        writeln!(out, "adjtimex  the kernel: {says}, leap {}, within {bound:.6} s", kernel.leap)?;
    }
    if let Some(leap_file) = &sources.leap_file {
        writeln!(out, "leap file {}", leap_file_in_words(leap_file))?;
    }
    for hardware in &sources.hardware {
        writeln!(out, "interface {}", hardware_in_words(hardware))?;
    }
    Ok(())
}

/// The clock of an interface on a line.
fn hardware_in_words(account: &HardwareAccount) -> String {
    let HardwareAccount { interface, frequency_ppm, error_bound_seconds, why, .. } = account;
    let text = match frequency_ppm.zip(*error_bound_seconds) {
        Some((frequency, bound)) => {
            format!("{interface}: its clock is followed, {frequency:+.3} ppm, within {bound:.9} s")
        }
        None => format!("{interface}: its clock is not followed (yet)"),
    };
    if why.is_empty() { text } else { format!("{text}: {why}") }
}

/// The leap-seconds file on a line.
pub(super) fn leap_file_in_words(account: &LeapAccount) -> String {
    let LeapAccount { file, expires_unix_seconds, next, why, .. } = account;
    let mut text = file.clone();
    if let Some(expires) = expires_unix_seconds {
        text += &format!(", expires {}", utc(Some(*expires as f64)));
    }
    if let Some(next) = next {
        let kind = match next.kind {
            LeapKind::Insert => "inserted",
            LeapKind::Delete => "deleted",
        };
        text +=
            &format!(", a leap second is {kind} before {}", utc(Some(next.unix_seconds as f64)));
    }
    if why.is_empty() { text } else { format!("{text}: {why}") }
}

/// The smear on a line.
pub(super) fn smear_in_words(
    SmearAccount { shape, is_refused, offset_seconds }: &SmearAccount,
) -> String {
    let shape = match shape {
        Smear::Off => "off",
        Smear::Linear => "linear, from noon to noon",
    };
    let state = match *offset_seconds {
        _ if *is_refused => "refused, as the source smears by itself".to_owned(),
        0.0 => "none under way".to_owned(),
        offset => format!("the time that is told is {offset:+.6} s off UTC"),
    };
    format!("{shape}: {state}")
}

fn print_source(source: &SourceStatus, out: &mut dyn Write) -> io::Result<()> {
    let shown = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    writeln!(
        out,
        "{:<9} {:<24} {:>7} {:>5} {:>8} {:>14} {:>12}  {}",
        source.kind,
        source.address,
        shown(source.stratum.map(|stratum| stratum.to_string())),
        // In octal, as chronyc shows it.
        format!("{:o}", source.reach),
        shown(source.heard_seconds_ago.map(words)),
        shown(source.offset_seconds.map(|offset| format!("{offset:+.9} s"))),
        shown(source.root_distance_seconds.map(|distance| format!("{distance:.6} s"))),
        shown(source.reference_id.clone()),
    )?;
    if source.why.is_empty() { Ok(()) } else { writeln!(out, "{:<9} {}", "", source.why) }
}

fn print_ntpdata(data: &NtpDataStatus, out: &mut dyn Write) -> io::Result<()> {
    let Some(address) = &data.address else {
        return writeln!(out, "no daemon is asked over NTP; clock.follow would name one");
    };
    let mut line = |label: &str, text: String| writeln!(out, "{label:<18} {text}");
    line("Remote address", address.clone())?;
    if !data.why.is_empty() {
        line("Last query", data.why.clone())?;
    }
    if let Some(last) = &data.last {
        line("Leap status", last.leap.clone())?;
        line("Version", last.version.to_string())?;
        line("Stratum", last.stratum.to_string())?;
        let poll = f64::from(last.poll).exp2();
        line("Poll interval", format!("{} ({poll} s)", last.poll))?;
        let precision = f64::from(last.precision).exp2();
        line("Precision", format!("{} ({precision:.9} s)", last.precision))?;
        line("Root delay", format!("{:.6} s", last.root_delay_seconds))?;
        line("Root dispersion", format!("{:.6} s", last.root_dispersion_seconds))?;
        line("Reference ID", last.reference_id.clone())?;
        line("Reference time", utc(last.reference_unix_seconds))?;
        line("Offset", format!("{:+.9} s", last.offset_seconds))?;
        line("Peer delay", format!("{:.9} s", last.delay_seconds))?;
    }
    line("Total TX", data.asked.to_string())?;
    line("Total valid RX", data.answered.to_string())?;
    line("Total bad RX", data.garbled.to_string())
}

/// With the address of who is followed, of which a reference may be no more than a hash.
fn reference(tracking: &TrackingStatus) -> String {
    let TrackingStatus { reference_id, chronyd, .. } = tracking;
    let followed = chronyd.as_ref().filter(|chronyd| chronyd.reference_id == *reference_id);
    match followed.and_then(|chronyd| chronyd.source_address) {
        Some(address) => {
            // What may look like a text is none.
            let number = reference_id.split(' ').next().unwrap_or_default();
            format!("{number} ({address})")
        }
        None => reference_id.clone(),
    }
}

fn last_word(tracking: &TrackingStatus) -> String {
    let age = words(tracking.age_seconds);
    match tracking.holdover_left_seconds {
        Some(left) => format!("{age} ago, good for {} more", words(left)),
        None => format!("{age} ago; clients are told unsynchronised"),
    }
}

/// chronyc's way to say it.
fn system_time(correction_seconds: f64) -> String {
    let direction = if correction_seconds < 0.0 { "fast" } else { "slow" };
    let apart = correction_seconds.abs();
    format!("{apart:.9} s {direction} of the time that is told")
}

fn source(source: Source) -> &'static str {
    match source {
        Source::Kernel => "kernel",
        Source::Follow => "follow",
        Source::Local => "local",
    }
}

fn in_state(state: SourceState, why: &str) -> String {
    let state = match state {
        SourceState::Unknown => "has not spoken yet",
        SourceState::Synchronised => "synchronised",
        SourceState::Unsynchronised => "unsynchronised",
        SourceState::Silent => "silent",
        SourceState::Garbled => "makes no sense",
        SourceState::Contradictory => "contradicts itself",
    };
    if why.is_empty() { state.to_owned() } else { format!("{state} ({why})") }
}

fn utc(unix_seconds: Option<f64>) -> String {
    let time = unix_seconds.and_then(|time| OffsetDateTime::from_unix_timestamp(time as i64).ok());
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| "-".to_owned())
}

fn words(seconds: f64) -> String {
    in_words(Duration::from_secs(seconds.max(0.0) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::hardware::Translation;

    #[test]
    fn the_clock_of_an_interface_is_a_line() {
        let translation = Translation {
            phc: 0,
            monotonic: 0,
            rate: -12.5e-6,
            error_nanoseconds: 850.0,
            error_rate: 1e-6,
        };
        let line = |translation, why: &str| {
            let account = HardwareAccount::new("eth0".to_owned(), translation, why.to_owned());
            hardware_in_words(&account)
        };
        assert_eq!(
            line(Some(&translation), ""),
            "eth0: its clock is followed, +12.500 ppm, within 0.000000850 s"
        );
        assert_eq!(line(None, ""), "eth0: its clock is not followed (yet)");
        assert_eq!(
            line(None, "no such device"),
            "eth0: its clock is not followed (yet): no such device"
        );
    }
}
