//! Contexts as vertices of the plan.

use crate::dockerfile::Lines;
use crate::plan::graph::Step;
use crate::plan::planner::Planner;
use crate::plan::stage::StateId;
use crate::plan::{ContextOp, CopyOp, CopySource, InputIndex, Op, VertexId};

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

    /// A directory of the client's is no file system that layers can be laid over: it is copied into one first.
    pub(in crate::plan) fn take_root(&mut self, id: StateId) {
        let state = &self.stages[id];
        let Some(root) = state.root else { return };
        let Op::Context(context) = self.graph.op(root) else {
            return;
        };
        let everything = CopySource::Paths {
            input: InputIndex(0),
            path: "/".to_owned(),
            parents: None,
            required: Vec::new(),
            unpack: false,
        };
        let copied = self.graph.add(Step {
            name: format!("[context {}] copy / /", context.name),
            op: Op::Copy(CopyOp {
                root: None,
                link: false,
                sources: vec![everything],
                destination: "/".to_owned(),
                chown: None,
                chmod: None,
                excludes: Vec::new(),
            }),
            inputs: vec![root],
            lines: state.lines,
            stage: None,
            no_cache: state.no_cache,
        });
        let state = &mut self.stages[id];
        state.root = Some(copied);
        state.base_vertex = Some(copied);
    }
}
