//! Why a step is in a plan. The text is part of the output people read and scripts compare: keep it stable.

use std::fmt;

use agent_api::ContainerStatus;
use serde::Serialize;

/// The reason for one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    /// The object is not there.
    Missing,
    /// The number of containers changes.
    Scaled {
        /// Containers there are.
        from: u32,
        /// Containers there shall be.
        to: u32,
    },
    /// The definition changed.
    Changed {
        /// Names of the attributes that did.
        attributes: Vec<String>,
    },
    /// The definition differs, but whoever made the object left no note of its attributes.
    Unknown,
    /// The image reference means another image now.
    ImageChanged {
        /// Reference.
        image: String,
    },
    /// A replacement was asked for.
    Forced,
    /// The container is not attached to a network it should be on.
    NotAttached {
        /// Name of the network.
        network: String,
    },
    /// The container does not have a volume it should have.
    NotMounted {
        /// Name of the volume.
        volume: String,
    },
    /// A network or volume the container uses is replaced.
    ResourceReplaced {
        /// What it is and its name.
        #[serde(rename = "resource")]
        what: SharedResource,
        /// Name.
        name: String,
    },
    /// A container whose namespaces or volumes it shares is replaced.
    SharesWith {
        /// The other service.
        service: String,
    },
    /// A service it depends on with `restart: true` is replaced or restarted.
    DependencyRestarted {
        /// The dependency.
        service: String,
    },
    /// It was just created.
    Created,
    /// It is not running.
    NotRunning {
        /// The state it is in.
        state: ContainerStatus,
        /// Exit code, when it ended.
        exit_code: Option<i64>,
    },
    /// Other services depend on it being in that condition.
    NeededBy {
        /// Those services.
        services: Vec<String>,
    },
    /// The service defines a hook.
    Hook,
    /// No service of the project is called this.
    Orphan,
    /// Left over from a replacement that was interrupted.
    Interrupted,
    /// The service says `pull_policy: build`.
    PolicyBuild,
    /// The person asked for it.
    Requested,
}

/// A resource that containers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SharedResource {
    /// A network.
    Network,
    /// A volume.
    Volume,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Missing => f.write_str("does not exist"),
            Cause::Scaled { from, to } => write!(f, "scale {from} to {to}"),
            Cause::Changed { attributes } => write!(f, "{} changed", attributes.join(", ")),
            Cause::Unknown => {
                f.write_str("differs from the project (made by another tool or version)")
            }
            Cause::ImageChanged { image } => write!(f, "{image} is another image now"),
            Cause::Forced => f.write_str("replacement was asked for"),
            Cause::NotAttached { network } => write!(f, "not attached to network {network}"),
            Cause::NotMounted { volume } => write!(f, "volume {volume} is not mounted"),
            Cause::ResourceReplaced {
                what: SharedResource::Network,
                name,
            } => write!(f, "network {name} is replaced"),
            Cause::ResourceReplaced {
                what: SharedResource::Volume,
                name,
            } => write!(f, "volume {name} is replaced"),
            Cause::SharesWith { service } => write!(f, "shares with {service}, which is replaced"),
            Cause::DependencyRestarted { service } => {
                write!(f, "depends on {service}, which restarts")
            }
            Cause::Created => f.write_str("just created"),
            Cause::NotRunning { state, exit_code } => {
                let state = format!("{state:?}").to_lowercase();
                match exit_code {
                    Some(code) => write!(f, "is {state} ({code})"),
                    None => write!(f, "is {state}"),
                }
            }
            Cause::NeededBy { services } => write!(f, "needed by {}", services.join(", ")),
            Cause::Hook => f.write_str("hook of the service"),
            Cause::Orphan => f.write_str("no such service in the project"),
            Cause::Interrupted => f.write_str("left over from an interrupted replacement"),
            Cause::PolicyBuild => f.write_str("pull_policy is build"),
            Cause::Requested => f.write_str("asked for"),
        }
    }
}
