//! Observing, planning and executing through the real client, against the model of the engine behind a unix socket that
//! speaks just enough of the Engine API. Containers do at once what their command says: `exit N` ends, `never` stays
//! unhealthy-to-be, everything else becomes healthy.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_api::{
    Client, ContainerCreateRequest, ContainerInspect, ContainerState, ContainerStatus,
    ContainerSummary, EndpointSettings, EventActor, EventMessage, Health, HealthStatus,
    ImageSummary, MountPoint, MountType, Network, NetworkCreateRequest, StreamKind, Volume,
    VolumeCreateRequest, VolumeListResponse,
};
use compose::plan::options::{DownOptions, UpOptions};
use compose::plan::{self, Operation, Plan, Step};
use compose::state::ObservedContainer;
use compose::{Cause, ExecuteError, ExecuteOptions, Phase, execute, observe};
use compose_model::{Project, Sources};
use serde::Serialize;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{broadcast, watch};

use crate::engine::Engine;
use crate::plans::project;

/// The engine behind its socket.
struct Daemon {
    engine: Arc<Mutex<Engine>>,
    client: Client,
    directory: PathBuf,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.directory).ok();
    }
}

impl Daemon {
    fn start(name: &str, project: &Project) -> Self {
        let directory =
            std::env::temp_dir().join(format!("muster-wire-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let socket = directory.join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let engine = Arc::new(Mutex::new(Engine::with_images(project)));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (events, _) = broadcast::channel(1024);
        let shared = (Arc::clone(&engine), events, Arc::clone(&requests));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        let client = Client::new(&format!("unix://{}", socket.display())).unwrap();
        Self {
            engine,
            client,
            directory,
            requests,
        }
    }

    async fn plan_up(&self, project: &Project, options: &UpOptions) -> Plan {
        let observed = observe(&self.client, &project.name, Some(project))
            .await
            .unwrap();
        plan::reconcile(project, &Sources::default(), &observed, options).unwrap()
    }

    async fn run(
        &self,
        plan: &Plan,
        options: &ExecuteOptions,
    ) -> (Result<(), ExecuteError>, Vec<String>) {
        let (_keep, cancel) = watch::channel(false);
        let mut log = Vec::new();
        let result = execute(&self.client, plan, options, cancel, &mut |event| {
            let phase = match event.phase {
                Phase::Started => "begin",
                Phase::Progress { .. } => "progress",
                Phase::Done { .. } => "done",
                Phase::Warned { .. } => "warned",
                Phase::Failed { .. } => "failed",
                Phase::Skipped => "skipped",
            };
            log.push(format!("{phase} {}", event.step.operation));
        })
        .await;
        (result, log)
    }
}

type Shared = (
    Arc<Mutex<Engine>>,
    broadcast::Sender<EventMessage>,
    Arc<Mutex<Vec<String>>>,
);

async fn serve(stream: UnixStream, (engine, events, requests): Shared) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if read.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            if line == "\r\n" {
                break;
            }
            head.push(line.trim_end().to_owned());
        }
        let length = head.iter().find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length:")
                .map(|length| length.trim().parse().unwrap())
        });
        let mut body = vec![0; length.unwrap_or(0)];
        read.read_exact(&mut body).await.unwrap();
        let mut words = head[0].split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = path.strip_prefix("/v1.51").unwrap_or(path);
        if method != "GET" {
            requests.lock().unwrap().push(format!("{method} {path}"));
        }
        if path == "/events" {
            let mut listener = events.subscribe();
            write
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                .await
                .unwrap();
            while let Ok(event) = listener.recv().await {
                let text = serde_json::to_string(&event).unwrap();
                let chunk = format!("{:x}\r\n{text}\r\n", text.len());
                if write.write_all(chunk.as_bytes()).await.is_err() {
                    return;
                }
            }
            return;
        }
        let (status, kind, reply) = answer(&engine, &events, method, path, query, &body);
        let head = format!(
            "HTTP/1.1 {status} X\r\nApi-Version: 1.51\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            reply.len()
        );
        write.write_all(head.as_bytes()).await.unwrap();
        write.write_all(&reply).await.unwrap();
    }
}

