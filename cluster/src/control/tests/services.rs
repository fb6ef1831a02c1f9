//! Services.

use agent_api::swarm::PullOptions;
use cluster_api::{Endpoint, RolloutState, Service};
use serde_json::{Value, json};

use super::super::{RegistryAuth, Reply, Request, needs_new_tasks};
use super::{World, create, minimal, spec, with_container, with_ports, with_template};

#[test]
fn specs_that_break_a_rule_are_refused_in_docker_s_words() {
    let file = |name: &str| json!({"Name": name, "UID": "0", "GID": "0", "Mode": 292});
    let secret = |id: &str, name: &str, target: &str| json!({"SecretID": id, "SecretName": name, "File": file(target)});
    let config = |id: &str, name: &str, target: &str| json!({"ConfigID": id, "ConfigName": name, "File": file(target)});
    let cases: Vec<(Value, &str)> = vec![
        (
            minimal(json!({"Name": ""})),
            "400 meta: name must be provided",
        ),
        (
            minimal(json!({"Name": "-x"})),
            "400 name must be valid as a DNS name component",
        ),
        (
            minimal(json!({"Name": "a.b"})),
            "400 name must be valid as a DNS name component",
        ),
        (
            minimal(json!({"Name": "a".repeat(64)})),
            "400 name must be 63 characters or fewer",
        ),
        (
            minimal(json!({"TaskTemplate": {"ContainerSpec": {}}})),
            "400 ContainerSpec: image reference must be provided",
        ),
        (
            with_container(json!({"Image": "UPPER"})),
            "400 ContainerSpec: \"UPPER\" is not a valid repository/tag",
        ),
        (
            with_container(json!({"Image": "a".repeat(64)})),
            "400 ContainerSpec: \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\" is not a valid repository/tag",
        ),
        (
            minimal(json!({"TaskTemplate": {}})),
            "400 mismatched Runtime and *Spec fields",
        ),
        (
            with_template(json!({"Runtime": "attachment"})),
            "400 unsupported runtime",
        ),
        (
            with_template(json!({"Resources": {"Limits": {"NanoCPUs": 500_000}}})),
            "400 invalid cpu value 0.0005: Must be at least 0.001",
        ),
        (
            with_template(json!({"Resources": {"Reservations": {"MemoryBytes": 1000}}})),
            "400 invalid memory value 1000: Must be at least 4MiB",
        ),
        (
            with_template(json!({"RestartPolicy": {"Condition": "x"}})),
            "400 invalid RestartCondition: \"x\"",
        ),
        (
            with_template(json!({"RestartPolicy": {"Delay": -1}})),
            "400 TaskSpec: restart-delay cannot be negative",
        ),
        (
            with_template(json!({"RestartPolicy": {"Window": -1}})),
            "400 TaskSpec: restart-window cannot be negative",
        ),
        (
            with_container(json!({"Secrets": [{"SecretID": "a", "SecretName": "b"}]})),
            "400 malformed secret reference, no target provided",
        ),
        (
            with_container(json!({"Secrets": [secret("a", "b", "")]})),
            "400 malformed file secret reference, invalid target file name provided",
        ),
        (
            with_container(json!({"Secrets": [secret("", "b", "x")]})),
            "400 malformed secret reference",
        ),
        (
            with_container(json!({"Secrets": [secret("a", "b", "x"), secret("c", "d", "x")]})),
            "400 secret references 'b' and 'd' have a conflicting target: 'x'",
        ),
        (
            with_container(json!({"Secrets": [secret("a", "b", "x")]})),
            "400 secret not found: b",
        ),
        (
            with_container(json!({"Secrets": [secret("a", "b", "x"), secret("c", "d", "y")]})),
            "400 secrets not found: b, d",
        ),
        (
            with_container(json!({"Configs": [config("a", "b", "x")]})),
            "400 config not found: b",
        ),
        (
            with_container(json!({"Configs": [config("a", "b", "x"), config("c", "d", "x")]})),
            "400 config references 'b' and 'd' have a conflicting target: 'x'",
        ),
        (
            with_container(json!({"Configs": [{"ConfigID": "a", "ConfigName": "b"}]})),
            "400 malformed config reference, no target provided",
        ),
        (
            with_container(
                json!({"Mounts": [{"Type": "tmpfs", "Target": "/x"}, {"Type": "tmpfs", "Target": "/x"}]}),
            ),
            "400 ContainerSpec: duplicate mount point: /x",
        ),
        (
            with_container(
                json!({"Mounts": [{"Type": "bind", "Source": "/a", "Target": "/x", "BindOptions": {"Propagation": "zz"}}]}),
            ),
            "400 invalid MountPropagation: \"zz\"",
        ),
        (
            with_container(json!({"Healthcheck": {"Interval": 5}})),
            "400 ContainerSpec: Interval in HealthConfig cannot be less than 1ms",
        ),
        (
            with_container(json!({"Healthcheck": {"StartInterval": -5}})),
            "400 ContainerSpec: StartInterval in HealthConfig cannot be less than 1ms",
        ),
        (
            with_container(json!({"Healthcheck": {"Retries": -1}})),
            "400 ContainerSpec: Retries in HealthConfig cannot be negative",
        ),
        (
            minimal(json!({"UpdateConfig": {"Delay": -1}})),
            "400 TaskSpec: update-delay cannot be negative",
        ),
        (
            minimal(json!({"UpdateConfig": {"Monitor": -1}})),
            "400 TaskSpec: update-monitor cannot be negative",
        ),
        (
            minimal(json!({"UpdateConfig": {"MaxFailureRatio": 2}})),
            "400 TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1",
        ),
        (
            minimal(json!({"UpdateConfig": {"FailureAction": "x"}})),
            "400 unrecognized update failure action x",
        ),
        (
            minimal(json!({"UpdateConfig": {"Order": "x"}})),
            "400 unrecognized update order x",
        ),
        (
            minimal(json!({"Mode": {"Replicated": {}, "Global": {}}})),
            "400 must specify only one service mode",
        ),
        (
            minimal(json!({"Mode": {"Replicated": {"Replicas": u64::MAX}}})),
            "400 Number of replicas must be non-negative",
        ),
        (
            minimal(
                json!({"EndpointSpec": {"Mode": "dnsrr", "Ports": [{"TargetPort": 1, "PublishedPort": 2}]}}),
            ),
            "400 EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
        ),
        (
            minimal(json!({"EndpointSpec": {"Mode": "x"}})),
            "400 invalid resolution mode: \"x\"",
        ),
        (
            with_ports(
                json!([{"TargetPort": 1, "PublishedPort": 2}, {"TargetPort": 3, "PublishedPort": 2}]),
            ),
            "400 EndpointSpec: duplicate published ports provided",
        ),
        (
            with_template(json!({"Networks": [{"Target": "nope"}]})),
            "404 network nope not found",
        ),
        (
            with_template(json!({"Networks": [{"Target": "ingress"}]})),
            "400 Service cannot be explicitly attached to the ingress network \"ingress\"",
        ),
        (
            with_template(json!({"Networks": [{"Target": "host"}]})),
            "403 The network host cannot be used with services. Only networks scoped to the swarm can be used, such as those created with the overlay driver.",
        ),
    ];
    let mut world = World::new();
    for (spec, text) in cases {
        assert_eq!(world.refused(create(spec.clone())), text, "{spec}");
    }
}

