//! The network of a step: a sandbox of netdriver's, as a container has one.
//!
//! ```text
//! RUN --network=…   default ──▶ the build's: bridge (DNS servers of the host) │ a named network (names of its containers)
//!                   none    ──▶ loopback alone
//!                   host    ──▶ no namespace of its own
//! ```
//!
//! Must not: give the step a name that others can look up.

use agent_build::plan::NetworkMode;
use agent_runtime::spec::Namespace;
use netdriver::{EndpointSpec, SandboxMode, SandboxSpec};

use super::{RunError, RunStep};
use crate::engine::{Engine, blocking};
use crate::error::Error;

/// The network that steps are on unless told otherwise.
const BRIDGE: &str = "bridge";

/// A step's place in the network.
pub(super) struct Joined {
    pub(super) namespace: Namespace,
    /// Id of the sandbox.
    pub(super) sandbox: String,
}

/// What is wanted.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Host,
    Loopback,
    Network(String),
}

/// Makes the sandbox and connects it.
pub(super) async fn join(engine: &Engine, step: &RunStep, id: &str) -> Result<Joined, RunError> {
    let wanted = wanted(step.op.network, &step.network)?;
    let options = &engine.shared().options;
    let spec = SandboxSpec {
        id: id.to_owned(),
        name: id.to_owned(),
        hostname: String::new(),
        mode: match wanted {
            Wanted::Host => SandboxMode::Host,
            Wanted::Loopback | Wanted::Network(_) => SandboxMode::Private,
        },
        dns_servers: options.dns.clone(),
        dns_search: options.dns_search.clone(),
        dns_options: options.dns_options.clone(),
    };
    let networks = engine.shared().networks.clone();
    let sandbox = blocking(move || {
        let sandbox = networks.create_sandbox(spec)?;
        if let Wanted::Network(name) = &wanted {
            networks
                .connect(&sandbox.id, name, EndpointSpec::default())
                .map_err(|error| {
                    Error::from(error).context("failed to set up the network of a step")
                })?;
        }
        Ok(sandbox)
    })
    .await?;
    Ok(Joined {
        namespace: match sandbox.netns {
            Some(path) => Namespace::Join(path),
            None => Namespace::Host,
        },
        sandbox: sandbox.id,
    })
}

/// Takes the sandbox away, also one that is not there.
pub(super) async fn leave(engine: &Engine, id: &str) {
    let (networks, owned) = (engine.shared().networks.clone(), id.to_owned());
    if let Err(error) = blocking(move || Ok(networks.remove_sandbox(&owned)?)).await {
        tracing::warn!(step.id = id, %error, "the network sandbox of a step is not completely removed");
    }
}

fn wanted(of_step: NetworkMode, of_build: &str) -> Result<Wanted, RunError> {
    match (of_step, of_build) {
        (NetworkMode::Host, _) => Ok(Wanted::Host),
        (NetworkMode::None, _) => Ok(Wanted::Loopback),
        (NetworkMode::Sandbox, "" | "default" | BRIDGE) => Ok(Wanted::Network(BRIDGE.to_owned())),
        (NetworkMode::Sandbox, "host") => Ok(Wanted::Host),
        (NetworkMode::Sandbox, "none") => Ok(Wanted::Loopback),
        (NetworkMode::Sandbox, mode) if mode.starts_with("container:") => Err(RunError::Refused(
            format!("network mode {mode:?} is not supported by builds: name a network instead"),
        )),
        (NetworkMode::Sandbox, name) => Ok(Wanted::Network(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_goes_before_its_build() {
        let named = |name: &str| Wanted::Network(name.to_owned());
        for (step, build, expected) in [
            (NetworkMode::Sandbox, "", named("bridge")),
            (NetworkMode::Sandbox, "default", named("bridge")),
            (NetworkMode::Sandbox, "backend", named("backend")),
            (NetworkMode::Sandbox, "host", Wanted::Host),
            (NetworkMode::Sandbox, "none", Wanted::Loopback),
            (NetworkMode::None, "host", Wanted::Loopback),
            (NetworkMode::Host, "none", Wanted::Host),
        ] {
            assert_eq!(wanted(step, build), Ok(expected), "{step:?} {build}");
        }
        assert!(wanted(NetworkMode::Sandbox, "container:x").is_err());
    }
}
