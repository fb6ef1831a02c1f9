//! Starting a container: a list of steps, each with its undo.
//!
//! ```text
//! namespaces → shm → layers → sources → sandbox → endpoints → ports → files → (launch)
//! ```
//!
//! A step that fails undoes the finished ones in reverse; an undo that fails is logged and the others go on. The
//! launch is last and undoes itself, so nothing has to take back a running process. Nothing here changes the
//! container: the driver does, with what comes back.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_api::ContainerStatus;
use agent_image::ImageId;
use agent_runtime::keeper::{AttachOptions, Launch, LaunchKind, LogOptions, StdinMode};
use agent_runtime::spec::{CapabilitySet, LaunchSpec, Namespace};
use jiff::Timestamp;
use netdriver::{SandboxMode, SandboxSpec};

use super::container::{Attachment, Container, Definition};
use super::exec::hostname_of;
use super::keeper::LaunchError;
use super::mounts::MountSource;
use super::registry::Handle;
use super::shared::{Shared, blocking};
use super::spec::{self, Resolved};
use super::{devices, endpoint, files, logs, ports, shm};
use crate::error::{Error, Result};

/// Containers that may hand on an IPC namespace, one to the next.
const SHARING_DEPTH_MAX: usize = 32;

/// A container that runs now.
pub(crate) struct Started {
    pub(crate) pid: i32,
    pub(crate) started_at: Timestamp,
    pub(crate) attachment: Attachment,
}

/// Clients that attached before the start.
pub(crate) type Waiting = Vec<(OwnedFd, AttachOptions)>;

/// Starts a container.
pub(crate) async fn start(
    shared: &Arc<Shared>,
    container: &Container,
    clients: Waiting,
) -> Result<Started, LaunchError> {
    let definition = Arc::clone(&container.definition);
    let prepared = {
        let (shared, container) = (Arc::clone(shared), container.clone());
        blocking(move || prepare(&shared, &container)).await
    };
    let (launch_spec, attachment) = prepared.map_err(|error| LaunchError {
        error,
        exit_code: 128,
    })?;
    let outcome = match launch(shared, &definition, launch_spec) {
        Ok(launch) => shared.keeper.launch(launch, clients).await,
        Err(error) => Err(LaunchError {
            error,
            exit_code: 128,
        }),
    };
    match outcome {
        Ok(started) => {
            for warning in &started.warnings {
                tracing::warn!(container.id = definition.id, warning);
            }
            Ok(Started {
                pid: started.pid,
                started_at: Timestamp::from_nanosecond(started.started_at.into())
                    .unwrap_or_else(|_| Timestamp::now()),
                attachment,
            })
        }
        Err(failure) => {
            tear_down(shared, &definition, &attachment).await;
            Err(failure)
        }
    }
}

/// Takes back what the steps did. Goes on past errors, which are logged.
pub(crate) async fn tear_down(
    shared: &Arc<Shared>,
    definition: &Arc<Definition>,
    attachment: &Attachment,
) {
    if definition.host.ipc_mode == "shareable" {
        let (parts, definition) = (Arc::clone(shared), Arc::clone(definition));
        let id = definition.id.clone();
        if let Err(error) = blocking(move || remove_shm(&parts, &definition)).await {
            tracing::error!(container.id = id, %error, "the shared memory is left");
        }
    }
    if definition.host.network_mode.starts_with("container:") {
        return;
    }
    let (networks, id) = (shared.networks.clone(), definition.id.clone());
    if let Err(error) = blocking(move || networks.remove_sandbox(&id).map_err(Error::from)).await {
        tracing::error!(container.id = definition.id, %error, "the network sandbox is not completely removed");
    }
    for endpoint in &attachment.endpoints {
        network_event(shared, definition, endpoint, "disconnect");
    }
}

fn remove_shm(shared: &Shared, definition: &Definition) -> Result<()> {
    match definition.host.ipc_mode.as_str() {
        "shareable" => shm::unmount(&shm::path(&shared.options.exec_root, &definition.id)),
        _ => Ok(()),
    }
}

fn network_event(
    shared: &Shared,
    definition: &Definition,
    endpoint: &netdriver::Endpoint,
    action: &str,
) {
    let network = shared.networks.inspect(&endpoint.network_id);
    let driver = network.map_or("bridge", |network| network.driver.name());
    shared.events.other(
        "network",
        &endpoint.network_id,
        action,
        &[
            ("container", &definition.id),
            ("name", &endpoint.network_name),
            ("type", driver),
        ],
    );
}

