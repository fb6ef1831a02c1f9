//! Descriptions of builds against what they become.

use super::*;
use crate::types::build::{
    CacheExport, CacheImport, CacheMode, CompressionKind, DockerfileSource, Output,
};
use std::fs;

fn no_env(_: &str) -> Option<String> {
    None
}

fn prepared(spec: BuildSpec) -> BuildRequest {
    spec.prepare(&no_env).unwrap().0
}

fn here(directory: &tempfile::TempDir) -> BuildSpec {
    BuildSpec {
        context: directory.path().to_str().unwrap().to_owned(),
        ..BuildSpec::default()
    }
}

#[test]
fn the_dockerfile_and_its_ignore_file_are_sent_along() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("Dockerfile"), "FROM a").unwrap();
    fs::write(path("other"), "FROM b").unwrap();
    fs::write(path(".dockerignore"), "x").unwrap();
    let source = |spec| prepared(spec).dockerfile;
    let inline = |name: &str, text: &str, ignore: Option<(&str, &str)>| DockerfileSource::Inline {
        name: name.to_owned(),
        text: text.to_owned(),
        ignore: ignore.map(|(name, text)| crate::types::build::IgnoreFile {
            name: name.to_owned(),
            text: text.to_owned(),
        }),
    };
    let common = Some((".dockerignore", "x"));
    assert_eq!(
        source(here(&directory)),
        inline("Dockerfile", "FROM a", common)
    );
    let with = |dockerfile| BuildSpec {
        dockerfile,
        ..here(&directory)
    };
    let other = || DockerfilePlace::Path(path("other"));
    assert_eq!(source(with(other())), inline("other", "FROM b", common));
    fs::write(path("other.dockerignore"), "y").unwrap();
    assert_eq!(
        source(with(other())),
        inline("other", "FROM b", Some(("other.dockerignore", "y")))
    );
    let text = DockerfilePlace::Inline("FROM c".to_owned());
    assert_eq!(source(with(text)), inline("Dockerfile", "FROM c", common));
    let error = with(DockerfilePlace::Path(path("none")))
        .prepare(&no_env)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("none: no such file or directory"),
        "{error}"
    );
    fs::remove_file(path("Dockerfile")).unwrap();
    let error = here(&directory).prepare(&no_env).unwrap_err().to_string();
    assert_eq!(
        error,
        "failed to read dockerfile: open Dockerfile: no such file or directory"
    );
    fs::write(path("dockerfile"), "FROM d").unwrap();
    assert_eq!(
        source(here(&directory)),
        inline("dockerfile", "FROM d", common)
    );
}

#[test]
fn contexts_are_directories_addresses_images_and_layouts() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("Dockerfile"), "FROM a").unwrap();
    let digest = format!("sha256:{}", "1".repeat(64));
    let index = format!(
        r#"{{"manifests": [{{"digest": "{digest}", "annotations": {{"org.opencontainers.image.ref.name": "1"}}}}]}}"#
    );
    fs::write(directory.path().join("index.json"), index).unwrap();
    let blobs = directory.path().join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join("1".repeat(64)), "{}").unwrap();
    let path = directory.path().to_str().unwrap();
    let mut spec = here(&directory);
    for (name, place) in [
        ("dir", path.to_owned()),
        ("git", "https://host/a.git".to_owned()),
        ("image", "docker-image://alpine".to_owned()),
        ("layout", format!("oci-layout://{path}:1")),
    ] {
        spec.named_contexts.insert(name.to_owned(), place);
    }
    let request = prepared(spec);
    assert!(
        matches!(&request.context, ContextOffer::Directory { path: shown, .. } if shown == path)
    );
    let named = &request.named_contexts;
    assert!(matches!(named["dir"], ContextOffer::Directory { .. }));
    assert!(matches!(&named["git"], ContextOffer::Remote { url } if url == "https://host/a.git"));
    assert!(matches!(&named["image"], ContextOffer::Image { reference } if reference == "alpine"));
    assert!(
        matches!(&named["layout"], ContextOffer::OciLayout { reference } if *reference == digest)
    );
    let remote = BuildSpec {
        context: "https://host/a.git".to_owned(),
        dockerfile: DockerfilePlace::Path("sub/Dockerfile".into()),
        ..BuildSpec::default()
    };
    let request = prepared(remote);
    assert!(matches!(request.context, ContextOffer::Remote { .. }));
    assert!(
        matches!(request.dockerfile, DockerfileSource::Context { path } if path == "sub/Dockerfile")
    );
    let error = BuildSpec {
        context: "no/where".to_owned(),
        ..BuildSpec::default()
    };
    let error = error.prepare(&no_env).unwrap_err().to_string();
    assert_eq!(
        error,
        "unable to prepare context: path \"no/where\" not found"
    );
}

