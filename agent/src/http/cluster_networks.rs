//! Networks of the cluster beside the node's own: requests of `/networks` that are the managers' business (moby
//! `server/router/network`, `daemon/cluster/networks.go`).

use agent_api::swarm::{Annotations, Driver};
use agent_api::{Filters, Ipam, IpamConfig, Network, NetworkCreateRequest};
use cluster::control::{Request, view};
use cluster_api::{NetworkSpec, Subnet};
use ipnet::IpNet;

use super::Call;
use super::error::HttpError;
use crate::error::Error;

const OVERLAY: &str = "overlay";
const SWARM: &str = "swarm";

/// All networks of the cluster, and `own` without those of the cluster that are on their way out: this node keeps them
/// until their last task is gone. Where this node is no manager, or the managers cannot be asked, there is only what it
/// has itself.
pub(super) async fn all(call: &Call, mut own: Vec<Network>) -> (Vec<Network>, Vec<Network>) {
    if call.swarm.is_manager().is_err() {
        return (Vec::new(), own);
    }
    let Ok(networks) = call.swarm.read(|store, _| view::networks(store)).await else {
        return (Vec::new(), own);
    };
    own.retain(|network| {
        network.scope != SWARM || networks.iter().any(|other| other.id == network.id)
    });
    (networks, own)
}

/// Whether the filters of a list want the network. They were checked with the list of the node's own networks.
pub(super) fn is_wanted(network: &Network, filters: &Filters) -> bool {
    filters.any("driver", |driver| driver == network.driver)
        && filters.any("id", |id| network.id.starts_with(id))
        && filters.any("name", |name| network.name.contains(name))
        && filters.any("idOrName", |text| {
            network.id.starts_with(text) || network.name == text
        })
        && filters.any("scope", |scope| scope == SWARM)
        && filters.any("type", |kind| kind == "custom")
        && filters.labels_match(&network.labels)
        // Who uses it on other nodes is not told here, as in Docker.
        && !matches!(filters.boolean("dangling"), Ok(Some(false)))
}

/// The one network that is meant: by id before name before the beginning of an id; the node's view of a network of the
/// cluster, which tells its containers, before the managers'.
pub(super) fn pick(
    input: &str,
    scope: &str,
    own: Vec<Network>,
    of_cluster: Vec<Network>,
) -> Result<Network, HttpError> {
    let mut all = own;
    for network in of_cluster {
        if !all.iter().any(|other| other.id == network.id) {
            all.push(network);
        }
    }
    all.retain(|network| scope.is_empty() || network.scope == scope);
    let matching: [fn(&Network, &str) -> bool; 3] = [
        |network, input| network.id == input,
        |network, input| network.name == input,
        |network, input| network.id.starts_with(input),
    ];
    for (matches, by) in matching.into_iter().zip(["ID", "name", "ID prefix"]) {
        let found = all.iter().filter(|network| matches(network, input)).count();
        if found > 1 {
            return Err(HttpError::bad_request(format!(
                "{found} matches found based on {by}: network {input} is ambiguous"
            )));
        }
        if found == 1 {
            all.retain(|network| matches(network, input));
            break;
        }
        if by == "ID prefix" {
            all.clear();
        }
    }
    all.pop()
        .ok_or_else(|| HttpError::not_found(format!("network {input} not found")))
}

/// Refuses to put a container of no service on a network of the cluster: nobody allocates it an address there.
pub(super) async fn refuse_for_containers<'a>(
    call: &Call,
    wanted: impl IntoIterator<Item = &'a str>,
) -> Result<(), HttpError> {
    let own = call.engine.list_networks(Filters::new()).await?;
    let (of_cluster, own) = all(call, own).await;
    for input in wanted {
        if let Ok(network) = pick(input, "", own.clone(), of_cluster.clone())
            && network.scope == SWARM
        {
            return Err(HttpError::not_implemented(format!(
                "network {} belongs to the swarm: only services can be on it, containers cannot join it yet, attachable or not",
                network.name
            )));
        }
    }
    Ok(())
}

/// Whether a network like this is made by the managers.
pub(super) fn is_of_cluster(request: &NetworkCreateRequest) -> bool {
    request.driver == OVERLAY || request.scope == SWARM || request.ingress
}

/// Makes a network of the cluster; gives its id.
pub(super) async fn create(
    call: &Call,
    request: NetworkCreateRequest,
) -> Result<String, HttpError> {
    let spec = Box::new(spec(request)?);
    call.swarm.is_manager()?;
    call.create(Request::NetworkCreate { spec }).await
}

/// Removes networks of the cluster that nobody uses; gives their names. The ingress network stays.
pub(super) async fn prune(call: &Call, filters: &Filters) -> Result<Vec<String>, HttpError> {
    let until = crate::engine::until(filters)?;
    let mut deleted = Vec::new();
    for network in all(call, Vec::new()).await.0 {
        let created = network.created.parse::<jiff::Timestamp>().ok();
        let young = until.is_some_and(|until| created.is_none_or(|created| created >= until));
        if network.ingress || young || !filters.labels_match(&network.labels) {
            continue;
        }
        let request = Request::NetworkRemove {
            network: network.id.clone(),
        };
        match call.change(request).await {
            Ok(()) => deleted.push(network.name),
            Err(refused) if refused.message.contains(" is in use by ") => {}
            Err(refused) => {
                tracing::warn!(
                    network.id = network.id,
                    error = refused.message,
                    "not pruned"
                );
            }
        }
    }
    Ok(deleted)
}

