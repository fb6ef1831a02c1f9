//! Running one health probe: an exec whose output is read up to a limit and whose time is limited.

use std::sync::Arc;

use agent_api::{ExecCreateRequest, HealthStatus};
use jiff::Timestamp;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};

use super::container::Container;
use super::driver::Command;
use super::exec::{self, Phase};
use super::health::{Check, OUTPUT_MAX, ProbeResult, Prober, clip};
use super::requests::ExecStarted;
use super::shared::Shared;
use super::signal::SIGKILL;

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

    /// Exit code and output; an error is why the probe could not run.
    async fn execute(&self, id: &str, check: &Check) -> Result<(i32, String), String> {
        let container = Arc::clone(&self.picture.borrow());
        let started = exec::start(&self.shared, &container, id, exec::StartOptions::default())
            .await
            .map_err(|error| error.to_string())?;
        let ExecStarted::Attached(attached) = started else {
            return Err("the probe was started without its streams".to_owned());
        };
        let mut phase = self
            .shared
            .execs
            .watch(id)
            .map_err(|error| error.to_string())?;
        let mut output = Output::default();
        let ended = async {
            output.read(attached.stream).await;
            match phase
                .wait_for(|phase| matches!(phase, Phase::Ended { .. }))
                .await
                .map(|phase| *phase)
            {
                Ok(Phase::Ended { exit_code }) => Ok(exit_code),
                _ => Err("the container was removed".to_owned()),
            }
        };
        match tokio::time::timeout(check.timeout, ended).await {
            Ok(code) => Ok((code?, clip(&output.kept, output.truncated))),
            Err(_) => {
                if let Err(error) = self.shared.keeper.signal(id, SIGKILL).await {
                    tracing::debug!(container.id = container.id(), %error, "the probe ended by itself");
                }
                Ok((
                    -1,
                    format!("Health check exceeded timeout ({:?})", check.timeout),
                ))
            }
        }
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
