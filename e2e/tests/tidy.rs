//! Asserts the architecture from `cargo metadata` and the sources: who may import whom, which crates may be used at
//! all, under which licences, and where `unsafe` and new processes may appear.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Package → packages of this workspace it may depend on. Nothing else, no cycles.
const IMPORTS: &[(&str, &[&str])] = &[
    (
        "agent",
        &[
            "agent-api",
            "agent-build",
            "agent-image",
            "agent-runtime",
            "cluster",
            "cluster-api",
            "netdriver",
        ],
    ),
    ("agent-api", &["agent-build"]),
    ("agent-build", &[]),
    ("agent-image", &["agent-build"]),
    ("agent-runtime", &[]),
    (
        "cli",
        &[
            "agent",
            "agent-api",
            "agent-build",
            "agent-runtime",
            "compose",
            "compose-model",
        ],
    ),
    ("cluster", &["agent-api", "cluster-api", "netdriver-ipam"]),
    ("cluster-api", &["agent-api"]),
    ("compose", &["agent-api", "compose-model"]),
    ("compose-model", &[]),
    ("e2e", &["agent-api"]),
    ("netdriver", &["netdriver-ipam"]),
    ("netdriver-ipam", &[]),
];

/// Crates a package may name in its `[dependencies]` (tests may use more).
const ALLOWED: &[&str] = &[
    "annotate-snippets",
    "anstyle",
    "anyhow",
    "arc-swap",
    "base64",
    "bytes",
    "bzip2",
    "chacha20poly1305",
    "clap",
    "clap_complete",
    "flate2",
    "futures-util",
    "gix",
    "gix-transport",
    "granit-parser",
    "hcl-rs",
    "hex",
    "hickory-proto",
    "http",
    "http-body",
    "http-body-util",
    "hyper",
    "hyper-rustls",
    "hyper-util",
    "indexmap",
    "indicatif",
    "ipnet",
    "jiff",
    "libc",
    "lzma-rust2",
    "netlink-packet-core",
    "netlink-packet-route",
    "netlink-sys",
    "nix",
    "oci-spec",
    "parking_lot",
    "petgraph",
    "prost",
    "protobuf",
    "raft",
    "rand",
    "rcgen",
    "regex",
    "ring",
    "rustix",
    "rustls",
    "rustls-native-certs",
    "rustls-pki-types",
    "ruzstd",
    "serde",
    "serde_json",
    "serde_path_to_error",
    "slog",
    "syscalls",
    "tar",
    "tempfile",
    "thiserror",
    "tokio",
    "tokio-rustls",
    "tokio-util",
    "tonic",
    "tonic-prost",
    "tower",
    "tracing",
    "tracing-subscriber",
    "unicode-width",
    "url",
    "x509-parser",
    "zeroize",
];

/// Crates that must not be in the tree at all, with the reason.
const BANNED: &[(&str, &str)] = &[
    (
        "aws-lc-rs",
        "rustls is to use ring: a fifth of the build time, no cmake",
    ),
    ("bincode", "unmaintained, RUSTSEC-2025-0141"),
    ("native-tls", "rustls is the TLS of this project"),
    ("openssl", "rustls is the TLS of this project"),
    ("openssl-sys", "rustls is the TLS of this project"),
    ("rustables", "GPL-3.0"),
    (
        "serde_yaml",
        "deprecated; granit-parser reads YAML with its places",
    ),
    ("serde_yml", "unsound, RUSTSEC-2025-0068"),
    ("tokio-tar", "RUSTSEC-2025-0111, no fix"),
];

/// Each dependency needs one of these, or an expression over these.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    // Permissive, as the BSD licences.
    "bzip2-1.0.6",
];

/// Crates that may be there in several versions, because a dependency has not moved yet: `raft` (prost 0.11, rand 0.8,
/// syn 1 and what they bring), `rcgen`, `rexpect`, `tonic`; `defmt` is named by what `gix` uses and not built.
///
/// Two advisories come with `raft` and do not reach anybody: `protobuf` 2 parses too deep messages (RUSTSEC-2024-0437),
/// but peers' bytes are decoded by prost, the other parser is `unimplemented!()` in this mode; `fxhash` is unmaintained
/// (RUSTSEC-2025-0057).
const DUPLICATES: &[&str] = &[
    "base64",
    "bit-vec",
    "bitflags",
    "defmt",
    "fixedbitset",
    "foldhash",
    "getrandom",
    "hashbrown",
    "heck",
    "itertools",
    "linux-raw-sys",
    "multimap",
    "petgraph",
    "prettyplease",
    "prost",
    "prost-build",
    "prost-derive",
    "prost-types",
    "rand",
    "rand_core",
    "rustix",
    "syn",
    "synstructure",
    "thiserror",
    "thiserror-impl",
    "unicode-width",
    "windows-sys",
];

/// Where `unsafe` may stand: the runtime, and modules called `sys`.
fn may_be_unsafe(file: &Path) -> bool {
    file.starts_with("agent/runtime")
        || file.file_name().is_some_and(|name| name == "sys.rs")
        || file.components().any(|part| part.as_os_str() == "sys")
}

/// Where a new process may be started: the daemon in the background, the keeper, hooks of `muster oci`, the compiler
/// for the init of containers, what users name themselves (credential helpers and ssh), and scenarios.
const MAY_SPAWN: &[&str] = &[
    "agent/api/src/client/credentials.rs",
    "agent/api/src/client/dial.rs",
    "agent/runtime/build.rs",
    "agent/runtime/src/keeper/client.rs",
    "agent/runtime/src/oci/hooks.rs",
    "cli/src/connect/background.rs",
    "e2e/",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .expect("the workspace exists")
}

