//! Servers as people write them.

use std::net::{SocketAddr, ToSocketAddrs as _};

use super::CommandError;

/// The first address of what the user gave.
pub(super) fn resolve(text: &str, default_port: u16) -> Result<SocketAddr, CommandError> {
    let (host, port) = host_and_port(text, default_port).ok_or_else(|| {
        CommandError::usage(format_args!("\"{text}\" is no host: write HOST:PORT"))
    })?;
    let addresses = (host.as_str(), port).to_socket_addrs();
    let mut addresses = addresses.map_err(|error| CommandError {
        code: super::EXIT_FAILURE,
        message: format!("{host} has no address ({error}): check the name"),
    })?;
    addresses.next().ok_or_else(|| CommandError::usage(format_args!("{host} has no address")))
}

/// Splits what the user gave; a bare IPv6 address is all host.
pub(super) fn host_and_port(text: &str, default_port: u16) -> Option<(String, u16)> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some((address.ip().to_string(), address.port()));
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<std::net::IpAddr>() {
        return Some((address.to_string(), default_port));
    }
    match text.split_once(':') {
        Some((host, port)) if !host.is_empty() => Some((host.to_owned(), port.parse().ok()?)),
        None if !text.is_empty() => Some((text.to_owned(), default_port)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        let split = |text| host_and_port(text, 123).map(|(host, port)| format!("{host} {port}"));
        assert_eq!(split("time.example.org").as_deref(), Some("time.example.org 123"));
        assert_eq!(split("time.example.org:11123").as_deref(), Some("time.example.org 11123"));
        assert_eq!(split("2001:db8::1").as_deref(), Some("2001:db8::1 123"));
        assert_eq!(split("[2001:db8::1]").as_deref(), Some("2001:db8::1 123"));
        assert_eq!(split("[2001:db8::1]:1").as_deref(), Some("2001:db8::1 1"));
        for wrong in ["", ":1", "a:b", "a:70000", "[::1", "[::1]x"] {
            assert_eq!(split(wrong), None, "{wrong}");
        }
    }
}
