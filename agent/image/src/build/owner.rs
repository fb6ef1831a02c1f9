//! `--chown`: who `user[:group]` is. Rules: BuildKit's `client/llb/fileop.go` and `solver/llbsolver/ops/user_linux.go`.

use super::error::{FilesError, Result};
use super::view::View;

/// A longer `/etc/passwd` or `/etc/group` is refused.
const FILE_MAX: u64 = 10 << 20;

/// The ids of `user[:group]`, names looked up in `root`. A number alone is the group's number, too; a name alone has the
/// group that `/etc/passwd` says. A name that is not in the file is root's, as BuildKit has it.
pub(super) fn resolve(owner: &str, root: Option<&View>) -> Result<(u32, u32)> {
    let (user, group) = match owner.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (owner, None),
    };
    let (uid, mut gid) = match number(user) {
        Some(id) => (id, id),
        None => lookup(root, "/etc/passwd", user, |fields| {
            Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
        })?
        .unwrap_or((0, 0)),
    };
    if let Some(group) = group {
        gid = match number(group) {
            Some(id) => id,
            None => lookup(root, "/etc/group", group, |fields| {
                fields.get(2)?.parse().ok()
            })?
            .unwrap_or(gid),
        };
    }
    Ok((uid, gid))
}

fn number(id: &str) -> Option<u32> {
    match id {
        // An empty name is nobody's, and nobody is root.
        "root" | "" => Some(0),
        id => id.parse::<i32>().ok().and_then(|id| u32::try_from(id).ok()),
    }
}

/// What `read` makes of the fields of the first line with this name.
fn lookup<T>(
    root: Option<&View>,
    path: &str,
    name: &str,
    read: impl Fn(&[&str]) -> Option<T>,
) -> Result<Option<T>> {
    let Some(root) = root else {
        return Err(FilesError::Invalid(format!(
            "cannot look up {name:?}: there is no {path}, since the step begins with an empty file system"
        )));
    };
    let Some(content) = root.read(path, FILE_MAX)? else {
        return Ok(None);
    };
    let content = String::from_utf8_lossy(&content);
    Ok(content.lines().find_map(|line| {
        let fields: Vec<&str> = line.trim().split(':').collect();
        match fields.first() {
            Some(first) if *first == name => read(&fields),
            _ => None,
        }
    }))
}
