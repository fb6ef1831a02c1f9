//! Paths of the image being built: pure text, `/` between names, as Go's `path` package handles them.

/// Go's `path.Clean`.
pub(super) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => match names.last() {
                Some(&last) if last != ".." => {
                    names.pop();
                }
                _ if rooted => {}
                _ => names.push(".."),
            },
            name => names.push(name),
        }
    }
    let joined = names.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// Go's `path.Join` of two parts.
pub(super) fn join(parent: &str, path: &str) -> String {
    match (parent.is_empty(), path.is_empty()) {
        (true, true) => String::new(),
        (true, false) => clean(path),
        (false, true) => clean(parent),
        (false, false) => clean(&format!("{parent}/{path}")),
    }
}

/// Go's `path.Base`.
pub(super) fn base(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() {
        return "/";
    }
    trimmed.rsplit('/').next().unwrap_or(trimmed)
}

/// Whether a last `/` or `/.` says that a directory is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LastSlash {
    /// It is kept.
    Keep,
    /// It is dropped.
    Drop,
}

/// `path` as seen from `parent`, absolute. An absolute `path` is taken as it is, an empty one means `parent`.
pub(super) fn from(parent: &str, path: &str, slash: LastSlash) -> String {
    let parent = if parent.starts_with('/') {
        parent.to_owned()
    } else {
        join("/", parent)
    };
    let mut result = match path {
        "" => parent,
        absolute if absolute.starts_with('/') => absolute.to_owned(),
        relative => join(&parent, relative),
    };
    if slash == LastSlash::Keep {
        if path.ends_with('/') && !result.ends_with('/') {
            result.push('/');
        } else if path.ends_with("/.") && !result.ends_with("/.") {
            if !result.ends_with('/') {
                result.push('/');
            }
            result.push('.');
        }
    }
    result
}

/// Cleaned below `/`, but a last `/` or `/.` is kept.
pub(super) fn clean_keeping_slash(path: &str) -> String {
    let mut result = join("/", path);
    if path.ends_with("/.") {
        if result != "/" {
            result.push('/');
        }
        result.push('.');
    } else if path.ends_with('/') && result != "/" {
        result.push('/');
    }
    result
}

/// Whether a pattern has anything that could match more than one name.
pub(super) fn has_wildcards(pattern: &str) -> bool {
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => {
                chars.next();
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_is_as_in_go() {
        for (path, cleaned) in [
            ("", "."),
            ("/", "/"),
            ("//a//b/", "/a/b"),
            ("a/./b/../c", "a/c"),
            ("../a", "../a"),
            ("/../a", "/a"),
            ("a/../..", ".."),
        ] {
            assert_eq!(clean(path), cleaned, "{path:?}");
        }
    }

    #[test]
    fn a_path_is_seen_from_its_parent() {
        use LastSlash::{Drop, Keep};
        for (parent, path, slash, seen) in [
            ("/work", "a", Drop, "/work/a"),
            ("/work", "/a", Drop, "/a"),
            ("/work", "", Drop, "/work"),
            ("", "a", Drop, "/a"),
            ("work", "a", Drop, "/work/a"),
            ("/work", "a/", Keep, "/work/a/"),
            ("/work", "./", Keep, "/work/"),
            ("/", "./", Keep, "/"),
            ("/work", "a/.", Keep, "/work/a/."),
            ("/work", "/a/", Keep, "/a/"),
            ("/work", "a/", Drop, "/work/a"),
            ("/work", "../b", Drop, "/b"),
        ] {
            assert_eq!(from(parent, path, slash), seen, "{path:?} in {parent:?}");
        }
    }

    #[test]
    fn the_last_slash_survives_cleaning() {
        for (path, cleaned) in [
            ("/a/../b/", "/b/"),
            ("a/.", "/a/."),
            ("/", "/"),
            ("/.", "/."),
            ("../x", "/x"),
        ] {
            assert_eq!(clean_keeping_slash(path), cleaned, "{path:?}");
        }
    }

    #[test]
    fn an_escaped_wildcard_is_none() {
        assert!(has_wildcards("a*"));
        assert!(has_wildcards("[a]"));
        assert!(!has_wildcards(r"a\*"));
    }
}
