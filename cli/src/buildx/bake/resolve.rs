//! From definitions to targets: groups opened, matrices multiplied, inheritance and overrides applied.
//! Source: buildx `bake/bake.go:ReadTargets`.

use super::eval::{Locals, Scope, text};
use super::file::{Attributes, Definitions};
use super::set::Override;
use super::target::{Target, Text};
use indexmap::IndexMap;
use serde_json::{Map, Value};

/// Targets that matrices may make of one.
const MAX_MATRIX: usize = 1024;
/// Targets inheriting from each other.
const MAX_DEPTH: usize = 32;

/// All targets that are to be built, and the groups that were asked for.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    pub(super) groups: IndexMap<String, Vec<String>>,
    pub(super) targets: IndexMap<String, Target>,
    /// Those that were asked for; the others are only needed by these.
    pub(super) wanted: Vec<String>,
}

/// Definitions with every target's name known.
pub(super) struct Book<'a> {
    definitions: &'a Definitions,
    scope: &'a Scope,
    /// Name → definition and the matrix' values for it.
    pub(super) targets: IndexMap<String, (&'a [Attributes], Locals)>,
    /// Name of a matrix → names it stands for.
    pub(super) matrices: IndexMap<String, Vec<String>>,
}

/// Resolves the targets and groups of these names; `default` when there are none.
pub(super) fn resolve(
    definitions: &Definitions,
    scope: &Scope,
    names: &[String],
    overrides: &[Override],
) -> Result<Resolved, String> {
    let book = Book::new(definitions, scope)?;
    for change in overrides {
        change.check(book.targets.keys())?;
    }
    let default = vec!["default".to_owned()];
    let names = if names.is_empty() { &default } else { names };
    let mut resolved = Resolved::default();
    for name in names {
        let members = book.members(name, &mut resolved.groups, 0)?;
        for member in members {
            if !resolved.wanted.contains(&member) {
                resolved.wanted.push(member);
            }
        }
    }
    if !resolved.groups.contains_key("default") {
        let wanted = resolved.wanted.clone();
        resolved.groups.insert("default".to_owned(), wanted);
    }
    // Targets that others take as contexts come along.
    let mut queue = resolved.wanted.clone();
    while let Some(name) = queue.pop() {
        if resolved.targets.contains_key(&name) {
            continue;
        }
        let mut target = book.target(&name, 0)?;
        for change in overrides.iter().filter(|change| change.applies_to(&name)) {
            change.apply(&mut target)?;
        }
        let missing = |text: &Option<Text>| text.as_ref().is_none_or(|text| text.0.is_empty());
        if missing(&target.context) {
            target.context = Some(Text(".".to_owned()));
        }
        if missing(&target.dockerfile) {
            target.dockerfile = Some(Text("Dockerfile".to_owned()));
        }
        entitle(&mut target);
        queue.extend(needed(&target));
        resolved.targets.insert(name, target);
    }
    let wanted = &resolved.wanted;
    resolved.targets.sort_by_key(|name, _| {
        wanted
            .iter()
            .position(|other| other == name)
            .unwrap_or(usize::MAX)
    });
    Ok(resolved)
}

/// The host's network is an entitlement, too.
fn entitle(target: &mut Target) {
    const HOST: &str = "network.host";
    if target
        .network
        .as_ref()
        .is_some_and(|network| network.0 == "host")
    {
        let listed = target.entitlements.get_or_insert_default();
        if !listed.iter().any(|name| name.0 == HOST) {
            listed.push(Text(HOST.to_owned()));
        }
    }
}

/// Targets that a target takes as contexts.
pub(super) fn needed(target: &Target) -> Vec<String> {
    let contexts = target.contexts.iter().flat_map(IndexMap::values);
    contexts
        .filter_map(|place| place.0.strip_prefix("target:"))
        .map(str::to_owned)
        .collect()
}

impl<'a> Book<'a> {
    /// An error when a matrix makes no targets of their own names.
    pub(super) fn new(definitions: &'a Definitions, scope: &'a Scope) -> Result<Self, String> {
        let mut book = Self {
            definitions,
            scope,
            targets: IndexMap::new(),
            matrices: IndexMap::new(),
        };
        for (name, layers) in &definitions.targets {
            let last = |key| layers.iter().rev().find_map(|layer| layer.get(key));
            let Some(matrix) = last("matrix") else {
                book.targets.insert(name.clone(), (layers, Locals::new()));
                continue;
            };
            let at = |reason: String| format!("target {name}: {reason}");
            let matrix = scope.evaluate(matrix, &Locals::new()).map_err(at)?;
            let template =
                last("name").ok_or_else(|| at("a target with a matrix needs a name".to_owned()))?;
            let mut names = Vec::new();
            for locals in product(&matrix).map_err(at)? {
                let one = scope
                    .evaluate(template, &locals)
                    .and_then(|name| text(&name))
                    .map_err(at)?;
                if book.targets.insert(one.clone(), (layers, locals)).is_some() {
                    return Err(at(format!("its matrix gives the name {one} twice")));
                }
                names.push(one);
            }
            book.matrices.insert(name.clone(), names);
        }
        Ok(book)
    }