fn answer(
    engine: &Mutex<Engine>,
    events: &broadcast::Sender<EventMessage>,
    method: &str,
    path: &str,
    query: &str,
    body: &[u8],
) -> (u16, &'static str, Vec<u8>) {
    let mut engine = engine.lock().unwrap();
    let engine = &mut *engine;
    let plan = Plan::default();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let name = || {
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix("name="))
            .unwrap_or_default()
            .to_owned()
    };
    let run = |engine: &mut Engine, operation: Operation| {
        engine.step(
            &Step {
                operation,
                cause: Cause::Requested,
                after: Vec::new(),
                place: None,
            },
            &Plan::default(),
        );
    };
    match (method, parts.as_slice()) {
        ("GET", ["_ping"]) => (200, "text/plain", b"OK".to_vec()),
        ("GET", ["containers", "json"]) => {
            let list: Vec<_> = engine
                .state
                .containers
                .iter()
                .map(|container| summary(engine, container))
                .collect();
            reply(&list)
        }
        ("GET", ["networks"]) => {
            let list = engine.state.networks.iter().map(|(name, network)| {
                let mut labels = agent_api::Labels::new();
                for (key, value) in [
                    (compose::labels::PROJECT, &network.project),
                    (compose::labels::NETWORK, &network.key),
                    (compose::labels::CONFIG_HASH, &network.config_hash),
                    (compose::labels::ATTRIBUTES, &network.attributes),
                ] {
                    labels.extend(value.clone().map(|value| (key.to_owned(), value)));
                }
                Network {
                    name: name.clone(),
                    id: network.id.clone(),
                    labels,
                    ..Network::default()
                }
            });
            reply(&list.collect::<Vec<_>>())
        }
        ("GET", ["volumes"]) => {
            let list = engine.state.volumes.iter().map(|(name, volume)| {
                let mut labels = agent_api::Labels::new();
                for (key, value) in [
                    (compose::labels::PROJECT, &volume.project),
                    (compose::labels::VOLUME, &volume.key),
                    (compose::labels::CONFIG_HASH, &volume.config_hash),
                    (compose::labels::ATTRIBUTES, &volume.attributes),
                ] {
                    labels.extend(value.clone().map(|value| (key.to_owned(), value)));
                }
                Volume {
                    name: name.clone(),
                    labels: Some(labels),
                    ..Volume::default()
                }
            });
            reply(&VolumeListResponse {
                volumes: list.collect(),
                warnings: None,
            })
        }
        ("GET", ["images", "json"]) => {
            let list = engine
                .state
                .images
                .iter()
                .map(|(name, image)| ImageSummary {
                    id: image.id.clone(),
                    repo_tags: vec![format!("{name}:latest")],
                    ..ImageSummary::default()
                });
            reply(&list.collect::<Vec<_>>())
        }
        ("GET", ["images", name, "json"]) => {
            let image = &engine.state.images[*name];
            let volumes: serde_json::Map<_, _> = image
                .volumes
                .iter()
                .map(|path| (path.clone(), json!({})))
                .collect();
            reply(&json!({"Id": image.id, "Config": {"Volumes": volumes}}))
        }
        ("POST", ["networks", "create"]) => {
            let request: NetworkCreateRequest = serde_json::from_slice(body).unwrap();
            run(
                engine,
                Operation::CreateNetwork {
                    key: String::new(),
                    request: Box::new(request),
                },
            );
            reply(&json!({"Id": "x", "Warning": ""}))
        }
        ("DELETE", ["networks", id]) => {
            let (name, network) = engine
                .state
                .networks
                .iter()
                .find(|(_, network)| network.id == *id)
                .unwrap();
            let operation = Operation::RemoveNetwork {
                name: name.clone(),
                id: network.id.clone(),
            };
            run(engine, operation);
            (204, "text/plain", Vec::new())
        }
        ("POST", ["volumes", "create"]) => {
            let request: VolumeCreateRequest = serde_json::from_slice(body).unwrap();
            run(
                engine,
                Operation::CreateVolume {
                    key: String::new(),
                    request: Box::new(request),
                },
            );
            reply(&Volume::default())
        }
        ("DELETE", ["volumes", name]) => {
            run(
                engine,
                Operation::RemoveVolume {
                    name: (*name).to_owned(),
                },
            );
            (204, "text/plain", Vec::new())
        }
        ("POST", ["containers", "create"]) => {
            let request: ContainerCreateRequest = serde_json::from_slice(body).unwrap();
            let id = engine.create(&name(), request, &plan);
            reply(&json!({"Id": id, "Warnings": []}))
        }
        ("POST", ["containers", id, "start"]) => start(engine, events, id, &plan),
        ("POST", ["containers", id, "stop"]) => {
            let container = engine.container(id);
            container.state = ContainerStatus::Exited;
            container.exit_code = Some(0);
            tell(events, id, "die");
            (204, "text/plain", Vec::new())
        }
        ("POST", ["containers", id, "rename"]) => {
            assert!(
                engine
                    .state
                    .containers
                    .iter()
                    .all(|container| container.name != name())
            );
            engine.container(id).name = name();
            (204, "text/plain", Vec::new())
        }
        ("DELETE", ["containers", id]) => {
            engine
                .state
                .containers
                .retain(|container| container.id != *id);
            (204, "text/plain", Vec::new())
        }
        ("GET", ["containers", id, "json"]) => reply(&inspect(engine.container(id))),
        ("GET", ["containers", _, "logs"]) => {
            let text = b"cannot open the database\n";
            let mut frame = StreamKind::Stderr
                .header(u32::try_from(text.len()).unwrap())
                .to_vec();
            frame.extend_from_slice(text);
            (200, agent_api::MULTIPLEXED_STREAM, frame)
        }
        _ => panic!("{method} {path} is not modelled"),
    }
}

