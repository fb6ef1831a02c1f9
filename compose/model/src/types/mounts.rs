//! Published ports and mounts of a service, in long form.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::record::{Absent, record};
use super::scalars::DefaultTrue;
use super::{Bytes, FileMode};

record! {
    /// One published port. Short forms with ranges became one entry per target port.
    pub struct Port {
        /// Name for people.
        pub name: Option<String>,
        /// `ingress` or `host`.
        pub mode: Option<String>,
        /// Host address to listen on; unset = all.
        pub host_ip: Option<String>,
        /// Port in the container.
        pub target: u16,
        /// Port on the host, or a range `FROM-TO` to pick a free one from; unset = any free port.
        pub published: Option<String>,
        /// `tcp`, `udp` or `sctp`.
        pub protocol: Option<String>,
        /// Application protocol, a hint for proxies.
        pub app_protocol: Option<String>,
    }
}

impl Absent for u16 {
    fn is_absent(&self) -> bool {
        *self == 0
    }
}

impl Port {
    /// Host ports to choose from; `None` = any free port. (The loader has validated the text.)
    pub fn published_range(&self) -> Option<RangeInclusive<u16>> {
        let text = self.published.as_deref().filter(|text| !text.is_empty())?;
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        match (from.parse(), to.parse()) {
            (Ok(0), Ok(0)) => None,
            (Ok(from), Ok(to)) => Some(from..=to),
            _ => None,
        }
    }

    /// `tcp` unless another protocol is given.
    pub fn protocol(&self) -> &str {
        self.protocol.as_deref().unwrap_or("tcp")
    }
}

/// What kind of mount it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountType {
    /// A path of the host.
    Bind,
    /// A named or anonymous volume.
    #[default]
    Volume,
    /// Memory.
    Tmpfs,
    /// A volume of the cluster.
    Cluster,
    /// A named pipe (Windows).
    Npipe,
    /// The file system of an image.
    Image,
}

impl Absent for MountType {
    fn is_absent(&self) -> bool {
        false
    }
}

record! {
    /// One mount.
    pub struct VolumeMount {
        /// Kind.
        pub r#type: MountType,
        /// Host path, volume key or image; unset = anonymous volume.
        pub source: Option<String>,
        /// Path in the container.
        pub target: String,
        /// Mount read-only.
        pub read_only: bool,
        /// Consistency hint (ignored on Linux).
        pub consistency: Option<String>,
        /// Options of a bind mount.
        pub bind: Option<BindOptions>,
        /// Options of a volume.
        pub volume: Option<VolumeOptions>,
        /// Options of a tmpfs.
        pub tmpfs: Option<TmpfsOptions>,
        /// Options of an image mount.
        pub image: Option<ImageOptions>,
    }
}

record! {
    /// Options of a bind mount.
    pub struct BindOptions {
        /// `z` (shared) or `Z` (private) label.
        pub selinux: Option<String>,
        /// Propagation such as `rslave`.
        pub propagation: Option<String>,
        /// Create a missing host directory; the default.
        pub create_host_path: DefaultTrue,
        /// `enabled`, `disabled`, `writable` or `readonly`.
        pub recursive: Option<String>,
    }
}

record! {
    /// Options of a volume mount.
    pub struct VolumeOptions {
        /// Labels of an anonymous volume.
        pub labels: BTreeMap<String, String>,
        /// Do not copy the image's files into a new volume.
        pub nocopy: bool,
        /// Directory within the volume.
        pub subpath: Option<String>,
    }
}

record! {
    /// Options of a tmpfs mount.
    pub struct TmpfsOptions {
        /// Size limit.
        pub size: Option<Bytes>,
        /// Permission bits of its root.
        pub mode: Option<TmpfsMode>,
    }
}

/// Permission bits that are written back as a number, as docker compose does for tmpfs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(transparent)]
pub struct TmpfsMode(pub FileMode);

impl Serialize for TmpfsMode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0.0)
    }
}

record! {
    /// Options of an image mount.
    pub struct ImageOptions {
        /// Directory within the image.
        pub subpath: Option<String>,
    }
}
