//! Archives that mean harm are refused with a reason, and leave nothing behind.

use agent_image::{Digest, ErrorClass, ImportOptions, Limits, silent};
use tar::EntryType;

use crate::Bed;
use crate::archive::{Tar, add_blob, config, docker_archive, gzip, oci_archive};

/// What an empty store consists of.
const EMPTY: [&str; 5] = [
    "content",
    "content/blobs",
    "content/blobs/sha256",
    "content/lock",
    "content/oci-layout",
];

fn assert_nothing_left(bed: &Bed) {
    let mut expected: Vec<String> = EMPTY.iter().map(|name| (*name).to_owned()).collect();
    expected.push("layers".to_owned());
    assert_eq!(bed.files(), expected);
}

/// Loads an image with this layer and returns why it was refused. Around the store's root there is a canary.
fn refused(layer: &[u8]) -> String {
    refused_with(layer, Limits::default())
}

fn refused_with(layer: &[u8], limits: Limits) -> String {
    let bed = Bed::with(limits);
    let canary = bed.directory.path().join("canary");
    std::fs::write(&canary, "untouched").unwrap();
    let error = bed
        .load(&docker_archive(&[(&[layer], &["x:1"])]))
        .expect_err("a hostile layer was taken");
    assert_eq!(error.class(), ErrorClass::InvalidParameter, "{error}");
    assert_eq!(std::fs::read_to_string(&canary).unwrap(), "untouched");
    std::fs::remove_file(&canary).unwrap();
    assert_nothing_left(&bed);
    assert!(bed.store.list(&Default::default()).unwrap().is_empty());
    error.to_string()
}

#[test]
fn paths_out_of_the_layer() {
    for path in [
        "../canary",
        "a/../../canary",
        "../../../../../../../../tmp/canary",
    ] {
        let error = refused(&Tar::new().file(path, "gotcha").end());
        assert!(error.contains("it leads out of the layer"), "{error}");
        assert!(error.contains(path), "{error}");
    }
}

#[test]
fn links_out_of_the_layer() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    std::fs::write(&victim, "untouched").unwrap();
    let target = outside.path().to_str().unwrap();
    // Through a symbolic link to a directory outside: resolved inside, where there is no such directory.
    let error = refused(
        &Tar::new()
            .symlink("out", target)
            .file("out/victim", "gotcha")
            .end(),
    );
    assert!(error.contains("out/victim"), "{error}");
    // The same by climbing.
    refused(
        &Tar::new()
            .symlink("out", &format!("../../../../../../..{target}"))
            .file("out/victim", "x")
            .end(),
    );
    // Hard links resolve inside, too.
    let error = refused(&Tar::new().hard_link("mine", victim.to_str().unwrap()).end());
    assert!(error.contains("no file of this layer"), "{error}");
    refused(
        &Tar::new()
            .symlink("out", target)
            .hard_link("mine", "out/victim")
            .end(),
    );
    refused(&Tar::new().hard_link("mine", "../../../victim").end());
    refused(
        &Tar::new()
            .symlink("fd", "/proc/self/root")
            .file("fd/tmp/gotcha", "x")
            .end(),
    );
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
    assert_eq!(
        std::fs::metadata(&victim)
            .map(|m| std::os::unix::fs::MetadataExt::nlink(&m))
            .unwrap(),
        1
    );
    assert_eq!(crate::files(outside.path()), ["victim"]);
}

#[test]
fn a_last_component_that_is_a_link_is_replaced_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    std::fs::write(&victim, "untouched").unwrap();
    let bed = Bed::new();
    let target = victim.to_str().unwrap();
    let layer = Tar::new()
        .symlink("a", target)
        .file("a", "mine")
        .symlink("b", target)
        .add("b", EntryType::Directory, "", b"", |h| h.set_mode(0o777))
        .end();
    let mut input = &layer[..];
    bed.store
        .import(&mut input, &ImportOptions::default(), &silent)
        .unwrap();
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
    assert!(std::fs::metadata(&victim).unwrap().is_file());
}

