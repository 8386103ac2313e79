//! `timeball tune`: sets the host as a server needs it, says what it changes, and writes how to
//! undo it. What is set, and why, is in `host/tuning.rs`.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use rustix::process::geteuid;

use super::place::{ConfiguredError, configured};
use super::serve::available_cpus;
use super::{EXIT_FAILURE, EXIT_USAGE, fail};
use crate::config::checked::UnavailableCpu;
use crate::host::facts::Host;
use crate::host::tuning::{
    INTERRUPT_AFFINITY, Knob, Needs, QUEUES, Setting, Standing, knobs, sysctl_file,
};
use crate::sys::file::replace;

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct TuneArguments {
    /// The server's configuration file; without it /etc/timeball/timeball.toml, or what `timeball
    /// serve` without one takes
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Say what would be changed, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// The script that undoes what was changed, a shell script that removes itself
    #[arg(long, value_name = "FILE", default_value = "/run/timeball-tuning-undo")]
    undo: PathBuf,
    /// Print a file for /etc/sysctl.d instead
    #[arg(long)]
    print_sysctl: bool,
    /// The folder that holds /proc and /sys
    #[arg(long, value_name = "FOLDER", default_value = "/", hide = true)]
    root: PathBuf,
}

const AFTER_HELP: &str = "\
A restart of the host undoes everything, too. What is as it should be is left alone, so a second run
changes nothing. Most settings are for `profile = \"appliance\"` only;
/usr/share/doc/timeball/tuning/README.md has each with its reason.
Exit codes: 0 all is as it should be now, 1 something could not be set or seen, 2 wrong usage.";

/// Why nothing was set.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Settings(#[from] ConfiguredError),
    #[error(transparent)]
    Cpus(#[from] UnavailableCpu),
    #[error(
        "cannot write {path}: {source}; nothing was changed, since nothing could be undone; choose \
         another place with --undo"
    )]
    Undo { path: PathBuf, source: io::Error },
    #[error("the result could not be printed: {0}")]
    Print(#[from] io::Error),
}

pub(super) fn run(arguments: &TuneArguments) -> ExitCode {
    match tune(arguments, &mut io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_FAILURE),
        Err(error @ (Error::Settings(_) | Error::Cpus(_))) => fail(EXIT_USAGE, error),
        Err(error) => fail(EXIT_FAILURE, error),
    }
}

/// One setting that is to be changed.
struct Change {
    knob: Knob,
    now: String,
    then: String,
}

/// Returns whether all is as it should be, or would be.
fn tune(arguments: &TuneArguments, out: &mut dyn Write) -> Result<bool, Error> {
    if arguments.print_sysctl {
        out.write_all(sysctl_file().as_bytes())?;
        return Ok(true);
    }
    let host = Host::running(&arguments.root);
    let settings = configured(arguments.config.as_deref())?.settings;
    let cpus = settings.workers.place(&available_cpus())?;
    let needs = Needs::of(&settings, &cpus, &host);
    let of_interrupts = |knob: &Knob| *knob.setting == INTERRUPT_AFFINITY;
    let (_, first): (Vec<_>, Vec<_>) = knobs(&needs, &host).into_iter().partition(of_interrupts);
    let mut settled = settle(first, arguments, &host, out)?;
    // Looked for when queues are as they should be: a queue that was just made has one, too.
    let second = knobs(&needs, &host).into_iter().filter(of_interrupts);
    let interrupts = settle(second.collect(), arguments, &host, out)?;
    if arguments.dry_run && settled.changed.contains(&&QUEUES) {
        writeln!(out, "would set  {} of queues that this makes", INTERRUPT_AFFINITY.name)?;
    }
    settled.all_well &= interrupts.all_well;
    settled.changed.extend(interrupts.changed);
    if settled.changed.is_empty() {
        writeln!(out, "nothing to change")?;
    } else if !arguments.dry_run {
        writeln!(out, "undo with  sh {}", arguments.undo.display())?;
    }
    Ok(settled.all_well)
}

/// What has become of some settings.
struct Settled {
    /// All are as they should be, or would be.
    all_well: bool,
    /// Those that were not, each as often as it is there.
    changed: Vec<&'static Setting>,
}

/// Says how `knobs` stand and sets those that are off, behind their undo.
fn settle(
    knobs: Vec<Knob>,
    arguments: &TuneArguments,
    host: &Host,
    out: &mut dyn Write,
) -> Result<Settled, Error> {
    let mut changes = Vec::new();
    let mut all_well = true;
    for knob in knobs {
        match knob.standing(host) {
            Standing::Good(now) => writeln!(out, "as it is   {} is {now}", knob.name())?,
            Standing::Absent(why) => writeln!(out, "not here   {why}")?,
            Standing::Hidden(why) => {
                all_well = false;
                writeln!(out, "not seen   {}: {why}", knob.name())?;
            }
            Standing::Off { now, then } => changes.push(Change { knob, now, then }),
        }
    }
    if !arguments.dry_run && !changes.is_empty() {
        // Before anything is changed: what is interrupted can be undone.
        write_undo(&arguments.undo, &changes, host)
            .map_err(|source| Error::Undo { path: arguments.undo.clone(), source })?;
    }
    for change in &changes {
        all_well &= apply(change, arguments.dry_run, host, out)?;
    }
    let changed = changes.iter().map(|change| change.knob.setting).collect();
    Ok(Settled { all_well, changed })
}

fn apply(
    Change { knob, now, then }: &Change,
    dry_run: bool,
    host: &Host,
    out: &mut dyn Write,
) -> Result<bool, Error> {
    let (name, reason) = (knob.name(), knob.setting.reason);
    if dry_run {
        writeln!(out, "would set  {name} from {now} to {then}: {reason}")?;
        return Ok(true);
    }
    match knob.set(then, host) {
        Ok(()) => {
            writeln!(out, "set        {name} from {now} to {then}: {reason}")?;
            Ok(true)
        }
        Err(why) => {
            writeln!(out, "failed     {name} stays {now}: {why}")?;
            Ok(false)
        }
    }
}

const UNDO_HEAD: &str = "\
#!/bin/sh
# Undoes what `timeball tune` has changed, the last first. A restart of the host does so, too.
failed=
";
/// What could not be undone waits for the next attempt.
const UNDO_TAIL: &str = "\
[ -z \"$failed\" ] || { echo \"$0: not all is undone; it stays\" >&2; exit 1; }
rm -f -- \"$0\"
";

/// Root runs the script, so what somebody else wrote must not get into it.
const NO_UNDO: &str = "it is no undo script of this user's; name another file with --undo";

/// Puts the changes in front of those that wait to be undone already.
fn write_undo(path: &Path, changes: &[Change], host: &Host) -> io::Result<()> {
    let before = match fs::symlink_metadata(path) {
        Ok(found) => {
            let is_ours = found.is_file() && found.uid() == geteuid().as_raw();
            let text = if is_ours { fs::read_to_string(path)? } else { String::new() };
            let steps = text.strip_prefix(UNDO_HEAD).and_then(|text| text.strip_suffix(UNDO_TAIL));
            steps.ok_or_else(|| io::Error::other(NO_UNDO))?.to_owned()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let mut text = UNDO_HEAD.to_owned();
    for Change { knob, now, .. } in changes.iter().rev() {
        text.push_str(&knob.script(now, host));
        text.push_str(" || failed=yes\n");
    }
    text.push_str(&before);
    text.push_str(UNDO_TAIL);
    replace(path, text.as_bytes(), 0o700)
}
