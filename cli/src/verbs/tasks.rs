//! Lists of tasks: `service ps`, `node ps`, `stack ps`. Source: docker/cli `cli/command/task`, `cli/command/idresolver`.

use super::ps::ellipsis;
use crate::flags::filter;
use crate::out;
use crate::render::rows::{self, Format};
use crate::render::template::Row;
use crate::render::units::human_duration;
use agent_api::swarm::{PortConfig, Task, TaskState};
use agent_api::{Client, Filters};
use clap::Args;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Letters of an error that a table shows.
const ERROR_WIDTH: usize = 30;
/// Letters of an id that a table shows.
const ID_WIDTH: usize = 12;

/// How tasks are listed.
#[derive(Debug, Clone, Args)]
pub(super) struct TaskListFlags {
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Pretty-print tasks using a Go template
    #[arg(long)]
    format: Option<String>,
    /// Do not map IDs to Names
    #[arg(long)]
    no_resolve: bool,
    /// Do not truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only display task IDs
    #[arg(short, long)]
    quiet: bool,
}

impl TaskListFlags {
    pub(super) fn filters(&self) -> Result<Filters, String> {
        filter::filters(&self.filter)
    }

    /// Prints tasks, those of one slot together and the newest of them first.
    pub(super) async fn show(&self, client: &Client, tasks: Vec<Task>) -> anyhow::Result<()> {
        let names = if self.no_resolve {
            Names::default()
        } else {
            Names::of(client).await?
        };
        let rows = self.rows(tasks, &names, Timestamp::now());
        let format = Format {
            flag: self.format.as_deref(),
            quiet: self.quiet,
            quiet_field: "ID",
            table: "{{.ID}}\t{{.Name}}\t{{.Image}}\t{{.Node}}\t{{.DesiredState}}\t{{.CurrentState}}\t{{.Error}}\t{{.Ports}}",
            titles: &[
                ("ID", "ID"),
                ("Name", "NAME"),
                ("Image", "IMAGE"),
                ("Node", "NODE"),
                ("DesiredState", "DESIRED STATE"),
                ("CurrentState", "CURRENT STATE"),
                ("Error", "ERROR"),
                ("Ports", "PORTS"),
            ],
        };
        out::text(&rows::render(&format, rows)?)?;
        Ok(())
    }

    fn is_table(&self) -> bool {
        let format = self.format.as_deref().unwrap_or("table").trim();
        !self.quiet && (format.is_empty() || format.starts_with("table"))
    }

    fn rows(&self, tasks: Vec<Task>, names: &Names, now: Timestamp) -> Vec<Row> {
        let mut named: Vec<(String, Task)> = tasks
            .into_iter()
            .map(|task| (names.task(&task), task))
            .collect();
        named.sort_by(|(a, first), (b, second)| {
            super::natural(a, b).then_with(|| second.created_at.cmp(&first.created_at))
        });
        let mut before = None;
        let mut rows = Vec::with_capacity(named.len());
        for (name, task) in named {
            let shown = if self.is_table() && before.as_ref() == Some(&name) {
                format!(r" \_ {name}")
            } else {
                name.clone()
            };
            before = Some(name);
            rows.push(self.row(shown, &task, names, now));
        }
        rows
    }

    fn row(&self, name: String, task: &Task, names: &Names, now: Timestamp) -> Row {
        let cut = |text: &str, width: usize| match self.no_trunc {
            true => text.to_owned(),
            false => text.chars().take(width).collect(),
        };
        let image = task
            .spec
            .container_spec
            .as_ref()
            .map(|container| container.image.as_str())
            .unwrap_or_default();
        let image = if self.no_trunc {
            image
        } else {
            without_digest(image)
        };
        let mut error = task.status.err.clone();
        if !self.no_trunc {
            error = ellipsis(&error, ERROR_WIDTH);
        }
        if !error.is_empty() {
            error = format!("\"{error}\"");
        }
        Row::new()
            .with("ID", cut(&task.id, ID_WIDTH))
            .with("Name", name)
            .with("Image", image)
            .with("Node", names.node(&task.node_id))
            .with("DesiredState", title(task.desired_state.word()))
            .with(
                "CurrentState",
                current(task.status.state, &task.status.timestamp, now),
            )
            .with("Error", error)
            .with("Ports", ports(&task.status.port_status.ports))
    }
}

/// `Running 5 minutes ago`
fn current(state: TaskState, since: &str, now: Timestamp) -> String {
    let seconds = since
        .parse::<Timestamp>()
        .map_or(0, |since| now.as_second() - since.as_second());
    let age = human_duration(seconds).to_lowercase();
    format!("{} {age} ago", title(state.word()))
}

