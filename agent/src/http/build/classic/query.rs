//! The query of a classic build as a request. What this daemon cannot do is refused by name, and so is what nobody knows.

use agent_api::Ulimit;
use agent_api::build::{
    BuildRequest, BuildResources, CacheImport, ContextOffer, DockerfileSource, ImageOutput, Output,
    RegistryCredentials,
};
use http::HeaderMap;
use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::http::error::HttpError;
use crate::http::query::Query;
use crate::http::router::ApiVersion;
use crate::registry_auth;

/// Parameters of API 1.24 to 1.51.
const KNOWN: &[&str] = &[
    "dockerfile",
    "t",
    "extrahosts",
    "remote",
    "q",
    "nocache",
    "cachefrom",
    "pull",
    "rm",
    "forcerm",
    "memory",
    "memswap",
    "cpushares",
    "cpusetcpus",
    "cpusetmems",
    "cpuperiod",
    "cpuquota",
    "buildargs",
    "shmsize",
    "squash",
    "labels",
    "networkmode",
    "platform",
    "target",
    "outputs",
    "version",
    "buildid",
    "ulimits",
    "cgroupparent",
    "securityopt",
    "isolation",
    "session",
];

/// What a client without frames asks for.
pub(super) fn request(
    query: &Query,
    headers: &HeaderMap,
    version: ApiVersion,
) -> Result<BuildRequest, HttpError> {
    refuse(query)?;
    // As dockerd: what is no number is none.
    let number = |name: &str| query.text(name).parse::<i64>().unwrap_or_default();
    let context = match query.optional("remote") {
        None => ContextOffer::Stream,
        Some(url) => ContextOffer::Remote {
            url: url.to_owned(),
        },
    };
    let args: IndexMap<String, Option<String>> =
        json(query, "buildargs", "error reading build args")?;
    let caches: Vec<String> = json(query, "cachefrom", "error reading cache-from")?;
    let limits: Vec<Ulimit> = json(query, "ulimits", "error reading ulimit settings")?;
    let platform = match version.before(32) {
        true => None,
        false => query.optional("platform"),
    };
    Ok(BuildRequest {
        dockerfile: DockerfileSource::Context {
            path: query
                .optional("dockerfile")
                .unwrap_or("Dockerfile")
                .to_owned(),
        },
        context,
        build_args: args
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect(),
        labels: json(query, "labels", "error reading labels")?,
        target: query.text("target").to_owned(),
        platforms: platform.map(str::to_owned).into_iter().collect(),
        tags: query
            .all("t")
            .into_iter()
            .filter(|tag| !tag.is_empty())
            .collect(),
        no_cache: query.flag("nocache"),
        pull: query.flag("pull"),
        network: match query.text("networkmode") {
            "default" => String::new(),
            mode => mode.to_owned(),
        },
        add_hosts: query.all("extrahosts"),
        shm_size: query.integer("shmsize")?.unwrap_or(0),
        ulimits: limits,
        cgroup_parent: query.text("cgroupparent").to_owned(),
        resources: BuildResources {
            memory: number("memory"),
            memory_swap: number("memswap"),
            cpu_shares: number("cpushares"),
            cpu_period: number("cpuperiod"),
            cpu_quota: number("cpuquota"),
            cpuset_cpus: query.text("cpusetcpus").to_owned(),
            cpuset_mems: query.text("cpusetmems").to_owned(),
        },
        cache_from: caches
            .into_iter()
            .map(|reference| CacheImport::Registry { reference })
            .collect(),
        outputs: match version.before(40) {
            true => Vec::new(),
            false => outputs(query)?,
        },
        auths: auths(headers),
        build_id: query.text("buildid").to_owned(),
        ..BuildRequest::default()
    })
}

/// Refuses what cannot be honoured.
fn refuse(query: &Query) -> Result<(), HttpError> {
    if let Some(unknown) = query.names().find(|name| !KNOWN.contains(name)) {
        return Err(HttpError::bad_request(format!(
            "building does not know the parameter {unknown:?}"
        )));
    }
    if query.flag("squash") {
        return Err(HttpError::bad_request(
            "squash is only supported with experimental mode: use a further stage and COPY --from instead",
        ));
    }
    if !query.all("securityopt").is_empty() {
        return Err(HttpError::bad_request(
            "security options are not supported on linux",
        ));
    }
    match query.text("isolation") {
        "" | "default" => {}
        other => {
            return Err(HttpError::bad_request(format!(
                "unsupported isolation: {other:?}"
            )));
        }
    }
    if let mode @ ("container" | "ns") = query
        .text("networkmode")
        .split(':')
        .next()
        .unwrap_or_default()
    {
        return Err(HttpError::bad_request(format!(
            "building in the network of a container ({mode}:…) is not supported: name a network, or use default, host or none"
        )));
    }
    let session = query.optional("session").is_some();
    match query.text("version") {
        "" | "1" if !session => Ok(()),
        "" | "1" | "2" => Err(HttpError::not_implemented(
            "building with a session of BuildKit is not supported: link the muster executable as \
             ~/.docker/cli-plugins/docker-buildx, or set DOCKER_BUILDKIT=0",
        )),
        other => Err(HttpError::bad_request(format!("invalid version {other:?}"))),
    }
}

