//! Targets as builds. Source: buildx `bake/bake.go:toBuildOpt`.

use super::super::job::{Job, call};
use super::super::options::{add_hosts, add_source_date, check_attestations, entitlements};
use super::resolve::Resolved;
use super::target::{Entry, Target, Text};
use crate::flags::devices;
use crate::render::units::ram_in_bytes;
use agent_api::build::BuildRequest;
use agent_api::client::build::{
    BuildSpec, CacheDestination, CacheSource, DockerfilePlace, OutputSpec, OutputTarget,
    SecretSpec, SpecError, SshSpec, is_remote,
};
use indexmap::IndexMap;
use std::path::Path;

/// What a job is called that only makes an image of a target for others to build on.
const FOR_OTHERS: &str = "#image";

/// A job for each target, and one more for targets that others build on but whose output is no image.
pub(super) fn jobs(resolved: &Resolved, here: &Path) -> Result<Vec<Job>, String> {
    let mut jobs = Vec::new();
    let mut hidden: Vec<String> = Vec::new();
    for (name, target) in &resolved.targets {
        let mut job =
            job(name, target, here).map_err(|reason| format!("target {name}: {reason}"))?;
        if !resolved.wanted.contains(name) {
            job = for_others(job);
        }
        jobs.push(job);
    }
    let has_image = |job: &Job| {
        let outputs = &job.spec.outputs;
        outputs.is_empty()
            || outputs
                .iter()
                .any(|output| matches!(output.target, OutputTarget::Image(_)))
    };
    let imageless: Vec<String> = jobs
        .iter()
        .filter(|job| !has_image(job))
        .map(|job| job.name.clone())
        .collect();
    for job in &mut jobs {
        for needs in job.from_jobs.values_mut() {
            if imageless.contains(needs) {
                if !hidden.contains(needs) {
                    hidden.push(needs.clone());
                }
                needs.push_str(FOR_OTHERS);
            }
        }
    }
    for name in hidden {
        if let Some(job) = jobs.iter().find(|job| job.name == name) {
            let mut image = for_others(job.clone());
            image.name.push_str(FOR_OTHERS);
            jobs.push(image);
        }
    }
    Ok(jobs)
}

/// Without a name, and without any output but an image.
fn for_others(mut job: Job) -> Job {
    job.spec.outputs = vec![OutputSpec::store()];
    job.spec.cache_to.clear();
    job.spec.request.tags.clear();
    job
}

fn job(name: &str, target: &Target, here: &Path) -> Result<Job, String> {
    let (asked, answer) = call(target.call.as_ref().map_or("", |call| &call.0))?;
    let attest: Vec<String> = target
        .attest
        .iter()
        .flatten()
        .map(|entry| entry.0.clone())
        .collect();
    check_attestations(&attest, None, None)?;
    let context = target
        .context
        .as_ref()
        .map_or(".", |context| context.0.as_str());
    let context = context.strip_prefix("cwd://").unwrap_or(context);
    let context = if context.is_empty() { "." } else { context };
    if context == "-" {
        return Err("standard input cannot be the context of a target".to_owned());
    }
    let mut from_jobs = IndexMap::new();
    let mut named_contexts = IndexMap::new();
    for (context, place) in target.contexts.iter().flatten() {
        match place.0.strip_prefix("target:") {
            Some(other) => from_jobs.insert(context.clone(), other.to_owned()),
            None => {
                let place = place.0.strip_prefix("cwd://").unwrap_or(&place.0);
                named_contexts.insert(context.clone(), place.to_owned())
            }
        };
    }
    let spec = BuildSpec {
        context: context.to_owned(),
        dockerfile: dockerfile(target, context, here),
        named_contexts,
        secrets: each(&target.secret, SecretSpec::parse)?,
        ssh: each(&target.ssh, SshSpec::parse)?,
        outputs: each(&target.output, OutputSpec::parse)?,
        cache_from: each(&target.cache_from, CacheSource::parse)?,
        cache_to: each(&target.cache_to, CacheDestination::parse)?,
        settled: false,
        request: BuildRequest {
            call: asked,
            ..request(target)?
        },
    };
    Ok(Job {
        name: name.to_owned(),
        spec,
        from_jobs,
        answer,
    })
}

