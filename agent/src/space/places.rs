//! Which path below the data root belongs to what. Pure; the one list of everything that may be there.
//!
//! A path that no rule knows is named as unknown, so that nothing can hide: who adds a file to the data root adds it here.

/// What a part of the disk is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// Files of a layer, by its diff id.
    Layer,
    /// What is needed to write a layer's tar again, by its diff id.
    Recipe,
    /// Configurations, manifests and the index of images.
    Documents,
    /// The beginning of a blob whose download was interrupted, by its digest.
    Partial,
    /// A layer, snapshot or image file that is being made.
    Unfinished,
    /// What is being deleted.
    Doomed,
    /// Files of a build step, by the snapshot.
    Snapshot,
    /// A cache mount, by its directory.
    CacheMount,
    /// What the builder remembers.
    BuildRecords,
    /// What a running build needs.
    BuildWork,
    /// A container's writable layer, by the container.
    Writable,
    /// A container's log, by the container.
    Log,
    /// Records and small files of a container, by the container.
    ContainerRecords,
    /// A volume, by its name.
    Volume,
    /// Networks.
    Networks,
    /// This host as the node of a swarm.
    Swarm,
    /// The daemon's own files, and the directories that hold the others.
    Daemon,
    /// No rule knows it.
    Unknown,
}

impl Kind {
    /// As users read it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Layer => "layer",
            Self::Recipe => "recipe",
            Self::Documents => "image documents",
            Self::Partial => "partial download",
            Self::Unfinished => "being made",
            Self::Doomed => "being deleted",
            Self::Snapshot => "build snapshot",
            Self::CacheMount => "cache mount",
            Self::BuildRecords => "build records",
            Self::BuildWork => "running build",
            Self::Writable => "container files",
            Self::Log => "container log",
            Self::ContainerRecords => "container records",
            Self::Volume => "volume",
            Self::Networks => "networks",
            Self::Swarm => "swarm state",
            Self::Daemon => "daemon",
            Self::Unknown => "unknown",
        }
    }
}

/// Whose a path is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) kind: Kind,
    /// Which one of its kind; empty where there is but one.
    pub(super) name: String,
    /// Everything below belongs to it, too.
    pub(super) whole: bool,
}

fn whole(kind: Kind, name: &str) -> Place {
    Place {
        kind,
        name: name.to_owned(),
        whole: true,
    }
}

fn part(kind: Kind, name: &str) -> Place {
    Place {
        kind,
        name: name.to_owned(),
        whole: false,
    }
}

/// Whose the entry with these names, from the data root down, is. Asked from the top: never about what is below a
/// [`Place::whole`].
pub(super) fn place(path: &[&str]) -> Place {
    let known = match path {
        [] | ["content" | "layers" | "containers" | "volumes" | "build"] => {
            Some(part(Kind::Daemon, ""))
        }
        ["networks"] => Some(whole(Kind::Networks, "")),
        ["swarm"] => Some(part(Kind::Swarm, "")),
        ["swarm", name] => Some(whole(Kind::Swarm, name)),
        ["trash"] => Some(part(Kind::Daemon, "")),
        ["trash", _] => Some(whole(Kind::Doomed, "")),
        ["daemon.lock" | "engine-id"] => Some(whole(Kind::Daemon, "")),
        ["content", rest @ ..] => content(rest),
        ["layers", name, rest @ ..] => layer(name, rest),
        ["build", rest @ ..] => build(rest),
        ["containers", id, rest @ ..] => container(id, rest),
        ["volumes", name] => Some(whole(Kind::Volume, name)),
        _ => None,
    };
    known.unwrap_or_else(|| whole(Kind::Unknown, &path.join("/")))
}

fn content(path: &[&str]) -> Option<Place> {
    match path {
        ["blobs"] | ["blobs", "sha256"] => Some(part(Kind::Documents, "")),
        ["blobs", "sha256", name] if is_hex(name) || is_hex(name.strip_suffix(".new")?) => {
            Some(whole(Kind::Documents, ""))
        }
        [
            "index.json" | "index.json.new" | "oci-layout" | "oci-layout.new" | "lock" | "reserve"
            | "unsettled",
        ] => Some(whole(Kind::Documents, "")),
        ["partial"] => Some(part(Kind::Daemon, "")),
        ["partial", name] => Some(whole(Kind::Partial, name)),
        _ => None,
    }
}

