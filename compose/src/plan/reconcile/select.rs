//! Which services take part, and in which order.

use std::collections::BTreeSet;

use super::super::options::Dependencies;
use super::{Planner, Warning, hash, order};

impl Planner<'_> {
    /// Fills `order`, `active` and `fingerprints`.
    pub(super) fn select(&mut self) {
        match order::order(self.project) {
            Ok(order) => self.order = order,
            Err(cycle) => {
                let message = format!("dependency cycle: {}", cycle.join(" -> "));
                let first = cycle.first().cloned().unwrap_or_default();
                self.problem(Some(&first), message);
                return;
            }
        }
        self.check_names();
        let mut wanted: Vec<&str> = match self.options.services.as_slice() {
            [] => self.project.services.keys().map(String::as_str).collect(),
            names => names.iter().map(String::as_str).collect(),
        };
        let mut active = BTreeSet::new();
        while let Some(name) = wanted.pop() {
            let Some((name, service)) = self.project.services.get_key_value(name) else {
                continue;
            };
            if active.insert(name.as_str()) && self.options.dependencies == Dependencies::Include {
                let needed = order::dependencies(service).into_keys();
                wanted.extend(needed.filter_map(|dependency| {
                    self.project
                        .services
                        .get_key_value(&dependency)
                        .map(|(name, _)| name.as_str())
                }));
            }
        }
        self.active = active;
        for (name, service) in &self.project.services {
            let fingerprint = hash::service(self.project, service, &self.observed.contents);
            self.fingerprints.insert(name, fingerprint);
        }
    }

    /// Services named by the person or by a dependency exist and are active.
    fn check_names(&mut self) {
        let named = self
            .options
            .services
            .iter()
            .chain(self.options.scale.keys());
        for name in named.collect::<BTreeSet<_>>() {
            if self.project.services.contains_key(name) {
                continue;
            }
            let message = match self.project.disabled_services.get(name) {
                Some(service) if !service.profiles.is_empty() => format!(
                    "service {name} is switched off: it needs one of the profiles {}",
                    service.profiles.join(", ")
                ),
                Some(_) => format!("service {name} is not part of the selection"),
                None => format!("no such service: {name}"),
            };
            let place = self.service_place(name);
            self.problems.push(super::Problem {
                place,
                service: None,
                message,
            });
        }
        for (name, service) in &self.project.services {
            for (dependency, config) in order::dependencies(service) {
                if self.project.services.contains_key(&dependency) {
                    continue;
                }
                if !config.required.0 {
                    self.warn(Warning::OptionalDependency {
                        service: name.clone(),
                        dependency,
                    });
                } else if self.options.dependencies == Dependencies::Include {
                    let message = match self.project.disabled_services.get(&dependency) {
                        Some(other) if !other.profiles.is_empty() => format!(
                            "depends on {dependency}, which is switched off: it needs one of the profiles {}",
                            other.profiles.join(", ")
                        ),
                        Some(_) => continue,
                        None => format!("depends on {dependency}, which does not exist"),
                    };
                    self.problem(Some(name), message);
                }
            }
        }
    }
}
