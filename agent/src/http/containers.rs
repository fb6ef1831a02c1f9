//! `/containers`: everything but logs, statistics and what runs inside (`exec`).

use agent_api::{ContainerCreateRequest, ContainerUpdateRequest};
use futures_util::stream;
use http::StatusCode;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tracing::debug;

use super::body::{self, BrokenOff};
use super::cluster_networks;
use super::error::HttpError;
use super::hijack::{self, DetachKeys, Taken};
use super::router::{Route, delete, get, post};
use super::{Call, Outcome, compat, to_the_end};
use crate::engine::{
    AttachOptions, ListOptions, RemoveOptions, StartOutcome, StopOptions, StopOutcome,
    WaitCondition,
};

pub(super) const ROUTES: &[Route] = &[
    get("/containers/json", |call| Box::pin(list(call))),
    get("/containers/{}/json", |call| Box::pin(inspect(call))),
    get("/containers/{}/top", |call| Box::pin(top(call))),
    get("/containers/{}/changes", |call| Box::pin(changes(call))),
    get("/containers/{}/attach/ws", |_| {
        Box::pin(missing("attaching over a web socket"))
    }),
    post("/containers/create", |call| Box::pin(create(call))),
    post("/containers/prune", |call| Box::pin(prune(call))),
    post("/containers/{}/start", |call| Box::pin(start(call))),
    post("/containers/{}/stop", |call| Box::pin(stop(call))),
    post("/containers/{}/restart", |call| Box::pin(restart(call))),
    post("/containers/{}/kill", |call| Box::pin(kill(call))),
    post("/containers/{}/pause", |call| Box::pin(pause(call))),
    post("/containers/{}/unpause", |call| Box::pin(unpause(call))),
    post("/containers/{}/wait", |call| Box::pin(wait(call))),
    post("/containers/{}/resize", |call| Box::pin(resize(call))),
    post("/containers/{}/attach", |call| Box::pin(attach(call))),
    post("/containers/{}/rename", |call| Box::pin(rename(call))),
    post("/containers/{}/update", |call| Box::pin(update(call))),
    delete("/containers/{}", |call| Box::pin(remove(call))),
];

async fn missing(what: &'static str) -> Outcome {
    Err(HttpError::not_implemented(format!(
        "{what} is not supported yet"
    )))
}

async fn list(call: Call) -> Outcome {
    let mut filters = call.query.filters()?;
    for name in ["before", "since"] {
        if let Some(container) = call.query.optional(name) {
            filters.add(name, container);
        }
    }
    let options = ListOptions {
        all: call.query.flag("all"),
        limit: call
            .query
            .integer("limit")?
            .and_then(|limit| usize::try_from(limit).ok())
            .unwrap_or(0),
        size: call.query.flag("size"),
        filters,
    };
    let mut containers = call.engine.list_containers(options).await?;
    if call.version.before(46) {
        containers
            .iter_mut()
            .for_each(|container| container.host_config.annotations = None);
    }
    Ok(body::ok(&containers))
}

async fn inspect(call: Call) -> Outcome {
    let mut container = call
        .engine
        .inspect_container(&call.name, call.query.flag("size"))
        .await?;
    compat::container_inspect(call.version, &mut container);
    Ok(body::ok(&container))
}

async fn top(call: Call) -> Outcome {
    Ok(body::ok(
        &call
            .engine
            .top_container(&call.name, call.query.text("ps_args"))
            .await?,
    ))
}

async fn changes(call: Call) -> Outcome {
    let changes = call.engine.container_changes(&call.name).await?;
    // Go writes an empty list as null here.
    Ok(body::ok(&(!changes.is_empty()).then_some(changes)))
}

async fn create(mut call: Call) -> Outcome {
    let mut request: ContainerCreateRequest = call.json().await?;
    if request.config == agent_api::ContainerConfig::default() {
        return Err(HttpError::bad_request(
            "config cannot be empty in order to create a container",
        ));
    }
    let platform = match call.version.before(41) {
        true => None,
        false => call.query.optional("platform").map(str::to_owned),
    };
    let warnings = compat::container_create(call.version, &mut request)?;
    // Asked only where there is more than the node's own: this is on the way of every `run`.
    if call.swarm.local_state() != agent_api::swarm::LocalNodeState::Inactive {
        let mode = request.host_config.network_mode.as_str();
        let networks = request.networking_config.endpoints_config.keys();
        let networks = networks.map(String::as_str).chain([mode]);
        cluster_networks::refuse_for_containers(&call, networks).await?;
    }
    let (engine, name) = (call.engine, call.query.optional("name").map(str::to_owned));
    let mut created = to_the_end(async move {
        engine
            .create_container(name.as_deref(), platform.as_deref(), request)
            .await
    })
    .await?;
    created.warnings.extend(warnings);
    Ok(body::json(StatusCode::CREATED, &created))
}

