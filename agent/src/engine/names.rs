//! Names of containers: which are legal, which are taken, and what a user's reference means.
//!
//! Rules and texts: moby `daemon/names.go`, `daemon/names/names.go`, `pkg/namesgenerator`.

use std::collections::HashMap;

use crate::error::{Error, Result};

/// Two-word names are drawn from these, with a digit appended when the plain ones seem to be used up.
const ADJECTIVES: [&str; 64] = [
    "able", "agile", "amber", "bold", "brave", "bright", "brisk", "calm", "candid", "cheerful",
    "clever", "cool", "cosmic", "crisp", "curious", "daring", "deft", "eager", "earnest",
    "elegant", "fair", "fearless", "fond", "frank", "friendly", "gentle", "glad", "golden",
    "graceful", "happy", "hardy", "honest", "humble", "jolly", "keen", "kind", "lively", "loyal",
    "lucid", "mellow", "merry", "modest", "nimble", "noble", "patient", "placid", "polite",
    "proud", "quick", "quiet", "quirky", "serene", "sharp", "silent", "sincere", "steady", "stoic",
    "sunny", "swift", "tender", "upbeat", "vivid", "warm", "witty",
];
const SURNAMES: [&str; 64] = [
    "abel",
    "ampere",
    "archimedes",
    "babbage",
    "banach",
    "bell",
    "bohr",
    "boole",
    "borg",
    "cantor",
    "carson",
    "cauchy",
    "church",
    "curie",
    "darwin",
    "dijkstra",
    "dirac",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "feynman",
    "fourier",
    "galileo",
    "galois",
    "gauss",
    "germain",
    "goedel",
    "hamilton",
    "hawking",
    "heisenberg",
    "hilbert",
    "hopper",
    "hypatia",
    "jacobi",
    "kepler",
    "kovalevskaya",
    "lamarr",
    "laplace",
    "leavitt",
    "leibniz",
    "liskov",
    "lovelace",
    "maxwell",
    "meitner",
    "mendel",
    "mirzakhani",
    "neumann",
    "newton",
    "noether",
    "pascal",
    "pasteur",
    "planck",
    "poincare",
    "ramanujan",
    "riemann",
    "ritchie",
    "shannon",
    "tesla",
    "thompson",
    "turing",
    "volta",
    "wiles",
];
const PLAIN_TRIES: u32 = 12;

/// Refuses a name Docker refuses; accepts one leading slash and returns the name without it.
pub(crate) fn validate(name: &str) -> Result<&str> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let mut bytes = bare.bytes();
    let legal = bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric())
        && bare.len() > 1
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    match legal {
        true => Ok(bare),
        false => Err(Error::invalid(format!(
            "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        ))),
    }
}

/// A random name that `taken` does not know.
pub(crate) fn random(taken: impl Fn(&str) -> bool) -> String {
    use rand::seq::IndexedRandom;
    let mut rng = rand::rng();
    for attempt in 0_u32.. {
        let adjective = ADJECTIVES.choose(&mut rng).expect("the list is not empty");
        let surname = SURNAMES.choose(&mut rng).expect("the list is not empty");
        let name = match attempt {
            0..PLAIN_TRIES => format!("{adjective}_{surname}"),
            _ => format!(
                "{adjective}_{surname}{}",
                rand::random_range(0..10_u32.pow((attempt / PLAIN_TRIES).min(9)))
            ),
        };
        if !taken(&name) {
            return name;
        }
    }
    unreachable!("the loop has no end")
}

/// The names in use and the ids they belong to.
#[derive(Debug, Default)]
pub(crate) struct Names {
    by_name: HashMap<String, String>,
}

impl Names {
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    pub(crate) fn id(&self, name: &str) -> Option<&str> {
        self.by_name.get(name).map(String::as_str)
    }

    /// Takes a name for a container.
    pub(crate) fn reserve(&mut self, name: &str, id: &str) -> Result<()> {
        match self.by_name.get(name) {
            Some(holder) if holder != id => Err(Error::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". \
                 You have to remove (or rename) that container to be able to reuse that name."
            ))),
            _ => {
                self.by_name.insert(name.to_owned(), id.to_owned());
                Ok(())
            }
        }
    }

    /// Gives a name back, if this container has it.
    pub(crate) fn release(&mut self, name: &str, id: &str) {
        if self.id(name) == Some(id) {
            self.by_name.remove(name);
        }
    }
}