fn reply(value: &impl Serialize) -> (u16, &'static str, Vec<u8>) {
    (200, "application/json", serde_json::to_vec(value).unwrap())
}

fn tell(events: &broadcast::Sender<EventMessage>, id: &str, action: &str) {
    let event = EventMessage {
        kind: "container".into(),
        action: action.into(),
        actor: EventActor {
            id: id.into(),
            ..EventActor::default()
        },
        ..EventMessage::default()
    };
    // Nobody listens to plans without waits.
    events.send(event).ok();
}

fn start(
    engine: &mut Engine,
    events: &broadcast::Sender<EventMessage>,
    id: &str,
    plan: &Plan,
) -> (u16, &'static str, Vec<u8>) {
    let command = engine.requests[id].config.cmd.clone().unwrap_or_default();
    if command == ["refuse"] {
        return (
            500,
            "application/json",
            br#"{"message":"port is already allocated"}"#.to_vec(),
        );
    }
    engine.start(id, plan);
    tell(events, id, "start");
    let (id, events) = (id.to_owned(), events.clone());
    let container = engine.container(&id);
    match command
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["exit", code] => {
            container.state = ContainerStatus::Exited;
            container.exit_code = Some(code.parse().unwrap());
            container.health = HealthStatus::None;
            tell(&events, &id, "die");
        }
        ["never"] => {}
        _ if container.health == HealthStatus::Starting => {
            container.health = HealthStatus::Healthy;
            tell(&events, &id, "health_status: healthy");
        }
        _ => {}
    }
    (204, "text/plain", Vec::new())
}

fn summary(engine: &Engine, container: &ObservedContainer) -> ContainerSummary {
    let health = match container.health {
        HealthStatus::None => "",
        HealthStatus::Starting => " (health: starting)",
        HealthStatus::Healthy => " (healthy)",
        HealthStatus::Unhealthy => " (unhealthy)",
    };
    let status = match container.state {
        ContainerStatus::Created => "Created".to_owned(),
        ContainerStatus::Exited => {
            format!("Exited ({}) 2 seconds ago", container.exit_code.unwrap())
        }
        _ => format!("Up 3 seconds{health}"),
    };
    let request = &engine.requests[&container.id];
    let mut summary = ContainerSummary {
        id: container.id.clone(),
        names: vec![format!("/{}", container.name)],
        image: container.image.clone(),
        image_id: container.image_id.clone(),
        labels: request.config.labels.clone(),
        state: container.state,
        status,
        ..ContainerSummary::default()
    };
    for (name, id) in &container.networks {
        let endpoint = EndpointSettings {
            network_id: id.clone(),
            ..EndpointSettings::default()
        };
        summary
            .network_settings
            .networks
            .insert(name.clone(), endpoint);
    }
    for mount in &container.volumes {
        summary.mounts.push(MountPoint {
            kind: MountType::Volume,
            name: mount.volume.clone(),
            destination: mount.target.clone(),
            rw: mount.writable,
            ..MountPoint::default()
        });
    }
    summary
}

