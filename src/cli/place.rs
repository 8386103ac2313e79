//! Which server a command means.

use std::path::{Path, PathBuf};

use clap::Args;

use super::serve::{self, embedded_settings, home_state_directory};
use super::{EXIT_FAILURE, EXIT_USAGE};
use crate::config::checked::{KeyRotation, Settings, default_control_socket};
use crate::config::file::{self, FileError};

/// Whose keys and whose control socket.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The server's configuration file; without it, `timeball serve` without one is meant if it has
    /// run here, or else the server with /etc/timeball/timeball.toml
    #[arg(long, value_name = "FILE", conflicts_with = "state_directory")]
    config: Option<PathBuf>,
    /// The server's state directory
    #[arg(long, value_name = "FOLDER")]
    state_directory: Option<PathBuf>,
}

/// Why a server cannot be found.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlaceError {
    #[error(transparent)]
    Config(#[from] FileError),
    #[error(
        "there is no home directory to look for a server in; give --config or --state-directory"
    )]
    NoHome,
}

impl PlaceError {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => EXIT_USAGE,
            Self::NoHome => EXIT_FAILURE,
        }
    }
}

/// What a command needs to know of a server.
pub(super) struct Found {
    pub(super) state_directory: PathBuf,
    pub(super) control_socket: PathBuf,
    pub(super) rotation: KeyRotation,
}

impl Place {
    pub(super) fn find(&self) -> Result<Found, PlaceError> {
        let usual = Path::new(USUAL_CONFIGURATION);
        let state_directory = match (&self.config, &self.state_directory) {
            (Some(config), _) => return Found::configured(config),
            (None, Some(directory)) => directory.clone(),
            (None, None) => match home_state_directory() {
                Some(home) if home.exists() => home,
                _ if usual.exists() => return Found::configured(usual),
                home => home.ok_or(PlaceError::NoHome)?,
            },
        };
        let control_socket = default_control_socket(&state_directory);
        Ok(Found { state_directory, control_socket, rotation: KeyRotation::default() })
    }
}

impl Found {
    fn configured(file: &Path) -> Result<Self, PlaceError> {
        let settings = file::read(file)?;
        Ok(Self {
            control_socket: settings.control_socket(),
            state_directory: settings.state_directory,
            rotation: settings.rotation,
        })
    }
}

/// The configuration that the unit of systemd names.
const USUAL_CONFIGURATION: &str = "/etc/timeball/timeball.toml";

/// What a server on this host is to be like.
pub(super) struct Configured {
    pub(super) settings: Settings,
    /// Where that stands; none if it is what `timeball serve` takes without a configuration.
    pub(super) file: Option<PathBuf>,
}

/// Why that is not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfiguredError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Embedded(#[from] serve::Error),
}

/// By `config`, or by the usual file if there is one.
pub(super) fn configured(config: Option<&Path>) -> Result<Configured, ConfiguredError> {
    let usual = Path::new(USUAL_CONFIGURATION);
    match config.or_else(|| usual.exists().then_some(usual)) {
        Some(file) => Ok(Configured { settings: file::read(file)?, file: Some(file.to_owned()) }),
        None => Ok(Configured { settings: embedded_settings(&[])?, file: None }),
    }
}
