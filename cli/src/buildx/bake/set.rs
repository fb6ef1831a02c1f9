//! `--set targetpattern.key[.name]=value`. Source: buildx `bake/bake.go:newOverrides`.

use super::target::{Entry, Target, Text};
use agent_build::pattern;
use indexmap::IndexMap;

/// One override.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Override {
    pattern: String,
    key: String,
    /// What follows the key, for maps.
    name: Option<String>,
    /// `None`: an argument that the caller's environment does not have either.
    value: Option<String>,
    /// `+=`: added to a list in place of it.
    append: bool,
}

impl Override {
    /// Reads the flag.
    pub(super) fn parse(flag: &str) -> Result<Self, String> {
        let bad = |reason: &str| format!("invalid override {flag:?}: {reason}");
        let (place, value, append) = match flag.split_once('=') {
            Some((place, value)) => match place.strip_suffix('+') {
                Some(place) => (place, value.to_owned(), true),
                None => (place, value.to_owned(), false),
            },
            // An argument without a value takes the caller's.
            None => (flag, String::new(), false),
        };
        let mut parts = place.splitn(3, '.');
        let (Some(pattern), Some(key)) = (parts.next(), parts.next()) else {
            return Err(bad("write target.key=value"));
        };
        let name = parts.next().map(str::to_owned);
        let maps = matches!(key, "args" | "labels" | "contexts" | "extra-hosts");
        if maps != name.is_some() {
            let reason = if maps {
                "write target.key.name=value"
            } else {
                "this key has no names"
            };
            return Err(bad(reason));
        }
        let value = match (flag.contains('='), key, &name) {
            (true, _, _) => Some(value),
            (false, "args", Some(name)) => std::env::var(name).ok(),
            (false, _, _) => return Err(bad("write target.key=value")),
        };
        pattern::glob(pattern, "").map_err(|error| bad(&error.to_string()))?;
        let parsed = Self {
            pattern: pattern.to_owned(),
            key: key.to_owned(),
            name,
            value,
            append,
        };
        parsed
            .apply(&mut Target::default())
            .map_err(|reason| bad(&reason))?;
        Ok(parsed)
    }

    /// An override of all targets.
    pub(super) fn of_all(key: &str, value: &str) -> Self {
        Self {
            pattern: "*".to_owned(),
            key: key.to_owned(),
            name: None,
            value: Some(value.to_owned()),
            append: false,
        }
    }

    /// An error when there is no target it is for. One of all targets is for none, too.
    pub(super) fn check<'a>(
        &self,
        mut names: impl Iterator<Item = &'a String>,
    ) -> Result<(), String> {
        if self.pattern == "*" || names.any(|name| self.applies_to(name)) {
            return Ok(());
        }
        Err(format!(
            "could not find any target matching {:?}",
            self.pattern
        ))
    }

    /// Whether it is for a target of this name.
    pub(super) fn applies_to(&self, target: &str) -> bool {
        pattern::glob(&self.pattern, target).unwrap_or(false)
    }

    /// Changes the target.
    pub(super) fn apply(&self, target: &mut Target) -> Result<(), String> {
        let Some(value) = &self.value else {
            return Ok(());
        };
        let text = || Text(value.clone());
        let boolean = || {
            crate::flags::bools::parse(value)
                .ok_or_else(|| format!("{value:?} is neither true nor false"))
        };
        let name = self.name.clone().unwrap_or_default();
        match self.key.as_str() {
            "context" => target.context = Some(text()),
            "dockerfile" => target.dockerfile = Some(text()),
            "dockerfile-inline" => target.dockerfile_inline = Some(text()),
            "target" => target.target = Some(text()),
            "network" => target.network = Some(text()),
            "shm-size" => target.shm_size = Some(text()),
            "call" => target.call = Some(text()),
            "no-cache" => target.no_cache = Some(boolean()?),
            "pull" => target.pull = Some(boolean()?),
            "push" | "load" => self.output(target, boolean()?)?,
            "tags" => self.texts(value, &mut target.tags),
            "platform" | "platforms" => self.texts(value, &mut target.platforms),
            "no-cache-filter" => self.texts(value, &mut target.no_cache_filter),
            "ulimits" => self.texts(value, &mut target.ulimits),
            "entitlements" => self.texts(value, &mut target.entitlements),
            "annotations" => self.texts(value, &mut target.annotations),
            "attest" => self.entries(value, &mut target.attest),
            "cache-from" => self.entries(value, &mut target.cache_from),
            "cache-to" => self.entries(value, &mut target.cache_to),
            "output" => self.entries(value, &mut target.output),
            "secret" | "secrets" => self.entries(value, &mut target.secret),
            "ssh" => self.entries(value, &mut target.ssh),
            "args" => put(&mut target.args, name, Some(text())),
            "labels" => put(&mut target.labels, name, Some(text())),
            "extra-hosts" => put(&mut target.extra_hosts, name, Some(text())),
            "contexts" => put(&mut target.contexts, name, text()),
            other => return Err(format!("there is no key {other:?}")),
        }
        Ok(())
    }

    /// The value without a comma's meaning, except that lists of one flag are several.
    fn texts(&self, value: &str, list: &mut Option<Vec<Text>>) {
        let values = value.split(',').filter(|value| !value.is_empty());
        let values: Vec<Text> = values.map(|value| Text(value.to_owned())).collect();
        match (list, self.append) {
            (Some(list), true) => list.extend(values),
            (list, _) => *list = Some(values),
        }
    }

    fn entries(&self, value: &str, list: &mut Option<Vec<Entry>>) {
        let value = Some(Entry(value.to_owned())).filter(|entry| !entry.0.is_empty());
        match (list, self.append) {
            (Some(list), true) => list.extend(value),
            (list, _) => *list = Some(value.into_iter().collect()),
        }
    }

    /// `push` makes images pushed, or the output a registry; `load` adds the daemon's store.
    fn output(&self, target: &mut Target, on: bool) -> Result<(), String> {
        let outputs = target.output.get_or_insert_default();
        let kind = |entry: &Entry, name: &str| {
            entry
                .0
                .split(',')
                .any(|field| field == format!("type={name}"))
        };
        if self.key == "load" {
            if on
                && !outputs
                    .iter()
                    .any(|entry| kind(entry, "docker") || kind(entry, "image"))
            {
                outputs.push(Entry("type=docker".to_owned()));
            }
            return Ok(());
        }
        if !on {
            outputs.retain(|entry| !kind(entry, "registry"));
            return Ok(());
        }
        if let Some(image) = outputs.iter_mut().find(|entry| kind(entry, "image")) {
            if !image.0.contains("push=") {
                image.0.push_str(",push=true");
            }
        } else if !outputs.iter().any(|entry| kind(entry, "registry")) {
            outputs.push(Entry("type=registry".to_owned()));
        }
        Ok(())
    }
}

fn put<T>(map: &mut Option<IndexMap<String, T>>, name: String, value: T) {
    map.get_or_insert_default().insert(name, value);
}
