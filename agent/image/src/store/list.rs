//! `docker images`: which images, newest first (moby `daemon/images/image_list.go`).

use std::collections::HashMap;

use indexmap::IndexMap;
use jiff::Timestamp;

use super::inspect::{Image, image, resolve};
use super::{Result, Store};
use crate::error::ImageError;
use crate::reference::Reference;

/// Which images [`Store::list`] returns. Empty lists do not restrict.
#[derive(Debug, Clone, Default)]
pub struct ListFilter {
    /// Also intermediate images: those without name that another image was built from.
    pub all: bool,
    /// Only images without (true) or with (false) a name.
    pub dangling: Option<bool>,
    /// Shell patterns on names, as `docker images NAME` and `--filter reference=` take them; any may match.
    /// Names that match none are left out of the answer.
    pub references: Vec<String>,
    /// `name` or `name=value`; all must match.
    pub labels: Vec<String>,
    /// Only images made before this one (name or id).
    pub before: Vec<String>,
    /// Only images made after this one (name or id).
    pub since: Vec<String>,
    /// Only images made before this moment.
    pub until: Option<Timestamp>,
}

impl Store {
    /// Images, newest first. Reads nothing from disk that was read before.
    pub fn list(&self, filter: &ListFilter) -> Result<Vec<Image>> {
        let catalog = self.snapshot();
        let created = |name: &String| -> Result<Option<Timestamp>> {
            Ok(self.config(&resolve(&catalog, name)?)?.created)
        };
        let mut before = filter.until;
        for name in &filter.before {
            before = match (before, created(name)?) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        let mut since = None;
        for name in &filter.since {
            since = since.max(created(name)?);
        }
        let mut names: HashMap<_, Vec<&Reference>> = HashMap::new();
        for (name, id) in &catalog.names {
            names.entry(id).or_default().push(name);
        }
        let mut images = Vec::new();
        for id in catalog.images.keys() {
            // One that is damaged, or goes meanwhile, does not hide the others.
            let Some(config) = self.readable(id) else {
                continue;
            };
            if before.is_some_and(|limit| config.created.is_none_or(|time| time >= limit))
                || since.is_some_and(|limit| config.created.is_none_or(|time| time <= limit))
                || !matches_labels(&filter.labels, &config.config.labels)
            {
                continue;
            }
            let own = names.get(id).map_or(&[][..], Vec::as_slice);
            let mut shown = Vec::new();
            for name in own {
                if filter.references.is_empty() || matches_any(&filter.references, name)? {
                    shown.push((*name).clone());
                }
            }
            let tagged = own.iter().any(|name| name.tag().is_some());
            let wanted = match (filter.dangling, own.is_empty()) {
                (Some(dangling), _) if dangling == tagged => false,
                (Some(true), _) => !catalog.has_children(id),
                (_, true) => filter.all || !catalog.has_children(id),
                _ => true,
            };
            if wanted && (filter.references.is_empty() || !shown.is_empty()) {
                match self.image(&catalog, id, shown.clone()) {
                    Ok(image) => images.push(image),
                    Err(error) if self.is_here(id) => {
                        tracing::error!(image.id = %id, %error, "an image is damaged: remove it and get it again");
                        let size = self.image_size(id);
                        images.extend(image(&catalog, id, shown, config, (size, Vec::new())));
                    }
                    Err(_) => {}
                }
            }
        }
        images.sort_by(|a, b| {
            b.config
                .created
                .cmp(&a.config.created)
                .then_with(|| a.id.cmp(&b.id))
        });
        Ok(images)
    }
}

/// Whether each of `wanted` (`name` or `name=value`) is among `labels`.
pub(super) fn matches_labels(wanted: &[String], labels: &IndexMap<String, String>) -> bool {
    wanted.iter().all(|wanted| matches_label(wanted, labels))
}

pub(super) fn matches_label(wanted: &str, labels: &IndexMap<String, String>) -> bool {
    match wanted.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|own| own == value),
        None => labels.contains_key(wanted),
    }
}

