//! Which daemon a command speaks to, and starting one when none runs.
//!
//! `-H` beats `MUSTER_HOST` beats `DOCKER_HOST` beats the default. Only at the default address a daemon is started: an
//! address that was given explicitly belongs to a daemon with roots and flags of its own, which nobody here knows.

mod background;

use agent_api::Client;
use agent_api::client::{DEFAULT_HOST, Host};
use anyhow::Context as _;
use tokio::sync::OnceCell;

/// What every command gets.
pub(crate) struct Session {
    host: String,
    chosen_by: &'static str,
    client: OnceCell<Client>,
    pub(crate) debug: bool,
    role: Role,
}

/// As what the executable was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Itself,
    /// Docker's command line runs it as one of its plugins.
    DockerPlugin,
}

impl Session {
    /// The address from the flag, else from the environment, else the default.
    pub(crate) fn new(flag: Option<String>, debug: bool) -> Self {
        let from = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (host, chosen_by) = match (flag, from("MUSTER_HOST"), from("DOCKER_HOST")) {
            (Some(host), _, _) => (host, "--host"),
            (None, Some(host), _) => (host, "MUSTER_HOST"),
            (None, None, Some(host)) => (host, "DOCKER_HOST"),
            (None, None, None) => (DEFAULT_HOST.to_owned(), ""),
        };
        Self {
            host,
            chosen_by,
            client: OnceCell::new(),
            debug,
            role: Role::Itself,
        }
    }

    /// For a plugin of Docker's command line: the daemon that it speaks to, which is not started.
    pub(crate) fn of_docker(host: String, chosen_by: &'static str, debug: bool) -> Self {
        Self {
            host,
            chosen_by,
            client: OnceCell::new(),
            debug,
            role: Role::DockerPlugin,
        }
    }

    /// What a build's progress calls whoever builds.
    pub(crate) fn driver(&self) -> &'static str {
        match self.role {
            Role::Itself => "muster",
            Role::DockerPlugin => "docker",
        }
    }

    /// How more is said.
    pub(crate) fn debug_hint(&self) -> &'static str {
        match self.role {
            Role::Itself => "use muster --debug to expand",
            Role::DockerPlugin => "use docker --debug to expand",
        }
    }

    /// The daemon's address as it was given.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// A client whose daemon answers; starts the daemon when there is none at the default address.
    pub(crate) async fn client(&self) -> anyhow::Result<&Client> {
        self.client
            .get_or_try_init(|| async {
                let host = self.parse()?;
                let client = Client::at(host.clone());
                match client.api_version().await {
                    Ok(_) => Ok(client),
                    Err(error) if error.is_daemon_absent() && self.chosen_by.is_empty() => {
                        background::start(&host, self.debug).await?;
                        client.api_version().await?;
                        Ok(client)
                    }
                    Err(error) => Err(error.into()),
                }
            })
            .await
    }

    /// A client of a daemon that runs already; never starts one.
    pub(crate) async fn running(&self) -> anyhow::Result<Client> {
        let client = Client::at(self.parse()?);
        client.api_version().await?;
        Ok(client)
    }

    fn parse(&self) -> anyhow::Result<Host> {
        Host::parse(&self.host).with_context(|| match self.chosen_by {
            "" => "cannot use the default host".to_owned(),
            place => format!("cannot use the host that {place} names"),
        })
    }
}
