//! The commands: one file per group, each with its arguments and what it does.

pub(crate) mod build;
pub(crate) mod builder;
pub(crate) mod commit;
pub(crate) mod completion;
pub(crate) mod compose;
pub(crate) mod copy;
pub(crate) mod daemon;
pub(crate) mod dial_stdio;
mod disk;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod image;
pub(crate) mod image_copy;
pub(crate) mod inspect;
pub(crate) mod lifecycle;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod look;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod payload;
pub(crate) mod ps;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod refused;
pub(crate) mod run;
pub(crate) mod search;
pub(crate) mod service;
pub(crate) mod stack;
pub(crate) mod stats;
pub(crate) mod swarm;
pub(crate) mod system;
mod tasks;
pub(crate) mod transfer;
pub(crate) mod volume;

use crate::failure::{Failure, Outcome, describe};
use crate::out;
use crate::render::units::{human_duration, human_size};
use agent_api::Labels;
use anyhow::Context as _;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use std::cmp::Ordering;
use std::io::BufRead as _;

/// Requests of one command that are under way at the same time.
const PARALLEL: usize = 16;

/// Does the same to many objects at once; prints each name when it is done, in the order given, and every failure.
async fn each<F>(names: &[String], action: F) -> Outcome
where
    F: AsyncFn(&str) -> anyhow::Result<()>,
{
    let action = &action;
    let mut results = futures_util::stream::iter(names)
        .map(|name| async move { (name, action(name).await) })
        .buffered(PARALLEL);
    let mut code = 0;
    while let Some((name, result)) = results.next().await {
        match result {
            Ok(()) => out::line(name)?,
            Err(error) => {
                let failure = error.downcast_ref::<Failure>().map(|failure| failure.code);
                if failure.is_none() || failure == Some(1) {
                    out::note(describe(&error));
                }
                code = code.max(failure.unwrap_or(1));
            }
        }
    }
    Ok(code)
}

/// Asks before something is lost; without an answer it is no.
fn confirm(warning: &str) -> anyhow::Result<bool> {
    out::text(&format!(
        "{warning}\nAre you sure you want to continue? [y/N] "
    ))?;
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .context("cannot read the answer: use --force to go without")?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

fn show_pruned(title: &str, names: &[String]) -> std::io::Result<()> {
    if names.is_empty() {
        Ok(())
    } else {
        out::line(format!("{title}\n{}\n", names.join("\n")))
    }
}

fn show_reclaimed(bytes: u64) -> std::io::Result<()> {
    out::line(format!(
        "Total reclaimed space: {}",
        human_size(i64::try_from(bytes).unwrap_or(i64::MAX))
    ))
}

/// A time as Go prints it: `2026-11-22 02:16:08 +0000 UTC`, in the local zone.
fn created_at(seconds: i64) -> String {
    let Ok(at) = Timestamp::from_second(seconds) else {
        return "N/A".to_owned();
    };
    at.to_zoned(jiff::tz::TimeZone::system())
        .strftime("%Y-%m-%d %H:%M:%S %z %Z")
        .to_string()
}

/// `5 minutes ago`
fn ago(seconds: i64, now: Timestamp) -> String {
    format!("{} ago", human_duration(now.as_second() - seconds))
}

/// `a=1,b=2`, sorted.
fn join_labels(labels: &Labels) -> String {
    let mut pairs: Vec<_> = labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.sort_unstable();
    pairs.join(",")
}

/// Orders names as people do: `web.2` before `web.10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while let (Some(x), Some(y)) = (a.first(), b.first()) {
        if x.is_ascii_digit() && y.is_ascii_digit() {
            let (first, rest_a) = digits(a);
            let (second, rest_b) = digits(b);
            let order = first
                .len()
                .cmp(&second.len())
                .then_with(|| first.cmp(second));
            if order.is_ne() {
                return order;
            }
            (a, b) = (rest_a, rest_b);
        } else if x == y {
            (a, b) = (&a[1..], &b[1..]);
        } else {
            return x.cmp(y);
        }
    }
    a.len().cmp(&b.len())
}

/// A number without its leading zeros, and what follows it.
fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let zeros = number.iter().take_while(|byte| **byte == b'0').count();
    (&number[zeros..], rest)
}

#[cfg(test)]
mod tests {
    use super::natural;

    #[test]
    fn numbers_in_names_count() {
        let mut names = ["web.10", "web.2", "api", "web", "web.02a", "web.1"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["api", "web", "web.1", "web.2", "web.02a", "web.10"]);
    }
}
