//! Plans as text. A case is: what was brought up before, what happened since, and what is asked for now; the expected
//! plan is in `tests/plans/<case>.txt`. `UPDATE=1` writes them anew: read the difference before committing it.
//!
//! Every plan is also carried out by the model of the engine, and planning again must then give an empty plan.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use compose::plan::options::{ChangedVolumes, Dependencies, Orphans, Recreate, Start, UpOptions};
use compose::plan::{self, Plan, PlanError};
use compose_model::{Project, Sources};
use serde_json::{Value, json};

use crate::engine::Engine;

/// A project from its canonical form; networks and volumes that services name are added.
pub(crate) fn project(services: Value) -> Project {
    project_with(json!({"services": services}))
}

pub(crate) fn project_with(mut value: Value) -> Project {
    let object = value.as_object_mut().unwrap();
    object.insert("name".into(), "demo".into());
    let mut networks = object.remove("networks").unwrap_or(json!({}));
    let mut volumes = object.remove("volumes").unwrap_or(json!({}));
    for service in object["services"].as_object_mut().unwrap().values_mut() {
        let service = service.as_object_mut().unwrap();
        if !service.contains_key("image") && !service.contains_key("build") {
            service.insert("image".into(), "busybox".into());
        }
        if !service.contains_key("networks") && !service.contains_key("network_mode") {
            service.insert("networks".into(), json!({"default": null}));
        }
        for key in service
            .get("networks")
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(|map| map.keys())
        {
            networks
                .as_object_mut()
                .unwrap()
                .entry(key)
                .or_insert(json!({"name": format!("demo_{key}")}));
        }
        for mount in service
            .get("volumes")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            if let (Some("volume"), Some(key)) = (mount["type"].as_str(), mount["source"].as_str())
            {
                volumes
                    .as_object_mut()
                    .unwrap()
                    .entry(key)
                    .or_insert(json!({"name": format!("demo_{key}")}));
            }
        }
    }
    object.insert("networks".into(), networks);
    object.insert("volumes".into(), volumes);
    let mut project: Project = serde_json::from_value(value).unwrap();
    project.working_dir = "/demo".into();
    project.compose_files = vec!["/demo/compose.yaml".into()];
    project
}

fn reconcile(project: &Project, engine: &Engine, options: &UpOptions) -> Result<Plan, PlanError> {
    plan::reconcile(project, &Sources::default(), &engine.state, options)
}

/// An engine on which the project is up.
pub(crate) fn up(project: &Project) -> Engine {
    let mut engine = Engine::with_images(project);
    let plan = reconcile(project, &engine, &UpOptions::default()).unwrap();
    engine.run(&plan);
    engine.settle();
    engine
}

pub(crate) fn golden(case: &str, result: &Result<Plan, PlanError>) {
    let mut text = String::new();
    match result {
        Ok(plan) => {
            for warning in &plan.warnings {
                writeln!(text, "warning: {warning}").unwrap();
            }
            if plan.is_empty() {
                text.push_str("nothing to do\n");
            }
            write!(text, "{plan}").unwrap();
            for (index, step) in plan.steps.iter().enumerate() {
                assert!(
                    step.after.iter().all(|edge| edge.step < index),
                    "{case}: edges point backwards"
                );
            }
        }
        Err(error) => writeln!(text, "error: {error}").unwrap(),
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/plans")
        .join(format!("{}.txt", case.replace(' ', "-")));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        text,
        expected,
        "{case}: the plan is not the expected one ({})",
        path.display()
    );
}

/// Checks the plan of an `up`, carries it out, and checks that nothing is left to do.
fn check(case: &str, engine: &mut Engine, after: &Project, options: &UpOptions) {
    engine.add_images(after);
    let result = reconcile(after, engine, options);
    golden(case, &result);
    let Ok(plan) = result else { return };
    engine.run(&plan);
    engine.settle();
    let again = UpOptions {
        recreate: if options.recreate == Recreate::Always {
            Recreate::Diverged
        } else {
            options.recreate
        },
        recreate_dependencies: Recreate::Diverged,
        ..options.clone()
    };
    let again = reconcile(after, engine, &again).unwrap();
    assert!(
        again.is_empty(),
        "{case}: after carrying it out there is still to do:\n{again}"
    );
}

