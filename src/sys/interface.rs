//! What an interface can stamp, and what it does (`SIOCETHTOOL`, `SIOCSHWTSTAMP`; the kernel's
//! `timestamping.rst`).
#![allow(unsafe_code, reason = "no crate in use wraps these requests; one block")]

use std::io;
use std::os::fd::AsRawFd as _;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::limits::hardware::INTERFACE_NAME_BYTES_MAX;

/// What an interface can do with timestamps (`struct ethtool_ts_info`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StampingAbilities {
    /// The number of its clock, N of `/dev/ptpN`.
    pub clock: Option<u32>,
    /// Which packets it can be told to stamp when they leave, a bit for each `HWTSTAMP_TX_…`.
    pub transmit_types: u32,
    /// The same of packets that arrive, `HWTSTAMP_FILTER_…`.
    pub receive_filters: u32,
}

/// What an interface stamps (`struct hwtstamp_config`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StampingMode {
    /// One of `HWTSTAMP_TX_…`.
    pub transmit_type: u32,
    /// One of `HWTSTAMP_FILTER_…`.
    pub receive_filter: u32,
}

/// Asks what `interface` can do.
pub fn stamping_abilities(interface: &str) -> io::Result<StampingAbilities> {
    let mut info = TsInfo { command: ETHTOOL_GET_TS_INFO, ..TsInfo::default() };
    exchange(interface, libc::SIOCETHTOOL, &mut info)?;
    Ok(StampingAbilities {
        // "phc_index: device index of the associated PHC, or -1 if there is none"
        clock: info.phc_index.try_into().ok(),
        transmit_types: info.tx_types,
        receive_filters: info.rx_filters,
    })
}

/// Asks what `interface` stamps. An old driver may not say.
pub fn stamping_mode(interface: &str) -> io::Result<StampingMode> {
    let mut config = libc::hwtstamp_config { flags: 0, tx_type: 0, rx_filter: 0 };
    exchange(interface, libc::SIOCGHWTSTAMP, &mut config)?;
    Ok(StampingMode {
        transmit_type: config.tx_type as u32,
        receive_filter: config.rx_filter as u32,
    })
}

/// Tells `interface` what to stamp, which takes CAP_NET_ADMIN. Returns what it does then: "drivers
/// are free to use a more permissive configuration than the requested configuration".
pub fn set_stamping_mode(interface: &str, mode: StampingMode) -> io::Result<StampingMode> {
    let mut config = libc::hwtstamp_config {
        flags: 0,
        tx_type: mode.transmit_type as i32,
        rx_filter: mode.receive_filter as i32,
    };
    exchange(interface, libc::SIOCSHWTSTAMP, &mut config)?;
    Ok(StampingMode {
        transmit_type: config.tx_type as u32,
        receive_filter: config.rx_filter as u32,
    })
}

/// `struct ethtool_ts_info`.
#[derive(Default)]
#[repr(C)]
struct TsInfo {
    command: u32,
    so_timestamping: u32,
    phc_index: i32,
    tx_types: u32,
    tx_reserved: [u32; 3],
    rx_filters: u32,
    rx_reserved: [u32; 3],
}

const _: () = assert!(size_of::<TsInfo>() == 44 && size_of::<libc::hwtstamp_config>() == 12);

/// `linux/ethtool.h`.
const ETHTOOL_GET_TS_INFO: u32 = 0x41;

/// `struct ifreq` with a pointer in its union, padded to the union's size.
#[repr(C)]
struct Request<T> {
    name: [u8; INTERFACE_NAME_BYTES_MAX + 1],
    data: *mut T,
    padding: [u64; 2],
}

const _: () = assert!(size_of::<Request<TsInfo>>() == size_of::<libc::ifreq>());

/// Makes a request that reads and writes a `T`, which has to be the type that the manual gives it.
fn exchange<T>(interface: &str, request: libc::c_ulong, data: &mut T) -> io::Result<()> {
    let name_bytes = interface.as_bytes();
    let mut name = [0; INTERFACE_NAME_BYTES_MAX + 1];
    if name_bytes.len() > INTERFACE_NAME_BYTES_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    name[..name_bytes.len()].copy_from_slice(name_bytes);
    // Any socket will do: "using a socket of any type or family" (netdevice(7)).
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut interface_request = Request { name, data: std::ptr::from_mut(data), padding: [0; 2] };
    // SAFETY: the request and what it points to are exclusively borrowed for the whole call, and
    // the kernel reads and writes one `ifreq` and one `T`, of which the assertions above hold the
    // sizes.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), request as _, &raw mut interface_request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_no_clock() {
        let abilities = stamping_abilities("lo").expect("every interface says what it can");
        assert_eq!(abilities.clock, None);
        let mode = StampingMode {
            transmit_type: libc::HWTSTAMP_TX_ON,
            receive_filter: libc::HWTSTAMP_FILTER_ALL,
        };
        stamping_mode("lo").expect_err("no hardware");
        set_stamping_mode("lo", mode).expect_err("no hardware");
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        let error = stamping_abilities("no-such").expect_err("none");
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        let error = stamping_abilities("sixteen-letters-").expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
