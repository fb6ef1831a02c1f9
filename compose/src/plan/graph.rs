//! The plan itself, and how it is put together: steps are added in any order with edges between them, and `finish`
//! lists them in the one order that respects all edges and otherwise keeps the order of addition.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::{Cause, Operation, Warning};

/// What to do, in a valid order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Project it is for.
    pub project: String,
    /// The steps; [`Step::after`] refers to indexes in this list, always smaller than the step's own.
    pub steps: Vec<Step>,
    /// What to tell the person first.
    pub warnings: Vec<Warning>,
}

/// One operation, its reason, and what it comes after.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What is done.
    pub operation: Operation,
    /// Why.
    pub cause: Cause,
    /// Steps that come before, by index, ascending.
    pub after: Vec<Edge>,
    /// `file:line:column` of the service or resource, for messages.
    pub place: Option<String>,
}

/// An earlier step that has to be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// Index of the earlier step.
    pub step: usize,
    /// `true`: it must have succeeded; `false`: it only must be over.
    pub must_succeed: bool,
}

impl Plan {
    /// This plan, and another one after it as a whole.
    #[must_use]
    pub fn then(mut self, later: Self) -> Self {
        let offset = self.steps.len();
        let builds: Vec<Edge> = (0..offset)
            .map(|step| Edge {
                step,
                must_succeed: true,
            })
            .collect();
        for mut step in later.steps {
            for edge in &mut step.after {
                edge.step += offset;
            }
            if step.after.is_empty() {
                step.after.clone_from(&builds);
            }
            self.steps.push(step);
        }
        self.warnings.extend(later.warnings);
        self
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// Index of a step while a plan is being put together.
pub(super) type Key = usize;

/// A plan in the making.
#[derive(Default)]
pub(super) struct Builder {
    steps: Vec<Step>,
    pub(super) warnings: Vec<Warning>,
}

impl Builder {
    pub(super) fn add(&mut self, operation: Operation, cause: Cause, place: Option<String>) -> Key {
        self.steps.push(Step {
            operation,
            cause,
            after: Vec::new(),
            place,
        });
        self.steps.len() - 1
    }

    /// `later` runs only if `earlier` succeeded.
    pub(super) fn needs(&mut self, later: Key, earlier: Key) {
        self.edge(
            later,
            Edge {
                step: earlier,
                must_succeed: true,
            },
        );
    }

    /// `later` runs once `earlier` is over, however it went.
    pub(super) fn follows(&mut self, later: Key, earlier: Key) {
        self.edge(
            later,
            Edge {
                step: earlier,
                must_succeed: false,
            },
        );
    }

    fn edge(&mut self, later: Key, edge: Edge) {
        let after = &mut self.steps[later].after;
        match after.iter_mut().find(|known| known.step == edge.step) {
            Some(known) => known.must_succeed |= edge.must_succeed,
            None => after.push(edge),
        }
    }

    pub(super) fn operation(&self, key: Key) -> &Operation {
        &self.steps[key].operation
    }

    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }

    /// Kahn's algorithm with the smallest key first: O((V + E) log V), and deterministic.
    ///
    /// # Panics
    /// On a cycle: services are ordered before steps are made, so that would be a bug of the planner.
    pub(super) fn finish(self, project: &str) -> Plan {
        let count = self.steps.len();
        let mut missing: Vec<usize> = self.steps.iter().map(|step| step.after.len()).collect();
        let mut followers: Vec<Vec<Key>> = vec![Vec::new(); count];
        for (key, step) in self.steps.iter().enumerate() {
            for edge in &step.after {
                followers[edge.step].push(key);
            }
        }
        let mut ready: BinaryHeap<Reverse<Key>> = (0..count)
            .filter(|key| missing[*key] == 0)
            .map(Reverse)
            .collect();
        let mut order = Vec::with_capacity(count);
        while let Some(Reverse(key)) = ready.pop() {
            order.push(key);
            for follower in &followers[key] {
                missing[*follower] -= 1;
                if missing[*follower] == 0 {
                    ready.push(Reverse(*follower));
                }
            }
        }
        assert_eq!(
            order.len(),
            count,
            "steps of a plan form a cycle: {:?}",
            stuck(&self.steps, &missing)
        );
        let mut position = vec![0; count];
        for (index, key) in order.iter().enumerate() {
            position[*key] = index;
        }
        let mut steps: Vec<Option<Step>> = self.steps.into_iter().map(Some).collect();
        let mut steps: Vec<Step> = order
            .into_iter()
            .map(|key| {
                let mut step = steps[key]
                    .take()
                    .expect("each key occurs once in the order");
                for edge in &mut step.after {
                    edge.step = position[edge.step];
                }
                step.after.sort_unstable();
                step
            })
            .collect();
        drop_implied(&mut steps);
        Plan {
            project: project.to_owned(),
            steps,
            warnings: self.warnings,
        }
    }
}

/// Drops edges that others imply, so that a plan reads as a person would write it: an earlier step that another
/// predecessor already needs, directly or not.
fn drop_implied(steps: &mut [Step]) {
    let words = steps.len().div_ceil(64);
    // Bit sets of all steps that must have succeeded before a step; edges point backwards, so one pass is enough.
    let mut needed: Vec<Vec<u64>> = Vec::with_capacity(steps.len());
    for step in steps {
        let direct: Vec<Edge> = step
            .after
            .iter()
            .copied()
            .filter(|edge| edge.must_succeed)
            .collect();
        let implied = |index: usize| {
            direct
                .iter()
                .any(|edge| needed[edge.step][index / 64] & (1 << (index % 64)) != 0)
        };
        step.after.retain(|edge| !implied(edge.step));
        let mut all = vec![0; words];
        for edge in &direct {
            for (word, more) in all.iter_mut().zip(&needed[edge.step]) {
                *word |= more;
            }
            all[edge.step / 64] |= 1 << (edge.step % 64);
        }
        needed.push(all);
    }
}

/// Descriptions of the steps that could not be ordered.
fn stuck(steps: &[Step], missing: &[usize]) -> BTreeSet<String> {
    let left = steps
        .iter()
        .zip(missing)
        .filter(|(_, missing)| **missing > 0);
    left.map(|(step, _)| format!("{} {}", step.operation.kind(), step.operation.object()))
        .collect()
}
