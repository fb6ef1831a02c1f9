//! Volumes of the `local` driver. The only writer of:
//!
//! ```text
//! <root>/volumes/<name>/volume.json   labels, options, whether it is anonymous
//! <root>/volumes/<name>/_data/        the content
//! <root>/volumes/<name>/_filling/     image content on its way into an empty volume; deleted when found at a start
//! ```
//!
//! Who uses a volume is not kept here: the containers' definitions say so, and callers pass it in.
//! Driver options: none, or a bind of a host directory (`type=none,o=bind,device=/path`); others are refused by name.
//! Texts: moby `volume/service/store.go`, `volume/local/local.go`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use agent_api::{Filters, Labels, Volume, VolumeCreateRequest, VolumeUsage};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::copy_up::copy_up;
use super::mounts::{VolumeUse, validate_volume_name};
use super::records::{Durability, make_private_directory, replace};
use crate::error::{Error, Result};

const RECORD: &str = "volume.json";
const DATA: &str = "_data";
const FILLING: &str = "_filling";
/// Docker's mark on volumes nobody named.
const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// One volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    name: String,
    created: Timestamp,
    labels: Option<Labels>,
    options: Option<Labels>,
}

/// All volumes. Operations block on the file system.
#[derive(Debug)]
pub(crate) struct Volumes {
    root: PathBuf,
    records: Mutex<BTreeMap<String, Record>>,
}

/// Whether a volume was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Creation {
    Created,
    Existed,
}