fn inspect(container: &ObservedContainer) -> ContainerInspect {
    let health = Health {
        status: container.health,
        ..Health::default()
    };
    let state = ContainerState {
        status: container.state,
        exit_code: container.exit_code.unwrap_or(0),
        health: (container.health != HealthStatus::None).then_some(health),
        ..ContainerState::default()
    };
    ContainerInspect {
        id: container.id.clone(),
        state,
        ..ContainerInspect::default()
    }
}

fn stack() -> serde_json::Value {
    json!({
        "db": {"healthcheck": {"test": ["CMD", "true"]}, "volumes": [{"type": "volume", "source": "data", "target": "/data"}]},
        "job": {"command": ["exit", "0"], "depends_on": {"db": {"condition": "service_healthy"}}},
        "web": {"depends_on": {"job": {"condition": "service_completed_successfully"}}},
        "side": {"network_mode": "service:web"},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_twice_change_and_down_over_the_wire() {
    let first = project(stack());
    let daemon = Daemon::start("up", &first);
    let plan = daemon.plan_up(&first, &UpOptions::default()).await;
    let (result, log) = daemon.run(&plan, &ExecuteOptions::default()).await;
    result.unwrap();
    let at = |line: &str| {
        log.iter()
            .position(|known| known == line)
            .unwrap_or_else(|| panic!("{line} in {log:#?}"))
    };
    assert!(at("done wait until db is healthy") < at("begin start container demo-job-1"));
    assert!(at("done wait until job has completed") < at("begin start container demo-web-1"));

    let again = daemon.plan_up(&first, &UpOptions::default()).await;
    assert!(again.is_empty(), "{again}");

    let mut services = stack();
    services["web"]["environment"] = json!({"A": "1"});
    let second = project(services);
    let plan = daemon.plan_up(&second, &UpOptions::default()).await;
    daemon
        .run(
            &plan,
            &ExecuteOptions {
                parallel: 1,
                ..ExecuteOptions::default()
            },
        )
        .await
        .0
        .unwrap();
    let again = daemon.plan_up(&second, &UpOptions::default()).await;
    assert!(again.is_empty(), "{again}");
    let names: Vec<String> = daemon
        .engine
        .lock()
        .unwrap()
        .state
        .containers
        .iter()
        .map(|container| container.name.clone())
        .collect();
    assert_eq!(names.len(), 4);
    assert!(
        names.iter().all(|name| name.starts_with("demo-")),
        "{names:?}"
    );

    let observed = observe(&daemon.client, "demo", None).await.unwrap();
    let plan = plan::down(
        "demo",
        None,
        &observed,
        &DownOptions {
            volumes: true,
            ..DownOptions::default()
        },
    )
    .unwrap();
    daemon
        .run(&plan, &ExecuteOptions::default())
        .await
        .0
        .unwrap();
    let state = daemon.engine.lock().unwrap().state.clone();
    assert!(state.containers.is_empty() && state.networks.is_empty() && state.volumes.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_name_the_container_and_its_last_words_and_spare_the_others() {
    let project = project(json!({
        "db": {"command": ["exit", "3"], "healthcheck": {"test": ["CMD", "true"]}},
        "web": {"depends_on": {"db": {"condition": "service_healthy"}}},
        "lenient": {"depends_on": {"db": {"condition": "service_healthy", "required": false}}},
        "port": {"command": ["refuse"]},
        "free": {},
    }));
    let daemon = Daemon::start("failures", &project);
    let plan = daemon.plan_up(&project, &UpOptions::default()).await;
    let (result, log) = daemon.run(&plan, &ExecuteOptions::default()).await;
    let error = result.unwrap_err();
    let lines = [
        "service db did not become healthy: container demo-db-1 ended with exit code 3",
        "    cannot open the database",
        "cannot start container demo-port-1: port is already allocated",
    ];
    assert_eq!(error.to_string(), lines.join("\n"));
    for line in [
        "skipped start container demo-web-1",
        "done start container demo-lenient-1",
        "done start container demo-free-1",
        "warned wait until db is healthy (optional)",
    ] {
        assert!(log.iter().any(|known| known == line), "{line} in {log:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_ends_with_its_timeout() {
    let project = project(json!({
        "db": {"command": ["never"], "healthcheck": {"test": ["CMD", "true"]}},
        "web": {"depends_on": {"db": {"condition": "service_healthy"}}},
    }));
    let daemon = Daemon::start("timeout", &project);
    let plan = daemon.plan_up(&project, &UpOptions::default()).await;
    let options = ExecuteOptions {
        wait_timeout: Some(Duration::from_millis(50)),
        ..ExecuteOptions::default()
    };
    let error = daemon.run(&plan, &options).await.0.unwrap_err();
    assert!(error.to_string().contains("it took longer than"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_ends_waits_and_begins_nothing_more() {
    let project = project(json!({
        "db": {"command": ["never"], "healthcheck": {"test": ["CMD", "true"]}},
        "web": {"depends_on": {"db": {"condition": "service_healthy"}}},
    }));
    let daemon = Daemon::start("cancel", &project);
    let plan = daemon.plan_up(&project, &UpOptions::default()).await;
    let (cancel, cancelled) = watch::channel(false);
    let error = execute(
        &daemon.client,
        &plan,
        &ExecuteOptions::default(),
        cancelled,
        &mut |event| {
            if matches!(
                (&event.step.operation, &event.phase),
                (Operation::Wait { .. }, Phase::Started)
            ) {
                cancel.send(true).unwrap();
            }
        },
    )
    .await
    .unwrap_err();
    assert!(error.cancelled && error.failures.is_empty(), "{error}");
    let requests = daemon.requests.lock().unwrap();
    assert_eq!(
        requests
            .iter()
            .filter(|request| request.ends_with("/start"))
            .count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_find_projects_and_containers() {
    let project = project(json!({"web": {"scale": 2}, "job": {"command": ["exit", "0"]}}));
    let daemon = Daemon::start("readers", &project);
    let plan = daemon.plan_up(&project, &UpOptions::default()).await;
    daemon
        .run(&plan, &ExecuteOptions::default())
        .await
        .0
        .unwrap();

    let projects = compose::read::ls::projects(&daemon.client, true)
        .await
        .unwrap();
    assert_eq!(projects.len(), 1);
    assert_eq!(
        (projects[0].name.as_str(), projects[0].status().as_str()),
        ("demo", "exited(1), running(2)")
    );
    assert!(projects[0].is_running());
    assert!(projects[0].config_files.contains("/demo/compose.yaml"));

    let rows = compose::read::ps::containers(&daemon.client, "demo", true)
        .await
        .unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["demo-job-1", "demo-web-1", "demo-web-2"]);

    let select = |service: &'static str, index| {
        compose::read::ps::select(&daemon.client, "demo", service, index)
    };
    assert_eq!(select("web", None).await.unwrap().name, "demo-web-1");
    assert_eq!(select("web", Some(2)).await.unwrap().name, "demo-web-2");
    let missing = select("web", Some(7)).await.unwrap_err().to_string();
    assert_eq!(
        missing,
        "service web has no running container with index 7: it has 1, 2"
    );
    assert!(
        select("job", None)
            .await
            .unwrap_err()
            .to_string()
            .contains("is not running")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_writes_nothing() {
    let project = project(stack());
    let daemon = Daemon::start("dry", &project);
    let plan = daemon.plan_up(&project, &UpOptions::default()).await;
    assert!(!plan.to_string().is_empty());
    assert!(daemon.requests.lock().unwrap().is_empty());
}
