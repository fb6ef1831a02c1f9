//! Findings that only planning can make: they need values of variables, other stages or base images.
//!
//! Follows BuildKit's `dockerfile2llb/validations.go`. Whether a finding counts is the linter's business.

use std::collections::BTreeSet;

use super::env::EnvList;
use super::name::ImageName;
use super::planner::Planner;
use super::stage::StateId;
use super::{BaseImage, Platform, args, path};
use crate::dockerfile::{Dockerfile, Instruction, KeyValue, Lines, Stage};
use crate::lint::{Finding, Linter, finding};
use crate::pattern::Patterns;
use crate::suggest::{Case, nearest};
use crate::words::{Expansion, Lexer};

/// Base images that would have no valid name if nobody gave build arguments.
pub(super) fn default_bases(
    linter: &mut Linter,
    dockerfile: &Dockerfile,
    lexer: &Lexer,
    predefined: &EnvList,
) {
    let no_args = indexmap::IndexMap::new();
    let Ok(defaults) = args::global(predefined, dockerfile, lexer, &no_args) else {
        return;
    };
    for stage in &dockerfile.stages {
        let Ok(base) = lexer.expand(&stage.base, &defaults) else {
            return;
        };
        if ImageName::parse(&base.text).is_err() {
            let found = finding::invalid_default_arg_in_from(&stage.base);
            linter.raise(found, stage.lines, &stage.comments);
        }
    }
}

/// Variables of a FROM that are declared nowhere.
pub(super) fn undeclared_in_from(
    planner: &mut Planner<'_>,
    unmatched: &BTreeSet<String>,
    stage: &Stage,
) {
    let declared: Vec<&str> = args::declared(planner.dockerfile)
        .chain(planner.global_args.names())
        .collect();
    let mut found = Vec::new();
    for name in unmatched
        .iter()
        .filter(|name| !declared.contains(&name.as_str()))
    {
        let near = nearest(name, declared.iter().copied(), Case::Matters);
        found.push(finding::undefined_arg_in_from(name, near.as_deref()));
    }
    for finding in found {
        planner.linter.raise(finding, stage.lines, &stage.comments);
    }
}

/// A `--platform` that says what would be taken anyway, or a constant one.
pub(super) fn stage_platform(
    planner: &mut Planner<'_>,
    written: &str,
    expanded: &Expansion,
    stage: &Stage,
) {
    let (matched, unmatched) = (&expanded.matched, &expanded.unmatched);
    let only_target =
        matched.len() == 1 && unmatched.is_empty() && matched.contains("TARGETPLATFORM");
    if only_target && planner.global_args.get("TARGETPLATFORM") == Some(&expanded.text) {
        let found = finding::redundant_target_platform(written);
        planner.linter.raise(found, stage.lines, &stage.comments);
    }
    if !matched.is_empty() || !unmatched.is_empty() {
        return;
    }
    let Ok(platform) = expanded.text.parse::<Platform>() else {
        return;
    };
    let name = stage.name.as_deref().unwrap_or_default();
    if name.contains(&platform.os) || name.contains(&platform.architecture) {
        return;
    }
    let found = finding::from_platform_flag_const_disallowed(&expanded.text);
    planner.linter.raise(found, stage.lines, &stage.comments);
}

/// A base image of another platform than the one asked for.
pub(super) fn base_platform(
    planner: &mut Planner<'_>,
    written: &str,
    wanted: &Platform,
    image: &BaseImage,
    id: StateId,
) {
    let actual = Platform {
        os: image.config.os.clone(),
        architecture: image.config.architecture.clone(),
        variant: image.config.variant.clone(),
    };
    if wanted.os == actual.os && wanted.architecture == actual.architecture {
        return;
    }
    let (wanted, actual) = (
        wanted.normalized().to_string(),
        actual.normalized().to_string(),
    );
    let found = finding::invalid_base_image_platform(written, &wanted, &actual);
    let state = &planner.stages[id];
    let (lines, comments) = (state.lines, state.comments.clone());
    planner.linter.raise(found, lines, &comments);
}

/// Variables of an instruction that are set nowhere before it.
pub(super) fn undefined(
    planner: &mut Planner<'_>,
    id: StateId,
    instruction: &Instruction,
    unmatched: &BTreeSet<String>,
) {
    let state = &planner.stages[id];
    let mut found = Vec::new();
    for name in unmatched {
        let declared = state.args.iter().any(|arg| arg.name == *name);
        if declared || args::NOT_VARIABLES.contains(&name.as_str()) {
            continue;
        }
        let near = nearest(name, state.env.names(), Case::Matters);
        found.push(finding::undefined_var(name, near.as_deref()));
    }
    for finding in found {
        raise(planner, finding, instruction);
    }
}

