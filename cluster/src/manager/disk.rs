//! The thread that writes the log. Whatever waits is written together and made durable by one fsync, so that the more
//! clients there are, the more writes one fsync carries.

use std::sync::mpsc::{Sender, SyncSender, channel};

use super::thread::Message;
use crate::core::Input;
use crate::raft::WriteBatch;
use crate::raft::log::{Files, Log};

/// Starts the thread. It ends when the sender is dropped, after what was sent before is durable.
pub(super) fn start(
    mut log: Log<Files>,
    inbox: SyncSender<Message>,
) -> std::io::Result<Sender<Vec<WriteBatch>>> {
    // Not bounded here: Raft bounds what it has in flight.
    let (sender, batches) = channel::<Vec<WriteBatch>>();
    std::thread::Builder::new()
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
    Ok(sender)
}
