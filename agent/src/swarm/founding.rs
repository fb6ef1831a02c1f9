//! The first objects of a new swarm. Pure but for the keys it makes.

use agent_api::swarm::{NodeAvailability, NodeRole, NodeSpec, Reachability, SwarmInitRequest};
use cluster::ca::{
    CertificateRequest, Identity, NodeKey, NodeSubject, RaftKey, RootCa, TokenSecret,
};
use cluster::control;
use cluster::store::Transaction;
use cluster_api::{
    Cluster, IdSource, Network, Node, RaftMember, RootCa as StoredRoot, Timestamp, TokenSecrets,
};
use ipnet::IpNet;

use super::address::Addresses;
use crate::error::{Error, Result};

/// Where overlay networks' subnets come from unless asked otherwise, as in Docker.
const DEFAULT_POOL: &str = "10.0.0.0/8";
/// Prefix length of a subnet of a pool that was asked for, and what the docker CLI sends when it was told nothing.
const SUBNET_SIZE: u32 = 24;
/// Of the default pool: room for 4,000 tasks, where Docker's networks are full at 250.
const WIDE_SUBNET_SIZE: u32 = 20;
/// IANA's port of VXLAN.
const DEFAULT_DATA_PATH_PORT: u32 = 4789;

/// A swarm before its first manager runs.
pub(super) struct Founding {
    pub(super) cluster_id: String,
    pub(super) identity: Identity,
    pub(super) objects: Transaction,
}

/// Makes the swarm's root, this node's identity and the first objects.
pub(super) fn found(
    request: &SwarmInitRequest,
    addresses: &Addresses,
    ids: &mut IdSource,
    now: Timestamp,
) -> Result<Founding> {
    refuse_unsupported(request)?;
    let refused = |refusal: control::Refusal| Error::from(refusal);
    let spec = control::initial_spec(&request.spec).map_err(refused)?;
    let (address_pools, subnet_size) = pools(request)?;
    let data_path_port = data_path_port(request.data_path_port)?;
    let root = RootCa::create(now).map_err(system)?;
    let key = NodeKey::generate().map_err(system)?;
    let certificate_request = key
        .request()
        .and_then(|der| CertificateRequest::from_der(&der))
        .map_err(system)?;
    let cluster_id = ids.id();
    let node_id = certificate_request.node_id();
    let tokens = TokenSecrets {
        worker: TokenSecret::generate(ids).as_str().to_owned(),
        manager: TokenSecret::generate(ids).as_str().to_owned(),
    };
    let trust = root.trust();
    let cluster = Cluster {
        id: cluster_id.clone(),
        spec,
        root_ca: StoredRoot {
            certificate: trust.pem(),
            key: root.key_pem().to_string(),
            tokens,
        },
        address_pools,
        subnet_size,
        data_path_port,
        ..Cluster::default()
    };
    let subject = NodeSubject {
        node_id: node_id.clone(),
        role: NodeRole::Manager,
        cluster_id: cluster_id.clone(),
    };
    let validity = match cluster.spec.ca_config.node_cert_expiry {
        0 => cluster::ca::DEFAULT_VALIDITY,
        nanoseconds => std::time::Duration::from_nanos(nanoseconds),
    };
    let certificate = root
        .issue(&certificate_request, &subject, validity, now)
        .map_err(system)?;
    let mut objects = Transaction::new(now);
    objects.create(cluster);
    objects.create(Node {
        id: node_id,
        spec: NodeSpec {
            role: NodeRole::Manager,
            availability: request.availability.unwrap_or(NodeAvailability::Active),
            ..NodeSpec::default()
        },
        role: NodeRole::Manager,
        member: Some(RaftMember {
            raft_id: 1,
            addr: addresses.advertise.to_string(),
            reachability: Reachability::Reachable,
        }),
        data_path_addr: Some(addresses.data_path),
        ..Node::default()
    });
    objects.create(Network {
        id: ids.id(),
        spec: control::ingress_spec(),
        ..Network::default()
    });
    Ok(Founding {
        cluster_id,
        identity: Identity {
            root: trust.clone(),
            certificate,
            key,
            raft_key: RaftKey::generate().map_err(system)?,
        },
        objects,
    })
}

fn refuse_unsupported(request: &SwarmInitRequest) -> Result<()> {
    if request.force_new_cluster {
        return Err(Error::unsupported("--force-new-cluster"));
    }
    if request.auto_lock_managers || request.spec.encryption_config.auto_lock_managers {
        return Err(Error::unsupported("--autolock"));
    }
    Ok(())
}