fn request(target: &Target) -> Result<BuildRequest, String> {
    let network = text(&target.network);
    let mut build_args: IndexMap<String, String> = IndexMap::new();
    for (name, value) in target.args.iter().flatten() {
        // Without a value it is the caller's, if there is one.
        let value = value
            .clone()
            .map(|value| value.0)
            .or_else(|| std::env::var(name).ok());
        build_args.extend(value.map(|value| (name.clone(), value)));
    }
    add_source_date(&mut build_args);
    let value = |value: &Option<Text>| value.clone().unwrap_or_default().0;
    let labels = target.labels.iter().flatten();
    let hosts: Vec<String> = target
        .extra_hosts
        .iter()
        .flatten()
        .map(|(host, address)| format!("{host}={}", value(address)))
        .collect();
    let shm_size = match &target.shm_size {
        None => 0,
        Some(size) => {
            ram_in_bytes(&size.0).ok_or_else(|| format!("invalid shm-size {:?}", size.0))?
        }
    };
    let ulimits = target
        .ulimits
        .iter()
        .flatten()
        .map(|limit| devices::ulimit(&limit.0));
    let mut annotations = IndexMap::new();
    for annotation in target.annotations.iter().flatten() {
        let (key, value) = annotation
            .0
            .split_once('=')
            .ok_or_else(|| format!("invalid annotation {:?}: write key=value", annotation.0))?;
        annotations.insert(key.to_owned(), value.to_owned());
    }
    Ok(BuildRequest {
        build_args,
        labels: labels
            .map(|(name, label)| (name.clone(), value(label)))
            .collect(),
        annotations,
        target: text(&target.target),
        platforms: texts(&target.platforms),
        tags: texts(&target.tags),
        no_cache: target.no_cache.unwrap_or(false),
        no_cache_filter: texts(&target.no_cache_filter),
        pull: target.pull.unwrap_or(false),
        allow: entitlements(&texts(&target.entitlements), &network)?,
        network,
        add_hosts: add_hosts(&hosts)?,
        shm_size,
        ulimits: ulimits.collect::<Result<_, _>>()?,
        ..BuildRequest::default()
    })
}

/// A target's Dockerfile is relative to its context.
fn dockerfile(target: &Target, context: &str, here: &Path) -> DockerfilePlace {
    if let Some(text) = &target.dockerfile_inline {
        return DockerfilePlace::Inline(text.0.clone());
    }
    let path = target
        .dockerfile
        .as_ref()
        .map_or("Dockerfile", |path| &path.0);
    match (path.strip_prefix("cwd://"), is_remote(context)) {
        (Some(path), _) => DockerfilePlace::Path(here.join(path)),
        (None, false) if path == "Dockerfile" => DockerfilePlace::Default,
        (None, false) => DockerfilePlace::Path(Path::new(context).join(path)),
        (None, true) => DockerfilePlace::Path(path.into()),
    }
}

fn text(value: &Option<Text>) -> String {
    value.clone().unwrap_or_default().0
}

fn texts(values: &Option<Vec<Text>>) -> Vec<String> {
    values
        .iter()
        .flatten()
        .map(|value| value.0.clone())
        .collect()
}

fn each<T>(
    entries: &Option<Vec<Entry>>,
    parse: impl Fn(&str) -> Result<T, SpecError>,
) -> Result<Vec<T>, String> {
    let parsed = entries
        .iter()
        .flatten()
        .map(|entry| parse(&entry.0).map_err(|error| error.to_string()));
    parsed.collect()
}
