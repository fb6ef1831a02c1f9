//! What a step does. One operation is one write to the engine, or one wait.

use agent_api::{
    ContainerCreateRequest, ExecCreateRequest, NetworkCreateRequest, VolumeCreateRequest,
};

use crate::convert::build::ServiceBuild;
use crate::convert::files::NewFile;

/// One unit of work.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Create a network.
    CreateNetwork {
        /// Key in the Compose file.
        key: String,
        /// What the engine is asked.
        request: Box<NetworkCreateRequest>,
    },
    /// Remove a network. Being gone already is success.
    RemoveNetwork {
        /// Name.
        name: String,
        /// Id, as observed.
        id: String,
    },
    /// Create a volume.
    CreateVolume {
        /// Key in the Compose file.
        key: String,
        /// What the engine is asked.
        request: Box<VolumeCreateRequest>,
    },
    /// Remove a volume and its data. Being gone already is success.
    RemoveVolume {
        /// Name.
        name: String,
    },
    /// Create a container; it does not run yet.
    CreateContainer {
        /// Its place in the project; later steps refer to it by this.
        container: ContainerHandle,
        /// What the engine is asked.
        new: Box<NewContainer>,
    },
    /// Start a container. Running already is success.
    StartContainer {
        /// Which.
        container: ContainerHandle,
    },
    /// Stop a container with its stop signal. Stopped already is success.
    StopContainer {
        /// Which.
        container: ContainerHandle,
        /// Seconds until SIGKILL; `None` = what the container was created with.
        timeout_seconds: Option<i64>,
    },
    /// Send a signal to a container.
    KillContainer {
        /// Which.
        container: ContainerHandle,
        /// Name or number of the signal.
        signal: String,
    },
    /// Remove a container. Being gone already is success.
    RemoveContainer {
        /// Which.
        container: ContainerHandle,
        /// Remove its anonymous volumes too.
        anonymous_volumes: bool,
        /// Kill it when it runs.
        force: bool,
    },
    /// Give a container its final name, `container.name`.
    RenameContainer {
        /// Which; its name is the new one.
        container: ContainerHandle,
        /// The name it has before.
        from: String,
    },
    /// Wait until a service is in a condition.
    Wait {
        /// Service waited for.
        service: String,
        /// Its containers.
        containers: Vec<ContainerHandle>,
        /// The condition.
        condition: Condition,
        /// `false`: failing is a warning.
        required: bool,
    },
    /// Run a command in a running container; an exit code other than 0 is a failure.
    RunHook {
        /// Where.
        container: ContainerHandle,
        /// Which list of hooks it is from.
        kind: HookKind,
        /// Its place in that list, from 0.
        index: usize,
        /// What the engine is asked.
        request: Box<ExecCreateRequest>,
    },
    /// Build the image of a service.
    BuildImage {
        /// What is built.
        build: Box<ServiceBuild>,
    },
    /// Remove an image by reference. Being gone already is success.
    RemoveImage {
        /// Reference as the project uses it.
        reference: String,
    },
}

/// A container by its place in the project.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerHandle {
    /// Service.
    pub service: String,
    /// Number within the service, from 1.
    pub number: u32,
    /// Name it has, or will have at the end of the plan.
    pub name: String,
    /// Id when it was observed; `None` for the one this plan creates for (service, number).
    pub id: Option<String>,
}

/// The request for a new container, and what in it is known only when the plan runs.
#[derive(Clone, Debug, PartialEq)]
pub struct NewContainer {
    /// Name it is created with; differs from the handle's while it replaces another.
    pub name: String,
    /// `os/arch[/variant]`, when the file asks for one.
    pub platform: Option<String>,
    /// The request; shared namespaces are filled in from `shares`.
    pub request: ContainerCreateRequest,
    /// Containers of the project whose id goes into the request.
    pub shares: Vec<Share>,
    /// What is written into it before it starts.
    pub files: Vec<NewFile>,
}

/// A namespace or the volumes of another container of the project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Which field of the request names the other container.
    pub field: ShareField,
    /// The other container.
    pub with: ContainerHandle,
}

/// Field of a request that names another container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShareField {
    /// `HostConfig.NetworkMode`.
    Network,
    /// `HostConfig.IpcMode`.
    Ipc,
    /// `HostConfig.PidMode`.
    Pid,
    /// An element of `HostConfig.VolumesFrom`; a suffix `:ro` stays.
    VolumesFrom(usize),
}

