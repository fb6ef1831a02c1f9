//! ARGs of the whole file: those that the builder gives and those before the first FROM.
//!
//! They are seen by FROM, and by stages that declare them again.

use indexmap::IndexMap;

use super::env::EnvList;
use super::{PlanError, Platform};
use crate::dockerfile::Dockerfile;
use crate::words::Lexer;

/// The arguments that every build has, unless a build argument of the same name says otherwise.
pub(super) fn predefined(
    build: &Platform,
    target: &Platform,
    stage: &str,
    build_args: &IndexMap<String, String>,
) -> EnvList {
    let mut env = EnvList::default();
    let stage = if stage.is_empty() { "default" } else { stage };
    for (name, value) in [
        ("BUILDPLATFORM", build.to_string().as_str()),
        ("BUILDOS", &build.os),
        ("BUILDOSVERSION", ""),
        ("BUILDARCH", &build.architecture),
        ("BUILDVARIANT", &build.variant),
        ("TARGETPLATFORM", &target.to_string()),
        ("TARGETOS", &target.os),
        ("TARGETOSVERSION", ""),
        ("TARGETARCH", &target.architecture),
        ("TARGETVARIANT", &target.variant),
        ("TARGETSTAGE", stage),
    ] {
        env.set(name, build_args.get(name).map_or(value, String::as_str));
    }
    env
}

/// Those with the ARGs before the first FROM. Each sees the ones before it; a build argument beats a default.
///
/// # Errors
/// A default that cannot be expanded.
pub(super) fn global(
    predefined: &EnvList,
    dockerfile: &Dockerfile,
    lexer: &Lexer,
    build_args: &IndexMap<String, String>,
) -> Result<EnvList, PlanError> {
    let mut env = predefined.clone();
    for declared in &dockerfile.global_args {
        for arg in &declared.args {
            let value = match (build_args.get(&arg.name), &arg.value) {
                (Some(given), _) => given.clone(),
                (None, Some(default)) => {
                    let expanded = lexer.expand(default, &env);
                    let at = |error| PlanError::from(error).at(declared.instruction.lines);
                    expanded.map_err(at)?.text
                }
                (None, None) => continue,
            };
            env.set(&arg.name, &value);
        }
    }
    Ok(env)
}

/// Names declared before the first FROM.
pub(super) fn declared(dockerfile: &Dockerfile) -> impl Iterator<Item = &str> {
    let args = dockerfile.global_args.iter().flat_map(|arg| &arg.args);
    args.map(|arg| arg.name.as_str())
}

/// Proxy variables among the build arguments, each in upper and lower case, as steps are to see them.
pub(super) fn proxies(build_args: &IndexMap<String, String>) -> Vec<String> {
    let mut env = Vec::new();
    let mut names: Vec<&String> = build_args.keys().collect();
    names.sort();
    for kind in [
        "http_proxy",
        "https_proxy",
        "ftp_proxy",
        "no_proxy",
        "all_proxy",
    ] {
        // Of `HTTP_PROXY` and `http_proxy` the last in order of bytes, the lower case one, counts.
        let given = names
            .iter()
            .rev()
            .find(|name| name.eq_ignore_ascii_case(kind));
        let value = given.map_or("", |name| build_args[*name].as_str());
        if !value.is_empty() {
            env.push(format!("{}={value}", kind.to_ascii_uppercase()));
            env.push(format!("{kind}={value}"));
        }
    }
    env
}

/// Arguments that only tell the builder something and are never variables of a step.
pub(super) const NOT_VARIABLES: [&str; 2] =
    ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_given_in_both_cases_and_the_lower_one_wins() {
        let args = IndexMap::from([
            ("http_proxy".to_owned(), "low".to_owned()),
            ("HTTP_PROXY".to_owned(), "up".to_owned()),
            ("No_Proxy".to_owned(), "x".to_owned()),
            ("FTP_PROXY".to_owned(), String::new()),
        ]);
        assert_eq!(
            proxies(&args),
            [
                "HTTP_PROXY=low",
                "http_proxy=low",
                "NO_PROXY=x",
                "no_proxy=x"
            ]
        );
    }
}
