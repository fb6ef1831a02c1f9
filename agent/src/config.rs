//! The daemon's configuration: dockerd's flags and daemon.json, checked once, before anything is done.
//!
//! ```text
//! flags ─┐                    ┌─ unknown keys, options given twice, unsupported options: refused, named
//!        ├─▶ raw: one map ────┤
//! file ──┘   (options: table) └─▶ Config: typed values, every combination in it is valid
//! ```
//!
//! Below this module nobody reads arguments, the environment or configuration files. It does not open, create or look at
//! anything but daemon.json.

mod options;
mod raw;
mod registries;
mod space;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent_api::{Labels, Ulimit};
use ipnet::Ipv4Net;
use serde_json::Value;

pub use raw::Flags;
pub use registries::Registries;

/// The configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// daemon.json cannot be read or is not JSON.
    #[error("configuration file {} {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// daemon.json has keys that no option has.
    #[error("the following directives in {} don't match any configuration option: {keys}", path.display())]
    UnknownKeys {
        /// The file.
        path: PathBuf,
        /// All of them.
        keys: String,
    },
    /// Options were given twice.
    #[error(
        "the following directives are specified both as a flag and in the configuration file {}: {options}",
        path.display()
    )]
    Conflicts {
        /// The file.
        path: PathBuf,
        /// Each with both values.
        options: String,
    },
    /// dockerd has the option, this daemon does not.
    #[error("{option} is not supported: {reason}")]
    Unsupported {
        /// The flag, or the key and its file.
        option: String,
        /// Why, or what to do instead.
        reason: &'static str,
    },
    /// The option is known, its value is not.
    #[error("{option}: {message}")]
    Value {
        /// The flag, or the key and its file.
        option: String,
        /// What is wrong with it.
        message: String,
    },
}

/// A socket the API is served on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A unix socket that the daemon makes.
    Unix(PathBuf),
    /// Every socket that systemd passes (`LISTEN_FDS`).
    SystemdSockets,
    /// An address, for clients that prove themselves by a certificate.
    Tls(SocketAddr),
}

/// `--tlsverify`, `--tlscacert`, `--tlscert`, `--tlskey`: how the API is served on addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Clients are verified; without it no address is served.
    pub verify: bool,
    /// Who signs the certificates of clients.
    pub authority: Option<PathBuf>,
    /// The daemon's certificate.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

impl std::fmt::Display for Host {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix://{}", path.display()),
            Self::SystemdSockets => formatter.write_str("fd://"),
            Self::Tls(address) => write!(formatter, "tcp://{address}"),
        }
    }
}

/// How the daemon's own log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What a running daemon is willing to change on SIGHUP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloadable {
    /// `--debug`: log at debug level whatever `log_level` says.
    pub debug: bool,
    /// `--log-level`.
    pub log_level: tracing::level_filters::LevelFilter,
    /// `--label`: `key=value`.
    pub labels: Vec<String>,
}

/// Everything the daemon is told, valid as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file that was looked at, to be read again on SIGHUP.
    pub file: PathBuf,
    /// `--data-root`.
    pub data_root: PathBuf,
    /// `--exec-root`.
    pub exec_root: PathBuf,
    /// `--host`, never empty.
    pub hosts: Vec<Host>,
    /// `--pidfile`.
    pub pidfile: PathBuf,
    /// `--group`: must exist when named; `None` is `docker`, if that exists.
    pub group: Option<String>,
    /// `--log-format`.
    pub log_format: LogFormat,
    /// What SIGHUP may change.
    pub reloadable: Reloadable,
    /// `--live-restore`: containers keep running while no daemon does.
    pub live_restore: bool,
    /// `--shutdown-timeout`: how long containers get when the daemon does stop them; `None` is for ever.
    pub shutdown_timeout: Option<Duration>,
    /// Defaults of containers.
    pub containers: ContainerDefaults,
    /// Defaults of networks.
    pub networks: NetworkDefaults,
    /// How the API is served on addresses.
    pub tls: TlsFiles,
    /// How registries are reached, and which are special.
    pub registries: Registries,
    /// What images and build cache may take.
    pub space: crate::space::Policy,
}