#[test]
fn abused_whiteouts_and_links() {
    for (layer, reason) in [
        (Tar::new().file("d/.wh...", ""), "a whiteout of nothing"),
        (Tar::new().file(".wh..", ""), "a whiteout of nothing"),
        (Tar::new().file(".wh.", ""), "a whiteout of nothing"),
        (
            Tar::new().file(".wh.dir/file", ""),
            "a whiteout cannot be a directory",
        ),
        (
            Tar::new().file(".wh.gone", "").hard_link("link", "gone"),
            "no file of this layer",
        ),
        (
            Tar::new().dir("d/").hard_link("link", "d"),
            "no file of this layer",
        ),
        (
            Tar::new().file("a", "a").hard_link("a", "a"),
            "a hard link to itself",
        ),
        (Tar::new().hard_link("a", "."), "no file of this layer"),
        (
            Tar::new().file(".", "a"),
            "the layer's root must be a directory",
        ),
        (
            Tar::new().file("a", "a").file("a/b", "b"),
            "Not a directory",
        ),
    ] {
        let error = refused(&layer.end());
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn malformed_tars() {
    let good = Tar::new().file("a", vec![b'a'; 5000]).end();
    let mut checksum = good.clone();
    checksum[0] = b'b';
    let broken =
        |edit: fn(&mut tar::Header)| Tar::new().add("a", EntryType::Regular, "", b"", edit).end();
    for (layer, reason) in [
        (checksum, "a.tar"),
        (good[..600].to_vec(), "unexpected end of the archive"),
        (good[..512].to_vec(), "unexpected end of the archive"),
        (
            broken(|h| h.as_old_mut().size = *b"zzzzzzzzzzz\0"),
            "bad size",
        ),
        (
            broken(|h| h.as_old_mut().size = [0xff; 12]),
            "negative size",
        ),
        (
            broken(|h| h.as_old_mut().mtime = *b"99999999999\0"),
            "bad time",
        ),
        (
            broken(|h| h.as_old_mut().uid = *b"\xff\xff\xff\xff\xff\xff\xff\xfe"),
            "bad owner",
        ),
        (
            broken(|h| h.set_entry_type(EntryType::new(b'Z'))),
            "unknown entry type",
        ),
        (
            Tar::new().pax(&[("path", b"a\0b")]).file("a", "").end(),
            "a zero byte in a PAX name",
        ),
        (
            Tar::new().pax(&[("size", b"-1")]).file("a", "").end(),
            "bad PAX size",
        ),
        (
            Tar::new()
                .pax(&[("GNU.sparse.map", b"0,9"), ("GNU.sparse.size", b"4")])
                .file("a", "aaaa")
                .end(),
            "sparse map",
        ),
        (
            Tar::new()
                .pax(&[
                    ("GNU.sparse.map", b"0,4,18446744073709551615,4"),
                    ("GNU.sparse.size", b"9"),
                ])
                .file("a", "aaaaaaaa")
                .end(),
            "sparse map",
        ),
    ] {
        let error = refused(&layer);
        let fits = error.contains(reason)
            || (reason == "a.tar" && error.contains("neither a layer nor JSON"));
        assert!(fits, "{error} (expected: {reason})");
    }
}

#[test]
fn limits_hold() {
    let limits = Limits {
        entries: 10,
        layer_bytes: 1 << 20,
        ratio: 20,
        ratio_grace_bytes: 64 << 10,
        path_depth: 8,
        path_bytes: 300,
        pax_bytes: 2000,
        sparse_fragments: 4,
        replaced: 3,
        ..Limits::default()
    };
    let again = (0..5).fold(Tar::new(), |tar, n| tar.file("x", format!("{n}")));
    let many = (0..11).fold(Tar::new(), |tar, n| tar.file(&n.to_string(), ""));
    let headers = (0..11).fold(Tar::new(), |tar, _| tar.pax(&[("comment", b"c")]));
    let map: Vec<String> = (0..5).map(|n| format!("{},1", n * 10)).collect();
    let huge = |h: &mut tar::Header| h.set_size(1 << 40);
    for (layer, reason) in [
        (again.end(), "more than 3 files of the layer are replaced"),
        (many.end(), "too many entries"),
        (headers.file("x", "").end(), "too many entries"),
        (
            Tar::new()
                .pax(&[("size", u64::MAX.to_string().as_bytes())])
                .file("x", "")
                .end(),
            "too many bytes in one file",
        ),
        (
            Tar::new().file(&"d/".repeat(9), "").end(),
            "nested too deeply",
        ),
        (
            Tar::new()
                .file(&"n".repeat(100), "")
                .pax(&[("path", "p".repeat(301).as_bytes())])
                .file("x", "")
                .end(),
            "too many bytes in a name",
        ),
        (
            Tar::new()
                .pax(&[("path", "p".repeat(270).as_bytes())])
                .file("x", "")
                .end(),
            "longer than 255 bytes",
        ),
        (
            Tar::new()
                .pax(&[("comment", &[b'c'; 3000])])
                .file("x", "")
                .end(),
            "too many bytes of PAX",
        ),
        (
            Tar::new()
                .pax(&[
                    ("GNU.sparse.map", map.join(",").as_bytes()),
                    ("GNU.sparse.size", b"99"),
                ])
                .file("x", "aaaaa")
                .end(),
            "fragments",
        ),
        (
            Tar::new().add("x", EntryType::Regular, "", b"", huge).end(),
            "too many bytes in one file",
        ),
        (
            Tar::new()
                .pax(&[
                    ("GNU.sparse.map", b""),
                    ("GNU.sparse.size", b"1099511627776"),
                ])
                .file("x", "")
                .end(),
            "sparse map",
        ),
        (
            gzip(&Tar::new().file("zeros", vec![0u8; 500 << 10]).end()),
            "decompression bomb",
        ),
    ] {
        let error = refused_with(&layer, limits.clone());
        assert!(error.contains(reason), "{error} (expected: {reason})");
    }
}

#[test]
fn a_layer_must_be_what_the_configuration_promises() {
    let (good, evil) = (
        Tar::new().file("a", "good").end(),
        Tar::new().file("a", "evil").end(),
    );
    let bed = Bed::new();
    let archive = |config: &[u8], layers: serde_json::Value| {
        let manifest =
            serde_json::json!([{"Config": "c.json", "RepoTags": ["x:1"], "Layers": layers}]);
        Tar::new()
            .file("l/layer.tar", &evil)
            .file("c.json", config)
            .file("manifest.json", manifest.to_string())
            .end()
    };
    let error = bed
        .load(&archive(
            &config(&[&good], ""),
            serde_json::json!(["l/layer.tar"]),
        ))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "invalid archive: invalid diffID for layer 0: expected \"{}\", got \"{}\"",
            Digest::of(&good),
            Digest::of(&evil)
        )
    );
    let error = bed
        .load(&archive(&config(&[&evil], ""), serde_json::json!([])))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid archive: invalid manifest, layers length mismatch: expected 0, got 1"
    );
    for (config, reason) in [
        (&b"{}"[..], "no RootFS key"),
        (b"[]", "invalid image configuration"),
        (b"[1]", "invalid image configuration"),
        (
            b"{\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:../../x\"]}}",
            "invalid checksum digest format",
        ),
        (
            b"{\"os\":\"windows\",\"rootfs\":{\"type\":\"layers\"}}",
            "cannot load windows image on linux",
        ),
    ] {
        let error = bed
            .load(&archive(config, serde_json::json!(["l/layer.tar"])))
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "{error}");
    }
    let error = bed
        .load(&archive(
            &config(&[&evil], ""),
            serde_json::json!(["../../etc/passwd"]),
        ))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid archive: ../../etc/passwd is missing"
    );
    assert_nothing_left(&bed);
}

