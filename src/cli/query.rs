//! `timeball query`: a real NTS client that looks and never touches the clock.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::remote::{Asking, Error, NtsSampler, OfferedAeads, Sample, host_and_port};
use super::{EXIT_FAILURE, EXIT_USAGE, fail};
use crate::certificate::describe::describe_der;
use crate::ke::client::Established;
use crate::limits::NTS_KE_PORT;

#[derive(Debug, Args)]
pub(super) struct QueryArguments {
    /// Server of key establishment: NAME, NAME:PORT, 192.0.2.1:PORT or [2001:db8::1]:PORT
    #[arg(value_name = "HOST[:PORT]")]
    server: String,
    #[command(flatten)]
    offered: OfferedAeads,
    #[command(flatten)]
    asking: Asking,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What was found, as JSON shows it.
#[derive(Serialize)]
struct Report {
    tls: String,
    certificate: Option<Certificate>,
    key_establishment_ms: f64,
    aead: &'static str,
    aead_id: u16,
    /// The number in the exporter context: 15 for AEAD 30 of an old chrony.
    exporter_id: u16,
    cookies: usize,
    cookie_bytes: usize,
    ntp_server: SocketAddr,
    samples: Vec<Sample>,
}

#[derive(Serialize)]
struct Certificate {
    subject: String,
    names: Vec<String>,
    not_after: String,
}

pub(super) fn run(arguments: &QueryArguments) -> ExitCode {
    match query(arguments) {
        Ok(report) => {
            if arguments.json {
                let text = serde_json::to_string_pretty(&report).expect("plain data");
                println!("{text}");
            } else {
                print_report(&report);
            }
            ExitCode::SUCCESS
        }
        Err(error @ Error::Host(_)) => fail(EXIT_USAGE, error),
        Err(error) => fail(EXIT_FAILURE, error),
    }
}

fn query(arguments: &QueryArguments) -> Result<Report, Error> {
    let QueryArguments { server, offered, asking, .. } = arguments;
    let established = asking.establish(host_and_port(server, NTS_KE_PORT)?, &offered.aeads)?;
    let mut sampler = NtsSampler::new(&established, asking.timeout())?;
    let samples = (0..asking.samples).map(|_| sampler.sample()).collect::<Result<Vec<_>, _>>()?;
    Ok(report(&established, sampler.exporter_id, sampler.server(), samples))
}

fn report(
    established: &Established,
    exporter_id: u16,
    server: SocketAddr,
    samples: Vec<Sample>,
) -> Report {
    let leaf = established.chain.first().and_then(|der| describe_der(der).ok());
    Report {
        tls: format!("{} {}", established.tls_version, established.tls_suite),
        certificate: leaf.map(|leaf| Certificate {
            subject: leaf.subject,
            names: leaf.names,
            not_after: rfc_3339(leaf.not_after),
        }),
        key_establishment_ms: established.elapsed.as_secs_f64() * 1e3,
        aead: established.agreed.algorithm.name(),
        aead_id: established.agreed.algorithm.id(),
        exporter_id,
        cookies: established.agreed.cookies.len(),
        cookie_bytes: established.agreed.cookies.first().map_or(0, |cookie| cookie.len()),
        ntp_server: server,
        samples,
    }
}

fn rfc_3339(moment: OffsetDateTime) -> String {
    moment.format(&Rfc3339).unwrap_or_else(|_| moment.to_string())
}

fn print_report(report: &Report) {
    println!("TLS          {}, {:.1} ms", report.tls, report.key_establishment_ms);
    if let Some(certificate) = &report.certificate {
        println!("certificate  {}, until {}", certificate.subject, certificate.not_after);
        println!("             for {}", certificate.names.join(", "));
    }
    let keys = if report.exporter_id == report.aead_id { "" } else { ", keys as for AEAD 15" };
    println!("AEAD         {} ({}){keys}", report.aead, report.aead_id);
    println!("cookies      {} of {} bytes", report.cookies, report.cookie_bytes);
    println!("NTP server   udp {}", report.ntp_server);
    println!("\n     offset       delay  root distance  stratum  reference");
    for sample in &report.samples {
        println!(
            "{:>+9.6} s  {:>8.6} s  {:>11.6} s  {:>7}  {}{}",
            sample.offset_seconds,
            sample.delay_seconds,
            sample.root_distance_seconds,
            sample.stratum,
            sample.reference_id,
            if sample.synchronised { "" } else { "  (the server calls itself unsynchronised)" },
        );
    }
    println!("\nauthentic: {} of {} samples", report.samples.len(), report.samples.len());
}
