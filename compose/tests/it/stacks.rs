//! Plans of stacks as text. A case is: what was deployed before, and what the file says now; the expected plan is in
//! `tests/stack/plans/<case>.txt`. `UPDATE=1` writes them anew: read the difference before committing it.
//!
//! Every plan is also carried out by a model of the cluster, which gives specs back with their defaults written out and
//! networks by id as managers do, and planning again must then find nothing to do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use agent_api::Network;
use agent_api::swarm::{ObjectVersion, RestartPolicy, SecretSpec, Service, ServiceSpec};
use compose::plan::PlanError;
use compose::stack::{
    self, DeployOptions, Leftovers, ObservedPayload, ObservedStack, ResolveImage, ResolvedImage,
    StackPlan, StackStep,
};
use compose_model::{LoadOptions, Loaded, Stages};

pub(crate) fn directory(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/stack")
        .join(name)
}

fn options(stack: &str) -> LoadOptions {
    LoadOptions {
        files: Vec::new(),
        stdin: None,
        current_dir: directory(""),
        project_directory: None,
        project_name: Some(stack.to_owned()),
        profiles: Vec::new(),
        env_files: Vec::new(),
        environment: BTreeMap::new(),
        services: Vec::new(),
        no_dependencies: false,
        all_resources: false,
        stages: Stages::default(),
    }
}

/// The project in `tests/stack/<name>/compose.yaml`.
pub(crate) fn load(name: &str, stack: &str) -> Loaded {
    let options = LoadOptions {
        files: vec![directory(name).join("compose.yaml")],
        current_dir: directory(name),
        ..options(stack)
    };
    compose_model::load(&options).unwrap()
}

/// A project from its text.
fn project(text: &str) -> Loaded {
    let options = LoadOptions {
        files: vec!["-".into()],
        stdin: Some(text.to_owned()),
        environment: BTreeMap::from([("TOKEN".to_owned(), "hush".to_owned())]),
        ..options("app")
    };
    compose_model::load(&options).unwrap_or_else(|problems| panic!("{problems}"))
}

/// A cluster as far as plans see it.
#[derive(Default)]
struct Cluster {
    state: ObservedStack,
    made: u64,
}

impl Cluster {
    fn plan(&self, loaded: &Loaded, options: DeployOptions) -> Result<StackPlan, PlanError> {
        let contents = stack::payload::read(&loaded.project);
        let desired = stack::desired(&loaded.project, &loaded.sources, &contents)?;
        stack::plan(&desired, &self.state, options)
    }

    fn id(&mut self, kind: &str) -> String {
        self.made += 1;
        format!("{kind}{}", self.made)
    }

    fn run(&mut self, plan: &StackPlan) {
        for step in &plan.steps {
            match step.clone() {
                StackStep::CreateNetwork { request } => {
                    let id = self.id("net");
                    let network = Network {
                        id,
                        name: request.name.clone(),
                        scope: "swarm".into(),
                        driver: request.driver.clone(),
                        internal: request.internal,
                        attachable: request.attachable,
                        ipam: request.ipam.clone().unwrap_or_default(),
                        options: request.options.clone(),
                        labels: request.labels.clone(),
                        ..Network::default()
                    };
                    self.state.networks.insert(request.name, network);
                }
                StackStep::CreateSecret { spec } => {
                    let payload = self.payload(&spec.annotations.labels);
                    self.state.secrets.insert(spec.annotations.name, payload);
                }
                StackStep::CreateConfig { spec } => {
                    let payload = self.payload(&spec.annotations.labels);
                    self.state.configs.insert(spec.annotations.name, payload);
                }
                StackStep::UpdateSecret { .. } | StackStep::UpdateConfig { .. } => {}
                StackStep::CreateService { spec } => {
                    let id = self.id("svc");
                    let service = Service {
                        id,
                        version: ObjectVersion { index: 1 },
                        spec: self.kept(&spec),
                        ..Service::default()
                    };
                    let name = spec.annotations.name.clone();
                    assert!(self.state.services.insert(name, service).is_none());
                }
                StackStep::UpdateService { spec, version, .. } => {
                    let kept = self.kept(&spec);
                    let service = self.state.services.get_mut(&spec.annotations.name).unwrap();
                    assert_eq!(service.version, version);
                    service.version.index += 1;
                    service.previous_spec = Some(std::mem::replace(&mut service.spec, kept));
                }
                StackStep::RemoveService { name, .. } => {
                    self.state.services.remove(&name).unwrap();
                }
                StackStep::RemoveNetwork { name, .. } => {
                    self.state.networks.remove(&name).unwrap();
                }
                StackStep::RemoveSecret { name, .. } => {
                    self.refuse_used(&name);
                    self.state.secrets.remove(&name).unwrap();
                }
                StackStep::RemoveConfig { name, .. } => {
                    self.refuse_used(&name);
                    self.state.configs.remove(&name).unwrap();
                }
            }
        }
    }

