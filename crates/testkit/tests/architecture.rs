//! The map is true: crates depend on each other only as ARCHITECTURE.md allows, and it names the crates that exist.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test stops at what it did not expect")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Who may use whom (ARCHITECTURE.md, "Edges"). Development dependencies may use testkit besides.
const ALLOWED: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("connect", &[]),
    ("project", &["core"]),
    ("store", &["core"]),
    ("transfer", &["connect"]),
    ("runtime", &["core", "store", "connect", "transfer", "project"]),
    ("server", &["core", "store", "runtime"]),
    ("cli", &["core", "project", "connect", "transfer", "store", "runtime", "server"]),
    ("testkit", &["core", "project", "connect", "transfer", "store", "runtime", "server"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn crates() -> BTreeSet<String> {
    fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("Cargo.toml").exists())
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect()
}

/// The crates of this workspace that a section of a manifest names.
fn named_in(manifest: &str, section: &str) -> BTreeSet<String> {
    let mut inside = false;
    let mut named = BTreeSet::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == format!("[{section}]");
        } else if inside && let Some(rest) = line.strip_prefix("backstop-") {
            let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            named.insert(name);
        }
    }
    named
}

#[test]
fn crates_use_only_what_they_may() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut wrong = Vec::new();
    for name in crates() {
        let manifest = fs::read_to_string(root().join("crates").join(&name).join("Cargo.toml")).unwrap();
        let Some(may) = allowed.get(name.as_str()) else {
            wrong.push(format!("crates/{name} has no place in the map"));
            continue;
        };
        for used in named_in(&manifest, "dependencies") {
            if !may.contains(&used.as_str()) {
                wrong.push(format!("crates/{name} uses crates/{used}"));
            }
        }
        for used in named_in(&manifest, "dev-dependencies") {
            if used != "testkit" && used != name && !may.contains(&used.as_str()) {
                wrong.push(format!("the tests of crates/{name} use crates/{used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "edges that ARCHITECTURE.md does not allow:\n{}", wrong.join("\n"));
}

#[test]
fn the_map_names_the_crates_that_exist() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let missing: Vec<String> = crates().into_iter().filter(|name| !map.contains(&format!("crates/{name}"))).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md does not name: {missing:?}");
    for word in map.split(|c: char| !(c.is_ascii_alphanumeric() || "/_-.".contains(c))) {
        if let Some(name) = word.strip_prefix("crates/") {
            let name = name.split('/').next().unwrap_or_default();
            assert!(crates().contains(name), "ARCHITECTURE.md names crates/{name}, which does not exist");
        }
    }
}

#[test]
fn the_core_knows_nothing_of_the_world() {
    let sources = root().join("crates/core/src");
    let mut wrong = Vec::new();
    let mut folders = vec![sources];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            for forbidden in
                ["std::fs", "std::net", "std::thread", "std::env", "Instant::now", "Timestamp::now", "async fn", "tokio", "serde"]
            {
                let used = text.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(forbidden));
                if used {
                    wrong.push(format!("{} uses {forbidden}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