async fn start(call: Call) -> Outcome {
    // A non-null JSON object is longer than seven bytes.
    let length = http_body::Body::size_hint(&call.body).exact();
    if length.is_none_or(|length| length > 7) {
        return Err(HttpError::bad_request(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    if call.query.optional("checkpoint").is_some() {
        return Err(HttpError::not_implemented(
            "starting from a checkpoint is not supported yet",
        ));
    }
    let (engine, name) = (call.engine, call.name);
    match to_the_end(async move { engine.start_container(&name).await }).await? {
        StartOutcome::Started => Ok(body::empty(StatusCode::NO_CONTENT)),
        StartOutcome::AlreadyRunning => Ok(body::empty(StatusCode::NOT_MODIFIED)),
    }
}

fn stop_options(call: &Call) -> Result<StopOptions, HttpError> {
    let signal = match call.version.before(42) {
        true => None,
        false => call.query.optional("signal").map(str::to_owned),
    };
    Ok(StopOptions {
        signal,
        timeout: call.query.integer("t")?,
    })
}

async fn stop(call: Call) -> Outcome {
    let options = stop_options(&call)?;
    let (engine, name) = (call.engine, call.name);
    match to_the_end(async move { engine.stop_container(&name, options).await }).await? {
        StopOutcome::Stopped => Ok(body::empty(StatusCode::NO_CONTENT)),
        StopOutcome::AlreadyStopped => Ok(body::empty(StatusCode::NOT_MODIFIED)),
    }
}

async fn restart(call: Call) -> Outcome {
    let options = stop_options(&call)?;
    let (engine, name) = (call.engine, call.name);
    to_the_end(async move { engine.restart_container(&name, options).await }).await?;
    Ok(body::empty(StatusCode::NO_CONTENT))
}

async fn kill(call: Call) -> Outcome {
    let (engine, name) = (call.engine, call.name);
    let signal = call.query.optional("signal").map(str::to_owned);
    to_the_end(async move { engine.kill_container(&name, signal.as_deref()).await }).await?;
    Ok(body::empty(StatusCode::NO_CONTENT))
}

async fn pause(call: Call) -> Outcome {
    let (engine, name) = (call.engine, call.name);
    to_the_end(async move { engine.pause_container(&name).await }).await?;
    Ok(body::empty(StatusCode::NO_CONTENT))
}

async fn unpause(call: Call) -> Outcome {
    let (engine, name) = (call.engine, call.name);
    to_the_end(async move { engine.unpause_container(&name).await }).await?;
    Ok(body::empty(StatusCode::NO_CONTENT))
}

/// The head of the reply goes out as soon as the wait is registered: the client starts the container only then.
async fn wait(call: Call) -> Outcome {
    let condition = match call.version.before(30) {
        true => WaitCondition::NotRunning,
        false => WaitCondition::parse(call.query.text("condition"))?,
    };
    let exit = call.engine.wait_container(&call.name, condition).await?;
    if call.version.before(30) {
        return Ok(body::ok(&exit.await?));
    }
    let closing = call.closing;
    let value = async move {
        tokio::select! {
            result = exit => result.map(|status| body::line(&status)).map_err(|failure| BrokenOff(failure.to_string())),
            () = closing.cancelled() => Err(BrokenOff("the daemon is stopping".to_owned())),
        }
    };
    Ok(body::stream("application/json", stream::once(value)))
}

async fn resize(call: Call) -> Outcome {
    let rows = call.query.terminal_size("h", "height")?;
    let columns = call.query.terminal_size("w", "width")?;
    call.engine
        .resize_container(&call.name, rows, columns)
        .await?;
    Ok(body::empty(StatusCode::OK))
}

async fn attach(call: Call) -> Outcome {
    let keys = DetachKeys::parse(call.query.text("detachKeys"))?;
    let options = AttachOptions {
        logs: call.query.flag("logs"),
        stream: call.query.flag("stream"),
        stdin: call.query.flag("stdin"),
        stdout: call.query.flag("stdout"),
        stderr: call.query.flag("stderr"),
        detach_keys: call.query.text("detachKeys").to_owned(),
    };
    let detachable = options.stdin;
    let attached = call.engine.attach_container(&call.name, options).await?;
    let head = hijack::head(&call.headers, call.version, attached.tty, "");
    let keys = (attached.tty && detachable).then_some(keys);
    call.takeover
        .take(move |mut taken: Taken| async move {
            let copied = match taken.stream.write_all(head.as_bytes()).await {
                Ok(()) => hijack::splice(taken, attached.stream, keys, async {}).await,
                Err(failure) => Err(failure),
            };
            if let Err(failure) = copied {
                debug!(error = %failure, "attached connection ended early");
            }
        })
        .await
}

async fn rename(call: Call) -> Outcome {
    let (engine, name, to) = (call.engine, call.name, call.query.text("name").to_owned());
    to_the_end(async move { engine.rename_container(&name, &to).await }).await?;
    Ok(body::empty(StatusCode::NO_CONTENT))
}

async fn update(mut call: Call) -> Outcome {
    let mut request: ContainerUpdateRequest = call.json_or_default().await?;
    if call.version.before(40) {
        request.resources.pids_limit = None;
    }
    let (engine, name) = (call.engine, call.name);
    let updated = to_the_end(async move { engine.update_container(&name, request).await }).await?;
    let warnings = (!updated.warnings.is_empty()).then_some(updated.warnings);
    Ok(body::ok(&json!({ "Warnings": warnings })))
}

async fn remove(call: Call) -> Outcome {
    if call.query.flag("link") {
        return Err(HttpError::not_implemented(
            "removing a link is not supported: links are resolved when a container starts",
        ));
    }
    let options = RemoveOptions {
        force: call.query.flag("force"),
        volumes: call.query.flag("v"),
    };
    let (engine, name) = (call.engine, call.name);
    to_the_end(async move { engine.remove_container(&name, options).await }).await?;
    Ok(body::empty(StatusCode::NO_CONTENT))
}

async fn prune(call: Call) -> Outcome {
    let (engine, filters) = (call.engine, call.query.filters()?);
    let pruned = to_the_end(async move { engine.prune_containers(filters).await }).await?;
    let deleted = pruned
        .containers_deleted
        .filter(|deleted| !deleted.is_empty());
    Ok(body::ok(
        &json!({ "ContainersDeleted": deleted, "SpaceReclaimed": pruned.space_reclaimed }),
    ))
}