/// What containers get that do not say otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerDefaults {
    /// `--cgroup-parent`; empty is the engine's choice.
    pub cgroup_parent: String,
    /// `--default-shm-size`, bytes.
    pub shm_size_bytes: u64,
    /// `--default-ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// `--init`.
    pub init: bool,
    /// `--log-driver`.
    pub log_driver: String,
    /// `--log-opt`.
    pub log_options: Labels,
    /// `--dns`.
    pub dns: Vec<IpAddr>,
    /// `--dns-opt`.
    pub dns_options: Vec<String>,
    /// `--dns-search`.
    pub dns_search: Vec<String>,
    /// `--host-gateway-ip`.
    pub host_gateway: Option<IpAddr>,
}

/// What networks get that do not say otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkDefaults {
    /// `--default-address-pool`: base and the prefix length of what is cut from it.
    pub address_pools: Vec<(Ipv4Net, u8)>,
    /// `--bip`: address and subnet of the default bridge.
    pub bridge_address: Option<Ipv4Net>,
    /// `--mtu`; `None` is the engine's choice.
    pub mtu: Option<u32>,
    /// `--ip`: where ports are published by default.
    pub publish_address: Option<IpAddr>,
}

impl Config {
    /// Reads the file the flags point at, joins both and checks everything.
    ///
    /// # Errors
    /// The first thing that is wrong, naming the flag or the key and its file.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let (path, must_exist) = flags.file();
        let from_flags = flags.values()?;
        let origin = Origin {
            path,
            flags: from_flags.keys().copied().collect(),
        };
        let given = raw::merge(from_flags, raw::read_file(path, must_exist)?, path)?;
        Self::validate(&given, &origin)
    }

    fn validate(given: &raw::Given, origin: &Origin<'_>) -> Result<Self, ConfigError> {
        let read = Reader { given, origin };
        let data_root = read
            .absolute("data-root")?
            .unwrap_or_else(|| PathBuf::from("/var/lib/muster"));
        let exec_root = read
            .absolute("exec-root")?
            .unwrap_or_else(|| PathBuf::from("/run/muster"));
        if data_root == exec_root {
            return Err(read.invalid("exec-root", "must not be the same directory as data-root"));
        }
        let mut hosts = Vec::new();
        for text in read.list("hosts") {
            let host = parse_host(text).map_err(|message| read.invalid("hosts", message))?;
            if hosts.contains(&host) {
                return Err(read.invalid("hosts", format!("{host} is given twice")));
            }
            hosts.push(host);
        }
        let tls = hosts.iter().find(|host| matches!(host, Host::Tls(_)));
        if let Some(host) = tls
            && !read.switch("tlsverify").unwrap_or(false)
        {
            let reason = format!(
                "{host}: whoever reaches the API owns this host, so it is served on addresses to verified clients only: give --tlsverify, --tlscacert, --tlscert and --tlskey, or use ssh (-H ssh://…)"
            );
            return Err(read.invalid("hosts", reason));
        }
        if hosts.is_empty() {
            hosts.push(Host::Unix(exec_root.join("muster.sock")));
        }
        Ok(Self {
            file: origin.path.to_owned(),
            pidfile: read
                .absolute("pidfile")?
                .unwrap_or_else(|| exec_root.join("muster.pid")),
            data_root,
            exec_root,
            hosts,
            group: read
                .text("group")
                .filter(|group| !group.is_empty())
                .map(str::to_owned),
            log_format: match read.text("log-format") {
                None | Some("" | "text") => LogFormat::Text,
                Some("json") => LogFormat::Json,
                Some(other) => {
                    return Err(read.invalid(
                        "log-format",
                        format!("invalid log format: {other} (text or json)"),
                    ));
                }
            },
            reloadable: Reloadable {
                debug: read.switch("debug").unwrap_or(false),
                log_level: log_level(&read)?,
                labels: labels(&read)?,
            },
            live_restore: read.switch("live-restore").unwrap_or(true),
            shutdown_timeout: match read.number("shutdown-timeout").unwrap_or(15) {
                seconds if seconds < 0 => None,
                seconds => Some(Duration::from_secs(seconds.unsigned_abs())),
            },
            containers: ContainerDefaults::validate(&read)?,
            networks: NetworkDefaults::validate(&read)?,
            tls: TlsFiles {
                verify: read.switch("tlsverify").unwrap_or(false),
                authority: read.absolute("tlscacert")?,
                certificate: read.absolute("tlscert")?,
                key: read.absolute("tlskey")?,
            },
            registries: Registries::validate(&read)?,
            space: space::validate(&read)?,
        })
    }
}

