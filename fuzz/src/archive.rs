//! `docker save` archives and OCI layouts: the documents in them are hostile.

use std::io::Write;

use agent_image::{LoadOptions, RemoveOptions, silent};
use ring::digest::{SHA256, digest};

use crate::scratch::STORE;

/// The first byte chooses what the rest is: the whole archive, its `manifest.json`, its `index.json`, a manifest, or an
/// image configuration; what is around it is sound.
pub fn archive(data: &[u8]) {
    let Some((&kind, document)) = data.split_first() else {
        return;
    };
    let bytes = match kind % 5 {
        0 => document.to_vec(),
        1 => tar(&[("manifest.json", document)]),
        2 => tar(&[("oci-layout", LAYOUT), ("index.json", document)]),
        3 => with_manifest(document),
        _ => with_config(document),
    };
    let Ok(loaded) = STORE.load(&mut bytes.as_slice(), &LoadOptions::default(), &silent) else {
        return;
    };
    for image in loaded {
        let force = RemoveOptions {
            force: true,
            ..RemoveOptions::default()
        };
        // Two entries of one archive may be the same image.
        let _ = STORE.remove(&image.id.to_string(), force, Vec::new);
    }
}

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

fn with_manifest(manifest: &[u8]) -> Vec<u8> {
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":{}}}]}}"#,
        name(manifest),
        manifest.len()
    );
    tar(&[
        ("oci-layout", LAYOUT),
        ("index.json", index.as_bytes()),
        (&path(manifest), manifest),
    ])
}

fn with_config(config: &[u8]) -> Vec<u8> {
    let manifest = format!(
        r#"[{{"Config":"{}","RepoTags":["fuzz:1"],"Layers":[]}}]"#,
        path(config)
    );
    tar(&[
        ("manifest.json", manifest.as_bytes()),
        (&path(config), config),
    ])
}

fn hex(bytes: &[u8]) -> String {
    let sum = digest(&SHA256, bytes);
    sum.as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn name(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

fn path(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", hex(bytes))
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, path, *content)
            .expect("written to memory");
    }
    let mut out = builder.into_inner().expect("written to memory");
    out.flush().expect("written to memory");
    out
}
