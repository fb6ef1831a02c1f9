//! Mount specifications: what they become, and Docker's texts for those it refuses.

use super::*;
use agent_api::{Empty, VolumeOptions};

fn plan_of(host: HostConfig, image_volumes: &[&str]) -> Result<Vec<MountPlan>> {
    let config = ContainerConfig {
        volumes: Some(
            image_volumes
                .iter()
                .map(|path| ((*path).to_owned(), Empty {}))
                .collect(),
        ),
        ..ContainerConfig::default()
    };
    let donor = |name: &str| match name {
        "donor" => Ok(Donor {
            mounts: plan(
                &ContainerConfig::default(),
                &binds(&["shared:/shared", "/etc:/host"]),
                |_| unreachable!(),
                String::new,
            )
            .unwrap(),
        }),
        _ => Err(Error::not_found(format!("No such container: {name}"))),
    };
    let mut count = 0;
    plan(&config, &host, donor, || {
        count += 1;
        format!("anon{count}")
    })
}

fn binds(texts: &[&str]) -> HostConfig {
    HostConfig {
        binds: Some(texts.iter().map(|text| (*text).to_owned()).collect()),
        ..HostConfig::default()
    }
}

fn mounted(mount: Mount) -> HostConfig {
    HostConfig {
        mounts: Some(vec![mount]),
        ..HostConfig::default()
    }
}

/// One line per mount: `target <- source flags`.
fn show(plans: &[MountPlan]) -> Vec<String> {
    plans
        .iter()
        .map(|plan| {
            let source = match &plan.source {
                MountSource::Bind { path, create, .. } => format!("bind {path} create={create}"),
                MountSource::Volume(volume) => {
                    format!("volume {} anonymous={}", volume.name, volume.anonymous)
                }
                MountSource::Tmpfs { data, flags } => {
                    format!("tmpfs {} {}", data.join(","), flags.join(","))
                }
            };
            format!(
                "{} <- {source}{}",
                plan.target,
                if plan.read_only { " ro" } else { "" }
            )
        })
        .collect()
}

#[test]
fn binds_are_paths_names_or_anonymous() {
    let plans = plan_of(binds(&["/srv/./a/..:/b:ro", "data:/data/", "/anon"]), &[]).unwrap();
    assert_eq!(
        show(&plans),
        [
            "/anon <- volume anon1 anonymous=true",
            "/b <- bind /srv create=true ro",
            "/data <- volume data anonymous=false",
        ]
    );
}

#[test]
fn the_images_volumes_are_anonymous_unless_something_is_mounted_there() {
    let host = HostConfig {
        tmpfs: Some(std::iter::once(("/run".to_owned(), "size=1m,exec".to_owned())).collect()),
        ..binds(&["data:/data"])
    };
    let plans = plan_of(host, &["/data", "/run", "/more"]).unwrap();
    assert_eq!(
        show(&plans),
        [
            "/data <- volume data anonymous=false",
            "/more <- volume anon1 anonymous=true",
            "/run <- tmpfs size=1m exec",
        ]
    );
}

#[test]
fn parents_are_mounted_before_what_is_inside() {
    let plans = plan_of(binds(&["a1:/x/y/z", "b1:/x", "c1:/x/y"]), &[]).unwrap();
    let targets: Vec<&str> = plans.iter().map(|plan| plan.target.as_str()).collect();
    assert_eq!(targets, ["/x", "/x/y", "/x/y/z"]);
}

#[test]
fn volumes_from_gives_way_to_own_mounts_and_can_be_read_only() {
    let host = HostConfig {
        volumes_from: Some(vec!["donor:ro".into()]),
        ..binds(&["mine:/shared"])
    };
    let plans = plan_of(host, &[]).unwrap();
    assert_eq!(
        show(&plans),
        [
            "/host <- bind /etc create=true ro",
            "/shared <- volume mine anonymous=false"
        ]
    );
}

