//! Top-level resources: networks, volumes, configs, secrets; and how a service joins a network.

use std::collections::BTreeMap;

use super::record::record;

record! {
    /// A network of the project.
    pub struct Network {
        /// Name in the engine: `PROJECT_KEY` unless given.
        pub name: String,
        /// Driver; unset = the engine's default.
        pub driver: Option<String>,
        /// Driver options.
        pub driver_opts: BTreeMap<String, String>,
        /// Address management.
        pub ipam: Option<Ipam>,
        /// Exists outside the project; never created nor removed.
        pub external: bool,
        /// No access to the outside.
        pub internal: bool,
        /// Containers outside services may join (cluster).
        pub attachable: bool,
        /// Labels.
        pub labels: BTreeMap<String, String>,
        /// IPv4 addresses; unset = on.
        pub enable_ipv4: Option<bool>,
        /// IPv6 addresses; unset = the engine's default.
        pub enable_ipv6: Option<bool>,
    }
}

record! {
    /// `ipam` of a network.
    pub struct Ipam {
        /// IPAM driver.
        pub driver: Option<String>,
        /// Address pools.
        pub config: Vec<IpamPool>,
        /// Driver options.
        pub options: BTreeMap<String, String>,
    }
}

record! {
    /// One address pool.
    pub struct IpamPool {
        /// Subnet in CIDR form.
        pub subnet: Option<String>,
        /// Gateway address.
        pub gateway: Option<String>,
        /// Part of the subnet that containers get addresses from.
        pub ip_range: Option<String>,
        /// Addresses reserved for hosts, by host name.
        pub aux_addresses: BTreeMap<String, String>,
    }
}

record! {
    /// A named volume of the project.
    pub struct Volume {
        /// Name in the engine: `PROJECT_KEY` unless given.
        pub name: String,
        /// Driver; unset = `local`.
        pub driver: Option<String>,
        /// Driver options.
        pub driver_opts: BTreeMap<String, String>,
        /// Exists outside the project; never created nor removed.
        pub external: bool,
        /// Labels.
        pub labels: BTreeMap<String, String>,
    }
}

record! {
    /// A secret: from exactly one of `file`, `environment`, `external`, `driver`.
    pub struct Secret {
        /// Name: `PROJECT_KEY` unless given.
        pub name: String,
        /// Absolute path of the file that holds it.
        pub file: Option<String>,
        /// Variable of the project environment that holds it.
        pub environment: Option<String>,
        /// Exists outside the project.
        pub external: bool,
        /// Labels.
        pub labels: BTreeMap<String, String>,
        /// Secret driver (cluster).
        pub driver: Option<String>,
        /// Driver options.
        pub driver_opts: BTreeMap<String, String>,
        /// Template driver.
        pub template_driver: Option<String>,
    }
}

record! {
    /// A config: from exactly one of `file`, `environment`, `content`, `external`.
    pub struct Config {
        /// Name: `PROJECT_KEY` unless given.
        pub name: String,
        /// Absolute path of the file that holds it.
        pub file: Option<String>,
        /// Variable of the project environment that holds it.
        pub environment: Option<String>,
        /// The content itself.
        pub content: Option<String>,
        /// Exists outside the project.
        pub external: bool,
        /// Labels.
        pub labels: BTreeMap<String, String>,
        /// Template driver.
        pub template_driver: Option<String>,
    }
}

record! {
    /// How a service joins a network.
    pub struct ServiceNetwork {
        /// Additional names on this network.
        pub aliases: Vec<String>,
        /// Driver options of the endpoint.
        pub driver_opts: BTreeMap<String, String>,
        /// The highest one carries the default route.
        pub gw_priority: Option<i64>,
        /// Interface name in the container.
        pub interface_name: Option<String>,
        /// Fixed IPv4 address.
        pub ipv4_address: Option<String>,
        /// Fixed IPv6 address.
        pub ipv6_address: Option<String>,
        /// Link-local addresses.
        pub link_local_ips: Vec<String>,
        /// MAC address.
        pub mac_address: Option<String>,
        /// The highest one is the primary network.
        pub priority: Option<i64>,
    }
}