fn check_up(case: &str, before: &Project, after: &Project) {
    check(case, &mut up(before), after, &UpOptions::default());
}

fn only(services: &[&str]) -> UpOptions {
    UpOptions {
        services: services.iter().map(|name| (*name).to_owned()).collect(),
        ..UpOptions::default()
    }
}

/// Three services: web after a healthy app, app after a healthy db with a volume.
pub(crate) fn shop() -> Value {
    json!({
        "db": {
            "image": "postgres", "healthcheck": {"test": ["CMD", "true"]},
            "volumes": [{"type": "volume", "source": "data", "target": "/data"}],
        },
        "app": {
            "image": "app", "healthcheck": {"test": ["CMD", "true"]},
            "depends_on": {"db": {"condition": "service_healthy"}},
        },
        "web": {
            "image": "nginx", "depends_on": {"app": {"condition": "service_healthy"}},
            "ports": [{"target": 80, "published": "8080"}],
        },
    })
}

/// `shop` with one value changed, at a JSON pointer.
fn shop_with(pointer: &str, value: Value) -> Project {
    let mut services = shop();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    services
        .pointer_mut(parent)
        .unwrap()
        .as_object_mut()
        .unwrap()
        .insert(key.to_owned(), value);
    project(services)
}

#[test]
fn first_up() {
    let shop = project(shop());
    check(
        "first up",
        &mut Engine::with_images(&shop),
        &shop,
        &UpOptions::default(),
    );
}

#[test]
fn nothing_changed() {
    let shop = project(shop());
    check_up("nothing changed", &shop, &shop);
}

#[test]
fn a_changed_attribute_replaces_one_container() {
    let before = project(shop());
    check_up(
        "environment changed",
        &before,
        &shop_with("/app/environment", json!({"DEBUG": "1"})),
    );
    check_up(
        "image reference changed",
        &before,
        &shop_with("/web/image", json!("nginx:2")),
    );
    check_up(
        "command changed",
        &before,
        &shop_with("/db/command", json!(["postgres", "-d"])),
    );
    check_up(
        "published port changed",
        &before,
        &shop_with("/web/ports", json!([{"target": 80, "published": "9090"}])),
    );
    check_up(
        "two attributes changed",
        &shop_with("/web/labels", json!({"a": "b"})),
        &shop_with("/web/tty", json!(true)),
    );
    check_up(
        "a name that does not matter",
        &before,
        &shop_with("/web/profiles", json!(["x"])),
    );
}

#[test]
fn an_image_that_was_built_anew_replaces() {
    let shop = project(shop());
    let mut engine = up(&shop);
    engine.state.images.get_mut("app").unwrap().id = "sha256:new".into();
    check(
        "image is another one",
        &mut engine,
        &shop,
        &UpOptions::default(),
    );
}

#[test]
fn scale() {
    let one = project(json!({"worker": {}}));
    let three = project(json!({"worker": {"scale": 3}}));
    check_up("scale up", &one, &three);
    check_up("scale down", &three, &one);
    check_up(
        "scale to none",
        &three,
        &project(json!({"worker": {"scale": 0}})),
    );
    let by_flag = UpOptions {
        scale: BTreeMap::from([("worker".to_owned(), 2)]),
        ..UpOptions::default()
    };
    check("scale by flag", &mut up(&one), &one, &by_flag);
    let mut engine = up(&three);
    engine
        .state
        .containers
        .retain(|container| container.number != 2);
    check(
        "a gap is filled",
        &mut engine,
        &three,
        &UpOptions::default(),
    );
    let named = project(json!({"worker": {"container_name": "the-worker", "scale": 2}}));
    check(
        "fixed name and scale",
        &mut Engine::with_images(&named),
        &named,
        &UpOptions::default(),
    );
}

#[test]
fn stopped_containers() {
    let shop = project(shop());
    let mut engine = up(&shop);
    engine.exit("demo-app-1", 1);
    check(
        "crashed container",
        &mut engine,
        &shop,
        &UpOptions::default(),
    );
    let mut engine = up(&shop);
    for name in ["demo-db-1", "demo-app-1", "demo-web-1"] {
        engine.exit(name, 0);
    }
    check("all stopped", &mut engine, &shop, &UpOptions::default());
    let mut engine = up(&shop);
    engine
        .state
        .containers
        .retain(|container| container.service != "db");
    check("dependency gone", &mut engine, &shop, &UpOptions::default());
}