/// What Docker takes and does not do, or does and we do not.
#[test]
fn what_no_node_would_do_is_refused_by_name() {
    let cases: Vec<(Value, &str)> = vec![
        (
            with_template(json!({"Runtime": "plugin"})),
            "501 runtime \"plugin\" of services is not supported",
        ),
        (
            with_template(json!({"PluginSpec": {}})),
            "501 a plugin spec is not supported",
        ),
        (
            minimal(json!({"Mode": {"ReplicatedJob": {}}})),
            "501 service mode replicated-job is not supported",
        ),
        (
            minimal(json!({"Mode": {"GlobalJob": {}}})),
            "501 service mode global-job is not supported",
        ),
        (
            with_template(
                json!({"Resources": {"Reservations": {"GenericResources": [{"DiscreteResourceSpec": {"Kind": "GPU", "Value": 1}}]}}}),
            ),
            "501 reserving generic resources is not supported",
        ),
        (
            with_template(json!({"Networks": [{"Target": "ingress", "DriverOpts": {"a": "b"}}]})),
            "501 driver option a of the attachment to network ingress is not supported",
        ),
        (
            with_container(json!({"OomScoreAdj": 2000})),
            "400 Invalid value 2000, range for oom score adj is [-1000, 1000]",
        ),
        (
            with_container(json!({"Isolation": "hyperv"})),
            "501 isolation \"hyperv\" is not supported",
        ),
        (
            with_container(json!({"Mounts": [{"Type": "cluster", "Source": "v", "Target": "/x"}]})),
            "501 mount type \"cluster\" in services is not supported",
        ),
        (
            with_container(json!({"Mounts": [{"Type": "image", "Source": "v", "Target": "/x"}]})),
            "501 mount type \"image\" in services is not supported",
        ),
        (
            with_container(json!({"Privileges": {"CredentialSpec": {"File": "x"}}})),
            "501 a credential spec is not supported",
        ),
        (
            with_container(json!({"Privileges": {"SELinuxContext": {"Disable": true}}})),
            "501 a SELinux context is not supported",
        ),
        (
            with_container(
                json!({"Configs": [{"ConfigID": "a", "ConfigName": "b", "Runtime": {}}]}),
            ),
            "501 a config with a runtime target (credential spec) is not supported",
        ),
        (
            with_ports(json!([{"TargetPort": 1, "Protocol": "sctp"}])),
            "501 publishing ports of protocol sctp is not supported",
        ),
        (
            with_ports(json!([{"TargetPort": 1, "Protocol": "foo"}])),
            "400 invalid protocol \"foo\" of a published port: tcp, udp or sctp",
        ),
        (
            with_ports(json!([{"TargetPort": 1, "PublishMode": "foo"}])),
            "400 invalid publish mode \"foo\" of a published port: ingress or host",
        ),
        (
            with_ports(json!([{"PublishedPort": 80}])),
            "400 EndpointSpec: a published port needs a target port",
        ),
        (
            minimal(json!({"RollbackConfig": {"FailureAction": "rollback"}})),
            "400 the failure action of a rollback is pause or continue, not rollback",
        ),
        (
            minimal(json!({"RollbackConfig": {"Delay": -1}})),
            "400 TaskSpec: update-delay cannot be negative",
        ),
        (
            with_template(json!({"Placement": {"Constraints": ["x"]}})),
            "400 constraint \"x\" has no operator: write <key> == <value> or <key> != <value>",
        ),
        (
            with_template(
                json!({"Placement": {"Preferences": [{"Spread": {"SpreadDescriptor": "rack"}}]}}),
            ),
            "400 placement preference spread=rack: tasks can be spread over node.labels.<key> and engine.labels.<key>",
        ),
        (
            with_template(json!({"Placement": {"Preferences": [{}]}})),
            "400 a placement preference without a strategy: only spread is supported",
        ),
    ];
    let mut world = World::new();
    for (spec, text) in cases {
        assert_eq!(world.refused(create(spec.clone())), text, "{spec}");
    }
}

