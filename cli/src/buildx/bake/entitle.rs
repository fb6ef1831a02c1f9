//! What a bake file may reach beyond the directory it is run in: only what `--allow` grants.
//! Source: buildx `bake/entitlements.go`.

use super::target::Target;
use agent_api::client::build::is_remote;
use std::path::{Component, Path, PathBuf};

/// What was granted.
#[derive(Debug, Default)]
pub(super) struct Granted {
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
    ssh: bool,
    /// `network.host`, `security.insecure`.
    pub(super) build: Vec<String>,
}

impl Granted {
    /// Reads `--allow`; the directory it is run in needs none.
    pub(super) fn parse(flags: &[String], here: &Path) -> Result<Self, String> {
        let mut granted = Self {
            read: vec![here.to_owned()],
            write: vec![here.to_owned()],
            ..Self::default()
        };
        if std::env::var("BUILDX_BAKE_ENTITLEMENTS_FS").is_ok_and(|value| value == "0") {
            granted.read.push("/".into());
            granted.write.push("/".into());
        }
        for flag in flags {
            let (name, path) = flag.split_once('=').unwrap_or((flag, ""));
            let path = match path {
                "*" => PathBuf::from("/"),
                path => real(&here.join(path)),
            };
            match name {
                "fs" => {
                    granted.read.push(path.clone());
                    granted.write.push(path);
                }
                "fs.read" => granted.read.push(path),
                "fs.write" => granted.write.push(path),
                "ssh" => granted.ssh = true,
                "network.host" | "security.insecure" => granted.build.push(name.to_owned()),
                other => return Err(format!("--allow {other} is not supported")),
            }
        }
        Ok(granted)
    }

    /// What a target needs and nobody granted, as flags that would grant it.
    pub(super) fn missing(&self, name: &str, target: &Target, here: &Path) -> Vec<String> {
        let mut missing = Vec::new();
        let mut need = |kind: &str, allowed: &[PathBuf], path: &str| {
            let real = real(&here.join(path));
            if !allowed.iter().any(|allowed| real.starts_with(allowed)) {
                missing.push(format!("--allow {kind}={}", real.display()));
            }
        };
        let context = target.context.as_ref().map_or(".", |context| &context.0);
        let is_local = |place: &str| {
            !(place == "-"
                || is_remote(place)
                || place.contains("://")
                || place.starts_with("target:"))
        };
        if is_local(context) {
            need("fs.read", &self.read, context);
            if let Some(dockerfile) = target
                .dockerfile
                .as_ref()
                .filter(|_| target.dockerfile_inline.is_none())
            {
                let path = Path::new(context).join(&dockerfile.0);
                need("fs.read", &self.read, &path.to_string_lossy());
            }
        }
        for place in target
            .contexts
            .iter()
            .flat_map(|contexts| contexts.values())
        {
            match place.0.strip_prefix("oci-layout://") {
                Some(layout) => need("fs.read", &self.read, layout),
                None if is_local(&place.0) => need("fs.read", &self.read, &place.0),
                None => {}
            }
        }
        let paths = |entries: &Option<Vec<super::target::Entry>>, keys: &[&str]| -> Vec<String> {
            let entries = entries
                .iter()
                .flatten()
                .flat_map(|entry| entry.0.split(','));
            let value = |field: &str| {
                let (key, value) = field.trim_matches('"').split_once('=')?;
                keys.contains(&key).then(|| value.to_owned())
            };
            entries.filter_map(value).collect()
        };
        for path in paths(&target.secret, &["src", "source"]) {
            need("fs.read", &self.read, &path);
        }
        for path in paths(&target.cache_from, &["src"]) {
            need("fs.read", &self.read, &path);
        }
        let mut written = paths(&target.output, &["dest"]);
        written.extend(paths(&target.cache_to, &["dest"]));
        // `output = ["out"]` is a directory.
        let plain = target
            .output
            .iter()
            .flatten()
            .filter(|entry| !entry.0.contains('='));
        written.extend(plain.map(|entry| entry.0.clone()));
        for path in written.iter().filter(|path| *path != "-") {
            need("fs.write", &self.write, path);
        }
        if target.ssh.as_ref().is_some_and(|agents| !agents.is_empty()) && !self.ssh {
            missing.push("--allow ssh".to_owned());
        }
        let host = target
            .network
            .as_ref()
            .is_some_and(|network| network.0 == "host");
        let listed = target
            .entitlements
            .iter()
            .flatten()
            .map(|entitlement| entitlement.0.as_str());
        for wanted in listed.chain(host.then_some("network.host")) {
            if !self.build.iter().any(|granted| granted == wanted) {
                missing.push(format!("--allow {wanted}"));
            }
        }
        tracing::debug!(target = name, ?missing, "entitlements");
        missing
    }
}

/// The path with its links followed as far as it exists, and without `..` behind that.
fn real(path: &Path) -> PathBuf {
    let mut rest = Vec::new();
    let mut at = path.to_owned();
    loop {
        if let Ok(real) = at.canonicalize() {
            return rest
                .iter()
                .rev()
                .fold(real, |mut path: PathBuf, part: &PathBuf| {
                    match part.components().next() {
                        Some(Component::ParentDir) => {
                            path.pop();
                        }
                        _ => path.push(part),
                    }
                    path
                });
        }
        let Some(last) = at.components().next_back() else {
            return path.to_owned();
        };
        rest.push(PathBuf::from(last.as_os_str()));
        at.pop();
    }
}
