//! Rules between the parts of a project: references that must exist, attributes that exclude each other, cycles
//! (compose-go `loader/validate.go`). Reports everything that is wrong.

use std::collections::BTreeMap;

use crate::diagnostic::Diagnostic;
use crate::report::Report;
use crate::schema;
use crate::span::Span;
use crate::tree::{Node, Value};
use crate::types::{MountType, Project, ServiceConfig};

/// Checks a project; `tree` is what it was bound from, for places.
pub(crate) fn check(report: &mut Report, project: &Project, tree: &Node) {
    for (name, service) in &project.services {
        let mut check = ServiceCheck {
            report,
            project,
            tree,
            name,
            service,
        };
        check.run();
    }
    for (name, secret) in &project.secrets {
        if !secret.external && secret.file.is_none() && secret.environment.is_none() {
            let message = format!("secret {name} needs file or environment");
            report.error(
                Diagnostic::error(secret.span, message)
                    .with_help("secret drivers exist only in a cluster"),
            );
        }
    }
    cycles(report, project, tree);
}

/// The place of the value at `path`, or of the nearest part above it that was written.
fn place(tree: &Node, path: &[&str]) -> Span {
    let mut node = tree;
    let mut span = tree.span;
    for step in path {
        let next = match &node.value {
            Value::Map(map) => map.get(*step).map(|entry| {
                let key = if entry.node.as_map().is_some() || entry.node.is_null() {
                    entry.key
                } else {
                    entry.node.span
                };
                (key, &entry.node)
            }),
            Value::Seq(items) => step
                .parse::<usize>()
                .ok()
                .and_then(|index| items.get(index))
                .map(|item| (item.span, item)),
            _ => None,
        };
        let Some((at, below)) = next else {
            break;
        };
        span = at.or(span);
        node = below;
    }
    span
}

struct ServiceCheck<'a> {
    report: &'a mut Report,
    project: &'a Project,
    tree: &'a Node,
    name: &'a str,
    service: &'a ServiceConfig,
}

