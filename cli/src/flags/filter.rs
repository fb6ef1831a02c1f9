//! `--filter key=value`. Source: docker/cli `opts/parse.go`.

use agent_api::Filters;

/// Filters of the flags as they were given.
pub(crate) fn filters(flags: &[String]) -> Result<Filters, String> {
    let mut filters = Filters::new();
    for flag in flags {
        let (key, value) = flag.split_once('=').ok_or_else(|| {
            format!("invalid argument \"{flag}\" for \"-f, --filter\": write it as name=value, for example --filter label=app")
        })?;
        filters.add(key.trim().to_lowercase().as_str(), value.trim());
    }
    Ok(filters)
}