#[test]
fn names_of_images() {
    let mut world = World::new();
    for (number, image) in [
        "busybox",
        "busybox:1.36",
        "library/busybox",
        "localhost:5000/a/b_c/d-e:T.a-g",
        "registry.example.com/x@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "[2001:db8::1]:5000/x",
        "Registry.example/x",
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("s{number}");
        let mut service = with_container(json!({"Image": image}));
        service["Name"] = json!(name);
        world.service(service);
    }
    for image in [
        "a//b",
        "a:",
        "a@sha256:1",
        ":x",
        "a b",
        "a/-b",
        "a/B",
        "http://x/y",
    ] {
        assert_eq!(
            world.refused(create(with_container(json!({"Image": image})))),
            format!("400 ContainerSpec: {image:?} is not a valid repository/tag")
        );
    }
}

#[test]
fn what_a_client_may_leave_out_is_written_out() {
    let mut world = World::new();
    let id = world.service(json!({
        "Name": "raw",
        "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}, "RestartPolicy": {}},
        "UpdateConfig": {}, "EndpointSpec": {"Ports": [{"TargetPort": 5}]},
    }));
    let kept = world.store.service(&id).unwrap().spec.clone();
    assert_eq!(
        serde_json::to_value(&*kept).unwrap(),
        json!({
            "Name": "raw", "Labels": {},
            "TaskTemplate": {
                "ContainerSpec": {"Image": "busybox", "Isolation": "default"},
                "RestartPolicy": {"Condition": "any", "MaxAttempts": 0},
                "ForceUpdate": 0, "Runtime": "container",
            },
            "Mode": {"Replicated": {"Replicas": 1}},
            "UpdateConfig": {"Parallelism": 0, "FailureAction": "pause", "MaxFailureRatio": 0, "Order": "stop-first"},
            "EndpointSpec": {"Mode": "vip", "Ports": [{"Protocol": "tcp", "TargetPort": 5, "PublishMode": "ingress"}]},
        })
    );
    // What was read and is sent again is the same.
    let again = super::super::service::admit(&world.store, &kept).unwrap();
    assert_eq!(again, *kept);
    assert!(!needs_new_tasks(&kept, &again));
}

