//! What goes in comes out: formats, names, round trips.

use std::sync::Mutex;

use agent_image::{
    Digest, ErrorClass, ImageId, Limits, ListFilter, LoadOptions, ProgressMessage, PruneFilter,
    Reference, RemoveOptions, Store,
};
use serde_json::json;

use crate::Bed;
use crate::archive::{Tar, add_blob, config, docker_archive, gzip, oci_archive, oci_archive_of};

fn base() -> Vec<u8> {
    Tar::new()
        .dir("bin/")
        .file("bin/sh", "#!")
        .symlink("sh", "bin/sh")
        .end()
}

fn top() -> Vec<u8> {
    Tar::new()
        .file("etc/motd", "hello")
        .file("bin/.wh.sh", "")
        .end()
}

fn familiar(names: &[Reference]) -> Vec<String> {
    names.iter().map(Reference::familiar).collect()
}

#[test]
fn a_docker_archive_loads_and_is_found_by_every_name() {
    let bed = Bed::new();
    let (base, top) = (base(), top());
    let archive = docker_archive(&[(&[&base, &top], &["app:1", "me/app:latest"])]);
    let loaded = bed.load(&archive).unwrap();
    let id = loaded[0].id;
    assert_eq!(id, ImageId::new(Digest::of(&config(&[&base, &top], "0"))));
    for name in [
        "app:1",
        "me/app",
        "docker.io/library/app:1",
        &id.to_string(),
        &id.hex(),
        &id.short(),
    ] {
        assert_eq!(bed.store.resolve(name).unwrap(), id, "{name}");
    }
    let image = bed.store.inspect("app:1").unwrap();
    assert_eq!(familiar(&image.tags), ["app:1", "me/app:latest"]);
    assert_eq!(
        image.config.config.cmd.as_deref(),
        Some(&["/bin/sh".to_owned()][..])
    );
    assert_eq!(image.size, 2 + 6 + 5);
    assert_eq!(image.layers.len(), 2);
    assert!(image.layers[0].join("etc/motd").exists());
    assert!(image.layers[1].join("bin/sh").exists());
    let error = bed.store.resolve("nothing").unwrap_err();
    assert_eq!(error.to_string(), "No such image: nothing:latest");
    assert_eq!(error.class(), ErrorClass::NotFound);
}

#[test]
fn compressed_archives_and_layers_give_the_same_ids() {
    let (base, top) = (base(), top());
    let plain = docker_archive(&[(&[&base, &top], &["app:1"])]);
    let bed = Bed::new();
    let id = bed.load(&plain).unwrap()[0].id;
    assert_eq!(Bed::new().load(&gzip(&plain)).unwrap()[0].id, id);

    let oci = oci_archive(&[&base, &top], "docker.io/me/app:2", gzip);
    let from_oci = bed.load(&oci).unwrap();
    assert_eq!(familiar(&from_oci[0].tags), ["me/app:2"]);
    let layers = |name: &str| bed.store.inspect(name).unwrap().layers;
    assert_eq!(layers("app:1"), layers("me/app:2"));
    // A second time, the layers are recognised by the digests of their compressed form.
    assert_eq!(bed.load(&oci).unwrap(), from_oci);
    let complete = |name: &&String| name.ends_with("/layer.json");
    assert_eq!(bed.files().iter().filter(complete).count(), 2);
}

#[test]
fn a_saved_image_loads_elsewhere_with_the_same_bytes() {
    let (base, top) = (base(), top());
    let bed = Bed::new();
    bed.load(&docker_archive(&[
        (&[&base, &top], &["app:1", "app:2"]),
        (&[&base], &["base:latest"]),
    ]))
    .unwrap();
    let (app, base_image) = (
        bed.store.resolve("app:1").unwrap(),
        bed.store.resolve("base").unwrap(),
    );
    let selection = bed.store.select(&["app", "base", "app:2"]).unwrap();
    assert!(selection.ids().eq([&app, &base_image]));
    // What was selected stays, and keeps the names it had then.
    let forced = RemoveOptions {
        force: true,
        no_prune: false,
    };
    assert!(bed.store.remove(&app.hex(), forced, Vec::new).is_err());
    drop(selection);
    let Err(error) = bed.store.select(&["app", "nothing"]) else {
        panic!("nothing is an image");
    };
    assert_eq!(error.to_string(), "No such image: nothing");
    let selection = bed.store.select(&["app", "base:latest"]).unwrap();
    bed.store
        .remove("app:2", RemoveOptions::default(), Vec::new)
        .unwrap();
    let mut saved = Vec::new();
    bed.store.save_selection(&selection, &mut saved).unwrap();
    let names: Vec<String> = tar::Archive::new(&saved[..])
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        names[names.len() - 4..],
        ["index.json", "manifest.json", "oci-layout", "repositories"]
    );
    for layer in [&base, &top] {
        assert!(names.contains(&format!("blobs/sha256/{}", Digest::of(layer).hex())));
    }
    let other = Bed::new();
    let loaded = other.load(&saved).unwrap();
    assert_eq!(loaded.len(), 2);
    assert_eq!(loaded[0].id, bed.store.resolve("app:1").unwrap());
    assert_eq!(familiar(&loaded[0].tags), ["app:1", "app:2"]);
    let mut again = Vec::new();
    other
        .store
        .save(&["app", "base:latest"], &mut again)
        .unwrap();
    assert!(saved == again, "saving is not reproducible");
}

