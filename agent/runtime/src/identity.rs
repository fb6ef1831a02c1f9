//! Who a process is: Docker's `user[:group]` looked up in the image's own `/etc/passwd` and `/etc/group`.
//!
//! Files are opened inside the root only, read up to a bound, and parsed without trusting a line. Source:
//! `moby/sys/user:user/user.go:GetExecUser`, moby `daemon/oci_linux.go:getUser`.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;

use crate::sys::kernel;

/// Most that is read of either file.
const MAX_BYTES: u64 = 4 << 20;
/// Largest id there can be.
const MAX_ID: u32 = i32::MAX as u32;

/// Why a user or group could not be resolved.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum IdentityError {
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    #[error("uids and gids must be in range 0-{MAX_ID}")]
    Range,
    #[error("read {file} of the image: {reason}")]
    Read { file: &'static str, reason: String },
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups, the primary one among them, in ascending order.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// Resolves in a root.
pub(crate) fn resolve(
    root: BorrowedFd<'_>,
    user: &str,
    additional: &[String],
) -> Result<Identity, IdentityError> {
    let passwd = read(root, c"/etc/passwd", "/etc/passwd")?;
    let group = read(root, c"/etc/group", "/etc/group")?;
    resolve_in(&passwd, &group, user, additional)
}

fn read(root: BorrowedFd<'_>, path: &CStr, file: &'static str) -> Result<String, IdentityError> {
    let failed = |error: io::Error| IdentityError::Read {
        file,
        reason: error.to_string(),
    };
    // An image may bring a FIFO or a device under that name: never wait for one.
    match kernel::open_in_root(
        root,
        path,
        libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY,
    ) {
        Ok(fd) => {
            let opened = std::fs::File::from(fd);
            if !opened.metadata().map_err(failed)?.is_file() {
                return Ok(String::new());
            }
            let mut bytes = Vec::new();
            opened
                .take(MAX_BYTES)
                .read_to_end(&mut bytes)
                .map_err(failed)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
        // Images without the file are fine as long as ids are numbers.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)
            ) =>
        {
            Ok(String::new())
        }
        Err(error) => Err(failed(error)),
    }
}

/// Resolves in the texts of the two files.
fn resolve_in(
    passwd: &str,
    group: &str,
    user: &str,
    additional: &[String],
) -> Result<Identity, IdentityError> {
    let (user_word, group_word) = match user.split_once(':') {
        Some((user, group)) => (user, group),
        None => (user, ""),
    };
    let mut identity = Identity {
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        home: "/".into(),
    };
    let user_number = number(user_word);
    let entry = users(passwd).find(|entry| match user_word {
        "" => entry.uid == 0,
        word => entry.name == word || user_number == Some(u64::from(entry.uid)),
    });
    let mut name = "";
    match (entry, user_number) {
        (Some(entry), _) => {
            identity.uid = entry.uid;
            identity.gid = entry.gid;
            name = entry.name;
            if !entry.home.is_empty() {
                identity.home = entry.home.to_owned();
            }
        }
        (None, Some(id)) => identity.uid = checked(id)?,
        (None, None) if user_word.is_empty() => {}
        (None, None) => return Err(IdentityError::NoUser(user_word.to_owned())),
    }
    let mut groups = BTreeSet::new();
    if group_word.is_empty() {
        if !name.is_empty() {
            groups.extend(
                groups_in(group)
                    .filter(|entry| entry.has_member(name))
                    .map(|entry| entry.gid),
            );
        }
    } else {
        identity.gid = group_id(group, group_word)?;
    }
    for word in additional {
        groups.insert(group_id(group, word)?);
    }
    // Without its own group the process could be denied what that group is denied (CVE-2022-36109).
    groups.insert(identity.gid);
    identity.groups = groups.into_iter().collect();
    Ok(identity)
}

fn group_id(group: &str, word: &str) -> Result<u32, IdentityError> {
    let as_number = number(word);
    let entry = groups_in(group)
        .find(|entry| entry.name == word || as_number == Some(u64::from(entry.gid)));
    match (entry, as_number) {
        (Some(entry), _) => Ok(entry.gid),
        (None, Some(id)) => checked(id),
        (None, None) => Err(IdentityError::NoGroup(word.to_owned())),
    }
}

fn number(word: &str) -> Option<u64> {
    word.parse().ok()
}

fn checked(id: u64) -> Result<u32, IdentityError> {
    u32::try_from(id)
        .ok()
        .filter(|id| *id <= MAX_ID)
        .ok_or(IdentityError::Range)
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// `name:password:uid:gid:comment:home:shell`
fn users(text: &str) -> impl Iterator<Item = User<'_>> {
    lines(text).filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let uid = fields.get(2)?.parse().ok()?;
        let gid = fields.get(3)?.parse().ok()?;
        Some(User {
            name: fields.first()?,
            uid,
            gid,
            home: fields.get(5).copied().unwrap_or(""),
        })
    })
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl Group<'_> {
    fn has_member(&self, name: &str) -> bool {
        self.members.split(',').any(|member| member == name)
    }
}