    fn payload(&mut self, labels: &agent_api::Labels) -> ObservedPayload {
        ObservedPayload {
            id: self.id("payload"),
            version: ObjectVersion { index: 1 },
            stack: labels.get(stack::labels::NAMESPACE).cloned(),
            key: labels.get(stack::labels::KEY).cloned(),
            other_users: BTreeSet::new(),
        }
    }

    /// Nothing may lose what a rollback would need.
    fn refuse_used(&self, name: &str) {
        for service in self.state.services.values() {
            for spec in std::iter::once(&service.spec).chain(&service.previous_spec) {
                let container = spec.task_template.container_spec.as_ref().unwrap();
                let secrets = container.secrets.iter().map(|secret| &secret.secret_name);
                let configs = container.configs.iter().map(|config| &config.config_name);
                assert!(!secrets.chain(configs).any(|used| used == name), "{name}");
            }
        }
    }

    /// A spec as managers give it back.
    fn kept(&self, spec: &ServiceSpec) -> ServiceSpec {
        let mut spec = spec.clone();
        for attachment in &mut spec.task_template.networks {
            if let Some(network) = self.state.networks.get(&attachment.target) {
                attachment.target.clone_from(&network.id);
            }
        }
        spec.task_template.runtime = "container".into();
        let policy: &mut RestartPolicy = spec.task_template.restart_policy.get_or_insert_default();
        policy.delay.get_or_insert(5_000_000_000);
        policy.max_attempts.get_or_insert(0);
        if policy.condition.is_empty() {
            policy.condition = "any".into();
        }
        let container = spec.task_template.container_spec.as_mut().unwrap();
        container.isolation = "default".into();
        container.stop_grace_period.get_or_insert(10_000_000_000);
        container.dns_config.get_or_insert_default();
        for secret in &mut container.secrets {
            secret.secret_id = self.state.secrets[&secret.secret_name].id.clone();
        }
        for config in &mut container.configs {
            config.config_id = self.state.configs[&config.config_name].id.clone();
        }
        let endpoint = spec.endpoint_spec.get_or_insert_default();
        if endpoint.mode.is_empty() {
            endpoint.mode = "vip".into();
        }
        spec
    }

    fn with_image(mut self, name: &str, digest: &str) -> Self {
        let resolved = ResolvedImage::Pinned {
            reference: format!("{name}@sha256:{digest}"),
            platforms: vec![agent_api::swarm::Platform {
                architecture: "amd64".into(),
                os: "linux".into(),
            }],
        };
        self.state.images.insert(name.to_owned(), resolved);
        self
    }

    fn with_network(mut self, name: &str, scope: &str) -> Self {
        let network = Network {
            id: format!("id-of-{name}"),
            name: name.to_owned(),
            scope: scope.to_owned(),
            driver: "overlay".into(),
            ..Network::default()
        };
        self.state.networks.insert(name.to_owned(), network);
        self
    }
}

fn golden(case: &str, text: &str) {
    let here = directory("").display().to_string();
    let text = text.replace(&here, "(here)/");
    let path = directory("plans").join(format!("{}.txt", case.replace(' ', "-")));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{case} ({})", path.display());
}

