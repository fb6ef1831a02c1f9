//! `-v`, `--mount` and `--tmpfs`. Source: docker/cli `opts/mount.go`, `cli/command/container/opts.go`.

use super::bools;
use agent_api::{
    BindOptions, ImageOptions, Labels, Mount, MountType, Set, TmpfsOptions, VolumeDriverConfig,
    VolumeOptions,
};

/// What `-v` flags ask for.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Volumes {
    /// `source:target[:options]`, relative sources made absolute.
    pub(crate) binds: Vec<String>,
    /// Targets of anonymous volumes.
    pub(crate) anonymous: Set,
}

impl Volumes {
    pub(crate) fn parse(flags: &[String]) -> Result<Self, String> {
        let mut volumes = Self::default();
        for flag in flags {
            match flag.split_once(':') {
                None if flag.is_empty() => {
                    return Err("invalid volume: the path is empty".to_owned());
                }
                None => {
                    volumes.anonymous.insert(flag.clone(), agent_api::Empty {});
                }
                Some((source, rest)) => volumes.binds.push(format!("{}:{rest}", absolute(source)?)),
            }
        }
        Ok(volumes)
    }
}

/// A source that begins with a dot is relative to the current directory.
fn absolute(source: &str) -> Result<String, String> {
    if source != "." && source != ".." && !source.starts_with("./") && !source.starts_with("../") {
        return Ok(source.to_owned());
    }
    let here = std::env::current_dir()
        .map_err(|error| format!("cannot tell the current directory: {error}"))?;
    let mut path = here;
    for part in std::path::Path::new(source).components() {
        match part {
            std::path::Component::ParentDir => {
                path.pop();
            }
            std::path::Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    Ok(path.display().to_string())
}

/// `--tmpfs /run[:options]`
pub(crate) fn tmpfs(flags: &[String]) -> Labels {
    super::env::options(
        &flags
            .iter()
            .map(|flag| flag.replacen(':', "=", 1))
            .collect::<Vec<_>>(),
    )
}

/// One `--mount type=…,source=…,target=…`.
pub(crate) fn mount(flag: &str) -> Result<Mount, String> {
    let mut mount = Mount::default();
    let bad = |reason: String| format!("invalid argument {flag:?} for \"--mount\": {reason}");
    for field in csv(flag).map_err(bad)? {
        set(&mut mount, &field).map_err(bad)?;
    }
    if mount.target.is_empty() {
        return Err(bad("target is required".to_owned()));
    }
    let belongs = |present: bool, kind: MountType, name: &str| {
        if present && mount.kind != kind {
            Err(bad(format!(
                "{name} options do not belong to a mount of this type"
            )))
        } else {
            Ok(())
        }
    };
    belongs(mount.bind_options.is_some(), MountType::Bind, "bind")?;
    belongs(mount.volume_options.is_some(), MountType::Volume, "volume")?;
    belongs(mount.image_options.is_some(), MountType::Image, "image")?;
    belongs(mount.tmpfs_options.is_some(), MountType::Tmpfs, "tmpfs")?;
    if mount.kind == MountType::Bind {
        mount.source = absolute(&mount.source).map_err(bad)?;
    }
    Ok(mount)
}

fn set(mount: &mut Mount, field: &str) -> Result<(), String> {
    let (key, value) = match field.split_once('=') {
        Some((key, value)) => (key.trim().to_lowercase(), value),
        None => match field {
            "readonly" | "ro" | "volume-nocopy" | "bind-nonrecursive" => (field.to_owned(), "true"),
            _ => return Err(format!("field {field:?} must be key=value")),
        },
    };
    let flag = |value: &str| {
        bools::parse(value).ok_or_else(|| format!("invalid value for {key}: {value}"))
    };
    let volume = |mount: &mut Mount, change: &mut dyn FnMut(&mut VolumeOptions)| {
        change(mount.volume_options.get_or_insert_default());
    };
    match key.as_str() {
        "type" => {
            mount.kind = match value.to_lowercase().as_str() {
                "bind" => MountType::Bind,
                "volume" => MountType::Volume,
                "tmpfs" => MountType::Tmpfs,
                "image" => MountType::Image,
                "npipe" => MountType::Npipe,
                "cluster" => MountType::Cluster,
                other => {
                    return Err(format!(
                        "unknown mount type {other:?}: there are bind, volume, tmpfs and image"
                    ));
                }
            }
        }
        "source" | "src" => value.clone_into(&mut mount.source),
        "target" | "dst" | "destination" => value.clone_into(&mut mount.target),
        "readonly" | "ro" => mount.read_only = flag(value)?,
        "consistency" => mount.consistency = value.to_lowercase(),
        "bind-propagation" => bind(mount).propagation = value.to_lowercase(),
        "bind-nonrecursive" => bind(mount).non_recursive = flag(value)?,
        "bind-recursive" => match value {
            "enabled" => {}
            "disabled" => bind(mount).non_recursive = true,
            "writable" => bind(mount).read_only_non_recursive = true,
            "readonly" => bind(mount).read_only_force_recursive = true,
            _ => {
                return Err(format!(
                    "invalid value for {key}: {value}: there are enabled, disabled, writable, readonly"
                ));
            }
        },
        "volume-subpath" => volume(mount, &mut |options| value.clone_into(&mut options.subpath)),
        "volume-nocopy" => {
            let no_copy = flag(value)?;
            volume(mount, &mut |options| options.no_copy = no_copy);
        }
        "volume-label" => volume(mount, &mut |options| {
            let (name, label) = value.split_once('=').unwrap_or((value, ""));
            options
                .labels
                .get_or_insert_default()
                .insert(name.to_owned(), label.to_owned());
        }),
        "volume-driver" => volume(mount, &mut |options| {
            driver(options).name = value.to_owned()
        }),
        "volume-opt" => volume(mount, &mut |options| {
            let (name, option) = value.split_once('=').unwrap_or((value, ""));
            driver(options)
                .options
                .get_or_insert_default()
                .insert(name.to_owned(), option.to_owned());
        }),
        "image-subpath" => {
            mount.image_options = Some(ImageOptions {
                subpath: value.to_owned(),
            })
        }
        "tmpfs-size" => {
            let size = crate::render::units::ram_in_bytes(value)
                .ok_or_else(|| format!("invalid value for {key}: {value}"))?;
            tmpfs_options(mount).size_bytes = Some(size);
        }
        "tmpfs-mode" => {
            let mode = u32::from_str_radix(value, 8)
                .map_err(|_| format!("invalid value for {key}: {value}: write it in octal"))?;
            tmpfs_options(mount).mode = Some(mode);
        }
        _ => return Err(format!("unknown option {key:?} in {field:?}")),
    }
    Ok(())
}

fn bind(mount: &mut Mount) -> &mut BindOptions {
    mount.bind_options.get_or_insert_default()
}

fn tmpfs_options(mount: &mut Mount) -> &mut TmpfsOptions {
    mount.tmpfs_options.get_or_insert_default()
}

fn driver(options: &mut VolumeOptions) -> &mut VolumeDriverConfig {
    options.driver_config.get_or_insert_default()
}

/// Fields separated by commas; a field in double quotes may contain commas, a doubled quote is one.
pub(crate) fn csv(text: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let mut characters = text.chars().peekable();
    let mut quoted = false;
    while let Some(character) = characters.next() {
        let field = fields.last_mut().expect("there is a field");
        match character {
            '"' if quoted && characters.next_if_eq(&'"').is_some() => field.push('"'),
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => field.push(other),
        }
    }
    if quoted {
        Err("a double quote is not closed".to_owned())
    } else {
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_binds_names_or_anonymous() {
        let flags = ["/a:/b:ro", "name:/c", "/anon", "./x/../y:/d"].map(str::to_owned);
        let volumes = Volumes::parse(&flags).unwrap();
        let here = std::env::current_dir().unwrap();
        assert_eq!(
            volumes.binds,
            [
                "/a:/b:ro".to_owned(),
                "name:/c".to_owned(),
                format!("{}/y:/d", here.display())
            ]
        );
        assert_eq!(volumes.anonymous.keys().collect::<Vec<_>>(), ["/anon"]);
    }

    #[test]
    fn mounts_have_options_of_their_type() {
        let found = mount(r#"type=volume,src=data,dst=/data,readonly,volume-opt=type=nfs,"volume-opt=o=addr=1,rw""#).unwrap();
        assert_eq!(
            (
                found.kind,
                found.source.as_str(),
                found.target.as_str(),
                found.read_only
            ),
            (MountType::Volume, "data", "/data", true)
        );
        let options = found
            .volume_options
            .unwrap()
            .driver_config
            .unwrap()
            .options
            .unwrap();
        assert_eq!(
            options.into_iter().collect::<Vec<_>>(),
            [
                ("type".into(), "nfs".into()),
                ("o".into(), "addr=1,rw".into())
            ]
        );

        let found = mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770").unwrap();
        assert_eq!(
            found.tmpfs_options.unwrap(),
            TmpfsOptions {
                size_bytes: Some(1 << 20),
                mode: Some(0o1770),
                options: None
            }
        );

        for (bad, reason) in [
            ("type=bind,src=/a", "target is required"),
            (
                "type=bind,src=/a,dst=/b,tmpfs-size=1",
                "tmpfs options do not belong",
            ),
            ("type=floppy,dst=/b", "unknown mount type"),
            ("foo=bar,dst=/b", "unknown option"),
            ("dst", "must be key=value"),
            ("\"dst=/b", "not closed"),
        ] {
            let message = mount(bad).unwrap_err();
            assert!(message.contains(reason), "{bad}: {message}");
        }
    }
}
