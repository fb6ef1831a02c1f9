//! A cluster to test orchestrators on. The loops and the store are the real ones; a scheduler that spreads, and agents
//! whose tasks do what the tag of their image says, are played here.
//!
//! Tags: `missing` cannot be pulled; `crash` fails when started; `crash3s` fails after running for 3 s; `once`,
//! `once3s` end with exit code 0 likewise; `slow3s` takes 3 s to become healthy; `slowstop3s` takes 3 s to stop;
//! `stuck` never stops; any other runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_api::swarm::{NodeAvailability, NodeDescription, NodeState, ServiceSpec};
use cluster_api::{
    Cluster as Settings, DesiredState, IdSource, Kind, Node, Now, Object, Rollout, RolloutState,
    Service, Task, TaskState, TaskStatus, Time, Timestamp,
};

use super::super::loops;
use super::super::template::host_ports;
use crate::constraint;
use crate::control_loop::{Context, ControlLoop};
use crate::store::{Store, StoreAction, Transaction};

const START: i64 = 1_800_000_000;

pub(super) struct Cluster {
    pub(super) store: Store,
    pub(super) now: Now,
    pub(super) log: Vec<String>,
    index: u64,
    ids: IdSource,
    loops: Vec<Box<dyn ControlLoop + Send>>,
    wakes: Vec<Option<Time>>,
    /// What tasks are called in logs.
    labels: BTreeMap<String, String>,
    /// When the agents' tasks came to their states.
    since: BTreeMap<String, (TaskState, DesiredState, Time)>,
    /// How many store changes were looked at; for properties.
    pub(super) watch: Option<fn(&Store)>,
}

impl Cluster {
    pub(super) fn new(seed: u64) -> Self {
        let mut cluster = Self {
            store: Store::default(),
            now: Now {
                mono: Time(0),
                wall: Timestamp(START * 1_000_000_000),
            },
            log: Vec::new(),
            index: 0,
            ids: IdSource::seeded(seed),
            loops: Vec::new(),
            wakes: Vec::new(),
            labels: BTreeMap::new(),
            since: BTreeMap::new(),
            watch: None,
        };
        let mut settings = Settings {
            id: "cluster".to_owned(),
            ..Settings::default()
        };
        settings.spec.annotations.name = "default".to_owned();
        cluster.change(|tx| tx.create(settings));
        cluster.fail_over();
        cluster
    }

    /// A new leader: nothing is known but the store.
    pub(super) fn fail_over(&mut self) {
        self.loops = loops();
        self.wakes = self.loops.iter().map(|_| None).collect();
        let mut context = Context {
            store: &self.store,
            now: self.now,
            ids: &mut self.ids,
        };
        for part in &mut self.loops {
            part.start(&mut context);
        }
    }

    pub(super) fn change(&mut self, fill: impl FnOnce(&mut Transaction)) {
        let mut transaction = Transaction::new(self.now.wall);
        fill(&mut transaction);
        self.commit(&transaction);
    }

    fn commit(&mut self, transaction: &Transaction) {
        self.index += 1;
        let events = self
            .store
            .apply(self.index, transaction)
            .expect("nobody else writes");
        for part in &mut self.loops {
            for event in &events {
                part.observe(event);
            }
        }
        if let Some(watch) = self.watch {
            watch(&self.store);
        }
    }

    /// Lets the loops decide until they have nothing to say. Whether they had.
    pub(super) fn decide(&mut self) -> bool {
        let mut decided = false;
        for round in 0.. {
            assert!(round < 1000, "the loops go round in circles");
            let mut quiet = true;
            for part in 0..self.loops.len() {
                let mut context = Context {
                    store: &self.store,
                    now: self.now,
                    ids: &mut self.ids,
                };
                let step = self.loops[part].step(&mut context);
                self.wakes[part] = step.wake_at;
                if let Some(transaction) = step.transaction {
                    quiet = false;
                    self.note(&transaction);
                    self.commit(&transaction);
                }
            }
            if quiet {
                break;
            }
            decided = true;
        }
        decided
    }

    /// Lets loops, scheduler and agents work for that long.
    pub(super) fn run(&mut self, milliseconds: u64) {
        let end = self.now.mono.after(milliseconds);
        loop {
            let mut rounds = 0;
            while self.decide() | self.play() {
                rounds += 1;
                assert!(rounds < 1000, "no quiet at {:?}", self.now);
            }
            let wakes = self.wakes.iter().flatten().copied();
            let next = wakes
                .chain(self.agents_wake())
                .filter(|at| *at > self.now.mono)
                .min();
            match next {
                Some(at) if at <= end => self.advance(at.since(self.now.mono)),
                _ => break,
            }
        }
        self.advance(end.since(self.now.mono));
    }

