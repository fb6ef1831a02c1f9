//! The order of services: dependencies first. A cycle is reported as the whole path that closes it.

use std::collections::{BTreeMap, BTreeSet};

use compose_model::{Project, ServiceConfig, ServiceDependency};
use petgraph::algo::{tarjan_scc, toposort};
use petgraph::graph::{DiGraph, NodeIndex};

use crate::convert;

/// What a service needs: `depends_on`, and what links, shared namespaces and `volumes_from` imply. Explicit entries win.
#[must_use]
pub fn dependencies(service: &ServiceConfig) -> BTreeMap<String, ServiceDependency> {
    let mut all = service.depends_on.clone();
    let links = service
        .links
        .iter()
        .map(|link| (link.split(':').next().unwrap_or(link), true));
    let shares = convert::shares(service)
        .into_iter()
        .map(|(field, name)| (name, !matches!(field, super::ShareField::VolumesFrom(_))));
    for (name, restart) in links.chain(shares) {
        all.entry(name.to_owned())
            .or_insert_with(|| ServiceDependency {
                restart,
                ..ServiceDependency::default()
            });
    }
    all
}

/// Names of all services of a project, dependencies before dependants, otherwise by name.
///
/// # Errors
/// The services of one cycle in order, the first repeated at the end.
pub fn order(project: &Project) -> Result<Vec<&str>, Vec<String>> {
    let edges = project
        .services
        .iter()
        .map(|(name, service)| (name.as_str(), dependencies(service)));
    sort(
        edges
            .map(|(name, dependencies)| (name, dependencies.into_keys().collect()))
            .collect(),
    )
}

/// [`order`] for any names; names that are only depended on are left out.
///
/// # Errors
/// As [`order`].
pub fn sort(edges: BTreeMap<&str, BTreeSet<String>>) -> Result<Vec<&str>, Vec<String>> {
    let mut graph = DiGraph::<&str, ()>::new();
    // Dependants last in index order come out first of petgraph's depth-first search; adding names in reverse keeps
    // independent services in order of their names.
    let nodes: BTreeMap<&str, NodeIndex> = edges
        .keys()
        .rev()
        .map(|name| (*name, graph.add_node(name)))
        .collect();
    for (name, dependencies) in &edges {
        for dependency in dependencies {
            if let Some(node) = nodes.get(dependency.as_str()) {
                graph.add_edge(*node, nodes[name], ());
            }
        }
    }
    match toposort(&graph, None) {
        Ok(order) => Ok(order.into_iter().map(|node| graph[node]).collect()),
        Err(_) => Err(cycle(&graph, &edges)),
    }
}

/// A cycle, starting at the smallest name of the first strongly connected part: every service in it is visited at most
/// once, following the smallest name each time.
fn cycle(graph: &DiGraph<&str, ()>, edges: &BTreeMap<&str, BTreeSet<String>>) -> Vec<String> {
    let parts = tarjan_scc(graph).into_iter().map(|part| {
        part.into_iter()
            .map(|node| graph[node])
            .collect::<BTreeSet<&str>>()
    });
    let part = parts
        .filter(|part| part.len() > 1 || part.iter().any(|name| edges[name].contains(*name)))
        .min()
        .expect("a graph that cannot be sorted has a cycle");
    let mut path: Vec<&str> = Vec::new();
    let mut current = *part.first().expect("a strongly connected part has a node");
    loop {
        if let Some(start) = path.iter().position(|name| *name == current) {
            let closed = path[start..].iter().chain([&current]);
            return closed.map(|name| (*name).to_owned()).collect();
        }
        path.push(current);
        current = edges[current]
            .iter()
            .find_map(|next| part.get(next.as_str()).copied())
            .expect("every node of a strongly connected part leads into it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(text: &str) -> BTreeMap<&str, BTreeSet<String>> {
        text.lines()
            .map(|line| {
                let (name, rest) = line.trim().split_once(':').unwrap();
                (name, rest.split_whitespace().map(str::to_owned).collect())
            })
            .collect()
    }

    #[test]
    fn dependencies_come_first_and_names_decide_the_rest() {
        assert_eq!(sort(graph("a:\nb:\nc:")).unwrap(), ["a", "b", "c"]);
        assert_eq!(sort(graph("a: z\nb:\nz: m\nm:")).unwrap().len(), 4);
        let order = sort(graph("web: app\napp: db cache\ncache:\ndb: missing")).unwrap();
        let at = |name: &str| order.iter().position(|known| *known == name).unwrap();
        assert!(at("db") < at("app") && at("cache") < at("app") && at("app") < at("web"));
    }

    #[test]
    fn a_cycle_is_a_whole_path() {
        assert_eq!(
            sort(graph("a: b\nb: c\nc: a\nd: a")).unwrap_err(),
            ["a", "b", "c", "a"]
        );
        assert_eq!(sort(graph("a: a")).unwrap_err(), ["a", "a"]);
        assert_eq!(
            sort(graph("a: x\nx: y\ny: x")).unwrap_err(),
            ["x", "y", "x"]
        );
    }

    #[test]
    fn a_layered_graph_takes_no_time() {
        let names: Vec<Vec<String>> = (0..40)
            .map(|layer| (0..25).map(|index| format!("s{layer}x{index}")).collect())
            .collect();
        let mut edges: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for (layer, row) in names.iter().enumerate() {
            for name in row {
                let below = if layer == 0 {
                    BTreeSet::new()
                } else {
                    names[layer - 1].iter().cloned().collect()
                };
                edges.insert(name, below);
            }
        }
        let started = std::time::Instant::now();
        assert_eq!(sort(edges).unwrap().len(), 1000);
        assert!(started.elapsed() < std::time::Duration::from_secs(1));
    }
}