#[test]
fn mounts_refuse_a_missing_source_and_binds_make_it() {
    let mount = Mount {
        kind: MountType::Bind,
        source: "/nonexistent/source".into(),
        target: "/a".into(),
        ..Mount::default()
    };
    let plans = plan_of(mounted(mount), &[]).unwrap();
    assert_eq!(
        check_sources(&plans).unwrap_err().to_string(),
        "invalid mount config for type \"bind\": bind source path does not exist: /nonexistent/source"
    );
    check_sources(&plan_of(binds(&["/nonexistent/source:/a"]), &[]).unwrap()).unwrap();
}

#[test]
fn texts_are_dockers() {
    for (bind, expected) in [
        (
            "foo",
            "invalid volume specification: 'foo': invalid mount config for type \"volume\": invalid mount path: 'foo' mount path must be absolute",
        ),
        (
            "/foo:bar",
            "invalid volume specification: '/foo:bar': invalid mount config for type \"bind\": invalid mount path: 'bar' mount path must be absolute",
        ),
        ("/foo:/bar:zz", "invalid mode: zz"),
        ("/foo:/bar:ro,rw", "invalid mode: ro,rw"),
        ("/foo:/bar:nocopy", "invalid mode: nocopy"),
        (
            "fo!:/bar",
            "create fo!: \"fo!\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path",
        ),
        (
            "foo:/",
            "invalid volume specification: 'foo:/': invalid mount config for type \"volume\": invalid specification: destination can't be '/'",
        ),
    ] {
        assert_eq!(
            plan_of(binds(&[bind]), &[]).unwrap_err().to_string(),
            expected
        );
    }
    assert_eq!(
        plan_of(binds(&["foo:/a", "bar:/a/"]), &[])
            .unwrap_err()
            .to_string(),
        "Duplicate mount point: /a"
    );
    let mount = |kind, source: &str, target: &str| Mount {
        kind,
        source: source.into(),
        target: target.into(),
        ..Mount::default()
    };
    for (mount, expected) in [
        (
            mount(MountType::Bind, "", "/a"),
            "invalid mount config for type \"bind\": field Source must not be empty",
        ),
        (
            mount(MountType::Volume, "x1", ""),
            "invalid mount config for type \"volume\": field Target must not be empty",
        ),
        (
            mount(MountType::Tmpfs, "x1", "/a"),
            "invalid mount config for type \"tmpfs\": field Source must not be specified",
        ),
        (
            Mount {
                volume_options: Some(VolumeOptions::default()),
                ..mount(MountType::Bind, "/x", "/a")
            },
            "invalid mount config for type \"bind\": field VolumeOptions must not be specified",
        ),
    ] {
        assert_eq!(
            plan_of(mounted(mount), &[]).unwrap_err().to_string(),
            expected
        );
    }
    let host = HostConfig {
        volumes_from: Some(vec!["foo".into()]),
        ..HostConfig::default()
    };
    assert_eq!(
        plan_of(host, &[]).unwrap_err(),
        Error::invalid("No such container: foo")
    );
}

#[test]
fn only_named_volumes_and_binds_are_listed_with_dockers_modes() {
    let host = HostConfig {
        tmpfs: Some(std::iter::once(("/run".to_owned(), String::new())).collect()),
        ..binds(&["data:/data", "/tmp:/host:ro", "/anon"])
    };
    let points: Vec<String> = plan_of(host, &[])
        .unwrap()
        .iter()
        .filter_map(MountPlan::mount_point)
        .map(|point| {
            format!(
                "{} mode={:?} rw={} propagation={:?}",
                point.destination, point.mode, point.rw, point.propagation
            )
        })
        .collect();
    assert_eq!(
        points,
        [
            "/anon mode=\"\" rw=true propagation=\"\"",
            "/data mode=\"z\" rw=true propagation=\"\"",
            "/host mode=\"ro\" rw=false propagation=\"rprivate\"",
        ]
    );
}