    /// The targets a name stands for.
    fn members(
        &self,
        name: &str,
        groups: &mut IndexMap<String, Vec<String>>,
        depth: usize,
    ) -> Result<Vec<String>, String> {
        if depth > MAX_DEPTH {
            return Err(format!("group {name} is in itself"));
        }
        if let Some(names) = self.matrices.get(name) {
            groups.insert(name.to_owned(), names.clone());
            return Ok(names.clone());
        }
        let Some(attributes) = self.definitions.groups.get(name) else {
            if self.targets.contains_key(name) {
                return Ok(vec![name.to_owned()]);
            }
            return Err(format!("failed to find target {name}"));
        };
        let object = evaluate(self.scope, attributes, &Locals::new(), &[])
            .map_err(|reason| format!("group {name}: {reason}"))?;
        let listed: Vec<Text> = object
            .get("targets")
            .map_or(Ok(Vec::new()), |list| serde_json::from_value(list.clone()))
            .map_err(|error| format!("group {name}: targets: {error}"))?;
        let names: Vec<String> = listed.into_iter().map(|name| name.0).collect();
        groups.insert(name.to_owned(), names.clone());
        let mut members = Vec::new();
        for inner in &names {
            // As buildx prints it, a group may hold the target of its own name.
            let own = inner == name && self.targets.contains_key(inner);
            let inner = match own {
                true => vec![inner.clone()],
                false => self.members(inner, groups, depth + 1)?,
            };
            for member in inner {
                if !members.contains(&member) {
                    members.push(member);
                }
            }
        }
        Ok(members)
    }

    /// What the files say of a target, one over the other, on top of those it inherits from.
    fn target(&self, name: &str, depth: usize) -> Result<Target, String> {
        if depth > MAX_DEPTH {
            return Err(format!("target {name} inherits from itself"));
        }
        let (layers, locals) = self
            .targets
            .get(name)
            .ok_or_else(|| format!("failed to find target {name}"))?;
        let mut own = Target::default();
        let mut inherits = Vec::new();
        for layer in *layers {
            let object = evaluate(self.scope, layer, locals, &["matrix", "name"])
                .map_err(|reason| format!("target {name}: {reason}"))?;
            let mut layer: Target = serde_json::from_value(Value::Object(object))
                .map_err(|error| format!("target {name}: {error}"))?;
            layer.tidy();
            inherits.extend(layer.inherits.take().unwrap_or_default());
            own.merge(layer);
        }
        let mut target = Target::default();
        for below in &inherits {
            target.merge(self.target(&below.0, depth + 1)?);
        }
        target.merge(own);
        Ok(target)
    }
}

fn evaluate(
    scope: &Scope,
    attributes: &Attributes,
    locals: &Locals,
    except: &[&str],
) -> Result<Map<String, Value>, String> {
    let mut object = Map::new();
    for (key, expression) in attributes {
        if except.contains(&key.as_str()) {
            continue;
        }
        let value = scope
            .evaluate(expression, locals)
            .map_err(|reason| format!("{key}: {reason}"))?;
        if !value.is_null() {
            object.insert(key.clone(), value);
        }
    }
    Ok(object)
}

/// Every combination of a matrix' values.
fn product(matrix: &Value) -> Result<Vec<Locals>, String> {
    let Value::Object(axes) = matrix else {
        return Err("a matrix is an object of lists".to_owned());
    };
    let mut all = vec![Locals::new()];
    for (axis, values) in axes {
        let Value::Array(values) = values else {
            return Err(format!("matrix: {axis} is no list"));
        };
        if all.len() * values.len() > MAX_MATRIX {
            return Err(format!("a matrix of more than {MAX_MATRIX} targets"));
        }
        let with = |locals: &Locals, value: &Value| {
            let mut locals = locals.clone();
            locals.insert(axis.clone(), value.clone());
            locals
        };
        all = all
            .iter()
            .flat_map(|locals| values.iter().map(move |value| with(locals, value)))
            .collect();
    }
    Ok(all)
}
