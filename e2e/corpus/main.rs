//! Records what a Docker Engine with BuildKit makes of the corpus' cases.
//!
//! ```text
//! corpus [NAME…]      all cases, or those whose path contains a NAME; cases with a record are left out unless named
//!   DOCKER=docker               the client's command line, words separated by spaces
//!   SHARED=/tmp/corpus=/shared  folder here = the same folder for the client, where it runs elsewhere
//! ```
//!
//! Cases are made from the image `base`, which is imported from the test image `busybox`.

#![allow(clippy::print_stdout, reason = "a program for people")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use e2e::corpus::{self, case::Case, outcome};
use serde_json::{Value, json};

struct Peer {
    words: Vec<String>,
    here: PathBuf,
    there: PathBuf,
}

impl Peer {
    fn from_environment() -> Result<Self> {
        let words = std::env::var("DOCKER").unwrap_or_else(|_| "docker".to_owned());
        let shared =
            std::env::var("SHARED").unwrap_or_else(|_| "/tmp/corpus=/tmp/corpus".to_owned());
        let (here, there) = shared.split_once('=').context("SHARED is HERE=THERE")?;
        Ok(Self {
            words: words.split_whitespace().map(str::to_owned).collect(),
            here: here.into(),
            there: there.into(),
        })
    }

    fn import_base(&self) -> Result<()> {
        let directory = &self.here;
        if self
            .run(directory, &["image", "inspect", "base"])?
            .status
            .success()
        {
            return Ok(());
        }
        std::fs::copy(e2e::busybox(), directory.join("base.tar"))?;
        let there = self.there.join("base.tar");
        self.ok(directory, &["import", &there.to_string_lossy(), "base"])?;
        Ok(())
    }

    fn run(&self, directory: &Path, arguments: &[&str]) -> Result<Output> {
        let directory = self.there.join(directory.strip_prefix(&self.here)?);
        // A shell sets the directory where the client runs, which may be another root.
        let script = "cd \"$1\" && shift && exec docker \"$@\"";
        let (program, prefix) = self.words.split_first().context("DOCKER is empty")?;
        let mut command = Command::new(program);
        if prefix.is_empty() && program == "docker" {
            command.current_dir(directory).args(arguments);
        } else {
            let prefix = prefix.iter().filter(|word| *word != "docker");
            command
                .args(prefix)
                .args(["sh", "-c", script, "sh"])
                .arg(directory)
                .args(arguments);
        }
        command
            .env("BUILDKIT_PROGRESS", "plain")
            .stdin(Stdio::null());
        Ok(command.output()?)
    }

    fn ok(&self, directory: &Path, arguments: &[&str]) -> Result<String> {
        let output = self.run(directory, arguments)?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "docker {}: {errors}",
            arguments.join(" ")
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

fn main() -> Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let peer = Peer::from_environment()?;
    std::fs::create_dir_all(&peer.here)?;
    let version = peer.ok(&peer.here, &["version", "--format", "{{.Server.Version}}"])?;
    let buildx = peer.ok(&peer.here, &["buildx", "version"])?;
    let engine = format!("Docker Engine {version}, {buildx}");
    let base = {
        peer.import_base()?;
        let there = peer.there.join("case.tar");
        let there = there.to_string_lossy();
        peer.ok(&peer.here, &["save", "-o", &there, "base:latest"])?;
        outcome::read(&peer.here.join("case.tar"))?.tree
    };
    for path in corpus::cases(None)? {
        let named = wanted
            .iter()
            .any(|name| path.to_string_lossy().contains(name.as_str()));
        let record = path.with_extension("json");
        if !named && (!wanted.is_empty() || record.exists()) {
            continue;
        }
        let found =
            build(&peer, &path, &base, &engine).with_context(|| path.display().to_string())?;
        let summary = found.get("error").map_or("built", |_| "refused");
        println!("{summary:8} {}", path.display());
        std::fs::write(record, serde_json::to_string_pretty(&found)? + "\n")?;
    }
    Ok(())
}

fn build(peer: &Peer, path: &Path, base: &outcome::Tree, engine: &str) -> Result<Value> {
    let case = Case::read(path)?;
    let directory = peer.here.join("case");
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    std::fs::create_dir_all(&directory)?;
    for (name, dockerfile) in &case.bases {
        std::fs::write(directory.join("Dockerfile"), dockerfile)?;
        peer.ok(&directory, &["build", "-q", "-t", name, "."])?;
        std::fs::remove_file(directory.join("Dockerfile"))?;
    }
    case.materialise(&directory)?;
    let tag = format!("corpus:{}", case.name);
    let mut arguments = vec!["build", "-t", &tag];
    if !case.flags.iter().any(|flag| flag == "--no-cache-filter") {
        arguments.push("--no-cache");
    }
    arguments.extend(case.flags.iter().map(String::as_str));
    arguments.push(".");
    let output = peer.run(&directory, &arguments)?;
    let mut found = json!({ "made by": engine });
    if output.status.success() {
        let archive = peer.here.join("case.tar");
        peer.ok(
            &directory,
            &[
                "save",
                "-o",
                &peer.there.join("case.tar").to_string_lossy(),
                &tag,
            ],
        )?;
        let made = outcome::outcome(outcome::read(&archive)?, base);
        found
            .as_object_mut()
            .context("an object")?
            .extend(made.as_object().context("an object")?.clone());
        peer.ok(&directory, &["rmi", "-f", &tag])?;
    } else {
        found["error"] = json!(error(&String::from_utf8_lossy(&output.stderr)));
    }
    for (name, _) in &case.bases {
        peer.ok(&directory, &["rmi", "-f", name])?;
    }
    Ok(found)
}

/// The reason out of the client's last words, without what is random in it.
fn error(text: &str) -> String {
    let line = text.lines().rev().find(|line| line.starts_with("ERROR: "));
    let mut line = line.unwrap_or_else(|| text.lines().last().unwrap_or_default());
    for prefix in ["ERROR: ", "failed to build: ", "failed to solve: "] {
        line = line.strip_prefix(prefix).unwrap_or(line);
    }
    if let Some((_, reason)) = line.split_once("failed to calculate checksum of ref ") {
        line = reason.split_once(": ").map_or(reason, |(_, reason)| reason);
    }
    // Where the engine has mounted the image is nobody's business.
    let words = line
        .split(' ')
        .map(|word| word.split_once("/merged").map_or(word, |(_, path)| path));
    words.collect::<Vec<_>>().join(" ")
}
