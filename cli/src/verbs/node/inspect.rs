//! `node inspect`, also for people.

use super::list::{availability, reachability, state};
use super::resolve;
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::out;
use crate::render::units::bytes_size;
use crate::verbs::payload::long_time;
use agent_api::client::ObjectKind;
use agent_api::swarm::{Node, TlsInfo};
use clap::Args;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Display detailed information on one or more nodes
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster node inspect --pretty self")]
pub(crate) struct InspectArgs {
    /// Format output: 'json' or a Go template
    #[arg(short, long)]
    format: Option<String>,
    /// Print the information in a human friendly format
    #[arg(long)]
    pretty: bool,
    #[arg(required = true, value_name = "self|NODE")]
    nodes: Vec<String>,
}

pub(super) async fn run(session: &Session, args: InspectArgs) -> Outcome {
    let client = session.client().await?;
    let mut names = Vec::new();
    for name in &args.nodes {
        names.push(resolve(client, name).await?);
    }
    if !args.pretty {
        let kinds = &[ObjectKind::Node];
        let format = args.format.as_deref();
        return crate::verbs::inspect::show(client, kinds, &names, format, &Default::default())
            .await;
    }
    if args.format.is_some() {
        return Err(Failure::new(1, "--format is incompatible with human friendly format").into());
    }
    for name in &names {
        out::text(&pretty(&client.inspect_node(name).await?))?;
    }
    Ok(0)
}

/// Docker's layout (`cli/command/node/formatter.go`).
fn pretty(node: &Node) -> String {
    let mut text = String::new();
    let mut line = |line: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "{line}");
    };
    let annotations = &node.spec.annotations;
    line(format_args!("ID:\t\t\t{}", node.id));
    if !annotations.name.is_empty() {
        line(format_args!("Name:\t\t\t{}", annotations.name));
    }
    let labels = |labels: &agent_api::Labels| {
        let sorted: BTreeMap<_, _> = labels.iter().collect();
        let pairs = sorted.into_iter().map(|(key, value)| match value.as_str() {
            "" => format!(" - {key}"),
            value => format!(" - {key}={value}"),
        });
        pairs.collect::<Vec<_>>()
    };
    if !annotations.labels.is_empty() {
        line(format_args!("Labels:"));
        for label in labels(&annotations.labels) {
            line(format_args!("{label}"));
        }
    }
    let description = &node.description;
    line(format_args!(
        "Hostname:              \t{}",
        description.hostname
    ));
    line(format_args!(
        "Joined at:             \t{}",
        long_time(&node.created_at)
    ));
    line(format_args!("Status:"));
    line(format_args!(" State:\t\t\t{}", state(node.status.state)));
    if !node.status.message.is_empty() {
        line(format_args!(
            " Message:              \t{}",
            node.status.message
        ));
    }
    line(format_args!(
        " Availability:         \t{}",
        availability(node.spec.availability)
    ));
    if !node.status.addr.is_empty() {
        line(format_args!(" Address:\t\t{}", node.status.addr));
    }
    if let Some(manager) = &node.manager_status {
        line(format_args!("Manager Status:"));
        line(format_args!(" Address:\t\t{}", manager.addr));
        line(format_args!(
            " Raft Status:\t\t{}",
            reachability(manager.reachability)
        ));
        let leader = if manager.leader { "Yes" } else { "No" };
        line(format_args!(" Leader:\t\t{leader}"));
    }
    line(format_args!("Platform:"));
    line(format_args!(
        " Operating System:\t{}",
        description.platform.os
    ));
    line(format_args!(
        " Architecture:\t\t{}",
        description.platform.architecture
    ));
    line(format_args!("Resources:"));
    line(format_args!(
        " CPUs:\t\t\t{}",
        description.resources.nano_cpus / 1_000_000_000
    ));
    line(format_args!(
        " Memory:\t\t{}",
        bytes_size(description.resources.memory_bytes)
    ));
    let mut plugins: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for plugin in &description.engine.plugins {
        plugins.entry(&plugin.kind).or_default().push(&plugin.name);
    }
    if !plugins.is_empty() {
        line(format_args!("Plugins:"));
    }
    for (kind, names) in plugins {
        line(format_args!(" {kind}:\t\t{}", names.join(", ")));
    }
    line(format_args!(
        "Engine Version:\t\t{}",
        description.engine.engine_version
    ));
    if !description.engine.labels.is_empty() {
        line(format_args!("Engine Labels:"));
        for label in labels(&description.engine.labels) {
            line(format_args!("{label}"));
        }
    }
    let tls = &description.tls_info;
    if *tls != TlsInfo::default() {
        line(format_args!("TLS Info:\n TrustRoot:\n{}", tls.trust_root));
        line(format_args!(
            " Issuer Subject:\t{}",
            tls.cert_issuer_subject
        ));
        line(format_args!(
            " Issuer Public Key:\t{}",
            tls.cert_issuer_public_key
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_for_people_has_dockers_layout() {
        let node: Node = serde_json::from_value(json!({
            "ID": "n1", "CreatedAt": "2026-01-02T03:04:05.6Z",
            "Spec": {"Labels": {"zone": "a", "ssd": ""}, "Role": "manager", "Availability": "drain"},
            "Description": {"Hostname": "host", "Platform": {"OS": "linux", "Architecture": "x86_64"},
                "Resources": {"NanoCPUs": 2_000_000_000_i64, "MemoryBytes": 1_073_741_824_i64},
                "Engine": {"EngineVersion": "1", "Plugins": [{"Type": "Network", "Name": "overlay"}, {"Type": "Network", "Name": "host"}]}},
            "Status": {"State": "ready", "Addr": "10.0.0.1"},
            "ManagerStatus": {"Leader": true, "Reachability": "reachable", "Addr": "10.0.0.1:2377"},
        }))
        .unwrap();
        assert_eq!(
            pretty(&node),
            "ID:\t\t\tn1\nLabels:\n - ssd\n - zone=a\nHostname:              \thost\n\
             Joined at:             \t2026-01-02 03:04:05.6 +0000 utc\nStatus:\n State:\t\t\tReady\n\
             \x20Availability:         \tDrain\n Address:\t\t10.0.0.1\nManager Status:\n Address:\t\t10.0.0.1:2377\n\
             \x20Raft Status:\t\tReachable\n Leader:\t\tYes\nPlatform:\n Operating System:\tlinux\n Architecture:\t\tx86_64\n\
             Resources:\n CPUs:\t\t\t2\n Memory:\t\t1GiB\nPlugins:\n Network:\t\toverlay, host\nEngine Version:\t\t1\n"
        );
    }
}