/// Finds what a reference means: a full id, a name (with or without slash), or a unique prefix of an id, in this order.
pub(crate) fn resolve<'a>(
    reference: &str,
    names: &'a Names,
    ids: impl Iterator<Item = &'a str>,
    is_id: impl Fn(&str) -> bool,
) -> Result<String> {
    let none = || Error::not_found(format!("No such container: {reference}"));
    if reference.is_empty() {
        return Err(Error::invalid("Prefix can't be empty"));
    }
    if is_id(reference) {
        return Ok(reference.to_owned());
    }
    if let Some(id) = names.id(reference.strip_prefix('/').unwrap_or(reference)) {
        return Ok(id.to_owned());
    }
    if !reference.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(none());
    }
    let mut matching = ids.filter(|id| id.starts_with(reference));
    match (matching.next(), matching.next()) {
        (None, _) => Err(none()),
        (Some(id), None) => Ok(id.to_owned()),
        (Some(_), Some(_)) => Err(Error::invalid(format!(
            "Multiple IDs found with provided prefix: {reference}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legal_names_are_dockers() {
        for good in ["ab", "a1", "web-1", "a.b_c-d", "/web", "0x"] {
            assert!(validate(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "-x", "z/z", "a b", "//x", "ä1", "_x"] {
            assert!(validate(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            validate("z/z").unwrap_err().to_string(),
            "Invalid container name (z/z), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        );
    }

    #[test]
    fn random_names_avoid_taken_ones_and_never_run_out() {
        let name = random(|_| false);
        assert!(
            name.split_once('_')
                .is_some_and(|(a, s)| ADJECTIVES.contains(&a) && SURNAMES.contains(&s))
        );
        let numbered = random(|name| !name.ends_with(|c: char| c.is_ascii_digit()));
        assert!(validate(&numbered).is_ok());
    }

    #[test]
    fn a_taken_name_says_who_has_it() {
        let mut names = Names::default();
        names.reserve("web", "id1").unwrap();
        names.reserve("web", "id1").unwrap();
        assert_eq!(
            names.reserve("web", "id2").unwrap_err().to_string(),
            "Conflict. The container name \"/web\" is already in use by container \"id1\". \
             You have to remove (or rename) that container to be able to reuse that name."
        );
        names.release("web", "id2");
        assert!(names.contains("web"));
        names.release("web", "id1");
        names.reserve("web", "id2").unwrap();
    }

    #[test]
    fn references_mean_full_id_then_name_then_prefix() {
        let mut names = Names::default();
        names.reserve("abc", "ffff00").unwrap();
        let ids = ["abc111", "abc222", "ffff00"];
        let resolve = |reference: &str| {
            super::resolve(reference, &names, ids.iter().copied(), |id| {
                ids.contains(&id)
            })
        };
        assert_eq!(resolve("abc").unwrap(), "ffff00");
        assert_eq!(resolve("/abc").unwrap(), "ffff00");
        assert_eq!(resolve("abc1").unwrap(), "abc111");
        assert_eq!(resolve("abc222").unwrap(), "abc222");
        assert_eq!(
            resolve("ab").unwrap_err(),
            Error::InvalidParameter("Multiple IDs found with provided prefix: ab".into())
        );
        assert_eq!(
            resolve("nope").unwrap_err(),
            Error::NotFound("No such container: nope".into())
        );
    }
}
