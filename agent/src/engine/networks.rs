//! The facade's operations on networks and volumes.

use agent_api::{
    EndpointResource, Filters, Ipam, IpamConfig, Network, NetworkConnectRequest,
    NetworkCreateRequest, NetworkCreateResponse, NetworkDisconnectRequest, PruneResponse, Volume,
    VolumeCreateRequest, VolumeListResponse,
};
use indexmap::IndexMap;
use jiff::Timestamp;
use netdriver::{NetworkInfo, NetworkSpec};

use super::Engine;
use super::list;
use super::shared::blocking;
use super::volumes::Creation;
use crate::error::{Error, Result};

const FILTERS: [&str; 8] = [
    "dangling", "driver", "id", "label", "name", "scope", "type", "idOrName",
];

/// The way out for containers on overlays; nobody's to prune.
const GATEWAY: &str = "docker_gwbridge";

impl Engine {
    /// Lists networks; their `containers` are empty, as in Docker.
    pub async fn list_networks(&self, filters: Filters) -> Result<Vec<Network>> {
        filters.allow(&FILTERS)?;
        let dangling = filters.boolean("dangling")?;
        for kind in filters.get("type") {
            if !matches!(kind, "builtin" | "custom") {
                return Err(Error::invalid(format!("invalid filter: 'type'='{kind}'")));
            }
        }
        let all = self.shared.networks.list();
        let matching = all.iter().filter(|info| {
            filters.any("driver", |driver| driver == info.driver.name())
                && filters.any("id", |id| info.id.starts_with(id))
                && filters.any("name", |name| info.name.contains(name))
                && filters.any("idOrName", |text| {
                    info.id.starts_with(text) || info.name == text
                })
                && filters.any("scope", |wanted| wanted == scope(info))
                && filters.any("type", |kind| (kind == "builtin") == info.predefined)
                && filters.labels_match(&info.labels)
                && dangling.is_none_or(|wanted| {
                    wanted == (!info.predefined && !self.network_is_used(info, &[]))
                })
        });
        Ok(matching.map(|info| describe(info, false)).collect())
    }

    /// A network by name, id or unique prefix of an id; a non-empty `scope` must be its own.
    pub async fn inspect_network(&self, reference: &str, scope: &str) -> Result<Network> {
        let found = self.shared.networks.inspect(reference)?;
        if !scope.is_empty() && scope != self::scope(&found) {
            return Err(Error::not_found(format!("network {reference} not found")));
        }
        Ok(describe(&found, true))
    }

    /// Creates a network.
    pub async fn create_network(
        &self,
        request: NetworkCreateRequest,
    ) -> Result<NetworkCreateResponse> {
        let spec = network_spec(request)?;
        let networks = self.shared.networks.clone();
        let info = blocking(move || Ok(networks.create(spec)?)).await?;
        self.network_event(&info, "create");
        Ok(NetworkCreateResponse {
            id: info.id,
            warning: String::new(),
        })
    }

    /// Removes a network that no container uses.
    pub async fn remove_network(&self, reference: &str) -> Result<()> {
        let (networks, reference) = (self.shared.networks.clone(), reference.to_owned());
        let info = blocking(move || Ok(networks.remove(&reference)?)).await?;
        self.network_event(&info, "destroy");
        Ok(())
    }

    /// Removes all networks that no container uses.
    pub async fn prune_networks(&self, filters: Filters) -> Result<PruneResponse> {
        let mut deleted = Vec::new();
        for info in self.prunable_networks(&filters, &[])? {
            match self.remove_network(&info.id).await {
                Ok(()) => deleted.push(info.name),
                Err(error) => tracing::warn!(network.id = info.id, %error, "not pruned"),
            }
        }
        self.shared.events.pruned("network", 0);
        Ok(PruneResponse {
            networks_deleted: Some(deleted),
            ..PruneResponse::default()
        })
    }

    /// The networks that filters choose and nobody uses; the containers with the ids `without` do not count.
    pub(super) fn prunable_networks(
        &self,
        filters: &Filters,
        without: &[String],
    ) -> Result<Vec<NetworkInfo>> {
        filters.allow(&["label", "label!", "until"])?;
        let until = list::until(filters)?;
        let mut networks = self.shared.networks.list();
        networks.retain(|info| {
            !info.predefined
                && info.name != GATEWAY
                && info.driver != netdriver::Driver::Overlay
                && until.is_none_or(|until| timestamp(info) < until)
                && !self.network_is_used(info, without)
                && filters.labels_match(&info.labels)
        });
        Ok(networks)
    }