/// `*:8080->80/tcp`
fn ports(ports: &[PortConfig]) -> String {
    let shown = ports.iter().map(|port| {
        format!(
            "*:{}->{}/{}",
            port.published_port, port.target_port, port.protocol
        )
    });
    shown.collect::<Vec<_>>().join(",")
}

/// `running` → `Running`
pub(super) fn title(word: &str) -> String {
    let mut letters = word.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

/// `redis:7@sha256:…` → `redis:7`; a digest without a tag stays.
pub(super) fn without_digest(image: &str) -> &str {
    match image.split_once('@') {
        Some((name, _))
            if name
                .rsplit('/')
                .next()
                .is_some_and(|last| last.contains(':')) =>
        {
            name
        }
        _ => image,
    }
}

/// Names of services and nodes by id; an id that is not known is its own name.
#[derive(Debug, Default)]
pub(super) struct Names {
    services: BTreeMap<String, String>,
    nodes: BTreeMap<String, String>,
}

impl Names {
    pub(super) async fn of(client: &Client) -> anyhow::Result<Self> {
        let all = Filters::new();
        let (services, nodes) =
            tokio::try_join!(client.list_services(&all, false), client.list_nodes(&all))?;
        Ok(Self {
            services: services
                .into_iter()
                .map(|service| (service.id, service.spec.annotations.name))
                .collect(),
            nodes: nodes
                .into_iter()
                .map(|node| {
                    let named = node.spec.annotations.name;
                    let host = node.description.hostname;
                    (node.id, if named.is_empty() { host } else { named })
                })
                .collect(),
        })
    }

    pub(super) fn service<'a>(&'a self, id: &'a str) -> &'a str {
        self.services.get(id).map_or(id, String::as_str)
    }

    pub(super) fn node<'a>(&'a self, id: &'a str) -> &'a str {
        self.nodes.get(id).map_or(id, String::as_str)
    }

    fn task(&self, task: &Task) -> String {
        let service = self.service(&task.service_id);
        match task.slot {
            0 => format!("{service}.{}", task.node_id),
            slot => format!("{service}.{slot}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn flags(no_trunc: bool) -> TaskListFlags {
        TaskListFlags {
            filter: Vec::new(),
            format: None,
            no_resolve: false,
            no_trunc,
            quiet: false,
        }
    }

    #[test]
    fn tasks_of_a_slot_stand_together_the_newest_first() {
        let task = |id: &str, slot: u64, created: &str, state: &str| -> Task {
            serde_json::from_value(json!({
                "ID": id, "ServiceID": "s1", "Slot": slot, "NodeID": "n1", "CreatedAt": created, "DesiredState": "running",
                "Spec": {"ContainerSpec": {"Image": "web:1@sha256:ab"}},
                "Status": {"State": state, "Timestamp": "2026-01-01T00:00:00Z", "Err": "task: non-zero exit (1): a long story"},
            }))
            .unwrap()
        };
        let names = Names {
            services: BTreeMap::from([("s1".to_owned(), "web".to_owned())]),
            nodes: BTreeMap::from([("n1".to_owned(), "host".to_owned())]),
        };
        let now: Timestamp = "2026-01-01T00:05:00Z".parse().unwrap();
        let tasks = vec![
            task("aaaaaaaaaaaaaaaaaaaa", 2, "1", "failed"),
            task("bbbbbbbbbbbbbbbbbbbb", 10, "1", "running"),
            task("cccccccccccccccccccc", 2, "2", "running"),
        ];
        let rows = flags(false).rows(tasks, &names, now);
        let format = Format {
            flag: None,
            quiet: false,
            quiet_field: "ID",
            table: "{{.ID}}|{{.Name}}|{{.Image}}|{{.Node}}|{{.CurrentState}}|{{.Error}}",
            titles: &[
                ("ID", "ID"),
                ("Name", "NAME"),
                ("Image", "IMAGE"),
                ("Node", "NODE"),
                ("CurrentState", "CURRENT STATE"),
                ("Error", "ERROR"),
            ],
        };
        assert_eq!(
            rows::render(&format, rows).unwrap(),
            "ID|NAME|IMAGE|NODE|CURRENT STATE|ERROR\n\
             cccccccccccc|web.2|web:1|host|Running 5 minutes ago|\"task: non-zero exit (1): a lo…\"\n\
             aaaaaaaaaaaa| \\_ web.2|web:1|host|Failed 5 minutes ago|\"task: non-zero exit (1): a lo…\"\n\
             bbbbbbbbbbbb|web.10|web:1|host|Running 5 minutes ago|\"task: non-zero exit (1): a lo…\"\n"
        );
    }

    #[test]
    fn digests_are_hidden_where_a_tag_says_enough() {
        assert_eq!(without_digest("h:5000/a:1@sha256:ab"), "h:5000/a:1");
        assert_eq!(without_digest("h:5000/a@sha256:ab"), "h:5000/a@sha256:ab");
    }
}
