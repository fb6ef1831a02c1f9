//! `--secret` and `--config`: a name, or `source=…,target=…,uid=…,gid=…,mode=…`.
//! Source: docker/cli `opts/swarmopts/{secret,config}.go`, `cli/command/service/parse.go`.

use super::Known;
use crate::flags::mounts::csv;
use agent_api::swarm::{ConfigReference, ReferenceFile, SecretReference};
use std::collections::BTreeSet;

/// What one flag says.
pub(super) struct Reference {
    pub(super) name: String,
    pub(super) file: ReferenceFile,
}

pub(super) fn parse(flag: &str) -> Result<Reference, String> {
    let mut file = ReferenceFile {
        name: String::new(),
        uid: "0".to_owned(),
        gid: "0".to_owned(),
        mode: 0o444,
    };
    let fields = csv(flag)?;
    if let [name] = fields.as_slice()
        && !name.contains('=')
    {
        name.clone_into(&mut file.name);
        return Ok(Reference {
            name: name.clone(),
            file,
        });
    }
    let mut name = String::new();
    for field in fields {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"))?;
        match key.to_ascii_lowercase().as_str() {
            "source" | "src" => value.clone_into(&mut name),
            "target" => value.clone_into(&mut file.name),
            "uid" => value.clone_into(&mut file.uid),
            "gid" => value.clone_into(&mut file.gid),
            "mode" => {
                // As Go reads numbers: octal with a leading zero.
                let digits = value.strip_prefix("0o").or_else(|| value.strip_prefix('0'));
                let mode = match digits {
                    Some("") => Ok(0),
                    Some(octal) => u32::from_str_radix(octal, 8),
                    None => value.parse(),
                };
                file.mode = mode.map_err(|_| format!("invalid mode specified: {value:?}"))?;
            }
            _ => return Err(format!("invalid field in {flag:?}: {key}")),
        }
    }
    if name.is_empty() {
        return Err(format!("source is required in {flag:?}"));
    }
    if file.name.is_empty() {
        file.name.clone_from(&name);
    }
    Ok(Reference { name, file })
}

/// References to secrets, with the ids that are known.
pub(super) fn secrets(flags: &[String], known: &Known) -> Result<Vec<SecretReference>, String> {
    let mut targets = BTreeSet::new();
    let mut all = Vec::new();
    for flag in flags {
        let Reference { name, file } = parse(flag)?;
        if !targets.insert(file.name.clone()) {
            return Err(format!("duplicate secret target for {name} not allowed"));
        }
        let id = known.secrets.get(&name).cloned();
        all.push(SecretReference {
            secret_id: id.ok_or_else(|| format!("secret not found: {name}"))?,
            file: Some(file),
            secret_name: name,
        });
    }
    Ok(all)
}

/// References to configs, with the ids that are known.
pub(super) fn configs(flags: &[String], known: &Known) -> Result<Vec<ConfigReference>, String> {
    let mut targets = BTreeSet::new();
    let mut all = Vec::new();
    for flag in flags {
        let Reference { name, file } = parse(flag)?;
        if !targets.insert(file.name.clone()) {
            return Err(format!("duplicate config target for {name} not allowed"));
        }
        let id = known.configs.get(&name).cloned();
        all.push(ConfigReference {
            config_id: id.ok_or_else(|| format!("config not found: {name}"))?,
            file: Some(file),
            runtime: None,
            config_name: name,
        });
    }
    Ok(all)
}
