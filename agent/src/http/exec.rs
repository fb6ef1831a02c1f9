//! `/exec` and `/containers/{}/exec`: further processes in a running container.

use agent_api::{ExecCreateRequest, ExecStartRequest, IdResponse, StreamKind};
use http::StatusCode;
use tokio::io::AsyncWriteExt;
use tracing::debug;

use super::body;
use super::error::HttpError;
use super::hijack::{self, DetachKeys, Taken};
use super::router::{ApiVersion, Route, get, post};
use super::{Call, Outcome, to_the_end};
use crate::engine::ExecStarted;
use crate::error::Error;

pub(super) const ROUTES: &[Route] = &[
    post("/containers/{}/exec", |call| Box::pin(create(call))),
    post("/exec/{}/start", |call| Box::pin(start(call))),
    post("/exec/{}/resize", |call| Box::pin(resize(call))),
    get("/exec/{}/json", |call| Box::pin(inspect(call))),
];

async fn create(mut call: Call) -> Outcome {
    let mut request: ExecCreateRequest = call.json_or_default().await?;
    if request.cmd.is_empty() {
        return Err(HttpError::bad_request("No exec command specified"));
    }
    DetachKeys::parse(&request.detach_keys)?;
    if call.version.before(42) {
        request.console_size = None;
    }
    let (engine, name) = (call.engine, call.name);
    let id = to_the_end(async move { engine.create_exec(&name, request).await }).await?;
    Ok(body::json(StatusCode::CREATED, &IdResponse { id }))
}

async fn inspect(call: Call) -> Outcome {
    Ok(body::ok(&call.engine.inspect_exec(&call.name).await?))
}

async fn resize(call: Call) -> Outcome {
    let rows = call.query.terminal_size("h", "height")?;
    let columns = call.query.terminal_size("w", "width")?;
    call.engine.resize_exec(&call.name, rows, columns).await?;
    Ok(body::empty(StatusCode::OK))
}

async fn start(mut call: Call) -> Outcome {
    let mut request: ExecStartRequest = call.json_or_default().await?;
    if call.version.before(42) || !request.tty {
        request.console_size = None;
    }
    let exec = call.engine.inspect_exec(&call.name).await?;
    let keys = DetachKeys::parse(&exec.detach_keys)?;
    let (detach, tty) = (request.detach, request.tty);
    let (engine, id) = (call.engine, call.name);
    let settled = {
        let (engine, id) = (engine.clone(), id.clone());
        async move {
            let _ = engine.wait_exec(&id).await;
        }
    };
    // Runs to its end even when the client leaves: an exec must not be half started.
    let started = tokio::spawn(async move { engine.start_exec(&id, request).await })
        .await
        .map_err(|failure| HttpError::internal(format!("the exec was not started: {failure}")))?;
    let more = common_headers();
    let attached = match started {
        Ok(ExecStarted::Detached) => return Ok(body::empty(StatusCode::OK)),
        Ok(ExecStarted::Attached(attached)) => attached,
        // Docker has the connection in its hands already when the process cannot be run: the reason is output, and the
        // exit code is for inspect to tell.
        Err(failure @ (Error::InvalidParameter(_) | Error::System(_))) if !detach => {
            let mut bytes = hijack::head(&call.headers, call.version, tty, &more).into_bytes();
            bytes.extend_from_slice(&hijack::in_stream(
                StreamKind::Stdout,
                tty,
                &format!("{failure}\r\n"),
            ));
            return call
                .takeover
                .take(move |mut taken: Taken| async move {
                    let _ = taken.stream.write_all(&bytes).await;
                    let _ = taken.stream.shutdown().await;
                })
                .await;
        }
        Err(failure) => return Err(failure.into()),
    };
    let head = hijack::head(&call.headers, call.version, attached.tty, &more);
    let keys = (attached.tty && exec.open_stdin).then_some(keys);
    call.takeover
        .take(move |mut taken: Taken| async move {
            let copied = match taken.stream.write_all(head.as_bytes()).await {
                Ok(()) => hijack::splice(taken, attached.stream, keys, settled).await,
                Err(failure) => Err(failure),
            };
            if let Err(failure) = copied {
                debug!(error = %failure, "attached connection ended early");
            }
        })
        .await
}

/// Docker copies the headers of every reply into this head, and into no other that it writes by hand.
fn common_headers() -> String {
    format!(
        "Api-Version: {}\r\nDocker-Experimental: false\r\nOstype: linux\r\nServer: Muster/{} (linux)\r\n",
        ApiVersion::NEWEST,
        env!("CARGO_PKG_VERSION")
    )
}
