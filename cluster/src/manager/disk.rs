//! The thread that writes the log. Whatever waits is written together and made durable by one fsync, so that the more
//! clients there are, the more writes one fsync carries.

use std::sync::mpsc::{Sender, SyncSender, channel};
use std::thread::JoinHandle;

use super::thread::Message;
use crate::core::Input;
use crate::raft::WriteBatch;
use crate::raft::log::{Files, Log};

/// The running thread.
pub(super) struct Disk {
    // Not bounded here: Raft bounds what it has in flight.
    batches: Sender<Vec<WriteBatch>>,
    thread: JoinHandle<()>,
}

impl Disk {
    /// To be written, in the order of the calls. When the thread has ended, it has told why.
    pub(super) fn write(&self, batches: Vec<WriteBatch>) {
        let _ = self.batches.send(batches);
    }

    /// Returns when everything sent before is durable, and the log is nobody's. Nobody must be in the way of the
    /// thread's last messages: the receiver of its inbox is gone by then.
    pub(super) fn finish(self) {
        drop(self.batches);
        if self.thread.join().is_err() {
            tracing::error!("the thread that writes the state of the swarm panicked");
        }
    }
}

/// Starts the thread.
pub(super) fn start(mut log: Log<Files>, inbox: SyncSender<Message>) -> std::io::Result<Disk> {
    let (sender, batches) = channel::<Vec<WriteBatch>>();
    let thread = std::thread::Builder::new()
        .name("manager-log".into())
        .spawn(move || {
            while let Ok(first) = batches.recv() {
                let mut last = 0;
                let mut outcome = Ok(());
                for batch in std::iter::once(first).chain(batches.try_iter()).flatten() {
                    last = batch.number();
                    outcome = outcome.and_then(|()| log.append(&batch));
                }
                let message = match outcome.and_then(|()| log.sync()) {
                    Ok(()) => Message::Input(Input::Written(last)),
                    Err(error) => Message::DiskFailed(error),
                };
                let failed = matches!(message, Message::DiskFailed(_));
                if inbox.send(message).is_err() || failed {
                    return;
                }
            }
        })?;
    Ok(Disk {
        batches: sender,
        thread,
    })
}