#[test]
fn networks() {
    let with = |network: Value| {
        project_with(json!({
            "services": {"a": {"networks": {"front": null}}, "b": {}},
            "networks": {"front": network},
        }))
    };
    let plain = with(json!({"name": "demo_front"}));
    check_up(
        "network changed",
        &plain,
        &with(json!({"name": "demo_front", "internal": true})),
    );
    check_up("network renamed", &plain, &with(json!({"name": "other"})));
    check_up(
        "network added to a service",
        &project(json!({"a": {}})),
        &project(json!({"a": {"networks": {"default": null, "extra": null}}})),
    );
    check_up(
        "aliases changed",
        &plain,
        &project_with(json!({
            "services": {"a": {"networks": {"front": {"aliases": ["alpha"]}}}, "b": {}},
            "networks": {"front": {"name": "demo_front"}},
        })),
    );
    let mut engine = up(&plain);
    engine.state.containers[0].networks.clear();
    check(
        "disconnected by hand",
        &mut engine,
        &plain,
        &UpOptions::default(),
    );
    let mut engine = up(&plain);
    engine.state.networks.get_mut("demo_front").unwrap().id = "other".into();
    check(
        "network was made anew by hand",
        &mut engine,
        &plain,
        &UpOptions::default(),
    );
    let external = with(json!({"name": "shared", "external": true}));
    check(
        "external network missing",
        &mut Engine::with_images(&external),
        &external,
        &UpOptions::default(),
    );
    let mut engine = Engine::with_images(&plain);
    engine.state.networks.insert(
        "demo_front".into(),
        compose::state::ObservedNetwork {
            id: "x".into(),
            ..Default::default()
        },
    );
    check(
        "network of someone else",
        &mut engine,
        &plain,
        &UpOptions::default(),
    );
}

#[test]
fn a_changed_network_takes_everything_on_it_along() {
    let with = |internal: bool| {
        project_with(json!({
            "services": {
                "db": {}, "side": {"network_mode": "service:db"},
                "app": {"depends_on": {"db": {"condition": "service_started", "restart": true}}},
            },
            "networks": {"default": {"name": "demo_default", "internal": internal}},
        }))
    };
    check_up(
        "network changed under a shared namespace",
        &with(false),
        &with(true),
    );
    check(
        "network changed while one service is asked for",
        &mut up(&with(false)),
        &with(true),
        &only(&["db"]),
    );
}

#[test]
fn volumes() {
    let with = |name: &str, volume: Value| {
        project_with(json!({
            "services": {
                "db": {"volumes": [{"type": "volume", "source": "data", "target": "/data"}]},
                "backup": {"volumes": [{"type": "volume", "source": "data", "target": "/in", "read_only": true}]},
            },
            "volumes": {"data": {"name": name, "driver_opts": volume}},
        }))
    };
    let plain = with("demo_data", json!({}));
    check_up("volume renamed", &plain, &with("other_data", json!({})));
    check_up(
        "volume changed and kept",
        &plain,
        &with("demo_data", json!({"type": "tmpfs"})),
    );
    let recreate = UpOptions {
        changed_volumes: ChangedVolumes::Recreate,
        ..UpOptions::default()
    };
    check(
        "volume changed and replaced",
        &mut up(&plain),
        &with("demo_data", json!({"type": "tmpfs"})),
        &recreate,
    );
    let external = project_with(json!({
        "services": {"db": {"volumes": [{"type": "volume", "source": "data", "target": "/data"}]}},
        "volumes": {"data": {"name": "shared", "external": true}},
    }));
    check(
        "external volume missing",
        &mut Engine::with_images(&external),
        &external,
        &UpOptions::default(),
    );
    let mut engine = up(&plain);
    engine
        .state
        .containers
        .iter_mut()
        .for_each(|container| container.volumes.clear());
    check(
        "volume not mounted",
        &mut engine,
        &plain,
        &UpOptions::default(),
    );
}

