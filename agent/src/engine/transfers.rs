//! Threads for work that waits for others: registries, clients that read or send. It may take for ever, so it must not
//! take the threads of the runtime's pool, which everything that ends by itself shares: mounts, records, look-ups of
//! names. Waiting for a place costs no thread.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::task::TaskTracker;

use crate::error::{Error, Result};

/// Transfers at the same time; more wait.
const PLACES: usize = 256;
/// Stack of each thread.
const STACK_BYTES: usize = 512 * 1024;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Transfers {
    places: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Transfers {
    /// What runs counts in `tasks`, which shutdown waits for.
    pub(crate) fn new(tasks: TaskTracker) -> Self {
        Self {
            places: Arc::new(Semaphore::new(PLACES)),
            tasks,
        }
    }

    /// Runs `work` when there is a place. When no thread can be had it is dropped, and said in the log.
    pub(crate) fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        let transfers = self.clone();
        self.tasks.spawn(async move {
            let done = transfers.run(move || {
                work();
                Ok(())
            });
            if let Err(error) = done.await {
                tracing::error!(%error, "a transfer did not run");
            }
        });
    }

    /// Runs `work` when there is a place, and waits for it. Dropping the future gives up the place in the queue; work
    /// that has begun goes on.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        let (sender, result) = oneshot::channel();
        let runtime = Handle::current();
        let counted = self.tasks.token();
        std::thread::Builder::new()
            .name("transfer".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let _inside = runtime.enter();
                let _ = sender.send(work());
                drop((place, counted));
            })
            .map_err(|error| {
                Error::Unavailable(format!("cannot start a thread for a transfer: {error}"))
            })?;
        // Without a result it panicked, which the panic's own message has said.
        result.await.unwrap_or_else(|_| {
            Err(Error::System(
                "a transfer ended without a result".to_owned(),
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn transfers_that_wait_hold_up_neither_each_other_nor_short_work() {
        let transfers = Transfers::new(TaskTracker::new());
        let mut ends = Vec::new();
        for _ in 0..PLACES {
            let (end, ended) = mpsc::channel::<()>();
            let (started, starts) = oneshot::channel();
            transfers.spawn(move || {
                let _ = started.send(());
                let _ = ended.recv();
            });
            starts.await.unwrap();
            ends.push(end);
        }
        super::super::shared::blocking(|| Ok(())).await.unwrap();

        let one_more = transfers.run(|| Ok(7));
        tokio::pin!(one_more);
        let early = futures_util::poll!(&mut one_more);
        assert!(early.is_pending());
        drop(ends.pop());
        assert_eq!(one_more.await.unwrap(), 7);

        drop(ends);
        transfers.tasks.close();
        transfers.tasks.wait().await;
    }
}
