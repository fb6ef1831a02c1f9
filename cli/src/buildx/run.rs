//! Does builds: all that are ready at the same time, with one picture of their progress.

use super::backlog::Backlog;
use super::job::{Job, Opened, check_order};
use crate::failure::Failure;
use crate::out;
use crate::render::build_progress::{BuildProgress, failure};
use agent_api::Client;
use agent_api::build::{BuildResult, FailureKind};
use agent_api::client::RemoveImageOptions;
use agent_api::client::build::{BuildError, Logins};
use agent_api::client::credentials::ConfigFile;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use indexmap::IndexMap;
use std::time::Duration;

/// How often the picture is drawn again.
const TICK: Duration = Duration::from_millis(100);

/// Time for removing images that nobody asked for.
const REMOVAL: Duration = Duration::from_secs(10);

/// Results by the jobs' names.
pub(crate) type Results = IndexMap<String, BuildResult>;

/// Does all jobs. The first that fails ends the others; `results` has what was built, also then.
pub(crate) async fn run(
    client: &Client,
    jobs: Vec<Job>,
    progress: &mut BuildProgress,
    results: &mut Results,
) -> anyhow::Result<()> {
    check_order(&jobs).map_err(|reason| Failure::new(1, format!("failed to build: {reason}")))?;
    let several = jobs.len() > 1;
    let news = Backlog::default();
    let logins = logins();
    // Everything is opened before anything is built: a mistake is told at once, and no build changes what another reads.
    let mut opened = Vec::new();
    for job in jobs {
        opened.push(
            job.open()
                .map_err(|error| Failure::new(1, format!("failed to build: {error}")))?,
        );
    }
    let mut tick = tokio::time::interval(TICK);
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let built = {
        let work = build_all(client, opened, several, logins.as_ref(), &news, results);
        tokio::pin!(work);
        loop {
            tokio::select! {
                built = &mut work => break built,
                (prefix, status) = news.next() => progress.update(status, &prefix),
                _ = tick.tick(), if progress.is_live() => progress.tick(),
                _ = &mut interrupted => break Err(cancelled()),
            }
        }
    };
    while let Some((prefix, status)) = news.try_next() {
        progress.update(status, &prefix);
    }
    if built.is_err() {
        progress.cancel();
    }
    progress.end();
    for error in logins.iter().flat_map(Logins::failures) {
        out::note(format!(
            "WARNING: went on without credentials of a registry: {error}"
        ));
    }
    built
}

fn cancelled() -> anyhow::Error {
    Failure::new(
        130,
        "failed to build: failed to solve: Canceled: context canceled",
    )
    .into()
}

async fn build_all(
    client: &Client,
    mut waiting: Vec<Opened>,
    several: bool,
    logins: Option<&Logins>,
    news: &Backlog,
    results: &mut Results,
) -> anyhow::Result<()> {
    let order: Vec<String> = waiting.iter().map(|job| job.name.clone()).collect();
    let mut images = IndexMap::new();
    let mut running = FuturesUnordered::new();
    loop {
        let (ready, rest): (Vec<Opened>, Vec<Opened>) =
            waiting.into_iter().partition(|job| job.is_ready(&images));
        waiting = rest;
        for mut job in ready {
            job.resolve(&images);
            running.push(build(client, job, several, logins, news));
        }
        let Some(built) = running.next().await else {
            break;
        };
        let (name, result) = built?;
        images.insert(name.clone(), result.image_id.clone());
        results.insert(name, result);
    }
    results.sort_by_key(|name, _| order.iter().position(|other| other == name));
    Ok(())
}

async fn build(
    client: &Client,
    job: Opened,
    several: bool,
    logins: Option<&Logins>,
    news: &Backlog,
) -> anyhow::Result<(String, BuildResult)> {
    let Opened {
        name,
        mut request,
        mut offers,
        ..
    } = job;
    let prefix = if several { name.clone() } else { String::new() };
    if let Some(logins) = logins {
        request.ask_credentials = true;
        offers.logins(logins.clone());
    }
    let built = client.build(&request, offers, |status| news.push(&prefix, status));
    match built.await {
        Ok(result) => Ok((name, result)),
        Err(BuildError::Failed(failed)) => {
            let text = failure::render(&failed);
            let code = if failed.kind == FailureKind::Cancelled {
                130
            } else {
                1
            };
            Err(Failed { text, code }.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Where the user has logged in. Not being able to read it fails the pulls that need it, not the build.
fn logins() -> Option<Logins> {
    match ConfigFile::load() {
        Ok(config) => Some(Logins::new(config)),
        Err(error) => {
            out::note(format!(
                "WARNING: going on without credentials of registries: {error}"
            ));
            None
        }
    }
}

/// A build that failed, with the lines it is about; shown as it is, after the progress.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Failed {
    text: String,
    code: u8,
}

/// Says why builds failed in the words of BuildKit; other errors pass.
pub(crate) fn explain(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Failed>() {
        Ok(failed) => {
            out::note(&failed.text);
            Failure::silent(failed.code).into()
        }
        Err(error) => match error.downcast::<BuildError>() {
            Ok(BuildError::Client(error)) => error.into(),
            Ok(error) => Failure::new(1, format!("failed to build: {error}")).into(),
            Err(error) => error,
        },
    }
}

/// Takes away images that were only built for others; what remains of them is the build cache. Also after a build that
/// failed or was interrupted, when it must not hold the user up.
pub(crate) async fn remove_intermediate(client: &Client, results: &Results, wanted: &[String]) {
    let removal = remove_all_intermediate(client, results, wanted);
    if tokio::time::timeout(REMOVAL, removal).await.is_err() {
        tracing::debug!("intermediate images stay: the daemon takes too long to remove them");
    }
}

async fn remove_all_intermediate(client: &Client, results: &Results, wanted: &[String]) {
    let kept: Vec<&str> = wanted
        .iter()
        .filter_map(|name| results.get(name))
        .map(|result| result.image_id.as_str())
        .collect();
    for (name, result) in results {
        let id = result.image_id.as_str();
        if wanted.contains(name) || id.is_empty() || !result.names.is_empty() || kept.contains(&id)
        {
            continue;
        }
        // The same image may have a name from elsewhere, which its id would take away with it.
        let nameless = client
            .inspect_image(id)
            .await
            .is_ok_and(|image| image.repo_tags.is_empty());
        if !nameless {
            continue;
        }
        let options = RemoveImageOptions::default();
        if let Err(error) = client.remove_image(id, &options).await {
            tracing::debug!(%error, image = id, "an intermediate image stays");
        }
    }
}