impl Volumes {
    /// Reads the records; removes what a crash left half done. A volume without record (a crash between making the
    /// directory and the record) goes only if it is empty.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let root = root.join("volumes");
        make_private_directory(&root)?;
        let mut records = BTreeMap::new();
        for entry in fs::read_dir(&root).map_err(Error::io("read", &root))? {
            let directory = entry.map_err(Error::io("read", &root))?.path();
            let _ = fs::remove_dir_all(directory.join(FILLING));
            let path = directory.join(RECORD);
            match fs::read(&path).map(|bytes| serde_json::from_slice::<Record>(&bytes)) {
                Ok(Ok(record)) => {
                    records.insert(record.name.clone(), record);
                }
                Ok(Err(error)) => {
                    tracing::error!(path = %path.display(), %error, "damaged volume record: the volume is not shown until it is repaired");
                }
                Err(_) => {
                    let _ = fs::remove_dir(directory.join(DATA));
                    let _ = fs::remove_dir(&directory);
                }
            }
        }
        Ok(Self {
            root,
            records: Mutex::new(records),
        })
    }

    /// Creates a volume, or finds the one there is (which must have the same options).
    pub(crate) fn create(&self, request: &VolumeCreateRequest) -> Result<(Volume, Creation)> {
        if !matches!(request.driver.as_str(), "" | "local") {
            return Err(Error::not_found(format!(
                "error looking up volume plugin {}: plugin {:?} not found",
                request.driver, request.driver
            )));
        }
        let mut labels = request.labels.clone();
        let name = match request.name.as_str() {
            "" => {
                labels.insert(ANONYMOUS_LABEL.to_owned(), String::new());
                super::container::new_id()
            }
            name => {
                validate_volume_name(name)
                    .map_err(|error| error.context(format!("create {name}")))?;
                name.to_owned()
            }
        };
        let device = bind_device(&request.driver_opts)?;
        let mut records = self.records.lock();
        if let Some(record) = records.get(&name) {
            let wanted = (!request.driver_opts.is_empty()).then_some(&request.driver_opts);
            if wanted.is_some() && wanted != record.options.as_ref() {
                return Err(Error::conflict(format!(
                    "volume {name} exists with other driver options: remove it or choose another name"
                )));
            }
            return Ok((self.describe(record), Creation::Existed));
        }
        let record = Record {
            name: name.clone(),
            created: Timestamp::now(),
            labels: Some(labels).filter(|labels| !labels.is_empty() || request.name.is_empty()),
            options: Some(request.driver_opts.clone()).filter(|options| !options.is_empty()),
        };
        if let Some(device) = device
            && !Path::new(device).is_dir()
        {
            return Err(Error::invalid(format!(
                "volume {name}: device {device} is not a directory of this host"
            )));
        }
        let directory = self.root.join(&name);
        let data = directory.join(DATA);
        make_private_directory(&directory)?;
        fs::create_dir_all(&data).map_err(Error::io("create", &data))?;
        replace(&directory, RECORD, &record, Durability::Flushed)?;
        let volume = self.describe(&record);
        records.insert(name, record);
        Ok((volume, Creation::Created))
    }

    /// Makes sure that the volume of a mount exists; fills in where it is on the host.
    pub(crate) fn ensure(&self, volume: &mut VolumeUse) -> Result<Creation> {
        let mut labels = volume.labels.clone();
        if volume.anonymous {
            labels.insert(ANONYMOUS_LABEL.to_owned(), String::new());
        }
        let request = VolumeCreateRequest {
            name: volume.name.clone(),
            driver: String::new(),
            driver_opts: volume.options.clone(),
            labels,
        };
        let (found, creation) = self.create(&request)?;
        volume.mountpoint = found.mountpoint;
        Ok(creation)
    }

    /// Copies what the image has at `target` into the volume if that is empty.
    pub(crate) fn fill(
        &self,
        name: &str,
        target: &str,
        layers: &[PathBuf],
        in_use: bool,
    ) -> Result<()> {
        let records = self.records.lock();
        let is_plain = records
            .get(name)
            .is_some_and(|record| record.options.is_none());
        drop(records);
        let directory = self.root.join(name);
        let data = directory.join(DATA);
        if !is_plain || !is_empty(&data).map_err(Error::io("read", &data))? {
            return Ok(());
        }
        let failed = |error: io::Error| {
            Error::system(format!(
                "cannot copy the image's {target} into volume {name}: {error}"
            ))
        };
        if in_use {
            // Somebody has the directory mounted: it cannot be replaced.
            return copy_up(layers, target, &data).map(drop).map_err(failed);
        }
        let filling = directory.join(FILLING);
        let _ = fs::remove_dir_all(&filling);
        let copied = (|| {
            fs::create_dir(&filling)?;
            match copy_up(layers, target, &filling)? {
                true => fs::rename(&filling, &data),
                false => fs::remove_dir(&filling),
            }
        })();
        if copied.is_err() {
            let _ = fs::remove_dir_all(&filling);
        }
        copied.map_err(failed)
    }

    /// All volumes that pass the filters, by name. `users` counts the containers that use one.
    pub(crate) fn list(
        &self,
        filters: &Filters,
        users: impl Fn(&str) -> usize,
    ) -> Result<Vec<Volume>> {
        filters.allow(&["dangling", "driver", "label", "name"])?;
        let dangling = filters.boolean("dangling")?;
        let no_labels = Labels::new();
        let records = self.records.lock();
        let matching = records.values().filter(|record| {
            filters.any("driver", |driver| driver == "local")
                && filters.any("name", |part| record.name.contains(part))
                && filters.labels_match(record.labels.as_ref().unwrap_or(&no_labels))
                && dangling.is_none_or(|wanted| wanted == (users(&record.name) == 0))
        });
        Ok(matching.map(|record| self.describe(record)).collect())
    }

    /// One volume.
    pub(crate) fn inspect(&self, name: &str) -> Result<Volume> {
        match self.records.lock().get(name) {
            Some(record) => Ok(self.describe(record)),
            None => Err(no_such_volume(name)),
        }
    }

    /// Removes a volume. `users` are the ids of the containers that use it.
    pub(crate) fn remove(
        &self,
        name: &str,
        users: impl FnOnce() -> Vec<String>,
        discard: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let mut records = self.records.lock();
        if !records.contains_key(name) {
            return Err(no_such_volume(name));
        }
        let users = users();
        if !users.is_empty() {
            return Err(Error::conflict(format!(
                "remove {name}: volume is in use - [{}]",
                users.join(", ")
            )));
        }
        discard(&self.root.join(name))?;
        records.remove(name);
        Ok(())
    }

    /// Names of volumes that `prune` removes: anonymous ones, or with `all=true` named ones too, that nobody uses.
    pub(crate) fn prunable(
        &self,
        filters: &Filters,
        users: impl Fn(&str) -> usize,
    ) -> Result<Vec<String>> {
        filters.allow(&["all", "label", "label!"])?;
        let all = filters.boolean("all")?.unwrap_or(false);
        let no_labels = Labels::new();
        let records = self.records.lock();
        let matching = records.values().filter(|record| {
            let labels = record.labels.as_ref().unwrap_or(&no_labels);
            (all || labels.contains_key(ANONYMOUS_LABEL))
                && filters.labels_match(labels)
                && users(&record.name) == 0
        });
        Ok(matching.map(|record| record.name.clone()).collect())
    }

    /// Bytes of a volume's content.
    pub(crate) fn size(&self, name: &str) -> u64 {
        super::disk::size_of(&self.root.join(name).join(DATA))
    }

    fn describe(&self, record: &Record) -> Volume {
        let device = record
            .options
            .as_ref()
            .and_then(|options| options.get("device"));
        Volume {
            created_at: format!("{:.0}", record.created),
            driver: "local".to_owned(),
            labels: record.labels.clone(),
            mountpoint: match device {
                Some(device) => device.clone(),
                None => self
                    .root
                    .join(&record.name)
                    .join(DATA)
                    .to_string_lossy()
                    .into_owned(),
            },
            name: record.name.clone(),
            options: record.options.clone(),
            scope: "local".to_owned(),
            usage_data: None,
        }
    }
}