/// A docker-archive of images with one layer file each, and whom they call their parent.
fn with_parents(
    images: &[(Vec<u8>, &[&str], Option<Digest>)],
    layers: &[(&str, &[u8])],
) -> Vec<u8> {
    let mut tar = Tar::new();
    for (name, layer) in layers {
        tar = tar.file(name, layer);
    }
    let mut manifest = Vec::new();
    for (number, (config, files, parent)) in images.iter().enumerate() {
        tar = tar.file(&format!("{number}.json"), config);
        manifest.push(json!({
            "Config": format!("{number}.json"),
            "RepoTags": [format!("image:{number}")],
            "Layers": files,
            "Parent": parent.map(|digest| digest.to_string()),
        }));
    }
    tar.file("manifest.json", serde_json::to_vec(&manifest).unwrap())
        .end()
}

#[test]
fn an_image_is_made_from_one_with_its_first_steps() {
    let (base, top) = (base(), top());
    let layers = [("base.tar", &base[..]), ("top.tar", &top[..])];
    let (parent, child) = (config(&[&base], "a"), config(&[&base, &top], "a"));
    let other = config(&[&base], "b");
    let [one, two] = [&parent, &other].map(|config| Digest::of(config));
    let bed = Bed::new();
    bed.load(&with_parents(
        &[
            (parent.clone(), &["base.tar"], None),
            (child.clone(), &["base.tar", "top.tar"], Some(one)),
        ],
        &layers,
    ))
    .unwrap();
    let made = bed.store.inspect("image:1").unwrap();
    assert_eq!(made.parent, Some(bed.store.resolve("image:0").unwrap()));

    // Each other's parents, neither of which has a step more.
    let bed = Bed::new();
    let circle = with_parents(
        &[
            (parent, &["base.tar"], Some(two)),
            (other, &["base.tar"], Some(one)),
        ],
        &layers,
    );
    let error = bed.load(&circle).unwrap_err().to_string();
    assert!(error.contains("is not a valid parent for"), "{error}");
    assert!(bed.store.list(&ListFilter::default()).unwrap().is_empty());
}

#[test]
fn a_circle_of_parents_on_disk_is_broken_up() {
    let (base, top) = (base(), top());
    let bed = Bed::new();
    bed.load(&docker_archive(&[
        (&[&base], &["a:1"]),
        (&[&top], &["b:1"]),
        (&[&base, &top], &["c:1"]),
    ]))
    .unwrap();
    let ids = ["a:1", "b:1", "c:1"].map(|name| bed.store.resolve(name).unwrap());
    let Bed { directory, store } = bed;
    drop(store);
    let path = directory.path().join("content/index.json");
    let mut index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for descriptor in index["manifests"].as_array_mut().unwrap() {
        let notes = &mut descriptor["annotations"];
        let own = ids
            .iter()
            .position(|id| notes["muster.image.id"] == id.to_string());
        notes["muster.image.parent"] = json!(ids[(own.unwrap() + 1) % 3].to_string());
    }
    std::fs::write(&path, index.to_string()).unwrap();
    let store = Store::open(directory.path(), Limits::default()).unwrap();
    let parents = ids.map(|id| store.inspect(&id.hex()).unwrap().parent);
    assert_eq!(parents.iter().flatten().count(), 2, "the rest stays");
    store.prune(&PruneFilter::default(), Vec::new).unwrap();
    store.prune(&PruneFilter::default(), Vec::new).unwrap();
    store.prune(&PruneFilter::default(), Vec::new).unwrap();
    assert!(store.list(&ListFilter::default()).unwrap().is_empty());
}

