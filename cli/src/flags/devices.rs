//! Devices, limits and other small syntaxes. Source: docker/cli `cli/command/container/opts.go`, `opts/ulimit.go`.

use crate::render::units::ram_in_bytes;
use agent_api::{
    DeviceMapping, DeviceRequest, RestartPolicy, ThrottleDevice, Ulimit, WeightDevice,
};

/// `/dev/x[:/dev/y][:rwm]`
pub(crate) fn device(flag: &str) -> Result<DeviceMapping, String> {
    let is_mode = |text: &str| !text.is_empty() && text.chars().all(|c| "rwm".contains(c));
    let parts: Vec<_> = flag.split(':').collect();
    let (source, target, mode) = match *parts.as_slice() {
        [source] => (source, source, "rwm"),
        [source, mode] if is_mode(mode) => (source, source, mode),
        [source, target] => (source, target, "rwm"),
        [source, target, mode] if is_mode(mode) => (source, target, mode),
        _ => {
            return Err(format!(
                "invalid device specification: {flag}: write /dev/host[:/dev/container][:rwm]"
            ));
        }
    };
    if source.is_empty() || !target.starts_with('/') {
        return Err(format!(
            "invalid device specification: {flag}: {target:?} is not an absolute path"
        ));
    }
    Ok(DeviceMapping {
        path_on_host: source.to_owned(),
        path_in_container: target.to_owned(),
        cgroup_permissions: mode.to_owned(),
    })
}

