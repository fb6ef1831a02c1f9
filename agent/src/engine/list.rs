//! Which containers a list shows: Docker's filters of `ps` and of `container prune`. Pure.
//!
//! Source: moby `daemon/list.go`.

use std::sync::Arc;

use agent_api::{ContainerStatus, Filters, HealthStatus};
use jiff::Timestamp;

use super::container::Container;
use super::requests::ListOptions;
use crate::error::{Error, Result};

const FILTERS: [&str; 15] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

/// What filters need to know of other objects.
pub(crate) struct Lookup<'a> {
    /// The creation time of a container by reference.
    pub(crate) created: &'a dyn Fn(&str) -> Result<Timestamp>,
    /// Ids of an image and of those made from it.
    pub(crate) descendants: &'a dyn Fn(&str) -> Vec<String>,
}

/// Chooses from `all`, which are sorted newest first.
pub(crate) fn select(
    all: Vec<Arc<Container>>,
    options: &ListOptions,
    lookup: &Lookup<'_>,
) -> Result<Vec<Arc<Container>>> {
    let filters = &options.filters;
    filters.allow(&FILTERS)?;
    let invalid =
        |name: &str, value: &str| Error::invalid(format!("invalid filter '{name}={value}'"));
    for status in filters.get("status") {
        parse_status(status).ok_or_else(|| invalid("status", status))?;
    }
    let exited: Vec<i32> = filters
        .get("exited")
        .map(|code| code.parse().map_err(|_| invalid("exited", code)))
        .collect::<Result<_>>()?;
    let names: Vec<regex::Regex> = filters
        .get("name")
        .map(|pattern| regex::Regex::new(pattern).map_err(|_| invalid("name", pattern)))
        .collect::<Result<_>>()?;
    let before = filters
        .get("before")
        .map(lookup.created)
        .collect::<Result<Vec<_>>>()?;
    let since = filters
        .get("since")
        .map(lookup.created)
        .collect::<Result<Vec<_>>>()?;
    let ancestors: Option<Vec<String>> = filters.contains("ancestor").then(|| {
        filters
            .get("ancestor")
            .flat_map(lookup.descendants)
            .collect()
    });
    if filters
        .get("is-task")
        .any(|value| matches!(value, "true" | "1"))
    {
        return Ok(Vec::new());
    }
    // Asking for a state, or for the newest, is asking for all states.
    let everything = options.all
        || options.limit > 0
        || ["status", "exited", "before", "since"]
            .iter()
            .any(|name| filters.contains(name));
    let mut chosen = Vec::new();
    for container in all {
        let definition = &container.definition;
        let status = container.state.status;
        let passes = (everything
            || matches!(
                status,
                ContainerStatus::Running | ContainerStatus::Paused | ContainerStatus::Restarting
            ))
            && filters.any("status", |wanted| parse_status(wanted) == Some(status))
            && filters.any("id", |wanted| definition.id.starts_with(wanted))
            && (names.is_empty()
                || names
                    .iter()
                    .any(|name| matches_name(name, &definition.name)))
            && filters.labels_match(&definition.config.labels)
            && (exited.is_empty()
                || (status == ContainerStatus::Exited
                    && exited.contains(&container.state.exit_code)))
            && before.iter().all(|time| definition.created < *time)
            && since.iter().all(|time| definition.created > *time)
            && ancestors
                .as_ref()
                .is_none_or(|images| images.contains(&definition.image))
            && filters.any("health", |wanted| wanted == health_word(&container))
            && filters.any("volume", |wanted| {
                definition.mount_points().iter().any(|mount| {
                    mount.name == wanted || mount.destination == wanted || mount.source == wanted
                })
            })
            && filters.any("network", |wanted| {
                definition.endpoints.iter().any(|(name, settings)| {
                    name == wanted
                        || (!settings.network_id.is_empty()
                            && settings.network_id.starts_with(wanted))
                })
            })
            && port_filter(filters, "publish", &container)?
            && port_filter(filters, "expose", &container)?;
        if passes {
            chosen.push(container);
            if options.limit > 0 && chosen.len() == options.limit {
                break;
            }
        }
    }
    Ok(chosen)
}

fn parse_status(text: &str) -> Option<ContainerStatus> {
    Some(match text {
        "created" => ContainerStatus::Created,
        "running" => ContainerStatus::Running,
        "paused" => ContainerStatus::Paused,
        "restarting" => ContainerStatus::Restarting,
        "removing" => ContainerStatus::Removing,
        "exited" => ContainerStatus::Exited,
        "dead" => ContainerStatus::Dead,
        _ => return None,
    })
}

/// With and without the slash in front.
fn matches_name(pattern: &regex::Regex, name: &str) -> bool {
    pattern.is_match(name) || pattern.is_match(&format!("/{name}"))
}

fn health_word(container: &Container) -> &'static str {
    match container.health.as_ref().map(|health| health.status) {
        Some(HealthStatus::Starting) => "starting",
        Some(HealthStatus::Healthy) => "healthy",
        Some(HealthStatus::Unhealthy) => "unhealthy",
        Some(HealthStatus::None) | None => "none",
    }
}

