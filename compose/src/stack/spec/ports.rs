//! How clients reach a service.

use agent_api::swarm::{EndpointSpec, PortConfig};
use compose_model::{Port, ServiceConfig};

/// Mode and published ports, sorted by published port as Docker sorts them.
pub(super) fn endpoint(service: &ServiceConfig) -> EndpointSpec {
    let mut ports: Vec<_> = service.ports.iter().map(port).collect();
    ports.sort_by_key(|port| port.published_port);
    let mode = service
        .deploy
        .as_ref()
        .and_then(|deploy| deploy.endpoint_mode.as_deref());
    EndpointSpec {
        mode: mode.unwrap_or_default().to_ascii_lowercase(),
        ports,
    }
}

fn port(port: &Port) -> PortConfig {
    PortConfig {
        name: String::new(),
        protocol: port.protocol().to_owned(),
        target_port: port.target,
        // Ranges have been refused.
        published_port: port.published_range().map_or(0, |range| *range.start()),
        publish_mode: port.mode.clone().unwrap_or_else(|| "ingress".to_owned()),
    }
}
