//! Plans of the verbs that act on existing containers, as text; see `plans.rs`.

use compose::plan::options::{
    Dependencies, DownOptions, Orphans, RemoveImages, RemoveOptions, Selection,
};
use compose::plan::{self};
use compose_model::Project;
use serde_json::json;

use crate::engine::Engine;
use crate::plans::{golden, project, shop, up};

#[test]
fn down() {
    let shop = project(shop());
    let engine = up(&shop);
    let plan = |project: Option<&Project>, options: &DownOptions| {
        plan::down("demo", project, &engine.state, options)
    };
    golden("down", &plan(Some(&shop), &DownOptions::default()));
    let all = DownOptions {
        volumes: true,
        images: RemoveImages::All,
        ..DownOptions::default()
    };
    let everything = plan(Some(&shop), &all);
    golden("down with volumes and images", &everything);
    let mut empty = engine.clone();
    empty.run(&everything.unwrap());
    assert!(
        empty.state.containers.is_empty()
            && empty.state.networks.is_empty()
            && empty.state.volumes.is_empty()
    );
    golden("down without a file", &plan(None, &DownOptions::default()));
    golden(
        "down of one service",
        &plan(
            Some(&shop),
            &DownOptions {
                services: vec!["web".into()],
                ..DownOptions::default()
            },
        ),
    );
    let smaller = project(json!({"db": {}, "app": {}}));
    golden(
        "down with an orphan",
        &plan(Some(&smaller), &DownOptions::default()),
    );
    golden(
        "down and orphans",
        &plan(
            Some(&smaller),
            &DownOptions {
                orphans: Orphans::Remove,
                ..DownOptions::default()
            },
        ),
    );
    golden(
        "down of nothing",
        &plan::down(
            "demo",
            Some(&shop),
            &Engine::default().state,
            &DownOptions::default(),
        ),
    );
}

#[test]
fn verbs_on_existing_containers() {
    let shop = project(shop());
    let engine = up(&shop);
    let select = |services: &[&str]| Selection {
        services: services.iter().map(|name| (*name).to_owned()).collect(),
        ..Selection::default()
    };
    golden(
        "stop",
        &plan::stop("demo", Some(&shop), &engine.state, &select(&[])),
    );
    golden(
        "stop one",
        &plan::stop("demo", Some(&shop), &engine.state, &select(&["app"])),
    );
    golden(
        "start when all run",
        &plan::start("demo", Some(&shop), &engine.state, &select(&[])),
    );
    golden(
        "restart",
        &plan::restart("demo", Some(&shop), &engine.state, &select(&[])),
    );
    golden(
        "kill",
        &plan::kill(
            "demo",
            Some(&shop),
            &engine.state,
            &["web".into()],
            "SIGHUP",
        ),
    );
    golden(
        "rm when all run",
        &plan::remove(
            "demo",
            Some(&shop),
            &engine.state,
            &RemoveOptions::default(),
        ),
    );
    let mut stopped = engine.clone();
    stopped.run(&plan::stop("demo", Some(&shop), &engine.state, &select(&[])).unwrap());
    golden(
        "start",
        &plan::start("demo", Some(&shop), &stopped.state, &select(&[])),
    );
    golden(
        "rm",
        &plan::remove(
            "demo",
            Some(&shop),
            &stopped.state,
            &RemoveOptions {
                volumes: true,
                ..RemoveOptions::default()
            },
        ),
    );
    golden(
        "start what has no container",
        &plan::start(
            "demo",
            Some(&shop),
            &Engine::default().state,
            &select(&["web"]),
        ),
    );
    golden(
        "stop what does not exist",
        &plan::stop("demo", Some(&shop), &engine.state, &select(&["none"])),
    );
    let chained = project(
        json!({"db": {}, "app": {"depends_on": {"db": {"condition": "service_started", "restart": true}}}}),
    );
    let engine = up(&chained);
    golden(
        "restart takes dependants along",
        &plan::restart("demo", Some(&chained), &engine.state, &select(&["db"])),
    );
    let alone = Selection {
        dependencies: Dependencies::Ignore,
        ..select(&["db"])
    };
    golden(
        "restart alone",
        &plan::restart("demo", Some(&chained), &engine.state, &alone),
    );
}