#[test]
fn anonymous_volumes_pass_to_the_new_container() {
    let with = |environment: Value| {
        project(
            json!({"db": {"environment": environment, "volumes": [{"type": "volume", "target": "/cache"}]}}),
        )
    };
    let volumes = |engine: &Engine| engine.state.containers[0].volumes.clone();
    let mut engine = up(&with(json!({})));
    let before = volumes(&engine);
    check(
        "anonymous volumes",
        &mut engine,
        &with(json!({"A": "1"})),
        &UpOptions::default(),
    );
    let sorted = |mut mounts: Vec<compose::state::ObservedMount>| {
        mounts.sort_by(|a, b| a.target.cmp(&b.target));
        mounts
    };
    assert_eq!(sorted(volumes(&engine)), sorted(before.clone()));
    assert_eq!(before.len(), 2);
    let renew = UpOptions {
        renew_anonymous_volumes: true,
        ..UpOptions::default()
    };
    check(
        "anonymous volumes renewed",
        &mut engine,
        &with(json!({"A": "2"})),
        &renew,
    );
    assert!(
        volumes(&engine)
            .iter()
            .all(|mount| before.iter().all(|old| old.volume != mount.volume))
    );
}

#[test]
fn orphans() {
    let before = project(json!({"web": {}, "old": {}}));
    let after = project(json!({"web": {}}));
    check_up("orphan", &before, &after);
    let with = |orphans| UpOptions {
        orphans,
        ..UpOptions::default()
    };
    check(
        "orphan removed",
        &mut up(&before),
        &after,
        &with(Orphans::Remove),
    );
    check(
        "orphan ignored",
        &mut up(&before),
        &after,
        &with(Orphans::Ignore),
    );
    let renamed = |name: &str| project(json!({name: {"container_name": "fixed"}}));
    check(
        "service renamed with a fixed container name",
        &mut up(&renamed("a")),
        &renamed("b"),
        &with(Orphans::Remove),
    );
}

#[test]
fn profiles() {
    let before = project(json!({"web": {}, "debug": {}}));
    let mut after = project(json!({"web": {}, "debug": {"profiles": ["dev"]}}));
    let debug = after.services.remove("debug").unwrap();
    after.disabled_services.insert("debug".into(), debug);
    check_up("profile switched off", &before, &after);
    check(
        "service of an inactive profile asked for",
        &mut up(&after),
        &after,
        &only(&["debug"]),
    );
    let mut needing = project(
        json!({"web": {"depends_on": {"debug": {"condition": "service_started"}}}, "debug": {"profiles": ["dev"]}}),
    );
    let debug = needing.services.remove("debug").unwrap();
    needing.disabled_services.insert("debug".into(), debug);
    check(
        "dependency on an inactive profile",
        &mut Engine::with_images(&needing),
        &needing,
        &UpOptions::default(),
    );
    let web = needing.services.get_mut("web").unwrap();
    web.depends_on.get_mut("debug").unwrap().required.0 = false;
    check(
        "optional dependency on an inactive profile",
        &mut Engine::with_images(&needing),
        &needing,
        &UpOptions::default(),
    );
}

#[test]
fn restart_and_sharing_follow_a_dependency() {
    let with = |environment: Value| {
        project(json!({
            "db": {"environment": environment},
            "app": {"depends_on": {"db": {"condition": "service_started", "restart": true}}},
            "web": {"depends_on": {"app": {"condition": "service_started", "restart": true}}},
            "calm": {"depends_on": {"db": {"condition": "service_started"}}},
        }))
    };
    check_up(
        "restart follows a replaced dependency",
        &with(json!({})),
        &with(json!({"A": "1"})),
    );
    for (case, field, value) in [
        (
            "network namespace shared with a replaced service",
            "network_mode",
            json!("service:db"),
        ),
        (
            "ipc shared with a replaced service",
            "ipc",
            json!("service:db"),
        ),
        (
            "pid shared with a replaced service",
            "pid",
            json!("service:db"),
        ),
        (
            "volumes from a replaced service",
            "volumes_from",
            json!(["db:ro"]),
        ),
    ] {
        let with = |environment: Value| {
            project(json!({"db": {"environment": environment}, "side": {field: value}}))
        };
        check_up(case, &with(json!({})), &with(json!({"A": "1"})));
    }
    let with = |environment: Value| {
        project(
            json!({"db": {"environment": environment}, "side": {"network_mode": "service:db"}, "web": {}}),
        )
    };
    check(
        "sharer of the one service asked for",
        &mut up(&with(json!({}))),
        &with(json!({"A": "1"})),
        &only(&["db"]),
    );
}

