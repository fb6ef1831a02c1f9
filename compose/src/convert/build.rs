//! `build` of a service as the build it describes. Source: docker/compose `pkg/compose/{build,build_bake}.go`.
//!
//! Must not: open contexts or read secrets; whoever runs the build does.

use agent_api::Ulimit;
use agent_api::build::{BuildRequest, Entitlement};
use agent_api::client::build::{
    BuildSpec, CacheDestination, CacheSource, DockerfilePlace, SecretSpec, SpecError, SshSpec,
    image_context, is_remote,
};
use compose_model::{Build, Project, ServiceConfig};
use indexmap::IndexMap;
use std::path::Path;

use super::host::extra_hosts;
use crate::labels;

/// A context that is another service's image.
const SERVICE: &str = "service:";

/// The build of one service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceBuild {
    /// Service.
    pub service: String,
    /// Name of the image, as the project uses it.
    pub image: String,
    /// The build.
    pub spec: BuildSpec,
    /// Contexts that are images of other services: context → service.
    pub from_services: IndexMap<String, String>,
}

/// The build of a service; `None` when it has none.
///
/// # Errors
/// What its `build` asks for and is not supported, or does not refer to anything.
pub fn service_build(project: &Project, name: &str) -> Option<Result<ServiceBuild, String>> {
    let service = project.any_service(name)?;
    let build = service.build.as_ref()?;
    Some(convert(project, name, service, build))
}

fn convert(
    project: &Project,
    name: &str,
    service: &ServiceConfig,
    build: &Build,
) -> Result<ServiceBuild, String> {
    refuse(build)?;
    let mut named_contexts = IndexMap::new();
    let mut from_services = IndexMap::new();
    for (context, place) in &build.additional_contexts {
        let Some(other) = place.strip_prefix(SERVICE) else {
            named_contexts.insert(context.clone(), place.clone());
            continue;
        };
        let found = project.any_service(other).ok_or_else(|| {
            format!("build.additional_contexts: {context}: there is no service {other}")
        })?;
        let image = found.image_or_default(&project.name, other);
        named_contexts.insert(context.clone(), image_context(&image));
        if found.build.is_some() {
            from_services.insert(context.clone(), other.to_owned());
        }
    }
    let image = service.image_or_default(&project.name, name);
    let context = build.context.clone().unwrap_or_else(|| ".".to_owned());
    let said = |error: SpecError| format!("build: {error}");
    let spec = BuildSpec {
        dockerfile: dockerfile(build, &context),
        context,
        named_contexts,
        secrets: secrets(project, build)?,
        ssh: ssh(build),
        outputs: Vec::new(),
        cache_from: each(&build.cache_from, CacheSource::parse).map_err(said)?,
        cache_to: each(&build.cache_to, CacheDestination::parse).map_err(said)?,
        settled: false,
        request: request(project, name, service, build, &image)?,
    };
    Ok(ServiceBuild {
        service: name.to_owned(),
        image,
        spec,
        from_services,
    })
}

fn refuse(build: &Build) -> Result<(), String> {
    if let Some(isolation) = build
        .isolation
        .as_deref()
        .filter(|value| *value != "default")
    {
        return Err(format!(
            "build.isolation {isolation} is not supported: remove it"
        ));
    }
    for (attribute, value) in [("provenance", &build.provenance), ("sbom", &build.sbom)] {
        if let Some(value) = value
            .as_ref()
            .map(|value| value.0.as_str())
            .filter(|value| *value != "false")
        {
            return Err(format!(
                "build.{attribute} {value} is not supported: images are not attested, write false"
            ));
        }
    }
    Ok(())
}