/// `ENV key value`
pub(super) fn legacy_pair(planner: &mut Planner<'_>, instruction: &Instruction, pair: &KeyValue) {
    if pair.legacy {
        raise(
            planner,
            finding::legacy_key_value_format(&instruction.keyword),
            instruction,
        );
    }
}

/// A variable of the image whose name says that its value should be kept from others.
pub(super) fn secret_name(
    planner: &mut Planner<'_>,
    instruction: &Instruction,
    keyword: &str,
    name: &str,
) {
    if looks_secret(name) {
        raise(
            planner,
            finding::secrets_used_in_arg_or_env(keyword, name),
            instruction,
        );
    }
}

fn looks_secret(name: &str) -> bool {
    const SECRET: [&str; 10] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ];
    const HARMLESS: [&str; 3] = ["public", "file", "version"];
    let name = name.to_ascii_lowercase();
    let has = |words: &[&str]| name.split('_').any(|word| words.contains(&word));
    has(&SECRET) && !has(&HARMLESS)
}

/// An instruction of which only the last one in a stage counts; the finding is at the one that does not.
pub(super) fn only_once(
    planner: &mut Planner<'_>,
    instruction: &Instruction,
    previous: Option<Lines>,
) {
    if let Some(previous) = previous {
        let found = finding::multiple_instructions_disallowed(&instruction.keyword);
        planner.linter.raise(found, previous, &instruction.comments);
    }
}

/// CMD or ENTRYPOINT in shell form.
pub(super) fn shell_form(planner: &mut Planner<'_>, instruction: &Instruction) {
    raise(
        planner,
        finding::json_args_recommended(&instruction.keyword),
        instruction,
    );
}

/// A first WORKDIR that depends on the base image's.
pub(super) fn relative_workdir(planner: &mut Planner<'_>, instruction: &Instruction, path: &str) {
    raise(planner, finding::workdir_relative_path(path), instruction);
}

/// A port of EXPOSE that is oddly written.
pub(super) fn exposed(
    planner: &mut Planner<'_>,
    instruction: &Instruction,
    port: &str,
    odd_case: bool,
    published: bool,
) {
    if odd_case {
        raise(planner, finding::expose_proto_casing(port), instruction);
    }
    if published {
        raise(planner, finding::expose_invalid_format(port), instruction);
    }
}

/// A copy of something that the ignore file keeps out of the context.
pub(super) fn ignored_copy(
    planner: &mut Planner<'_>,
    instruction: &Instruction,
    keyword: &str,
    written: &str,
) {
    let patterns = &planner.options.ignore_patterns;
    // What is taken back cannot be told without looking at the files.
    if patterns.is_empty() || patterns.iter().any(|pattern| pattern.starts_with('!')) {
        return;
    }
    let cleaned = path::clean(written);
    if cleaned == "." || cleaned == "/" {
        let all = |pattern: &String| matches!(pattern.as_str(), "*" | "**" | "**/*");
        if !patterns.iter().any(all) {
            return;
        }
    }
    let Ok(compiled) = Patterns::new(patterns) else {
        return;
    };
    if compiled.matches(&cleaned) {
        let keyword = if keyword == "ADD" { "Add" } else { "Copy" };
        raise(
            planner,
            finding::copy_ignored_file(keyword, &cleaned),
            instruction,
        );
    }
}

fn raise(planner: &mut Planner<'_>, finding: Finding, instruction: &Instruction) {
    planner
        .linter
        .raise(finding, instruction.lines, &instruction.comments);
}

#[cfg(test)]
mod tests {
    use super::looks_secret;

    #[test]
    fn names_of_secrets_are_known_by_their_words() {
        for (name, secret) in [
            ("API_KEY", true),
            ("DATABASE_PASSWORD", true),
            ("token", true),
            ("AUTH", true),
            ("KEYBOARD", false),
            ("PUBLIC_KEY", false),
            ("TOKEN_FILE", false),
            ("SECRET_VERSION", false),
            ("PATH", false),
        ] {
            assert_eq!(looks_secret(name), secret, "{name}");
        }
    }
}