fn spec(request: NetworkCreateRequest) -> Result<NetworkSpec, HttpError> {
    if request.scope == "local" {
        return Err(
            Error::Forbidden("cannot downgrade network scope for overlay networks".into()).into(),
        );
    }
    let from = request.config_from.unwrap_or_default();
    let ipam = request.ipam.unwrap_or_default();
    let unsupported = [
        (request.config_only, "ConfigOnly"),
        (!from.network.is_empty(), "ConfigFrom"),
        (
            request.enable_ipv4 == Some(false),
            "an overlay network without IPv4",
        ),
        (
            !["", "default"].contains(&ipam.driver.as_str()),
            "an IPAM driver",
        ),
        (
            ipam.options
                .as_ref()
                .is_some_and(|options| !options.is_empty()),
            "IPAM options",
        ),
        (
            ipam.config
                .iter()
                .any(|pool| !pool.aux_addresses.is_empty()),
            "AuxiliaryAddresses of overlay networks",
        ),
    ];
    if let Some((_, option)) = unsupported.into_iter().find(|(given, _)| *given) {
        return Err(Error::unsupported(option).into());
    }
    Ok(NetworkSpec {
        annotations: Annotations {
            name: request.name,
            labels: request.labels,
        },
        driver: Driver {
            name: request.driver,
            options: request.options,
        },
        internal: request.internal,
        attachable: request.attachable,
        ingress: request.ingress,
        ipv6: request.enable_ipv6.unwrap_or(false),
        subnets: subnets(&ipam)?,
    })
}

/// The subnets asked for; all that is wrong with them is said at once.
fn subnets(ipam: &Ipam) -> Result<Vec<Subnet>, HttpError> {
    let (mut subnets, mut problems) = (Vec::new(), Vec::new());
    for pool in &ipam.config {
        match subnet(pool) {
            Ok(found) => subnets.extend(found),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        Ok(subnets)
    } else {
        Err(HttpError::bad_request(format!(
            "invalid network config:\n{}",
            problems.join("\n")
        )))
    }
}

fn subnet(pool: &IpamConfig) -> Result<Option<Subnet>, String> {
    if *pool == IpamConfig::default() {
        return Ok(None);
    }
    let subnet: IpNet = pool.subnet.parse().map_err(|_| {
        format!(
            "invalid subnet {}: invalid CIDR block notation",
            pool.subnet
        )
    })?;
    if subnet.addr() != subnet.network() {
        return Err(format!(
            "invalid subnet {subnet}: it should be {}",
            subnet.trunc()
        ));
    }
    let range = match pool.ip_range.as_str() {
        "" => None,
        text => Some(
            text.parse::<IpNet>()
                .map_err(|_| format!("invalid ip-range {text}: invalid CIDR block notation"))?,
        ),
    };
    if let Some(range) = range
        && !subnet.contains(&range)
    {
        return Err(format!(
            "invalid ip-range {range}: parent subnet {subnet} doesn't contain ip-range"
        ));
    }
    let gateway = match pool.gateway.as_str() {
        "" => None,
        text => Some(
            text.parse()
                .map_err(|_| format!("invalid gateway {text}: invalid address"))?,
        ),
    };
    if let Some(gateway) = gateway
        && !subnet.contains(&gateway)
    {
        return Err(format!(
            "invalid gateway {gateway}: parent subnet {subnet} doesn't contain this address"
        ));
    }
    Ok(Some(Subnet {
        subnet,
        gateway,
        range,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(id: &str, name: &str, scope: &str) -> Network {
        Network {
            id: id.into(),
            name: name.into(),
            scope: scope.into(),
            ..Network::default()
        }
    }

    #[test]
    fn the_network_that_is_meant() {
        let own = || {
            vec![
                network("abc1", "front", "local"),
                network("def2", "over", "swarm"),
            ]
        };
        let of_cluster = || {
            vec![
                network("def2", "over", "swarm"),
                network("abd3", "front", "swarm"),
            ]
        };
        let picked = |input, scope| pick(input, scope, own(), of_cluster()).map(|found| found.id);
        assert_eq!(picked("abc1", ""), Ok("abc1".into()));
        assert_eq!(picked("over", ""), Ok("def2".into()));
        assert_eq!(picked("abc", ""), Ok("abc1".into()));
        assert_eq!(picked("front", "swarm"), Ok("abd3".into()));
        assert_eq!(picked("front", "local"), Ok("abc1".into()));
        let message = |input| picked(input, "").unwrap_err().message;
        assert_eq!(
            message("front"),
            "2 matches found based on name: network front is ambiguous"
        );
        assert_eq!(
            message("ab"),
            "2 matches found based on ID prefix: network ab is ambiguous"
        );
        assert_eq!(message("x"), "network x not found");
    }

    #[test]
    fn subnets_are_checked_as_docker_checks_them() {
        let refused = |subnet: &str, gateway: &str, range: &str| {
            let pool = IpamConfig {
                subnet: subnet.into(),
                gateway: gateway.into(),
                ip_range: range.into(),
                ..IpamConfig::default()
            };
            let ipam = Ipam {
                config: vec![pool],
                ..Ipam::default()
            };
            subnets(&ipam).unwrap_err().message
        };
        assert_eq!(
            refused("10.3.0.0/24", "10.4.0.1", ""),
            "invalid network config:\ninvalid gateway 10.4.0.1: parent subnet 10.3.0.0/24 doesn't contain this address"
        );
        assert_eq!(
            refused("xx", "", ""),
            "invalid network config:\ninvalid subnet xx: invalid CIDR block notation"
        );
        assert_eq!(
            refused("10.3.0.0/24", "", "10.9.0.0/28"),
            "invalid network config:\ninvalid ip-range 10.9.0.0/28: parent subnet 10.3.0.0/24 doesn't contain ip-range"
        );
        assert_eq!(
            refused("10.3.0.7/24", "", ""),
            "invalid network config:\ninvalid subnet 10.3.0.7/24: it should be 10.3.0.0/24"
        );
    }
}
