//! A server as its clients see it.

use time::OffsetDateTime;

use super::report::{Quantity, Report};
use super::{State, Thresholds};
use crate::aead::Algorithm;
use crate::certificate::describe::{Description, describe_der, warnings};
use crate::cli::remote::{
    Asking, Error, NtsSampler, PlainNtp, Sample, Sampler, host_and_port, resolve,
};
use crate::ke::client::Established;
use crate::limits::{NTP_PORT, NTS_KE_PORT};

const OFFSET: Quantity = Quantity {
    label: "offset",
    unit: "s",
    metric: "timeball_check_offset_seconds",
    base_units: 1.0,
    help: "The server's time minus that of the host that checks.",
};
const DELAY: Quantity = Quantity {
    label: "delay",
    unit: "s",
    metric: "timeball_check_delay_seconds",
    base_units: 1.0,
    help: "Round trip without the time that the server took.",
};
pub(super) const ROOT_DISTANCE: Quantity = Quantity {
    label: "root_distance",
    unit: "s",
    metric: "timeball_check_root_distance_seconds",
    base_units: 1.0,
    help: "Bound of the error of the server's time.",
};
pub(super) const STRATUM: Quantity = Quantity {
    label: "stratum",
    unit: "",
    metric: "timeball_check_stratum",
    base_units: 1.0,
    help: "Stratum; 0 when unsynchronised.",
};
const LOSS: Quantity = Quantity {
    label: "loss",
    unit: "%",
    metric: "timeball_check_loss_ratio",
    base_units: 0.01,
    help: "Requests without an answer.",
};
pub(super) const CERTIFICATE_DAYS: Quantity = Quantity {
    label: "certificate_days",
    unit: "",
    metric: "timeball_check_certificate_remaining_seconds",
    base_units: 86_400.0,
    help: "Until the certificate expires, of the first one to do so.",
};
const COOKIES: Quantity = Quantity {
    label: "cookies",
    unit: "",
    metric: "timeball_check_cookies",
    base_units: 1.0,
    help: "Cookies that key establishment brought.",
};
const KEY_ESTABLISHMENT: Quantity = Quantity {
    label: "key_establishment",
    unit: "s",
    metric: "timeball_check_key_establishment_seconds",
    base_units: 1.0,
    help: "Time that key establishment took.",
};

/// Asks with NTS, with each algorithm by itself.
pub(super) fn nts(
    server: &str,
    algorithms: &[Algorithm],
    asking: &Asking,
    thresholds: &Thresholds,
) -> Report {
    let mut report = Report::new(server.to_owned());
    for (place, algorithm) in algorithms.iter().enumerate() {
        let wanted = Wanted { algorithm: *algorithm, thresholds, is_first: place == 0 };
        if let Err(error) = with_algorithm(server, &wanted, asking, &mut report) {
            let name = algorithm.name();
            report.say(state_of(&error), format!("{name} ({}): {error}", algorithm.id()));
        }
    }
    report
}

/// Asks without authentication.
pub(super) fn plain(server: &str, asking: &Asking, thresholds: &Thresholds) -> Report {
    let mut report = Report::new(server.to_owned());
    let sampler = host_and_port(server, NTP_PORT)
        .and_then(|(host, port)| resolve(&host, port))
        .and_then(|address| Sampler::new(PlainNtp, address, asking.timeout()));
    match sampler {
        Err(error) => report.say(state_of(&error), error.to_string()),
        Ok(mut sampler) => {
            let taken = take(asking.samples, || sampler.sample(), &mut report);
            clock(&taken, "not authenticated", thresholds, &mut report);
        }
    }
    report
}

/// What is asked for, and what is good enough.
struct Wanted<'a> {
    algorithm: Algorithm,
    thresholds: &'a Thresholds,
    /// What is the same whatever the algorithm is judged once.
    is_first: bool,
}

fn with_algorithm(
    server: &str,
    wanted: &Wanted<'_>,
    asking: &Asking,
    report: &mut Report,
) -> Result<(), Error> {
    let host = host_and_port(server, NTS_KE_PORT)?;
    let established = asking.establish(host, &[wanted.algorithm])?;
    if wanted.is_first {
        key_establishment(&established, wanted.thresholds, report);
        certificate(&established, wanted.thresholds, report);
    }
    let mut sampler = NtsSampler::new(&established, asking.timeout())?;
    let taken = take(asking.samples, || sampler.sample(), report);
    let name = format!("{} ({})", wanted.algorithm.name(), wanted.algorithm.id());
    if !taken.samples.is_empty() {
        let keys = match sampler.exporter_id == established.agreed.exporter_id {
            true => "",
            false => ", with the keys of an old chrony",
        };
        report.say(State::Ok, format!("authenticated with {name}{keys}"));
    }
    if wanted.is_first {
        let authentic = format!("authenticated with {name}");
        clock(&taken, &authentic, wanted.thresholds, report);
    }
    Ok(())
}

