//! A model of the engine, as far as plans are concerned: what steps do to an [`ObservedState`], and the rules a real
//! engine would enforce. Every rule that is broken is a failed test.

use std::collections::BTreeMap;

use agent_api::{ContainerCreateRequest, ContainerStatus, HealthStatus};
use compose::labels;
use compose::plan::{Condition, ContainerHandle, Operation, Plan, Step};
use compose::state::{
    ObservedContainer, ObservedImage, ObservedMount, ObservedNetwork, ObservedState, ObservedVolume,
};
use compose_model::Project;

/// The engine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Engine {
    pub(crate) state: ObservedState,
    /// Requests by container id.
    pub(crate) requests: BTreeMap<String, ContainerCreateRequest>,
    /// Containers created by the plan that runs, by service and number.
    created: BTreeMap<(String, u32), String>,
    counter: u64,
}

impl Engine {
    /// An engine that has the images of a project, and nothing else.
    pub(crate) fn with_images(project: &Project) -> Self {
        let mut engine = Self::default();
        engine.add_images(project);
        engine
    }

    pub(crate) fn add_images(&mut self, project: &Project) {
        for (name, service) in &project.services {
            let reference = service.image_or_default(&project.name, name);
            let id = format!("sha256:{reference}");
            self.state.images.entry(reference).or_insert(ObservedImage {
                id,
                volumes: ["/declared".to_owned()].into(),
            });
        }
    }

    /// Runs a plan in the order it lists.
    pub(crate) fn run(&mut self, plan: &Plan) {
        self.run_in_order(plan, |ready| ready[0]);
    }

    /// Runs a plan in any order its edges allow; `choose` picks one of the steps that may run.
    pub(crate) fn run_in_order(&mut self, plan: &Plan, mut choose: impl FnMut(&[usize]) -> usize) {
        self.created.clear();
        let mut done = vec![false; plan.steps.len()];
        loop {
            let ready: Vec<usize> = (0..plan.steps.len())
                .filter(|index| {
                    !done[*index] && plan.steps[*index].after.iter().all(|edge| done[edge.step])
                })
                .collect();
            if ready.is_empty() {
                break;
            }
            let index = choose(&ready);
            self.step(&plan.steps[index], plan);
            done[index] = true;
        }
        assert!(
            done.into_iter().all(|done| done),
            "steps left over: a cycle in\n{plan}"
        );
        self.state
            .containers
            .sort_by(|a, b| (&a.service, a.number, &a.name).cmp(&(&b.service, b.number, &b.name)));
    }

    /// Runs only the first steps, as if the planner's process was killed after them.
    pub(crate) fn run_partly(&mut self, plan: &Plan, steps: usize) {
        self.created.clear();
        for step in &plan.steps[..steps] {
            self.step(step, plan);
        }
        self.state
            .containers
            .sort_by(|a, b| (&a.service, a.number, &a.name).cmp(&(&b.service, b.number, &b.name)));
    }

    fn fresh_id(&mut self) -> String {
        self.counter += 1;
        format!(
            "{:016x}{:048x}",
            self.counter.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            self.counter
        )
    }

    fn id(&self, handle: &ContainerHandle) -> String {
        let key = (handle.service.clone(), handle.number);
        handle.id.clone().unwrap_or_else(|| {
            self.created
                .get(&key)
                .expect("created before it is used")
                .clone()
        })
    }

    pub(crate) fn container(&mut self, id: &str) -> &mut ObservedContainer {
        self.state
            .containers
            .iter_mut()
            .find(|container| container.id == id)
            .expect("the container exists")
    }