/// Against the familiar and the full form, with and without tag.
fn matches_any(patterns: &[String], name: &Reference) -> Result<bool> {
    let forms = [
        name.familiar(),
        name.familiar_repository(),
        name.to_string(),
        name.repository(),
    ];
    for pattern in patterns {
        for form in &forms {
            if glob(pattern.as_bytes(), form.as_bytes()).ok_or_else(|| {
                ImageError::Invalid(format!("syntax error in pattern {pattern:?}"))
            })? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Go's `path.Match`: `*` and `?` stop at `/`, `[a-z]` and `[^a]` are classes, `\` quotes. `None`: bad pattern.
fn glob(pattern: &[u8], text: &[u8]) -> Option<bool> {
    // Where to go on when a mismatch follows a star: (pattern behind the star, next text to try).
    let mut star: Option<(usize, usize)> = None;
    let (mut p, mut t) = (0, 0);
    while p < pattern.len() || t < text.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(b'?') => (t < text.len() && text[t] != b'/').then_some(1),
            Some(b'[') => {
                let (len, matched) = class(&pattern[p..], text.get(t).copied())?;
                matched.then_some(len)
            }
            Some(b'\\') => {
                let quoted = pattern.get(p + 1)?;
                (text.get(t) == Some(quoted)).then_some(2)
            }
            Some(byte) => (text.get(t) == Some(byte)).then_some(1),
            None => None,
        };
        match (step, star) {
            (Some(len), _) => {
                p += len;
                t += 1;
            }
            (None, Some((after, next))) if next < text.len() && text[next] != b'/' => {
                star = Some((after, next + 1));
                p = after;
                t = next + 1;
            }
            _ => return Some(false),
        }
    }
    Some(true)
}

/// Length of the class at the start of `pattern`, and whether `byte` is in it.
fn class(pattern: &[u8], byte: Option<u8>) -> Option<(usize, bool)> {
    let mut at = 1;
    let negated = pattern.get(at) == Some(&b'^');
    if negated {
        at += 1;
    }
    let mut matched = false;
    let mut first = true;
    loop {
        if !first && pattern.get(at) == Some(&b']') {
            break;
        }
        first = false;
        let mut bound = || -> Option<u8> {
            let mut byte = *pattern.get(at)?;
            if byte == b'\\' {
                at += 1;
                byte = *pattern.get(at)?;
            } else if byte == b'-' || byte == b']' {
                return None;
            }
            at += 1;
            Some(byte)
        };
        let low = bound()?;
        let mut high = low;
        if pattern.get(at) == Some(&b'-') {
            at += 1;
            let mut bound = || -> Option<u8> {
                let mut byte = *pattern.get(at)?;
                if byte == b'\\' {
                    at += 1;
                    byte = *pattern.get(at)?;
                }
                at += 1;
                Some(byte)
            };
            high = bound()?;
        }
        matched |= byte.is_some_and(|byte| (low..=high).contains(&byte));
    }
    Some((
        at + 1,
        byte.is_some_and(|b| b != b'/' || matched) && matched != negated,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go() {
        for (pattern, text, expected) in [
            ("busybox", "busybox", Some(true)),
            ("busy*", "busybox", Some(true)),
            ("*box*", "busybox", Some(true)),
            ("*", "me/app", Some(false)),
            ("*/*", "me/app", Some(true)),
            ("*/*", "a/b/c", Some(false)),
            ("a?c", "abc", Some(true)),
            ("a?c", "a/c", Some(false)),
            ("[a-c]x", "bx", Some(true)),
            ("[^a-c]x", "bx", Some(false)),
            ("[^a-c]x", "dx", Some(true)),
            ("a\\*", "a*", Some(true)),
            ("a\\*", "ab", Some(false)),
            ("a*b*c", "aXbYbZc", Some(true)),
            ("a*b*c", "aXbYbZ", Some(false)),
            ("[", "a", None),
            ("[a", "a", None),
            ("a\\", "a", None),
            ("", "", Some(true)),
            ("*", "", Some(true)),
        ] {
            assert_eq!(
                glob(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} on {text}"
            );
        }
    }
}
