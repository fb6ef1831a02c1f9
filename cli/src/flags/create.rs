//! Flags of `run` and `create` to the request that makes the container.
//! Source: docker/cli `cli/command/container/opts.go`.

use super::container::ContainerFlags;
use super::mounts::{self, Volumes};
use super::network::{FirstNetwork, networks};
use super::ports::Ports;
use super::{devices, env};
use agent_api::{
    ContainerConfig, ContainerCreateRequest, HealthConfig, HostConfig, LogConfig, NetworkingConfig,
    Resources,
};

/// Streams a new container is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attach {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

impl ContainerFlags {
    /// Which streams `run` attaches: those of `-a`, else output, and input when interactive.
    pub(crate) fn attached(&self) -> Result<Attach, String> {
        if self.attach.is_empty() {
            return Ok(Attach {
                stdin: self.interactive,
                stdout: true,
                stderr: true,
            });
        }
        let mut attach = Attach {
            stdin: false,
            stdout: false,
            stderr: false,
        };
        for stream in &self.attach {
            match stream.to_lowercase().as_str() {
                "stdin" => attach.stdin = true,
                "stdout" => attach.stdout = true,
                "stderr" => attach.stderr = true,
                _ => {
                    return Err(format!(
                        "invalid stream {stream:?} for --attach: valid streams are STDIN, STDOUT and STDERR"
                    ));
                }
            }
        }
        Ok(attach)
    }

    /// The request for a container of `image` that runs `command`.
    pub(crate) fn request(
        &self,
        image: &str,
        command: &[String],
        detach: bool,
    ) -> Result<ContainerCreateRequest, String> {
        if self.kernel_memory.is_some() {
            return Err(
                "--kernel-memory is no longer supported by the kernel: use --memory".to_owned(),
            );
        }
        if self.rm && !matches!(self.restart.as_str(), "" | "no") {
            return Err("conflicting options: cannot specify both --restart and --rm".to_owned());
        }
        let attach = self.attached()?;
        let ports = Ports::parse(&self.publish, &self.expose)?;
        let volumes = Volumes::parse(&self.volume)?;
        let first = FirstNetwork {
            aliases: &self.network_alias,
            ipv4: self.ip.as_deref(),
            ipv6: self.ip6.as_deref(),
            link_local: &self.link_local_ip,
            mac_address: self.mac_address.as_deref(),
            links: &self.link,
        };
        let (network_mode, endpoints_config) = networks(&self.network, &first)?;
        let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
        let config = ContainerConfig {
            hostname: self.hostname.clone(),
            domainname: self.domainname.clone(),
            user: self.user.clone(),
            attach_stdin: attach.stdin && !detach,
            attach_stdout: attach.stdout && !detach,
            attach_stderr: attach.stderr && !detach,
            exposed_ports: (!ports.exposed.is_empty()).then_some(ports.exposed),
            tty: self.tty,
            open_stdin: self.interactive,
            stdin_once: self.interactive && attach.stdin && !detach,
            env: Some(env::environment(&self.env_file, &self.env)?),
            cmd: some(command),
            healthcheck: self.healthcheck()?,
            image: image.to_owned(),
            volumes: (!volumes.anonymous.is_empty()).then_some(volumes.anonymous),
            working_dir: self.workdir.clone(),
            entrypoint: self.entrypoint.clone().map(|entrypoint| vec![entrypoint]),
            labels: env::labels(&self.label_file, &self.label)?,
            stop_signal: self.stop_signal.clone(),
            stop_timeout: self.stop_timeout,
            ..Default::default()
        };
        let host_config = HostConfig {
            binds: some(&volumes.binds),
            container_id_file: self.cidfile.clone().unwrap_or_default(),
            log_config: LogConfig {
                kind: self.log_driver.clone(),
                config: env::options(&self.log_opt),
            },
            network_mode,
            port_bindings: ports.bindings,
            restart_policy: devices::restart(&self.restart)?,
            auto_remove: self.rm,
            volume_driver: self.volume_driver.clone(),
            volumes_from: some(&self.volumes_from),
            annotations: (!self.annotation.is_empty()).then(|| env::options(&self.annotation)),
            cap_add: some(&self.cap_add),
            cap_drop: some(&self.cap_drop),
            cgroupns_mode: self.cgroupns.clone(),
            dns: self.dns.clone(),
            dns_options: self.dns_option.clone(),
            dns_search: self.dns_search.clone(),
            extra_hosts: some(&self.extra_hosts()?),
            group_add: some(&self.group_add),
            ipc_mode: self.ipc.clone(),
            links: some(&self.link),
            oom_score_adj: self.oom_score_adj,
            pid_mode: self.pid.clone(),
            privileged: self.privileged,
            publish_all_ports: self.publish_all,
            readonly_rootfs: self.read_only,
            security_opt: some(&self.security_options()?),
            storage_opt: (!self.storage_opt.is_empty()).then(|| env::options(&self.storage_opt)),
            tmpfs: (!self.tmpfs.is_empty()).then(|| mounts::tmpfs(&self.tmpfs)),
            uts_mode: self.uts.clone(),
            userns_mode: self.userns.clone(),
            shm_size: self.shm_size.unwrap_or(0),
            sysctls: (!self.sysctl.is_empty()).then(|| env::options(&self.sysctl)),
            runtime: self.runtime.clone(),
            isolation: self.isolation.clone(),
            resources: self.resources()?,
            mounts: if self.mount.is_empty() {
                None
            } else {
                Some(each(&self.mount, mounts::mount)?)
            },
            init: self.init.then_some(true),
            // systempaths=unconfined: an empty list is "mask nothing", in contrast to none.
            masked_paths: self.unconfined_paths().then(Vec::new),
            readonly_paths: self.unconfined_paths().then(Vec::new),
            ..Default::default()
        };
        Ok(ContainerCreateRequest {
            config,
            host_config,
            networking_config: NetworkingConfig { endpoints_config },
        })
    }

