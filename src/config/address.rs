//! Addresses in the configuration.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use toml::Spanned;

use super::raw::ConfigError;
use crate::limits::ADDRESSES_MAX;

/// The addresses of a list: at least one, and no more than a worker can serve.
pub(super) fn addresses(
    text: &str,
    list: &Spanned<Vec<Spanned<String>>>,
    default_port: u16,
) -> Result<Vec<SocketAddr>, ConfigError> {
    let count = list.get_ref().len();
    if !(1..=ADDRESSES_MAX).contains(&count) {
        let what = format!("listen needs 1 to {ADDRESSES_MAX} addresses, not {count}");
        return Err(ConfigError::at(text, list, what));
    }
    list.get_ref().iter().map(|item| address(text, item, default_port)).collect()
}

/// One address, with a port that clients can know.
pub(super) fn address(
    text: &str,
    item: &Spanned<String>,
    default_port: u16,
) -> Result<SocketAddr, ConfigError> {
    let address = parse_address(item.get_ref(), default_port);
    // Port 0 would be the kernel's choice, which no client could know.
    address.filter(|address| address.port() != 0).ok_or_else(|| {
        let what = format!(
            "\"{}\" is no address; write \"192.0.2.1:{default_port}\" or \
             \"[2001:db8::1]:{default_port}\"",
            item.get_ref()
        );
        ConfigError::at(text, item, what)
    })
}

/// An address with or without port; a bare IPv6 address needs no brackets.
pub fn parse_address(text: &str, default_port: u16) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        Some(SocketAddr::new(bare.parse().ok()?, default_port))
    })
}

/// The networks of a list, `networks_max` at the most.
pub(super) fn networks(
    text: &str,
    list: &Spanned<Vec<Spanned<String>>>,
    name: &str,
    networks_max: usize,
) -> Result<Vec<IpNet>, ConfigError> {
    if list.get_ref().len() > networks_max {
        let what = format!("{name} takes {networks_max} networks");
        return Err(ConfigError::at(text, list, what));
    }
    let networks = list.get_ref().iter().map(|item| {
        parse_network(item.get_ref()).ok_or_else(|| {
            let written = item.get_ref();
            let what = format!("\"{written}\" is no network; write \"192.0.2.0/24\" or \"::1\"");
            ConfigError::at(text, item, what)
        })
    });
    networks.collect()
}

/// A network, or an address that is one by itself.
pub fn parse_network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| Some(text.parse::<IpAddr>().ok()?.into()))
}

/// The loopback networks: nobody else's packets come from there.
pub(super) fn this_host() -> Vec<IpNet> {
    ["127.0.0.0/8", "::1/128"].map(|network| network.parse().expect("a network")).into()
}

/// All addresses of this host.
pub(super) fn wildcards(port: u16) -> Vec<SocketAddr> {
    vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_take_the_default_port() {
        let parsed = |text| parse_address(text, 123).map(|address| address.to_string());
        assert_eq!(parsed("192.0.2.1").as_deref(), Some("192.0.2.1:123"));
        assert_eq!(parsed("::1").as_deref(), Some("[::1]:123"));
        assert_eq!(parsed("[::1]").as_deref(), Some("[::1]:123"));
        assert_eq!(parsed("[::1]:11123").as_deref(), Some("[::1]:11123"));
        assert_eq!(parsed("example.org"), None);
    }
}
