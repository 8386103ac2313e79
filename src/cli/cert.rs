//! `timeball cert`: make a self-signed certificate, or look at one.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use thiserror::Error;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Duration, OffsetDateTime, UtcOffset};

use crate::certificate::describe::{DescribeError, Description, describe, warnings};
use crate::certificate::{MakeError, WriteError, self_signed};
use crate::limits::CERTIFICATE_VALIDITY_DAYS;

/// Make a certificate for NTS, or look at one.
#[derive(Args, Clone, Debug)]
pub struct CertArgs {
    #[command(subcommand)]
    command: CertCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum CertCommand {
    /// Make a P-256 key and a certificate signed by itself.
    SelfSigned(SelfSignedArgs),
    /// Show what is in a certificate file, and what is wrong with it.
    Show(ShowArgs),
}

#[derive(Args, Clone, Debug)]
struct SelfSignedArgs {
    /// A DNS name or address that clients will use; may be given several times.
    #[arg(long, value_name = "NAME", required = true)]
    name: Vec<String>,
    /// The folder for cert.pem and key.pem.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    out: PathBuf,
    /// How many days it is valid.
    #[arg(long, value_name = "DAYS", default_value_t = CERTIFICATE_VALIDITY_DAYS,
          value_parser = clap::value_parser!(u16).range(1..))]
    days: u16,
    /// Replace files that are there.
    #[arg(long)]
    force: bool,
}

#[derive(Args, Clone, Debug)]
struct ShowArgs {
    /// A PEM file (a chain has the server's own certificate first) or a DER file.
    file: PathBuf,
}

/// Runs `timeball cert`. Every error is exit code 1; clap has dealt with usage (2).
///
/// # Errors
/// [`CertError`], one sentence with what to do.
pub fn run(args: CertArgs) -> Result<(), CertError> {
    let now = OffsetDateTime::now_utc();
    let out = &mut io::stdout().lock();
    match args.command {
        CertCommand::SelfSigned(args) => make(&args, now, out),
        CertCommand::Show(args) => show(&args, now, out),
    }
}

/// Why `timeball cert` failed.
#[derive(Debug, Error)]
pub enum CertError {
    /// The certificate could not be made.
    #[error(transparent)]
    Make(#[from] MakeError),
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The file to show could not be read.
    #[error("{path} could not be read: {source}; check its name and who may read it")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file to show is no certificate.
    #[error("{path} cannot be shown: {source}")]
    Describe {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: DescribeError,
    },
    /// Standard output is closed.
    #[error("the result could not be printed: {0}")]
    Print(#[from] io::Error),
}

fn make(args: &SelfSignedArgs, now: OffsetDateTime, out: &mut impl Write) -> Result<(), CertError> {
    let pair = self_signed(&args.name, Duration::days(i64::from(args.days)), now)?;
    std::fs::create_dir_all(&args.out)
        .map_err(|source| WriteError::Io { path: args.out.clone(), source })?;
    let (certificate, key) = (args.out.join("cert.pem"), args.out.join("key.pem"));
    pair.write(&certificate, &key, args.force)?;
    writeln!(out, "certificate  {} (give clients a copy)", certificate.display())?;
    writeln!(out, "key          {} (keep it here)", key.display())?;
    writeln!(out, "valid for    {}, {} days", args.name.join(", "), args.days)?;
    Ok(())
}

fn show(args: &ShowArgs, now: OffsetDateTime, out: &mut impl Write) -> Result<(), CertError> {
    let path = || args.file.clone();
    let bytes =
        std::fs::read(&args.file).map_err(|source| CertError::Read { path: path(), source })?;
    let chain = describe(&bytes).map_err(|source| CertError::Describe { path: path(), source })?;
    for (index, certificate) in chain.iter().enumerate() {
        if chain.len() > 1 {
            writeln!(out, "certificate {} of {}", index + 1, chain.len())?;
        }
        show_one(certificate, out)?;
    }
    for warning in warnings(&chain, now) {
        writeln!(out, "warning      {warning}")?;
    }
    Ok(())
}

fn show_one(certificate: &Description, out: &mut impl Write) -> Result<(), CertError> {
    let names = match certificate.names.as_slice() {
        [] => "none".to_owned(),
        names => names.join(", "),
    };
    let issuer = if certificate.is_self_issued { "itself" } else { &certificate.issuer };
    writeln!(out, "subject      {}", certificate.subject)?;
    writeln!(out, "issuer       {issuer}")?;
    writeln!(out, "names        {names}")?;
    writeln!(out, "not before   {}", utc(certificate.not_before))?;
    writeln!(out, "not after    {}", utc(certificate.not_after))?;
    writeln!(out, "key          {}", certificate.key)?;
    writeln!(out, "authority    {}", if certificate.is_ca { "yes (CA:TRUE)" } else { "no" })?;
    Ok(())
}

fn utc(moment: OffsetDateTime) -> String {
    // The format has no component that a moment in UTC lacks; a blank is better than a panic.
    moment.to_offset(UtcOffset::UTC).format(DATE).unwrap_or_default()
}

const DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        cert: CertArgs,
    }

    #[test]
    fn what_self_signed_makes_show_shows_without_warning() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("new");
        let out_text = out.to_str().unwrap();
        let make = || {
            ["cert", "self-signed", "--name", "time.test", "--name", "::1", "--out", out_text]
                .into_iter()
        };
        run(Program::parse_from(make()).cert).unwrap();
        let mode = out.join("key.pem").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let again = run(Program::parse_from(make()).cert).unwrap_err();
        assert!(matches!(again, CertError::Write(WriteError::Exists(_))), "{again}");
        run(Program::parse_from(make().chain(["--force"])).cert).unwrap();

        let mut shown = Vec::new();
        let args = ShowArgs { file: out.join("cert.pem") };
        show(&args, OffsetDateTime::now_utc(), &mut shown).unwrap();
        let shown = String::from_utf8(shown).unwrap();
        assert!(shown.contains("names        time.test, ::1"), "{shown}");
        assert!(shown.contains("key          ECDSA, P-256"), "{shown}");
        assert!(!shown.contains("warning"), "{shown}");
    }

    #[test]
    fn usage_errors_are_clap_s() {
        let refused = |args: &[&str]| match Program::try_parse_from(args) {
            Err(error) => assert_eq!(error.exit_code(), 2, "{args:?}"),
            Ok(_) => panic!("{args:?} was taken"),
        };
        refused(&["cert", "self-signed"]);
        refused(&["cert", "self-signed", "--name", "a", "--days", "0"]);
        refused(&["cert", "show"]);
    }

    #[test]
    fn a_file_that_is_no_certificate_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("garbage.pem");
        let show_it = || {
            let args = ShowArgs { file: file.clone() };
            show(&args, OffsetDateTime::now_utc(), &mut Vec::new()).unwrap_err().to_string()
        };
        assert!(show_it().contains("could not be read"));
        std::fs::write(&file, "garbage").unwrap();
        assert!(show_it().contains("garbage.pem cannot be shown: there is no certificate"));
    }
}
