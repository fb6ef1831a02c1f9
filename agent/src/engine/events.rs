//! Events: what happened to containers, images, networks and volumes, for everybody who listens.
//!
//! The last [`REMEMBERED`] are kept for `since`. A listener that falls more than [`BEHIND`] behind loses the oldest ones;
//! nobody waits for a listener. Actions and attributes are moby's (`daemon/events.go`, `daemon/events/filter.go`).

use std::collections::VecDeque;
use std::sync::Arc;

use agent_api::{EventActor, EventMessage, Filters, Labels};
use futures_util::stream::{BoxStream, StreamExt as _};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use super::EventOptions;
use super::container::Definition;
use crate::error::Result;

/// Past events that `since` can reach.
const REMEMBERED: usize = 1024;
/// Events that may wait for a listener.
const BEHIND: usize = 1024;

const FILTERS: [&str; 14] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

/// Kind of events that only those get who ask for it; Docker has none of them.
const TASK: &str = "task";

/// The event log. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Events {
    shared: Arc<Shared>,
}

struct Shared {
    past: Mutex<VecDeque<Arc<EventMessage>>>,
    sender: broadcast::Sender<Arc<EventMessage>>,
    /// Those about tasks of the cluster: many, and for few.
    tasks: broadcast::Sender<Arc<EventMessage>>,
}

impl Events {
    pub(crate) fn new() -> Self {
        let (sender, _) = broadcast::channel(BEHIND);
        let (tasks, _) = broadcast::channel(BEHIND);
        Self {
            shared: Arc::new(Shared {
                past: Mutex::default(),
                sender,
                tasks,
            }),
        }
    }

    /// Something happened to a container.
    pub(crate) fn container(&self, definition: &Definition, action: &str, more: &[(&str, &str)]) {
        let mut attributes = definition.config.labels.clone();
        attributes.insert("image".to_owned(), definition.config.image.clone());
        attributes.insert("name".to_owned(), definition.name.clone());
        attributes.extend(owned(more));
        attributes.sort_keys();
        self.publish(EventMessage {
            status: Some(action.to_owned()),
            id: Some(definition.id.clone()),
            from: Some(definition.config.image.clone()),
            ..message("container", action, &definition.id, attributes)
        });
    }

    /// Something happened to an image with these labels, or to a name in its place.
    pub(crate) fn image(&self, id: &str, name: &str, action: &str, labels: &Labels) {
        let mut attributes = labels.clone();
        attributes.insert("name".to_owned(), name.to_owned());
        attributes.sort_keys();
        self.publish(EventMessage {
            status: Some(action.to_owned()),
            id: Some(id.to_owned()),
            ..message("image", action, id, attributes)
        });
    }

    /// Things of a kind were pruned, and gave back so many bytes.
    pub(crate) fn pruned(&self, kind: &str, bytes: u64) {
        let reclaimed = bytes.to_string();
        let attributes = owned(&[("reclaimed", &reclaimed)]).collect();
        // As long as there were only these two kinds, events had a status.
        let status = matches!(kind, "container" | "image").then(|| "prune".to_owned());
        self.publish(EventMessage {
            status,
            ..message(kind, "prune", "", attributes)
        });
    }

    /// Something happened to a network or a volume (`kind`).
    pub(crate) fn other(&self, kind: &str, id: &str, action: &str, attributes: &[(&str, &str)]) {
        self.publish(message(kind, action, id, owned(attributes).collect()));
    }

    /// Something happened in the cluster, at the time the event says.
    pub(crate) fn cluster(&self, event: EventMessage) {
        if event.kind == TASK {
            let _ = self.shared.tasks.send(Arc::new(event));
        } else {
            self.tell(event);
        }
    }

