//! `compose pull` and `push`: the images of services, several at once, each of them once.
//! Source: docker/compose `cmd/compose/{pull,push}.go`, `pkg/compose/{pull,push}.go`.

use super::fetch::{Fetch, Fetched, Pull, follow};
use super::perform::{self, progress};
use super::project::ProjectFlags;
use crate::connect::Session;
use crate::failure::{Outcome, describe};
use crate::out;
use crate::render::transfers::{Standing, Transfers};
use crate::verbs::pull::{auth, split, split_tag};
use agent_api::Client;
use clap::Args;
use compose_model::{Project, PullPolicy, ServiceConfig};
use futures_util::StreamExt as _;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// Pull service images
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster compose pull
  muster compose pull --policy missing --include-deps web
  muster compose pull --ignore-buildable")]
pub(crate) struct PullArgs {
    /// Ignore images that can be built
    #[arg(long)]
    ignore_buildable: bool,
    /// Pull what it can and ignores images with pull failures
    #[arg(long)]
    ignore_pull_failures: bool,
    /// Also pull services declared as dependencies
    #[arg(long)]
    include_deps: bool,
    /// Apply pull policy ("missing"|"always") in place of the services' own
    #[arg(long, value_parser = ["missing", "always"])]
    policy: Option<String>,
    /// Pull without printing progress information
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Push service images
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster compose push
  muster compose push --include-deps web")]
pub(crate) struct PushArgs {
    /// Push what it can and ignores images with push failures
    #[arg(long)]
    ignore_push_failures: bool,
    /// Also push images of services declared as dependencies
    #[arg(long)]
    include_deps: bool,
    /// Push without printing progress information
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// What becomes of one service's image.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Choice {
    Skip(String),
    Pull(Pull),
}

pub(super) async fn pull(session: &Session, flags: &ProjectFlags, args: PullArgs) -> Outcome {
    let loaded = flags.load(&args.services, !args.include_deps)?;
    let project = &loaded.project;
    let client = session.client().await?;
    let there = there(client, project, &args).await;
    let platform = std::env::var("DOCKER_DEFAULT_PLATFORM").ok();
    let choices = choose(project, &args, &there, platform.as_deref());
    if flags.dry_run {
        for (service, choice) in &choices {
            match choice {
                Choice::Skip(reason) => out::line(format!("skip {service}: {reason}"))?,
                Choice::Pull(pull) => {
                    out::line(format!("pull image {} for {service}", pull.image))?
                }
            }
        }
        return Ok(0);
    }
    let display = RefCell::new(Transfers::like(&progress(flags)));
    let mut pulls = Vec::new();
    for (service, choice) in choices {
        match choice {
            Choice::Skip(reason) => {
                let text = match reason.as_str() {
                    "" => "Skipped".to_owned(),
                    reason => format!("Skipped - {reason}"),
                };
                display
                    .borrow_mut()
                    .say(&service, Standing::Done, &text, "");
            }
            Choice::Pull(pull) => pulls.push((service, pull)),
        }
    }
    let fetch = Fetch {
        client,
        parallel: perform::options(flags, None).parallel,
        quiet: args.quiet,
        display: &display,
    };
    let Fetched {
        failures,
        must_build,
    } = fetch.all(&pulls, args.ignore_pull_failures).await;
    drop(display);
    if !must_build.is_empty() {
        out::note(format!(
            "WARNING: Some service image(s) must be built from source by running:\n    muster compose build {}",
            must_build.join(" ")
        ));
    }
    ended(failures, args.ignore_pull_failures)
}

/// The first failure is the command's, the others are said before it.
fn ended(mut failures: Vec<anyhow::Error>, ignored: bool) -> Outcome {
    let Some(last) = failures.pop().filter(|_| !ignored) else {
        return Ok(0);
    };
    for failure in &failures {
        out::note(describe(failure));
    }
    Err(last)
}

/// Images of the project that need not be fetched, as far as that matters.
async fn there(client: &Client, project: &Project, args: &PullArgs) -> BTreeSet<String> {
    let mut there = BTreeSet::new();
    for service in project.services.values() {
        if let Some(image) = &service.image
            && policy(service, args) == Some(PullPolicy::Missing)
            && client.inspect_image(image).await.is_ok()
        {
            there.insert(image.clone());
        }
    }
    there
}

/// The policy that counts: the flag's before the service's.
fn policy(service: &ServiceConfig, args: &PullArgs) -> Option<PullPolicy> {
    match args.policy.as_deref() {
        Some("missing") => Some(PullPolicy::Missing),
        Some(_) => Some(PullPolicy::Always),
        None => service.pull_policy.clone(),
    }
}

/// Decides for every service; an image that several have is fetched for the first.
fn choose(
    project: &Project,
    args: &PullArgs,
    there: &BTreeSet<String>,
    default_platform: Option<&str>,
) -> Vec<(String, Choice)> {
    let mut taken: BTreeMap<(&str, Option<&str>), &str> = BTreeMap::new();
    let mut choices = Vec::new();
    for (name, service) in &project.services {
        let platform = service.platform.as_deref().or(default_platform);
        let choice = choose_one(service, args, there, platform, &mut taken, name);
        choices.push((name.clone(), choice));
    }
    choices
}

fn choose_one<'a>(
    service: &'a ServiceConfig,
    args: &PullArgs,
    there: &BTreeSet<String>,
    platform: Option<&'a str>,
    taken: &mut BTreeMap<(&'a str, Option<&'a str>), &'a str>,
    name: &'a str,
) -> Choice {
    let skip = |reason: &str| Choice::Skip(reason.to_owned());
    // Without a name of its own an image is nowhere but here.
    let Some(image) = &service.image else {
        return skip("No image to be pulled");
    };
    match policy(service, args) {
        Some(PullPolicy::Never | PullPolicy::Build) => return skip(""),
        // What "latest" means may have changed.
        Some(PullPolicy::Missing) if there.contains(image) && split(image).1 != "latest" => {
            return skip("Image is already present locally");
        }
        _ => {}
    }
    if service.build.is_some() && args.ignore_buildable {
        return skip("Image can be built");
    }
    if let Some(other) = taken.get(&(image.as_str(), platform)) {
        return Choice::Skip(format!("Image is already being pulled by {other}"));
    }
    taken.insert((image, platform), name);
    Choice::Pull(Pull {
        image: image.clone(),
        platform: platform.map(str::to_owned),
        buildable: service.build.is_some(),
    })
}

