//! What the engine is told when it is opened. Filled from the validated configuration by the composition root; the
//! engine itself reads neither files of configuration nor the environment nor arguments.

use std::net::IpAddr;
use std::path::PathBuf;

use agent_api::{Labels, Ulimit};

/// Where the engine lives and the defaults it gives containers.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Everything that must survive a reboot.
    pub data_root: PathBuf,
    /// Sockets, namespaces, process ids; may vanish at reboot.
    pub exec_root: PathBuf,
    /// The program that is run as `<executable> keeper`.
    pub executable: PathBuf,
    /// Shown as the server's version.
    pub version: String,
    /// Whether the daemon runs with debug output, shown by `info`.
    pub debug: bool,
    /// Log driver of containers that do not choose one: `json-file`, `local` or `none`.
    pub log_driver: String,
    /// Options of that driver.
    pub log_options: Labels,
    /// Limits for every container that does not set them itself.
    pub default_ulimits: Vec<Ulimit>,
    /// Size of `/dev/shm` in bytes.
    pub default_shm_size: u64,
    /// Run an init as PID 1 unless a container says otherwise.
    pub init: bool,
    /// Seconds between the stop signal and SIGKILL of containers that do not say.
    pub stop_timeout: u32,
    /// DNS servers for containers that name none; empty means the host's.
    pub dns: Vec<IpAddr>,
    /// Search domains for containers that name none.
    pub dns_search: Vec<String>,
    /// Resolver options for containers that name none.
    pub dns_options: Vec<String>,
    /// Labels of the daemon, shown by `info`.
    pub labels: Vec<String>,
    /// Parent of the containers' cgroups; empty means `/muster`.
    pub cgroup_parent: String,
    /// Pools that networks without a subnet take theirs from; empty means Docker's.
    pub default_address_pools: Vec<netdriver::AddressPool>,
    /// Address and subnet of the default bridge network.
    pub bridge_address: Option<ipnet::Ipv4Net>,
    /// Name of the default bridge network's interface.
    pub bridge_name: Option<String>,
    /// MTU of the networks; 0 means 1500.
    pub mtu: u32,
    /// Host address of published ports that name none.
    pub default_publish_address: Option<IpAddr>,
    /// What `host-gateway` stands for.
    pub host_gateway: Option<IpAddr>,
    /// Mirrors, registries without TLS, certificates.
    pub registries: agent_image::RegistryConfig,
}

impl EngineOptions {
    /// Docker's defaults for everything but the places.
    pub fn new(
        data_root: impl Into<PathBuf>,
        exec_root: impl Into<PathBuf>,
        executable: impl Into<PathBuf>,
    ) -> Self {
        Self {
            data_root: data_root.into(),
            exec_root: exec_root.into(),
            executable: executable.into(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            debug: false,
            log_driver: "json-file".to_owned(),
            log_options: Labels::new(),
            default_ulimits: Vec::new(),
            default_shm_size: 64 << 20,
            init: false,
            stop_timeout: 10,
            dns: Vec::new(),
            dns_search: Vec::new(),
            dns_options: Vec::new(),
            labels: Vec::new(),
            cgroup_parent: String::new(),
            default_address_pools: Vec::new(),
            bridge_address: None,
            bridge_name: None,
            mtu: 0,
            default_publish_address: None,
            host_gateway: None,
            registries: agent_image::RegistryConfig::default(),
        }
    }
}
