//! Every option dockerd has, once: the flag, the key of daemon.json, the shape of its value and how far it is supported.
//!
//! The table is the only place that names options. Flags are built from it, the file is checked against it, and an option
//! that exists in Docker but not here is refused with the reason written beside it, never skipped. It holds no values.
//! Source: moby `cmd/dockerd/config.go`, `daemon/config/config.go`, `daemon/config/config_linux.go` (v28.5).

use Shape::{Bytes, List, Map, Number, Object, Pools, Switch, Text, Ulimits};
use Support::{Done, No, Only};

/// One option.
#[derive(Debug)]
pub(super) struct Opt {
    /// Long flag without dashes; empty for keys that only the file has.
    pub(super) flag: &'static str,
    /// One-letter flag.
    pub(super) short: Option<char>,
    /// Key in daemon.json. Docker calls some lists differently there (`--label`, `labels`).
    pub(super) key: &'static str,
    pub(super) shape: Shape,
    pub(super) support: Support,
    pub(super) help: &'static str,
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `--x`, `--x=false`; a JSON boolean.
    Switch,
    /// A string.
    Text,
    /// An integer.
    Number,
    /// `64m`; in the file also a number of bytes.
    Bytes,
    /// A repeatable flag; an array of strings.
    List,
    /// `--x key=value`, repeatable; an object of strings.
    Map,
    /// `--x name=soft[:hard]`, repeatable; an object of `{"Name", "Hard", "Soft"}`.
    Ulimits,
    /// `--x base=<subnet>,size=<bits>`, repeatable; an array of `{"base", "size"}`.
    Pools,
    /// Anything; only in the file, for options that are refused or read by a module of their own.
    Object,
}

