//! `--change` of import and commit: single Dockerfile instructions applied to a configuration.
//!
//! Which instructions are allowed and what each does: moby `daemon/builder/dockerfile/{builder,dispatchers}.go`; the words,
//! quotes and variables: BuildKit `frontend/dockerfile/{parser,shell}`. This is not the builder: one instruction per
//! text, no stages, no heredocs, no parser directives.

mod words;

use crate::config::{Empty, Healthcheck, RunConfig};
use crate::error::ImageError;
use words::{duration_ns, expand, name_values, split};

/// Applies `changes` in order. Nothing is changed if one of them is malformed.
pub(super) fn apply(config: &mut RunConfig, changes: &[String]) -> Result<(), ImageError> {
    let mut changed = config.clone();
    let mut state = State { command_set: false };
    for change in changes {
        let text = change.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        state.instruction(&mut changed, text).map_err(|reason| {
            ImageError::Invalid(format!("invalid change {change:?}: {reason}"))
        })?;
    }
    *config = changed;
    Ok(())
}

struct State {
    /// A CMD among the changes survives a later ENTRYPOINT.
    command_set: bool,
}

impl State {
    fn instruction(&mut self, config: &mut RunConfig, text: &str) -> Result<(), String> {
        let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let name = name.to_ascii_uppercase();
        let rest = rest.trim();
        if rest.is_empty() {
            return Err(match known(&name) {
                true => format!("{name} requires at least one argument"),
                false => format!("{} is not a valid change command", name.to_lowercase()),
            });
        }
        let env = config.env.clone().unwrap_or_default();
        let one = |text: &str| expand(text, &env);
        match &*name {
            "CMD" => {
                config.cmd = Some(command(config, rest));
                self.command_set = true;
            }
            "ENTRYPOINT" => {
                config.entrypoint = Some(command(config, rest));
                if !self.command_set {
                    config.cmd = None;
                }
            }
            "ENV" => {
                for (name, value) in name_values(rest, &env)? {
                    let list = config.env.get_or_insert_default();
                    let prefix = format!("{name}=");
                    let entry = format!("{prefix}{value}");
                    match list.iter_mut().find(|entry| entry.starts_with(&prefix)) {
                        Some(old) => *old = entry,
                        None => list.push(entry),
                    }
                }
            }
            "LABEL" => {
                for (name, value) in name_values(rest, &env)? {
                    config.labels.insert(name, value);
                }
            }
            "EXPOSE" => {
                for word in split(rest, &env)? {
                    for port in ports(&word)? {
                        config.exposed_ports.insert(port, Empty {});
                    }
                }
            }
            "USER" => config.user = one(rest)?,
            "VOLUME" => {
                let volumes = match array(rest) {
                    Some(list) => list.iter().map(|v| one(v)).collect::<Result<_, _>>()?,
                    None => split(rest, &env)?,
                };
                for volume in volumes {
                    if volume.trim().is_empty() {
                        return Err("VOLUME specified can not be an empty string".to_owned());
                    }
                    config.volumes.insert(volume, Empty {});
                }
            }
            "WORKDIR" => {
                let directory = one(rest)?;
                config.working_dir = match directory.starts_with('/') {
                    true => clean(&directory),
                    false => clean(&format!("{}/{directory}", config.working_dir)),
                };
            }
            "STOPSIGNAL" => {
                let signal = one(rest)?;
                if !is_signal(&signal) {
                    return Err(format!("invalid signal: {signal}"));
                }
                config.stop_signal = signal;
            }
            "HEALTHCHECK" => config.healthcheck = Some(healthcheck(config, rest)?),
            "ONBUILD" => {
                let inner = rest
                    .split_whitespace()
                    .next()
                    .unwrap_or_default()
                    .to_ascii_uppercase();
                if matches!(&*inner, "ONBUILD" | "FROM" | "MAINTAINER") {
                    return Err(match &*inner {
                        "ONBUILD" => {
                            "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned()
                        }
                        inner => format!("{inner} isn't allowed as an ONBUILD trigger"),
                    });
                }
                config.on_build.push(rest.to_owned());
            }
            other => {
                return Err(format!(
                    "{} is not a valid change command",
                    other.to_lowercase()
                ));
            }
        }
        Ok(())
    }
}