#[test]
fn one_shots() {
    let with = |image: &str, web: &str| {
        project(json!({
            "migrate": {"image": image},
            "web": {"image": web, "depends_on": {"migrate": {"condition": "service_completed_successfully"}}},
        }))
    };
    let plain = with("migrate:1", "web:1");
    check(
        "one-shot first",
        &mut Engine::with_images(&plain),
        &plain,
        &UpOptions::default(),
    );
    check_up("one-shot done", &plain, &plain);
    check_up("one-shot changed", &plain, &with("migrate:2", "web:1"));
    check_up(
        "dependant of a one-shot changed",
        &plain,
        &with("migrate:1", "web:2"),
    );
    let mut engine = up(&plain);
    engine.exit("demo-migrate-1", 3);
    engine.exit("demo-web-1", 0);
    check(
        "one-shot failed before",
        &mut engine,
        &plain,
        &UpOptions::default(),
    );
    let wait = UpOptions {
        wait: true,
        ..UpOptions::default()
    };
    check(
        "one-shot and wait",
        &mut Engine::with_images(&plain),
        &plain,
        &wait,
    );
}

#[test]
fn waiting_for_everything() {
    let shop = project(shop());
    let wait = UpOptions {
        wait: true,
        ..UpOptions::default()
    };
    check("wait", &mut Engine::with_images(&shop), &shop, &wait);
    check("wait when all is well", &mut up(&shop), &shop, &wait);
    let mut engine = up(&shop);
    engine.state.containers.iter_mut().for_each(|container| {
        if container.service == "app" {
            container.health = agent_api::HealthStatus::Starting;
        }
    });
    check("wait for one that is starting", &mut engine, &shop, &wait);
}

#[test]
fn flags_of_up() {
    let shop = project(shop());
    let changed = shop_with("/db/environment", json!({"A": "1"}));
    let base = UpOptions::default;
    check(
        "force recreate",
        &mut up(&shop),
        &shop,
        &UpOptions {
            recreate: Recreate::Always,
            recreate_dependencies: Recreate::Always,
            ..base()
        },
    );
    check(
        "no recreate",
        &mut up(&shop),
        &changed,
        &UpOptions {
            recreate: Recreate::Never,
            recreate_dependencies: Recreate::Never,
            ..base()
        },
    );
    check(
        "always recreate dependencies",
        &mut up(&shop),
        &shop,
        &UpOptions {
            recreate_dependencies: Recreate::Always,
            ..only(&["web"])
        },
    );
    check(
        "no start",
        &mut Engine::with_images(&shop),
        &shop,
        &UpOptions {
            start: Start::No,
            ..base()
        },
    );
    check(
        "one service",
        &mut Engine::with_images(&shop),
        &shop,
        &only(&["app"]),
    );
    check(
        "no dependencies",
        &mut Engine::with_images(&shop),
        &shop,
        &UpOptions {
            dependencies: Dependencies::Ignore,
            ..only(&["web"])
        },
    );
    check(
        "stop timeout",
        &mut up(&shop),
        &changed,
        &UpOptions {
            stop_timeout: Some(std::time::Duration::from_millis(1500)),
            ..base()
        },
    );
    check("unknown service", &mut up(&shop), &shop, &only(&["wbe"]));
}

#[test]
fn hooks() {
    let with = |environment: Value| {
        project(json!({
            "db": {
                "environment": environment,
                "post_start": [{"command": ["seed"]}, {"command": ["warm"]}],
                "pre_stop": [{"command": ["flush"]}],
            },
            "app": {"depends_on": {"db": {"condition": "service_started"}}},
        }))
    };
    check(
        "hooks at the first start",
        &mut Engine::with_images(&with(json!({}))),
        &with(json!({})),
        &UpOptions::default(),
    );
    check_up(
        "hooks around a replacement",
        &with(json!({})),
        &with(json!({"A": "1"})),
    );
}