fn key_establishment(established: &Established, thresholds: &Thresholds, report: &mut Report) {
    let seconds = established.elapsed.as_secs_f64();
    let text = format!(
        "key establishment with {} by {} {} in {:.1} ms",
        established.address,
        established.tls_version,
        established.tls_suite,
        seconds * 1e3
    );
    report.judge(&KEY_ESTABLISHMENT, seconds, &thresholds.key_establishment, text);
    let cookies = established.agreed.cookies.len();
    let text = format!("{cookies} cookies");
    report.judge(&COOKIES, cookies as f64, &thresholds.cookies, text);
}

fn certificate(established: &Established, thresholds: &Thresholds, report: &mut Report) {
    let now = OffsetDateTime::now_utc();
    let chain: Vec<Description> =
        established.chain.iter().filter_map(|der| describe_der(der).ok()).collect();
    // An intermediate certificate that expires ends the trust as well.
    let Some(first_to_expire) = chain.iter().min_by_key(|certificate| certificate.not_after) else {
        return report.say(State::Unknown, "the certificate cannot be read");
    };
    let Description { subject, not_after, .. } = first_to_expire;
    let days = (*not_after - now).as_seconds_f64() / 86_400.0;
    let text = format!("certificate {subject} expires in {days:.0} days, on {}", not_after.date());
    report.judge(&CERTIFICATE_DAYS, days, &thresholds.certificate_days, text);
    for warning in warnings(&chain, now).iter().filter(|warning| !warning.is_of_time()) {
        report.say(State::Warning, format!("certificate: {warning}"));
    }
}

/// Answers, and how often there was none.
struct Taken {
    samples: Vec<Sample>,
    lost: u32,
}

/// Asks so many times, or until something else fails than an answer to come.
fn take(
    count: u32,
    mut sample: impl FnMut() -> Result<Sample, Error>,
    report: &mut Report,
) -> Taken {
    let mut taken = Taken { samples: Vec::new(), lost: 0 };
    for _ in 0..count {
        match sample() {
            Ok(sample) => taken.samples.push(sample),
            Err(Error::NoAnswer(_)) => taken.lost += 1,
            Err(error) => {
                report.say(state_of(&error), error.to_string());
                break;
            }
        }
    }
    if taken.lost == count {
        let text = "no request was answered; a firewall may drop UDP on the way, or NTP packets \
                    longer than 48 bytes";
        report.say(State::Critical, text);
    }
    taken
}

/// Judges the answer that came back fastest: it can be wrong by half its delay at the most.
fn clock(taken: &Taken, authentic: &str, thresholds: &Thresholds, report: &mut Report) {
    let asked = taken.samples.len() as u32 + taken.lost;
    if asked > 0 {
        let percent = f64::from(taken.lost) / f64::from(asked) * 100.0;
        let text = format!("{} of {asked} requests without an answer", taken.lost);
        report.judge(&LOSS, percent, &thresholds.loss, text);
    }
    let fastest =
        |one: &&Sample, other: &&Sample| one.delay_seconds.total_cmp(&other.delay_seconds);
    let Some(sample) = taken.samples.iter().min_by(fastest) else { return };
    let Sample { offset_seconds, delay_seconds, stratum, root_distance_seconds, .. } = sample;
    report.gist = format!("{authentic}, offset {offset_seconds:+.6} s, stratum {stratum}");
    let text = format!("offset {offset_seconds:+.6} s from this host's clock");
    report.judge(&OFFSET, *offset_seconds, &thresholds.offset, text);
    let text = format!("delay {delay_seconds:.6} s");
    report.judge(&DELAY, *delay_seconds, &thresholds.delay, text);
    if !sample.synchronised {
        report.measure(&STRATUM, f64::from(*stratum));
        return report.say(State::Critical, "the server calls itself unsynchronised");
    }
    let text = format!("stratum {stratum}, reference {}", sample.reference_id);
    report.judge(&STRATUM, f64::from(*stratum), &thresholds.stratum, text);
    let text = format!("root distance {root_distance_seconds:.6} s");
    report.judge(&ROOT_DISTANCE, *root_distance_seconds, &thresholds.root_distance, text);
}

/// What says nothing about the server is not known; all else is its failure, as clients have it.
fn state_of(error: &Error) -> State {
    match error {
        Error::Host(_) | Error::Roots(_) | Error::Random(_) | Error::CookiesSpent(_) => {
            State::Unknown
        }
        _ => State::Critical,
    }
}