/// `name=soft[:hard]`
pub(crate) fn ulimit(flag: &str) -> Result<Ulimit, String> {
    const NAMES: &[&str] = &[
        "as",
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
    let bad = |reason: &str| format!("invalid ulimit {flag:?}: {reason}");
    let (name, limits) = flag
        .split_once('=')
        .ok_or_else(|| bad("write name=soft[:hard]"))?;
    if !NAMES.contains(&name) {
        return Err(bad("there is no limit of this name"));
    }
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| match text {
        "unlimited" => Ok(-1),
        _ => text
            .parse::<i64>()
            .map_err(|_| bad("limits are numbers, -1 is unlimited")),
    };
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard != -1 && (soft > hard || soft == -1) {
        return Err(bad("the soft limit must not be above the hard one"));
    }
    Ok(Ulimit {
        name: name.to_owned(),
        hard,
        soft,
    })
}

/// `no`, `always`, `unless-stopped`, `on-failure[:count]`
pub(crate) fn restart(flag: &str) -> Result<RestartPolicy, String> {
    let bad = |reason: &str| format!("invalid restart policy {flag:?}: {reason}");
    let (name, count) = match flag.split_once(':') {
        Some((name, count)) => (
            name,
            count
                .parse::<i64>()
                .map_err(|_| bad("maximum retry count must be an integer"))?,
        ),
        None => (flag, 0),
    };
    match name {
        "" | "no" | "always" | "unless-stopped" if flag.contains(':') => {
            Err(bad("maximum retry count can only be used with on-failure"))
        }
        "" | "no" | "always" | "unless-stopped" | "on-failure" if count >= 0 => Ok(RestartPolicy {
            name: name.to_owned(),
            maximum_retry_count: count,
        }),
        "on-failure" => Err(bad("maximum retry count cannot be negative")),
        _ => Err(bad(
            "there are no, always, unless-stopped and on-failure[:count]",
        )),
    }
}

/// `/dev/sda:300`
pub(crate) fn weight_device(flag: &str) -> Result<WeightDevice, String> {
    let bad = || format!("invalid device weight {flag:?}: write /dev/name:weight");
    let (path, weight) = flag.split_once(':').ok_or_else(bad)?;
    let weight = weight.parse().map_err(|_| bad())?;
    Ok(WeightDevice {
        path: path.to_owned(),
        weight,
    })
}

/// `/dev/sda:1mb` (bytes) or `/dev/sda:1000` (operations).
pub(crate) fn throttle_device(flag: &str, bytes: bool) -> Result<ThrottleDevice, String> {
    let bad = || format!("invalid rate {flag:?}: write /dev/name:rate");
    let (path, rate) = flag.split_once(':').ok_or_else(bad)?;
    let rate = if bytes {
        ram_in_bytes(rate).and_then(|rate| u64::try_from(rate).ok())
    } else {
        rate.parse().ok()
    };
    Ok(ThrottleDevice {
        path: path.to_owned(),
        rate: rate.ok_or_else(bad)?,
    })
}

/// `--cpus 1.5` in units of 1e-9 CPUs.
pub(crate) fn nano_cpus(flag: &str) -> Result<i64, String> {
    let bad = || format!("invalid number of CPUs {flag:?}: write it like 1.5");
    let value: f64 = flag.parse().map_err(|_| bad())?;
    if !(0.0..1e6).contains(&value) {
        return Err(bad());
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked to be in range")]
    Ok((value * 1e9).round() as i64)
}

/// `--gpus all|2|device=…`
pub(crate) fn gpus(flag: &str) -> Result<DeviceRequest, String> {
    let mut request = DeviceRequest {
        capabilities: Some(vec![vec!["gpu".to_owned()]]),
        ..Default::default()
    };
    for field in super::mounts::csv(flag)? {
        let (key, value) = field.split_once('=').unwrap_or(("count", &field));
        match key {
            "count" if value == "all" => request.count = -1,
            "count" => {
                request.count = value
                    .parse()
                    .map_err(|_| format!("invalid number of GPUs {value:?}"))?
            }
            "driver" => value.clone_into(&mut request.driver),
            "device" => request
                .device_ids
                .get_or_insert_default()
                .extend(value.split(',').map(str::to_owned)),
            "capabilities" => {
                let mut all: Vec<_> = value.split(',').map(str::to_owned).collect();
                all.push("gpu".to_owned());
                request.capabilities = Some(vec![all]);
            }
            _ => return Err(format!("unexpected key {key:?} in --gpus {flag}")),
        }
    }
    Ok(request)
}

/// For clap: memory with a unit.
pub(crate) fn memory(text: &str) -> Result<i64, String> {
    ram_in_bytes(text).ok_or_else(|| format!("invalid size {text:?}: write it like 512m or 1g"))
}

/// For clap: memory with a unit, or -1 for no limit.
pub(crate) fn memory_or_unlimited(text: &str) -> Result<i64, String> {
    if text == "-1" { Ok(-1) } else { memory(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_syntaxes() {
        let found = device("/dev/null:/dev/x:r").unwrap();
        assert_eq!(
            (
                found.path_in_container.as_str(),
                found.cgroup_permissions.as_str()
            ),
            ("/dev/x", "r")
        );
        assert_eq!(
            device("/dev/null:rw").unwrap().path_in_container,
            "/dev/null"
        );
        assert!(device("/dev/a:b:c:d").is_err());
        assert_eq!(
            ulimit("nofile=10:20").unwrap(),
            Ulimit {
                name: "nofile".into(),
                hard: 20,
                soft: 10
            }
        );
        assert_eq!(ulimit("core=0").unwrap().hard, 0);
        assert!(
            ulimit("nofile=20:10").is_err()
                && ulimit("foo=1").is_err()
                && ulimit("nofile").is_err()
        );
        assert_eq!(restart("on-failure:3").unwrap().maximum_retry_count, 3);
        assert!(
            restart("always:3").is_err()
                && restart("sometimes").is_err()
                && restart("on-failure:x").is_err()
        );
        assert_eq!(nano_cpus("0.5").unwrap(), 500_000_000);
        assert_eq!(gpus("all").unwrap().count, -1);
        assert_eq!(throttle_device("/dev/sda:1mb", true).unwrap().rate, 1 << 20);
        assert_eq!(memory_or_unlimited("-1"), Ok(-1));
    }
}