    fn publish(&self, mut event: EventMessage) {
        let now = Timestamp::now();
        event.time = now.as_second();
        event.time_nano = i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX);
        self.tell(event);
    }

    fn tell(&self, event: EventMessage) {
        let event = Arc::new(event);
        let mut past = self.shared.past.lock();
        if past.len() == REMEMBERED {
            past.pop_front();
        }
        past.push_back(Arc::clone(&event));
        // Sent under the lock: a new listener sees every event either among the past ones or live, once.
        let _ = self.shared.sender.send(event);
    }

    /// Number of listeners.
    pub(crate) fn listeners(&self) -> usize {
        self.shared.sender.receiver_count()
    }

    /// A stream of events; registered when this returns.
    pub(crate) fn listen(&self, options: EventOptions) -> Result<BoxStream<'static, EventMessage>> {
        options.filters.allow(&FILTERS)?;
        let EventOptions {
            since,
            until,
            filters,
        } = options;
        let (past, live) = {
            let past = self.shared.past.lock();
            let wanted = past.iter().filter(|event| {
                (since.is_some() || until.is_some_and(|until| until <= Timestamp::now()))
                    && since.is_none_or(|since| nanoseconds(since) <= event.time_nano)
                    && until.is_none_or(|until| event.time_nano <= nanoseconds(until))
            });
            (
                wanted.cloned().collect::<Vec<_>>(),
                self.shared.sender.subscribe(),
            )
        };
        // Who does not ask for tasks is not flooded with them.
        let wants_tasks = filters.get("type").any(|kind| kind == TASK);
        let tasks = wants_tasks.then(|| received(self.shared.tasks.subscribe()));
        let tasks = futures_util::stream::iter(tasks).flatten();
        let live = futures_util::stream::select(received(live), tasks);
        let end = async move {
            match until {
                None => std::future::pending().await,
                Some(until) => {
                    let left = until.duration_since(Timestamp::now());
                    tokio::time::sleep(left.try_into().unwrap_or_default()).await;
                }
            }
        };
        let all = futures_util::stream::iter(past).chain(live.take_until(Box::pin(end)));
        let matching = all.filter_map(move |event| {
            let passes = matches(&filters, &event);
            std::future::ready(passes.then(|| EventMessage::clone(&event)))
        });
        Ok(matching.boxed())
    }
}

fn nanoseconds(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)
}

fn owned<'a>(pairs: &'a [(&str, &str)]) -> impl Iterator<Item = (String, String)> + use<'a> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
}

