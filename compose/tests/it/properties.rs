//! For any project, any later version of it, and any order the plan's edges allow: the plan breaks no rule of the engine
//! (see `engine.rs`), and when it has been carried out there is nothing left to do.

use compose::plan::options::{ChangedVolumes, Dependencies, Orphans, Recreate, UpOptions};
use compose::plan::{self, Operation};
use compose_model::{Project, Sources};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::plans::project_with;

/// What is random about one service.
#[derive(Clone, Debug)]
struct Service {
    present: bool,
    image: u8,
    environment: u8,
    scale: u32,
    volume: Option<u8>,
    network: u8,
    hooks: bool,
    /// For every earlier service: nothing, a dependency, or a shared namespace.
    edges: Vec<u8>,
}

fn service() -> impl Strategy<Value = Service> {
    (
        (
            prop::bool::weighted(0.85),
            0..2u8,
            0..2u8,
            prop_oneof![1 => Just(0u32), 6 => Just(1), 2 => Just(2), 1 => Just(3)],
        ),
        (prop::option::of(0..2u8), 0..2u8, prop::bool::weighted(0.2)),
        prop::collection::vec(0..9u8, 6),
    )
        .prop_map(
            |((present, image, environment, scale), (volume, network, hooks), edges)| Service {
                present,
                image,
                environment,
                scale,
                volume,
                network,
                hooks,
                edges,
            },
        )
}

/// Services that run to their end; always the same ones, so that a container that is kept can do what is waited for.
fn is_job(index: usize) -> bool {
    index == 1 || index == 4
}

/// Networks 0 and 1 and volumes 0 and 1 each have a definition that may change too.
fn project(services: &[Service], networks: [u8; 2], volumes: [u8; 2]) -> Project {
    let mut all = serde_json::Map::new();
    for (index, service) in services
        .iter()
        .enumerate()
        .filter(|(_, service)| service.present)
    {
        let mut value = json!({
            "image": format!("image{}", service.image),
            "environment": {"A": service.environment.to_string()},
            "scale": service.scale,
        });
        let object = value.as_object_mut().unwrap();
        if !is_job(index) {
            object.insert("healthcheck".into(), json!({"test": ["CMD", "true"]}));
        }
        if let Some(volume) = service.volume {
            let key = format!("volume{volume}");
            object.insert("volumes".into(), json!([{"type": "volume", "source": key, "target": "/v"}, {"type": "volume", "target": "/anonymous"}]));
        }
        if service.hooks {
            object.insert("post_start".into(), json!([{"command": ["a"]}]));
            object.insert("pre_stop".into(), json!([{"command": ["b"]}]));
        }
        let (depends_on, shared) = edges(services, index);
        object.insert("depends_on".into(), Value::Object(depends_on));
        match shared {
            Some(shared) => {
                object.insert("network_mode".into(), json!(format!("service:s{shared}")))
            }
            None => object.insert(
                "networks".into(),
                json!({format!("network{}", service.network): null}),
            ),
        };
        all.insert(format!("s{index}"), value);
    }
    let network = |index: usize| json!({"name": format!("demo_network{index}"), "internal": networks[index] == 1});
    let volume = |index: usize| json!({"name": format!("demo_volume{index}"), "driver_opts": {"v": volumes[index].to_string()}});
    project_with(json!({
        "services": all,
        "networks": {"network0": network(0), "network1": network(1)},
        "volumes": {"volume0": volume(0), "volume1": volume(1)},
    }))
}

/// Dependencies on earlier services, and the one whose network it shares.
fn edges(services: &[Service], index: usize) -> (serde_json::Map<String, Value>, Option<usize>) {
    let mut depends_on = serde_json::Map::new();
    let mut shared = None;
    for (other, edge) in services[index].edges.iter().take(index).enumerate() {
        let dependency = &services[other];
        if !dependency.present {
            continue;
        }
        let condition = match (edge, is_job(other)) {
            (0..=1, true) => "service_completed_successfully",
            (0, false) => "service_healthy",
            (1..=2, false) => "service_started",
            (3, false) if dependency.scale > 0 && shared.is_none() => {
                shared = Some(other);
                continue;
            }
            _ => continue,
        };
        let restart = services[index].edges[5].is_multiple_of(2);
        depends_on.insert(
            format!("s{other}"),
            json!({"condition": condition, "restart": restart, "required": *edge != 2}),
        );
    }
    (depends_on, shared)
}