/// `name:password:gid:member,member`
fn groups_in(text: &str) -> impl Iterator<Item = Group<'_>> {
    lines(text).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(Group {
            name,
            gid,
            members: fields.next().unwrap_or(""),
        })
    })
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# c\nbroken\nredis:x:999:998::/data:/bin/sh\nbad:x:y:z:::\n";
    const GROUP: &str =
        "root:x:0:\nwheel:x:10:root\nredis:x:998:\ntty:x:5:redis,root\nvideo:x:44:redis\n";

    fn who(user: &str, additional: &[&str]) -> Result<Identity, IdentityError> {
        let additional: Vec<String> = additional.iter().map(|word| (*word).to_owned()).collect();
        resolve_in(PASSWD, GROUP, user, &additional)
    }

    fn ids(user: &str, additional: &[&str]) -> (u32, u32, Vec<u32>) {
        let identity = who(user, additional).unwrap();
        (identity.uid, identity.gid, identity.groups)
    }

    #[test]
    fn users_are_resolved_as_docker_resolves_them() {
        type Case = (&'static str, &'static [&'static str], (u32, u32, Vec<u32>));
        let cases: [Case; 9] = [
            ("", &[], (0, 0, vec![0, 5, 10])),
            ("root", &[], (0, 0, vec![0, 5, 10])),
            ("redis", &[], (999, 998, vec![5, 44, 998])),
            ("999", &[], (999, 998, vec![5, 44, 998])),
            ("redis:video", &[], (999, 44, vec![44])),
            ("redis:4711", &[], (999, 4711, vec![4711])),
            ("1000", &[], (1000, 0, vec![0])),
            (
                "1000:1000",
                &["video", "7"],
                (1000, 1000, vec![7, 44, 1000]),
            ),
            (":tty", &[], (0, 5, vec![5])),
        ];
        for (user, additional, expected) in cases {
            assert_eq!(ids(user, additional), expected, "{user} {additional:?}");
        }
        assert_eq!(who("redis", &[]).unwrap().home, "/data");
        assert_eq!(who("4711", &[]).unwrap().home, "/");
    }

    #[test]
    fn unknown_names_and_impossible_ids_are_refused() {
        assert_eq!(
            who("nobody", &[]).unwrap_err().to_string(),
            "unable to find user nobody: no matching entries in passwd file"
        );
        assert_eq!(
            who("root:staff", &[]).unwrap_err(),
            IdentityError::NoGroup("staff".into())
        );
        assert_eq!(
            who("root", &["staff"]).unwrap_err(),
            IdentityError::NoGroup("staff".into())
        );
        assert_eq!(who("4294967295", &[]).unwrap_err(), IdentityError::Range);
    }

    #[test]
    fn an_image_without_the_files_takes_numbers() {
        assert_eq!(resolve_in("", "", "12:34", &[]).unwrap().groups, [34]);
        assert_eq!(resolve_in("", "", "", &[]).unwrap().uid, 0);
        assert!(resolve_in("", "", "root", &[]).is_err());
    }
}