fn known(name: &str) -> bool {
    matches!(
        name,
        "CMD"
            | "ENTRYPOINT"
            | "ENV"
            | "LABEL"
            | "EXPOSE"
            | "USER"
            | "VOLUME"
            | "WORKDIR"
            | "STOPSIGNAL"
            | "HEALTHCHECK"
            | "ONBUILD"
    )
}

/// The exec form as it is, the shell form behind the image's shell.
fn command(config: &RunConfig, text: &str) -> Vec<String> {
    if let Some(list) = array(text) {
        return list;
    }
    let mut command = match config.shell.is_empty() {
        true => vec!["/bin/sh".to_owned(), "-c".to_owned()],
        false => config.shell.clone(),
    };
    command.push(text.to_owned());
    command
}

/// A JSON array of strings. Anything else, even malformed JSON, is the shell form.
fn array(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

/// `port[-port][/protocol]`, each port by itself, `tcp` filled in.
fn ports(text: &str) -> Result<Vec<String>, String> {
    let invalid = || format!("invalid containerPort: {text}");
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(&*protocol, "tcp" | "udp" | "sctp") {
        return Err(format!("invalid proto: {protocol}"));
    }
    let (low, high) = range.split_once('-').unwrap_or((range, range));
    let low: u16 = low.parse().map_err(|_| invalid())?;
    let high: u16 = high.parse().map_err(|_| invalid())?;
    if low > high {
        return Err(format!("invalid range specified for port: {range}"));
    }
    Ok((low..=high)
        .map(|port| format!("{port}/{protocol}"))
        .collect())
}

fn healthcheck(config: &RunConfig, text: &str) -> Result<Healthcheck, String> {
    let mut check = Healthcheck::default();
    let mut rest = text;
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        let (name, value) = flag
            .split_once('=')
            .ok_or(format!("missing a value on flag: --{flag}"))?;
        let duration = || {
            let nanoseconds =
                duration_ns(value).ok_or(format!("invalid duration {value:?} for --{name}"))?;
            if nanoseconds != 0 && nanoseconds < 1_000_000 {
                return Err(format!("interval {name:?} cannot be less than 1ms"));
            }
            Ok(nanoseconds)
        };
        match name {
            "interval" => check.interval = duration()?,
            "timeout" => check.timeout = duration()?,
            "start-period" => check.start_period = duration()?,
            "start-interval" => check.start_interval = duration()?,
            "retries" => {
                check.retries = value
                    .parse()
                    .ok()
                    .filter(|count| *count >= 0)
                    .ok_or(format!(
                        "--retries must be a number that is not negative, not {value:?}"
                    ))?;
            }
            _ => return Err(format!("unknown flag: --{name}")),
        }
        rest = after.trim_start();
    }
    let (kind, arguments) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let arguments = arguments.trim();
    match &*kind.to_ascii_uppercase() {
        "NONE" if arguments.is_empty() => check.test = vec!["NONE".to_owned()],
        "NONE" => return Err("HEALTHCHECK NONE takes no arguments".to_owned()),
        "CMD" if arguments.is_empty() => {
            return Err("missing command after HEALTHCHECK CMD".to_owned());
        }
        "CMD" => {
            check.test = match array(arguments) {
                Some(list) => [vec!["CMD".to_owned()], list].concat(),
                None if config.shell.is_empty() => {
                    vec!["CMD-SHELL".to_owned(), arguments.to_owned()]
                }
                None => [vec!["CMD".to_owned()], command(config, arguments)].concat(),
            };
        }
        kind => return Err(format!("unknown type {kind:?} in HEALTHCHECK (try CMD)")),
    }
    Ok(check)
}

