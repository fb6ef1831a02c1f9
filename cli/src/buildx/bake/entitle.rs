//! What a bake file may reach beyond the directory it is run in: only what `--allow` grants. Builds are judged as they
//! will be done, never the text they were read from.
//! Source: buildx `bake/entitlements.go`.

use super::super::job::Job;
use agent_api::build::Entitlement;
use agent_api::client::build::Reach;
use std::path::{Component, Path, PathBuf};

/// What was granted.
#[derive(Debug, Default)]
pub(super) struct Granted {
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
    ssh: bool,
    build: Vec<Entitlement>,
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
                "network.host" => granted.build.push(Entitlement::NetworkHost),
                "security.insecure" => granted.build.push(Entitlement::SecurityInsecure),
                other => return Err(format!("--allow {other} is not supported")),
            }
        }
        Ok(granted)
    }

    /// What a build needs and nobody granted, as flags that would grant it.
    pub(super) fn missing(&self, job: &Job, here: &Path) -> Vec<String> {
        let env = |name: &str| std::env::var(name).ok();
        // A directory stands for everything in it.
        let mut wanted: Vec<(&str, PathBuf)> = Vec::new();
        let mut need = |kind: &'static str, allowed: &[PathBuf], path: &Path| {
            let real = real(&here.join(path));
            let known = wanted.iter().filter(|(other, _)| *other == kind);
            let mut covered = allowed.iter().chain(known.map(|(_, path)| path));
            if !covered.any(|above| real.starts_with(above)) {
                wanted.push((kind, real));
            }
        };
        let reach = job.spec.reach(&env);
        for used in &reach {
            match used {
                Reach::Read(path) => need("fs.read", &self.read, path),
                Reach::Write(path) => need("fs.write", &self.write, path),
                Reach::Keys => {}
            }
        }
        let flag = |(kind, path): (&str, PathBuf)| format!("--allow {kind}={}", path.display());
        let mut missing: Vec<String> = wanted.into_iter().map(flag).collect();
        if reach.contains(&Reach::Keys) && !self.ssh {
            missing.push("--allow ssh".to_owned());
        }
        for wanted in &job.spec.request.allow {
            if !self.build.contains(wanted) {
                missing.push(format!("--allow {}", word(*wanted)));
            }
        }
        tracing::debug!(target = job.name, ?missing, "entitlements");
        missing
    }
}

/// From now on the job's paths are what they are now: what an earlier build of the same command puts there does not
/// lead it elsewhere.
pub(super) fn settle(job: &mut Job, here: &Path) {
    let env = |name: &str| std::env::var(name).ok();
    let here = real(here);
    job.spec.settle(&env, &|path| real(&here.join(path)));
}

/// What a permission is called.
fn word(entitlement: Entitlement) -> &'static str {
    match entitlement {
        Entitlement::NetworkHost => "network.host",
        Entitlement::SecurityInsecure => "security.insecure",
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

#[cfg(test)]
mod tests {
    use super::super::file::Definitions;
    use super::super::{jobs, resolve};
    use super::*;

    /// What a target in `here` needs.
    fn missing(here: &Path, target: &str, flags: &[&str]) -> Vec<String> {
        let mut definitions = Definitions::default();
        let text = format!(r#"{{"target": {{"default": {target}}}}}"#);
        definitions.add_json(&text).unwrap();
        let scope = definitions.scope(&|_| None, &[]).unwrap();
        let resolved = resolve::resolve(&definitions, &scope, &[], &[]).unwrap();
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let granted = Granted::parse(&flags, here).unwrap();
        let jobs = jobs::jobs(&resolved, here).unwrap();
        jobs.iter()
            .flat_map(|job| granted.missing(job, here))
            .collect()
    }

    #[test]
    fn nothing_is_reached_that_was_not_granted_however_it_is_written() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().canonicalize().unwrap();
        let (here, outside) = (root.join("here"), root.join("outside"));
        std::fs::create_dir_all(&here).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("key"), "hush").unwrap();
        std::os::unix::fs::symlink(&outside, here.join("link")).unwrap();
        let out = outside.display();
        let read = format!("--allow fs.read={out}");
        let key = format!("{read}/key");
        let write = format!("--allow fs.write={out}/w");
        for (target, wanted) in [
            (format!(r#"{{"context": "cwd://{out}"}}"#), &read),
            (format!(r#"{{"context": "{out}"}}"#), &read),
            (format!(r#"{{"dockerfile": "cwd://{out}/key"}}"#), &key),
            (format!(r#"{{"dockerfile": "{out}/key"}}"#), &key),
            (format!(r#"{{"contexts": {{"a": "cwd://{out}"}}}}"#), &read),
            (
                format!(r#"{{"contexts": {{"a": "oci-layout://{out}:1"}}}}"#),
                &read,
            ),
            (format!(r#"{{"secret": ["ID=k,SRC={out}/key"]}}"#), &key),
            (format!(r#"{{"secret": ["id=k,\"src={out}/key\""]}}"#), &key),
            (format!(r#"{{"secret": ["id={out}/key"]}}"#), &key),
            (format!(r#"{{"ssh": ["default={out}/key"]}}"#), &key),
            (
                format!(r#"{{"cache-from": ["type=local,SRC={out}"]}}"#),
                &read,
            ),
            (
                format!(r#"{{"cache-to": ["type=local,DEST={out}/w"]}}"#),
                &write,
            ),
            (
                format!(r#"{{"output": ["type=tar,DEST={out}/w"]}}"#),
                &write,
            ),
            (format!(r#"{{"output": ["{out}/w"]}}"#), &write),
            (
                format!(r#"{{"output": [{{"type": "local", "dest": "{out}/w"}}]}}"#),
                &write,
            ),
        ] {
            let missing = missing(&here, &target, &[]);
            assert!(missing.contains(wanted), "{target}: {missing:?}");
            let granted = ["fs.read=../outside", "fs.write=../outside", "ssh"];
            let rest = super::tests::missing(&here, &target, &granted);
            assert!(rest.is_empty(), "{target}: {rest:?}");
        }
        assert_eq!(
            missing(&here, r#"{"network": "host", "ssh": ["default"]}"#, &[]),
            ["--allow ssh", "--allow network.host"]
        );
        let inside =
            r#"{"context": "https://host/a.git", "secret": ["id=k,env=K"], "output": ["out"]}"#;
        assert!(missing(&here, inside, &[]).is_empty());
    }
}