    pub(super) fn advance(&mut self, milliseconds: u64) {
        self.now.mono = self.now.mono.after(milliseconds);
        let nanos = i64::try_from(milliseconds).expect("small") * 1_000_000;
        self.now.wall = Timestamp(self.now.wall.0 + nanos);
    }

    // What operators and users do.

    pub(super) fn node(&mut self, name: &str, change: impl FnOnce(&mut Node)) {
        let known = self.store.node(name).cloned();
        let mut node = known.as_deref().cloned().unwrap_or_else(|| {
            let mut node = Node {
                id: name.to_owned(),
                description: Some(NodeDescription::default()),
                ..Node::default()
            };
            node.status.state = NodeState::Ready;
            let description = node.description.as_mut().expect("just made");
            description.hostname = name.to_owned();
            description.resources.nano_cpus = 4_000_000_000;
            description.resources.memory_bytes = 1 << 30;
            node
        });
        change(&mut node);
        self.change(|tx| {
            if known.is_some() {
                tx.update(node);
            } else {
                tx.create(node);
            }
        });
    }

    pub(super) fn remove_node(&mut self, name: &str) {
        if let Some(node) = self.store.node(name).cloned() {
            self.change(|tx| tx.remove(&Object::Node(node)));
        }
    }

    pub(super) fn service(&self, name: &str) -> Option<Arc<Service>> {
        let id = self.store.id_of(Kind::Service, name)?;
        self.store.service(id).cloned()
    }

    /// Creates or updates a service as the control API does.
    pub(super) fn deploy(&mut self, name: &str, change: impl FnOnce(&mut ServiceSpec)) {
        let Some(old) = self.service(name) else {
            let mut spec = ServiceSpec::default();
            spec.annotations.name = name.to_owned();
            change(&mut spec);
            let service = Service {
                id: self.ids.id(),
                spec: Arc::new(spec),
                ..Service::default()
            };
            return self.change(|tx| tx.create(service));
        };
        let mut spec = ServiceSpec::clone(&old.spec);
        change(&mut spec);
        let mut service = Service::clone(&old);
        if spec.task_template != old.spec.task_template
            || spec.endpoint_spec != old.spec.endpoint_spec
        {
            service.spec_version = old.meta.version;
        }
        service.previous_spec = Some(Arc::clone(&old.spec));
        service.previous_spec_version = Some(old.spec_version);
        service.spec = Arc::new(spec);
        service.rollout = None;
        self.change(|tx| tx.update(service));
    }

    pub(super) fn roll_back(&mut self, name: &str) {
        let old = self.service(name).expect("known service");
        let mut service = Service::clone(&old);
        let previous = old.previous_spec.clone().expect("a spec to go back to");
        service.previous_spec = Some(Arc::clone(&old.spec));
        service.previous_spec_version = Some(old.spec_version);
        service.spec = previous;
        service.spec_version = old.previous_spec_version.unwrap_or_default();
        service.rollout = Some(Rollout {
            state: RolloutState::RollbackStarted,
            message: "manually requested rollback".to_owned(),
            ..Rollout::default()
        });
        self.change(|tx| tx.update(service));
    }

    pub(super) fn remove_service(&mut self, name: &str) {
        let mut service = Service::clone(&self.service(name).expect("known service"));
        service.pending_delete = true;
        self.change(|tx| tx.update(service));
    }

    pub(super) fn settings(&mut self, change: impl FnOnce(&mut Settings)) {
        let mut settings = Settings::clone(self.store.cluster().expect("made at the start"));
        change(&mut settings);
        self.change(|tx| tx.update(settings));
    }

    pub(super) fn task(&self, label: &str) -> Arc<Task> {
        let id = self.labels.iter().find(|(_, known)| *known == label);
        let id = id.unwrap_or_else(|| panic!("no task {label}")).0;
        Arc::clone(self.store.task(id).expect("not deleted"))
    }

    pub(super) fn report(&mut self, task: &Task, state: TaskState, error: &str) {
        let status = TaskStatus {
            state,
            since: self.now.wall,
            error: error.to_owned(),
            ..task.status.clone()
        };
        let label = self.label(task);
        self.say(format!("  {label} {state}"));
        self.change(|tx| tx.task_status(&task.id, status));
    }

    // The other parts of a cluster.

    /// One move of everybody who can make one. Whether somebody could.
    fn play(&mut self) -> bool {
        let tasks: Vec<Arc<Task>> = self.store.tasks().cloned().collect();
        let mut moved = false;
        for task in tasks {
            moved |= if task.status.state < TaskState::Assigned {
                self.schedule(&task)
            } else {
                self.act(&task)
            };
        }
        moved
    }

