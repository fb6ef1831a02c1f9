//! Questions about a Dockerfile that build nothing: its findings, what its target takes from outside, its stages.
//!
//! Pure. Source: buildkit `frontend/subrequests/{lint,outline,targets}`, `frontend/dockerfile/builder/subrequests.go`.

use std::collections::BTreeSet;

use agent_api::build::{
    CallAnswer, LintError, LintResults, LintWarning, Location, Outline, OutlineArg, OutlineCache,
    OutlineNeed, SourceInfo, SourcePosition, SourceRange, TargetInfo, TargetList,
};
use agent_build::dockerfile::{ArgPair, Kind, Stage};
use agent_build::lint::Lint;
use agent_build::plan::{BuildOptions, MountKind, Op, Plan, PlanError};
use agent_build::{Dockerfile, Lines};

/// The file that messages refer to.
pub(super) fn source_info(dockerfile: &Dockerfile) -> SourceInfo {
    SourceInfo {
        filename: dockerfile.name.clone(),
        data: dockerfile.source.clone().into_bytes(),
        language: "Dockerfile".to_owned(),
    }
}

/// A place of that file, as BuildKit writes it: a range of its own for each line.
pub(super) fn source_ranges(lines: Lines) -> impl Iterator<Item = SourceRange> {
    (lines.first.max(1)..=lines.last).map(|line| {
        let place = SourcePosition { line, character: 0 };
        SourceRange {
            start: place,
            end: place,
        }
    })
}

fn location(lines: &[Lines]) -> Location {
    Location {
        source_index: 0,
        ranges: lines.iter().copied().flat_map(source_ranges).collect(),
    }
}

/// The findings of a Dockerfile that can be planned, or not.
pub(super) fn check(dockerfile: &Dockerfile, plan: Result<&Plan, &PlanError>) -> CallAnswer {
    let (warnings, error) = match plan {
        Ok(plan) => (&plan.warnings, None),
        Err(error) => {
            let told = LintError {
                message: error.to_string(),
                location: location(&error.lines),
            };
            (&error.warnings, Some(told))
        }
    };
    let mut warnings: Vec<&Lint> = warnings.iter().collect();
    warnings.sort_by_key(|lint| lint.lines);
    let warning = |lint: &Lint| LintWarning {
        rule_name: lint.rule.clone(),
        description: lint.description.clone(),
        url: lint.url.clone(),
        detail: lint.message.clone(),
        location: location(&[lint.lines]),
    };
    CallAnswer::Check(LintResults {
        warnings: warnings.into_iter().map(warning).collect(),
        sources: vec![source_info(dockerfile)],
        error,
    })
}

/// The stages of a Dockerfile.
pub(super) fn targets(dockerfile: &Dockerfile) -> CallAnswer {
    let last = dockerfile.stages.len().saturating_sub(1);
    let stages = dockerfile.stages.iter().enumerate();
    let target = |(number, stage): (usize, &Stage)| TargetInfo {
        name: stage.name.clone().unwrap_or_default(),
        default: number == last,
        description: stage.description.clone(),
        base: stage.base.clone(),
        platform: stage.platform.clone().unwrap_or_default(),
        location: Some(location(&[stage.lines])),
    };
    CallAnswer::Targets(TargetList {
        targets: stages.map(target).collect(),
        sources: vec![dockerfile.source.clone().into_bytes()],
    })
}

/// What a target takes from outside.
pub(super) fn outline(dockerfile: &Dockerfile, options: &BuildOptions, plan: &Plan) -> CallAnswer {
    let chain = chain(dockerfile, options.target.as_deref());
    let target = chain.first().map(|number| &dockerfile.stages[*number]);
    let mut outline = Outline {
        name: target
            .and_then(|stage| stage.name.clone())
            .unwrap_or_default(),
        description: target.map_or_else(String::new, |stage| stage.description.clone()),
        args: args(dockerfile, options, &chain),
        sources: vec![dockerfile.source.clone().into_bytes()],
        ..Outline::default()
    };
    for vertex in &plan.vertices {
        let Op::Run(run) = &vertex.op else { continue };
        let place = Some(location(&[vertex.lines]));
        for mount in &run.mounts {
            match &mount.kind {
                MountKind::Secret { id, required, .. } => {
                    need(&mut outline.secrets, id, *required, &place);
                }
                MountKind::Ssh { id, required, .. } => {
                    need(&mut outline.ssh, id, *required, &place)
                }
                MountKind::Cache { id, .. } => {
                    let id = id.split_once('/').map_or(id.as_str(), |(_, id)| id);
                    if !outline.cache.iter().any(|known| known.id == id) {
                        outline.cache.push(OutlineCache {
                            id: id.to_owned(),
                            location: place.clone(),
                        });
                    }
                }
                _ => {}
            }
        }
    }
    CallAnswer::Outline(outline)
}