#[test]
fn names_are_taken_once_and_free_after_removal() {
    let mut world = World::new();
    let id = world.service(minimal(json!({})));
    assert_eq!(
        world.refused(create(minimal(json!({})))),
        "409 name conflicts with an existing object: service case already exists"
    );
    let remove = || Request::ServiceRemove {
        service: "case".into(),
    };
    assert_eq!(world.request(remove()), Ok(Reply::Done));
    assert!(world.store.service(&id).unwrap().pending_delete);
    assert_eq!(world.refused(remove()), "404 service case not found");
    world.service(minimal(json!({})));
}

#[test]
fn ports_of_other_services_are_taken() {
    let mut world = World::new();
    let id = world.service(json!({
        "Name": "first", "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}},
        "EndpointSpec": {"Ports": [
            {"TargetPort": 80, "PublishedPort": 8081},
            {"TargetPort": 81, "PublishedPort": 8082, "PublishMode": "host", "Protocol": "udp"},
            {"TargetPort": 82},
        ]},
    }));
    // What the allocator gave it.
    let mut first = Service::clone(world.store.service(&id).unwrap());
    let mut ports = first.spec.endpoint_spec.clone().unwrap().ports;
    ports[2].published_port = 30000;
    first.endpoint = Endpoint {
        ports,
        ..Endpoint::default()
    };
    world.put(first);
    let taken = |port: u16, how: &str| {
        format!("400 port '{port}' is already in use by service 'first' ({id}) as {how}")
    };
    let cases = [
        (
            json!([{"TargetPort": 1, "PublishedPort": 8081}]),
            Some(taken(8081, "an ingress port")),
        ),
        (
            json!([{"TargetPort": 1, "PublishedPort": 8081, "PublishMode": "host"}]),
            Some(taken(8081, "an ingress port")),
        ),
        (
            json!([{"TargetPort": 1, "PublishedPort": 8082, "Protocol": "udp"}]),
            Some(taken(8082, "a host-published port")),
        ),
        (
            json!([{"TargetPort": 1, "PublishedPort": 30000}]),
            Some(taken(30000, "an ingress port")),
        ),
        // Host ports may meet: the scheduler keeps them on different nodes. Other protocols are other ports.
        (
            json!([{"TargetPort": 1, "PublishedPort": 8082, "PublishMode": "host", "Protocol": "udp"}]),
            None,
        ),
        (
            json!([{"TargetPort": 1, "PublishedPort": 8081, "Protocol": "udp"}]),
            None,
        ),
    ];
    for (number, (ports, refusal)) in cases.into_iter().enumerate() {
        let mut service = with_ports(ports);
        service["Name"] = json!(format!("s{number}"));
        match refusal {
            Some(text) => assert_eq!(world.refused(create(service)), text),
            None => drop(world.service(service)),
        }
    }
    // Its own ports are no conflict, and those of a service that is being removed are free.
    let mut same = spec(json!(&*world.store.service(&id).unwrap().spec));
    same.annotations.labels.insert("a".into(), "b".into());
    update(&mut world, &id, *same).unwrap();
    world
        .request(Request::ServiceRemove { service: id })
        .unwrap();
    let mut service = with_ports(json!([{"TargetPort": 1, "PublishedPort": 8081}]));
    service["Name"] = json!("next");
    world.service(service);
}

