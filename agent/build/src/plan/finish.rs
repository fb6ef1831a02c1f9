//! The end of planning: the target's state becomes the plan.

use super::planner::Planner;
use super::{Plan, PlanError, Platform, VertexId};

impl Planner<'_> {
    /// Findings that are to fail the build.
    pub(super) fn lint_error(&self) -> Result<(), PlanError> {
        self.linter.error().map(PlanError::lint).map_or(Ok(()), Err)
    }

    /// The error, with what was found before it.
    pub(super) fn blame(self, mut error: PlanError) -> PlanError {
        error.warnings = self.linter.into_found();
        error
    }

    /// The plan, once all instructions were planned.
    pub(super) fn finish(mut self) -> Plan {
        let target = self.target;
        self.take_root(target);
        let state = std::mem::take(&mut self.stages[target]);
        let mut config = state.image;
        let labels = self.options.labels.clone();
        config.config.labels.extend(labels);
        let built_for = &self.target_platform;
        if self.options.platform.is_some() {
            let same = built_for.os == config.os && built_for.architecture == config.architecture;
            config.os.clone_from(&built_for.os);
            config.architecture.clone_from(&built_for.architecture);
            if !built_for.variant.is_empty() || !same {
                config.variant.clone_from(&built_for.variant);
            }
            if !same {
                config.os_version.clear();
            }
        }
        let platform = Platform {
            os: config.os.clone(),
            architecture: config.architecture.clone(),
            variant: config.variant.clone(),
        };
        let platform = platform.normalized();
        config.os.clone_from(&platform.os);
        config.architecture.clone_from(&platform.architecture);
        config.variant.clone_from(&platform.variant);

        let (vertices, numbers) = self.graph.needed_by(state.root);
        let number = |id: VertexId| numbers[&id];
        Plan {
            target: state.root.map(number),
            layers: state.layers.iter().copied().map(number).collect(),
            base: state.base_vertex.map(number),
            vertices,
            config,
            platform,
            source_date_epoch: self.source_date_epoch,
            warnings: self.linter.into_found(),
        }
    }
}
