//! Copying files in and out of containers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Header of replies about a path in a container; its value is [`PathStat`] as JSON in base64.
pub const PATH_STAT_HEADER: &str = "X-Docker-Container-Path-Stat";

/// Bit of [`PathStat::mode`]: a directory.
pub const MODE_DIRECTORY: u32 = 1 << 31;
/// Bit of [`PathStat::mode`]: a symbolic link.
pub const MODE_SYMLINK: u32 = 1 << 27;
/// Bits of [`PathStat::mode`] that a regular file does not have.
pub const MODE_TYPE: u32 = MODE_DIRECTORY | MODE_SYMLINK | 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21;

/// What is at a path of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathStat {
    /// Last element of the path.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// Type and permissions as Go's `os.FileMode` has them.
    pub mode: u32,
    /// RFC 3339.
    pub mtime: String,
    /// Where a symbolic link leads, absolute; empty for everything else.
    pub link_target: String,
}

impl PathStat {
    /// Value of the header.
    #[must_use]
    pub fn to_header(&self) -> String {
        STANDARD.encode(serde_json::to_vec(self).expect("plain data has a JSON form"))
    }

    /// Reads the value of the header; `None` when it is none.
    #[must_use]
    pub fn from_header(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(&STANDARD.decode(value).ok()?).ok()
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.mode & MODE_DIRECTORY != 0
    }

    /// Whether it is a symbolic link.
    #[must_use]
    pub fn is_symlink(&self) -> bool {
        self.mode & MODE_SYMLINK != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_what_docker_sends() {
        let header = "eyJuYW1lIjoibCIsInNpemUiOjEsIm1vZGUiOjEzNDIxODIzOSwibXRpbWUiOiIyMDI2LTExLTIyVDAzOjIwOjI4WiIsImxpbmtUYXJnZXQiOiIvdG1wL2YifQ==";
        let stat = PathStat::from_header(header.as_bytes()).unwrap();
        assert!(stat.is_symlink() && !stat.is_directory());
        assert_eq!(
            (stat.name.as_str(), stat.link_target.as_str()),
            ("l", "/tmp/f")
        );
        assert_eq!(stat.to_header(), header);
        assert_eq!(PathStat::from_header(b"junk!"), None);
    }
}