#[test]
fn blobs_must_have_the_digest_of_their_name() {
    let layer = Tar::new().file("a", "a").end();
    let bed = Bed::new();
    let good = oci_archive(&[&layer], "x:1", gzip);
    // Swap the layer's blob for another under the same name.
    let name = format!("blobs/sha256/{}", Digest::of(&gzip(&layer)).hex());
    let other = gzip(&Tar::new().file("a", "b").end());
    let replay = |swap: &str, bytes: &[u8]| {
        let mut tar = Tar::new();
        for entry in tar::Archive::new(&good[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut own = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut own).unwrap();
            tar = tar.file(&name, if name == swap { bytes } else { &own });
        }
        tar.end()
    };
    let error = bed.load(&replay(&name, &other)).unwrap_err().to_string();
    assert!(error.contains("has the wrong content"), "{error}");
    let config_name = format!(
        "blobs/sha256/{}",
        Digest::of(&config(&[&layer], "oci")).hex()
    );
    let error = bed
        .load(&replay(&config_name, b"{}"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("has the wrong content"), "{error}");
    assert_nothing_left(&bed);
    bed.load(&replay("", b"")).unwrap();
}

#[test]
fn a_blob_is_no_link_to_another() {
    let layer = Tar::new().file("a", "a").end();
    let good = oci_archive(&[&layer], "x:1", gzip);
    let mut blobs = Vec::new();
    for entry in tar::Archive::new(&good[..]).entries().unwrap() {
        let entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        blobs.extend(Some(name).filter(|name| name.starts_with("blobs/")));
    }
    assert_eq!(blobs.len(), 3);
    // Each of them in turn is what its name says only somewhere else.
    for linked in &blobs {
        for hard in [true, false] {
            let mut tar = Tar::new();
            for entry in tar::Archive::new(&good[..]).entries().unwrap() {
                let mut entry = entry.unwrap();
                let name = entry.path().unwrap().to_str().unwrap().to_owned();
                let mut own = Vec::new();
                std::io::Read::read_to_end(&mut entry, &mut own).unwrap();
                tar = match (name == *linked, hard) {
                    (false, _) => tar.file(&name, &own),
                    (true, true) => tar.file("other", &own).hard_link(&name, "other"),
                    (true, false) => tar.file("other", &own).symlink(&name, "../../other"),
                };
            }
            let bed = Bed::new();
            let error = bed.load(&tar.end()).unwrap_err().to_string();
            assert!(error.contains("is a link"), "{linked}: {error}");
            assert_nothing_left(&bed);
        }
    }
}

#[test]
fn broken_archives_are_refused_whole() {
    let layer = Tar::new().file("a", vec![7; 100_000]).end();
    let whole = docker_archive(&[(&[&layer], &["x:1"])]);
    let compressed = gzip(&whole);
    let bed = Bed::new();
    for cut in [10, 600, 5000, 60_000, whole.len() - 1025] {
        bed.load(&whole[..cut.min(whole.len())])
            .expect_err("cut short");
        assert_nothing_left(&bed);
    }
    for cut in [20, compressed.len() / 2, compressed.len() - 1] {
        bed.load(&compressed[..cut]).expect_err("cut short");
        assert_nothing_left(&bed);
    }
    for (archive, reason) in [
        (b"".to_vec(), "does not contain a manifest.json"),
        (b"hello".to_vec(), "unexpected end of the archive"),
        (vec![b'x'; 2000], "checksum does not match"),
        (b"BZh91AY&SY".to_vec(), "bzip2"),
        (Tar::new().file("manifest.json", "null").end(), "cannot be null"),
        (Tar::new().file("manifest.json", "[1").end(), "failed to decode manifest.json"),
        (Tar::new().file("manifest.json", "[".repeat(100_000)).end(), "failed to decode manifest.json"),
        (Tar::new().file("repositories", "{}").end(), "Docker before 1.10"),
        (Tar::new().file("index.json", r#"{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"sha256:00","size":1}]}"#).end(), "failed to decode index.json"),
        (Tar::new().symlink("manifest.json", "manifest.json").end(), "manifest.json is missing"),
    ] {
        let error = bed.load(&archive).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        assert_nothing_left(&bed);
    }
}

#[test]
fn json_is_bounded() {
    let limits = Limits {
        json_bytes: 1000,
        json_total_bytes: 3000,
        images: 3,
        index_depth: 2,
        members: 50,
        ..Limits::default()
    };
    let bed = Bed::with(limits);
    let load = |archive: Tar| bed.load(&archive.end()).unwrap_err().to_string();
    let big = format!("[{}]", " ".repeat(1000));
    assert!(load(Tar::new().file("manifest.json", &big)).contains("too large for a JSON document"));
    let many = (0..4).fold(Tar::new(), |tar, n| {
        tar.file(&format!("{n}.json"), big[..900].replace(' ', "1"))
    });
    assert!(load(many).contains("JSON documents together"));
    let members = (0..51).fold(Tar::new(), |tar, n| tar.file(&n.to_string(), ""));
    assert!(load(members).contains("too many entries"));
    // An index within an index within an index.
    let mut tar = Tar::new();
    let mut inner = serde_json::json!({"schemaVersion": 2, "manifests": []}).to_string();
    for _ in 0..3 {
        tar = add_blob(tar, inner.as_bytes());
        inner = serde_json::json!({"schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "digest": Digest::of(inner.as_bytes()), "size": inner.len()}]})
        .to_string();
    }
    assert!(load(tar.file("index.json", inner)).contains("nested more than 2 deep"));
    assert_nothing_left(&bed);
}

#[test]
fn a_bad_member_that_no_image_needs_does_no_harm() {
    let good = Tar::new().file("a", "a").end();
    let archive = docker_archive(&[(&[&good], &["x:1"])]);
    let mut tar = Tar::new().file("junk/layer.tar", Tar::new().file("../../x", "").end());
    tar.0.extend_from_slice(&archive);
    let bed = Bed::new();
    bed.load(&tar.0).unwrap();
    assert_eq!(
        bed.files()
            .iter()
            .filter(|name| name.ends_with("/diff"))
            .count(),
        1
    );
}