fn pools(request: &SwarmInitRequest) -> Result<(Vec<IpNet>, u8)> {
    let given = match &request.default_addr_pool[..] {
        [] => vec![DEFAULT_POOL.to_owned()],
        given => given.to_vec(),
    };
    let mut pools: Vec<IpNet> = Vec::new();
    for text in given {
        let pool: IpNet = text.parse().map_err(|error| {
            Error::invalid(format!("invalid default address pool {text:?}: {error}"))
        })?;
        if let Some(other) = pools
            .iter()
            .find(|other| other.contains(&pool) || pool.contains(*other))
        {
            return Err(Error::invalid(format!(
                "default address pools {other} and {pool} overlap"
            )));
        }
        pools.push(pool.trunc());
    }
    let size = match request.subnet_size {
        0 | SUBNET_SIZE if request.default_addr_pool.is_empty() => WIDE_SUBNET_SIZE,
        0 => SUBNET_SIZE,
        size => size,
    };
    for pool in &pools {
        let widest = u32::from(pool.prefix_len());
        if !(widest..=29).contains(&size) && pool.addr().is_ipv4() {
            return Err(Error::invalid(format!(
                "invalid default address pool subnet size {size}: between {widest} and 29 fit into {pool}"
            )));
        }
    }
    let size =
        u8::try_from(size).map_err(|_| Error::invalid(format!("invalid subnet size {size}")))?;
    Ok((pools, size))
}

/// As moby `daemon/cluster/swarm.go`: what privileged and ephemeral ports leave.
fn data_path_port(asked: u32) -> Result<u16> {
    match asked {
        0 => Ok(u16::try_from(DEFAULT_DATA_PATH_PORT).expect("a port")),
        asked => u16::try_from(asked)
            .ok()
            .filter(|port| (1024..=49151).contains(port))
            .ok_or_else(|| Error::invalid("Datapath port number (1024-49151) is not valid")),
    }
}

fn system(error: impl std::fmt::Display) -> Error {
    Error::system(format!("cannot make the identity of a swarm: {error}"))
}

#[cfg(test)]
mod tests {
    use cluster::store::Store;

    use super::*;

    fn addresses() -> Addresses {
        Addresses {
            listen: "0.0.0.0:2377".parse().unwrap(),
            advertise: "192.0.2.1:2377".parse().unwrap(),
            data_path: "192.0.2.1".parse().unwrap(),
        }
    }

    fn founded(request: &SwarmInitRequest) -> Result<Founding> {
        let now = Timestamp(1_700_000_000_000_000_000);
        found(request, &addresses(), &mut IdSource::seeded(1), now)
    }

    #[test]
    fn a_swarm_begins_with_itself_its_first_manager_and_the_ingress_network() {
        let founding = founded(&SwarmInitRequest::default()).unwrap();
        founding.identity.check().unwrap();
        let mut store = Store::default();
        store.apply(2, &founding.objects).unwrap();
        let cluster = store.cluster().unwrap();
        assert_eq!(cluster.id, founding.cluster_id);
        assert_eq!((cluster.subnet_size, cluster.data_path_port), (20, 4789));
        let node = store.nodes().next().unwrap();
        assert_eq!(node.id, founding.identity.certificate.subject.node_id);
        assert_eq!(node.member.as_ref().unwrap().addr, "192.0.2.1:2377");
        assert!(store.networks().next().unwrap().spec.ingress);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (request, text) in [
            (
                SwarmInitRequest {
                    force_new_cluster: true,
                    ..Default::default()
                },
                "--force-new-cluster is not supported",
            ),
            (
                SwarmInitRequest {
                    auto_lock_managers: true,
                    ..Default::default()
                },
                "--autolock is not supported",
            ),
            (
                SwarmInitRequest {
                    data_path_port: 80,
                    ..Default::default()
                },
                "Datapath port number (1024-49151) is not valid",
            ),
            (
                SwarmInitRequest {
                    default_addr_pool: vec!["10.0.0.0/8".into(), "10.1.0.0/16".into()],
                    ..Default::default()
                },
                "10.0.0.0/8 and 10.1.0.0/16 overlap",
            ),
            (
                SwarmInitRequest {
                    default_addr_pool: vec!["10.0.0.0/16".into()],
                    subnet_size: 8,
                    ..Default::default()
                },
                "between 16 and 29",
            ),
        ] {
            let error = founded(&request)
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default();
            assert!(error.contains(text), "{error}");
        }
    }
}
