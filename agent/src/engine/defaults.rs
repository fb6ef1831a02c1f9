//! Filling in what a create request leaves open: from the image, then from the engine. Pure.
//!
//! Sources: moby `daemon/commit.go:merge`, `daemon/create.go`, `daemon/daemon_unix.go:adaptContainerSettings`,
//! `daemon/container_operations.go`.

use agent_api::{ContainerConfig, Empty, HealthConfig, HostConfig, LogConfig, Set};
use agent_image::RunConfig;

use super::EngineOptions;
use crate::error::{Error, Result};

/// Name of the one runtime there is.
pub(crate) const RUNTIME: &str = "muster";
const MIN_CPU_SHARES: i64 = 2;
const MAX_CPU_SHARES: i64 = 262_144;

/// Fills a container's configuration from its image's. The request wins, entry by entry.
pub(crate) fn merge_image(config: &mut ContainerConfig, image: &RunConfig) {
    if config.user.is_empty() {
        config.user.clone_from(&image.user);
    }
    if config.working_dir.is_empty() {
        config.working_dir.clone_from(&image.working_dir);
    }
    if config.stop_signal.is_empty() {
        config.stop_signal.clone_from(&image.stop_signal);
    }
    union(&mut config.exposed_ports, image.exposed_ports.keys());
    union(&mut config.volumes, image.volumes.keys());
    for (key, value) in &image.labels {
        if !config.labels.contains_key(key) {
            config.labels.insert(key.clone(), value.clone());
        }
    }
    merge_env(&mut config.env, image.env.as_deref().unwrap_or_default());
    if config.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            config.cmd.clone_from(&image.cmd);
            config.args_escaped = image.args_escaped;
        }
        if config.entrypoint.is_none() {
            config.entrypoint.clone_from(&image.entrypoint);
        }
    }
    if config.entrypoint.as_deref() == Some(&[String::new()]) {
        config.entrypoint = None;
    }
    merge_healthcheck(&mut config.healthcheck, image.healthcheck.as_ref());
}

fn union<'a>(own: &mut Option<Set>, image: impl ExactSizeIterator<Item = &'a String>) {
    if image.len() > 0 {
        let own = own.get_or_insert_default();
        image.for_each(|key| {
            own.entry(key.clone()).or_insert(Empty {});
        });
    }
}

fn merge_env(own: &mut Option<Vec<String>>, image: &[String]) {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut merged = own.take().unwrap_or_default();
    let names: std::collections::HashSet<String> = merged.iter().map(|entry| name(entry)).collect();
    merged.extend(
        image
            .iter()
            .filter(|entry| !names.contains(&name(entry)))
            .cloned(),
    );
    *own = Some(merged);
}

fn merge_healthcheck(own: &mut Option<HealthConfig>, image: Option<&agent_image::Healthcheck>) {
    let Some(image) = image else { return };
    let own = own.get_or_insert_default();
    if own.test.as_ref().is_none_or(Vec::is_empty) {
        own.test = Some(image.test.clone());
    }
    for (own, image) in [
        (&mut own.interval, image.interval),
        (&mut own.timeout, image.timeout),
        (&mut own.start_period, image.start_period),
        (&mut own.start_interval, image.start_interval),
        (&mut own.retries, image.retries),
    ] {
        if *own == 0 {
            *own = image;
        }
    }
}

/// Program and arguments.
pub(crate) fn command(config: &ContainerConfig) -> Result<Vec<String>> {
    let parts = config.entrypoint.iter().chain(&config.cmd).flatten();
    let command: Vec<String> = parts.cloned().collect();
    match command.first() {
        None => Err(Error::invalid("no command specified")),
        Some(_) => Ok(command),
    }
}