fn need(needs: &mut Vec<OutlineNeed>, id: &str, required: bool, place: &Option<Location>) {
    match needs.iter_mut().find(|known| known.name == id) {
        Some(known) => known.required |= required,
        None => needs.push(OutlineNeed {
            name: id.to_owned(),
            required,
            location: place.clone(),
        }),
    }
}

/// The target and the stages that it starts from, one after the other.
fn chain(dockerfile: &Dockerfile, target: Option<&str>) -> Vec<usize> {
    let stages = &dockerfile.stages;
    let find = |name: &str, before: usize| {
        let named = |number: &usize| {
            let own = stages[*number].name.as_deref();
            own.is_some_and(|own| own.eq_ignore_ascii_case(name))
        };
        (0..before).rev().find(named)
    };
    let number = |name: &str| name.parse().ok().filter(|number| *number < stages.len());
    let begin = match target {
        None => stages.len().checked_sub(1),
        Some(name) => find(name, stages.len()).or_else(|| number(name)),
    };
    let mut chain = Vec::new();
    let mut next = begin;
    while let Some(number) = next {
        chain.push(number);
        next = find(&stages[number].base, number);
    }
    chain
}

/// Build arguments: those before the first stage, then those of the stages, the deepest first.
fn args(dockerfile: &Dockerfile, options: &BuildOptions, chain: &[usize]) -> Vec<OutlineArg> {
    let mut declared: Vec<(&ArgPair, Lines)> = Vec::new();
    for global in &dockerfile.global_args {
        declared.extend(
            global
                .args
                .iter()
                .map(|arg| (arg, global.instruction.lines)),
        );
    }
    for number in chain.iter().rev() {
        for instruction in &dockerfile.stages[*number].instructions {
            if let Kind::Arg(args) = &instruction.kind {
                declared.extend(args.iter().map(|arg| (arg, instruction.lines)));
            }
        }
    }
    let mut seen = BTreeSet::new();
    let first = declared
        .into_iter()
        .filter(|(arg, _)| seen.insert(arg.name.clone()));
    let tell = |(arg, lines): (&ArgPair, Lines)| OutlineArg {
        name: arg.name.clone(),
        description: arg.description.clone(),
        value: match options.build_args.get(&arg.name) {
            Some(given) => given.clone(),
            None => arg.value.clone().unwrap_or_default(),
        },
        location: Some(location(&[lines])),
    };
    first.map(tell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "ARG VERSION=1\nFROM scratch AS base\n# TOKEN what to greet with\nARG TOKEN\nFROM base AS app\nARG MODE=fast\nFROM scratch\n";

    fn dockerfile() -> Dockerfile {
        Dockerfile::parse(TEXT, "Dockerfile").unwrap()
    }

    #[test]
    fn stages_are_listed_with_the_last_as_default() {
        let CallAnswer::Targets(list) = targets(&dockerfile()) else {
            panic!()
        };
        let shown: Vec<_> = list
            .targets
            .iter()
            .map(|target| (&*target.name, &*target.base, target.default))
            .collect();
        assert_eq!(
            shown,
            [
                ("base", "scratch", false),
                ("app", "base", false),
                ("", "scratch", true)
            ]
        );
    }

    #[test]
    fn a_finding_has_a_range_for_each_of_its_lines() {
        let text = "FROM a \\\n AS B\n";
        let dockerfile = Dockerfile::parse(text, "Dockerfile").unwrap();
        let mut linter = agent_build::lint::Linter::default();
        linter.check(&dockerfile);
        let place = location(&[linter.found()[0].lines]);
        let lines = place
            .ranges
            .iter()
            .map(|range| (range.start.line, range.end.line));
        assert_eq!(lines.collect::<Vec<_>>(), [(1, 1), (2, 2)]);
    }

    #[test]
    fn a_targets_arguments_are_those_of_all_it_starts_from() {
        let dockerfile = dockerfile();
        let options = BuildOptions {
            build_args: [("MODE".to_owned(), "slow".to_owned())].into(),
            ..BuildOptions::default()
        };
        assert_eq!(chain(&dockerfile, Some("app")), [1, 0]);
        assert_eq!(chain(&dockerfile, None), [2]);
        assert_eq!(chain(&dockerfile, Some("0")), [0]);
        let found = args(&dockerfile, &options, &[1, 0]);
        let shown: Vec<_> = found.iter().map(|arg| (&*arg.name, &*arg.value)).collect();
        assert_eq!(shown, [("VERSION", "1"), ("TOKEN", ""), ("MODE", "slow")]);
        assert_eq!(found[1].description, "what to greet with");
    }
}