/// An absolute path without `.`, `..` and doubled slashes.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// A number from 1 to 64, a name, or a real-time signal such as `RTMIN+3`.
fn is_signal(text: &str) -> bool {
    const NAMES: [&str; 33] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT",
        "KILL", "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM",
        "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU",
    ];
    if let Ok(number) = text.parse::<u8>() {
        return (1..=64).contains(&number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let real_time = |prefix: &str, sign: char| {
        name.strip_prefix(prefix).is_some_and(|rest| {
            rest.is_empty()
                || rest
                    .strip_prefix(sign)
                    .and_then(|n| n.parse::<u8>().ok())
                    .is_some_and(|n| (1..=15).contains(&n))
        })
    };
    NAMES.contains(&name) || name == "XFSZ" || real_time("RTMIN", '+') || real_time("RTMAX", '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[&str]) -> Result<RunConfig, String> {
        let mut config = RunConfig::default();
        let changes: Vec<String> = changes.iter().map(|c| (*c).to_owned()).collect();
        apply(&mut config, &changes).map_err(|e| e.to_string())?;
        Ok(config)
    }

    #[test]
    fn every_instruction_changes_its_field() {
        let config = changed(&[
            r#"CMD ["nginx", "-g", "daemon off;"]"#,
            "ENV A=1 B=\"two words\" C='$A'",
            "env PATH $A:/bin and more",
            "EXPOSE 80 53/udp 8000-8002",
            r#"LABEL a=b "c d"=e\ f"#,
            "USER app:app",
            r#"VOLUME ["/data"]"#,
            "VOLUME /a /b",
            "WORKDIR /srv",
            "WORKDIR app/../www",
            "STOPSIGNAL SIGQUIT",
            "HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f localhost || exit 1",
            "ONBUILD RUN make",
        ])
        .unwrap();
        assert_eq!(config.cmd.unwrap(), ["nginx", "-g", "daemon off;"]);
        assert_eq!(
            config.env.unwrap(),
            ["A=1", "B=two words", "C=$A", "PATH=1:/bin and more"]
        );
        let ports: Vec<_> = config.exposed_ports.keys().collect();
        assert_eq!(
            ports,
            ["80/tcp", "53/udp", "8000/tcp", "8001/tcp", "8002/tcp"]
        );
        assert_eq!(config.labels["a"], "b");
        assert_eq!(config.labels["c d"], "e f");
        assert_eq!(config.user, "app:app");
        assert_eq!(
            config.volumes.keys().collect::<Vec<_>>(),
            ["/data", "/a", "/b"]
        );
        assert_eq!(config.working_dir, "/srv/www");
        assert_eq!(config.stop_signal, "SIGQUIT");
        let check = config.healthcheck.unwrap();
        assert_eq!(check.test, ["CMD-SHELL", "curl -f localhost || exit 1"]);
        assert_eq!((check.interval, check.retries), (90_000_000_000, 3));
        assert_eq!(config.on_build, ["RUN make"]);
    }

    #[test]
    fn entrypoint_resets_an_inherited_command_only() {
        let config = changed(&["ENTRYPOINT top -b"]).unwrap();
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "top -b"]);
        let config = changed(&["CMD a", r#"ENTRYPOINT ["b"]"#]).unwrap();
        assert_eq!(config.cmd.unwrap(), ["/bin/sh", "-c", "a"]);
        let mut config = RunConfig {
            cmd: Some(vec!["inherited".into()]),
            ..RunConfig::default()
        };
        apply(&mut config, &["ENTRYPOINT [\"b\"]".to_owned()]).unwrap();
        assert_eq!(config.cmd, None);
    }

    #[test]
    fn what_is_no_change_is_refused_and_changes_nothing() {
        for (change, reason) in [
            ("RUN rm -rf /", "run is not a valid change command"),
            ("COPY a b", "copy is not a valid change command"),
            ("CMD", "CMD requires at least one argument"),
            ("EXPOSE 99999", "invalid containerPort: 99999"),
            ("EXPOSE 80/icmp", "invalid proto: icmp"),
            ("ENV A", "ENV must have two arguments"),
            (
                "ENV A=1 B",
                "can't find = in \"B\". Must be of the form: name=value",
            ),
            ("LABEL a=\"b", "unterminated quote"),
            ("STOPSIGNAL SIGFOO", "invalid signal: SIGFOO"),
            ("HEALTHCHECK --every=1s CMD a", "unknown flag: --every"),
            (
                "HEALTHCHECK CURL a",
                "unknown type \"CURL\" in HEALTHCHECK (try CMD)",
            ),
            ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ] {
            let error = changed(&["USER a", change]).expect_err(change);
            assert!(error.contains(reason), "{change}: {error}");
        }
    }
}