#[test]
fn the_same_archive_without_manifest_json_is_an_oci_layout() {
    let bed = Bed::new();
    let layer = base();
    bed.load(&docker_archive(&[(&[&layer], &["app:1"])]))
        .unwrap();
    let mut saved = Vec::new();
    bed.store.save(&["app:1"], &mut saved).unwrap();
    let mut oci = Tar::new();
    for entry in tar::Archive::new(&saved[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        if name != "manifest.json" && !name.ends_with('/') {
            oci = oci.file(&name, bytes);
        }
    }
    let loaded = Bed::new().load(&oci.end()).unwrap();
    assert_eq!(loaded[0].id, bed.store.resolve("app:1").unwrap());
    assert_eq!(familiar(&loaded[0].tags), ["app:1"]);
}

#[test]
fn progress_speaks_as_docker_does() {
    let bed = Bed::new();
    let (base, top) = (base(), top());
    let messages = Mutex::new(Vec::new());
    let sink = |message: ProgressMessage| messages.lock().unwrap().push(message);
    let first = docker_archive(&[(&[&base], &["app:1"])]);
    let load = |archive: &[u8]| {
        let mut input = archive;
        bed.store
            .load(&mut input, &LoadOptions::default(), &sink)
            .unwrap()[0]
            .id
    };
    let old = load(&first);
    load(&docker_archive(&[(&[&base, &top], &["app:1"])]));
    load(&docker_archive(&[(&[&top], &[])]));
    let texts: Vec<String> = messages
        .into_inner()
        .unwrap()
        .iter()
        .map(|message| serde_json::to_string(message).unwrap())
        .collect();
    let id = bed
        .store
        .list(&ListFilter {
            dangling: Some(true),
            ..Default::default()
        })
        .unwrap();
    let unnamed = id
        .iter()
        .map(|image| image.id)
        .find(|id| *id != old)
        .unwrap();
    assert_eq!(
        texts[0],
        format!(
            r#"{{"status":"Loading layer","id":"0-0","progressDetail":{{"current":{0},"total":{0}}}}}"#,
            base.len()
        )
    );
    let streams: Vec<&String> = texts
        .iter()
        .filter(|text| text.contains("stream"))
        .collect();
    assert_eq!(
        streams,
        [
            r#"{"stream":"Loaded image: app:1\n"}"#,
            &format!(
                r#"{{"stream":"The image app:1 already exists, renaming the old one with ID {old} to empty string\n"}}"#
            ),
            r#"{"stream":"Loaded image: app:1\n"}"#,
            &format!(r#"{{"stream":"Loaded image ID: {unnamed}\n"}}"#),
        ]
    );
}

#[test]
fn a_platform_is_chosen_or_its_absence_said() {
    let layer = base();
    let config = |arch: &str| {
        let text = String::from_utf8(config(&[&layer], arch)).unwrap();
        text.replace("amd64", arch).into_bytes()
    };
    let machine = if cfg!(target_arch = "x86_64") {
        "amd64"
    } else {
        "arm64"
    };
    let mut tar = add_blob(Tar::new(), &layer);
    let mut entries = Vec::new();
    for arch in ["s390x", machine] {
        let config = config(arch);
        let describe = |bytes: &[u8], kind: &str| {
            serde_json::json!({"mediaType": format!("application/vnd.oci.image.{kind}"),
                "digest": Digest::of(bytes), "size": bytes.len()})
        };
        let manifest = serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2,
            "config": describe(&config, "config.v1+json"),
            "layers": [describe(&layer, "layer.v1.tar")],
        }))
        .unwrap();
        entries.push(describe(&manifest, "manifest.v1+json"));
        tar = add_blob(add_blob(tar, &config), &manifest);
    }
    let index = |entries: &[serde_json::Value]| {
        let index = serde_json::json!({"schemaVersion": 2, "manifests": entries});
        tar.clone().file("index.json", index.to_string()).end()
    };
    let bed = Bed::new();
    let id = bed.load(&index(&entries)).unwrap()[0].id;
    assert_eq!(
        bed.store.inspect(&id.hex()).unwrap().config.architecture,
        machine
    );
    // Only a foreign one on offer: it is loaded, and says what it needs when it is to run.
    let id = bed.load(&index(&entries[..1])).unwrap()[0].id;
    let error = bed
        .store
        .inspect(&id.hex())
        .unwrap()
        .config
        .check_platform()
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("image is for linux/s390x, this machine is linux/"),
        "{error}"
    );
    let wanted = LoadOptions {
        platform: Some("linux/riscv64".to_owned()),
    };
    let error = bed
        .store
        .load(&mut &index(&entries)[..], &wanted, &agent_image::silent)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the archive has no image for linux/riscv64, only for linux/s390x, linux/{machine}"
        )
    );
}