fn metadata() -> Value {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--offline",
            "--filter-platform",
            &target,
        ])
        .current_dir(root())
        .output()
        .expect("run cargo metadata");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo prints JSON")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// The members of the workspace.
fn members(metadata: &Value) -> Vec<&Value> {
    let ids: BTreeSet<&str> = list(metadata, "workspace_members")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    list(metadata, "packages")
        .iter()
        .filter(|package| ids.contains(text(package, "id")))
        .collect()
}

/// Names in `[dependencies]`; tests' own dependencies are left out.
fn dependencies(package: &Value) -> BTreeSet<&str> {
    list(package, "dependencies")
        .iter()
        .filter(|dependency| dependency["kind"].is_null())
        .map(|dependency| text(dependency, "name"))
        .collect()
}

#[test]
fn packages_import_only_what_the_table_allows() {
    let metadata = metadata();
    let table: BTreeMap<&str, &[&str]> = IMPORTS.iter().copied().collect();
    let members = members(&metadata);
    let names: BTreeSet<&str> = members
        .iter()
        .map(|package| text(package, "name"))
        .collect();
    assert_eq!(
        names,
        table.keys().copied().collect(),
        "a package is missing in the table"
    );
    for package in &members {
        let name = text(package, "name");
        let siblings: BTreeSet<&str> = dependencies(package)
            .intersection(&names)
            .copied()
            .collect();
        let allowed: BTreeSet<&str> = table[name].iter().copied().collect();
        assert!(
            siblings.is_subset(&allowed),
            "{name} imports {siblings:?}, allowed are {allowed:?}"
        );
    }
}

#[test]
fn package_names_tell_their_folder() {
    let metadata = metadata();
    for package in members(&metadata) {
        let manifest = Path::new(text(package, "manifest_path"));
        let folder = manifest
            .parent()
            .and_then(|dir| dir.strip_prefix(root()).ok())
            .expect("it is in the workspace");
        let parts: Vec<_> = folder
            .iter()
            .map(|part| part.to_string_lossy().into_owned())
            .collect();
        assert_eq!(text(package, "name"), parts.join("-"));
    }
}

#[test]
fn only_chosen_crates_are_used() {
    let metadata = metadata();
    let members = members(&metadata);
    let names: BTreeSet<&str> = members
        .iter()
        .map(|package| text(package, "name"))
        .collect();
    let mut used = BTreeSet::new();
    for package in &members {
        used.extend(dependencies(package).difference(&names).copied());
    }
    let allowed: BTreeSet<&str> = ALLOWED.iter().copied().collect();
    assert_eq!(
        used.difference(&allowed).collect::<Vec<_>>(),
        Vec::<&&str>::new(),
        "not in the list"
    );
    assert_eq!(
        allowed.difference(&used).collect::<Vec<_>>(),
        Vec::<&&str>::new(),
        "in the list and unused"
    );
}

#[test]
fn no_banned_crate_licence_or_second_version() {
    let metadata = metadata();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in list(&metadata, "packages") {
        let name = text(package, "name");
        if let Some((_, reason)) = BANNED.iter().find(|(banned, _)| *banned == name) {
            panic!("{name} is banned: {reason}");
        }
        versions
            .entry(name)
            .or_default()
            .insert(text(package, "version"));
        let licence = text(package, "license").replace('/', " OR ");
        let known = |term: &str| LICENCES.contains(&term.trim_matches(['(', ')', ' ']));
        let fine = licence
            .split(" OR ")
            .any(|choice| choice.split(" AND ").all(known))
            || licence
                .split(" AND ")
                .all(|all| all.split(" OR ").any(known));
        assert!(fine, "licence of {name}: {licence:?}");
    }
    let several: Vec<_> = versions
        .iter()
        .filter(|(name, found)| {
            found.len() > 1 && !DUPLICATES.contains(name) && !name.starts_with("windows")
        })
        .collect();
    assert!(several.is_empty(), "several versions of {several:?}");
}

#[test]
fn unsafe_and_new_processes_stay_where_they_belong() {
    let root = root();
    let unsafe_code = regex::Regex::new(r"\bunsafe\s*(\{|fn|impl)").expect("a valid expression");
    let spawn = regex::Regex::new(r"\bCommand::new\(").expect("a valid expression");
    let mut wrong = Vec::new();
    for file in sources(&root) {
        let relative = file.strip_prefix(&root).expect("it is below the root");
        let source = std::fs::read_to_string(&file).expect("read a source");
        let in_tests = relative
            .iter()
            .any(|part| part == "tests" || part == "tests.rs");
        for (number, line) in source
            .lines()
            .enumerate()
            .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        {
            if line.trim_start().starts_with("//") {
                continue;
            }
            if unsafe_code.is_match(line) && !may_be_unsafe(relative) {
                wrong.push(format!("{}:{}: unsafe", relative.display(), number + 1));
            }
            let spawns = MAY_SPAWN.iter().any(|place| relative.starts_with(place));
            if spawn.is_match(line) && !spawns && !in_tests {
                wrong.push(format!(
                    "{}:{}: starts a process",
                    relative.display(),
                    number + 1
                ));
            }
        }
        let lines = source.lines().count();
        if lines > 1000 {
            wrong.push(format!("{}: {lines} lines", relative.display()));
        }
        if !source.starts_with("//!") && !in_tests {
            wrong.push(format!(
                "{}: does not say what it is for",
                relative.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// All Rust files of the workspace's packages.
fn sources(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = ["agent", "cli", "compose", "e2e", "netdriver"]
        .iter()
        .map(|folder| root.join(folder))
        .collect();
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory)
            .expect("list a folder")
            .flatten()
        {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("target") {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