#[test]
fn outputs_are_buildxs() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("Dockerfile"), "FROM a").unwrap();
    let output = |text: &str| {
        let spec = BuildSpec {
            outputs: vec![OutputSpec::parse(text).unwrap()],
            ..here(&directory)
        };
        prepared(spec).outputs.remove(0)
    };
    assert!(matches!(output("out"), Output::Local { id, platform_split: None } if id == "0"));
    assert!(matches!(output("-"), Output::Tar { .. }));
    assert!(matches!(output("type=tar,dest=x.tar"), Output::Tar { .. }));
    assert!(matches!(output("type=cacheonly"), Output::CacheOnly));
    assert!(matches!(output("type=docker"), Output::Image(image) if !image.push));
    assert!(matches!(
        output("type=docker,dest=x.tar"),
        Output::Docker(_)
    ));
    assert!(matches!(output("type=registry"), Output::Image(image) if image.push));
    let Output::Image(image) = output(
        "type=image,\"name=a,b\",push=true,compression=zstd,compression-level=3,force-compression=true,oci-mediatypes=false",
    ) else {
        panic!("an image");
    };
    assert_eq!(image.names, ["a", "b"]);
    assert_eq!(image.compression.kind, Some(CompressionKind::Zstd));
    assert_eq!(
        (image.compression.level, image.oci_media_types),
        (Some(3), Some(false))
    );
    let Output::Oci(archive) = output("type=oci,dest=d,tar=false,annotation.k=v") else {
        panic!("an archive");
    };
    assert_eq!(archive.id, "0");
    let annotated = OutputSpec::parse("type=image,annotation-index.k=v,annotation.l=w").unwrap();
    assert_eq!(annotated.annotations["index:k"], "v");
    assert_eq!(annotated.annotations["l"], "w");
    assert!(OutputSpec::parse("type=oci").unwrap().is_stdout());
    for (bad, reason) in [
        ("type=local", "dest is required"),
        ("type=local,dest=-", "cannot be stdout"),
        ("dest=x", "type is required"),
        ("type=frob", "\"frob\" is not supported"),
        ("type=image,frob=1", "attribute \"frob\""),
        ("type=image,push=maybe", "neither true nor false"),
        ("type=image,compression=estargz", "estargz"),
        ("type=image,store=false", "store=false"),
    ] {
        let error = OutputSpec::parse(bad).unwrap_err().to_string();
        assert!(error.contains(reason), "{bad}: {error}");
    }
}