    fn resources(&self) -> Result<Resources, String> {
        let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
        Ok(Resources {
            cpu_shares: self.cpu_shares,
            memory: self.memory.unwrap_or(0),
            nano_cpus: self
                .cpus
                .as_deref()
                .map(devices::nano_cpus)
                .transpose()?
                .unwrap_or(0),
            cgroup_parent: self.cgroup_parent.clone(),
            blkio_weight: self.blkio_weight,
            blkio_weight_device: each(&self.blkio_weight_device, devices::weight_device)?,
            blkio_device_read_bps: each(&self.device_read_bps, |flag| {
                devices::throttle_device(flag, true)
            })?,
            blkio_device_write_bps: each(&self.device_write_bps, |flag| {
                devices::throttle_device(flag, true)
            })?,
            blkio_device_read_iops: each(&self.device_read_iops, |flag| {
                devices::throttle_device(flag, false)
            })?,
            blkio_device_write_iops: each(&self.device_write_iops, |flag| {
                devices::throttle_device(flag, false)
            })?,
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpu_realtime_period: self.cpu_rt_period,
            cpu_realtime_runtime: self.cpu_rt_runtime,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            devices: each(&self.device, devices::device)?,
            device_cgroup_rules: some(&self.device_cgroup_rule),
            device_requests: if self.gpus.is_empty() {
                None
            } else {
                Some(each(&self.gpus, devices::gpus)?)
            },
            memory_reservation: self.memory_reservation.unwrap_or(0),
            memory_swap: self.memory_swap.unwrap_or(0),
            memory_swappiness: self.memory_swappiness,
            oom_kill_disable: self.oom_kill_disable.then_some(true),
            pids_limit: self.pids_limit,
            ulimits: each(&self.ulimit, devices::ulimit)?,
            ..Default::default()
        })
    }

    fn healthcheck(&self) -> Result<Option<HealthConfig>, String> {
        let health = HealthConfig {
            test: self
                .health_cmd
                .as_ref()
                .map(|command| vec!["CMD-SHELL".to_owned(), command.clone()]),
            interval: self.health_interval.unwrap_or(0),
            timeout: self.health_timeout.unwrap_or(0),
            start_period: self.health_start_period.unwrap_or(0),
            start_interval: self.health_start_interval.unwrap_or(0),
            retries: self.health_retries.unwrap_or(0),
        };
        if health.retries < 0 {
            return Err("--health-retries cannot be negative".to_owned());
        }
        let given = health != HealthConfig::default();
        match (self.no_healthcheck, given) {
            (true, true) => Err("--no-healthcheck conflicts with --health-* options".to_owned()),
            (true, false) => Ok(Some(HealthConfig {
                test: Some(vec!["NONE".to_owned()]),
                ..Default::default()
            })),
            (false, given) => Ok(given.then_some(health)),
        }
    }

    /// `name:address` or `name=address`, sent with a colon.
    fn extra_hosts(&self) -> Result<Vec<String>, String> {
        each(&self.add_host, |flag| {
            let (name, address) = flag
                .split_once('=')
                .or_else(|| flag.split_once(':'))
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| {
                    format!("bad format for --add-host: {flag:?}: write name:address")
                })?;
            let bare = address
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
                .unwrap_or(address);
            if bare != "host-gateway" && bare.parse::<std::net::IpAddr>().is_err() {
                return Err(format!("invalid IP address in --add-host: {address:?}"));
            }
            Ok(format!("{name}:{bare}"))
        })
    }

    fn unconfined_paths(&self) -> bool {
        self.security_opt
            .iter()
            .any(|option| option == "systempaths=unconfined")
    }

    /// Security options for the daemon: a seccomp profile named by a file is sent as its text.
    fn security_options(&self) -> Result<Vec<String>, String> {
        let mut options = Vec::new();
        for flag in &self.security_opt {
            if flag == "systempaths=unconfined" {
                continue;
            }
            let (name, value) = flag
                .split_once('=')
                .or_else(|| flag.split_once(':'))
                .unwrap_or((flag, ""));
            if value.is_empty() && name != "no-new-privileges" {
                return Err(format!(
                    "invalid --security-opt: {flag:?}: write name=value"
                ));
            }
            if name == "seccomp" && !matches!(value, "unconfined" | "builtin") {
                let text = std::fs::read_to_string(value).map_err(|error| {
                    format!("opening seccomp profile ({value}) failed: {error}")
                })?;
                let profile: serde_json::Value = serde_json::from_str(&text).map_err(|error| {
                    format!("compacting json for seccomp profile ({value}) failed: {error}")
                })?;
                options.push(format!("seccomp={profile}"));
            } else {
                options.push(flag.clone());
            }
        }
        Ok(options)
    }
}

fn each<T>(flags: &[String], parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    flags.iter().map(|flag| parse(flag)).collect()
}
