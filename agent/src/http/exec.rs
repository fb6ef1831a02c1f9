//! `/exec` and `/containers/{}/exec`: further processes in a running container.

use std::io;

use agent_api::{ExecCreateRequest, ExecStartRequest, IdResponse, StreamKind};
use http::StatusCode;
use tokio::io::AsyncWriteExt;
use tracing::debug;

use super::body;
use super::error::HttpError;
use super::hijack::{self, DetachKeys, Taken};
use super::router::{ApiVersion, Route, get, post};
use super::{Call, Outcome, to_the_end};
use crate::engine::{Engine, ExecStarted};

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
    // Whatever else goes wrong is said where the output goes: the connection is in Docker's hands by then.
    let exec = call.engine.inspect_exec(&call.name).await?;
    let (engine, id) = (call.engine, call.name);
    if request.detach {
        to_the_end(async move { engine.start_exec(&id, request).await }).await?;
        return Ok(body::empty(StatusCode::OK));
    }
    let tty = exec.process_config.tty;
    let keys = DetachKeys::parse(&exec.detach_keys)?;
    let keys = (tty && exec.open_stdin).then_some(keys);
    let head = hijack::head(&call.headers, call.version, tty, &common_headers());
    call.takeover
        .take(move |mut taken: Taken| async move {
            // The head goes out before the process is there: clients that read it in blocks (Python's) lose output that
            // comes along with it.
            if let Err(failure) = taken.stream.write_all(head.as_bytes()).await {
                debug!(error = %failure, "the client left before its exec was started");
                return;
            }
            if let Err(failure) = run(taken, engine, id, request, tty, keys).await {
                debug!(error = %failure, "attached connection ended early");
            }
        })
        .await
}

/// Starts the exec and copies until it has ended.
async fn run(
    mut taken: Taken,
    engine: Engine,
    id: String,
    request: ExecStartRequest,
    tty: bool,
    keys: Option<DetachKeys>,
) -> io::Result<()> {
    let started = {
        let (engine, id) = (engine.clone(), id.clone());
        // Runs to its end even when the client leaves: an exec must not be half started.
        to_the_end(async move { engine.start_exec(&id, request).await }).await
    };
    let problem = match started {
        Ok(ExecStarted::Attached(attached)) => {
            let settled = async {
                let _ = engine.wait_exec(&id).await;
            };
            return hijack::splice(taken, attached.stream, keys, settled).await;
        }
        Ok(ExecStarted::Detached) => return taken.stream.shutdown().await,
        Err(problem) => problem,
    };
    let text = hijack::in_stream(StreamKind::Stdout, tty, &format!("{}\r\n", problem.message));
    taken.stream.write_all(&text).await?;
    taken.stream.shutdown().await
}

/// Docker copies the headers of every reply into this head, and into no other that it writes by hand.
fn common_headers() -> String {
    format!(
        "Api-Version: {}\r\nDocker-Experimental: false\r\nOstype: linux\r\nServer: Muster/{} (linux)\r\n",
        ApiVersion::NEWEST,
        env!("CARGO_PKG_VERSION")
    )
}
