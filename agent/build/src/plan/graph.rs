//! The graph under construction: vertices are added after their inputs, and equal ones are one.

use std::collections::HashMap;

use super::{ImageConfig, Op, Platform, Vertex, VertexId};
use crate::dockerfile::Lines;

/// Vertices so far.
#[derive(Debug, Default)]
pub(super) struct Graph {
    vertices: Vec<Vertex>,
    /// Vertices by what they do, inexactly: those found are compared.
    by_key: HashMap<Vec<u8>, Vec<VertexId>>,
}

/// A vertex that has no number yet.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) op: Op,
    pub(super) inputs: Vec<VertexId>,
    pub(super) lines: Lines,
    pub(super) stage: Option<String>,
    pub(super) no_cache: bool,
}

impl Graph {
    /// The number of a vertex that does this: an equal one's, or a new one.
    pub(super) fn add(&mut self, step: Step) -> VertexId {
        let key = step.op.canonical();
        let same = self.by_key.entry(key).or_default();
        let known = same.iter().find(|id| {
            let known = &self.vertices[id.0];
            known.op == step.op && known.inputs == step.inputs && known.no_cache == step.no_cache
        });
        if let Some(known) = known {
            return *known;
        }
        let id = VertexId(self.vertices.len());
        same.push(id);
        self.vertices.push(Vertex {
            id,
            name: step.name,
            op: step.op,
            inputs: step.inputs,
            lines: step.lines,
            stage: step.stage,
            no_cache: step.no_cache,
        });
        id
    }

    /// Vertices so far, also those that nothing needs.
    pub(super) fn len(&self) -> usize {
        self.vertices.len()
    }

    /// What a vertex does.
    pub(super) fn op(&self, id: VertexId) -> &Op {
        &self.vertices[id.0].op
    }

    /// What `target` needs, renumbered without gaps; the second value gives new numbers for old ones.
    pub(super) fn needed_by(
        self,
        target: Option<VertexId>,
    ) -> (Vec<Vertex>, HashMap<VertexId, VertexId>) {
        let mut needed = vec![false; self.vertices.len()];
        if let Some(target) = target {
            needed[target.0] = true;
        }
        // Inputs have lower numbers than those who read them, so one pass from the end finds all.
        for vertex in self.vertices.iter().rev() {
            if needed[vertex.id.0] {
                for input in &vertex.inputs {
                    needed[input.0] = true;
                }
            }
        }
        let mut numbers = HashMap::new();
        let mut kept = Vec::new();
        for mut vertex in self.vertices {
            if !needed[vertex.id.0] {
                continue;
            }
            let new = VertexId(kept.len());
            numbers.insert(vertex.id, new);
            vertex.id = new;
            for input in &mut vertex.inputs {
                *input = numbers[input];
            }
            kept.push(vertex);
        }
        (kept, numbers)
    }
}

/// The configuration that a stage starts from without an image.
pub(super) fn empty_image(platform: &Platform) -> ImageConfig {
    let mut image = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        ..ImageConfig::default()
    };
    image.config.working_dir = "/".to_owned();
    image.config.env = vec![format!("PATH={DEFAULT_PATH}")];
    image
}

/// Where programs are looked for unless an image says otherwise.
pub(super) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