fn launch(shared: &Shared, definition: &Definition, spec: LaunchSpec) -> Result<Launch> {
    let log = match definition.host.log_config.kind.as_str() {
        "none" => None,
        _ => {
            let limits = logs::limits(&definition.host.log_config)?;
            Some(LogOptions {
                path: shared.log_path(&definition.id),
                max_size: limits.max_size,
                max_file: limits.max_file,
            })
        }
    };
    let stdin = match (definition.config.open_stdin, definition.config.stdin_once) {
        (false, _) => StdinMode::Null,
        (true, true) => StdinMode::Once,
        (true, false) => StdinMode::Open,
    };
    Ok(Launch {
        id: definition.id.clone(),
        kind: LaunchKind::Container(spec),
        stdin,
        log,
        attach: Vec::new(),
    })
}

/// One step of the preparation.
struct Step<'a> {
    name: &'static str,
    run: fn(&mut Preparation<'a>) -> Result<()>,
    undo: fn(&Preparation<'a>) -> Result<()>,
}

/// What the steps have found out and made so far.
struct Preparation<'a> {
    shared: &'a Shared,
    definition: &'a Definition,
    container: &'a Container,
    net: Namespace,
    pid: Namespace,
    ipc: Namespace,
    shm: Option<PathBuf>,
    layers: Vec<PathBuf>,
    attachment: Attachment,
    /// Whose `hosts`, `hostname` and `resolv.conf` are mounted.
    files: PathBuf,
    hostname: String,
    donor: Option<Handle>,
}

fn prepare(shared: &Shared, container: &Container) -> Result<(LaunchSpec, Attachment)> {
    let definition = &*container.definition;
    let mut preparation = Preparation {
        shared,
        definition,
        container,
        net: Namespace::New,
        pid: Namespace::New,
        ipc: Namespace::New,
        shm: None,
        layers: Vec::new(),
        attachment: Attachment::default(),
        files: shared.records.directory(&definition.id),
        hostname: hostname_of(container),
        donor: None,
    };
    for (done, step) in Preparation::STEPS.iter().enumerate() {
        let begun = std::time::Instant::now();
        if let Err(error) = (step.run)(&mut preparation) {
            preparation.undo(&Preparation::STEPS[..done]);
            return Err(error);
        }
        let micros = begun.elapsed().as_micros();
        tracing::debug!(container.id = definition.id, step = step.name, micros);
    }
    match preparation.launch_spec() {
        Ok(spec) => Ok((spec, preparation.attachment)),
        Err(error) => {
            preparation.undo(&Preparation::STEPS);
            Err(error)
        }
    }
}

impl<'a> Preparation<'a> {
    const STEPS: [Step<'a>; 8] = [
        Step {
            name: "namespaces",
            run: Self::namespaces,
            undo: Self::nothing,
        },
        Step {
            name: "shm",
            run: Self::shm,
            undo: Self::remove_shm,
        },
        Step {
            name: "layers",
            run: Self::layers,
            undo: Self::nothing,
        },
        Step {
            name: "sources",
            run: Self::sources,
            undo: Self::nothing,
        },
        Step {
            name: "sandbox",
            run: Self::sandbox,
            undo: Self::remove_sandbox,
        },
        // Endpoints and ports go with the sandbox.
        Step {
            name: "endpoints",
            run: Self::endpoints,
            undo: Self::nothing,
        },
        Step {
            name: "ports",
            run: Self::ports,
            undo: Self::nothing,
        },
        // The files are written anew at every start.
        Step {
            name: "files",
            run: Self::files,
            undo: Self::nothing,
        },
    ];

    #[expect(clippy::unnecessary_wraps, reason = "the shape of an undo")]
    fn nothing(&self) -> Result<()> {
        Ok(())
    }