    pub(crate) fn step(&mut self, step: &Step, plan: &Plan) {
        match &step.operation {
            Operation::CreateNetwork { request, .. } => {
                assert!(
                    !self.state.networks.contains_key(&request.name),
                    "network exists\n{plan}"
                );
                let label = |key: &str| request.labels.get(key).cloned();
                let network = ObservedNetwork {
                    id: self.fresh_id(),
                    project: label(labels::PROJECT),
                    key: label(labels::NETWORK),
                    config_hash: label(labels::CONFIG_HASH),
                    attributes: label(labels::ATTRIBUTES),
                };
                self.state.networks.insert(request.name.clone(), network);
            }
            Operation::RemoveNetwork { name, id } => {
                let users = self.state.containers.iter().filter(|container| {
                    container.is_up() && container.networks.get(name) == Some(id)
                });
                assert_eq!(
                    users.count(),
                    0,
                    "network {name} has active endpoints\n{plan}"
                );
                self.state
                    .networks
                    .remove(name)
                    .expect("the network exists");
            }
            Operation::CreateVolume { request, .. } => {
                assert!(
                    !self.state.volumes.contains_key(&request.name),
                    "volume exists\n{plan}"
                );
                let label = |key: &str| request.labels.get(key).cloned();
                let volume = ObservedVolume {
                    project: label(labels::PROJECT),
                    key: label(labels::VOLUME),
                    config_hash: label(labels::CONFIG_HASH),
                    attributes: label(labels::ATTRIBUTES),
                };
                self.state.volumes.insert(request.name.clone(), volume);
            }
            Operation::RemoveVolume { name } => {
                let users = self.state.containers.iter().filter(|container| {
                    container.volumes.iter().any(|mount| mount.volume == *name)
                });
                assert_eq!(users.count(), 0, "volume {name} is in use\n{plan}");
                self.state.volumes.remove(name).expect("the volume exists");
            }
            Operation::CreateContainer { container, new } => {
                let request = new.resolved(|handle| Ok::<_, ()>(self.id(handle))).unwrap();
                let created = self.create(&new.name, request, plan);
                self.created
                    .insert((container.service.clone(), container.number), created);
            }
            Operation::StartContainer { container } => {
                let id = self.id(container);
                self.start(&id, plan);
            }
            Operation::StopContainer { container, .. }
            | Operation::KillContainer { container, .. } => {
                let id = self.id(container);
                let container = self.container(&id);
                container.state = ContainerStatus::Exited;
                container.exit_code = Some(137);
                container.health = HealthStatus::None;
            }
            Operation::RemoveContainer {
                container, force, ..
            } => {
                let id = self.id(container);
                assert!(
                    *force || !self.container(&id).is_up(),
                    "{} runs\n{plan}",
                    container.name
                );
                self.state.containers.retain(|container| container.id != id);
            }
            Operation::RenameContainer { container, from } => {
                let id = self.id(container);
                self.assert_free(&container.name, plan);
                let observed = self.container(&id);
                assert_eq!(observed.name, *from);
                observed.name.clone_from(&container.name);
            }
            Operation::Wait {
                containers,
                condition,
                ..
            } => {
                let ids: Vec<String> = containers
                    .iter()
                    .map(|container| self.id(container))
                    .collect();
                for id in &ids {
                    self.wait(id, *condition, plan);
                }
            }
            Operation::RunHook { container, .. } => {
                let id = self.id(container);
                assert!(
                    self.container(&id).is_up(),
                    "a hook needs a running container\n{plan}"
                );
            }
            Operation::BuildImage { build } => {
                let image = self.state.images.entry(build.image.clone()).or_default();
                image.id.push('+');
            }
            Operation::RemoveImage { reference } => {
                self.state
                    .images
                    .remove(reference)
                    .expect("the image exists");
            }
        }
    }

    fn assert_free(&self, name: &str, plan: &Plan) {
        let taken = self
            .state
            .containers
            .iter()
            .any(|container| container.name == name);
        assert!(!taken, "name {name} is taken\n{plan}");
    }

    pub(crate) fn create(
        &mut self,
        name: &str,
        request: ContainerCreateRequest,
        plan: &Plan,
    ) -> String {
        self.assert_free(name, plan);
        let id = self.fresh_id();
        let networks = request
            .networking_config
            .endpoints_config
            .keys()
            .map(|network| {
                assert!(
                    self.state.networks.contains_key(network),
                    "no network {network}\n{plan}"
                );
                (network.clone(), String::new())
            });
        let networks = networks.collect();
        let label = |key: &str| request.config.labels.get(key).cloned();
        let container = ObservedContainer {
            id: id.clone(),
            name: name.to_owned(),
            service: label(labels::SERVICE).unwrap(),
            number: label(labels::CONTAINER_NUMBER).unwrap().parse().unwrap(),
            oneoff: label(labels::ONEOFF).unwrap() == "True",
            config_hash: label(labels::CONFIG_HASH),
            attributes: label(labels::ATTRIBUTES),
            replaces: label(labels::REPLACE),
            shares: label(labels::SHARES)
                .into_iter()
                .flat_map(|ids| ids.split(',').map(str::to_owned).collect::<Vec<_>>())
                .collect(),
            depends_on: label(labels::DEPENDS_ON),
            image_id: self.state.images[&request.config.image].id.clone(),
            image: request.config.image.clone(),
            state: ContainerStatus::Created,
            networks,
            volumes: self.mounts(&request, plan),
            ..ObservedContainer::default()
        };
        self.state.containers.push(container);
        self.requests.insert(id.clone(), request);
        id
    }