/// Checks the plan, carries it out, and checks that nothing is left to do.
fn check(case: &str, cluster: &mut Cluster, text: &str, options: DeployOptions) {
    let loaded = project(text);
    let plan = match cluster.plan(&loaded, options) {
        Ok(plan) => plan,
        Err(error) => return golden(case, &format!("{error}\n")),
    };
    let warnings: String = plan
        .warnings
        .iter()
        .map(|warning| format!("warning: {warning}\n"))
        .collect();
    golden(case, &format!("{warnings}{plan}"));
    cluster.run(&plan);
    let again = cluster.plan(&loaded, options).unwrap();
    let left: Vec<_> = again
        .steps
        .iter()
        .filter(|step| {
            !matches!(
                step,
                StackStep::UpdateSecret { .. } | StackStep::UpdateConfig { .. }
            )
        })
        .map(ToString::to_string)
        .collect();
    assert!(left.is_empty(), "{case}: still to do: {left:?}");
}

fn keep() -> DeployOptions {
    DeployOptions::default()
}

fn prune() -> DeployOptions {
    DeployOptions {
        leftovers: Leftovers::Prune,
        ..DeployOptions::default()
    }
}

const SHOP: &str = "
services:
  web:
    image: web:1
    ports: ['8080:80']
    environment: {LEVEL: info, PASSWORD: hush}
    depends_on:
      db: {condition: service_healthy}
      migrate: {condition: service_completed_successfully}
    secrets: [token]
    configs: [settings]
    deploy: {replicas: 2}
  db:
    image: postgres
    volumes: [data:/var/lib/postgresql/data]
    networks: [default, private]
  migrate:
    image: web:1
    command: [migrate]
networks:
  private: {internal: true}
volumes:
  data:
secrets:
  token: {environment: TOKEN}
configs:
  settings: {content: 'mode=fast'}
";

fn deployed() -> Cluster {
    let mut cluster = Cluster::default();
    let plan = cluster.plan(&project(SHOP), keep()).unwrap();
    cluster.run(&plan);
    cluster
}

#[test]
fn a_first_deployment_makes_everything_in_order() {
    let mut cluster = Cluster::default().with_image("web:1", "aa");
    check("first", &mut cluster, SHOP, keep());
    let spec = &cluster.state.services["app_web"].spec;
    assert_eq!(
        spec.annotations.labels[agent_api::swarm::gate::LABEL],
        "app_db:service_healthy:true,app_migrate:service_completed_successfully:true"
    );
    let migrate = &cluster.state.services["app_migrate"].spec.task_template;
    let policy = migrate.restart_policy.as_ref().unwrap();
    assert_eq!(policy.condition, "on-failure", "it is run once");
}

#[test]
fn deploying_the_same_again_does_nothing() {
    check("again", &mut deployed(), SHOP, keep());
}

#[test]
fn changes_are_told_field_by_field() {
    let text = SHOP
        .replace("replicas: 2", "replicas: 3")
        .replace("8080:80", "8081:80")
        .replace("LEVEL: info", "LEVEL: debug")
        .replace("PASSWORD: hush", "PASSWORD: quiet")
        .replace("image: postgres", "image: postgres:17");
    check("changed", &mut deployed(), &text, keep());
}

#[test]
fn an_edited_config_is_rolled_out_and_the_old_one_goes_with_the_last_reference() {
    let mut cluster = deployed();
    let edited = |mode: &str| SHOP.replace("mode=fast", mode);
    check("config edited", &mut cluster, &edited("mode=slow"), keep());
    assert_eq!(
        cluster.state.configs.len(),
        2,
        "a rollback needs the old one"
    );
    check(
        "config edited again",
        &mut cluster,
        &edited("mode=off"),
        keep(),
    );
    assert_eq!(cluster.state.configs.len(), 2);
}

#[test]
fn what_left_the_file_stays_until_it_is_pruned() {
    let text = "services: {web: {image: 'web:1'}}";
    check("left over", &mut deployed(), text, keep());
    let mut cluster = deployed();
    check("pruned", &mut cluster, text, prune());
    assert_eq!(cluster.state.services.len(), 1);
    assert_eq!(cluster.state.networks.len(), 1);
}

