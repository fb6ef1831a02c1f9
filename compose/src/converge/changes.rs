//! When to look again: at every change that the daemon tells.

use std::time::Duration;

use agent_api::client::{ClientError, EventsOptions, JsonStream};
use agent_api::{Client, EventMessage, Filters};
use futures_util::StreamExt as _;
use tokio::time::Instant;

/// Docker's daemon tells nothing of tasks; its own client looks this often too.
const LOOK: Duration = Duration::from_millis(200);
/// Changes come in bursts: what comes within this time of one is looked at together.
const BURST: Duration = Duration::from_millis(20);

/// Changes of services, tasks and nodes from the moment it is made.
pub struct Changes {
    events: Option<JsonStream<EventMessage>>,
    /// Look without being told after this time.
    look: Option<Duration>,
}

impl Changes {
    /// Follows the daemon's events.
    ///
    /// # Errors
    /// Those of the daemon.
    pub async fn follow(client: &Client) -> Result<Self, ClientError> {
        let kinds = ["service", "task", "node"];
        let filters = kinds
            .iter()
            .fold(Filters::new(), |filters, kind| filters.with("type", *kind));
        let options = EventsOptions {
            filters,
            ..EventsOptions::default()
        };
        let tells_tasks = tells_tasks(client).await?;
        Ok(Self {
            events: Some(client.events(&options).await?),
            look: (!tells_tasks).then_some(LOOK),
        })
    }

    /// Waits for a change, or the deadline: `false` then.
    pub async fn next(&mut self, deadline: Option<Instant>) -> bool {
        let look = self.look.map(|time| Instant::now() + time);
        let until = match (deadline, look) {
            (Some(deadline), Some(look)) => Some(deadline.min(look)),
            (deadline, look) => deadline.or(look),
        };
        self.until(until).await;
        deadline.is_none_or(|deadline| Instant::now() < deadline)
    }

    async fn until(&mut self, until: Option<Instant>) {
        let changed = self.changed();
        match until {
            Some(until) => {
                let _ = tokio::time::timeout_at(until, changed).await;
            }
            None => changed.await,
        }
    }

    async fn changed(&mut self) {
        let Some(events) = &mut self.events else {
            return std::future::pending().await;
        };
        if let Some(Ok(_)) = events.next().await {
            // What is left of the burst; its end is not waited for.
            let burst = Instant::now() + BURST;
            while let Ok(Some(Ok(_))) = tokio::time::timeout_at(burst, events.next()).await {}
        } else {
            // The manager went away, perhaps to be another's follower: looking goes on without it.
            self.events = None;
            self.look = Some(LOOK);
        }
    }
}

/// Whether the daemon tells of tasks: ours does when it is asked for events of type `task`.
async fn tells_tasks(client: &Client) -> Result<bool, ClientError> {
    Ok(client.version().await?.platform.name == OURS)
}

/// What our daemon calls its platform in `GET /version`.
const OURS: &str = "muster";
