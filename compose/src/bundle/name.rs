//! Names of entries. A bundle comes from elsewhere: a name is one of a few shapes, relative, without `..`, and what it
//! says is where the entry is unpacked. Whoever unpacks still opens below a directory only.

/// The lock.
pub const LOCK: &str = "muster/lock.json";
/// The resolved model.
pub const MODEL: &str = "muster/compose.yaml";
/// Values of secrets from variables.
pub const VARIABLES: &str = "muster/variables.json";
/// Documents that make the archive an image archive.
pub const DOCUMENTS: [&str; 3] = ["index.json", "manifest.json", "oci-layout"];
/// Directory of the blobs.
const BLOBS: &str = "blobs/sha256/";
/// Where everything but images is.
const OWN: &str = "muster/";
/// Longest name that a ustar header holds.
const MAX_NAME: usize = 255;

/// What an entry is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// [`LOCK`].
    Lock,
    /// [`MODEL`].
    Model,
    /// [`VARIABLES`].
    Variables,
    /// One of [`DOCUMENTS`].
    Document,
    /// A blob, by its hex digest.
    Blob(&'a str),
    /// A file of the project, by its path below `muster/`.
    File(&'a str),
}

/// What the name means; `None`: nothing that a bundle holds.
#[must_use]
pub fn kind(name: &str) -> Option<Kind<'_>> {
    match name {
        LOCK => return Some(Kind::Lock),
        MODEL => return Some(Kind::Model),
        VARIABLES => return Some(Kind::Variables),
        _ if DOCUMENTS.contains(&name) => return Some(Kind::Document),
        _ => {}
    }
    if let Some(hex) = name.strip_prefix(BLOBS) {
        return is_hex(hex).then_some(Kind::Blob(hex));
    }
    let path = name.strip_prefix(OWN)?;
    is_file(path).then_some(Kind::File(path))
}

/// Whether a path may stand in the lock: below `project/`, `outside/` or `original/`, and nowhere else.
#[must_use]
pub fn is_file(path: &str) -> bool {
    let mut parts = path.split('/');
    let first = parts.next();
    let known = matches!(first, Some("project" | "outside" | "original"));
    let mut rest = 0;
    let plain = parts.all(|part| {
        rest += 1;
        !matches!(part, "" | "." | "..") && !part.contains('\0')
    });
    known && plain && rest > 0 && OWN.len() + path.len() <= MAX_NAME
}

/// Whether a file is one that the site needs in place, and not one that is only kept for people.
#[must_use]
pub fn is_unpacked(path: &str) -> bool {
    !path.starts_with("original/")
}

/// Name of a file's entry.
#[must_use]
pub fn of_file(path: &str) -> String {
    format!("{OWN}{path}")
}

/// Name of a blob's entry; `None`: no digest.
#[must_use]
pub fn of_blob(digest: &str) -> Option<String> {
    let hex = digest.strip_prefix("sha256:").filter(|hex| is_hex(hex))?;
    Some(format!("{BLOBS}{hex}"))
}

fn is_hex(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_a_few_shapes_are_names() {
        let hex = "ab".repeat(32);
        assert_eq!(kind("muster/lock.json"), Some(Kind::Lock));
        assert_eq!(kind("index.json"), Some(Kind::Document));
        assert_eq!(kind(&format!("blobs/sha256/{hex}")), Some(Kind::Blob(&hex)));
        assert_eq!(
            kind("muster/project/conf/app.conf"),
            Some(Kind::File("project/conf/app.conf"))
        );
        for wrong in [
            "",
            "x",
            "/etc/passwd",
            "../x",
            "muster/../x",
            "muster/project/../../x",
            "muster/project//x",
            "muster/project/./x",
            "muster/project/",
            "muster/project",
            "muster/elsewhere/x",
            "/muster/project/x",
            "./muster/project/x",
            "blobs/sha256/..",
            "blobs/sha256/ab",
            "blobs/sha512/abab",
            "muster/project/a\0b",
        ] {
            assert_eq!(kind(wrong), None, "{wrong:?}");
        }
        assert_eq!(kind(&format!("blobs/sha256/{}", hex.to_uppercase())), None);
        assert_eq!(kind(&format!("muster/project/{}", "x/".repeat(200))), None);
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_stays_below_its_directory(
            parts in proptest::collection::vec("(\\.\\.|\\.|/|muster|project|original|[a-z]{1,3}|)", 0..8)
        ) {
            let name = parts.join("/");
            if let Some(Kind::File(path)) = kind(&name) {
                let path = std::path::Path::new(path);
                prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
                prop_assert_eq!(format!("muster/{}", path.display()), name);
            }
        }
    }
}
