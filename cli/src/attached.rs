//! A command that is connected to a process in a container: its output, input, terminal size and signals.
//! Source: docker/cli `cli/command/container/hijack.go`, `signals.go`, `tty.go`.

use crate::failure::Failure;
use crate::terminal::DetachKeys;
use agent_api::client::{ClientError, Hijacked, HijackedInput, OutputStream};
use agent_api::{Client, StreamKind};
use anyhow::Context as _;
use futures_util::StreamExt as _;
use std::future::pending;
use std::io;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals that are passed on: all that a user or a supervisor sends. Left out are those that the kernel sends for a
/// fault of ours, SIGCHLD, SIGPIPE and SIGURG, and SIGWINCH, which is a resize.
const FORWARDED: &[i32] = &[
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGSTKFLT,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGSYS,
];

/// Which signal makes an impatient user's third attempt count.
const IMPATIENCE: u32 = 3;

/// How an attached session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The process closed its output.
    Output,
    /// The user typed the detach keys.
    Detached,
}

/// Copies output to stdout and stderr, and stdin to the process when asked to, until the output ends.
pub(crate) async fn pump(
    hijacked: Hijacked,
    stdin: bool,
    tty: bool,
    keys: &DetachKeys,
) -> anyhow::Result<Ended> {
    let (output, input) = hijacked.split();
    if !stdin {
        // Held open: closing it would end the process's input for others too.
        let _input = input;
        return show(output).await.map(|()| Ended::Output);
    }
    let input = send(input, tty.then(|| keys.watch()));
    tokio::pin!(input);
    let output = show(output);
    tokio::pin!(output);
    tokio::select! {
        result = &mut output => result.map(|()| Ended::Output),
        sent = &mut input => match sent {
            Sent::Detached => Ok(Ended::Detached),
            // End of input, or the process no longer reads: its output goes on.
            Sent::End => output.await.map(|()| Ended::Output),
        },
    }
}

/// Writes output where it belongs, each piece at once.
pub(crate) async fn show(mut output: OutputStream) -> anyhow::Result<()> {
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    while let Some(chunk) = output.next().await {
        let chunk = chunk?;
        match chunk.kind {
            StreamKind::Stderr => {
                stderr
                    .write_all(&chunk.data)
                    .await
                    .context("cannot write to stderr")?;
                stderr.flush().await.context("cannot write to stderr")?;
            }
            _ => {
                stdout
                    .write_all(&chunk.data)
                    .await
                    .context("cannot write to stdout")?;
                stdout.flush().await.context("cannot write to stdout")?;
            }
        }
    }
    Ok(())
}

enum Sent {
    End,
    Detached,
}

async fn send(mut input: HijackedInput, mut watch: Option<crate::terminal::DetachWatch>) -> Sent {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; 32 << 10];
    loop {
        let length = match stdin.read(&mut buffer).await {
            Ok(0) | Err(_) => {
                let _ = input.shutdown().await;
                return Sent::End;
            }
            Ok(length) => length,
        };
        let (bytes, detach) = match &mut watch {
            Some(watch) => watch.feed(&buffer[..length]),
            None => (buffer[..length].to_vec(), false),
        };
        if input.write_all(&bytes).await.is_err() {
            return Sent::End;
        }
        if detach {
            return Sent::Detached;
        }
    }
}

/// What a terminal's size belongs to.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Container(String),
    Exec(String),
}

/// Tells the terminal's size now and whenever it changes, until dropped.
pub(crate) async fn follow_size(client: Client, target: Target) {
    let resize = async || {
        let Some((rows, columns)) = crate::terminal::size() else {
            return;
        };
        let result = match &target {
            Target::Container(id) => client.resize_container(id, rows, columns).await,
            Target::Exec(id) => client.resize_exec(id, rows, columns).await,
        };
        if let Err(error) = result {
            tracing::debug!(%error, "cannot resize the terminal");
        }
    };
    let Ok(mut changes) = signal(SignalKind::window_change()) else {
        return;
    };
    resize().await;
    while changes.recv().await.is_some() {
        resize().await;
    }
}

/// Runs a session with a container while the terminal's size is followed and signals are passed on. Fails without a
/// word when the user insists on ending.
pub(crate) async fn accompany<T>(
    client: &Client,
    id: &str,
    tty: bool,
    signals: Vec<(i32, Signal)>,
    session: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let size = async {
        if tty {
            follow_size(client.clone(), Target::Container(id.to_owned())).await;
        }
        pending::<()>().await
    };
    let signals = async {
        if signals.is_empty() {
            return pending().await;
        }
        forward_signals(client, id, signals).await;
    };
    tokio::select! {
        ended = session => ended,
        () = size => unreachable!("it never ends"),
        () = signals => Err(Failure::silent(1).into()),
    }
}

/// Handlers for all forwarded signals. From here on they no longer end this process.
pub(crate) fn catch_signals() -> io::Result<Vec<(i32, Signal)>> {
    FORWARDED
        .iter()
        .map(|&number| Ok((number, signal(SignalKind::from_raw(number))?)))
        .collect()
}

/// Passes signals on to a container; gives up (and returns) when the user insists on ending.
async fn forward_signals(client: &Client, id: &str, signals: Vec<(i32, Signal)>) {
    let mut pending: futures_util::stream::SelectAll<_> = signals
        .into_iter()
        .map(|(number, signal)| {
            Box::pin(futures_util::stream::unfold(
                signal,
                move |mut signal| async move { signal.recv().await.map(|()| (number, signal)) },
            ))
        })
        .collect();
    let mut interrupts = 0;
    while let Some(number) = pending.next().await {
        if let Err(error) = client.kill_container(id, Some(&number.to_string())).await {
            tracing::debug!(%error, signal = number, "cannot pass the signal on");
            if matches!(error, ClientError::Unreachable { .. }) {
                return;
            }
        }
        if number == libc::SIGINT || number == libc::SIGTERM {
            interrupts += 1;
            if interrupts == IMPATIENCE {
                crate::out::note("\nmuster: got 3 SIGTERM/SIGINTs, forcefully exiting");
                return;
            }
        }
    }
}