#[test]
fn problems_are_reported_together_and_before_any_step() {
    let missing = project(json!({
        "a": {"image": "none:1"}, "b": {"build": {"context": "/src"}},
        "c": {"use_api_socket": true}, "d": {"security_opt": ["seccomp=/profile.json"]},
    }));
    check_error("images missing", &missing);
    check_error(
        "dependency cycle",
        &project(json!({
            "a": {"depends_on": {"b": {"condition": "service_started"}}},
            "b": {"depends_on": {"c": {"condition": "service_started"}}},
            "c": {"links": ["a"]},
        })),
    );
    check_error(
        "content of a secret unreadable",
        &project_with(json!({
            "services": {"a": {"secrets": [{"source": "token"}], "configs": [{"source": "inline"}]}},
            "secrets": {"token": {"name": "demo_token", "file": "/none"}},
            "configs": {"inline": {"name": "demo_inline", "content": "x"}},
        })),
    );
}

fn check_error(case: &str, project: &Project) {
    let mut engine = Engine::default();
    engine
        .state
        .images
        .insert("busybox".into(), compose::state::ObservedImage::default());
    engine.state.contents.secrets.insert(
        "token".into(),
        compose::state::Content::Unreadable("no such file".into()),
    );
    let result = reconcile(project, &engine, &UpOptions::default());
    assert!(result.is_err(), "{case}");
    golden(case, &result);
}

#[test]
fn what_has_no_effect_is_said() {
    let project = project_with(json!({
        "services": {"a": {
            "pull_policy": "always",
            "deploy": {"placement": {"constraints": ["node.role==worker"]}, "restart_policy": {"condition": "any", "delay": "5s", "max_attempts": 3}},
            "secrets": [{"source": "token", "mode": "0400"}],
        }},
        "secrets": {"token": {"name": "demo_token", "file": "/token"}},
    }));
    check(
        "no effect",
        &mut Engine::with_images(&project),
        &project,
        &UpOptions::default(),
    );
}

#[test]
fn an_interrupted_replacement_is_finished() {
    let before = project(json!({"web": {}}));
    let after = project(json!({"web": {"environment": {"A": "1"}}}));
    let engine = up(&before);
    let plan = reconcile(&after, &engine, &UpOptions::default()).unwrap();
    for steps in 0..plan.steps.len() {
        let mut engine = engine.clone();
        engine.run_partly(&plan, steps);
        check(
            &format!("interrupted after {steps} steps"),
            &mut engine,
            &after,
            &UpOptions::default(),
        );
        assert_eq!(engine.state.containers.len(), 1);
        assert_eq!(engine.state.containers[0].name, "demo-web-1");
    }
}

#[test]
fn a_problem_names_file_line_and_column() {
    let directory = std::env::temp_dir().join(format!("muster-place-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("compose.yaml");
    std::fs::write(&file, "services:\n  web:\n    image: none:1\n").unwrap();
    let options = compose_model::LoadOptions {
        current_dir: directory.clone(),
        ..Default::default()
    };
    let loaded = compose_model::load(&options).unwrap();
    let state = compose::ObservedState::default();
    let error = plan::reconcile(
        &loaded.project,
        &loaded.sources,
        &state,
        &UpOptions::default(),
    );
    std::fs::remove_dir_all(&directory).unwrap();
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("compose.yaml:3:5: service web: image none:1 is not there"),
        "{error}"
    );
}

#[test]
fn the_json_form_has_every_step_and_no_secret() {
    let project = project(json!({"web": {"environment": {"PASSWORD": "hunter2"}}}));
    let plan = reconcile(
        &project,
        &Engine::with_images(&project),
        &UpOptions::default(),
    )
    .unwrap();
    let text = plan.to_json().to_string();
    assert!(!text.contains("hunter2") && !plan.to_string().contains("hunter2"));
    let json = plan.to_json();
    assert_eq!(json["steps"].as_array().unwrap().len(), plan.steps.len());
    assert_eq!(json["steps"][1]["operation"], "create_container");
    assert_eq!(json["steps"][1]["cause"]["kind"], "missing");
    assert_eq!(json["steps"][1]["after"], json!([1]));
    assert_eq!(json["changes"], true);
}
