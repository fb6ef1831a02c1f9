//! The rules: their names, what they ask for, and how a finding reads. Follows BuildKit's `linter/ruleset.go`.

use super::{Finding, Rule};
use crate::quote::quote;

macro_rules! rules {
    ($($constant:ident $name:literal $page:literal $description:literal)*) => {
        $(
            static $constant: Rule = Rule {
                name: $name,
                description: $description,
                page: $page,
                experimental: false,
            };
        )*
    };
}

rules! {
    STAGE_NAME_CASING "StageNameCasing" "stage-name-casing"
        "Stage names should be lowercase"
    FROM_AS_CASING "FromAsCasing" "from-as-casing"
        "The 'as' keyword should match the case of the 'from' keyword"
    NO_EMPTY_CONTINUATION "NoEmptyContinuation" "no-empty-continuation"
        "Empty continuation lines will become errors in a future release"
    CONSISTENT_INSTRUCTION_CASING "ConsistentInstructionCasing" "consistent-instruction-casing"
        "All commands within the Dockerfile should use the same casing (either upper or lower)"
    DUPLICATE_STAGE_NAME "DuplicateStageName" "duplicate-stage-name"
        "Stage names should be unique"
    RESERVED_STAGE_NAME "ReservedStageName" "reserved-stage-name"
        "Reserved words should not be used as stage names"
    JSON_ARGS_RECOMMENDED "JSONArgsRecommended" "json-args-recommended"
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals"
    MAINTAINER_DEPRECATED "MaintainerDeprecated" "maintainer-deprecated"
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author"
    UNDEFINED_ARG_IN_FROM "UndefinedArgInFrom" "undefined-arg-in-from"
        "FROM command must use declared ARGs"
    WORKDIR_RELATIVE_PATH "WorkdirRelativePath" "workdir-relative-path"
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes"
    UNDEFINED_VAR "UndefinedVar" "undefined-var"
        "Variables should be defined before their use"
    MULTIPLE_INSTRUCTIONS_DISALLOWED "MultipleInstructionsDisallowed" "multiple-instructions-disallowed"
        "Multiple instructions of the same type should not be used in the same stage"
    LEGACY_KEY_VALUE_FORMAT "LegacyKeyValueFormat" "legacy-key-value-format"
        "Legacy key/value format with whitespace separator should not be used"
    INVALID_BASE_IMAGE_PLATFORM "InvalidBaseImagePlatform" ""
        "Base image platform does not match expected target platform"
    REDUNDANT_TARGET_PLATFORM "RedundantTargetPlatform" "redundant-target-platform"
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior"
    SECRETS_USED_IN_ARG_OR_ENV "SecretsUsedInArgOrEnv" "secrets-used-in-arg-or-env"
        "Sensitive data should not be used in the ARG or ENV commands"
    INVALID_DEFAULT_ARG_IN_FROM "InvalidDefaultArgInFrom" "invalid-default-arg-in-from"
        "Default value for global ARG results in an empty or invalid base image name"
    FROM_PLATFORM_FLAG_CONST_DISALLOWED "FromPlatformFlagConstDisallowed" "from-platform-flag-const-disallowed"
        "FROM --platform flag should not use a constant value"
    COPY_IGNORED_FILE "CopyIgnoredFile" "copy-ignored-file"
        "Attempting to Copy file that is excluded by .dockerignore"
    EXPOSE_PROTO_CASING "ExposeProtoCasing" "expose-proto-casing"
        "Protocol in EXPOSE instruction should be lowercase"
    EXPOSE_INVALID_FORMAT "ExposeInvalidFormat" "expose-invalid-format"
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release"
}

static INVALID_DEFINITION_DESCRIPTION: Rule = Rule {
    name: "InvalidDefinitionDescription",
    description: "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    page: "invalid-definition-description",
    experimental: true,
};

fn new(rule: &'static Rule, message: String) -> Finding {
    Finding { rule, message }
}

/// `FROM x AS Name`
pub fn stage_name_casing(name: &str) -> Finding {
    let message = format!("Stage name '{name}' should be lowercase");
    new(&STAGE_NAME_CASING, message)
}

/// `FROM x as y`
pub fn from_as_casing(from: &str, keyword: &str) -> Finding {
    let message = format!("'{keyword}' and '{from}' keywords' casing do not match");
    new(&FROM_AS_CASING, message)
}

/// An empty line inside of a continued instruction.
pub fn no_empty_continuation() -> Finding {
    new(&NO_EMPTY_CONTINUATION, "Empty continuation line".into())
}

/// An instruction that is not written as most others are (`uppercase` or `lowercase`).
pub fn consistent_instruction_casing(keyword: &str, majority: &str) -> Finding {
    let message =
        format!("Command '{keyword}' should match the case of the command majority ({majority})");
    new(&CONSISTENT_INSTRUCTION_CASING, message)
}

/// Two stages of one name.
pub fn duplicate_stage_name(name: &str) -> Finding {
    let message = format!(
        "Duplicate stage name {}, stage names should be unique",
        quote(name)
    );
    new(&DUPLICATE_STAGE_NAME, message)
}

