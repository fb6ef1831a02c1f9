//! From options to a [`Project`]: locate, run the pipeline, bind, select, resolve. One line per stage, in order.

use std::collections::BTreeMap;

use crate::bind;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::environment as env;
use crate::locate::{self, Place};
use crate::normalize;
use crate::options::LoadOptions;
use crate::pipeline::{Loader, Scope};
use crate::report::Failed;
use crate::span::Span;
use crate::tree::{Node, Value};
use crate::types::Project;
use crate::{Loaded, Model, consistency, select};

pub(crate) fn load(options: &LoadOptions) -> Result<Loaded, Diagnostics> {
    let mut loader = Loader::new(options);
    match project(&mut loader) {
        Ok(project) => {
            let (warnings, sources) = loader.report.into_success();
            Ok(Loaded {
                project,
                warnings,
                sources,
            })
        }
        Err(Failed) => Err(loader.report.into_failure()),
    }
}

pub(crate) fn load_model(options: &LoadOptions) -> Result<Model, Diagnostics> {
    let mut loader = Loader::new(options);
    match tree(&mut loader) {
        Ok((_, _, mut tree)) => {
            strip_empty_text(&mut tree);
            let (warnings, sources) = loader.report.into_success();
            Ok(Model {
                value: bind::to_json(&tree),
                warnings,
                sources,
            })
        }
        Err(Failed) => Err(loader.report.into_failure()),
    }
}

/// The canonical tree of the project, its name and place.
fn tree(loader: &mut Loader<'_>) -> Result<(Place, String, Node), Failed> {
    let options = loader.options;
    let mut place = locate::locate(loader)?;
    let name = locate::project_name(loader, &place)?;
    place
        .environment
        .insert("COMPOSE_PROJECT_NAME".into(), name.clone());
    let scope = Scope {
        working_dir: place.working_dir.clone(),
        environment: place.environment.clone(),
        including: Vec::new(),
    };
    let files: Vec<_> = place
        .files
        .iter()
        .map(|file| (file.clone(), Span::NONE))
        .collect();
    let mut tree = loader.model(&files, &scope)?;
    if tree.as_map().is_none_or(indexmap::IndexMap::is_empty) {
        let shown: Vec<String> = place.files.iter().map(|file| loader.shown(file)).collect();
        let message = format!("empty compose file: {}", shown.join(", "));
        return Err(loader.report.fail(Diagnostic::error(Span::NONE, message)));
    }
    if let Some(map) = tree.as_map_mut() {
        let entry = crate::tree::Entry::at(Node::string(name.clone(), Span::NONE));
        map.insert("name".into(), entry);
    }
    if options.stages.normalize {
        normalize::normalize(&mut tree, &name);
    }
    Ok((place, name, tree))
}

fn project(loader: &mut Loader<'_>) -> Result<Project, Failed> {
    let options = loader.options;
    let (place, name, mut tree) = tree(loader)?;
    strip_empty_text(&mut tree);
    let mut project = bind_project(loader, &tree, name, place);
    loader.report.check()?;
    select::apply_profiles(&mut project, options);
    if options.stages.check_consistency {
        consistency::check(&mut loader.report, &project, &tree);
        loader.report.check()?;
    }
    unify_scale(&mut project);
    select::select(&mut loader.report, &mut project, options)?;
    if !options.all_resources {
        select::drop_unused(&mut project);
    }
    if options.stages.resolve_environment {
        resolve_environment(loader, &mut project);
        loader.report.check()?;
    }
    Ok(project)
}

fn bind_project(loader: &mut Loader<'_>, tree: &Node, name: String, place: Place) -> Project {
    let report = &mut loader.report;
    Project {
        name,
        services: bind::bind_all(report, tree, "services"),
        networks: bind::bind_all(report, tree, "networks"),
        volumes: bind::bind_all(report, tree, "volumes"),
        secrets: bind::bind_all(report, tree, "secrets"),
        configs: bind::bind_all(report, tree, "configs"),
        models: bind::bind_all(report, tree, "models"),
        extensions: tree.as_map().map(bind::extensions).unwrap_or_default(),
        disabled_services: BTreeMap::new(),
        working_dir: place.working_dir,
        compose_files: place.files,
        env_files: place.env_files,
        environment: place.environment,
        profiles: Vec::new(),
    }
}

/// `scale` and `deploy.replicas` say the same (a difference was refused): where both places exist, both are set.
fn unify_scale(project: &mut Project) {
    for service in project.services.values_mut() {
        if let (Some(scale), Some(deploy)) = (service.scale, &mut service.deploy) {
            deploy.replicas = Some(scale);
        }
    }
}

fn resolve_environment(loader: &mut Loader<'_>, project: &mut Project) {
    for service in project.services.values_mut() {
        env::read_env_files(loader, service, &project.environment);
        env::read_label_files(loader, service);
    }
}

/// Removes attributes that are an empty text (`user: ""`, mostly from a variable): they say nothing, but a typed model
/// would take them for a value.
fn strip_empty_text(tree: &mut Node) {
    for section in ["services", "networks", "volumes", "secrets", "configs"] {
        let Some(parts) = tree.get_mut(section).and_then(Node::as_map_mut) else {
            continue;
        };
        for part in parts.values_mut() {
            strip_map(&mut part.node);
        }
    }
}

/// Attributes in which an empty text is a value: mappings of the user's own keys, and texts that may be empty.
const EMPTY_TEXT_COUNTS: [&str; 16] = [
    "annotations",
    "args",
    "additional_contexts",
    "aux_addresses",
    "driver_opts",
    "environment",
    "extra_hosts",
    "labels",
    "options",
    "ssh",
    "storage_opt",
    "sysctls",
    "content",
    "test",
    "command",
    "entrypoint",
];

fn strip_map(node: &mut Node) {
    match &mut node.value {
        Value::Map(map) => {
            map.retain(|key, entry| {
                entry.node.as_str() != Some("")
                    || EMPTY_TEXT_COUNTS.contains(&key.as_str())
                    || key.starts_with("x-")
            });
            for (key, entry) in map.iter_mut() {
                if !EMPTY_TEXT_COUNTS.contains(&key.as_str()) && !key.starts_with("x-") {
                    strip_map(&mut entry.node);
                }
            }
        }
        Value::Seq(items) => items.iter_mut().for_each(strip_map),
        _ => {}
    }
}