#[test]
fn published_ports_need_the_ingress_network() {
    let mut world = World::empty();
    let ports = |mode: &str| with_ports(json!([{"TargetPort": 80, "PublishMode": mode}]));
    assert_eq!(
        world.refused(create(ports("ingress"))),
        "400 service needs ingress network, but no ingress network is present"
    );
    world.service(ports("host"));
}

fn update(
    world: &mut World,
    service: &str,
    spec: agent_api::swarm::ServiceSpec,
) -> Result<Reply, super::Refusal> {
    let version = world.version(service);
    world.request(Request::ServiceUpdate {
        service: service.into(),
        version,
        spec: Box::new(spec),
        auth: RegistryAuth::Spec,
    })
}

#[test]
fn some_things_never_change_in_a_service() {
    let mut world = World::new();
    let id = world.service(minimal(json!({})));
    let version = world.version(&id);
    let refused = |world: &mut World, text: Value, version: u64| {
        world.refused(Request::ServiceUpdate {
            service: id.clone(),
            version,
            spec: spec(text),
            auth: RegistryAuth::Spec,
        })
    };
    for (text, refusal) in [
        (
            minimal(json!({"Name": "other"})),
            "501 renaming services is not supported",
        ),
        (
            minimal(json!({"Mode": {"Global": {}}})),
            "501 service mode change is not allowed",
        ),
        (
            with_container(json!({"Image": "UP"})),
            "400 ContainerSpec: \"UP\" is not a valid repository/tag",
        ),
    ] {
        assert_eq!(refused(&mut world, text, version), refusal);
    }
    assert_eq!(
        refused(&mut world, minimal(json!({})), version - 1),
        "500 update out of sequence"
    );
    let rollback = Request::ServiceRollback {
        service: id.clone(),
        version,
    };
    assert_eq!(
        world.refused(rollback),
        format!("400 service {id} does not have a previous spec")
    );
}

/// Old clients put networks beside the template; they must move before they change.
#[test]
fn networks_outside_of_the_template_move_before_they_change() {
    let mut world = World::new();
    for name in ["one", "two"] {
        let mut network = cluster_api::NetworkSpec::default();
        network.annotations.name = name.into();
        world.created(Request::NetworkCreate {
            spec: Box::new(network),
        });
    }
    let id = world.service(minimal(json!({"Networks": [{"Target": "one"}]})));
    let mut other = spec(minimal(json!({"Networks": [{"Target": "two"}]})));
    assert_eq!(
        update(&mut world, &id, *other.clone())
            .unwrap_err()
            .to_string(),
        "networks must be migrated to TaskSpec before being changed"
    );
    other.task_template.networks = std::mem::take(&mut other.networks);
    update(&mut world, &id, *other).unwrap();
    let kept = &world.store.service(&id).unwrap().spec;
    let two = world
        .store
        .id_of(cluster_api::Kind::Network, "two")
        .unwrap();
    assert_eq!(kept.task_template.networks[0].target, two);
}

