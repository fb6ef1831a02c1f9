//! Which contexts steps read, and which paths of them.

use crate::dockerfile::Lines;
use crate::plan::graph::Step;
use crate::plan::planner::Planner;
use crate::plan::stage::StateId;
use crate::plan::{ContextOp, Op, VertexId};

impl Planner<'_> {
    /// The vertex of the main context.
    pub(in crate::plan) fn main_context(&mut self) -> VertexId {
        self.graph.add(Step {
            name: "[internal] load build context".to_owned(),
            op: Op::Context(ContextOp {
                name: String::new(),
            }),
            inputs: Vec::new(),
            lines: Lines::default(),
            stage: None,
            no_cache: false,
        })
    }

    /// Notes that a step reads a path of a context.
    pub(in crate::plan) fn read_context(&mut self, context: &str, path: &str) {
        let paths = self.paths.entry(context.to_owned()).or_default();
        paths.insert(path.to_owned());
    }

    /// Notes that a step reads a path of a state, which may be that of a context.
    pub(in crate::plan) fn read_of(&mut self, id: StateId, path: &str) {
        if let Some(context) = self.stages[id].context.clone() {
            self.read_context(&context, path);
        }
    }

    /// Notes that a command may read anything of a state.
    pub(in crate::plan) fn read_all(&mut self, id: StateId) {
        self.read_of(id, "/");
    }
}