    /// Whether a container that runs is connected, or one that does not run wants to be.
    fn network_is_used(&self, info: &NetworkInfo, without: &[String]) -> bool {
        let pictures = self.shared.registry.pictures();
        let counts = |id: &str| !without.iter().any(|own| own == id);
        !info.endpoints.is_empty()
            || pictures.iter().any(|container| {
                let mut names = container.definition.endpoints.keys();
                counts(container.id()) && names.any(|name| *name == info.name || *name == info.id)
            })
    }

    fn network_event(&self, info: &NetworkInfo, action: &str) {
        let attributes = [("name", info.name.as_str()), ("type", info.driver.name())];
        self.shared
            .events
            .other("network", &info.id, action, &attributes);
    }

    /// Connects a container to a network, at once if it runs, else at its start.
    pub async fn connect_network(
        &self,
        network: &str,
        request: NetworkConnectRequest,
    ) -> Result<()> {
        let settings = request.endpoint_config.unwrap_or_default();
        self.connect_container(&request.container, network, settings)
            .await
    }

    /// Disconnects a container from a network.
    pub async fn disconnect_network(
        &self,
        network: &str,
        request: NetworkDisconnectRequest,
    ) -> Result<()> {
        self.disconnect_container(&request.container, network, request.force)
            .await
    }

    /// Lists volumes.
    pub async fn list_volumes(&self, filters: Filters) -> Result<VolumeListResponse> {
        let volumes = self.shared.volumes.list(&filters, |name| {
            self.shared.registry.volume_users(name).len()
        })?;
        Ok(VolumeListResponse {
            volumes,
            warnings: None,
        })
    }

    /// One volume.
    pub async fn inspect_volume(&self, name: &str) -> Result<Volume> {
        self.shared.volumes.inspect(name)
    }

    /// Creates a volume, or returns the one there is.
    pub async fn create_volume(&self, request: VolumeCreateRequest) -> Result<Volume> {
        let shared = std::sync::Arc::clone(&self.shared);
        let (volume, creation) = blocking(move || shared.volumes.create(&request)).await?;
        if creation == Creation::Created {
            self.volume_event(&volume.name, "create");
        }
        Ok(volume)
    }

    /// Removes a volume that no container uses; `force` forgives its absence.
    pub async fn remove_volume(&self, name: &str, force: bool) -> Result<()> {
        let shared = std::sync::Arc::clone(&self.shared);
        let owned = name.to_owned();
        let removed = blocking(move || {
            let users = || shared.registry.volume_users(&owned);
            shared
                .volumes
                .remove(&owned, users, |directory| shared.records.discard(directory))
        })
        .await;
        match removed {
            Ok(()) => {
                self.volume_event(name, "destroy");
                Ok(())
            }
            Err(Error::NotFound(_)) if force => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes anonymous volumes that no container uses; named ones too with the filter `all`.
    pub async fn prune_volumes(&self, filters: Filters) -> Result<PruneResponse> {
        let users = |name: &str| self.shared.registry.volume_users(name).len();
        let mut deleted = Vec::new();
        let mut space_reclaimed = 0;
        for name in self.shared.volumes.prunable(&filters, users)? {
            let shared = std::sync::Arc::clone(&self.shared);
            let measured = name.clone();
            let size = blocking(move || Ok(shared.volumes.size(&measured))).await?;
            // One that came into use meanwhile stays.
            if self.remove_volume(&name, false).await.is_ok() {
                space_reclaimed += size;
                deleted.push(name);
            }
        }
        self.shared.events.pruned("volume", space_reclaimed);
        Ok(PruneResponse {
            volumes_deleted: Some(deleted),
            space_reclaimed,
            ..PruneResponse::default()
        })
    }

    fn volume_event(&self, name: &str, action: &str) {
        self.shared
            .events
            .other("volume", name, action, &[("driver", "local")]);
    }
}

fn timestamp(info: &NetworkInfo) -> Timestamp {
    Timestamp::try_from(info.created).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Overlays are here because a cluster wants them.
const fn scope(info: &NetworkInfo) -> &'static str {
    match info.driver {
        netdriver::Driver::Overlay => "swarm",
        _ => "local",
    }
}

/// A network as the API shows it.
fn describe(info: &NetworkInfo, with_containers: bool) -> Network {
    let text = |value: Option<String>| value.unwrap_or_default();
    let config = info.ipam.iter().map(|pool| IpamConfig {
        subnet: text(pool.subnet.map(|subnet| subnet.to_string())),
        ip_range: text(pool.ip_range.map(|range| range.to_string())),
        gateway: text(pool.gateway.map(|gateway| gateway.to_string())),
        aux_addresses: pool
            .auxiliary_addresses
            .iter()
            .map(|(name, address)| (name.clone(), address.to_string()))
            .collect(),
    });
    let containers = info
        .endpoints
        .iter()
        .filter(|_| with_containers)
        .map(|connected| {
            let endpoint = &connected.endpoint;
            let resource = EndpointResource {
                name: connected.name.clone(),
                endpoint_id: endpoint.id.clone(),
                mac_address: text(
                    endpoint
                        .mac
                        .map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":")),
                ),
                ipv4_address: text(endpoint.ipv4.map(|net| net.to_string())),
                ipv6_address: text(endpoint.ipv6.map(|net| net.to_string())),
            };
            (connected.sandbox_id.clone(), resource)
        });
    Network {
        name: info.name.clone(),
        id: info.id.clone(),
        created: timestamp(info).to_string(),
        scope: scope(info).to_owned(),
        driver: info.driver.name().to_owned(),
        enable_ipv4: info.enable_ipv4,
        enable_ipv6: info.enable_ipv6,
        ipam: Ipam {
            driver: "default".to_owned(),
            options: None,
            config: config.collect(),
        },
        internal: info.internal,
        attachable: info.attachable,
        containers: containers.collect(),
        options: info.options.clone(),
        labels: info.labels.clone(),
        ..Network::default()
    }
}