fn dockerfile(build: &Build, context: &str) -> DockerfilePlace {
    match (&build.dockerfile_inline, &build.dockerfile) {
        (Some(text), _) => DockerfilePlace::Inline(text.clone()),
        (None, None) => DockerfilePlace::Default,
        (None, Some(path)) if is_remote(context) => DockerfilePlace::Path(path.into()),
        (None, Some(path)) if path == "Dockerfile" => DockerfilePlace::Default,
        (None, Some(path)) => DockerfilePlace::Path(Path::new(context).join(path)),
    }
}

/// Secrets of the project under the name the build knows them by.
fn secrets(project: &Project, build: &Build) -> Result<Vec<SecretSpec>, String> {
    let spec = |reference: &compose_model::FileReference| {
        let secret = project
            .secrets
            .get(&reference.source)
            .ok_or_else(|| format!("build.secrets: there is no secret {}", reference.source))?;
        let id = reference
            .target
            .clone()
            .unwrap_or_else(|| reference.source.clone());
        match (&secret.file, &secret.environment) {
            (Some(file), _) => Ok(SecretSpec {
                id,
                src: Some(file.into()),
                env: None,
            }),
            (None, Some(variable)) => Ok(SecretSpec {
                id,
                src: None,
                env: Some(variable.clone()),
            }),
            (None, None) => Err(format!(
                "build.secrets: secret {} is neither a file nor from the environment",
                reference.source
            )),
        }
    };
    build.secrets.iter().map(spec).collect()
}

fn ssh(build: &Build) -> Vec<SshSpec> {
    let spec = |(id, path): (&String, &Option<String>)| SshSpec {
        id: id.clone(),
        paths: path.iter().map(Into::into).collect(),
    };
    build.ssh.0.iter().map(spec).collect()
}

fn request(
    project: &Project,
    name: &str,
    service: &ServiceConfig,
    build: &Build,
    image: &str,
) -> Result<BuildRequest, String> {
    let mut allow = Vec::new();
    if build.privileged {
        allow.push(Entitlement::SecurityInsecure);
    }
    for entitlement in &build.entitlements {
        allow.push(match entitlement.as_str() {
            "network.host" => Entitlement::NetworkHost,
            "security.insecure" => Entitlement::SecurityInsecure,
            other => return Err(format!("build.entitlements: {other} is not supported")),
        });
    }
    let network = build.network.clone().unwrap_or_default();
    if network == "host" {
        allow.push(Entitlement::NetworkHost);
    }
    let mut labels: IndexMap<String, String> = build.labels.clone().into_iter().collect();
    for (label, value) in [
        (labels::PROJECT, project.name.as_str()),
        (labels::SERVICE, name),
        (labels::VERSION, labels::VERSION_VALUE),
    ] {
        labels.insert(label.to_owned(), value.to_owned());
    }
    let args = build
        .args
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), value.clone()?)));
    let platforms = match (&build.platforms[..], &service.platform) {
        ([], Some(platform)) => vec![platform.clone()],
        (platforms, _) => platforms.to_vec(),
    };
    let ulimit = |(name, limit): (&String, &compose_model::Ulimit)| Ulimit {
        name: name.clone(),
        hard: limit.hard,
        soft: limit.soft,
    };
    let mut tags = vec![image.to_owned()];
    tags.extend(build.tags.iter().filter(|tag| *tag != image).cloned());
    Ok(BuildRequest {
        build_args: args.collect(),
        labels,
        target: build.target.clone().unwrap_or_default(),
        platforms,
        tags,
        no_cache: build.no_cache,
        no_cache_filter: build.no_cache_filter.clone(),
        pull: build.pull,
        network,
        add_hosts: extra_hosts(&build.extra_hosts),
        shm_size: build.shm_size.map_or(0, |size| size.0),
        ulimits: build.ulimits.iter().map(ulimit).collect(),
        allow,
        ..BuildRequest::default()
    })
}

fn each<T>(
    texts: &[String],
    parse: impl Fn(&str) -> Result<T, SpecError>,
) -> Result<Vec<T>, SpecError> {
    texts.iter().map(|text| parse(text)).collect()
}