impl ContainerDefaults {
    fn validate(read: &Reader<'_>) -> Result<Self, ConfigError> {
        let log_driver = read.text("log-driver").unwrap_or("json-file").to_owned();
        if !["json-file", "local", "none"].contains(&log_driver.as_str()) {
            return Err(read.invalid(
                "log-driver",
                format!("log driver {log_driver:?} is not supported (json-file, local or none)"),
            ));
        }
        let mut gateways = read.addresses("host-gateway-ips")?;
        if gateways.len() > 1 {
            return Err(read.invalid("host-gateway-ips", "only one address is supported"));
        }
        Ok(Self {
            cgroup_parent: cgroup_parent(read)?,
            shm_size_bytes: match read.given.get("default-shm-size") {
                None => 64 << 20,
                Some(value) => bytes(value).filter(|size| *size > 0).ok_or_else(|| {
                    read.invalid(
                        "default-shm-size",
                        format!("{value} is not a size such as 64m"),
                    )
                })?,
            },
            ulimits: ulimits(read)?,
            init: read.switch("init").unwrap_or(false),
            log_options: log_options(read, &log_driver)?,
            log_driver,
            dns: read.addresses("dns")?,
            dns_options: read.list("dns-opts").map(str::to_owned).collect(),
            dns_search: dns_search(read)?,
            host_gateway: gateways.pop(),
        })
    }
}

impl NetworkDefaults {
    fn validate(read: &Reader<'_>) -> Result<Self, ConfigError> {
        let bridge_address = match read.text("bip").filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => {
                let network: Ipv4Net = text
                    .parse()
                    .map_err(|_| read.invalid("bip", format!("{text:?} is not an IPv4 address with prefix length, for example 172.17.0.1/16")))?;
                if network.prefix_len() < 31
                    && (network.addr() == network.network()
                        || network.addr() == network.broadcast())
                {
                    return Err(read.invalid(
                        "bip",
                        format!("{text} is not the address of a host in its subnet"),
                    ));
                }
                Some(network)
            }
        };
        Ok(Self {
            address_pools: address_pools(read)?,
            bridge_address,
            mtu: match read.number("mtu").unwrap_or(0) {
                0 => None,
                mtu @ 68..=65535 => Some(u32::try_from(mtu).expect("the range was just checked")),
                mtu => {
                    return Err(
                        read.invalid("mtu", format!("invalid default MTU: {mtu} (68 to 65535)"))
                    );
                }
            },
            publish_address: read
                .text("ip")
                .map(|text| read.address("ip", text))
                .transpose()?,
        })
    }
}

/// Where a value came from, for messages.
struct Origin<'a> {
    path: &'a Path,
    flags: Vec<&'static str>,
}

/// Typed access to values whose shapes were checked.
struct Reader<'a> {
    given: &'a raw::Given,
    origin: &'a Origin<'a>,
}

impl<'a> Reader<'a> {
    fn invalid(&self, key: &str, message: impl Into<String>) -> ConfigError {
        let flag = options::by_key(key).map_or(key, |option| option.flag);
        let option = match self.origin.flags.contains(&key) {
            true => format!("--{flag}"),
            false => format!("{key} in {}", self.origin.path.display()),
        };
        ConfigError::Value {
            option,
            message: message.into(),
        }
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.given.get(key).and_then(Value::as_str)
    }

    fn switch(&self, key: &str) -> Option<bool> {
        self.given.get(key).and_then(Value::as_bool)
    }

    fn number(&self, key: &str) -> Option<i64> {
        self.given.get(key).and_then(Value::as_i64)
    }

    fn list(&self, key: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.given
            .get(key)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
    }

    fn absolute(&self, key: &str) -> Result<Option<PathBuf>, ConfigError> {
        let Some(text) = self.text(key) else {
            return Ok(None);
        };
        let path = Path::new(text);
        if !path.is_absolute()
            || path
                .components()
                .any(|part| part == std::path::Component::ParentDir)
        {
            return Err(self.invalid(
                key,
                format!("{text:?} is not an absolute path without \"..\""),
            ));
        }
        Ok(Some(path.components().collect()))
    }