/// Fills the host configuration with the engine's defaults.
pub(crate) fn fill_host(host: &mut HostConfig, options: &EngineOptions, cgroup_v2: bool) {
    let resources = &mut host.resources;
    if resources.cpu_shares != 0 {
        resources.cpu_shares = resources.cpu_shares.clamp(MIN_CPU_SHARES, MAX_CPU_SHARES);
    }
    if resources.memory > 0 && resources.memory_swap == 0 {
        resources.memory_swap = resources.memory.saturating_mul(2);
    }
    resources.oom_kill_disable.get_or_insert(false);
    // -1 is how clients say "not set".
    resources.memory_swappiness = resources.memory_swappiness.filter(|value| *value != -1);
    resources.pids_limit = resources.pids_limit.filter(|limit| *limit != 0);
    if host.shm_size == 0 {
        host.shm_size = i64::try_from(options.default_shm_size).unwrap_or(i64::MAX);
    }
    let set = |field: &mut String, value: &str| {
        if field.is_empty() {
            value.clone_into(field);
        }
    };
    if host.network_mode == "default" {
        host.network_mode.clear();
    }
    set(&mut host.network_mode, "bridge");
    set(&mut host.ipc_mode, "private");
    set(
        &mut host.cgroupns_mode,
        if cgroup_v2 { "private" } else { "host" },
    );
    set(&mut host.restart_policy.name, "no");
    host.runtime = Some(RUNTIME.to_owned());
    if host.log_config.kind.is_empty() {
        let config = match host.log_config.config.is_empty() {
            true => options.log_options.clone(),
            false => std::mem::take(&mut host.log_config.config),
        };
        host.log_config = LogConfig {
            kind: options.log_driver.clone(),
            config,
        };
    }
    if !host.privileged {
        let texts = |paths: Vec<std::path::PathBuf>| {
            paths
                .iter()
                .map(|path| path.to_string_lossy().into_owned())
                .collect()
        };
        host.masked_paths
            .get_or_insert_with(|| texts(agent_runtime::spec::default_masked_paths()));
        host.readonly_paths
            .get_or_insert_with(|| texts(agent_runtime::spec::default_readonly_paths()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Option<Vec<String>> {
        Some(text.split_whitespace().map(str::to_owned).collect())
    }

    fn merged(entrypoint: Option<Vec<String>>, cmd: Option<Vec<String>>) -> Result<Vec<String>> {
        let image = RunConfig {
            entrypoint: words("/entry"),
            cmd: words("run all"),
            ..RunConfig::default()
        };
        let mut config = ContainerConfig {
            entrypoint,
            cmd,
            ..ContainerConfig::default()
        };
        merge_image(&mut config, &image);
        command(&config)
    }

    #[test]
    fn a_command_replaces_the_images_and_an_entrypoint_drops_it() {
        assert_eq!(merged(None, None).unwrap(), ["/entry", "run", "all"]);
        assert_eq!(merged(None, words("other")).unwrap(), ["/entry", "other"]);
        assert_eq!(merged(words("/mine"), None).unwrap(), ["/mine"]);
        assert_eq!(merged(words("/mine"), words("x")).unwrap(), ["/mine", "x"]);
        assert_eq!(
            merged(Some(vec![String::new()]), words("sh")).unwrap(),
            ["sh"]
        );
        assert_eq!(merged(Some(vec![]), None).unwrap(), ["run", "all"]);
        assert_eq!(
            merged(Some(vec![String::new()]), None).unwrap_err(),
            Error::invalid("no command specified")
        );
    }

    #[test]
    fn environment_and_labels_of_the_request_win() {
        let image = RunConfig {
            env: words("PATH=/bin LANG=C"),
            labels: [
                ("a".to_owned(), "image".to_owned()),
                ("b".to_owned(), "image".to_owned()),
            ]
            .into(),
            ..RunConfig::default()
        };
        let mut config = ContainerConfig {
            env: words("LANG=de X=1 PATH"),
            labels: [("a".to_owned(), "own".to_owned())].into(),
            ..ContainerConfig::default()
        };
        merge_image(&mut config, &image);
        assert_eq!(config.env, words("LANG=de X=1 PATH"));
        assert_eq!(
            (config.labels["a"].as_str(), config.labels["b"].as_str()),
            ("own", "image")
        );
    }

    #[test]
    fn a_health_check_inherits_field_by_field() {
        let image = RunConfig {
            healthcheck: Some(agent_image::Healthcheck {
                test: vec!["CMD".into(), "probe".into()],
                interval: 5,
                retries: 2,
                ..agent_image::Healthcheck::default()
            }),
            ..RunConfig::default()
        };
        let mut config = ContainerConfig {
            healthcheck: Some(HealthConfig {
                interval: 9,
                ..HealthConfig::default()
            }),
            ..ContainerConfig::default()
        };
        merge_image(&mut config, &image);
        let check = config.healthcheck.unwrap();
        assert_eq!(check.test.unwrap(), ["CMD", "probe"]);
        assert_eq!((check.interval, check.retries), (9, 2));
    }

    #[test]
    fn host_defaults_are_dockers() {
        let options = EngineOptions::new("/d", "/e", "/x");
        let mut host = HostConfig {
            network_mode: "default".into(),
            ..HostConfig::default()
        };
        host.resources.memory = 64 << 20;
        host.resources.cpu_shares = 1;
        host.resources.memory_swappiness = Some(-1);
        fill_host(&mut host, &options, false);
        assert_eq!(host.resources.memory_swap, 128 << 20);
        assert_eq!(host.resources.cpu_shares, 2);
        assert_eq!(host.resources.memory_swappiness, None);
        assert_eq!(
            (host.network_mode.as_str(), host.ipc_mode.as_str()),
            ("bridge", "private")
        );
        assert_eq!(host.cgroupns_mode, "host");
        assert_eq!(host.log_config.kind, "json-file");
        assert_eq!(host.shm_size, 64 << 20);
        assert_eq!(host.readonly_paths.unwrap()[0], "/proc/bus");
        let mut privileged = HostConfig {
            privileged: true,
            ..HostConfig::default()
        };
        fill_host(&mut privileged, &options, true);
        assert_eq!(privileged.masked_paths, None);
        assert_eq!(privileged.cgroupns_mode, "private");
    }
}
