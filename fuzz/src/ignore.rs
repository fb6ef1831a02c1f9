//! Ignore files and patterns.

use agent_build::ignore as file;
use agent_build::pattern::{clean, glob};

/// An ignore file; after a NUL a path, and after another a path below it. A directory that may be skipped has nothing
/// below it that is wanted.
pub fn ignore(data: &[u8]) {
    let mut parts = data.splitn(3, |&byte| byte == 0);
    let text = parts.next().unwrap_or_default();
    let mut path = || String::from_utf8_lossy(parts.next().unwrap_or(b"a")).into_owned();
    let (dir, below) = (path(), path());
    if let Ok(lines) = file::read(text) {
        for line in &lines {
            let _ = glob(line, &dir);
        }
    }
    let Ok(patterns) = file::parse(text) else {
        return;
    };
    let dir = clean(&dir);
    let dir = dir.trim_start_matches('/');
    if patterns.prunes(dir) {
        assert!(patterns.matches(dir));
        assert!(
            patterns.matches(clean(&format!("{dir}/x{below}")).as_str()) || below.contains("..")
        );
    }
    patterns.matches(&below);
}