    fn undo(&self, finished: &[Step<'a>]) {
        for step in finished.iter().rev() {
            if let Err(error) = (step.undo)(self) {
                tracing::error!(container.id = self.definition.id, step = step.name, %error, "cannot undo");
            }
        }
    }

    fn shares_network(&self) -> Option<&str> {
        self.definition.host.network_mode.strip_prefix("container:")
    }

    /// Namespaces of other containers, which must run.
    fn namespaces(&mut self) -> Result<()> {
        let host = &self.definition.host;
        if let Some(reference) = host.pid_mode.strip_prefix("container:") {
            let other = self.running(reference, "PID namespace")?;
            self.pid =
                Namespace::Join(format!("/proc/{}/ns/pid", other.container().state.pid).into());
        } else if host.pid_mode == "host" {
            self.pid = Namespace::Host;
        }
        if let Some(reference) = host.ipc_mode.strip_prefix("container:") {
            let other = self.running(reference, "IPC namespace")?.container();
            self.ipc = Namespace::Join(format!("/proc/{}/ns/ipc", other.state.pid).into());
            self.shm = Some(self.shm_of(&other, SHARING_DEPTH_MAX)?);
        } else if host.ipc_mode == "host" {
            self.ipc = Namespace::Host;
            let shm = Path::new("/dev/shm");
            if !shm.is_dir() {
                return Err(Error::invalid(
                    "this host has no /dev/shm, which --ipc host shares: mount a tmpfs there first",
                ));
            }
            self.shm = Some(shm.into());
        }
        if let Some(reference) = self.shares_network() {
            let other = self.running(reference, "network")?;
            let picture = other.container();
            self.net = match &picture.attachment {
                Some(attachment) if !attachment.netns.is_empty() => {
                    Namespace::Join(attachment.netns.clone().into())
                }
                _ => Namespace::Join(format!("/proc/{}/ns/net", picture.state.pid).into()),
            };
            self.files = self.shared.records.directory(picture.id());
            self.hostname = hostname_of(&picture);
            self.donor = Some(other);
        }
        Ok(())
    }

    /// What a container that shares its IPC namespace has at `/dev/shm`.
    fn shm_of(&self, donor: &Container, depth: usize) -> Result<PathBuf> {
        let mode = donor.definition.host.ipc_mode.as_str();
        if mode == "host" {
            return Ok("/dev/shm".into());
        }
        let refused = || {
            Error::invalid(format!(
                "container {}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
                donor.id()
            ))
        };
        if let Some(reference) = mode.strip_prefix("container:") {
            let further = self.shared.registry.find(reference)?.container();
            let depth = depth.checked_sub(1).ok_or_else(refused)?;
            return self.shm_of(&further, depth);
        }
        let path = shm::path(&self.shared.options.exec_root, donor.id());
        match path.is_dir() {
            true => Ok(path),
            false => Err(refused()),
        }
    }

    /// A shm that others may bind, too.
    fn shm(&mut self) -> Result<()> {
        let host = &self.definition.host;
        if host.ipc_mode != "shareable" {
            return Ok(());
        }
        let path = shm::path(&self.shared.options.exec_root, &self.definition.id);
        shm::mount(&path, u64::try_from(host.shm_size).unwrap_or(0))?;
        self.shm = Some(path);
        Ok(())
    }

    fn remove_shm(&self) -> Result<()> {
        remove_shm(self.shared, self.definition)
    }

    fn running(&self, reference: &str, what: &str) -> Result<Handle> {
        let handle = self.shared.registry.find(reference)?;
        let picture = handle.container();
        match picture.state.status {
            ContainerStatus::Running | ContainerStatus::Paused => Ok(handle),
            ContainerStatus::Restarting => Err(Error::conflict(format!(
                "container {} is restarting, wait until the container is running",
                picture.id()
            ))),
            _ => Err(Error::conflict(format!(
                "cannot join {what} of a non running container: {}",
                picture.id()
            ))),
        }
    }

    fn layers(&mut self) -> Result<()> {
        let id: ImageId = self.definition.image.parse().map_err(|_| {
            Error::system(format!(
                "container has the malformed image id {:?}",
                self.definition.image
            ))
        })?;
        self.layers = self.shared.images.layers(&id)?;
        self.shared.images.used(&id);
        if self.layers.is_empty() {
            // An image without layers: overlayfs wants a lower directory.
            let empty = self
                .shared
                .records
                .directory(&self.definition.id)
                .join("empty");
            fs::create_dir_all(&empty).map_err(Error::io("create", &empty))?;
            self.layers.push(empty);
        }
        Ok(())
    }

    /// Host directories that `-v` makes; volumes that are gone are made again.
    fn sources(&mut self) -> Result<()> {
        for plan in &self.definition.mounts {
            match &plan.source {
                MountSource::Bind { path, create, .. } => {
                    let path = Path::new(path);
                    if *create && !path.exists() {
                        fs::create_dir_all(path).map_err(|error| {
                            Error::system(format!(
                                "error while creating mount source path '{}': {error}",
                                path.display()
                            ))
                        })?;
                    } else if !path.exists() {
                        return Err(Error::invalid(format!(
                            "invalid mount config for type \"bind\": bind source path does not exist: {}",
                            path.display()
                        )));
                    }
                }
                MountSource::Volume(volume) => {
                    let mut volume = volume.clone();
                    self.shared.volumes.ensure(&mut volume)?;
                    let source = Path::new(&volume.mountpoint).join(&volume.subpath);
                    if !source.exists() {
                        return Err(Error::invalid(format!(
                            "cannot mount subpath {:?} of volume {}: it does not exist",
                            volume.subpath, volume.name
                        )));
                    }
                }
                MountSource::Tmpfs { .. } => {}
            }
        }
        Ok(())
    }

    fn sandbox(&mut self) -> Result<()> {
        if self.shares_network().is_some() {
            return Ok(());
        }
        let host = &self.definition.host;
        let or = |own: &[String], engine: &[String]| {
            if own.is_empty() {
                engine.to_vec()
            } else {
                own.to_vec()
            }
        };
        let options = &self.shared.options;
        let dns_servers = match host.dns.is_empty() {
            true => options.dns.clone(),
            false => host
                .dns
                .iter()
                .map(|text| endpoint::parse_address(text))
                .collect::<Result<_>>()?,
        };
        let is_host = host.network_mode == "host";
        let spec = SandboxSpec {
            id: self.definition.id.clone(),
            name: self.definition.name.clone(),
            hostname: self.hostname.clone(),
            mode: if is_host {
                SandboxMode::Host
            } else {
                SandboxMode::Private
            },
            dns_servers,
            dns_search: or(&host.dns_search, &options.dns_search),
            dns_options: or(&host.dns_options, &options.dns_options),
        };
        let networks = &self.shared.networks;
        let sandbox = match networks.create_sandbox(spec.clone()) {
            // Left by a start that was cut short.
            Err(netdriver::Error::SandboxExists(_)) => {
                networks.remove_sandbox(&self.definition.id)?;
                networks.create_sandbox(spec)?
            }
            other => other?,
        };
        self.net = match sandbox.netns {
            Some(path) => {
                self.attachment.netns = path.to_string_lossy().into_owned();
                Namespace::Join(path)
            }
            None => Namespace::Host,
        };
        Ok(())
    }

    fn remove_sandbox(&self) -> Result<()> {
        if self.shares_network().is_some() {
            return Ok(());
        }
        Ok(self.shared.networks.remove_sandbox(&self.definition.id)?)
    }

    fn endpoints(&mut self) -> Result<()> {
        for (network, settings) in &self.definition.endpoints {
            let spec = endpoint::spec(settings)?;
            let endpoint = self
                .shared
                .networks
                .connect(&self.definition.id, network, spec)
                .map_err(|error| {
                    Error::from(error).context("failed to set up container networking")
                })?;
            network_event(self.shared, self.definition, &endpoint, "connect");
            self.attachment.endpoints.push(endpoint);
        }
        Ok(())
    }

    fn ports(&mut self) -> Result<()> {
        if self.shares_network().is_some() || self.net == Namespace::Host {
            return Ok(());
        }
        let requests = ports::requests(&self.definition.config, &self.definition.host)?;
        if requests.is_empty() {
            return Ok(());
        }
        let id = &self.definition.id;
        let published = self.shared.networks.publish(id, &requests).map_err(|error| {
            let endpoint = self.attachment.endpoints.first();
            Error::from(error).context(format!(
                "failed to set up container networking: driver failed programming external connectivity on endpoint {} ({})",
                self.definition.name,
                endpoint.map_or("", |endpoint| &endpoint.id)
            ))
        })?;
        self.attachment.ports = published;
        Ok(())
    }

    fn files(&mut self) -> Result<()> {
        if self.shares_network().is_some() {
            return Ok(());
        }
        files::write(self.shared, self.container)
    }

    fn launch_spec(&self) -> Result<LaunchSpec> {
        let host = &self.definition.host;
        let (devices, device_rules) = devices::resolve(host)?;
        let resolved = Resolved {
            layers: self.layers.clone(),
            directory: self.shared.records.directory(&self.definition.id),
            net: self.net.clone(),
            pid: self.pid.clone(),
            ipc: self.ipc.clone(),
            shm: self.shm.clone(),
            hostname: self.hostname.clone(),
            files: self.files.clone(),
            devices,
            device_rules,
            throttles: devices::throttles(&host.resources)?,
            cgroup: self.shared.cgroup_path(self.definition)?,
            available: CapabilitySet::available(),
            default_ulimits: self.shared.options.default_ulimits.clone(),
            init: host.init.unwrap_or(self.shared.options.init),
        };
        spec::launch_spec(self.definition, resolved)
    }
}