/// How far an option is supported.
#[derive(Debug, Clone, Copy)]
pub(super) enum Support {
    /// Does what it does in dockerd.
    Done,
    /// Accepted with one of these values, which is what happens anyway; refused with any other, for this reason.
    Only(&'static [&'static str], &'static str),
    /// Refused, for this reason.
    No(&'static str),
}

const fn opt(
    flag: &'static str,
    key: &'static str,
    shape: Shape,
    support: Support,
    help: &'static str,
) -> Opt {
    Opt {
        flag,
        short: None,
        key,
        shape,
        support,
        help,
    }
}

const fn short(letter: char, option: Opt) -> Opt {
    Opt {
        short: Some(letter),
        ..option
    }
}

const NO_FOREIGN_LAYERS: &str = "all layers are pushed";
const NO_SWARM: &str = "there is no swarm mode yet";
const NO_TLS: &str = "clients must be verified, too: use --tlsverify";
const NO_CONTAINERD: &str = "there is no containerd behind this daemon";
const NO_IPV6_BRIDGE: &str =
    "the default bridge network has no IPv6; create a network with --ipv6 instead";
const OWN_TABLES: &str =
    "published ports and isolation need the nftables tables that the daemon owns";

/// All options, by flag name.
pub(super) const OPTIONS: &[Opt] = &[
    opt(
        "add-runtime",
        "runtimes",
        Object,
        No("containers run under the built-in runtime"),
        "Register an OCI runtime",
    ),
    opt(
        "allow-direct-routing",
        "allow-direct-routing",
        Switch,
        Only(&["false"], "isolation is always on"),
        "Allow remote access to published ports on container addresses",
    ),
    opt(
        "authorization-plugin",
        "authorization-plugins",
        List,
        No("there are no plugins"),
        "Authorization plugins to load",
    ),
    opt(
        "bip",
        "bip",
        Text,
        Done,
        "IPv4 address and subnet of the default bridge network",
    ),
    opt(
        "bip6",
        "bip6",
        Text,
        No(NO_IPV6_BRIDGE),
        "IPv6 address of the default bridge network",
    ),
    short(
        'b',
        opt(
            "bridge",
            "bridge",
            Text,
            No("the default network has a bridge of its own, made and removed by the daemon"),
            "Attach containers to an existing bridge",
        ),
    ),
    opt(
        "cdi-spec-dir",
        "cdi-spec-dirs",
        List,
        No("devices of CDI specifications cannot be given yet"),
        "CDI specification directories",
    ),
    opt(
        "cgroup-parent",
        "cgroup-parent",
        Text,
        Done,
        "Parent cgroup of all containers",
    ),
    opt(
        "containerd",
        "containerd",
        Text,
        No(NO_CONTAINERD),
        "containerd address",
    ),
    opt(
        "containerd-namespace",
        "containerd-namespace",
        Text,
        No(NO_CONTAINERD),
        "containerd namespace",
    ),
    opt(
        "containerd-plugins-namespace",
        "containerd-plugin-namespace",
        Text,
        No(NO_CONTAINERD),
        "containerd namespace for plugins",
    ),
    opt(
        "cpu-rt-period",
        "cpu-rt-period",
        Number,
        No("real-time scheduling of cgroups is not set up"),
        "CPU real-time period",
    ),
    opt(
        "cpu-rt-runtime",
        "cpu-rt-runtime",
        Number,
        No("real-time scheduling of cgroups is not set up"),
        "CPU real-time runtime",
    ),
    opt(
        "cri-containerd",
        "cri-containerd",
        Switch,
        Only(&["false"], NO_CONTAINERD),
        "Start containerd with CRI",
    ),
    opt(
        "data-root",
        "data-root",
        Text,
        Done,
        "Directory of persistent state [default: /var/lib/muster]",
    ),
    short(
        'D',
        opt("debug", "debug", Switch, Done, "Log at debug level"),
    ),
    opt(
        "default-address-pool",
        "default-address-pools",
        Pools,
        Done,
        "Address pool for new networks, base=<subnet>,size=<bits>; repeatable",
    ),
    opt(
        "default-cgroupns-mode",
        "default-cgroupns-mode",
        Text,
        No("say --cgroupns for each container"),
        "Cgroup namespace of containers",
    ),
    opt(
        "default-gateway",
        "default-gateway",
        Text,
        No("the gateway is the address given with --bip"),
        "Gateway of the default bridge network",
    ),
    opt(
        "default-gateway-v6",
        "default-gateway-v6",
        Text,
        No(NO_IPV6_BRIDGE),
        "IPv6 gateway of the default bridge network",
    ),
    opt(
        "default-ipc-mode",
        "default-ipc-mode",
        Text,
        Only(&["private"], "say --ipc shareable for each container"),
        "IPC mode of containers",
    ),
    opt(
        "default-network-opt",
        "default-network-opts",
        Object,
        No("give the options when creating a network"),
        "Default options of new networks",
    ),
    opt(
        "default-runtime",
        "default-runtime",
        Text,
        Only(&["muster"], "containers run under the built-in runtime"),
        "Default OCI runtime",
    ),
    opt(
        "default-shm-size",
        "default-shm-size",
        Bytes,
        Done,
        "Size of /dev/shm in containers [default: 64m]",
    ),
    opt(
        "default-ulimit",
        "default-ulimits",
        Ulimits,
        Done,
        "Resource limit of containers, name=soft[:hard]; repeatable",
    ),
    opt(
        "dns",
        "dns",
        List,
        Done,
        "DNS server of containers; repeatable",
    ),
    opt(
        "dns-opt",
        "dns-opts",
        List,
        Done,
        "DNS option of containers; repeatable",
    ),
    opt(
        "dns-search",
        "dns-search",
        List,
        Done,
        "DNS search domain of containers; repeatable",
    ),
    opt(
        "exec-opt",
        "exec-opts",
        List,
        Only(
            &["native.cgroupdriver=cgroupfs"],
            "cgroups are managed through the cgroup file system only",
        ),
        "Runtime option; repeatable",
    ),
    opt(
        "exec-root",
        "exec-root",
        Text,
        Done,
        "Directory of sockets and other volatile state [default: /run/muster]",
    ),
    opt(
        "experimental",
        "experimental",
        Switch,
        Only(&["false"], "there are no experimental features"),
        "Experimental features",
    ),
    opt(
        "feature",
        "features",
        Object,
        No("there are no features to switch"),
        "Switch a feature",
    ),
    opt(
        "fixed-cidr",
        "fixed-cidr",
        Text,
        No("give the default bridge a smaller subnet with --bip"),
        "Subnet of container addresses",
    ),
    opt(
        "fixed-cidr-v6",
        "fixed-cidr-v6",
        Text,
        No(NO_IPV6_BRIDGE),
        "IPv6 subnet of container addresses",
    ),
    short(
        'G',
        opt(
            "group",
            "group",
            Text,
            Done,
            "Group that may use the unix socket [default: docker, if it exists]",
        ),
    ),
    short(
        'H',
        opt(
            "host",
            "hosts",
            List,
            Done,
            "Socket to serve: unix://<path> or fd://; repeatable [default: unix://<exec-root>/muster.sock]",
        ),
    ),
    opt(
        "host-gateway-ip",
        "host-gateway-ips",
        List,
        Done,
        "Address that host-gateway in --add-host stands for",
    ),
    opt("http-proxy", "http-proxy", Text, Done, "HTTP proxy"),
    opt("https-proxy", "https-proxy", Text, Done, "HTTPS proxy"),
    opt(
        "icc",
        "icc",
        Switch,
        Only(
            &["true"],
            "containers of the default bridge network always reach each other",
        ),
        "Communication between containers of the default bridge network",
    ),
    opt(
        "image-gc-budget",
        "image-gc-budget",
        Text,
        Done,
        "What images and build cache may take, 20GB or 40% of the disk; the least recently used go [default: no limit]",
    ),
    opt(
        "image-gc-grace",
        "image-gc-grace",
        Text,
        Done,
        "What was used within this time is not collected [default: 1h]",
    ),
    opt(
        "image-gc-keep",
        "image-gc-keep",
        List,
        Done,
        "Images that are not collected, reference=PATTERN or label=NAME[=VALUE]; repeatable",
    ),
    opt(
        "init",
        "init",
        Switch,
        Done,
        "Run an init in containers that forwards signals and reaps processes",
    ),
    opt(
        "init-path",
        "init-path",
        Text,
        No("the init is built in"),
        "Path of the init binary",
    ),
    opt(
        "insecure-registry",
        "insecure-registries",
        List,
        Done,
        "Registries without TLS",
    ),
    opt(
        "ip",
        "ip",
        Text,
        Done,
        "Host address that ports are published on by default [default: 0.0.0.0]",
    ),
    opt(
        "ip-forward",
        "ip-forward",
        Switch,
        Only(&["true"], "container networks need forwarding"),
        "Enable IP forwarding",
    ),
    opt(
        "ip-forward-no-drop",
        "ip-forward-no-drop",
        Switch,
        Only(
            &["true"],
            "the policy of the host's FORWARD chain is never changed",
        ),
        "Do not set the FORWARD policy to DROP",
    ),
    opt(
        "ip-masq",
        "ip-masq",
        Switch,
        Only(
            &["true"],
            "the default bridge network is always masqueraded",
        ),
        "Masquerade the default bridge network",
    ),
    opt(
        "ip6tables",
        "ip6tables",
        Switch,
        Only(&["true"], OWN_TABLES),
        "Add IPv6 filter rules",
    ),
    opt(
        "iptables",
        "iptables",
        Switch,
        Only(&["true"], OWN_TABLES),
        "Add filter rules",
    ),
    opt(
        "ipv6",
        "ipv6",
        Switch,
        Only(&["false"], NO_IPV6_BRIDGE),
        "IPv6 on the default bridge network",
    ),
    opt(
        "label",
        "labels",
        List,
        Done,
        "Label of the daemon, key=value; repeatable",
    ),
    opt(
        "live-restore",
        "live-restore",
        Switch,
        Done,
        "Keep containers running while the daemon is stopped [default: true]",
    ),
    opt(
        "log-driver",
        "log-driver",
        Text,
        Done,
        "Log driver of containers: json-file, local or none [default: json-file]",
    ),
    opt(
        "log-format",
        "log-format",
        Text,
        Done,
        "Format of the daemon's log: text or json [default: text]",
    ),
    short(
        'l',
        opt(
            "log-level",
            "log-level",
            Text,
            Done,
            "Level of the daemon's log: debug, info, warn, error or fatal [default: info]",
        ),
    ),
    opt(
        "log-opt",
        "log-opts",
        Map,
        Done,
        "Log option of containers, key=value; repeatable",
    ),
    opt(
        "max-concurrent-downloads",
        "max-concurrent-downloads",
        Number,
        Done,
        "Concurrent downloads",
    ),
    opt(
        "max-concurrent-uploads",
        "max-concurrent-uploads",
        Number,
        Done,
        "Concurrent uploads",
    ),
    opt(
        "max-download-attempts",
        "max-download-attempts",
        Number,
        Done,
        "Download attempts",
    ),
    opt(
        "metrics-addr",
        "metrics-addr",
        Text,
        No("metrics are not served yet"),
        "Address of the metrics API",
    ),
    opt(
        "mtu",
        "mtu",
        Number,
        Done,
        "MTU of networks that do not set one [default: 1500]",
    ),
    opt(
        "network-control-plane-mtu",
        "network-control-plane-mtu",
        Number,
        No(NO_SWARM),
        "MTU of the control plane",
    ),
    opt(
        "no-new-privileges",
        "no-new-privileges",
        Switch,
        Only(
            &["false"],
            "say --security-opt no-new-privileges for each container",
        ),
        "Set no_new_privs for containers",
    ),
    opt(
        "no-proxy",
        "no-proxy",
        Text,
        Done,
        "Hosts that the proxy is skipped for",
    ),
    opt(
        "node-generic-resource",
        "node-generic-resources",
        List,
        No(NO_SWARM),
        "User-defined resources",
    ),
    short(
        'p',
        opt(
            "pidfile",
            "pidfile",
            Text,
            Done,
            "File to write the daemon's process id to [default: <exec-root>/muster.pid]",
        ),
    ),
    opt(
        "raw-logs",
        "raw-logs",
        Switch,
        Only(
            &["true"],
            "the log always has full timestamps and no colours",
        ),
        "Full timestamps without colours",
    ),
    opt(
        "registry-certificates",
        "registry-certificates",
        Text,
        Done,
        "Directory with one directory host[:port] per registry, as /etc/docker/certs.d: *.crt, client *.cert with *.key",
    ),
    opt(
        "registry-mirror",
        "registry-mirrors",
        List,
        Done,
        "Registry mirrors",
    ),
    opt(
        "rootless",
        "rootless",
        Switch,
        Only(&["false"], "the daemon needs root"),
        "Rootless mode",
    ),
    opt(
        "seccomp-profile",
        "seccomp-profile",
        Text,
        Only(
            &["builtin"],
            "say --security-opt seccomp=<profile> for each container",
        ),
        "Seccomp profile of containers",
    ),
    opt(
        "selinux-enabled",
        "selinux-enabled",
        Switch,
        Only(&["false"], "SELinux labels are not set"),
        "SELinux support",
    ),
    opt(
        "shutdown-timeout",
        "shutdown-timeout",
        Number,
        Done,
        "Seconds containers get to stop when the daemon stops them [default: 15]",
    ),
    short(
        's',
        opt(
            "storage-driver",
            "storage-driver",
            Text,
            Only(
                &["overlay2", "overlay"],
                "layers are stored for overlayfs only",
            ),
            "Storage driver",
        ),
    ),
    opt(
        "storage-opt",
        "storage-opts",
        List,
        No("the storage driver has no options"),
        "Storage driver options",
    ),
    opt(
        "swarm-default-advertise-addr",
        "swarm-default-advertise-addr",
        Text,
        No(NO_SWARM),
        "Default advertised address",
    ),
    opt("tls", "tls", Switch, Only(&["false"], NO_TLS), "Use TLS"),
    opt(
        "tlscacert",
        "tlscacert",
        Text,
        Done,
        "CA that client certificates are signed by",
    ),
    opt("tlscert", "tlscert", Text, Done, "TLS certificate"),
    opt("tlskey", "tlskey", Text, Done, "TLS key"),
    opt(
        "tlsverify",
        "tlsverify",
        Switch,
        Done,
        "Use TLS and verify clients",
    ),
    opt(
        "userland-proxy",
        "userland-proxy",
        Switch,
        Only(
            &["true"],
            "published ports are always reachable through the loopback address",
        ),
        "Proxy for loopback traffic",
    ),
    opt(
        "userland-proxy-path",
        "userland-proxy-path",
        Text,
        No("the proxy is built in"),
        "Path of the proxy binary",
    ),
    opt(
        "userns-remap",
        "userns-remap",
        Text,
        No("containers cannot have user namespaces yet"),
        "User namespace mapping",
    ),
    // Keys that only daemon.json has.
    opt(
        "",
        "allow-nondistributable-artifacts",
        Object,
        No(NO_FOREIGN_LAYERS),
        "",
    ),
    opt(
        "",
        "api-cors-header",
        Text,
        No("Docker has removed it, too; use a reverse proxy for CORS headers"),
        "",
    ),
    opt("", "builder", Object, Done, ""),
    opt("", "default-init", Text, No("the init is built in"), ""),
    opt(
        "",
        "deprecated-key-path",
        Text,
        No("nothing uses a key"),
        "",
    ),
    opt(
        "",
        "host-gateway-ip",
        Text,
        No("write host-gateway-ips, a list"),
        "",
    ),
    opt("", "network-diagnostic-port", Number, No(NO_SWARM), ""),
    opt("", "proxies", Object, Done, ""),
    opt(
        "",
        "resolv-conf",
        Text,
        No("containers get the host's /etc/resolv.conf"),
        "",
    ),
    opt("", "swarm-raft-election-tick", Number, No(NO_SWARM), ""),
    opt("", "swarm-raft-heartbeat-tick", Number, No(NO_SWARM), ""),
];

/// Looks an option up by its key in the file. dockerd also takes the flag's name where the two differ only in the file's
/// favour; that is not done here, because one spelling is enough.
pub(super) fn by_key(key: &str) -> Option<&'static Opt> {
    OPTIONS.iter().find(|option| option.key == key)
}
