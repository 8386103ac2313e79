//! Where facts come from.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::sys::adjtimex::{self, KernelClock};
use crate::sys::interface::{self, StampingAbilities, StampingMode};
use crate::sys::uring::{self, Obstacle};

/// One host.
pub struct Host {
    root: PathBuf,
    kernel: Box<dyn Kernel>,
}

/// What only system calls tell.
pub trait Kernel {
    /// The kernel's account of its clock.
    fn clock(&self) -> io::Result<KernelClock>;
    /// Why this process cannot have a ring, if it cannot.
    fn ring(&self) -> Result<(), Obstacle>;
    /// The addresses of a name.
    fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
    /// What an interface can stamp, and, if it says, what it does.
    fn stamping(&self, interface: &str) -> io::Result<(StampingAbilities, Option<StampingMode>)>;
}

/// The one that this program runs on.
struct RunningKernel;

impl Kernel for RunningKernel {
    fn clock(&self) -> io::Result<KernelClock> {
        adjtimex::read()
    }

    fn ring(&self) -> Result<(), Obstacle> {
        uring::obstacle()
    }

    fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        Ok((name, 0).to_socket_addrs()?.map(|address: SocketAddr| address.ip()).collect())
    }

    fn stamping(&self, interface: &str) -> io::Result<(StampingAbilities, Option<StampingMode>)> {
        Ok((interface::stamping_abilities(interface)?, interface::stamping_mode(interface).ok()))
    }
}

/// Why a tool says nothing. Each is the second half of a sentence.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is not installed.
    #[error("{0} is not installed")]
    Absent(String),
    /// It cannot be started, or fails.
    #[error("{tool} fails: {why}")]
    Failed {
        /// Its name.
        tool: String,
        /// What it said, or the system.
        why: String,
    },
}

/// Where tools are. Not from PATH, which often lacks the folders of the administrator.
const TOOL_FOLDERS: [&str; 4] = ["usr/sbin", "usr/bin", "sbin", "bin"];

impl Host {
    /// This host, its files below `root`, which is `/` unless somebody tests.
    pub fn running(root: &Path) -> Self {
        Self { root: root.to_owned(), kernel: Box::new(RunningKernel) }
    }

    /// Another one.
    pub fn of(root: &Path, kernel: Box<dyn Kernel>) -> Self {
        Self { root: root.to_owned(), kernel }
    }

    /// What system calls tell.
    pub fn kernel(&self) -> &dyn Kernel {
        self.kernel.as_ref()
    }

    /// Where an absolute path is.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// What a file holds, without white space around it.
    pub fn read(&self, path: &str) -> io::Result<String> {
        Ok(fs::read_to_string(self.path(path))?.trim().to_owned())
    }

    /// The number in a file; none if there is no such file, or no number in it.
    pub fn number(&self, path: &str) -> Option<u64> {
        self.read(path).ok()?.parse().ok()
    }

    /// Whether there is such a file or folder.
    pub fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// The names in a folder, in order; none if there is no such folder.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).into_iter().flatten();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    /// Where a tool is.
    pub fn tool(&self, name: &str) -> Option<PathBuf> {
        let mut places = TOOL_FOLDERS.iter().map(|folder| self.root.join(folder).join(name));
        places.find(|place| place.is_file())
    }

    /// What a tool prints.
    ///
    /// # Errors
    /// [`ToolError`].
    pub fn run(&self, tool: &str, arguments: &[&str]) -> Result<String, ToolError> {
        let failed = |why: String| ToolError::Failed { tool: tool.to_owned(), why };
        let program = self.tool(tool).ok_or_else(|| ToolError::Absent(tool.to_owned()))?;
        let output = Command::new(program)
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().find(|line| !line.trim().is_empty());
        Err(failed(line.map_or_else(|| output.status.to_string(), |line| line.trim().to_owned())))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;
    use crate::sys::adjtimex::LeapStatus;

    /// A kernel with a good clock, a ring, and one name.
    pub(crate) struct FakeKernel {
        pub(crate) is_synchronised: bool,
        pub(crate) has_ring: bool,
    }

    impl Kernel for FakeKernel {
        fn clock(&self) -> io::Result<KernelClock> {
            Ok(KernelClock {
                synchronised: self.is_synchronised,
                leap: LeapStatus::None,
                error_bound: Duration::from_millis(1),
            })
        }

        fn ring(&self) -> Result<(), Obstacle> {
            if self.has_ring { Ok(()) } else { Err(Obstacle::Disabled(2)) }
        }

        fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
            match name {
                "time.example.org" => Ok(vec![IpAddr::from([192, 0, 2, 2])]),
                "other.example.org" => Ok(vec![IpAddr::from([198, 51, 100, 7])]),
                _ => Err(io::ErrorKind::NotFound.into()),
            }
        }

        /// eth1 stamps by the clock 1, eth0 has none, and there are no others.
        fn stamping(&self, name: &str) -> io::Result<(StampingAbilities, Option<StampingMode>)> {
            let receive_filter = libc::HWTSTAMP_FILTER_ALL;
            let mode = StampingMode { transmit_type: libc::HWTSTAMP_TX_ON, receive_filter };
            let (transmit_types, receive_filters) = (1 << mode.transmit_type, 1 << receive_filter);
            match name {
                "eth0" => Ok((StampingAbilities::default(), None)),
                "eth1" => {
                    let clock = Some(1);
                    Ok((StampingAbilities { clock, transmit_types, receive_filters }, Some(mode)))
                }
                _ => Err(io::Error::from_raw_os_error(libc::ENODEV)),
            }
        }
    }

    /// A root folder with these files, and scripts that are tools.
    pub(crate) fn root(files: &[(&str, &str)], tools: &[(&str, &str)]) -> TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            put(folder.path(), path, text);
        }
        for (tool, script) in tools {
            let path = put(folder.path(), &format!("usr/sbin/{tool}"), script);
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("ours");
        }
        folder
    }

    pub(crate) fn put(root: &Path, path: &str, text: &str) -> PathBuf {
        let path = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, text).expect("written");
        path
    }

    pub(crate) fn host(root: &TempDir) -> Host {
        let kernel = FakeKernel { is_synchronised: true, has_ring: true };
        Host::of(root.path(), Box::new(kernel))
    }

    #[test]
    fn files_and_tools_are_those_below_the_root() {
        let root = root(
            &[("/proc/number", "17\n"), ("/sys/b", ""), ("/sys/a", "")],
            &[
                ("good", "#!/bin/sh\necho \"$1 $LC_ALL\"\n"),
                ("bad", "#!/bin/sh\necho >&2\necho no right >&2\nexit 3\n"),
            ],
        );
        let host = host(&root);
        assert_eq!(host.number("/proc/number"), Some(17));
        assert_eq!(host.number("/proc/absent"), None);
        assert_eq!(host.names("/sys"), ["a", "b"]);
        assert_eq!(host.run("good", &["x"]).expect("runs"), "x C\n");
        let message = |tool| host.run(tool, &[]).expect_err("fails").to_string();
        assert_eq!(message("bad"), "bad fails: no right");
        assert_eq!(message("ls"), "ls is not installed");
    }
}