/// One of several outputs.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OutputOption {
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    attrs: Option<IndexMap<String, String>>,
}

fn outputs(query: &Query) -> Result<Vec<Output>, HttpError> {
    let given: Vec<OutputOption> = json(query, "outputs", "invalid outputs specified")?;
    if given.len() > 1 {
        return Err(HttpError::bad_request("multiple outputs not supported"));
    }
    given.into_iter().map(output).collect()
}

fn output(given: OutputOption) -> Result<Output, HttpError> {
    let mut options = ImageOutput::default();
    match given.r#type.as_str() {
        "cacheonly" => return Ok(Output::CacheOnly),
        "moby" | "image" | "docker" => {}
        other => {
            return Err(HttpError::bad_request(format!(
                "an output of type {other:?} needs a client that can take it: build with muster build, or with muster as docker-buildx"
            )));
        }
    }
    for (name, value) in given.attrs.unwrap_or_default() {
        match name.as_str() {
            "name" => options.names = value.split(',').map(str::to_owned).collect(),
            "push" if value == "false" => {}
            other => {
                return Err(HttpError::bad_request(format!(
                    "the attribute {other:?} of an output is not supported here"
                )));
            }
        }
    }
    Ok(Output::Image(options))
}

fn json<T: DeserializeOwned + Default>(
    query: &Query,
    name: &str,
    what: &str,
) -> Result<T, HttpError> {
    let Some(text) = query.optional(name) else {
        return Ok(T::default());
    };
    let read: Option<T> = serde_json::from_str(text)
        .map_err(|error| HttpError::bad_request(format!("{what}: {error}")))?;
    Ok(read.unwrap_or_default())
}

/// The header `X-Registry-Config`.
fn auths(headers: &HeaderMap) -> IndexMap<String, RegistryCredentials> {
    let header = headers.get("x-registry-config");
    header.map_or_else(IndexMap::new, |header| {
        registry_auth::by_registry(header.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE;

    fn read(query: &str) -> Result<BuildRequest, String> {
        let query = Query::parse(Some(query));
        request(&query, &HeaderMap::new(), ApiVersion::NEWEST).map_err(|error| error.message)
    }

    #[test]
    fn what_clients_send_is_read() {
        // docker 28 with DOCKER_BUILDKIT=0, and docker-py.
        let request = read("buildargs=%7B%22A%22%3A%221%22%2C%22B%22%3Anull%7D&cachefrom=%5B%5D&cgroupparent=&cpuperiod=0&cpuquota=0&cpusetcpus=&cpusetmems=&cpushares=0&dockerfile=Dockerfile&labels=%7B%22l%22%3A%22x%22%7D&memory=0&memswap=0&networkmode=default&rm=1&shmsize=0&t=a%3Ab&target=&ulimits=null&version=1").unwrap();
        assert_eq!(request.build_args.len(), 1);
        assert_eq!(request.labels["l"], "x");
        assert_eq!(request.tags, ["a:b"]);
        assert_eq!(request.network, "");
        assert_eq!(request.context, ContextOffer::Stream);
        let request = read("t=x&q=False&nocache=False&rm=True&forcerm=False&pull=False&remote=https%3A%2F%2Fh%2Fr.git").unwrap();
        assert!(
            matches!(request.context, ContextOffer::Remote { url } if url == "https://h/r.git")
        );
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        for (query, word) in [
            ("frob=1", "frob"),
            ("squash=1", "squash"),
            ("securityopt=x", "security options"),
            ("isolation=hyperv", "hyperv"),
            ("session=x", "docker-buildx"),
            ("version=2", "docker-buildx"),
            ("version=3", "invalid version"),
            ("networkmode=container:x", "container"),
            ("buildargs={", "build args"),
            ("outputs=[{\"Type\":\"local\"}]", "local"),
            (
                "outputs=[{\"Type\":\"image\",\"Attrs\":{\"frob\":\"1\"}}]",
                "frob",
            ),
        ] {
            let error = read(query).expect_err(query);
            assert!(error.contains(word), "{query}: {error}");
        }
    }

    #[test]
    fn credentials_come_in_a_header() {
        let mut headers = HeaderMap::new();
        let json = r#"{"https://index.docker.io/v1/":{"Username":"u","password":"p","auth":null}}"#;
        headers.insert("x-registry-config", URL_SAFE.encode(json).parse().unwrap());
        let request = request(&Query::default(), &headers, ApiVersion::NEWEST).unwrap();
        assert_eq!(request.auths["https://index.docker.io/v1/"].username, "u");
        headers.insert("x-registry-config", "!".parse().unwrap());
        assert!(auths(&headers).is_empty());
    }
}
