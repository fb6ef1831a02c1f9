//! What happens in the cluster, told to who listens to this node's events. Every manager tells it, with the leader's
//! times; a worker knows only of itself.

use std::sync::Arc;

use cluster::control::view;
use cluster::store::StoreEvent;
use jiff::Timestamp;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::engine::Engine;

/// Tells them until the manager stops.
pub(super) async fn tell(mut committed: Receiver<Arc<[StoreEvent]>>, engine: Engine) {
    loop {
        match committed.recv().await {
            Ok(events) => {
                for mut event in events.iter().filter_map(view::event) {
                    if event.action == "remove" {
                        // The object only knows when it last changed.
                        let now = Timestamp::now();
                        event.time = now.as_second();
                        event.time_nano = i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX);
                    }
                    engine.cluster_event(event);
                }
            }
            Err(RecvError::Lagged(lost)) => {
                tracing::warn!(lost, "events of the cluster came too fast to be told");
            }
            Err(RecvError::Closed) => return,
        }
    }
}