#[test]
fn the_spec_version_counts_what_needs_new_tasks() {
    let base = json!({
        "Name": "case", "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}},
        "EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 8080}, {"TargetPort": 81, "PublishMode": "host"}]},
    });
    let mut cases = Vec::new();
    let mut case = |replaces: bool, change: fn(&mut Value)| {
        let mut text = base.clone();
        change(&mut text);
        cases.push((replaces, text));
    };
    case(false, |_| ());
    case(false, |spec| spec["Labels"] = json!({"a": "b"}));
    case(false, |spec| {
        spec["Mode"] = json!({"Replicated": {"Replicas": 9}})
    });
    case(false, |spec| {
        spec["UpdateConfig"] = json!({"Parallelism": 3})
    });
    case(false, |spec| {
        spec["EndpointSpec"]["Ports"][0]["PublishedPort"] = json!(8081)
    });
    case(true, |spec| {
        spec["EndpointSpec"]["Ports"][1]["PublishedPort"] = json!(8081)
    });
    case(true, |spec| spec["TaskTemplate"]["ForceUpdate"] = json!(1));
    case(true, |spec| {
        spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!("other")
    });
    case(true, |spec| {
        spec["TaskTemplate"]["Placement"] = json!({"Constraints": ["node.id!=x"]})
    });
    for (replaces, text) in cases {
        let mut world = World::new();
        let id = world.service(base.clone());
        let before = Service::clone(world.store.service(&id).unwrap());
        assert_eq!(before.spec_version, 0);
        update(&mut world, &id, *spec(text.clone())).unwrap();
        let after = world.store.service(&id).unwrap();
        assert_eq!(after.spec_version != 0, replaces, "{text}");
        assert_eq!(after.previous_spec.as_ref(), Some(&before.spec));
        assert_eq!(after.previous_spec_version, Some(0));
        assert_eq!(after.rollout, None);
    }
}

#[test]
fn a_rollback_swaps_the_specs_and_no_version_is_used_twice() {
    let mut world = World::new();
    let id = world.service(minimal(json!({})));
    let image = |number: u32| *spec(with_container(json!({"Image": format!("v{number}")})));
    let mut seen = std::collections::BTreeSet::from([0]);
    let roll_back = |world: &mut World| {
        let request = Request::ServiceRollback {
            service: id.clone(),
            version: world.version(&id),
        };
        world.request(request).unwrap();
    };
    for number in 0..4 {
        update(&mut world, &id, image(number)).unwrap();
        let after = Service::clone(world.store.service(&id).unwrap());
        assert!(
            seen.insert(after.spec_version),
            "{} was used",
            after.spec_version
        );
        roll_back(&mut world);
        let back = world.store.service(&id).unwrap();
        assert_eq!(Some(&back.spec), after.previous_spec.as_ref());
        assert_eq!(Some(back.spec_version), after.previous_spec_version);
        assert_eq!(back.previous_spec.as_ref(), Some(&after.spec));
        let rollout = back.rollout.as_ref().unwrap();
        assert_eq!(rollout.state, RolloutState::RollbackStarted);
        assert_eq!(rollout.message, "manually requested rollback");
        if number % 2 == 0 {
            // And forth again.
            roll_back(&mut world);
            assert_eq!(world.store.service(&id).unwrap().spec, after.spec);
        }
    }
}

#[test]
fn a_rollback_to_what_is_gone_is_refused() {
    let mut world = World::new();
    let id = world.service(with_ports(json!([{"TargetPort": 80, "PublishedPort": 80}])));
    update(&mut world, &id, *spec(minimal(json!({})))).unwrap();
    let mut other = with_ports(json!([{"TargetPort": 80, "PublishedPort": 80}]));
    other["Name"] = json!("other");
    let other = world.service(other);
    let version = world.version(&id);
    let request = Request::ServiceRollback {
        service: "case".into(),
        version,
    };
    assert_eq!(
        world.refused(request),
        format!("400 port '80' is already in use by service 'other' ({other}) as an ingress port")
    );
}