    fn address(&self, key: &str, text: &str) -> Result<IpAddr, ConfigError> {
        text.trim()
            .parse()
            .map_err(|_| self.invalid(key, format!("{text:?} is not an IP address")))
    }

    fn addresses(&self, key: &str) -> Result<Vec<IpAddr>, ConfigError> {
        self.list(key).map(|text| self.address(key, text)).collect()
    }
}

fn parse_host(text: &str) -> Result<Host, String> {
    if let Some(path) = text.strip_prefix("unix://") {
        // `sockaddr_un.sun_path` holds 107 bytes and a NUL.
        return match path {
            "" => {
                Err("unix:// needs a path, for example unix:///run/muster/muster.sock".to_owned())
            }
            path if !path.starts_with('/') => Err(format!("{text}: the path must be absolute")),
            path if path.len() > 107 => Err(format!(
                "{text}: the path is longer than the 107 bytes a unix socket can have"
            )),
            path => Ok(Host::Unix(PathBuf::from(path))),
        };
    }
    match text {
        "fd://" => Ok(Host::SystemdSockets),
        text if text.starts_with("fd://") => Err(format!(
            "{text}: sockets of systemd cannot be chosen by name; write fd://"
        )),
        text if text.starts_with("tcp://") => match text["tcp://".len()..].parse() {
            Ok(address) => Ok(Host::Tls(address)),
            Err(_) => Err(format!(
                "{text}: write an address and a port, such as tcp://0.0.0.0:2376"
            )),
        },
        text => Err(format!(
            "{text:?} is not a host (unix://<path>, fd:// or tcp://<address>:<port>)"
        )),
    }
}

fn log_level(read: &Reader<'_>) -> Result<tracing::level_filters::LevelFilter, ConfigError> {
    use tracing::level_filters::LevelFilter;
    Ok(
        match read
            .text("log-level")
            .unwrap_or("info")
            .to_ascii_lowercase()
            .as_str()
        {
            "trace" => LevelFilter::TRACE,
            "debug" => LevelFilter::DEBUG,
            "" | "info" => LevelFilter::INFO,
            "warn" => LevelFilter::WARN,
            "error" | "fatal" | "panic" => LevelFilter::ERROR,
            other => {
                return Err(read.invalid(
                    "log-level",
                    format!("invalid logging level: {other} (debug, info, warn, error or fatal)"),
                ));
            }
        },
    )
}

/// Source: moby `daemon/config/config.go:GetConflictFreeLabels`.
fn labels(read: &Reader<'_>) -> Result<Vec<String>, ConfigError> {
    let mut labels: Labels = Labels::new();
    for text in read.list("labels") {
        let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(read.invalid(
                "labels",
                format!("bad attribute format: {text} (must be key=value)"),
            ));
        };
        if let Some(before) = labels
            .insert(key.to_owned(), value.to_owned())
            .filter(|before| before != value)
        {
            return Err(read.invalid(
                "labels",
                format!("conflict labels for {key}={value} and {key}={before}"),
            ));
        }
    }
    Ok(labels
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect())
}

fn cgroup_parent(read: &Reader<'_>) -> Result<String, ConfigError> {
    let parent = read.text("cgroup-parent").unwrap_or_default();
    if Path::new(parent)
        .components()
        .any(|part| part == std::path::Component::ParentDir)
    {
        return Err(read.invalid(
            "cgroup-parent",
            format!("{parent:?} must not contain \"..\""),
        ));
    }
    if parent.ends_with(".slice") {
        return Err(read.invalid("cgroup-parent", format!("{parent:?} is a unit of systemd; cgroups are managed through the cgroup file system only")));
    }
    Ok(parent.to_owned())
}

/// Options of json-file and local. Source: moby `daemon/logger/jsonfilelog/jsonfilelog.go:ValidateLogOpt`.
fn log_options(read: &Reader<'_>, driver: &str) -> Result<Labels, ConfigError> {
    let mut options = Labels::new();
    for (name, value) in read
        .given
        .get("log-opts")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let value = value.as_str().unwrap_or_default();
        let valid = match name.as_str() {
            _ if driver == "none" => {
                return Err(read.invalid(
                    "log-opts",
                    format!("log driver {driver} has no option {name}"),
                ));
            }
            "max-size" => value == "-1" || bytes(&Value::from(value)).is_some_and(|size| size > 0),
            "max-file" => value
                .parse::<u32>()
                .is_ok_and(|count| (1..=1000).contains(&count)),
            _ => {
                return Err(read.invalid(
                    "log-opts",
                    format!("log option {name} is not supported (max-size, max-file)"),
                ));
            }
        };
        if !valid {
            return Err(read.invalid("log-opts", format!("{name}={value}: invalid value")));
        }
        options.insert(name.clone(), value.to_owned());
    }
    Ok(options)
}

