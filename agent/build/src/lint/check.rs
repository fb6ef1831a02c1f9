//! The checks that the text alone decides. Follows BuildKit's `instructions/parse.go` and
//! `dockerfile2llb/validations.go`, in their order.

use super::{Linter, finding};
use crate::dockerfile::{Dockerfile, Instruction, Kind, Lines, Stage};

/// Names that mean something else than a stage.
const RESERVED: [&str; 2] = ["context", "scratch"];

impl Linter {
    /// Runs every check that the text alone decides.
    pub fn check(&mut self, dockerfile: &Dockerfile) {
        for &lines in &dockerfile.empty_continuations {
            self.raise(finding::no_empty_continuation(), lines, &[]);
        }
        for global in &dockerfile.global_args {
            self.check_instruction(&global.instruction);
        }
        for stage in &dockerfile.stages {
            self.check_from(stage);
            for instruction in &stage.instructions {
                self.check_instruction(instruction);
            }
        }
        self.check_stage_names(&dockerfile.stages);
        self.check_casing(&dockerfile.stages);
    }

    fn check_from(&mut self, stage: &Stage) {
        let (lines, comments) = (stage.lines, &stage.comments);
        if let Some(written) = &stage.name_as_written
            && *written != written.to_lowercase()
        {
            self.raise(finding::stage_name_casing(written), lines, comments);
        }
        if let Some(keyword) = &stage.as_keyword
            && !same_case(&stage.keyword, keyword)
        {
            let found = finding::from_as_casing(&stage.keyword, keyword);
            self.raise(found, lines, comments);
        }
        if let Some(name) = &stage.name {
            self.check_description("FROM", &[name], lines, comments);
        }
    }

    fn check_instruction(&mut self, instruction: &Instruction) {
        let (lines, comments) = (instruction.lines, &instruction.comments);
        match &instruction.kind {
            Kind::Maintainer(_) => {
                self.raise(finding::maintainer_deprecated(), lines, comments);
            }
            Kind::Arg(args) => {
                let names: Vec<&str> = args.iter().map(|arg| arg.name.as_str()).collect();
                self.check_description("ARG", &names, lines, comments);
            }
            _ => {}
        }
    }

    /// The comment directly above should begin with a name that the instruction defines.
    fn check_description(
        &mut self,
        instruction: &str,
        names: &[&str],
        lines: Lines,
        comments: &[String],
    ) {
        let Some(first) = comments.last().and_then(|last| last.split(' ').next()) else {
            return;
        };
        if names.contains(&first) {
            return;
        }
        let example = match names {
            [only] => only,
            _ => "<arg_key>",
        };
        let found = finding::invalid_definition_description(instruction, example);
        self.raise(found, lines, comments);
    }

    fn check_stage_names(&mut self, stages: &[Stage]) {
        let mut seen: Vec<&str> = Vec::new();
        for stage in stages {
            let Some(name) = stage.name.as_deref() else {
                continue;
            };
            // These look at the whole file: a comment above one stage does not silence them.
            if RESERVED.contains(&name) {
                self.raise(finding::reserved_stage_name(name), stage.lines, &[]);
            }
            if seen.contains(&name) {
                self.raise(finding::duplicate_stage_name(name), stage.lines, &[]);
            }
            seen.push(name);
        }
    }

    fn check_casing(&mut self, stages: &[Stage]) {
        let keywords = || {
            stages.iter().flat_map(|stage| {
                let instructions = stage.instructions.iter();
                std::iter::once((stage.keyword.as_str(), stage.lines))
                    .chain(instructions.map(|i| (i.keyword.as_str(), i.lines)))
            })
        };
        let lower = keywords().filter(|(word, _)| is_lower(word)).count();
        let upper = keywords()
            .filter(|(word, _)| is_upper(word) && !is_lower(word))
            .count();
        for (keyword, lines) in keywords() {
            let majority = match lower > upper {
                true if !is_lower(keyword) => "lowercase",
                false if !is_upper(keyword) => "uppercase",
                _ => continue,
            };
            let found = finding::consistent_instruction_casing(keyword, majority);
            self.raise(found, lines, &[]);
        }
    }
}

fn is_lower(word: &str) -> bool {
    word == word.to_lowercase()
}

fn is_upper(word: &str) -> bool {
    word == word.to_uppercase()
}

/// Whether AS is written as FROM is. A FROM of mixed case is another rule's business.
fn same_case(from: &str, keyword: &str) -> bool {
    if is_lower(from) {
        is_lower(keyword)
    } else {
        !is_upper(from) || is_upper(keyword)
    }
}
