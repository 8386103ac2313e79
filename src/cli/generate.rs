//! `timeball generate`: manual pages and shell completions, for packages.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;

use super::manual::{self, Program};
use super::{EXIT_FAILURE, fail};

/// Where generated files go.
#[derive(Args, Debug)]
pub struct GenerateArguments {
    /// The folder for man/ and completions/
    pub folder: PathBuf,
    /// The date that the pages show
    #[arg(long, value_name = "YYYY-MM-DD", default_value = "")]
    pub date: String,
}

/// Why files were not generated.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}; check who may write there", path.display())]
pub struct GenerateError {
    path: PathBuf,
    source: io::Error,
}

/// The shells that packages have completions for; others are rarely a login shell on a server.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// `timeball generate`.
pub(super) fn run(arguments: &GenerateArguments, command: Command) -> ExitCode {
    let configuration = manual::configuration_page(&arguments.date);
    let result = generate(arguments, command, &PROGRAM)
        .and_then(|()| write(&arguments.folder.join("man"), &configuration));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(EXIT_FAILURE, error),
    }
}

/// Writes `man/` with a page for `command` and each of its subcommands, and `completions/` with a
/// file for each shell.
///
/// # Errors
/// [`GenerateError`].
pub fn generate(
    arguments: &GenerateArguments,
    command: Command,
    program: &Program,
) -> Result<(), GenerateError> {
    for page in manual::command_pages(command.clone(), program, &arguments.date) {
        write(&arguments.folder.join("man"), &page)?;
    }
    let folder = made(&arguments.folder.join("completions"))?;
    let name = command.get_name().to_owned();
    for shell in SHELLS {
        clap_complete::generate_to(shell, &mut command.clone(), &name, &folder)
            .map_err(|source| GenerateError { path: folder.clone(), source })?;
    }
    Ok(())
}

fn write(folder: &Path, page: &manual::Page) -> Result<(), GenerateError> {
    let path = made(folder)?.join(&page.file);
    std::fs::write(&path, &page.text).map_err(|source| GenerateError { path, source })
}

fn made(folder: &Path) -> Result<PathBuf, GenerateError> {
    let path = folder.to_owned();
    match std::fs::create_dir_all(folder) {
        Ok(()) => Ok(path),
        Err(source) => Err(GenerateError { path, source }),
    }
}

/// What the pages of timeball say beside its options.
const PROGRAM: Program = Program {
    exit_status: &[
        ("0", "Done."),
        ("1", "It could not be done, or the answer is no."),
        ("2", "The command line or the configuration is wrong."),
    ],
    files: &[
        (
            "/etc/timeball/timeball.toml",
            "The configuration of the packaged service; see timeball.toml(5).",
        ),
        (
            "/var/lib/timeball/ntskeys",
            "The master keys of cookies, in chrony's format. Whoever reads them can read and forge \
             what clients get.",
        ),
        (
            "~/.local/state/timeball",
            "Keys and a self-signed certificate of `timeball serve` without a configuration.",
        ),
    ],
    see_also: &["timeball(1)", "timeball.toml(5)", "timeball-load(1)", "chrony.conf(5)"],
};
