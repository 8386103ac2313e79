//! What we link has a licence that deny.toml allows, comes from the registry, and is not a version
//! that an advisory names: the part of `cargo deny check` that needs no network. The advisories are
//! those of `advisories.tsv`, which are as old as it says.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use semver::{Version, VersionReq};
use serde_json::Value;
use spdx::{Expression, ParseMode};

/// The packages of the workspace and all that they depend on, on Linux.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let nodes = metadata["resolve"]["nodes"].as_array().expect("a graph");
    let linked: BTreeSet<&str> = nodes.iter().filter_map(|node| node["id"].as_str()).collect();
    let packages = metadata["packages"].as_array().expect("packages");
    let is_linked = |package: &&Value| package["id"].as_str().is_some_and(|id| linked.contains(id));
    packages.iter().filter(is_linked).cloned().collect()
}

fn allowed() -> Vec<Expression> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml");
    let text = std::fs::read_to_string(path).expect("deny.toml");
    let table: toml::Table = text.parse().expect("TOML");
    let list = table["licenses"]["allow"].as_array().expect("a list");
    list.iter()
        .map(|licence| Expression::parse(licence.as_str().expect("text")).expect("a licence"))
        .collect()
}

#[test]
fn every_dependency_has_an_allowed_licence() {
    let allowed: Vec<String> = allowed().iter().map(ToString::to_string).collect();
    let mut wrong = Vec::new();
    let packages = packages();
    assert!(packages.len() > 100, "the graph is not complete");
    for package in packages {
        let licence = package["license"].as_str().unwrap_or_default();
        let is_allowed = Expression::parse_mode(licence, ParseMode::LAX).is_ok_and(|expression| {
            expression.evaluate(|requirement| allowed.contains(&requirement.to_string()))
        });
        if !is_allowed {
            wrong.push(format!("{} {}: {licence:?}", package["name"], package["version"]));
        }
    }
    assert!(wrong.is_empty(), "not in deny.toml:\n{}", wrong.join("\n"));
}

#[test]
fn a_licence_that_is_not_allowed_is_found() {
    let allowed: Vec<String> = allowed().iter().map(ToString::to_string).collect();
    for (licence, expected) in [
        ("GPL-3.0-only", false),
        ("MIT AND GPL-2.0-or-later", false),
        ("MIT OR GPL-3.0-only", true),
        ("Apache-2.0 WITH LLVM-exception", true),
    ] {
        let expression = Expression::parse(licence).expect("a licence");
        let found = expression.evaluate(|requirement| allowed.contains(&requirement.to_string()));
        assert_eq!(found, expected, "{licence}");
    }
}

#[test]
fn every_dependency_comes_from_the_registry() {
    for package in packages() {
        let source = package["source"].as_str();
        // Without a source it is one of the workspace.
        let is_ours = package["name"].as_str().is_some_and(|name| name.starts_with("timeball"));
        assert!(
            source.map_or(is_ours, |source| source.starts_with("registry+")),
            "{} comes from {source:?}",
            package["name"]
        );
    }
}

/// Whether a version fulfils one of these requirements, which stand between "or".
fn is_clear(version: &str, clear: &str) -> bool {
    let version = Version::parse(version).expect("a version");
    let mut requirements = clear.split(" or ");
    requirements.any(|text| VersionReq::parse(text).expect("a requirement").matches(&version))
}

#[test]
fn no_dependency_is_a_version_that_an_advisory_names() {
    let packages = packages();
    for line in include_str!("advisories.tsv").lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [advisory, name, clear] = fields[..] else { panic!("three fields: {line}") };
        let versions: Vec<&str> = packages
            .iter()
            .filter(|package| package["name"] == name)
            .filter_map(|package| package["version"].as_str())
            .collect();
        assert!(!versions.is_empty(), "{name} is linked no more: its lines can go");
        for version in versions {
            assert!(is_clear(version, clear), "{name} {version}: {advisory}, wants {clear}");
        }
    }
}

#[test]
fn a_version_that_an_advisory_names_is_found() {
    let clear = ">= 1.38.2, < 1.39.0 or >= 1.44.2";
    for (version, expected) in
        [("1.38.1", false), ("1.38.2", true), ("1.39.0", false), ("1.44.2", true), ("2.0.0", true)]
    {
        assert_eq!(is_clear(version, clear), expected, "{version}");
    }
}
