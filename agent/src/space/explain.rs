//! `system df --explain`: one walk over the data root, every byte to its owner.
//!
//! Bytes are those the file system gave out (512-byte blocks), as `du` counts them: an inode once however many names it has,
//! directories too, other file systems not. Directories are opened relative to their parents and links are never followed,
//! so that what a container made cannot lead the walk away. Blocks; what vanishes meanwhile is passed over.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use agent_api::{DiskExplanation, DiskPart, ExplainedImage};
use agent_image::{Digest, ListFilter, Reference};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::places::{Kind, Place, place};
use crate::engine::Shared;
use crate::error::{Error, Result};

/// Everything below the data root, with its owners. Blocks.
///
/// # Errors
/// The data root cannot be read. What below it cannot be read is in the answer as unknown.
pub(crate) fn explain(shared: &Shared) -> Result<DiskExplanation> {
    let root = &shared.options.data_root;
    let counted = walk(root)?;
    let images = &shared.images;
    let mut layer_users: HashMap<Digest, Vec<String>> = HashMap::new();
    let listed = images.list(&ListFilter {
        all: true,
        ..ListFilter::default()
    })?;
    for image in &listed {
        for diff_id in &image.config.rootfs.diff_ids {
            let users = layer_users.entry(*diff_id).or_default();
            if !users.contains(&image.id.to_string()) {
                users.push(image.id.to_string());
            }
        }
    }
    let kept: HashSet<Digest> = images.kept()?.into_iter().collect();
    let pictures = shared.registry.pictures();
    let mut parts = Vec::new();
    let mut layer_bytes: HashMap<Digest, u64> = HashMap::new();
    for (place, count) in &counted.parts {
        let mut part = DiskPart {
            kind: place.kind.word().to_owned(),
            name: place.name.clone(),
            bytes: count.bytes,
            files: count.files,
            users: Vec::new(),
        };
        match place.kind {
            Kind::Layer | Kind::Recipe => {
                if let Ok(diff_id) = Digest::from_hex(&place.name) {
                    part.users = layer_users.get(&diff_id).cloned().unwrap_or_default();
                    if kept.contains(&diff_id) {
                        part.users.push("build cache".to_owned());
                    }
                    *layer_bytes.entry(diff_id).or_default() += count.bytes;
                }
            }
            Kind::Writable | Kind::Log | Kind::ContainerRecords => {
                let own = pictures.iter().find(|own| own.id() == place.name);
                part.users = own.iter().map(|own| own.definition.name.clone()).collect();
            }
            Kind::Volume => part.users = shared.registry.volume_users(&place.name),
            _ => {}
        }
        parts.push(part);
    }
    let explained = listed.iter().map(|image| {
        let mut own = image.config.rootfs.diff_ids.clone();
        own.sort();
        own.dedup();
        let bytes = |alone: bool| -> u64 {
            own.iter()
                .filter(|diff_id| !alone || layer_users[*diff_id].len() == 1)
                .filter_map(|diff_id| layer_bytes.get(diff_id))
                .sum()
        };
        let id = image.id.to_string();
        let made_of_it = pictures
            .iter()
            .filter(|container| container.definition.image == id);
        ExplainedImage {
            tags: image.tags.iter().map(Reference::familiar).collect(),
            bytes: bytes(false),
            unique_bytes: bytes(true),
            last_used: images.last_used(&image.id).map(|time| time.to_string()),
            containers: made_of_it.count() as u64,
            id,
        }
    });
    Ok(DiskExplanation {
        root: root.display().to_string(),
        bytes: counted.bytes,
        files: counted.files,
        images: explained.collect(),
        parts,
    })
}

/// Bytes and inodes of one owner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    bytes: u64,
    files: u64,
}

/// What a walk found.
#[derive(Debug, Default)]
struct Counted {
    bytes: u64,
    files: u64,
    parts: BTreeMap<Place, Count>,
    /// Inodes with several names that were counted.
    seen: HashSet<u64>,
}

impl Counted {
    fn add(&mut self, place: &Place, stat: &Stat) {
        let bytes = u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        self.bytes += bytes;
        self.files += 1;
        let part = Place {
            whole: true,
            ..place.clone()
        };
        let count = self.parts.entry(part).or_default();
        count.bytes += bytes;
        count.files += 1;
    }
}

/// A directory that is still to be read.
struct Pending {
    parent: Arc<OwnedFd>,
    name: CString,
    /// Names from the root; only as far down as places differ.
    path: Vec<String>,
    /// Whose everything in it is.
    owner: Option<Place>,
}