fn options() -> impl Strategy<Value = UpOptions> {
    let recreate = || prop_oneof![6 => Just(Recreate::Diverged), 1 => Just(Recreate::Always), 1 => Just(Recreate::Never)];
    (
        recreate(),
        prop_oneof![Just(Orphans::Remove), Just(Orphans::Ignore)],
        prop_oneof![Just(ChangedVolumes::Keep), Just(ChangedVolumes::Recreate)],
        prop_oneof![4 => Just(Dependencies::Include), 1 => Just(Dependencies::Ignore)],
        any::<bool>(),
        prop::option::weighted(0.2, 0..6usize),
    )
        .prop_map(
            |(recreate, orphans, changed_volumes, dependencies, wait, only)| UpOptions {
                recreate,
                recreate_dependencies: recreate,
                orphans,
                changed_volumes,
                dependencies,
                wait,
                services: only.map(|index| format!("s{index}")).into_iter().collect(),
                ..UpOptions::default()
            },
        )
}

/// Carries out `up` in a random order and plans again; a project that cannot be planned changes nothing.
fn up_and_again(
    engine: &mut Engine,
    project: &Project,
    options: &UpOptions,
    order: &mut impl FnMut(&[usize]) -> usize,
) {
    engine.add_images(project);
    let Ok(plan) = plan::reconcile(project, &Sources::default(), &engine.state, options) else {
        return;
    };
    replacements_come_first(&plan);
    engine.run_in_order(&plan, order);
    engine.settle();
    let again = UpOptions {
        recreate: if options.recreate == Recreate::Always {
            Recreate::Diverged
        } else {
            options.recreate
        },
        recreate_dependencies: if options.recreate == Recreate::Always {
            Recreate::Diverged
        } else {
            options.recreate
        },
        ..options.clone()
    };
    let again = plan::reconcile(project, &Sources::default(), &engine.state, &again).unwrap();
    assert!(again.is_empty(), "left to do:\n{again}after\n{plan}");
}

/// A container is removed only after its replacement exists, unless a volume it holds has to go.
fn replacements_come_first(plan: &plan::Plan) {
    let mut before: Vec<std::collections::BTreeSet<usize>> = Vec::new();
    for step in &plan.steps {
        let direct = step.after.iter().map(|edge| edge.step);
        before.push(
            direct
                .clone()
                .chain(direct.flat_map(|index| before[index].clone()))
                .collect(),
        );
    }
    for (index, step) in plan.steps.iter().enumerate() {
        let Operation::CreateContainer { container, new } = &step.operation else {
            continue;
        };
        if new.name == container.name {
            continue;
        }
        let replaced = new
            .request
            .config
            .labels
            .get(compose::labels::REPLACE)
            .unwrap();
        let removed = plan.steps.iter().enumerate().find(|(_, step)| {
            matches!(&step.operation, Operation::RemoveContainer { container, .. } if container.id.as_ref() == Some(replaced))
        });
        let (removed, _) = removed.expect("what is replaced is removed");
        assert!(
            before[removed].contains(&index),
            "{} goes before its replacement is there\n{plan}",
            container.name
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_that_was_carried_out_leaves_nothing_to_do(
        before in prop::collection::vec(service(), 6),
        after in prop::collection::vec(service(), 6),
        resources in prop::array::uniform8(0..2u8),
        options in options(),
        seed in any::<u64>(),
    ) {
        let [a, b, c, d, e, f, g, h] = resources;
        let before = project(&before, [a, b], [c, d]);
        let after = project(&after, [e, f], [g, h]);
        let mut random = seed | 1;
        let mut order = move |ready: &[usize]| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ready[(random >> 33) as usize % ready.len()]
        };
        let mut engine = Engine::default();
        up_and_again(&mut engine, &before, &UpOptions::default(), &mut order);
        up_and_again(&mut engine, &after, &options, &mut order);
        up_and_again(&mut engine, &before, &UpOptions { orphans: Orphans::Remove, ..UpOptions::default() }, &mut order);
    }

    #[test]
    fn a_plan_that_was_killed_anywhere_is_finished_by_the_next(
        before in prop::collection::vec(service(), 6),
        after in prop::collection::vec(service(), 6),
        cut in 0..1000usize,
    ) {
        let before = project(&before, [0, 0], [0, 0]);
        let after = project(&after, [0, 1], [0, 0]);
        let first = |ready: &[usize]| ready[0];
        let mut engine = Engine::default();
        up_and_again(&mut engine, &before, &UpOptions::default(), &mut { first });
        engine.add_images(&after);
        if let Ok(plan) = plan::reconcile(&after, &Sources::default(), &engine.state, &UpOptions { orphans: Orphans::Remove, ..UpOptions::default() }) {
            engine.run_partly(&plan, cut % (plan.steps.len() + 1));
            engine.settle();
            up_and_again(&mut engine, &after, &UpOptions { orphans: Orphans::Remove, ..UpOptions::default() }, &mut { first });
        }
    }
}