impl ServiceCheck<'_> {
    fn run(&mut self) {
        self.image();
        self.build();
        self.networks();
        self.dependencies();
        self.references();
        self.scale();
        self.limits();
        self.targets();
        self.watch();
    }

    fn at(&self, path: &[&str]) -> Span {
        let mut full = vec!["services", self.name];
        full.extend(path);
        place(self.tree, &full)
    }

    fn error(&mut self, path: &[&str], message: String) {
        let span = self.at(path);
        self.report.error(Diagnostic::error(span, message));
    }

    /// A reference to something the project does not have.
    fn undefined<'n>(
        &mut self,
        path: &[&str],
        kind: &str,
        wanted: &str,
        known: impl Iterator<Item = &'n String>,
    ) {
        let span = self.at(path);
        let message = format!(
            "service {} refers to the undefined {kind} {wanted}",
            self.name
        );
        let diagnostic = Diagnostic::error(span, message);
        let near = schema::nearest(wanted, known.map(String::as_str));
        let diagnostic = match (near, kind) {
            (Some(near), _) => diagnostic.with_help(format!("did you mean `{near}`?")),
            (None, "service") => diagnostic,
            (None, _) => {
                let section = kind.trim_start_matches("build ");
                diagnostic.with_help(format!("define it below `{section}s:`"))
            }
        };
        self.report.error(diagnostic);
    }

    fn image(&mut self) {
        if self.service.build.is_none()
            && self.service.image.is_none()
            && self.service.provider.is_none()
        {
            let span = self.at(&[]);
            let message = format!("service {} has neither image nor build", self.name);
            self.report.error(
                Diagnostic::error(span, message).with_help("name an image, or a build context"),
            );
        }
    }

    fn build(&mut self) {
        let Some(build) = &self.service.build else {
            return;
        };
        if build.dockerfile.is_some() && build.dockerfile_inline.is_some() {
            let message = format!(
                "service {} has dockerfile and dockerfile_inline: only one is allowed",
                self.name
            );
            self.error(&["build", "dockerfile_inline"], message);
        }
        for (context, source) in &build.additional_contexts {
            let Some(target) = source.strip_prefix("service:") else {
                continue;
            };
            let path = ["build", "additional_contexts", context.as_str()];
            match self.project.any_service(target) {
                None => {
                    self.undefined(&path, "service", target, self.project.services.keys());
                }
                Some(other) if other.build.is_none() => {
                    let message = format!(
                        "service {} uses {target} as a build context, but {target} is not built",
                        self.name
                    );
                    self.error(&path, message);
                }
                Some(_) => {}
            }
        }
        if let Some(platform) = &self.service.platform
            && !build.platforms.is_empty()
            && !build.platforms.contains(platform)
        {
            let message = format!(
                "build.platforms of service {} must include its platform {platform}",
                self.name
            );
            self.error(&["build", "platforms"], message);
        }
        for (index, secret) in build.secrets.iter().enumerate() {
            if !self.project.secrets.contains_key(&secret.source) {
                let index = index.to_string();
                let path = ["build", "secrets", index.as_str()];
                self.undefined(
                    &path,
                    "build secret",
                    &secret.source,
                    self.project.secrets.keys(),
                );
            }
        }
    }

    fn networks(&mut self) {
        let service = self.service;
        if service.network_mode.is_some() && !service.networks.is_empty() {
            let (mode, networks) = (self.at(&["network_mode"]), self.at(&["networks"]));
            let message = format!(
                "service {} has network_mode and networks: only one is allowed",
                self.name
            );
            self.report
                .error(Diagnostic::error(mode, message).with_place(networks, "the networks"));
        }
        for network in service.networks.keys() {
            if !self.project.networks.contains_key(network) {
                let path = ["networks", network.as_str()];
                self.undefined(&path, "network", network, self.project.networks.keys());
            }
        }
    }

    fn dependencies(&mut self) {
        for (dependency, options) in &self.service.depends_on {
            if self.project.services.contains_key(dependency) || dependency == self.name {
                continue;
            }
            let path = ["depends_on", dependency.as_str()];
            match self.project.disabled_services.get(dependency) {
                Some(_) if !options.required.0 => {}
                Some(disabled) => {
                    let span = self.at(&path);
                    let message = format!(
                        "service {} depends on {dependency}, which no active profile enables",
                        self.name
                    );
                    let profiles = disabled.profiles.join(" or ");
                    self.report
                        .error(Diagnostic::error(span, message).with_help(format!(
                            "activate the profile {profiles}, or set required: false"
                        )));
                }
                None if !options.required.0 => {
                    let span = self.at(&path);
                    let message = format!(
                        "service {} names the undefined service {dependency} as an optional dependency",
                        self.name
                    );
                    self.report.warn(Diagnostic::warning(span, message));
                }
                None => {
                    let known = self.project.services.keys();
                    self.undefined(&path, "service", dependency, known);
                }
            }
        }
    }

    fn references(&mut self) {
        let service = self.service;
        for (index, mount) in service.volumes.iter().enumerate() {
            if mount.r#type == MountType::Volume
                && let Some(source) = &mount.source
                && !self.project.volumes.contains_key(source)
            {
                let index = index.to_string();
                self.undefined(
                    &["volumes", &index],
                    "volume",
                    source,
                    self.project.volumes.keys(),
                );
            }
        }
        for (index, config) in service.configs.iter().enumerate() {
            if !self.project.configs.contains_key(&config.source) {
                let index = index.to_string();
                self.undefined(
                    &["configs", &index],
                    "config",
                    &config.source,
                    self.project.configs.keys(),
                );
            }
        }
        for (index, secret) in service.secrets.iter().enumerate() {
            if !self.project.secrets.contains_key(&secret.source) {
                let index = index.to_string();
                self.undefined(
                    &["secrets", &index],
                    "secret",
                    &secret.source,
                    self.project.secrets.keys(),
                );
            }
        }
        for model in service.models.keys() {
            if !self.project.models.contains_key(model) {
                self.undefined(
                    &["models", model],
                    "model",
                    model,
                    self.project.models.keys(),
                );
            }
        }
    }

    fn scale(&mut self) {
        let replicas = self
            .service
            .deploy
            .as_ref()
            .and_then(|deploy| deploy.replicas);
        if let (Some(scale), Some(replicas)) = (self.service.scale, replicas)
            && scale != replicas
        {
            let (at, other) = (self.at(&["scale"]), self.at(&["deploy", "replicas"]));
            let message = format!(
                "service {} has scale {scale} but deploy.replicas {replicas}",
                self.name
            );
            self.report.error(
                Diagnostic::error(at, message)
                    .with_place(other, "the other number")
                    .with_help("keep one of the two"),
            );
        }
        if self.service.replicas() > 1 && self.service.container_name.is_some() {
            let number = match self.service.scale {
                Some(_) => self.at(&["scale"]),
                None => self.at(&["deploy", "replicas"]),
            };
            let at = self.at(&["container_name"]);
            let message = format!(
                "service {} has a container_name, so it cannot have more than one container",
                self.name
            );
            self.report.error(
                Diagnostic::error(at, message)
                    .with_place(number, "more than one wanted here")
                    .with_help("remove container_name, or the number"),
            );
        }
    }

    /// Limits that can be written in two places must not differ.
    fn limits(&mut self) {
        let service = self.service;
        let resources = service
            .deploy
            .as_ref()
            .and_then(|deploy| deploy.resources.as_ref());
        let Some(resources) = resources else {
            return;
        };
        if let Some(limits) = &resources.limits {
            let same = |a: f64, b: f64| (a - b).abs() < f64::EPSILON;
            if let (Some(short), Some(long)) = (service.cpus, limits.cpus)
                && !same(short, long)
            {
                self.distinct("cpus", &["deploy", "resources", "limits", "cpus"]);
            }
            if service.mem_limit.is_some()
                && limits.memory.is_some()
                && service.mem_limit != limits.memory
            {
                self.distinct("mem_limit", &["deploy", "resources", "limits", "memory"]);
            }
            if service.pids_limit.is_some()
                && limits.pids.is_some()
                && service.pids_limit != limits.pids
            {
                self.distinct("pids_limit", &["deploy", "resources", "limits", "pids"]);
            }
        }
        if let Some(reservations) = &resources.reservations
            && service.mem_reservation.is_some()
            && reservations.memory.is_some()
            && service.mem_reservation != reservations.memory
        {
            self.distinct(
                "mem_reservation",
                &["deploy", "resources", "reservations", "memory"],
            );
        }
    }

    fn distinct(&mut self, short: &str, long: &[&str]) {
        let (at, other) = (self.at(&[short]), self.at(long));
        let message = format!(
            "service {} has different values for {short} and {}",
            self.name,
            long.join(".")
        );
        self.report.error(
            Diagnostic::error(at, message)
                .with_place(other, "the other value")
                .with_help("keep one of the two"),
        );
    }

    /// Two mounts cannot have the same target.
    fn targets(&mut self) {
        let mut seen: BTreeMap<&str, Span> = BTreeMap::new();
        let mut mounts: Vec<(&str, Span)> = Vec::new();
        for (index, tmpfs) in self.service.tmpfs.iter().enumerate() {
            let target = tmpfs.split(':').next().unwrap_or(tmpfs);
            mounts.push((target, self.at(&["tmpfs", &index.to_string()])));
        }
        for (index, mount) in self.service.volumes.iter().enumerate() {
            mounts.push((&mount.target, self.at(&["volumes", &index.to_string()])));
        }
        for (target, span) in mounts {
            if let Some(first) = seen.insert(target, span) {
                let message = format!("service {} mounts {target} twice", self.name);
                self.report.error(
                    Diagnostic::error(span, message)
                        .with_label("again here")
                        .with_place(first, "first here"),
                );
            }
        }
    }

    fn watch(&mut self) {
        let rules = self
            .service
            .develop
            .as_ref()
            .map(|develop| develop.watch.as_slice());
        for rule in rules.unwrap_or_default() {
            if rule.target.is_none() && !matches!(rule.action.as_str(), "rebuild" | "restart") {
                let message = format!(
                    "a watch rule of service {} with action {} needs `target`",
                    self.name, rule.action
                );
                self.report.error(Diagnostic::error(rule.span, message));
            }
        }
    }
}

