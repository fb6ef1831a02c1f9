//! Why there is no plan, and what a plan warns of. All problems of a project are found before any is reported.

use std::fmt;

/// A project cannot be planned. Nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct PlanError {
    /// At least one.
    pub problems: Vec<Problem>,
}

/// One reason, with the place in the Compose file that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `file:line:column`, when it is about something written in a file.
    pub place: Option<String>,
    /// Service, when it is about one.
    pub service: Option<String>,
    /// What is wrong and what to do; one sentence, lower case.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if let Some(service) = &self.service {
            write!(f, "service {service}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// Something a person should know although the plan goes ahead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// Containers of services that are not in the project.
    Orphans {
        /// Their names.
        containers: Vec<String>,
    },
    /// An attribute that has no effect here.
    Ignored {
        /// `file:line:column` of the service or resource.
        place: Option<String>,
        /// Service or resource, `service web`.
        subject: String,
        /// Attribute.
        attribute: String,
        /// Why.
        reason: String,
    },
    /// The volume's definition changed; it is kept as it is.
    VolumeChanged {
        /// Name.
        volume: String,
        /// Names of the attributes that changed.
        attributes: Vec<String>,
    },
    /// A network or volume of that name exists, and this project did not make it.
    NotOurs {
        /// `network` or `volume`.
        kind: &'static str,
        /// Name.
        name: String,
        /// Project that made it, if any.
        project: Option<String>,
    },
    /// A dependency with `required: false` that is not active.
    OptionalDependency {
        /// Dependant.
        service: String,
        /// Dependency.
        dependency: String,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::Orphans { containers } => write!(
                f,
                "orphan containers ({}): their services are not in the project; --remove-orphans removes them",
                containers.join(", ")
            ),
            Warning::Ignored {
                place,
                subject,
                attribute,
                reason,
            } => {
                if let Some(place) = place {
                    write!(f, "{place}: ")?;
                }
                write!(f, "{subject}: {attribute} has no effect: {reason}")
            }
            Warning::VolumeChanged { volume, attributes } => write!(
                f,
                "volume {volume} was made with another {}; it is kept with its data (down -v removes it)",
                attributes.join(", ")
            ),
            Warning::NotOurs {
                kind,
                name,
                project: Some(project),
            } => {
                write!(
                    f,
                    "{kind} {name} was created for project {project}; use `external: true` to use it"
                )
            }
            Warning::NotOurs {
                kind,
                name,
                project: None,
            } => {
                write!(
                    f,
                    "{kind} {name} was not created by Compose; use `external: true` to use it"
                )
            }
            Warning::OptionalDependency {
                service,
                dependency,
            } => {
                write!(
                    f,
                    "service {service}: optional dependency {dependency} is not active"
                )
            }
        }
    }
}
