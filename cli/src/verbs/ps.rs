//! `ps`. Source: docker/cli `cli/command/container/list.go`, `cli/command/formatter/container.go`.

use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::flags::filter;
use crate::out;
use crate::render::rows::{self, Format};
use crate::render::template::{Row, Value};
use crate::render::units::human_size_3;
use agent_api::client::ListContainersOptions;
use agent_api::{ContainerSummary, Port};
use clap::Args;
use jiff::Timestamp;

/// List containers
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster ps -a
  muster ps -q --filter label=app=web
  muster ps --format 'table {{.Names}}\\t{{.Status}}'")]
pub(crate) struct PsArgs {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    all: bool,
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Show n last created containers (includes all states)
    #[arg(short = 'n', long, default_value_t = -1, hide_default_value = true)]
    last: i64,
    /// Show the latest created container (includes all states)
    #[arg(short, long)]
    latest: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only display container IDs
    #[arg(short, long)]
    quiet: bool,
    /// Display total file sizes
    #[arg(short, long)]
    size: bool,
}

const TITLES: rows::Titles = &[
    ("ID", "CONTAINER ID"),
    ("Names", "NAMES"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
];

pub(crate) async fn run(session: &Session, args: PsArgs) -> Outcome {
    let filters = filter::filters(&args.filter).map_err(|reason| Failure::new(1, reason))?;
    let last = if args.latest { 1 } else { args.last };
    let options = ListContainersOptions {
        all: args.all || last > 0,
        limit: (last > 0).then_some(last),
        // Asking for sizes is slow: only when a template or the flag shows them.
        size: args.size
            || args
                .format
                .as_deref()
                .is_some_and(|format| format.contains(".Size") || format.contains("json .")),
        filters,
    };
    let containers = session.client().await?.list_containers(&options).await?;
    let mut table =
        "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
            .to_owned();
    if args.size {
        table.push_str("\t{{.Size}}");
    }
    let format = Format {
        flag: args.format.as_deref(),
        quiet: args.quiet,
        quiet_field: "ID",
        table: &table,
        titles: TITLES,
    };
    let now = Timestamp::now();
    let rows = containers
        .iter()
        .map(|container| row(container, !args.no_trunc, now))
        .collect();
    out::text(&rows::render(&format, rows)?)?;
    Ok(0)
}

fn row(container: &ContainerSummary, trunc: bool, now: Timestamp) -> Row {
    let mut size = human_size_3(container.size_rw.unwrap_or(0).max(0));
    if let Some(root) = container.size_root_fs.filter(|&size| size > 0) {
        size = format!("{size} (virtual {})", human_size_3(root));
    }
    let mounts = container.mounts.iter().map(|mount| {
        let name = if mount.name.is_empty() {
            &mount.source
        } else {
            &mount.name
        };
        if trunc {
            ellipsis(name, 15)
        } else {
            name.clone()
        }
    });
    let command = if trunc {
        ellipsis(&container.command, 20)
    } else {
        container.command.clone()
    };
    let local_volumes = container
        .mounts
        .iter()
        .filter(|mount| mount.driver == "local")
        .count();
    Row::new()
        .with(
            "ID",
            if trunc {
                short_id(&container.id)
            } else {
                &container.id
            },
        )
        .with("Names", names(&container.names, trunc).join(","))
        .with("Image", image(container, trunc))
        .with("Command", crate::render::json::compact(&command))
        .with("CreatedAt", super::created_at(container.created))
        .with("RunningFor", super::ago(container.created, now))
        .with("Ports", ports(&container.ports))
        .with("State", state(container))
        .with("Status", container.status.as_str())
        .with("Size", size)
        .with("Labels", super::join_labels(&container.labels))
        .with("Mounts", mounts.collect::<Vec<_>>().join(","))
        .with("LocalVolumes", local_volumes.to_string())
        .with(
            "Networks",
            container
                .network_settings
                .networks
                .keys()
                .cloned()
                .collect::<Vec<_>>()
                .join(","),
        )
        .with("Platform", Value::default())
        .labels(container.labels.clone())
}

fn state(container: &ContainerSummary) -> String {
    serde_json::to_value(container.state)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// Without the slash; truncated, the names other containers' links gave it are left out.
fn names(names: &[String], trunc: bool) -> Vec<&str> {
    let names = names
        .iter()
        .map(|name| name.strip_prefix('/').unwrap_or(name));
    names.filter(|name| !trunc || !name.contains('/')).collect()
}

fn image(container: &ContainerSummary, trunc: bool) -> String {
    if container.image.is_empty() {
        return "<no image>".to_owned();
    }
    if trunc {
        if short_id(&container.image_id) == short_id(&container.image) {
            return short_id(&container.image_id).to_owned();
        }
        if let Some((name, _)) = container.image.split_once('@') {
            return name.to_owned();
        }
    }
    container.image.clone()
}

/// Twelve characters, without the algorithm.
pub(crate) fn short_id(id: &str) -> &str {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    id.get(..12).unwrap_or(id)
}

/// At most `width` characters, the last one a sign that something is missing.
pub(crate) fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

/// Published ports first grouped into ranges, then those whose numbers differ.
pub(crate) fn ports(ports: &[Port]) -> String {
    struct Group<'a> {
        address: Option<&'a str>,
        protocol: &'a str,
        first: u16,
        last: u16,
    }
    let join = |address: &str, port: &str| {
        if address.contains(':') {
            format!("[{address}]:{port}")
        } else {
            format!("{address}:{port}")
        }
    };
    let write = |group: &Group<'_>| {
        let range = match group.last {
            last if last == group.first => last.to_string(),
            last => format!("{}-{last}", group.first),
        };
        match group.address {
            Some(address) => format!("{}->{range}/{}", join(address, &range), group.protocol),
            None => format!("{range}/{}", group.protocol),
        }
    };
    let mut sorted: Vec<_> = ports.iter().collect();
    sorted.sort_by_key(|port| {
        (
            port.private_port,
            port.ip.as_deref(),
            port.public_port,
            port.protocol.as_str(),
        )
    });
    let mut groups: Vec<Group<'_>> = Vec::new();
    let (mut done, mut mapped) = (Vec::new(), Vec::new());
    for port in sorted {
        let address = port.ip.as_deref().filter(|ip| !ip.is_empty());
        let public = port.public_port.unwrap_or(0);
        if let Some(address) = address.filter(|_| public != port.private_port) {
            mapped.push(format!(
                "{}->{}/{}",
                join(address, &public.to_string()),
                port.private_port,
                port.protocol
            ));
            continue;
        }
        match groups
            .iter_mut()
            .find(|group| group.address == address && group.protocol == port.protocol)
        {
            Some(group) if group.last.checked_add(1) == Some(port.private_port) => {
                group.last = port.private_port
            }
            Some(group) => {
                done.push(write(group));
                (group.first, group.last) = (port.private_port, port.private_port);
            }
            None => groups.push(Group {
                address,
                protocol: &port.protocol,
                first: port.private_port,
                last: port.private_port,
            }),
        }
    }
    done.extend(groups.iter().map(write));
    done.append(&mut mapped);
    done.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(text: &str) -> Port {
        // address/public/private/protocol
        let parts: Vec<_> = text.split('/').collect();
        Port {
            ip: (!parts[0].is_empty()).then(|| parts[0].to_owned()),
            public_port: parts[1].parse().ok(),
            private_port: parts[2].parse().unwrap(),
            protocol: parts[3].to_owned(),
        }
    }

    #[test]
    fn ports_are_grouped_as_docker_does() {
        for (given, expected) in [
            (
                vec!["0.0.0.0/18080/80/tcp", "::/18080/80/tcp"],
                "0.0.0.0:18080->80/tcp, [::]:18080->80/tcp",
            ),
            (vec!["//80/tcp"], "80/tcp"),
            (
                vec!["//81/tcp", "//80/tcp", "//82/tcp", "//90/tcp"],
                "80-82/tcp, 90/tcp",
            ),
            (
                vec!["0.0.0.0/80/80/tcp", "0.0.0.0/81/81/tcp"],
                "0.0.0.0:80-81->80-81/tcp",
            ),
            (vec!["//53/udp", "//53/tcp"], "53/tcp, 53/udp"),
            (vec![], ""),
        ] {
            let given: Vec<_> = given.into_iter().map(port).collect();
            assert_eq!(ports(&given), expected);
        }
    }

    #[test]
    fn a_row_is_what_docker_prints() {
        let json = serde_json::json!({
            "Id": "06f143112c23314d591906f6f39e7ea6", "Names": ["/clitest", "/other/link"], "Image": "busybox",
            "ImageID": "sha256:63caa373f578", "Command": "sh -c 'while true; do sleep 1; done'", "Created": 1000,
            "Ports": [], "Labels": {"b": "1", "a": "2"}, "State": "running", "Status": "Up 5 seconds",
            "NetworkSettings": {"Networks": {"bridge": null}},
            "Mounts": [{"Type": "volume", "Name": "0123456789abcdef0123", "Driver": "local"}]
        });
        let mut json = json;
        json["NetworkSettings"]["Networks"]["bridge"] = serde_json::json!({});
        let container: ContainerSummary = serde_json::from_value(json).unwrap();
        let row = Value::from(row(&container, true, Timestamp::from_second(1090).unwrap()));
        let text = crate::render::json::compact(&row.to_json());
        assert_eq!(
            text,
            r#"{"Command":"\"sh -c 'while true; …\"","CreatedAt":"1970-01-01 00:16:40 +0000 UTC","ID":"06f143112c23","Image":"busybox","Labels":"a=2,b=1","LocalVolumes":"1","Mounts":"0123456789abcd…","Names":"clitest","Networks":"bridge","Platform":null,"Ports":"","RunningFor":"About a minute ago","Size":"0B","State":"running","Status":"Up 5 seconds"}"#
        );
    }
}