/// Reports every cycle of dependencies once, as a whole path.
fn cycles(report: &mut Report, project: &Project, tree: &Node) {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        Open,
        Done,
    }
    let mut states: BTreeMap<&str, State> = BTreeMap::new();
    for start in project.services.keys() {
        if states.contains_key(start.as_str()) {
            continue;
        }
        // Depth first without recursion: a chain may be as long as there are services.
        let mut stack: Vec<(&str, Vec<&str>)> = vec![(start, dependencies(project, start))];
        states.insert(start, State::Open);
        while let Some((name, rest)) = stack.last_mut() {
            let name = *name;
            let Some(next) = rest.pop() else {
                states.insert(name, State::Done);
                stack.pop();
                continue;
            };
            match states.get(next) {
                Some(State::Done) => {}
                Some(State::Open) => {
                    let first = stack.iter().position(|(on, _)| *on == next).unwrap_or(0);
                    let mut path: Vec<&str> = stack[first..].iter().map(|(on, _)| *on).collect();
                    path.push(next);
                    report_cycle(report, tree, &path);
                }
                None => {
                    states.insert(next, State::Open);
                    stack.push((next, dependencies(project, next)));
                }
            }
        }
    }
}

/// Active services that a service depends on, last first.
fn dependencies<'p>(project: &'p Project, name: &str) -> Vec<&'p str> {
    let service = project.services.get(name);
    let names = service
        .into_iter()
        .flat_map(|service| service.depends_on.keys());
    let mut names: Vec<&str> = names
        .filter(|name| project.services.contains_key(*name))
        .map(String::as_str)
        .collect();
    names.reverse();
    names
}

fn report_cycle(report: &mut Report, tree: &Node, path: &[&str]) {
    let edge = |from: &str, to: &str| place(tree, &["services", from, "depends_on", to]);
    let last = path.len() - 2;
    let message = format!("services depend on each other: {}", path.join(" -> "));
    let mut diagnostic = Diagnostic::error(edge(path[last], path[last + 1]), message)
        .with_label("closes the cycle")
        .with_help("remove one of these dependencies");
    for pair in path[..=last].windows(2) {
        let text = format!("{} needs {}", pair[0], pair[1]);
        diagnostic = diagnostic.with_place(edge(pair[0], pair[1]), text);
    }
    report.error(diagnostic);
}