/// `80`, `80/udp`, `8000-8010/tcp`.
fn port_filter(filters: &Filters, name: &str, container: &Container) -> Result<bool> {
    if !filters.contains(name) {
        return Ok(true);
    }
    let ports = super::ports::port_list(container);
    for wanted in filters.get(name) {
        let invalid = || Error::invalid(format!("invalid port in filter '{name}={wanted}'"));
        let (range, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let first: u16 = first.parse().map_err(|_| invalid())?;
        let last: u16 = last.parse().map_err(|_| invalid())?;
        let found = ports.iter().any(|port| {
            let number = if name == "publish" {
                port.public_port
            } else {
                Some(port.private_port)
            };
            port.protocol == protocol
                && number.is_some_and(|number| (first..=last).contains(&number))
        });
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads `until` of prune calls: a time, or how long ago.
pub(crate) fn until(filters: &Filters) -> Result<Option<Timestamp>> {
    let mut until: Option<Timestamp> = None;
    for text in filters.get("until") {
        let time = parse_until(text).ok_or_else(|| {
            Error::invalid(format!(
                "invalid filter 'until={text}': use a time or a duration like 24h"
            ))
        })?;
        until = Some(until.map_or(time, |other| other.min(time)));
    }
    Ok(until)
}

fn parse_until(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    if let Ok(seconds) = text.parse::<f64>() {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a time within the range of timestamps, checked below"
        )]
        return Timestamp::from_microsecond((seconds * 1e6) as i64).ok();
    }
    if let Ok(date) = text.parse::<jiff::civil::DateTime>() {
        return date
            .to_zoned(jiff::tz::TimeZone::system())
            .ok()
            .map(|zoned| zoned.timestamp());
    }
    if let Ok(date) = text.parse::<jiff::civil::Date>() {
        return date
            .to_zoned(jiff::tz::TimeZone::system())
            .ok()
            .map(|zoned| zoned.timestamp());
    }
    let span: jiff::SignedDuration = text.parse().ok()?;
    Timestamp::now().checked_sub(span).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::container::{DEFINITION_FORMAT, Definition, State};

    fn container(name: &str, status: ContainerStatus, created: i64) -> Arc<Container> {
        let definition = Definition {
            format: DEFINITION_FORMAT,
            id: format!("{created:064x}"),
            name: name.into(),
            created: Timestamp::from_second(created).unwrap(),
            image: format!("sha256:{name}"),
            command: Vec::new(),
            config: agent_api::ContainerConfig {
                labels: [("app".to_owned(), name.to_owned())].into(),
                ..agent_api::ContainerConfig::default()
            },
            host: agent_api::HostConfig::default(),
            mounts: Vec::new(),
            endpoints: indexmap::IndexMap::new(),
        };
        Arc::new(Container::new(
            definition,
            State {
                status,
                exit_code: 3,
                ..State::default()
            },
        ))
    }

    fn names(options: &ListOptions) -> Vec<String> {
        let all = vec![
            container("new", ContainerStatus::Created, 4),
            container("web", ContainerStatus::Running, 3),
            container("gone", ContainerStatus::Exited, 2),
            container("web2", ContainerStatus::Paused, 1),
        ];
        let lookup = Lookup {
            created: &|name| match name {
                "web" => Ok(Timestamp::from_second(3).unwrap()),
                other => Err(Error::not_found(other)),
            },
            descendants: &|name| vec![format!("sha256:{name}")],
        };
        let chosen = select(all, options, &lookup).unwrap();
        chosen
            .iter()
            .map(|container| container.name().to_owned())
            .collect()
    }

    fn filtered(name: &str, value: &str) -> ListOptions {
        ListOptions {
            all: true,
            filters: Filters::new().with(name, value),
            ..ListOptions::default()
        }
    }

    #[test]
    fn only_living_ones_unless_asked() {
        assert_eq!(names(&ListOptions::default()), ["web", "web2"]);
        assert_eq!(
            names(&ListOptions {
                all: true,
                ..ListOptions::default()
            })
            .len(),
            4
        );
        assert_eq!(
            names(&ListOptions {
                limit: 1,
                ..ListOptions::default()
            }),
            ["new"]
        );
        let filters = Filters::new().with("status", "exited");
        assert_eq!(
            names(&ListOptions {
                filters,
                ..ListOptions::default()
            }),
            ["gone"]
        );
    }

    #[test]
    fn filters_are_dockers() {
        for (name, value, expected) in [
            ("name", "^web$", vec!["web"]),
            ("name", "/web", vec!["web", "web2"]),
            ("label", "app=gone", vec!["gone"]),
            ("before", "web", vec!["gone", "web2"]),
            ("since", "web", vec!["new"]),
            ("exited", "3", vec!["gone"]),
            ("ancestor", "web", vec!["web"]),
            ("health", "none", vec!["new", "web", "gone", "web2"]),
            ("id", "000", vec!["new", "web", "gone", "web2"]),
            ("is-task", "true", vec![]),
        ] {
            assert_eq!(names(&filtered(name, value)), expected, "{name}={value}");
        }
    }

    #[test]
    fn wrong_filters_are_refused() {
        let lookup = Lookup {
            created: &|_| unreachable!(),
            descendants: &|_| unreachable!(),
        };
        for (name, value) in [
            ("colour", "red"),
            ("status", "odd"),
            ("exited", "x"),
            ("name", "("),
        ] {
            assert!(
                matches!(
                    select(Vec::new(), &filtered(name, value), &lookup),
                    Err(Error::InvalidParameter(_))
                ),
                "{name}={value}"
            );
        }
    }

    #[test]
    fn until_is_a_time_or_a_duration() {
        let parse = |text: &str| until(&Filters::new().with("until", text));
        assert_eq!(
            parse("1000").unwrap(),
            Some(Timestamp::from_second(1000).unwrap())
        );
        assert_eq!(
            parse("2020-01-01T00:00:00Z").unwrap().unwrap().as_second(),
            1_577_836_800
        );
        let day_ago = parse("24h").unwrap().unwrap();
        assert!((Timestamp::now().duration_since(day_ago).as_secs() - 86_400).abs() < 5);
        assert!(parse("soon").is_err());
    }
}