/// A configuration of one layer, `top()`, with further members.
fn config_with(members: &str) -> String {
    let diff_id = Digest::of(&top());
    format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"diff_ids":["{diff_id}"]}}{members}}}"#
    )
}

/// Each of these loads in Docker 28 and means there what it means here.
#[test]
fn configurations_are_read_as_go_reads_them() {
    let load = |members: &str| {
        let config = config_with(members);
        let archive = oci_archive_of(config.as_bytes(), &[&top()], "me/app:1", gzip);
        let bed = Bed::new();
        let loaded = bed.load(&archive);
        let loaded = loaded.unwrap_or_else(|error| panic!("{members}: {error}"));
        // The bytes are what they were.
        let id = ImageId::new(Digest::of(config.as_bytes()));
        assert_eq!(loaded[0].id, id, "{members}");
        bed.store.history("me/app:1").unwrap();
        bed.store.inspect("me/app:1").unwrap().config
    };
    let words = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());

    let nulls = load(
        r#","config":{"ExposedPorts":{"80/tcp":null},"Volumes":{"/d":null},"Labels":{"a":null},"Env":["A=b",null],
            "Healthcheck":{"Test":["NONE"],"Interval":null},"WorkingDir":null},"history":[null]"#,
    );
    assert!(nulls.config.exposed_ports.contains_key("80/tcp"));
    assert!(nulls.config.volumes.contains_key("/d"));
    assert_eq!(nulls.config.labels["a"], "");
    assert_eq!(nulls.config.env, words(&["A=b", ""]));
    assert_eq!(nulls.config.healthcheck.as_ref().unwrap().interval, 0);
    assert_eq!(nulls.history.len(), 1);

    let case = load(r#","Config":{"cmd":["a"],"ENV":["A=b"],"labels":{"Big":"1","big":"2"}}"#);
    assert_eq!(case.config.cmd, words(&["a"]));
    assert_eq!(case.config.env, words(&["A=b"]));
    assert_eq!(case.config.labels.len(), 2);

    let twice = load(
        r#","config":{"Cmd":["a"],"User":"one","Cmd":["b"]},"author":"x","Author":"y","config":{"Env":["A=b"]}"#,
    );
    assert_eq!(twice.config.cmd, words(&["b"]));
    assert_eq!(twice.config.user, "one");
    assert_eq!(twice.config.env, words(&["A=b"]));
    assert_eq!(twice.author, "y");

    let text = load(r#","config":{"Cmd":"a b","Entrypoint":null}"#);
    assert_eq!(text.config.cmd, words(&["a b"]));
    assert_eq!(text.config.entrypoint, None);
}

#[test]
fn what_go_refuses_of_a_configuration_is_refused() {
    for (members, told) in [
        (r#","config":{"Env":"a"}"#, "config: Env: invalid type"),
        (
            r#","history":[{"created_by":"a"},{"created_by":"b"}]"#,
            "too many non-empty layers in History section",
        ),
    ] {
        let config = config_with(members);
        let archive = oci_archive_of(config.as_bytes(), &[&top()], "me/app:1", gzip);
        let bed = Bed::new();
        let before = bed.files();
        let error = bed.load(&archive).unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
        assert_eq!(error.class(), ErrorClass::InvalidParameter);
        assert_eq!(bed.files(), before);
    }
}

#[test]
fn the_list_of_an_archive_is_read_as_go_reads_it() {
    let (layer, config) = (top(), config_with(""));
    let archive = Tar::new()
        .file("c.json", &config)
        .file("l.tar", &layer)
        .file(
            "manifest.json",
            r#"[{"config":"c.json","REPOTAGS":["old:1"],"RepoTags":["app:1"],"layers":["l.tar"],"Parent":null}]"#,
        )
        .end();
    let loaded = Bed::new().load(&archive).unwrap();
    assert_eq!(familiar(&loaded[0].tags), ["app:1"]);
}