/// A request in netdriver's words; what netdriver does not know is refused by name.
fn network_spec(request: NetworkCreateRequest) -> Result<NetworkSpec> {
    if request.name.trim().is_empty() {
        return Err(Error::invalid("network name cannot be blank"));
    }
    for (given, option) in [
        (request.ingress, "Ingress"),
        (request.config_only, "ConfigOnly"),
        (
            request
                .config_from
                .as_ref()
                .is_some_and(|from| !from.network.is_empty()),
            "ConfigFrom",
        ),
        (
            !matches!(request.scope.as_str(), "" | "local"),
            "Scope other than local",
        ),
    ] {
        if given {
            return Err(Error::unsupported(option));
        }
    }
    let ipam = request.ipam.unwrap_or_default();
    let pools = ipam
        .config
        .iter()
        .map(ipam_config)
        .collect::<Result<Vec<_>>>()?;
    Ok(NetworkSpec {
        name: request.name,
        driver: request.driver,
        ipam_driver: ipam.driver,
        ipam_options: ipam.options.unwrap_or_default(),
        ipam: pools,
        internal: request.internal,
        enable_ipv4: request.enable_ipv4,
        enable_ipv6: request.enable_ipv6,
        options: request.options,
        labels: request.labels,
        attachable: request.attachable,
    })
}

fn ipam_config(config: &IpamConfig) -> Result<netdriver::IpamConfig> {
    fn parse<T: std::str::FromStr>(what: &str, text: &str) -> Result<Option<T>> {
        match text {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| Error::invalid(format!("invalid {what} {text}"))),
        }
    }
    let auxiliary: Result<IndexMap<String, std::net::IpAddr>> = config
        .aux_addresses
        .iter()
        .map(|(name, text)| match text.parse() {
            Ok(address) => Ok((name.clone(), address)),
            Err(_) => Err(Error::invalid(format!(
                "invalid auxiliary address {name}: {text}"
            ))),
        })
        .collect();
    Ok(netdriver::IpamConfig {
        subnet: parse("subnet", &config.subnet)?,
        ip_range: parse("ip-range", &config.ip_range)?,
        gateway: parse("gateway address", &config.gateway)?,
        auxiliary_addresses: auxiliary?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_translated_and_unknown_kinds_refused() {
        let pool = IpamConfig {
            subnet: "10.1.0.0/16".into(),
            gateway: "10.1.0.1".into(),
            ..IpamConfig::default()
        };
        let request = NetworkCreateRequest {
            name: "net".into(),
            ipam: Some(Ipam {
                config: vec![pool],
                ..Ipam::default()
            }),
            ..NetworkCreateRequest::default()
        };
        let spec = network_spec(request.clone()).unwrap();
        assert_eq!(spec.ipam[0].subnet, Some("10.1.0.0/16".parse().unwrap()));
        let error = network_spec(NetworkCreateRequest {
            config_only: true,
            ..request.clone()
        })
        .unwrap_err();
        assert_eq!(
            error,
            Error::NotImplemented("ConfigOnly is not supported".into())
        );
        let bad = IpamConfig {
            subnet: "10.1.0.0".into(),
            ..IpamConfig::default()
        };
        let request = NetworkCreateRequest {
            ipam: Some(Ipam {
                config: vec![bad],
                ..Ipam::default()
            }),
            ..request
        };
        assert_eq!(
            network_spec(request).unwrap_err(),
            Error::invalid("invalid subnet 10.1.0.0")
        );
    }
}