/// Source: docker/cli and moby `opts.ValidateDNSSearch`: `.` alone, or a domain.
fn dns_search(read: &Reader<'_>) -> Result<Vec<String>, ConfigError> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    read.list("dns-search")
        .map(str::trim)
        .map(|domain| {
            let valid = domain == "."
                || (domain.len() <= 253 && domain.trim_end_matches('.').split('.').all(label));
            if valid {
                Ok(domain.to_owned())
            } else {
                Err(read.invalid("dns-search", format!("{domain} is not a valid domain")))
            }
        })
        .collect()
}

fn ulimits(read: &Reader<'_>) -> Result<Vec<Ulimit>, ConfigError> {
    let mut limits = Vec::new();
    for (name, value) in read
        .given
        .get("default-ulimits")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let number = |field: &str| value.get(field).and_then(Value::as_i64).unwrap_or(0);
        let limit = Ulimit {
            name: name.clone(),
            hard: number("Hard"),
            soft: number("Soft"),
        };
        let shown = format!("{name}={}:{}", limit.soft, limit.hard);
        if !ULIMITS.contains(&name.as_str()) {
            return Err(read.invalid("default-ulimits", format!("invalid ulimit type: {name}")));
        }
        if limit.soft < -1 || limit.hard < -1 {
            return Err(read.invalid(
                "default-ulimits",
                format!("{shown}: -1 (unlimited) is the lowest value"),
            ));
        }
        if limit.hard != -1 && (limit.soft == -1 || limit.soft > limit.hard) {
            return Err(read.invalid(
                "default-ulimits",
                format!("{shown}: the soft limit must not be higher than the hard limit"),
            ));
        }
        limits.push(limit);
    }
    Ok(limits)
}

/// Source: go-units `ulimit.go`.
const ULIMITS: &[&str] = &[
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

fn address_pools(read: &Reader<'_>) -> Result<Vec<(Ipv4Net, u8)>, ConfigError> {
    let mut pools: Vec<(Ipv4Net, u8)> = Vec::new();
    for value in read
        .given
        .get("default-address-pools")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let base = value
            .get("base")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let size = value
            .get("size")
            .and_then(Value::as_u64)
            .unwrap_or_default();
        let invalid = |message: String| read.invalid("default-address-pools", message);
        let network: Ipv4Net = base.parse().map_err(|_| {
            invalid(format!(
                "base {base:?} is not an IPv4 subnet, for example 10.10.0.0/16"
            ))
        })?;
        let size = u8::try_from(size)
            .ok()
            .filter(|size| (network.prefix_len()..=30).contains(size))
            .ok_or_else(|| {
                invalid(format!(
                    "size {size} of {base} must be between {} and 30",
                    network.prefix_len()
                ))
            })?;
        let network = network.trunc();
        if let Some((other, _)) = pools
            .iter()
            .find(|(other, _)| other.contains(&network) || network.contains(other))
        {
            return Err(invalid(format!("{network} overlaps with {other}")));
        }
        pools.push((network, size));
    }
    Ok(pools)
}

/// `64m`, `1.5GiB`, `1024`; binary units. Source: go-units `RAMInBytes`.
fn bytes(value: &Value) -> Option<u64> {
    if let Some(number) = value.as_u64() {
        return Some(number);
    }
    let text = value.as_str()?.trim();
    let split = text
        .find(|symbol: char| !symbol.is_ascii_digit() && symbol != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.trim().to_ascii_lowercase();
    let unit = unit
        .strip_suffix("ib")
        .or_else(|| unit.strip_suffix('b'))
        .unwrap_or(&unit);
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    let number: f64 = number
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite() && *number >= 0.0)?;
    let size = number * (1_u64 << shift) as f64;
    (size < i64::MAX as f64).then_some(size as u64)
}