/// What a wait is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Every container is healthy; one without a health check, or that ends, is a failure.
    Healthy,
    /// A container ran to its end with exit code 0.
    Completed,
    /// Every container runs, and is healthy if it has a health check (`--wait`).
    RunningOrHealthy,
}

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    /// After the container's start.
    PostStart,
    /// Before it is stopped.
    PreStop,
}

impl NewContainer {
    /// The request with the ids of the containers it shares with; `id` knows them by their handles.
    ///
    /// # Errors
    /// Those of `id`.
    pub fn resolved<E>(
        &self,
        mut id: impl FnMut(&ContainerHandle) -> Result<String, E>,
    ) -> Result<ContainerCreateRequest, E> {
        let mut request = self.request.clone();
        let mut ids = Vec::new();
        for share in &self.shares {
            let id = id(&share.with)?;
            let host = &mut request.host_config;
            match share.field {
                ShareField::Network => host.network_mode = format!("container:{id}"),
                ShareField::Ipc => host.ipc_mode = format!("container:{id}"),
                ShareField::Pid => host.pid_mode = format!("container:{id}"),
                ShareField::VolumesFrom(index) => {
                    let from = host
                        .volumes_from
                        .as_mut()
                        .and_then(|list| list.get_mut(index));
                    if let Some(from) = from {
                        let mode = from.split_once(':').map(|(_, mode)| format!(":{mode}"));
                        *from = format!("{id}{}", mode.unwrap_or_default());
                    }
                }
            }
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        if !ids.is_empty() {
            request
                .config
                .labels
                .insert(crate::labels::SHARES.to_owned(), ids.join(","));
        }
        Ok(request)
    }
}

impl Operation {
    /// Kind of operation as one stable word, `create_container` and so on.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Operation::CreateNetwork { .. } => "create_network",
            Operation::RemoveNetwork { .. } => "remove_network",
            Operation::CreateVolume { .. } => "create_volume",
            Operation::RemoveVolume { .. } => "remove_volume",
            Operation::CreateContainer { .. } => "create_container",
            Operation::StartContainer { .. } => "start_container",
            Operation::StopContainer { .. } => "stop_container",
            Operation::KillContainer { .. } => "kill_container",
            Operation::RemoveContainer { .. } => "remove_container",
            Operation::RenameContainer { .. } => "rename_container",
            Operation::Wait { .. } => "wait",
            Operation::RunHook { .. } => "run_hook",
            Operation::BuildImage { .. } => "build_image",
            Operation::RemoveImage { .. } => "remove_image",
        }
    }

    /// Name of the object it is about: a network, volume, container, service (for waits) or image.
    #[must_use]
    pub fn object(&self) -> &str {
        match self {
            Operation::CreateNetwork { request, .. } => &request.name,
            Operation::CreateVolume { request, .. } => &request.name,
            Operation::RemoveNetwork { name, .. } | Operation::RemoveVolume { name } => name,
            Operation::Wait { service, .. } => service,
            Operation::BuildImage { build } => &build.image,
            Operation::RemoveImage { reference } => reference,
            Operation::CreateContainer { container, .. }
            | Operation::StartContainer { container }
            | Operation::StopContainer { container, .. }
            | Operation::KillContainer { container, .. }
            | Operation::RemoveContainer { container, .. }
            | Operation::RenameContainer { container, .. }
            | Operation::RunHook { container, .. } => &container.name,
        }
    }

    /// The container it is about, if it is about one.
    #[must_use]
    pub fn container(&self) -> Option<&ContainerHandle> {
        match self {
            Operation::CreateContainer { container, .. }
            | Operation::StartContainer { container }
            | Operation::StopContainer { container, .. }
            | Operation::KillContainer { container, .. }
            | Operation::RemoveContainer { container, .. }
            | Operation::RenameContainer { container, .. }
            | Operation::RunHook { container, .. } => Some(container),
            _ => None,
        }
    }

    /// The service it is about, if it is about one.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        match self {
            Operation::Wait { service, .. } => Some(service),
            Operation::BuildImage { build } => Some(&build.service),
            other => other
                .container()
                .map(|container| container.service.as_str()),
        }
    }
}