    fn schedule(&mut self, task: &Task) -> bool {
        if task.desired >= DesiredState::Shutdown {
            return false;
        }
        let place = self
            .store
            .nodes()
            .filter(|node| task.node_id.is_empty() || task.node_id == node.id)
            .filter(|node| self.has_room(node, task))
            .min_by_key(|node| (self.load(node, Some(task)), self.load(node, None)))
            .map(|node| node.id.clone());
        let mut next = Task::clone(task);
        match place {
            Some(node) => {
                next.node_id = node;
                next.status.state = TaskState::Assigned;
                next.status.error.clear();
            }
            None => {
                next.status.state = TaskState::Pending;
                next.status.error = "no suitable node".to_owned();
            }
        }
        if next == *task {
            return false;
        }
        if next.node_id.is_empty() {
            let label = self.label(task);
            self.say(format!("  {label} pending: no suitable node"));
        }
        self.change(|tx| tx.update(next));
        true
    }

    fn load(&self, node: &Node, of: Option<&Task>) -> usize {
        self.store
            .tasks_of_node(&node.id)
            .filter(|task| !task.status.state.is_terminal())
            .filter(|task| of.is_none_or(|of| of.service_id == task.service_id))
            .count()
    }

    fn has_room(&self, node: &Node, task: &Task) -> bool {
        let others = || {
            self.store
                .tasks_of_node(&node.id)
                .filter(|other| other.id != task.id && !other.status.state.is_terminal())
        };
        let reserved = |task: &Task| {
            let resources = task.spec.resources.as_ref();
            let reservations = resources.and_then(|resources| resources.reservations.as_ref());
            reservations.map_or(0, |reservations| reservations.nano_cpus)
        };
        let placement = task.spec.placement.clone().unwrap_or_default();
        let cpus = node
            .description
            .as_ref()
            .map_or(0, |description| description.resources.nano_cpus);
        let used: i64 = others().map(|other| reserved(other)).sum();
        let siblings = others().filter(|other| other.service_id == task.service_id);
        node.status.state == NodeState::Ready
            && node.spec.availability == NodeAvailability::Active
            && constraint::all_met(&placement.constraints, node)
            && used + reserved(task) <= cpus
            && (placement.max_replicas == 0 || (siblings.count() as u64) < placement.max_replicas)
            && others().all(|other| {
                host_ports(Some(&other.endpoint.spec))
                    .is_disjoint(&host_ports(Some(&task.endpoint.spec)))
            })
    }

    fn act(&mut self, task: &Task) -> bool {
        let node = self.store.node(&task.node_id);
        if task.status.state.is_terminal()
            || node.is_none_or(|node| node.status.state != NodeState::Ready)
        {
            return false;
        }
        let waited = self.waited(task);
        match self.next(task) {
            Some((state, after, error)) if waited >= after => {
                self.report(task, state, error);
                true
            }
            _ => false,
        }
    }

    /// How long the agent has had the task as it is.
    fn waited(&mut self, task: &Task) -> u64 {
        let now = self.now.mono;
        let state = (task.status.state, task.desired.max(DesiredState::Running));
        let entry = self
            .since
            .entry(task.id.clone())
            .or_insert((state.0, state.1, now));
        if (entry.0, entry.1) != state {
            *entry = (state.0, state.1, now);
        }
        now.since(entry.2)
    }

    /// What the agent will report next, and after how long.
    fn next(&self, task: &Task) -> Option<(TaskState, u64, &'static str)> {
        let tag = tag_of(task);
        if task.desired >= DesiredState::Shutdown {
            let after = seconds(tag, "slowstop").unwrap_or(0);
            return (tag != "stuck").then_some((TaskState::Shutdown, after, ""));
        }
        match task.status.state {
            TaskState::Assigned if tag == "missing" => {
                Some((TaskState::Rejected, 0, "No such image"))
            }
            TaskState::Assigned => Some((TaskState::Ready, 0, "")),
            TaskState::Ready if task.desired == DesiredState::Ready => None,
            TaskState::Ready if tag == "crash" => Some((TaskState::Failed, 0, "exit code 1")),
            TaskState::Ready => {
                let after = seconds(tag, "slow").unwrap_or(0);
                Some((TaskState::Running, after, ""))
            }
            TaskState::Running if tag == "once" => Some((TaskState::Complete, 0, "")),
            TaskState::Running => seconds(tag, "crash")
                .map(|after| (TaskState::Failed, after, "exit code 1"))
                .or_else(|| seconds(tag, "once").map(|after| (TaskState::Complete, after, ""))),
            _ => None,
        }
    }

