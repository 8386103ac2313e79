//! `timeball-load report`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::load::write;
use super::{CommandError, EXIT_FINE};
use crate::report::terminal::{comparison, ntpperf, search_comparison, search_text, text};
use crate::report::{Document, RunReport, html, merge};

#[derive(Debug, Args)]
pub(super) struct ReportArguments {
    /// Files that --json wrote
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Take the runs for one: several generators asked one server at the same time
    #[arg(long)]
    merge: bool,
    /// Print the runs as ntpperf does
    #[arg(long)]
    ntpperf: bool,
    /// Write one HTML file with charts here
    #[arg(long)]
    html: Option<PathBuf>,
    /// Write the merged run here
    #[arg(long, requires = "merge")]
    json: Option<PathBuf>,
}

pub(super) fn run(arguments: &ReportArguments) -> Result<u8, CommandError> {
    let (mut names, mut runs) = (Vec::new(), Vec::new());
    let (mut search_names, mut searches) = (Vec::new(), Vec::new());
    for path in &arguments.files {
        match read(path)? {
            Document::Search(search) => {
                search_names.push(stem(path));
                searches.push(*search);
            }
            Document::Run(run) => {
                names.push(stem(path));
                runs.push(*run);
            }
            Document::Mix(parts) => {
                names.extend((1..=parts.len()).map(|part| format!("{} {part}", stem(path))));
                runs.extend(parts);
            }
        }
    }
    if arguments.merge {
        let merged = merge(&runs)
            .ok_or_else(|| CommandError::usage("--merge: none of the files is of a run"))?;
        if let Some(path) = &arguments.json {
            write(path, &serde_json::to_string(&merged)?)?;
        }
        names = vec![names.join(" + ")];
        runs = vec![merged];
    }
    print(&names, &runs, arguments.ntpperf);
    match &searches[..] {
        [search] => print!("{}", search_text(search)),
        [] => {}
        searches => print!("{}", search_comparison(&search_names, searches)),
    }
    if let Some(path) = &arguments.html {
        let runs: Vec<_> = names.into_iter().zip(runs).collect();
        let searches: Vec<_> = search_names.into_iter().zip(searches).collect();
        write(path, &html::page(&runs, &searches))?;
    }
    Ok(EXIT_FINE)
}

fn print(names: &[String], runs: &[RunReport], is_ntpperf: bool) {
    match runs {
        [] => {}
        runs if is_ntpperf => print!("{}", ntpperf(runs)),
        [run] => print!("{}", text(run)),
        runs => print!("{}", comparison(names, runs)),
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn read(path: &Path) -> Result<Document, CommandError> {
    let file = std::fs::read_to_string(path).map_err(|error| {
        CommandError::usage(format_args!("cannot read {}: {error}", path.display()))
    })?;
    serde_json::from_str(&file).map_err(|_| {
        let path = path.display();
        CommandError::usage(format_args!("{path} is no result of this program's --json"))
    })
}