#[test]
fn caches_are_of_registries_and_directories() {
    assert!(
        matches!(CacheSource::parse("user/app:cache"), Ok(CacheSource::Registry { reference }) if reference == "user/app:cache")
    );
    assert!(
        matches!(CacheSource::parse("type=local,src=dir"), Ok(CacheSource::Local { tag, .. }) if tag == "latest")
    );
    assert!(matches!(
        CacheDestination::parse("type=inline"),
        Ok(CacheDestination::Inline)
    ));
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("Dockerfile"), "FROM a").unwrap();
    let layout = directory.path().to_str().unwrap();
    let spec = || BuildSpec {
        cache_from: vec![
            CacheSource::parse("type=registry,ref=r").unwrap(),
            CacheSource::parse(&format!("type=local,src={layout}")).unwrap(),
        ],
        cache_to: vec![
            CacheDestination::parse("type=registry,ref=r,mode=max,image-manifest=true").unwrap(),
            CacheDestination::parse("type=local,dest=d").unwrap(),
        ],
        ..here(&directory)
    };
    let request = prepared(spec());
    assert_eq!(
        request.cache_from.len(),
        1,
        "a directory without a layout is passed over"
    );
    assert!(matches!(
        &request.cache_to[0],
        CacheExport::Registry {
            mode: CacheMode::Max,
            ..
        }
    ));
    assert!(matches!(&request.cache_to[1], CacheExport::Local { id, .. } if id == "cache-1"));
    fs::write(directory.path().join("index.json"), "{}").unwrap();
    assert!(matches!(&prepared(spec()).cache_from[1], CacheImport::Local { id, .. } if id == "1"));
    for bad in [
        "type=gha",
        "type=registry",
        "type=local,src=a,frob=1",
        "a,b",
    ] {
        assert!(CacheSource::parse(bad).is_err(), "{bad}");
    }
    for bad in [
        "type=s3,bucket=x",
        "type=local,dest=d,mode=mid",
        "type=inline,mode=max",
        "type=registry,ref=r,oci-mediatypes=false",
    ] {
        assert!(CacheDestination::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn secrets_are_files_or_variables() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, "t").unwrap();
    let env = |name: &str| (name == "TOKEN").then(|| "v".to_owned());
    let find = |text: &str| SecretSpec::parse(text)?.find(&env);
    use crate::client::build::SecretSource::{File, Value};
    let value = || Value(b"v".to_vec());
    let path = file.display();
    assert_eq!(
        find(&format!("id=a,src={path}")).unwrap(),
        ("a".to_owned(), File(file.clone()))
    );
    assert_eq!(find("id=a,env=TOKEN").unwrap().1, value());
    assert_eq!(find("type=env,id=TOKEN").unwrap().1, value());
    assert_eq!(find("type=env,id=a,src=TOKEN").unwrap().1, value());
    assert_eq!(find("id=TOKEN").unwrap().1, value());
    assert_eq!(find("id=a,env=UNSET").unwrap().1, Value(Vec::new()));
    for (bad, reason) in [
        ("src=a", "id is required"),
        ("id=a,frob=1", "unexpected key \"frob\""),
        (
            "id=a,src=/no/where",
            "failed to stat /no/where: no such file or directory",
        ),
        ("id=a,type=x", "unsupported secret type"),
    ] {
        let error = find(bad).unwrap_err().to_string();
        assert!(error.contains(reason), "{bad}: {error}");
    }
}

#[test]
fn agents_are_sockets_or_keys() {
    use crate::client::build::SshSource;
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("agent");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let broken = directory.path().join("broken");
    fs::write(&broken, "k").unwrap();
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/src/client/build/ssh/testdata");
    let key = format!("{keys}/ed25519-256");
    let shown = socket.to_str().unwrap();
    let env = |_: &str| Some(shown.to_owned());
    let is_socket = |source: SshSource| matches!(source, SshSource::Socket(path) if path == socket);
    let (id, found) = SshSpec::parse("default").unwrap().find(&env).unwrap();
    assert!(id == "default" && is_socket(found));
    let given = SshSpec::parse(&format!("id={shown}")).unwrap();
    assert!(is_socket(given.find(&no_env).unwrap().1));
    let two = SshSpec::parse(&format!("id={key},{keys}/rsa-pem")).unwrap();
    let (_, found) = two.find(&no_env).unwrap();
    assert!(matches!(found, SshSource::Keys(_)), "{found:?}");
    let refused = |text: &str| {
        SshSpec::parse(text)
            .unwrap()
            .find(&no_env)
            .unwrap_err()
            .to_string()
    };
    assert!(refused("default").contains("SSH_AUTH_SOCK"));
    assert!(refused(&format!("id={}", broken.display())).contains("no private key"));
    assert!(refused(&format!("id={keys}/encrypted")).contains("ssh-add"));
    assert!(refused(&format!("id={key},{shown}")).contains("combination"));
    assert!(refused(&format!("id={shown},{shown}")).contains("single socket"));
    assert!(refused(&format!("id={keys}")).contains("neither a key"));
    assert!(refused("id=/not/there").contains("/not/there"));
}