pub(super) async fn push(session: &Session, flags: &ProjectFlags, args: PushArgs) -> Outcome {
    let loaded = flags.load(&args.services, !args.include_deps)?;
    let display = RefCell::new(Transfers::like(&progress(flags)));
    let mut pushes: Vec<(&String, &String)> = Vec::new();
    for (name, service) in &loaded.project.services {
        // As Docker Compose: only what is built here is pushed, under the names the file gives it.
        let (Some(build), Some(image)) = (&service.build, &service.image) else {
            if !flags.dry_run {
                display
                    .borrow_mut()
                    .say(name, Standing::Done, "Skipped", "");
            }
            continue;
        };
        for image in std::iter::once(image).chain(&build.tags) {
            if !pushes.iter().any(|(_, other)| *other == image) {
                pushes.push((name, image));
            }
        }
    }
    if flags.dry_run {
        for (name, image) in pushes {
            out::line(format!("push image {image} for {name}"))?;
        }
        return Ok(0);
    }
    let client = session.client().await?;
    let parallel = perform::options(flags, None).parallel;
    let mut work = futures_util::stream::iter(pushes)
        .map(|(service, image)| {
            let display = &display;
            async move {
                let done = send(client, image, args.quiet, display).await;
                (service, image, done)
            }
        })
        .buffer_unordered(parallel.max(1));
    let mut failures = Vec::new();
    while let Some((service, image, done)) = work.next().await {
        let mut display = display.borrow_mut();
        match done {
            Ok(()) => display.say(image, Standing::Done, "Pushed", ""),
            Err(error) => {
                display.say(image, Standing::Error, "Error", &format!("{error:#}"));
                failures.push(error.context(format!("pushing {image} for {service}")));
                if !args.ignore_push_failures {
                    break;
                }
            }
        }
    }
    drop(work);
    drop(display);
    ended(failures, args.ignore_push_failures)
}

