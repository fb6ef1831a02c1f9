//! Nodes. Source: docker/cli `cli/command/node`.

mod inspect;
mod list;

use super::each;
use super::tasks::TaskListFlags;
use crate::connect::Session;
use crate::failure::{Failure, Outcome, describe};
use crate::flags::env;
use crate::out;
use agent_api::Client;
use agent_api::swarm::{NodeRole, NodeSpec};
use clap::{Args, Subcommand, ValueEnum};

/// Manage Swarm nodes
#[derive(Debug, Subcommand)]
pub(crate) enum NodeVerb {
    /// Demote one or more nodes from manager in the swarm
    Demote(NodesArgs),
    Inspect(inspect::InspectArgs),
    #[command(alias = "list")]
    Ls(list::LsArgs),
    /// Promote one or more nodes to manager in the swarm
    Promote(NodesArgs),
    Ps(PsArgs),
    #[command(alias = "remove")]
    Rm(RmArgs),
    Update(UpdateArgs),
}

pub(crate) async fn run(session: &Session, verb: NodeVerb) -> Outcome {
    match verb {
        NodeVerb::Demote(args) => change_role(session, args, NodeRole::Worker).await,
        NodeVerb::Inspect(args) => inspect::run(session, args).await,
        NodeVerb::Ls(args) => list::run(session, args).await,
        NodeVerb::Promote(args) => change_role(session, args, NodeRole::Manager).await,
        NodeVerb::Ps(args) => ps(session, args).await,
        NodeVerb::Rm(args) => rm(session, args).await,
        NodeVerb::Update(args) => update(session, args).await,
    }
}

#[derive(Debug, Args)]
pub(crate) struct NodesArgs {
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

/// The id behind `self`, which means the daemon's own node.
async fn resolve(client: &Client, name: &str) -> anyhow::Result<String> {
    if name != "self" {
        return Ok(name.to_owned());
    }
    let id = client.info().await?.swarm.node_id;
    if id.is_empty() {
        return Err(Failure::new(
            1,
            "node ID not found in /info: this daemon is in no swarm: \"muster swarm init\" or \"muster swarm join\" brings it into one",
        )
        .into());
    }
    Ok(id)
}

async fn change_role(session: &Session, args: NodesArgs, role: NodeRole) -> Outcome {
    let client = session.client().await?;
    for name in &args.nodes {
        let mut node = client.inspect_node(&resolve(client, name).await?).await?;
        let (already, done) = match role {
            NodeRole::Manager => ("is already a manager", "promoted to a manager in the swarm"),
            NodeRole::Worker => ("is already a worker", "demoted in the swarm"),
        };
        if node.spec.role == role {
            out::line(format!("Node {} {already}.", node.id))?;
            continue;
        }
        node.spec.role = role;
        client
            .update_node(&node.id, node.version, &node.spec)
            .await?;
        match role {
            NodeRole::Manager => out::line(format!("Node {name} {done}."))?,
            NodeRole::Worker => out::line(format!("Manager {name} {done}."))?,
        }
    }
    Ok(0)
}

/// Remove one or more nodes from the swarm
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster node rm --force lost-host")]
pub(crate) struct RmArgs {
    /// Force remove a node from the swarm
    #[arg(short, long)]
    force: bool,
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

async fn rm(session: &Session, args: RmArgs) -> Outcome {
    let client = session.client().await?;
    each(&args.nodes, async |name| {
        client.remove_node(name, args.force).await?;
        Ok(())
    })
    .await
}

/// A role on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    Worker,
    Manager,
}

/// Update a node
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster node update --availability drain host2
  muster node update --label-add zone=a host1")]
pub(crate) struct UpdateArgs {
    /// Availability of the node
    #[arg(long, value_enum)]
    availability: Option<super::swarm::Availability>,
    /// Add or update a node label ("key=value")
    #[arg(long, value_name = "NAME=VALUE")]
    label_add: Vec<String>,
    /// Remove a node label if exists
    #[arg(long, value_name = "NAME")]
    label_rm: Vec<String>,
    /// Role of the node
    #[arg(long, value_enum)]
    role: Option<Role>,
    node: String,
}

impl UpdateArgs {
    fn merge(&self, spec: &mut NodeSpec) -> Result<(), String> {
        if let Some(role) = self.role {
            spec.role = match role {
                Role::Worker => NodeRole::Worker,
                Role::Manager => NodeRole::Manager,
            };
        }
        if let Some(availability) = self.availability {
            spec.availability = availability.into();
        }
        let labels = &mut spec.annotations.labels;
        labels.extend(env::labels(&[], &self.label_add)?);
        for key in &self.label_rm {
            if labels.shift_remove(key).is_none() {
                return Err(format!("key {key} doesn't exist in node's labels"));
            }
        }
        Ok(())
    }
}

async fn update(session: &Session, args: UpdateArgs) -> Outcome {
    let client = session.client().await?;
    let id = resolve(client, &args.node).await?;
    let mut node = client.inspect_node(&id).await?;
    args.merge(&mut node.spec)
        .map_err(|reason| Failure::new(1, reason))?;
    client
        .update_node(&node.id, node.version, &node.spec)
        .await?;
    out::line(&args.node)?;
    Ok(0)
}

/// List tasks running on one or more nodes, defaults to current node
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster node ps host1")]
pub(crate) struct PsArgs {
    #[command(flatten)]
    list: TaskListFlags,
    #[arg(value_name = "NODE", default_value = "self")]
    nodes: Vec<String>,
}

async fn ps(session: &Session, args: PsArgs) -> Outcome {
    let client = session.client().await?;
    let filters = args
        .list
        .filters()
        .map_err(|reason| Failure::new(1, reason))?;
    let (mut tasks, mut failed) = (Vec::new(), false);
    for name in &args.nodes {
        let found = async {
            let node = client.inspect_node(&resolve(client, name).await?).await?;
            let filters = filters.clone().with("node", node.id);
            anyhow::Ok(client.list_tasks(&filters).await?)
        };
        match found.await {
            Ok(found) => tasks.extend(found),
            Err(error) => {
                out::note(describe(&error));
                failed = true;
            }
        }
    }
    if !failed || !tasks.is_empty() {
        args.list.show(client, tasks).await?;
    }
    Ok(u8::from(failed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_are_added_and_only_those_there_are_removed() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: UpdateArgs,
        }
        let merge = |line: &str| {
            let line = <Line as clap::Parser>::try_parse_from(line.split(' ')).unwrap();
            let mut spec: NodeSpec = serde_json::from_value(
                json!({"Labels": {"old": "1"}, "Role": "worker", "Availability": "active"}),
            )
            .unwrap();
            line.args.merge(&mut spec)?;
            Ok::<_, String>(serde_json::to_value(spec).unwrap())
        };
        assert_eq!(
            merge("update --label-add a=b --label-rm old --availability drain --role manager n")
                .unwrap(),
            json!({"Labels": {"a": "b"}, "Role": "manager", "Availability": "drain"})
        );
        assert_eq!(
            merge("update --label-rm new n").unwrap_err(),
            "key new doesn't exist in node's labels"
        );
    }
}
