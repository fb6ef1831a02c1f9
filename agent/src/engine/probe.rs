//! Running one health probe: an exec whose output is read up to a limit and whose time is limited. A probe that runs out
//! of time goes with all the processes it started; Docker leaves those behind (moby/moby#43737).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use agent_api::{ExecCreateRequest, HealthStatus};
use jiff::Timestamp;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};

use super::container::Container;
use super::driver::Command;
use super::exec::{self, Phase};
use super::health::{Check, OUTPUT_MAX, ProbeResult, Prober, clip, go_duration};
use super::requests::ExecStarted;
use super::shared::{Shared, blocking};
use crate::error::Error;

/// How long the end of a probe that was killed is awaited.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Probes one run of one container.
pub(crate) struct Probe {
    shared: Arc<Shared>,
    mailbox: mpsc::WeakSender<Command>,
    picture: watch::Receiver<Arc<Container>>,
    run: u64,
}

impl Probe {
    pub(crate) fn new(
        shared: Arc<Shared>,
        mailbox: mpsc::WeakSender<Command>,
        picture: watch::Receiver<Arc<Container>>,
        run: u64,
    ) -> Self {
        Self {
            shared,
            mailbox,
            picture,
            run,
        }
    }

    /// Exit code and output; an error is why the probe could not run. Dropping the future ends the probe.
    async fn execute(&self, id: &str, check: &Check) -> Result<(i32, String), String> {
        let container = Arc::clone(&self.picture.borrow());
        let (awaited, given_up) = oneshot::channel();
        let probe = run(
            Arc::clone(&self.shared),
            container,
            id.to_owned(),
            check.timeout,
            given_up,
        );
        let outcome = self.shared.tasks.spawn(probe).await;
        drop::<oneshot::Sender<Infallible>>(awaited);
        outcome.unwrap_or_else(|error| Err(error.to_string()))
    }
}

/// A probe from its start to its end. It is a task of its own, since whoever awaits it may go away in between (the
/// container is paused, stopped, or removed): `given_up` closes then, and the probe ends as when its time is over.
async fn run(
    shared: Arc<Shared>,
    container: Arc<Container>,
    id: String,
    timeout: Duration,
    given_up: oneshot::Receiver<Infallible>,
) -> Result<(i32, String), String> {
    let options = exec::StartOptions::default();
    let (pid, started) = exec::start_process(&shared, &container, &id, options)
        .await
        .map_err(|error| error.to_string())?;
    let ExecStarted::Attached(attached) = started else {
        return Err("the probe was started without its streams".to_owned());
    };
    let mut phase = shared.execs.watch(&id).map_err(|error| error.to_string())?;
    let mut output = Output::default();
    let mut ended = Box::pin(async {
        output.read(attached.stream).await;
        let is_ended = |phase: &Phase| matches!(phase, Phase::Ended { .. });
        match phase.wait_for(is_ended).await.map(|phase| *phase) {
            Ok(Phase::Ended { exit_code }) => Ok(exit_code),
            _ => Err("the container was removed".to_owned()),
        }
    });
    let code = tokio::select! {
        code = &mut ended => Some(code?),
        () = tokio::time::sleep(timeout) => None,
        _ = given_up => None,
    };
    if code.is_none() {
        kill(&shared, &container, pid).await;
        // What it had to say comes with its end. One that is frozen dies only when it is thawed.
        let _ = tokio::time::timeout(LAST_WORDS, &mut ended).await;
    }
    drop(ended);
    let text = clip(&output.kept, output.truncated);
    Ok(match code {
        Some(code) => (code, text),
        None => {
            let colon = if text.is_empty() { "" } else { ": " };
            let limit = go_duration(timeout);
            let text = format!("Health check exceeded timeout ({limit}){colon}{text}");
            (-1, text)
        }
    })
}

/// Kills a probe with everything it started.
async fn kill(shared: &Shared, container: &Container, pid: i32) {
    let killed = match shared.cgroup(&container.definition) {
        Ok(cgroup) => {
            blocking(move || {
                cgroup
                    .kill_session(pid)
                    .map_err(|error| Error::system(error.to_string()))
            })
            .await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = killed {
        // The container may have ended, and everything in it.
        tracing::debug!(container.id = container.id(), %error, "cannot end a health probe");
    }
}

impl Prober for Probe {
    async fn probe(&self, check: &Check) -> ProbeResult {
        let start = Timestamp::now();
        let (container, definition) = {
            let picture = self.picture.borrow();
            (picture.id().to_owned(), Arc::clone(&picture.definition))
        };
        let request = ExecCreateRequest {
            cmd: check.command.clone(),
            attach_stdout: true,
            attach_stderr: true,
            ..ExecCreateRequest::default()
        };
        let outcome = match self.shared.execs.prepare(&container, request) {
            Ok(id) => {
                let line = format!("exec_create: {}", check.command.join(" "));
                self.shared
                    .events
                    .container(&definition, &line, &[("execID", &id)]);
                self.execute(&id, check).await
            }
            Err(error) => Err(error.to_string()),
        };
        let (exit_code, output) = outcome.unwrap_or_else(|error| (-1, error));
        ProbeResult {
            start,
            end: Timestamp::now(),
            exit_code,
            output,
        }
    }

    async fn report(&self, result: ProbeResult) -> Option<HealthStatus> {
        let mailbox = self.mailbox.upgrade()?;
        let (reply, answer) = oneshot::channel();
        mailbox
            .send(Command::Probed {
                run: self.run,
                result,
                reply,
            })
            .await
            .ok()?;
        drop(mailbox);
        answer.await.ok()
    }
}

/// The kept part of a probe's output, without Docker's frames.
#[derive(Default)]
struct Output {
    kept: Vec<u8>,
    truncated: bool,
}

impl Output {
    /// Reads to the end; what is beyond the limit is read and dropped, so that the probe can end.
    async fn read(&mut self, mut stream: UnixStream) {
        let mut header = [0; agent_api::FRAME_HEADER];
        let mut buffer = vec![0; 16 * 1024];
        while stream.read_exact(&mut header).await.is_ok() {
            let Some((_, length)) = agent_api::StreamKind::parse(header) else {
                return;
            };
            let mut left = length as usize;
            while left > 0 {
                let most = left.min(buffer.len());
                match stream.read(&mut buffer[..most]).await {
                    Ok(count) if count > 0 => {
                        self.keep(&buffer[..count]);
                        left -= count;
                    }
                    _ => return,
                }
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = OUTPUT_MAX - self.kept.len();
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.truncated |= bytes.len() > room;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    #[tokio::test]
    async fn output_is_unframed_and_bounded() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let writer = tokio::spawn(async move {
            theirs
                .write_all(&agent_api::StreamKind::Stdout.header(3))
                .await
                .unwrap();
            theirs.write_all(b"one").await.unwrap();
            let long = vec![b'x'; 100_000];
            theirs
                .write_all(&agent_api::StreamKind::Stderr.header(100_000))
                .await
                .unwrap();
            theirs.write_all(&long).await.unwrap();
        });
        let mut output = Output::default();
        output.read(ours).await;
        writer.await.unwrap();
        assert!(output.kept.starts_with(b"onexxx") && output.truncated);
        assert_eq!(output.kept.len(), OUTPUT_MAX);
    }
}