async fn send(
    client: &Client,
    image: &str,
    quiet: bool,
    display: &RefCell<Transfers>,
) -> anyhow::Result<()> {
    display
        .borrow_mut()
        .say(image, Standing::Working, "Pushing", "");
    let (repository, tag) = split_tag(image);
    let auth = auth(image).await?;
    let tag = tag.unwrap_or("latest");
    let messages = client
        .push_image(repository, tag, None, auth.as_ref())
        .await?;
    follow(messages, image, quiet, display).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use compose_model::LoadOptions;

    const FILE: &str = "
services:
  a: {image: 'busybox:1', pull_policy: missing}
  a2: {image: 'busybox:1'}
  arm: {image: 'busybox:1', platform: linux/arm64}
  b: {image: 'host/b:1'}
  c: {build: ., image: 'host/c:1', depends_on: [b]}
  d: {build: .}
  e: {image: 'host/never', pull_policy: never}
  f: {image: 'host/f', pull_policy: build, build: .}
  g: {image: 'host/g', pull_policy: missing}
";

    fn args() -> PullArgs {
        PullArgs {
            ignore_buildable: false,
            ignore_pull_failures: false,
            include_deps: false,
            policy: None,
            quiet: false,
            services: Vec::new(),
        }
    }

    /// What is decided for each service, in short.
    fn chosen(args: &PullArgs, there: &[&str]) -> Vec<String> {
        let options = LoadOptions {
            files: vec!["-".into()],
            stdin: Some(FILE.to_owned()),
            current_dir: "/".into(),
            project_name: Some("x".to_owned()),
            ..LoadOptions::default()
        };
        let loaded = compose_model::load(&options).unwrap();
        let there = there.iter().map(|name| (*name).to_owned()).collect();
        let text = |(name, choice): (String, Choice)| match choice {
            Choice::Skip(reason) => format!("{name}: {reason}"),
            Choice::Pull(pull) => {
                let or_built = if pull.buildable { " or build" } else { "" };
                format!("{name} <- {}{or_built}", pull.image)
            }
        };
        let choices = choose(&loaded.project, args, &there, None);
        choices.into_iter().map(text).collect()
    }

    #[test]
    fn every_image_is_pulled_once_for_the_services_that_want_it() {
        assert_eq!(
            chosen(&args(), &["host/g"]),
            [
                "a <- busybox:1",
                "a2: Image is already being pulled by a",
                "arm <- busybox:1",
                "b <- host/b:1",
                "c <- host/c:1 or build",
                "d: No image to be pulled",
                "e: ",
                "f: ",
                // Present, but nobody knows whether it is the latest.
                "g <- host/g",
            ]
        );
    }

    #[test]
    fn flags_go_before_the_policies_of_services() {
        let missing = PullArgs {
            policy: Some("missing".to_owned()),
            ignore_buildable: true,
            ..args()
        };
        let chosen = chosen(&missing, &["busybox:1", "host/b:1"]);
        for line in [
            "a: Image is already present locally",
            "b: Image is already present locally",
            "c: Image can be built",
            "e <- host/never",
            "f: Image can be built",
        ] {
            assert!(
                chosen.iter().any(|other| other == line),
                "{line}: {chosen:?}"
            );
        }
    }
}
