//! The languages of options that the flags of a build share with bake files and projects.
//!
//! Must not: know clap, or where a value comes from. What outputs, caches, secrets and agents mean is read by
//! `agent_api::client::build`. Source: docker/buildx `util/buildflags`, docker/cli `opts`.

use crate::failure::Failure;
use crate::flags::bools;
use agent_api::build::Entitlement;
use agent_api::client::build::{OutputSpec, OutputTarget, SpecError};
use indexmap::IndexMap;

/// There is one builder, which needs no name.
pub(crate) fn check_builder(flag: Option<&str>) -> Result<(), Failure> {
    let from_env = std::env::var("BUILDX_BUILDER").ok();
    match flag.or(from_env.as_deref()) {
        None | Some("" | "default" | "muster") => Ok(()),
        Some(other) => Err(Failure::new(
            1,
            format!(
                "no builder {other:?} found: there is one, default, which is the daemon itself"
            ),
        )),
    }
}

/// Attestations are not made; asking for none is fine.
pub(crate) fn check_attestations(
    attest: &[String],
    provenance: Option<&str>,
    sbom: Option<&str>,
) -> Result<(), String> {
    let off = |value: &str| bools::parse(value) == Some(false) || value.contains("disabled=true");
    for (flag, value) in [("provenance", provenance), ("sbom", sbom)] {
        if let Some(value) = value.filter(|value| !off(value)) {
            return Err(format!(
                "--{flag}={value} is not supported: images are not attested, use --{flag}=false"
            ));
        }
    }
    match attest.iter().find(|value| !off(value)) {
        Some(value) => Err(format!(
            "--attest={value} is not supported: images are not attested, add disabled=true"
        )),
        None => Ok(()),
    }
}

/// `--output`, `--load` and `--push` together.
pub(crate) fn outputs(texts: &[String], load: bool, push: bool) -> Result<Vec<OutputSpec>, String> {
    let mut outputs = each(texts, OutputSpec::parse)?;
    if push && load {
        return Err("push and load may not be set together at the moment".to_owned());
    }
    if push {
        let mut pushed = false;
        for output in &mut outputs {
            if let OutputTarget::Image(image) = &mut output.target {
                image.push = true;
                pushed = true;
            }
        }
        if !pushed {
            outputs.push(OutputSpec::registry());
        }
    }
    let stored = |output: &OutputSpec| matches!(output.target, OutputTarget::Image(_));
    if load && !outputs.iter().any(stored) {
        outputs.push(OutputSpec::store());
    }
    Ok(outputs)
}

/// `NAME=value`; `NAME` alone takes the caller's value and is dropped without one.
pub(crate) fn build_args(flags: &[String]) -> IndexMap<String, String> {
    let arg = |flag: &String| match flag.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => Some((flag.clone(), std::env::var(flag).ok()?)),
    };
    let mut args: IndexMap<String, String> = flags.iter().filter_map(arg).collect();
    add_source_date(&mut args);
    args
}

/// The caller's `SOURCE_DATE_EPOCH`, unless an argument says otherwise.
pub(crate) fn add_source_date(args: &mut IndexMap<String, String>) {
    const NAME: &str = "SOURCE_DATE_EPOCH";
    if let Ok(value) = std::env::var(NAME)
        && !value.is_empty()
        && !args.contains_key(NAME)
    {
        args.insert(NAME.to_owned(), value);
    }
}

/// `key=value`; a key alone has an empty value.
pub(crate) fn assignments(flags: &[String]) -> IndexMap<String, String> {
    let pair = |flag: &String| {
        let (key, value) = flag.split_once('=').unwrap_or((flag, ""));
        (key.to_owned(), value.to_owned())
    };
    flags.iter().map(pair).collect()
}

/// `key=value`, both of them.
pub(crate) fn pairs(flag: &str, values: &[String]) -> Result<IndexMap<String, String>, String> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err(format!("invalid --{flag} {text:?}: write key=value")),
    };
    values.iter().map(pair).collect()
}

/// Values that may have several in one, separated by commas.
pub(crate) fn listed(values: &[String]) -> Vec<String> {
    let all = values.iter().flat_map(|value| value.split(','));
    let all = all.map(str::trim).filter(|value| !value.is_empty());
    all.map(str::to_owned).collect()
}

/// `host:ip` or `host=ip`.
pub(crate) fn add_hosts(flags: &[String]) -> Result<Vec<String>, String> {
    let entry = |flag: &String| {
        let (host, address) = flag
            .split_once('=')
            .or_else(|| flag.split_once(':'))
            .ok_or_else(|| format!("bad format for add-host: {flag:?}: write host:ip"))?;
        let address = address.trim_start_matches('[').trim_end_matches(']');
        if address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err() {
            return Err(format!("invalid IP address in add-host: {address:?}"));
        }
        Ok(format!("{host}:{address}"))
    };
    flags.iter().map(entry).collect()
}

/// `--allow`; the host's network for all of a build allows it to all of it.
pub(crate) fn entitlements(allow: &[String], network: &str) -> Result<Vec<Entitlement>, String> {
    let mut granted = Vec::new();
    for name in listed(allow) {
        granted.push(match name.as_str() {
            "network.host" => Entitlement::NetworkHost,
            "security.insecure" => Entitlement::SecurityInsecure,
            other => {
                return Err(format!(
                    "--allow {other} is not supported: there are network.host and security.insecure"
                ));
            }
        });
    }
    if network == "host" && !granted.contains(&Entitlement::NetworkHost) {
        granted.push(Entitlement::NetworkHost);
    }
    Ok(granted)
}

/// Reads every value of a flag.
pub(crate) fn each<T>(
    values: &[String],
    parse: impl Fn(&str) -> Result<T, SpecError>,
) -> Result<Vec<T>, String> {
    let parsed = values
        .iter()
        .map(|value| parse(value).map_err(|error| error.to_string()));
    parsed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    #[test]
    fn push_and_load_are_outputs() {
        let is_push = |output: &OutputSpec| matches!(&output.target, OutputTarget::Image(image) if image.push);
        assert!(outputs(&[], false, false).unwrap().is_empty());
        assert!(is_push(&outputs(&[], false, true).unwrap()[0]));
        let both = outputs(&strings(&["type=image", "out"]), false, true).unwrap();
        assert!(both.len() == 2 && is_push(&both[0]));
        assert_eq!(outputs(&strings(&["out"]), true, false).unwrap().len(), 2);
        assert_eq!(
            outputs(&strings(&["type=docker"]), true, false)
                .unwrap()
                .len(),
            1
        );
        assert!(outputs(&[], true, true).is_err());
    }
}
