//! `/services`. What older clients could not have meant is taken out of their specs here (moby
//! `server/router/swarm/helpers.go`).

use agent_api::swarm::{PullOptions, ServiceCreateResponse, ServiceSpec, ServiceUpdateResponse};
use cluster::control::view::{self, Detail};
use cluster::control::{RegistryAuth, Request};
use http::StatusCode;

use super::cluster_logs::{self, Source};
use super::error::HttpError;
use super::router::{ApiVersion, Route, delete, get, post};
use super::{Call, Outcome, body};
use crate::engine::random_name;
use crate::error::Error;

pub(super) const ROUTES: &[Route] = &[
    get("/services", |call| Box::pin(list(call))),
    post("/services/create", |call| Box::pin(create(call))),
    post("/services/{}/update", |call| Box::pin(update(call))),
    get("/services/{}/logs", |call| {
        Box::pin(cluster_logs::logs(call, Source::Service))
    }),
    get("/services/{}", |call| Box::pin(inspect(call))),
    delete("/services/{}", |call| Box::pin(remove(call))),
];

async fn list(call: Call) -> Outcome {
    let filters = call.query.filters()?;
    // Told since API 1.41.
    let detail = if !call.version.before(41) && call.boolean("status")? {
        Detail::Status
    } else {
        Detail::Plain
    };
    let services = call
        .swarm
        .read(move |store, _| view::services(store, &filters, detail))
        .await?
        .map_err(Error::from)?;
    Ok(body::ok(&services))
}

async fn inspect(call: Call) -> Outcome {
    let detail = if call.boolean("insertDefaults")? {
        Detail::Defaults
    } else {
        Detail::Plain
    };
    let name = call.name;
    let service = call
        .swarm
        .read(move |store, _| view::service(store, &name, detail))
        .await?
        .map_err(Error::from)?;
    Ok(body::ok(&service))
}

async fn create(mut call: Call) -> Outcome {
    let mut spec: ServiceSpec = call.json().await?;
    call.swarm.is_manager()?;
    adjust(call.version, &mut spec);
    if spec.annotations.name.is_empty() {
        spec.annotations.name = random_name(|_| false);
    }
    let warnings = unresolved(call.version, &spec);
    let targets = network_targets(&spec);
    let request = Request::ServiceCreate {
        spec: Box::new(spec),
        auth: registry_auth(&call),
    };
    match call.create(request).await {
        Ok(id) => Ok(body::json(
            StatusCode::CREATED,
            &ServiceCreateResponse { id, warnings },
        )),
        Err(refused) => Err(explain(&call, refused, &targets).await),
    }
}

async fn update(mut call: Call) -> Outcome {
    let mut spec: ServiceSpec = call.json().await?;
    let version = call.object_version("service")?;
    adjust(call.version, &mut spec);
    let warnings = unresolved(call.version, &spec);
    let targets = network_targets(&spec);
    let auth = match (registry_auth(&call), call.query.text("registryAuthFrom")) {
        (Some(given), _) => RegistryAuth::Given(given),
        (None, "" | "spec") => RegistryAuth::Spec,
        (None, "previous-spec") => RegistryAuth::PreviousSpec,
        (None, _) => {
            return Err(HttpError::bad_request("unsupported registryAuthFrom value"));
        }
    };
    let service = call.name.clone();
    let request = match call.query.text("rollback") {
        "" | "none" => Request::ServiceUpdate {
            service,
            version,
            spec: Box::new(spec),
            auth,
        },
        "previous" => Request::ServiceRollback { service, version },
        other => {
            return Err(HttpError::bad_request(format!(
                "unrecognized rollback option {other}"
            )));
        }
    };
    match call.change(request).await {
        Ok(()) => Ok(body::ok(&ServiceUpdateResponse { warnings })),
        Err(refused) => Err(explain(&call, refused, &targets).await),
    }
}

async fn remove(call: Call) -> Outcome {
    let service = call.name.clone();
    call.change(Request::ServiceRemove { service }).await?;
    Ok(body::empty(StatusCode::OK))
}

fn registry_auth(call: &Call) -> Option<PullOptions> {
    let header = call.headers.get("x-registry-auth")?.to_str().ok()?;
    (!header.is_empty()).then(|| PullOptions {
        registry_auth: header.to_owned(),
    })
}

/// Before API 1.30 clients left it to the managers to pin the image by its digest; managers ask no registry.
fn unresolved(version: ApiVersion, spec: &ServiceSpec) -> Vec<String> {
    let image = spec
        .task_template
        .container_spec
        .as_ref()
        .map_or("", |container| container.image.as_str());
    if !version.before(30) || image.contains('@') {
        return Vec::new();
    }
    vec![format!(
        "image {image} could not be accessed on a registry to record\nits digest. Each node will access {image} independently,\npossibly leading to different nodes running different\nversions of the image.\n"
    )]
}

fn network_targets(spec: &ServiceSpec) -> Vec<String> {
    let networks = spec.task_template.networks.iter().chain(&spec.networks);
    networks.map(|network| network.target.clone()).collect()
}

/// A network the cluster does not know may be one of this node, which is a mistake that needs other words.
async fn explain(call: &Call, refused: HttpError, targets: &[String]) -> HttpError {
    for target in targets {
        if refused.message != format!("network {target} not found") {
            continue;
        }
        if let Ok(local) = call.engine.inspect_network(target, "local").await {
            return Error::Forbidden(format!(
                "The network {} cannot be used with services. Only networks scoped to the swarm can be used, such as those created with the overlay driver.",
                local.name
            ))
            .into();
        }
    }
    refused
}

fn adjust(version: ApiVersion, spec: &mut ServiceSpec) {
    let template = &mut spec.task_template;
    if version.before(41) {
        spec.mode.replicated_job = None;
        spec.mode.global_job = None;
        if let Some(limits) = template.resources.as_mut().and_then(|r| r.limits.as_mut()) {
            limits.pids = 0;
        }
    }
    if version.before(40)
        && let Some(placement) = &mut template.placement
    {
        placement.max_replicas = 0;
    }
    let Some(container) = &mut template.container_spec else {
        return;
    };
    if version.before(40) {
        container.sysctls.clear();
        for config in &mut container.configs {
            config.runtime = None;
        }
    }
    if version.before(41) {
        container.capability_add.clear();
        container.capability_drop.clear();
        container.ulimits.clear();
    }
    if version.before(44) {
        if let Some(privileges) = &mut container.privileges {
            privileges.seccomp = None;
            privileges.apparmor = None;
            privileges.no_new_privileges = false;
        }
        if let Some(health) = &mut container.healthcheck {
            health.start_interval = 0;
        }
    }
    if version.before(46) {
        container.oom_score_adj = 0;
        for mount in &mut container.mounts {
            if let Some(options) = &mut mount.tmpfs_options {
                options.options = None;
            }
        }
    }
}