#[test]
fn credentials_stay_until_others_come_and_replace_no_task() {
    let options = |text: &str| PullOptions {
        registry_auth: text.into(),
    };
    let mut world = World::new();
    let id = world.created(Request::ServiceCreate {
        spec: spec(minimal(json!({}))),
        auth: Some(options("first")),
    });
    let kept = |world: &World| {
        let service = world.store.service(&id).unwrap();
        let container = service.spec.task_template.container_spec.as_ref().unwrap();
        (
            container
                .pull_options
                .as_ref()
                .map(|o| o.registry_auth.clone()),
            service.spec_version,
        )
    };
    let change = |world: &mut World, auth: RegistryAuth| {
        // A client cannot smuggle them in with the spec.
        let text = with_container(json!({"PullOptions": {"RegistryAuth": "forged"}}));
        let version = world.version(&id);
        world
            .request(Request::ServiceUpdate {
                service: id.clone(),
                version,
                spec: spec(text),
                auth,
            })
            .unwrap();
        kept(world)
    };
    assert_eq!(
        change(&mut world, RegistryAuth::Spec),
        (Some("first".into()), 0)
    );
    assert_eq!(
        change(&mut world, RegistryAuth::Given(options("second"))),
        (Some("second".into()), 0)
    );
    assert_eq!(
        change(&mut world, RegistryAuth::PreviousSpec),
        (Some("first".into()), 0)
    );
    let request = Request::ServiceCreate {
        spec: spec(minimal(json!({}))),
        auth: Some(options("very secret")),
    };
    assert!(!format!("{request:?}").contains("very secret"));
}

#[test]
fn services_are_found_by_id_name_and_the_beginning_of_an_id() {
    let mut world = World::new();
    let ids: Vec<_> = (0..40)
        .map(|number| world.service(minimal(json!({"Name": format!("s{number}")}))))
        .collect();
    let remove = |service: &str| Request::ServiceRemove {
        service: service.into(),
    };
    assert_eq!(world.refused(remove("")), "404 service  not found");
    let first = &ids[0][..1];
    let count = ids.iter().filter(|id| id.starts_with(first)).count();
    if count > 1 {
        assert_eq!(
            world.refused(remove(first)),
            format!("400 service {first} is ambiguous ({count} matches found)")
        );
    }
    world.request(remove(&ids[0][..12])).unwrap();
    world.request(remove("s1")).unwrap();
    world.request(remove(&ids[2])).unwrap();
    assert_eq!(
        world.store.services().filter(|s| s.pending_delete).count(),
        3
    );
}

/// What the managers write of a service is its spec, the one before, and what they add.
#[test]
fn a_spec_that_could_not_be_changed_any_more_is_refused() {
    let with_label = |bytes: usize| minimal(json!({"Labels": {"l": "x".repeat(bytes)}}));
    let mut world = World::new();
    let refused = world.refused(create(with_label(300 << 10)));
    assert!(
        refused.starts_with("400 the spec of service case has 307")
            && refused.contains("more than the 262144 allowed"),
        "{refused}"
    );
    let Reply::Created(id) = world.request(create(with_label(250 << 10))).unwrap() else {
        panic!("no id");
    };
    for update in 0..2 {
        let service = world.store.service(&id).unwrap();
        let request = Request::ServiceUpdate {
            service: id.clone(),
            version: service.meta.version,
            spec: spec(with_label((250 << 10) + update)),
            auth: RegistryAuth::Spec,
        };
        world.request(request).unwrap();
    }
    let service = world.store.service(&id).unwrap();
    assert!(service.previous_spec.is_some());
    let bytes = serde_json::to_vec(&**service).unwrap().len();
    assert!(bytes < crate::raft::MAX_PROPOSAL / 3, "{bytes}");
}