/// With use and size, for `system df`.
pub(crate) fn with_usage(mut volume: Volume, users: usize, size: u64) -> Volume {
    volume.usage_data = Some(VolumeUsage {
        ref_count: i64::try_from(users).unwrap_or(i64::MAX),
        size: i64::try_from(size).unwrap_or(i64::MAX),
    });
    volume
}

fn no_such_volume(name: &str) -> Error {
    Error::not_found(format!("get {name}: no such volume"))
}

fn is_empty(directory: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(directory)?.next().is_none())
}

/// The host directory of a bind volume; `None` for a plain one.
fn bind_device(options: &Labels) -> Result<Option<&str>> {
    if let Some(unknown) = options
        .keys()
        .find(|key| !matches!(key.as_str(), "type" | "o" | "device"))
    {
        return Err(Error::invalid(format!("invalid option: {unknown:?}")));
    }
    if options.is_empty() {
        return Ok(None);
    }
    let get = |key: &str| options.get(key).map_or("", String::as_str);
    let is_bind = matches!(get("type"), "none" | "bind" | "")
        && get("o")
            .split(',')
            .any(|word| matches!(word, "bind" | "rbind"));
    let plain = get("o")
        .split(',')
        .all(|word| matches!(word, "bind" | "rbind" | "rw"));
    match get("device") {
        device if is_bind && plain && device.starts_with('/') => Ok(Some(device)),
        _ => Err(Error::unsupported(format!(
            "volume option type={:?}, o={:?}, device={:?} of driver local (a bind of a host directory is: type=none, o=bind, device=/path)",
            get("type"),
            get("o"),
            get("device")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: &str) -> VolumeCreateRequest {
        VolumeCreateRequest {
            name: name.into(),
            ..VolumeCreateRequest::default()
        }
    }

    fn delete(path: &Path) -> Result<()> {
        fs::remove_dir_all(path).map_err(Error::io("remove", path))
    }

    #[test]
    fn a_volume_is_made_once_and_found_after_a_restart() {
        let root = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(root.path()).unwrap();
        let (made, creation) = volumes.create(&request("data")).unwrap();
        assert_eq!(creation, Creation::Created);
        assert_eq!(
            made.mountpoint,
            root.path().join("volumes/data/_data").to_string_lossy()
        );
        assert_eq!(made.labels, None);
        assert_eq!(
            volumes.create(&request("data")).unwrap().1,
            Creation::Existed
        );
        assert_eq!(
            Volumes::open(root.path()).unwrap().inspect("data").unwrap(),
            made
        );
    }

    #[test]
    fn anonymous_volumes_carry_dockers_label_and_are_pruned_alone() {
        let root = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(root.path()).unwrap();
        let (anonymous, _) = volumes.create(&request("")).unwrap();
        volumes.create(&request("named")).unwrap();
        assert!(anonymous.labels.unwrap().contains_key(ANONYMOUS_LABEL));
        let none = Filters::new();
        assert_eq!(
            volumes.prunable(&none, |_| 0).unwrap(),
            std::slice::from_ref(&anonymous.name)
        );
        assert_eq!(
            volumes.prunable(&none, |_| 1).unwrap(),
            Vec::<String>::new()
        );
        let all = Filters::new().with("all", "true");
        assert_eq!(volumes.prunable(&all, |_| 0).unwrap().len(), 2);
    }

    #[test]
    fn a_volume_in_use_stays() {
        let root = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(root.path()).unwrap();
        volumes.create(&request("data")).unwrap();
        let error = volumes
            .remove("data", || vec!["c1".into()], delete)
            .unwrap_err();
        assert_eq!(
            error,
            Error::conflict("remove data: volume is in use - [c1]")
        );
        volumes.remove("data", Vec::new, delete).unwrap();
        assert_eq!(
            volumes.inspect("data").unwrap_err(),
            Error::not_found("get data: no such volume")
        );
    }

    #[test]
    fn options_other_than_bind_are_refused_by_name() {
        let root = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(root.path()).unwrap();
        let with = |pairs: &[(&str, &str)]| VolumeCreateRequest {
            driver_opts: pairs
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
            ..request("data")
        };
        let device = root.path().to_string_lossy().into_owned();
        let error = volumes
            .create(&with(&[
                ("type", "nfs"),
                ("o", "addr=x"),
                ("device", ":/x"),
            ]))
            .unwrap_err();
        assert!(
            matches!(&error, Error::NotImplemented(text) if text.contains("nfs")),
            "{error}"
        );
        let error = volumes.create(&with(&[("size", "1")])).unwrap_err();
        assert_eq!(error, Error::invalid("invalid option: \"size\""));
        let (bound, _) = volumes
            .create(&with(&[
                ("type", "none"),
                ("o", "bind"),
                ("device", &device),
            ]))
            .unwrap();
        assert_eq!(bound.mountpoint, device);
    }

    #[test]
    fn an_empty_volume_is_filled_once() {
        let root = tempfile::tempdir().unwrap();
        let layer = tempfile::tempdir().unwrap();
        fs::create_dir(layer.path().join("www")).unwrap();
        fs::write(layer.path().join("www/index"), "one").unwrap();
        let volumes = Volumes::open(root.path()).unwrap();
        let (volume, _) = volumes.create(&request("data")).unwrap();
        let layers = [layer.path().to_owned()];
        volumes.fill("data", "/www", &layers, false).unwrap();
        let index = Path::new(&volume.mountpoint).join("index");
        assert_eq!(fs::read_to_string(&index).unwrap(), "one");
        fs::write(layer.path().join("www/index"), "two").unwrap();
        volumes.fill("data", "/www", &layers, false).unwrap();
        assert_eq!(fs::read_to_string(&index).unwrap(), "one");
    }

    #[test]
    fn what_a_crash_left_is_cleared_and_content_without_record_stays() {
        let root = tempfile::tempdir().unwrap();
        let volumes = root.path().join("volumes");
        fs::create_dir_all(volumes.join("half/_data")).unwrap();
        fs::create_dir_all(volumes.join("kept/_data")).unwrap();
        fs::write(volumes.join("kept/_data/file"), "").unwrap();
        let open = Volumes::open(root.path()).unwrap();
        assert!(!volumes.join("half").exists());
        assert!(volumes.join("kept/_data/file").exists());
        assert!(open.list(&Filters::new(), |_| 0).unwrap().is_empty());
    }
}
