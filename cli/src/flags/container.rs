//! The flags `run` and `create` share, in Docker's spelling. Turning them into a request is in `create.rs`.

use super::devices::{memory, memory_or_unlimited};
use super::duration;
use clap::Args;

/// Every flag that describes a container.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ContainerFlags {
    /// Add a custom host-to-IP mapping (host:ip)
    #[arg(long, value_name = "HOST:IP")]
    pub(crate) add_host: Vec<String>,
    /// Add an annotation to the container (passed through to the OCI runtime)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) annotation: Vec<String>,
    /// Attach to STDIN, STDOUT or STDERR
    #[arg(short, long, value_name = "STREAM")]
    pub(crate) attach: Vec<String>,
    /// Block IO (relative weight), between 10 and 1000
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub(crate) blkio_weight: u16,
    /// Block IO weight of a device (relative)
    #[arg(long, value_name = "DEVICE:WEIGHT")]
    pub(crate) blkio_weight_device: Vec<String>,
    /// Add Linux capabilities
    #[arg(long)]
    pub(crate) cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long)]
    pub(crate) cap_drop: Vec<String>,
    /// Parent cgroup of the container
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) cgroup_parent: String,
    /// Cgroup namespace to use (host|private)
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) cgroupns: String,
    /// Write the container's id to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<String>,
    /// Limit the CPU CFS period, microseconds
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub(crate) cpu_period: i64,
    /// Limit the CPU CFS quota, microseconds
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub(crate) cpu_quota: i64,
    /// Limit the CPU real-time period, microseconds
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub(crate) cpu_rt_period: i64,
    /// Limit the CPU real-time runtime, microseconds
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub(crate) cpu_rt_runtime: i64,
    /// CPU shares (relative weight)
    #[arg(short, long, default_value_t = 0, hide_default_value = true)]
    pub(crate) cpu_shares: i64,
    /// Number of CPUs
    #[arg(long, value_name = "DECIMAL")]
    pub(crate) cpus: Option<String>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) cpuset_cpus: String,
    /// Memory nodes in which to allow execution (0-3, 0,1)
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) cpuset_mems: String,
    /// Add a host device to the container
    #[arg(long, value_name = "HOST[:CONTAINER][:rwm]")]
    pub(crate) device: Vec<String>,
    /// Add a rule to the allowed devices list
    #[arg(long)]
    pub(crate) device_cgroup_rule: Vec<String>,
    /// Limit the read rate of a device, bytes per second
    #[arg(long, value_name = "DEVICE:RATE")]
    pub(crate) device_read_bps: Vec<String>,
    /// Limit the read rate of a device, operations per second
    #[arg(long, value_name = "DEVICE:RATE")]
    pub(crate) device_read_iops: Vec<String>,
    /// Limit the write rate of a device, bytes per second
    #[arg(long, value_name = "DEVICE:RATE")]
    pub(crate) device_write_bps: Vec<String>,
    /// Limit the write rate of a device, operations per second
    #[arg(long, value_name = "DEVICE:RATE")]
    pub(crate) device_write_iops: Vec<String>,
    /// Skip image verification (images are not signed; accepted for scripts)
    #[arg(long, hide = true)]
    pub(crate) disable_content_trust: bool,
    /// DNS servers
    #[arg(long)]
    pub(crate) dns: Vec<String>,
    /// DNS options
    #[arg(long, alias = "dns-opt")]
    pub(crate) dns_option: Vec<String>,
    /// DNS search domains
    #[arg(long)]
    pub(crate) dns_search: Vec<String>,
    /// NIS domain name of the container
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) domainname: String,
    /// Overwrite the image's entrypoint; empty removes it
    #[arg(long)]
    pub(crate) entrypoint: Option<String>,
    /// Set environment variables
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<String>,
    /// Expose a port or a range of ports
    #[arg(long, value_name = "PORT[-PORT][/PROTOCOL]")]
    pub(crate) expose: Vec<String>,
    /// GPU devices to add to the container ('all' to pass all GPUs)
    #[arg(long)]
    pub(crate) gpus: Vec<String>,
    /// Add additional groups to join
    #[arg(long)]
    pub(crate) group_add: Vec<String>,
    /// Command to run to check health
    #[arg(long, value_name = "COMMAND")]
    pub(crate) health_cmd: Option<String>,
    /// Time between running the check
    #[arg(long, value_parser = duration::positive)]
    pub(crate) health_interval: Option<i64>,
    /// Consecutive failures needed to report unhealthy
    #[arg(long)]
    pub(crate) health_retries: Option<i64>,
    /// Time between running the check during the start period
    #[arg(long, value_parser = duration::positive)]
    pub(crate) health_start_interval: Option<i64>,
    /// Start period for the container to initialize before failures count
    #[arg(long, value_parser = duration::positive)]
    pub(crate) health_start_period: Option<i64>,
    /// Maximum time to allow one check to run
    #[arg(long, value_parser = duration::positive)]
    pub(crate) health_timeout: Option<i64>,
    /// Container host name
    #[arg(short = 'h', long, default_value = "", hide_default_value = true)]
    pub(crate) hostname: String,
    /// Run an init inside the container that forwards signals and reaps processes
    #[arg(long)]
    pub(crate) init: bool,
    /// Keep STDIN open even if not attached
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// IPv4 address
    #[arg(long)]
    pub(crate) ip: Option<String>,
    /// IPv6 address
    #[arg(long)]
    pub(crate) ip6: Option<String>,
    /// IPC mode to use
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) ipc: String,
    /// Container isolation technology
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) isolation: String,
    /// Kernel memory limit
    #[arg(long, hide = true)]
    pub(crate) kernel_memory: Option<String>,
    /// Set metadata on a container
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) label: Vec<String>,
    /// Read labels from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) label_file: Vec<String>,
    /// Add a link to another container
    #[arg(long, value_name = "CONTAINER[:ALIAS]")]
    pub(crate) link: Vec<String>,
    /// Container IPv4/IPv6 link-local addresses
    #[arg(long)]
    pub(crate) link_local_ip: Vec<String>,
    /// Logging driver of the container
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) log_driver: String,
    /// Log driver options
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) log_opt: Vec<String>,
    /// Container MAC address
    #[arg(long)]
    pub(crate) mac_address: Option<String>,
    /// Memory limit
    #[arg(short, long, value_parser = memory)]
    pub(crate) memory: Option<i64>,
    /// Memory soft limit
    #[arg(long, value_parser = memory)]
    pub(crate) memory_reservation: Option<i64>,
    /// Limit of memory plus swap: '-1' to enable unlimited swap
    #[arg(long, value_parser = memory_or_unlimited)]
    pub(crate) memory_swap: Option<i64>,
    /// Tune memory swappiness (0 to 100)
    #[arg(long)]
    pub(crate) memory_swappiness: Option<i64>,
    /// Attach a filesystem mount to the container
    #[arg(long, value_name = "type=…,source=…,target=…")]
    pub(crate) mount: Vec<String>,
    /// Assign a name to the container
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Connect the container to a network
    #[arg(long, alias = "net")]
    pub(crate) network: Vec<String>,
    /// Add a network-scoped alias for the container
    #[arg(long, alias = "net-alias")]
    pub(crate) network_alias: Vec<String>,
    /// Disable any container-specified HEALTHCHECK
    #[arg(long)]
    pub(crate) no_healthcheck: bool,
    /// Disable the OOM killer
    #[arg(long)]
    pub(crate) oom_kill_disable: bool,
    /// Tune the host's OOM preferences (-1000 to 1000)
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub(crate) oom_score_adj: i32,
    /// PID namespace to use
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) pid: String,
    /// Tune the container's pids limit (-1 for unlimited)
    #[arg(long)]
    pub(crate) pids_limit: Option<i64>,
    /// Set platform if the server is multi-platform capable
    #[arg(long)]
    pub(crate) platform: Option<String>,
    /// Give extended privileges to this container
    #[arg(long)]
    pub(crate) privileged: bool,
    /// Publish a container's ports to the host
    #[arg(short, long, value_name = "[ADDRESS:][HOST:]PORT[/PROTOCOL]")]
    pub(crate) publish: Vec<String>,
    /// Publish all exposed ports to random ports
    #[arg(short = 'P', long)]
    pub(crate) publish_all: bool,
    /// Pull the image before creating ("always", "missing", "never")
    #[arg(long, default_value = "missing")]
    pub(crate) pull: String,
    /// Suppress the pull output
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Mount the container's root filesystem as read only
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Restart policy to apply when the container exits
    #[arg(long, default_value = "no", hide_default_value = true)]
    pub(crate) restart: String,
    /// Remove the container and its anonymous volumes when it exits
    #[arg(long)]
    pub(crate) rm: bool,
    /// Runtime to use for this container
    #[arg(long)]
    pub(crate) runtime: Option<String>,
    /// Security options
    #[arg(long)]
    pub(crate) security_opt: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_parser = memory)]
    pub(crate) shm_size: Option<i64>,
    /// Signal to stop the container
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) stop_signal: String,
    /// Timeout (in seconds) to stop the container
    #[arg(long)]
    pub(crate) stop_timeout: Option<i64>,
    /// Storage driver options for the container
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) storage_opt: Vec<String>,
    /// Sysctl options
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) sysctl: Vec<String>,
    /// Mount a tmpfs directory
    #[arg(long, value_name = "PATH[:OPTIONS]")]
    pub(crate) tmpfs: Vec<String>,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Ulimit options
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub(crate) ulimit: Vec<String>,
    /// Username or UID (name|uid[:group|gid])
    #[arg(short, long, default_value = "", hide_default_value = true)]
    pub(crate) user: String,
    /// User namespace to use
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) userns: String,
    /// UTS namespace to use
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) uts: String,
    /// Bind mount a volume
    #[arg(short, long, value_name = "[SOURCE:]TARGET[:OPTIONS]")]
    pub(crate) volume: Vec<String>,
    /// Volume driver for the container
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) volume_driver: String,
    /// Mount volumes from the given containers
    #[arg(long)]
    pub(crate) volumes_from: Vec<String>,
    /// Working directory inside the container
    #[arg(short, long, default_value = "", hide_default_value = true)]
    pub(crate) workdir: String,
}