    /// Volumes of a container; those at paths without a source, and those the image declares, are new and anonymous.
    fn mounts(&mut self, request: &ContainerCreateRequest, plan: &Plan) -> Vec<ObservedMount> {
        let mut mounts = Vec::new();
        let binds = request.host_config.binds.iter().flatten();
        let named: Vec<(String, String)> = binds
            .filter(|bind| !bind.starts_with('/'))
            .map(|bind| {
                let mut parts = bind.split(':');
                (
                    parts.next().unwrap().to_owned(),
                    parts.next().unwrap().to_owned(),
                )
            })
            .chain(
                request
                    .host_config
                    .mounts
                    .iter()
                    .flatten()
                    .filter(|mount| mount.kind == agent_api::MountType::Volume)
                    .map(|mount| (mount.source.clone(), mount.target.clone())),
            )
            .collect();
        for (volume, target) in named {
            let anonymous = volume.is_empty() || volume.len() == 64;
            let volume = if volume.is_empty() {
                self.fresh_id()
            } else {
                volume
            };
            assert!(
                anonymous || self.state.volumes.contains_key(&volume),
                "no volume {volume}\n{plan}"
            );
            mounts.push(ObservedMount {
                volume,
                target,
                writable: true,
            });
        }
        for target in self.state.images[&request.config.image].volumes.clone() {
            if !mounts.iter().any(|mount| mount.target == target) {
                mounts.push(ObservedMount {
                    volume: self.fresh_id(),
                    target,
                    writable: true,
                });
            }
        }
        mounts
    }

    pub(crate) fn start(&mut self, id: &str, plan: &Plan) {
        let request = self.requests.get(id).cloned().expect("created by a plan");
        let networks = self.state.networks.clone();
        for mode in [
            &request.host_config.network_mode,
            &request.host_config.ipc_mode,
            &request.host_config.pid_mode,
        ] {
            if let Some(with) = mode.strip_prefix("container:") {
                assert!(
                    self.state
                        .containers
                        .iter()
                        .any(|known| known.id == with && known.is_up()),
                    "shares with a container that does not run\n{plan}"
                );
            }
        }
        let container = self.container(id);
        assert!(
            !container.is_up(),
            "{} is started twice\n{plan}",
            container.name
        );
        for (network, known) in &mut container.networks {
            let current = &networks
                .get(network)
                .unwrap_or_else(|| panic!("no network {network}\n{plan}"))
                .id;
            assert!(
                known.is_empty() || known == current,
                "network {network} is another one now\n{plan}"
            );
            known.clone_from(current);
        }
        container.state = ContainerStatus::Running;
        container.exit_code = None;
        if request.config.healthcheck.is_some() {
            container.health = HealthStatus::Starting;
        }
    }

    fn wait(&mut self, id: &str, condition: Condition, plan: &Plan) {
        let container = self.container(id);
        assert!(
            container.is_up() || container.is_completed(),
            "waits for {}, which never ran\n{plan}",
            container.name
        );
        match condition {
            Condition::Completed => {
                container.state = ContainerStatus::Exited;
                container.exit_code = Some(0);
            }
            Condition::Healthy => {
                assert_ne!(
                    container.health,
                    HealthStatus::None,
                    "no health check\n{plan}"
                );
                container.health = HealthStatus::Healthy;
            }
            Condition::RunningOrHealthy => {
                if container.health == HealthStatus::Starting {
                    container.health = HealthStatus::Healthy;
                }
            }
        }
    }

    /// Lets time pass: health checks succeed.
    pub(crate) fn settle(&mut self) {
        for container in &mut self.state.containers {
            if container.health == HealthStatus::Starting {
                container.health = HealthStatus::Healthy;
            }
        }
    }

    /// The container ends by itself.
    pub(crate) fn exit(&mut self, name: &str, code: i64) {
        let container = self
            .state
            .containers
            .iter_mut()
            .find(|container| container.name == name)
            .unwrap();
        container.state = ContainerStatus::Exited;
        container.exit_code = Some(code);
        container.health = HealthStatus::None;
    }
}