    fn agents_wake(&self) -> Vec<Time> {
        let tasks = self.store.tasks().filter(|task| {
            task.status.state >= TaskState::Assigned && !task.status.state.is_terminal()
        });
        tasks
            .filter_map(|task| {
                let (_, after, _) = self.next(task)?;
                let (_, _, since) = self.since.get(&task.id)?;
                Some(since.after(after))
            })
            .collect()
    }

    // What is logged.

    fn label(&self, task: &Task) -> String {
        self.labels[&task.id].clone()
    }

    pub(super) fn say(&mut self, line: String) {
        let seconds = self.now.mono.0 as f64 / 1000.0;
        self.log.push(format!("{seconds:6.2} {line}"));
    }

    fn note(&mut self, transaction: &Transaction) {
        for action in &transaction.actions {
            let line = match action {
                StoreAction::Create(Object::Task(task)) => {
                    let place = if task.slot == 0 {
                        task.node_id.clone()
                    } else {
                        task.slot.to_string()
                    };
                    let label = format!("{}.{place}#{}", task.service.name, task.generation);
                    self.labels.insert(task.id.clone(), label.clone());
                    format!("+ {label} {}", self.describe(task))
                }
                StoreAction::Update(Object::Service(service)) => {
                    let rollout = service.rollout.clone().unwrap_or_default();
                    let failed = match rollout.failed.len() {
                        0 => String::new(),
                        _ => format!(" failed {}", rollout.failed.join(",")),
                    };
                    format!(
                        "* {} {} of {}{failed}: {}",
                        service.spec.annotations.name,
                        rollout.state.as_str(),
                        rollout.total,
                        self.readable(&rollout.message)
                    )
                }
                StoreAction::Update(Object::Task(task)) => {
                    format!("! {} evicted: {}", self.label(task), task.status.error)
                }
                StoreAction::TaskDesired { id, desired } => {
                    format!("~ {} {desired}", self.labels[id])
                }
                StoreAction::TaskStatus { id, status } => {
                    format!("! {} {}", self.labels[id], status.state)
                }
                StoreAction::Remove { kind, id, .. } => match self.labels.get(id) {
                    Some(label) => format!("- {label}"),
                    None => format!("- {kind}"),
                },
                other => format!("? {other:?}"),
            };
            self.say(line);
        }
    }

    fn describe(&self, task: &Task) -> String {
        let image = task.spec.container_spec.as_ref().map(|spec| &spec.image);
        let mut words = vec![
            image.cloned().unwrap_or_default(),
            task.desired.as_str().to_owned(),
        ];
        if task.restarts.not_before != Timestamp::default() {
            let after = task.restarts.not_before.millis_since(self.now.wall);
            words.push(format!("after {}s", after as f64 / 1000.0));
        }
        if let Some(old) = &task.restarts.replaces {
            words.push(format!("when {} has ended", self.labels[old]));
        }
        if task.restarts.attempts > 0 {
            words.push(format!("attempt {}", task.restarts.attempts));
        }
        if task.rollout != 0 {
            words.push("by rollout".to_owned());
        }
        if task.gated {
            words.push("gated".to_owned());
        }
        words.join(" ")
    }

    /// With labels instead of ids.
    fn readable(&self, message: &str) -> String {
        let mut message = message.to_owned();
        for (id, label) in &self.labels {
            message = message.replace(id, label);
        }
        message
    }

    /// All tasks of a service, one a line.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let mut tasks: Vec<_> = self
            .store
            .tasks()
            .filter(|task| task.service.name == name)
            .collect();
        tasks.sort_by_key(|task| (task.slot, task.node_id.clone(), task.generation));
        let lines = tasks.into_iter().map(|task| {
            let image = task.spec.container_spec.as_ref().map(|spec| &spec.image);
            format!(
                "{} {} {} is {}, wanted {}",
                self.label(task),
                image.cloned().unwrap_or_default(),
                task.node_id,
                task.status.state,
                task.desired
            )
        });
        lines.collect()
    }
}

pub(super) fn tag_of(task: &Task) -> &str {
    let container = task.spec.container_spec.as_ref();
    let image = container.map_or("", |container| container.image.as_str());
    image.split_once(':').map_or("", |(_, tag)| tag)
}

/// `crash3s` is 3000 milliseconds of `crash`.
fn seconds(tag: &str, of: &str) -> Option<u64> {
    let seconds: u64 = tag.strip_prefix(of)?.strip_suffix('s')?.parse().ok()?;
    Some(seconds * 1000)
}
