//! What a project says without saying it: the default network, names of resources, dependencies implied by links and
//! shared namespaces, the Dockerfile's name, values of bare variables (compose-go `loader/normalize.go`,
//! `transform/defaults.go`, `loader/environment.go`).

use std::collections::BTreeMap;

use crate::tree::{Entry, Map, Node, Path, Value};

/// Attributes whose value may be `service:NAME`.
const NAMESPACES: [&str; 5] = ["network_mode", "ipc", "pid", "uts", "cgroup"];

/// Defaults of parts that are there.
pub(crate) fn set_defaults(tree: &mut Node) {
    let text = |text: &str| Value::Str(text.to_owned());
    tree.walk_mut(
        &Path::ROOT,
        &mut |node, path| match path.steps().as_slice() {
            ["services", _, "build"] => node.set_default("context", text(".")),
            ["services", _, "secrets", "[]"] => {
                if let Some(source) = node.get_str("source").map(str::to_owned) {
                    node.set_default("target", Value::Str(format!("/run/secrets/{source}")));
                }
            }
            ["services", _, "devices", "[]"] => {
                if let Some(source) = node.get_str("source").map(str::to_owned) {
                    node.set_default("target", Value::Str(source));
                }
            }
            ["services", _, "ports", "[]"] => {
                node.set_default("protocol", text("tcp"));
                node.set_default("mode", text("ingress"));
            }
            ["services", _, "gpus", "[]"]
            | [
                "services",
                _,
                "deploy",
                "resources",
                "reservations",
                "devices",
                "[]",
            ] if node.get("device_ids").is_none() => node.set_default("count", text("all")),
            _ => {}
        },
    );
}

/// Gives variables that are named without a value the value they have outside. Build arguments that have none are
/// dropped, as a normalised project has it.
pub(crate) fn resolve_bare_variables(
    tree: &mut Node,
    environment: &BTreeMap<String, String>,
    arguments: BareArguments,
) {
    tree.walk_mut(&Path::ROOT, &mut |node, path| {
        let keep_unset = match path.steps().as_slice() {
            ["services", _, "environment"] => true,
            ["services", _, "build", "args"] if arguments == BareArguments::Resolve => false,
            _ => return,
        };
        let Some(map) = node.as_map_mut() else {
            return;
        };
        for (name, entry) in map.iter_mut() {
            if entry.node.is_null()
                && let Some(value) = environment.get(name)
            {
                entry.node.value = Value::Str(value.clone());
            }
        }
        map.retain(|_, entry| keep_unset || !entry.node.is_null());
    });
}

/// What becomes of build arguments that are named without a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BareArguments {
    /// They get the environment's value.
    Resolve,
    /// They stay as they are: whoever reads the project knows better where their values come from.
    Leave,
}

/// Completes a validated project tree.
pub(crate) fn normalize(tree: &mut Node, project: &str) {
    if let Some(services) = tree.get_mut("services").and_then(Node::as_map_mut) {
        for entry in services.values_mut() {
            service(&mut entry.node);
        }
    }
    networks(tree);
    names(tree, project);
}

fn service(service: &mut Node) {
    if let Some(policy) = service.get_mut("pull_policy")
        && policy.as_str() == Some("if_not_present")
    {
        policy.value = Value::Str("missing".into());
    }
    if let Some(build) = service.get_mut("build")
        && build.get("dockerfile_inline").is_none()
    {
        build.set_default("dockerfile", Value::Str("Dockerfile".into()));
    }
    implied_dependencies(service);
    let image = service.get("image").cloned();
    if let (Some(image), Some(Value::Seq(hooks))) = (
        image,
        service.get_mut("pre_start").map(|node| &mut node.value),
    ) {
        for hook in hooks {
            hook.set_default("image", image.value.clone());
        }
    }
}

fn implied_dependencies(service: &mut Node) {
    let mut implied: Vec<(String, Node, bool)> = Vec::new();
    let items = |key: &str| service.get(key).and_then(Node::as_seq).unwrap_or_default();
    for link in items("links") {
        let text = link.as_str().unwrap_or_default();
        let name = text.split(':').next().unwrap_or(text);
        implied.push((name.to_owned(), link.clone(), true));
    }
    for namespace in NAMESPACES {
        if let Some(node) = service.get(namespace)
            && let Some(name) = node.as_str().and_then(|text| text.strip_prefix("service:"))
        {
            implied.push((name.to_owned(), node.clone(), true));
        }
    }
    for from in items("volumes_from") {
        let text = from.as_str().unwrap_or_default();
        if !text.starts_with("container:") {
            let name = text.split(':').next().unwrap_or(text);
            implied.push((name.to_owned(), from.clone(), false));
        }
    }
    if implied.is_empty() {
        return;
    }
    service.set_default("depends_on", Value::Map(Map::new()));
    let Some(depends_on) = service.get_mut("depends_on").and_then(Node::as_map_mut) else {
        return;
    };
    for (name, cause, restart) in implied {
        depends_on.entry(name).or_insert_with(|| {
            let mut dependency = Node::map(Map::new(), cause.span);
            dependency.set_default("condition", Value::Str("service_started".into()));
            dependency.set_default("required", Value::Bool(true));
            if restart {
                dependency.set_default("restart", Value::Bool(true));
            }
            Entry::at(dependency)
        });
    }
}

/// Services that name no network join `default`, which then exists.
fn networks(tree: &mut Node) {
    let mut default_used = false;
    if let Some(services) = tree.get_mut("services").and_then(Node::as_map_mut) {
        for entry in services.values_mut() {
            let service = &mut entry.node;
            if service.get("provider").is_some() || service.get("network_mode").is_some() {
                continue;
            }
            let span = service.span;
            service.set_default("networks", Value::Map(Map::new()));
            let joined = service.get_mut("networks").and_then(Node::as_map_mut);
            let Some(joined) = joined else {
                continue;
            };
            if joined.is_empty() {
                joined.insert("default".into(), Entry::at(Node::null(span)));
            }
            default_used |= joined.contains_key("default");
        }
    }
    if default_used {
        tree.set_default("networks", Value::Map(Map::new()));
        if let Some(networks) = tree.get_mut("networks") {
            networks.set_default("default", Value::Null);
        }
    }
}

fn names(tree: &mut Node, project: &str) {
    for kind in ["networks", "volumes", "configs", "secrets"] {
        let Some(resources) = tree.get_mut(kind).and_then(Node::as_map_mut) else {
            continue;
        };
        for (key, entry) in resources.iter_mut() {
            let resource = &mut entry.node;
            if resource.is_null() {
                resource.value = Value::Map(Map::new());
            }
            let external = resource
                .get("external")
                .is_some_and(|external| external.value == Value::Bool(true));
            let name = match external {
                true => key.clone(),
                false => format!("{project}_{key}"),
            };
            let unnamed = |name: &Node| name.is_null() || name.as_str() == Some("");
            if resource.get("name").is_some_and(unnamed)
                && let Some(map) = resource.as_map_mut()
            {
                map.shift_remove("name");
            }
            resource.set_default("name", Value::Str(name));
        }
    }
}
