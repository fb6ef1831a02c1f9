//! Problems that are known before any step is made: everything is reported at once and nothing has been written.

use super::super::Warning;
use super::decide::{Action, Decision};
use super::{Planner, Problem};
use crate::convert::{self, support};
use crate::state::Content;

impl Planner<'_> {
    pub(super) fn check(&mut self) {
        for name in self.order.clone() {
            let renewed = self.decisions[name].iter().any(Decision::is_new);
            if !renewed && !self.active.contains(name) {
                continue;
            }
            self.check_support(name);
            self.check_scale(name);
            if renewed {
                self.check_image(name);
                self.check_contents(name);
                self.check_shares(name);
            }
        }
        self.check_users_of_replaced();
    }

    fn check_support(&mut self, name: &str) {
        for finding in support::check(self.project, self.service(name)) {
            match finding {
                support::Finding::Refused(message) => self.problem(Some(name), message),
                support::Finding::Ignored(attribute, reason) => {
                    let place = self.service_place(name);
                    self.warn(Warning::Ignored {
                        place,
                        subject: format!("service {name}"),
                        attribute: attribute.to_owned(),
                        reason,
                    });
                }
            }
        }
    }

    fn check_scale(&mut self, name: &str) {
        let scale = self.scale(name);
        if let (Some(fixed), true) = (&self.service(name).container_name, scale > 1) {
            self.problem(
                Some(name),
                format!(
                    "cannot have {scale} containers that are all called {fixed}: remove container_name, or do not scale"
                ),
            );
        }
    }

    /// An image is there, or built first, or it is a problem.
    fn check_image(&mut self, name: &str) {
        let service = self.service(name);
        let image = service.image_or_default(&self.project.name, name);
        if self.observed.images.contains_key(&image) || self.options.built.contains(&image) {
            return;
        }
        let message = if service.build.is_some() {
            format!(
                "image {image} is not there: build it with `muster compose build {name}` (`up` does so by itself unless building is off)"
            )
        } else {
            format!(
                "image {image} is not there: fetch it with `muster pull {image}` (`up` does so by itself unless pulling is off), or bring it with `muster load` or `muster import`"
            )
        };
        self.problem(Some(name), message);
    }

    fn check_contents(&mut self, name: &str) {
        let service = self.service(name);
        let contents = &self.observed.contents;
        let mut unreadable = Vec::new();
        for (kind, references, known) in [
            ("secret", &service.secrets, &contents.secrets),
            ("config", &service.configs, &contents.configs),
        ] {
            for reference in references {
                if let Some(Content::Unreadable(why)) = known.get(&reference.source) {
                    let file = match kind {
                        "secret" => self.project.secrets[&reference.source].file.as_deref(),
                        _ => self.project.configs[&reference.source].file.as_deref(),
                    };
                    let file = file.unwrap_or_default();
                    unreadable.push(format!(
                        "{kind} {}: cannot read {file}: {why}",
                        reference.source
                    ));
                }
            }
        }
        for message in unreadable {
            self.problem(Some(name), message);
        }
    }

    /// A container to share with exists or is going to.
    fn check_shares(&mut self, name: &str) {
        for (_, with) in convert::shares(self.service(name)) {
            let there = self.decisions.get(with).is_some_and(|decisions| {
                decisions
                    .iter()
                    .any(|decision| !matches!(decision.action, Action::Remove(_)))
            });
            if !there {
                let message =
                    format!("shares with service {with}, which has no container: start {with} too");
                self.problem(Some(name), message);
            }
        }
        for container in convert::external_containers(self.service(name)) {
            if !self.observed.external_containers.contains_key(container) {
                let message = format!("refers to container {container}, which does not exist");
                self.problem(Some(name), message);
            }
        }
    }

    /// Containers that nothing is decided for must not use what is replaced.
    fn check_users_of_replaced(&mut self) {
        let mut problems = Vec::new();
        let decided = |id: &str| {
            self.decisions.values().flatten().any(|decision| {
                decision.old.is_some_and(|old| old.id == id)
                    && matches!(decision.action, Action::Replace(_) | Action::Remove(_))
            })
        };
        for container in &self.observed.containers {
            let network = self.networks.values().find(|network| {
                network.is_replaced() && container.networks.contains_key(&network.name)
            });
            let volume = self.volumes.values().find(|volume| {
                volume.is_replaced()
                    && container
                        .volumes
                        .iter()
                        .any(|mount| mount.volume == volume.name)
            });
            let used = network
                .map(|it| ("network", it))
                .or(volume.map(|it| ("volume", it)));
            if let Some((kind, resource)) = used.filter(|_| !decided(&container.id)) {
                problems.push(Problem {
                    place: None,
                    service: None,
                    message: format!(
                        "{kind} {} changed and has to be replaced, but container {} uses it: {}",
                        resource.name,
                        container.name,
                        if self.project.any_service(&container.service).is_some() {
                            "bring its service up too, or remove it"
                        } else {
                            "its service is not in the project; --remove-orphans removes it"
                        }
                    ),
                });
            }
        }
        self.problems.extend(problems);
    }
}