fn layer(name: &str, path: &[&str]) -> Option<Place> {
    if name.starts_with("unfinished-") {
        return Some(whole(Kind::Unfinished, ""));
    }
    if name.starts_with("doomed-") {
        return Some(whole(Kind::Doomed, ""));
    }
    match path {
        _ if !is_hex(name) => None,
        [] => Some(part(Kind::Layer, name)),
        ["diff"] => Some(whole(Kind::Layer, name)),
        [_] => Some(whole(Kind::Recipe, name)),
        _ => None,
    }
}

fn build(path: &[&str]) -> Option<Place> {
    match path {
        ["records" | "stat-cache" | "stat-cache.new" | "http"] => {
            Some(whole(Kind::BuildRecords, ""))
        }
        ["snapshots" | "mounts" | "work"] => Some(part(Kind::BuildRecords, "")),
        ["snapshots", name] if name.starts_with("new-") => Some(whole(Kind::Unfinished, "")),
        ["snapshots", name] if name.starts_with("doomed-") => Some(whole(Kind::Doomed, "")),
        ["snapshots", name] => Some(whole(Kind::Snapshot, name)),
        ["mounts", name] => Some(whole(Kind::CacheMount, name)),
        // A download that nobody placed.
        ["work", name] if name.starts_with("http-") => Some(whole(Kind::Unfinished, "")),
        ["work", _] => Some(whole(Kind::BuildWork, "")),
        _ => None,
    }
}

fn container(id: &str, path: &[&str]) -> Option<Place> {
    match path {
        _ if !is_hex(id) => None,
        [] => Some(part(Kind::ContainerRecords, id)),
        ["upper" | "work"] => Some(whole(Kind::Writable, id)),
        [name] if name.contains("-json.log") => Some(whole(Kind::Log, id)),
        [_] => Some(whole(Kind::ContainerRecords, id)),
        _ => None,
    }
}

/// 64 hexadecimal digits, as digests and ids of containers are.
fn is_hex(name: &str) -> bool {
    name.len() == 64
        && name
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_one_owner_and_strangers_are_named() {
        let hex = "a".repeat(64);
        for (path, kind, name) in [
            ("", Kind::Daemon, ""),
            ("daemon.lock", Kind::Daemon, ""),
            ("content/index.json", Kind::Documents, ""),
            ("content/reserve", Kind::Documents, ""),
            ("content/blobs/sha256/HEX", Kind::Documents, ""),
            ("content/blobs/sha256/HEX.new", Kind::Documents, ""),
            (
                "content/blobs/sha256/notes",
                Kind::Unknown,
                "content/blobs/sha256/notes",
            ),
            ("content/partial/HEX", Kind::Partial, "HEX"),
            ("layers/HEX/diff", Kind::Layer, "HEX"),
            ("layers/HEX/recipe", Kind::Recipe, "HEX"),
            ("layers/unfinished-7", Kind::Unfinished, ""),
            ("layers/doomed-7", Kind::Doomed, ""),
            ("layers/stranger", Kind::Unknown, "layers/stranger"),
            ("build/snapshots/x1", Kind::Snapshot, "x1"),
            ("build/snapshots/new-1", Kind::Unfinished, ""),
            ("build/mounts/apt", Kind::CacheMount, "apt"),
            ("build/http", Kind::BuildRecords, ""),
            ("build/stat-cache.new", Kind::BuildRecords, ""),
            ("build/work/0", Kind::BuildWork, ""),
            ("build/work/http-aB3", Kind::Unfinished, ""),
            ("build/other", Kind::Unknown, "build/other"),
            ("containers/HEX/upper", Kind::Writable, "HEX"),
            ("containers/HEX/HEX-json.log.1", Kind::Log, "HEX"),
            ("containers/HEX/config.json", Kind::ContainerRecords, "HEX"),
            (
                "containers/notes.txt",
                Kind::Unknown,
                "containers/notes.txt",
            ),
            ("volumes/data", Kind::Volume, "data"),
            ("swarm/raft", Kind::Swarm, "raft"),
            ("trash/3", Kind::Doomed, ""),
            ("core.1234", Kind::Unknown, "core.1234"),
        ] {
            let path = path.replace("HEX", &hex);
            let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
            let place = place(&names);
            assert_eq!(
                (place.kind, place.name),
                (kind, name.replace("HEX", &hex)),
                "{path}"
            );
        }
    }
}