/// A stage called `scratch` or `context`.
pub fn reserved_stage_name(name: &str) -> Finding {
    let message = format!(
        "Stage name should not use the same name as reserved stage {}",
        quote(name)
    );
    new(&RESERVED_STAGE_NAME, message)
}

/// CMD or ENTRYPOINT (`keyword` as written) in shell form without a SHELL.
pub fn json_args_recommended(keyword: &str) -> Finding {
    let message = format!(
        "JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals"
    );
    new(&JSON_ARGS_RECOMMENDED, message)
}

/// MAINTAINER
pub fn maintainer_deprecated() -> Finding {
    let message = "Maintainer instruction is deprecated in favor of using label";
    new(&MAINTAINER_DEPRECATED, message.into())
}

/// A variable in FROM that is not declared; `near` is a declared one of similar name.
pub fn undefined_arg_in_from(name: &str, near: Option<&str>) -> Finding {
    let hint = near.map_or(String::new(), |near| format!(" (did you mean {near}?)"));
    let message = format!("FROM argument '{name}' is not declared{hint}");
    new(&UNDEFINED_ARG_IN_FROM, message)
}

/// The first WORKDIR of a stage, when relative.
pub fn workdir_relative_path(path: &str) -> Finding {
    let message = format!(
        "Relative workdir {} can have unexpected results if the base image changes",
        quote(path)
    );
    new(&WORKDIR_RELATIVE_PATH, message)
}

/// A variable that is not set; `near` is one of similar name that is.
pub fn undefined_var(name: &str, near: Option<&str>) -> Finding {
    let hint = near.map_or(String::new(), |near| format!(" (did you mean ${near}?)"));
    let message = format!("Usage of undefined variable '${name}'{hint}");
    new(&UNDEFINED_VAR, message)
}

/// A CMD, ENTRYPOINT or HEALTHCHECK (`keyword` as written) that a later one of its stage replaces.
pub fn multiple_instructions_disallowed(keyword: &str) -> Finding {
    let message = format!(
        "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
    );
    new(&MULTIPLE_INSTRUCTIONS_DISALLOWED, message)
}

/// `ENV key value` (`keyword` as written).
pub fn legacy_key_value_format(keyword: &str) -> Finding {
    let message = format!(
        "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
    );
    new(&LEGACY_KEY_VALUE_FORMAT, message)
}

/// A base image that is for something else.
pub fn invalid_base_image_platform(image: &str, expected: &str, actual: &str) -> Finding {
    let message = format!(
        "Base image {image} was pulled with platform {}, expected {} for current build",
        quote(actual),
        quote(expected)
    );
    new(&INVALID_BASE_IMAGE_PLATFORM, message)
}

/// `FROM --platform=$TARGETPLATFORM`; `written` is the flag's value.
pub fn redundant_target_platform(written: &str) -> Finding {
    let message = format!(
        "Setting platform to predefined {written} in FROM is redundant as this is the default behavior"
    );
    new(&REDUNDANT_TARGET_PLATFORM, message)
}

/// ARG or ENV (in upper case) of a variable that looks like a secret.
pub fn secrets_used_in_arg_or_env(instruction: &str, name: &str) -> Finding {
    let message = format!(
        "Do not use ARG or ENV instructions for sensitive data ({instruction} {})",
        quote(name)
    );
    new(&SECRETS_USED_IN_ARG_OR_ENV, message)
}

/// A base (as written) that is no image name unless build arguments are given.
pub fn invalid_default_arg_in_from(base: &str) -> Finding {
    let message =
        format!("Default value for ARG {base} results in empty or invalid base image name");
    new(&INVALID_DEFAULT_ARG_IN_FROM, message)
}

/// `FROM --platform=linux/amd64`
pub fn from_platform_flag_const_disallowed(platform: &str) -> Finding {
    let message = format!(
        "FROM --platform flag should not use constant value {}",
        quote(platform)
    );
    new(&FROM_PLATFORM_FLAG_CONST_DISALLOWED, message)
}

/// COPY or ADD (`Copy`, `Add`) of a path that the ignore file excludes.
pub fn copy_ignored_file(instruction: &str, path: &str) -> Finding {
    let message = format!(
        "Attempting to {instruction} file {} that is excluded by .dockerignore",
        quote(path)
    );
    new(&COPY_IGNORED_FILE, message)
}

/// A comment above FROM or ARG that does not begin with the name.
pub fn invalid_definition_description(instruction: &str, name: &str) -> Finding {
    let message =
        format!("Comment for {instruction} should follow the format: `# {name} <description>`");
    new(&INVALID_DEFINITION_DESCRIPTION, message)
}

/// `EXPOSE 80/TCP`
pub fn expose_proto_casing(port: &str) -> Finding {
    let message = format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
    new(&EXPOSE_PROTO_CASING, message)
}

/// `EXPOSE 127.0.0.1:80:80`
pub fn expose_invalid_format(port: &str) -> Finding {
    let message = format!(
        "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
    );
    new(&EXPOSE_INVALID_FORMAT, message)
}
