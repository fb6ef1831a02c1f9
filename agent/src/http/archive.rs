//! `/containers/{}/archive`, `/containers/{}/export` and `/commit`: file systems of containers, in parts and as a whole.
//!
//! Source: moby `api/server/router/container/copy.go`, `container_routes.go:postCommit`.

use agent_api::{ContainerConfig, IdResponse, PATH_STAT_HEADER, PathStat};
use futures_util::stream;
use http::{HeaderValue, StatusCode};

use super::body::{self, BrokenOff, Reply};
use super::error::HttpError;
use super::router::{Route, get, head, post, put};
use super::{Call, Outcome, to_the_end};
use crate::engine::{ArchiveUpload, ByteReceiver, Commit};

pub(super) const ROUTES: &[Route] = &[
    get("/containers/{}/archive", |call| Box::pin(read(call))),
    head("/containers/{}/archive", |call| Box::pin(stat(call))),
    put("/containers/{}/archive", |call| Box::pin(write(call))),
    get("/containers/{}/export", |call| Box::pin(export(call))),
    post("/commit", |call| Box::pin(commit(call))),
];

fn path(call: &Call) -> Result<String, HttpError> {
    match call.query.optional("path") {
        Some(path) => Ok(path.to_owned()),
        None => Err(HttpError::bad_request(
            "bad parameter: path cannot be empty",
        )),
    }
}

fn with_stat(mut reply: Reply, stat: &PathStat) -> Reply {
    if let Ok(value) = HeaderValue::from_str(&stat.to_header()) {
        reply.headers_mut().insert(PATH_STAT_HEADER, value);
    }
    reply
}

async fn stat(call: Call) -> Outcome {
    let path = path(&call)?;
    let stat = call.engine.container_path_stat(&call.name, &path).await?;
    Ok(with_stat(body::empty(StatusCode::OK), &stat))
}

async fn read(call: Call) -> Outcome {
    let path = path(&call)?;
    let archived = call
        .engine
        .read_container_archive(&call.name, &path)
        .await?;
    Ok(with_stat(tar(archived.archive), &archived.stat))
}

async fn write(call: Call) -> Outcome {
    let upload = ArchiveUpload {
        path: path(&call)?,
        no_overwrite_dir_non_dir: call.query.flag("noOverwriteDirNonDir"),
        copy_uid_gid: call.query.flag("copyUIDGID"),
    };
    let (engine, name) = (call.engine.clone(), call.name.clone());
    let archive = call.archive();
    to_the_end(async move { engine.write_container_archive(&name, upload, archive).await }).await?;
    Ok(body::empty(StatusCode::OK))
}

async fn export(call: Call) -> Outcome {
    Ok(tar(call.engine.export_container(&call.name).await?))
}

fn tar(archive: ByteReceiver) -> Reply {
    let chunks = stream::unfold(archive, |mut archive| async move {
        let chunk = archive.recv().await?;
        Some((
            chunk.map_err(|failure| BrokenOff(failure.to_string())),
            archive,
        ))
    });
    body::stream("application/x-tar", chunks)
}

async fn commit(mut call: Call) -> Outcome {
    let config: Option<ContainerConfig> = call.json_or_default().await?;
    let commit = Commit {
        repository: call.query.text("repo").to_owned(),
        tag: call.query.text("tag").to_owned(),
        author: call.query.text("author").to_owned(),
        comment: call.query.text("comment").to_owned(),
        changes: call.query.all("changes"),
        pause: call.query.flag_or("pause", true),
        config: config.filter(|config| *config != ContainerConfig::default()),
    };
    let (engine, container) = (call.engine, call.query.text("container").to_owned());
    let id = to_the_end(async move { engine.commit_container(&container, commit).await }).await?;
    Ok(body::json(StatusCode::CREATED, &IdResponse { id }))
}