fn walk(root: &Path) -> Result<Counted> {
    let failed = |error: Errno| Error::io("read", root)(error.into());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = rustix::fs::openat(CWD, root, flags, Mode::empty()).map_err(failed)?;
    let stat = rustix::fs::fstat(&top).map_err(failed)?;
    let mut counted = Counted::default();
    counted.add(&place(&[]), &stat);
    let top = Arc::new(top);
    let mut waiting = Vec::new();
    read(&top, &[], None, stat.st_dev, &mut counted, &mut waiting).map_err(failed)?;
    // The last one found comes first: then no more directories are open than the tree is deep.
    while let Some(next) = waiting.pop() {
        let entered =
            rustix::fs::openat(&next.parent, &next.name, flags, Mode::empty()).and_then(|fd| {
                let fd = Arc::new(fd);
                let owner = next.owner.as_ref();
                read(
                    &fd,
                    &next.path,
                    owner,
                    stat.st_dev,
                    &mut counted,
                    &mut waiting,
                )
            });
        match entered {
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(error) => {
                let name = next.name.to_string_lossy();
                tracing::warn!(name = %name, %error, "a directory is not counted");
                let unreadable = Place {
                    kind: Kind::Unknown,
                    name: format!("{}/{name}: {error}", next.path.join("/")),
                    whole: true,
                };
                counted.parts.entry(unreadable).or_default();
            }
        }
    }
    Ok(counted)
}

/// Counts the entries of an open directory; directories among them wait for their turn.
fn read(
    directory: &Arc<OwnedFd>,
    path: &[String],
    owner: Option<&Place>,
    device: u64,
    counted: &mut Counted,
    waiting: &mut Vec<Pending>,
) -> rustix::io::Result<()> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error),
        };
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        // Mounts of running containers and of volumes are other people's disks.
        if stat.st_dev != device {
            continue;
        }
        if !is_directory && stat.st_nlink > 1 && !counted.seen.insert(stat.st_ino) {
            continue;
        }
        let (owner, below) = match owner {
            Some(owner) => (owner.clone(), Vec::new()),
            None => {
                let mut names = path.to_vec();
                names.push(name.to_string_lossy().into_owned());
                let borrowed: Vec<&str> = names.iter().map(String::as_str).collect();
                (place(&borrowed), names)
            }
        };
        counted.add(&owner, &stat);
        if is_directory {
            waiting.push(Pending {
                parent: Arc::clone(directory),
                name: name.to_owned(),
                path: below,
                owner: owner.whole.then_some(owner),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn every_inode_is_counted_once_and_belongs_to_somebody() {
        let root = tempfile::tempdir().unwrap();
        let hex = "b".repeat(64);
        let at = |path: &str| root.path().join(path.replace("HEX", &hex));
        for directory in [
            "layers/HEX/diff/usr/share",
            "layers/unfinished-3/diff",
            "volumes/data/_data",
            "containers/HEX/upper/deep/er",
        ] {
            fs::create_dir_all(at(directory)).unwrap();
        }
        fs::write(at("layers/HEX/diff/usr/share/a"), vec![1; 100_000]).unwrap();
        fs::hard_link(at("layers/HEX/diff/usr/share/a"), at("layers/HEX/diff/b")).unwrap();
        fs::write(at("layers/HEX/recipe"), vec![1; 5000]).unwrap();
        fs::write(at("containers/HEX/upper/deep/er/x"), vec![1; 9000]).unwrap();
        fs::write(at("core.77"), vec![1; 20_000]).unwrap();
        std::os::unix::fs::symlink("/", at("volumes/data/_data/out")).unwrap();

        let counted = walk(root.path()).unwrap();
        let sum: u64 = counted.parts.values().map(|count| count.bytes).sum();
        assert_eq!(sum, counted.bytes);
        let of = |kind: Kind| -> Count {
            let mut total = Count::default();
            for (place, count) in &counted.parts {
                if place.kind == kind {
                    total.bytes += count.bytes;
                    total.files += count.files;
                }
            }
            total
        };
        // HEX, diff, usr, share, a; b is the same file.
        assert_eq!(of(Kind::Layer).files, 5);
        assert!(of(Kind::Layer).bytes >= 100_000 && of(Kind::Layer).bytes < 200_000);
        assert_eq!(of(Kind::Recipe).files, 1);
        assert_eq!(of(Kind::Writable).files, 4);
        assert_eq!(
            of(Kind::Volume).files,
            3,
            "the link is counted, not followed"
        );
        assert_eq!(of(Kind::Unfinished).files, 2);
        let unknown: Vec<&Place> = counted
            .parts
            .keys()
            .filter(|place| place.kind == Kind::Unknown)
            .collect();
        assert_eq!(unknown.len(), 1);
        assert_eq!(unknown[0].name, "core.77");
    }
}
