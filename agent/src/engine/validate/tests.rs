//! Requests that are refused, with dockerd's texts, and those that are not.

use super::*;
use agent_api::{LogConfig, Ulimit};

const HOST: Host = Host {
    cpus: 2,
    swap_limit: true,
    blkio_weight: false,
};

fn refusal(json: serde_json::Value) -> String {
    let request: agent_api::ContainerCreateRequest = serde_json::from_value(json.clone()).unwrap();
    let mut host = request.host_config;
    match create(&request.config, &mut host, HOST) {
        Ok(warnings) => panic!("{json} was accepted with {warnings:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn texts_are_dockers() {
    use serde_json::json;
    let host = |host: serde_json::Value| json!({ "HostConfig": host });
    for (request, expected) in [
        (
            host(json!({"Memory": 1000})),
            "Minimum memory limit allowed is 6MB",
        ),
        (
            host(json!({"Memory": 10_000_000, "MemorySwap": 1000})),
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            host(json!({"MemorySwap": 10_000_000})),
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        (
            host(json!({"MemoryReservation": 1000})),
            "Minimum memory reservation allowed is 6MB",
        ),
        (
            host(json!({"MemorySwappiness": 200})),
            "Invalid value: 200, valid memory swappiness range is 0-100",
        ),
        (
            host(json!({"NanoCpus": 1_000_000_000_000_i64})),
            "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        ),
        (
            host(json!({"NanoCpus": 1_000_000, "CpuQuota": 1000})),
            "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
        ),
        (
            host(json!({"CpuPeriod": 10})),
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ),
        (
            host(json!({"CpuQuota": 10})),
            "CPU cfs quota can not be less than 1ms (i.e. 1000)",
        ),
        (
            host(json!({"CpusetCpus": "99"})),
            "Requested CPUs are not available - requested 99, available: 0-1",
        ),
        (
            host(json!({"CpusetCpus": "x"})),
            "Invalid value x for cpuset cpus: invalid format: x",
        ),
        (
            host(json!({"OomScoreAdj": 5000})),
            "Invalid value 5000, range for oom score adj is [-1000, 1000]",
        ),
        (
            host(json!({"ShmSize": -1})),
            "SHM size can not be less than 0",
        ),
        (
            host(json!({"RestartPolicy": {"Name": "foo"}})),
            "invalid restart policy: unknown policy 'foo'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
        ),
        (
            host(json!({"RestartPolicy": {"Name": "always", "MaximumRetryCount": 3}})),
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ),
        (
            host(json!({"AutoRemove": true, "RestartPolicy": {"Name": "always"}})),
            "can't create 'AutoRemove' container with restart policy",
        ),
        (
            host(json!({"LogConfig": {"Type": "foo"}})),
            "error looking up logging plugin foo: plugin \"foo\" not found",
        ),
        (
            host(json!({"LogConfig": {"Type": "json-file", "Config": {"foo": "x"}}})),
            "unknown log opt 'foo' for json-file log driver",
        ),
        (
            host(json!({"Runtime": "foo"})),
            "unknown or invalid runtime name: foo",
        ),
        (
            host(json!({"CapAdd": ["FOO"]})),
            "invalid CapAdd: unknown capability: \"CAP_FOO\"",
        ),
        (host(json!({"IpcMode": "foo"})), "invalid IPC mode: foo"),
        (
            host(json!({"IpcMode": "container:"})),
            "invalid IPC mode: container:",
        ),
        (host(json!({"PidMode": "foo"})), "invalid PID mode: foo"),
        (host(json!({"UTSMode": "foo"})), "invalid UTS mode: foo"),
        (
            host(json!({"CgroupnsMode": "foo"})),
            "invalid cgroup namespace mode: foo",
        ),
        (
            host(json!({"SecurityOpt": ["foo=bar"]})),
            "invalid --security-opt 2: \"foo=bar\"",
        ),
        (
            host(json!({"ExtraHosts": ["foo"]})),
            "bad format for add-host: \"foo\"",
        ),
        (json!({"StopSignal": "FOO"}), "invalid signal: FOO"),
        (
            json!({"WorkingDir": "foo"}),
            "the working directory 'foo' is invalid, it needs to be an absolute path",
        ),
        (json!({"Env": ["=x"]}), "invalid environment variable: =x"),
        (
            json!({"Healthcheck": {"Test": ["CMD", "x"], "Interval": 100}}),
            "Interval in Healthcheck cannot be less than 1ms",
        ),
        (
            host(json!({"NetworkMode": "container:x", "Dns": ["1.1.1.1"]})),
            "conflicting options: dns and the network mode",
        ),
    ] {
        assert_eq!(refusal(request.clone()), expected, "{request}");
    }
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    use serde_json::json;
    for (option, value) in [
        ("UsernsMode", json!("private")),
        ("StorageOpt", json!({"size": "1G"})),
        ("DeviceRequests", json!([{"Count": -1}])),
        ("Links", json!(["db:db"])),
        ("CpuRealtimePeriod", json!(1)),
        ("Annotations", json!({"a": "b"})),
    ] {
        let text = refusal(json!({ "HostConfig": { option: value } }));
        assert!(
            text.starts_with(option) && text.ends_with("is not supported"),
            "{text}"
        );
    }
    let text = refusal(json!({"HostConfig": {"LogConfig": {"Type": "syslog"}}}));
    assert_eq!(text, "log driver \"syslog\" is not supported");
}

#[test]
fn what_the_kernel_cannot_do_is_taken_out_with_dockers_warning() {
    let mut host = HostConfig::default();
    host.resources.blkio_weight = 300;
    host.resources.memory = 64 << 20;
    let facts = Host {
        swap_limit: false,
        ..HOST
    };
    let warnings = create(&ContainerConfig::default(), &mut host, facts).unwrap();
    assert_eq!(
        warnings,
        [
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.",
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.",
        ]
    );
    assert_eq!(
        (host.resources.blkio_weight, host.resources.memory_swap),
        (0, -1)
    );
}

#[test]
fn security_options_are_read_with_both_separators() {
    for (text, expected) in [
        ("no-new-privileges", SecurityOption::NoNewPrivileges(true)),
        (
            "no-new-privileges:false",
            SecurityOption::NoNewPrivileges(false),
        ),
        ("seccomp=unconfined", SecurityOption::SeccompUnconfined),
        (
            "seccomp={\"a\":1}",
            SecurityOption::SeccompProfile("{\"a\":1}".into()),
        ),
        ("label:disable", SecurityOption::NoModule),
    ] {
        assert_eq!(SecurityOption::parse(text).unwrap(), expected, "{text}");
    }
    assert!(SecurityOption::parse("apparmor=mine").is_err());
}

#[test]
fn limits_that_contradict_themselves_are_refused() {
    let ulimit = |name: &str, soft, hard| Ulimit {
        name: name.into(),
        soft,
        hard,
    };
    for (limit, accepted) in [
        (ulimit("nofile", 10, 20), true),
        (ulimit("nofile", -1, -1), true),
        (ulimit("nofile", 20, 10), false),
        (ulimit("nofile", -1, 10), false),
        (ulimit("files", 1, 1), false),
    ] {
        let mut r = Resources {
            ulimits: vec![limit.clone()],
            ..Resources::default()
        };
        assert_eq!(resources(&mut r, HOST).is_ok(), accepted, "{limit:?}");
    }
}

#[test]
fn ordinary_requests_pass() {
    let mut host = HostConfig {
        log_config: LogConfig {
            kind: "json-file".into(),
            config: [
                ("max-size".to_owned(), "10m".to_owned()),
                ("max-file".to_owned(), "3".to_owned()),
            ]
            .into(),
        },
        network_mode: "host".into(),
        ..HostConfig::default()
    };
    let warnings = create(&ContainerConfig::default(), &mut host, HOST).unwrap();
    assert!(warnings.is_empty());
}