/// What comes in, for as long as there is a sender.
fn received(
    live: broadcast::Receiver<Arc<EventMessage>>,
) -> impl futures_util::Stream<Item = Arc<EventMessage>> {
    futures_util::stream::unfold(live, |mut live| async {
        loop {
            match live.recv().await {
                Ok(event) => return Some((event, live)),
                Err(broadcast::error::RecvError::Lagged(lost)) => {
                    tracing::warn!(lost, "an event listener is too slow");
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    })
}

fn message(kind: &str, action: &str, id: &str, attributes: Labels) -> EventMessage {
    EventMessage {
        kind: kind.to_owned(),
        action: action.to_owned(),
        actor: EventActor {
            id: id.to_owned(),
            attributes,
        },
        scope: "local".to_owned(),
        ..EventMessage::default()
    }
}

/// Docker's meaning of the filters of `events`.
fn matches(filters: &Filters, event: &EventMessage) -> bool {
    let attribute = |key: &str| event.actor.attributes.get(key).map_or("", String::as_str);
    let object = |kind: &str, also: &str| {
        filters.any(kind, |wanted| {
            let own = event.kind == kind;
            (own && (event.actor.id == wanted
                || attribute("name") == wanted
                || event.actor.id.starts_with(wanted)))
                || (!own && !also.is_empty() && attribute(also) == wanted)
        })
    };
    let action = event.action.split(':').next().unwrap_or_default().trim();
    filters.any("event", |wanted| wanted == event.action || wanted == action)
        && filters.any("type", |wanted| wanted == event.kind)
        && filters.any("scope", |wanted| wanted == event.scope)
        && filters.any("daemon", |_| event.kind == "daemon")
        && filters.any("plugin", |_| false)
        && object("node", "")
        && object("service", "")
        && object("secret", "")
        && object("config", "")
        && object("container", "container")
        && object("volume", "")
        && object("network", "")
        && filters.any("image", |wanted| {
            let name = match event.kind.as_str() {
                "image" => attribute("name"),
                "container" => attribute("image"),
                _ => return false,
            };
            let bare = |text: &str| text.split(':').next().unwrap_or_default().to_owned();
            event.actor.id == wanted || name == wanted || bare(name) == wanted
        })
        && filters.labels_match(&event.actor.attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(events: &Events, filters: Filters) -> Vec<String> {
        let options = EventOptions {
            since: Some(Timestamp::UNIX_EPOCH),
            until: Some(Timestamp::now()),
            filters,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let stream = events.listen(options).unwrap();
            stream
                .map(|event| format!("{} {}", event.kind, event.action))
                .collect()
                .await
        })
    }

    fn sample() -> Events {
        let events = Events::new();
        events.other(
            "network",
            "n1",
            "connect",
            &[("container", "c1"), ("name", "net")],
        );
        events.other("volume", "data", "create", &[("driver", "local")]);
        let labels = Labels::from([("tier".to_owned(), "front".to_owned())]);
        events.image("sha256:1", "busybox:latest", "tag", &labels);
        events.publish(message(
            "container",
            "health_status: healthy",
            "c1",
            Labels::new(),
        ));
        events
    }

    #[test]
    fn filters_are_dockers() {
        let events = sample();
        for (name, value, expected) in [
            ("type", "volume", vec!["volume create"]),
            (
                "container",
                "c1",
                vec!["network connect", "container health_status: healthy"],
            ),
            (
                "event",
                "health_status",
                vec!["container health_status: healthy"],
            ),
            ("image", "busybox", vec!["image tag"]),
            ("label", "tier=front", vec!["image tag"]),
            ("label", "tier=back", vec![]),
            ("network", "net", vec!["network connect"]),
            ("volume", "data", vec!["volume create"]),
        ] {
            let filters = Filters::new().with(name, value);
            let found = past(&events, filters);
            let relevant: Vec<_> = found
                .iter()
                .filter(|line| expected.contains(&line.as_str()))
                .collect();
            assert_eq!(relevant.len(), expected.len(), "{name}={value}: {found:?}");
            assert_eq!(found.len(), expected.len(), "{name}={value}: {found:?}");
        }
        assert!(
            sample()
                .listen(EventOptions {
                    filters: Filters::new().with("colour", "red"),
                    ..EventOptions::default()
                })
                .is_err()
        );
    }

    #[test]
    fn events_of_the_cluster_come_with_their_time_and_tasks_to_who_asks() {
        let events = Events::new();
        let listen = |name: &str, value: &str| {
            let options = EventOptions {
                filters: Filters::new().with(name, value),
                ..EventOptions::default()
            };
            events.listen(options).unwrap()
        };
        let (mut all, mut tasks) = (listen("scope", "swarm"), listen("type", "task"));
        let mut service = listen("service", "web");
        for (kind, id, nanoseconds) in [("task", "t1", 1), ("service", "s1", 2)] {
            let name = [("name", "web")];
            events.cluster(EventMessage {
                scope: "swarm".into(),
                time_nano: nanoseconds,
                ..message(kind, "update", id, owned(&name).collect())
            });
        }
        let told = |event: EventMessage| (event.kind, event.time_nano);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            assert_eq!(all.next().await.map(told), Some(("service".into(), 2)));
            assert_eq!(service.next().await.map(told), Some(("service".into(), 2)));
            assert_eq!(tasks.next().await.map(told), Some(("task".into(), 1)));
        });
        assert_eq!(past(&events, Filters::new()), ["service update"]);
    }

    #[test]
    fn the_past_is_bounded() {
        let events = Events::new();
        for _ in 0..REMEMBERED + 10 {
            events.other("volume", "v", "create", &[]);
        }
        assert_eq!(past(&events, Filters::new()).len(), REMEMBERED);
    }

    #[tokio::test]
    async fn live_events_follow_past_ones_without_gap() {
        let events = sample();
        let options = EventOptions {
            since: Some(Timestamp::UNIX_EPOCH),
            ..EventOptions::default()
        };
        let mut stream = events.listen(options).unwrap();
        events.other("volume", "data", "destroy", &[]);
        let mut seen = Vec::new();
        for _ in 0..5 {
            seen.push(stream.next().await.unwrap().action);
        }
        assert_eq!(seen.last().unwrap(), "destroy");
    }
}
