//! The names that clients use, and where they lead.

use std::net::IpAddr;

use super::{Findings, Patient};
use crate::certificate::describe::describe;
use crate::host::network::addresses;

const CHECK: &str = "name";

/// Each DNS name of the certificates, and the server that clients are sent to.
pub(super) fn resolve(patient: &Patient<'_>, findings: &mut Findings) {
    let Some(ke) = &patient.settings.ke else { return };
    let own = addresses(patient.host);
    let chains = ke.certificates.iter().filter_map(|pair| {
        std::fs::read(&pair.certificate).ok().and_then(|bytes| describe(&bytes).ok())
    });
    let mut names: Vec<String> =
        chains.filter_map(|chain| Some(chain.first()?.names.clone())).flatten().collect();
    names.sort();
    names.dedup();
    for name in names.iter().filter(|name| is_public(name)) {
        match patient.host.kernel().resolve(name) {
            Err(error) => {
                let text = format!("{name} of the certificate has no address: {error}");
                let fix = format!("add an address record for {name}, or correct /etc/resolv.conf");
                findings.warn(CHECK, text, fix);
            }
            Ok(found) if found.iter().any(|address| own.contains(address)) => {
                findings.ok(CHECK, format!("{name} leads to this host"));
            }
            Ok(found) => {
                let text = format!(
                    "{name} of the certificate leads to {}, which is no address of this host; \
                     good only with a translator or a proxy before it",
                    list(&found)
                );
                findings.warn(CHECK, text, format!("correct the address record of {name}"));
            }
        }
    }
    if let Some(server) = &ke.ntp_server {
        let name = server.to_string();
        match patient.host.kernel().resolve(&name) {
            Ok(_) => findings.ok(CHECK, format!("{name} of ke.ntp_server has an address")),
            Err(error) => {
                let text = format!("{name}, where ke.ntp_server sends clients, has none: {error}");
                findings.fail(CHECK, text, "correct ke.ntp_server, then `timeball reload`");
            }
        }
    }
}

/// A DNS name that names one place on the network.
fn is_public(name: &str) -> bool {
    name.parse::<IpAddr>().is_err()
        && !name.starts_with("*.")
        && name != "localhost"
        && name.contains('.')
}

fn list(addresses: &[IpAddr]) -> String {
    let mut texts: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    texts.dedup();
    texts.join(", ")
}