#[test]
fn a_digest_that_is_known_is_kept_when_nobody_can_be_asked() {
    let text = "services: {web: {image: web}}";
    let mut cluster = Cluster::default().with_image("web:latest", "aa");
    check("pinned", &mut cluster, text, keep());
    let unknown = || ResolvedImage::Unknown("the registry is away".into());
    cluster.state.images.insert("web:latest".into(), unknown());
    check("pinned and registry away", &mut cluster, text, keep());
    let mut fresh = Cluster::default();
    fresh.state.images.insert("web:latest".into(), unknown());
    check("never pinned", &mut fresh, text, keep());
    let mut moved = cluster.with_image("web:latest", "bb");
    check("moved tag", &mut moved, text, keep());
    let loaded = project(text);
    let contents = stack::payload::read(&loaded.project);
    let desired = stack::desired(&loaded.project, &loaded.sources, &contents).unwrap();
    let asked = |resolve| stack::images_to_resolve(&desired, &moved.state.services, resolve).len();
    assert_eq!(asked(ResolveImage::Always), 1);
    assert_eq!(asked(ResolveImage::Changed), 0);
    assert_eq!(asked(ResolveImage::Never), 0);
}

#[test]
fn what_is_external_must_be_there() {
    let text = "
services:
  web:
    image: web:1
    networks: [outside, local]
    secrets: [theirs]
networks:
  outside: {external: true}
  local: {external: true}
secrets:
  theirs: {external: true}
";
    check(
        "external missing",
        &mut Cluster::default().with_network("local", "local"),
        text,
        keep(),
    );
    let mut cluster = Cluster::default()
        .with_network("local", "swarm")
        .with_network("outside", "swarm");
    cluster
        .state
        .secrets
        .insert("theirs".into(), ObservedPayload::default());
    check("external", &mut cluster, text, keep());
}

#[test]
fn what_belongs_to_others_is_not_taken() {
    let mut cluster = Cluster::default().with_network("app_default", "swarm");
    cluster
        .state
        .secrets
        .insert("mine".into(), ObservedPayload::default());
    let text = "
services: {web: {image: 'web:1', secrets: [token]}}
secrets: {token: {environment: TOKEN, name: mine}}
";
    check("of others", &mut cluster, text, keep());
}

#[test]
fn networks_are_kept_when_their_definition_changes() {
    let text = SHOP.replace("{internal: true}", "{attachable: true}");
    check("network changed", &mut deployed(), &text, keep());
}

#[test]
fn what_a_stack_cannot_carry_is_said() {
    let text = "
services:
  bad:
    build: .
    privileged: true
    devices: [/dev/null]
    network_mode: 'service:good'
    pid: host
    security_opt: ['label=disable', 'no-new-privileges:true']
    ports: ['127.0.0.1:80:80', '8000-8010:81']
    secrets: [missing]
    post_start: [{command: [x]}]
    deploy: {mode: global, replicas: 2}
  good:
    image: good
secrets:
  missing: {file: ./not-there.txt}
";
    check("refused", &mut Cluster::default(), text, keep());
    let text = "
services:
  web:
    image: web:1
    build: .
    container_name: web
    mac_address: 02:42:ac:11:00:02
    cpu_shares: 5
    pull_policy: always
    links: [db]
    networks: {default: {ipv4_address: 10.0.0.9}}
    tmpfs: ['/run:size=64m,mode=755,noexec']
    shm_size: 128m
    group_add: [audio]
    dns_opt: [ndots:2]
    security_opt: [no-new-privileges, seccomp=unconfined]
    platform: linux/arm64/v8
    mem_limit: 100m
    restart: 'no'
  db: {image: db}
";
    let mut cluster = Cluster::default();
    check("ignored", &mut cluster, text, keep());
    let template = &cluster.state.services["app_web"].spec.task_template;
    let carried = serde_json::to_string_pretty(template).unwrap();
    golden("carried", &(carried + "\n"));
}

#[test]
fn secrets_are_in_no_text() {
    let plan = Cluster::default().plan(&project(SHOP), keep()).unwrap();
    assert!(!plan.to_string().contains("hush"), "{plan}");
    let secret = plan.steps.iter().find_map(|step| match step {
        StackStep::CreateSecret { spec } => Some(spec.clone()),
        _ => None,
    });
    let secret: SecretSpec = secret.unwrap();
    assert_eq!(secret.data.as_deref(), Some("aHVzaA=="));
}
