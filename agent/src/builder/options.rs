//! From a request to what the plan is made with: every option is taken or refused by name. Pure, but for asking a client who
//! the user is.

use agent_api::build::{
    BuildRequest, CacheExport, ContextOffer, Entitlement as Granted, RegistryCredentials,
};
use agent_build::plan::{
    BuildOptions, BuilderArgs, ContextSource, Entitlement, ExtraHost, NetworkMode, NoCache,
    Platform, Resources, Ulimit,
};
use agent_image::{Credentials, Reference};

use super::failure::Failure;
use super::session::Session;
use crate::registry_auth;

/// Docker Hub's name among credentials.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The options of a request, but for the platform and the ignore file's patterns.
pub(crate) fn build_options(request: &BuildRequest) -> Result<BuildOptions, Failure> {
    let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let mut entitlements: Vec<Entitlement> = request
        .allow
        .iter()
        .map(|granted| match granted {
            Granted::NetworkHost => Entitlement::NetworkHost,
            Granted::SecurityInsecure => Entitlement::SecurityInsecure,
        })
        .collect();
    let network = match request.network.as_str() {
        "host" => {
            // Asking for it for the whole build is granting it, as in dockerd.
            entitlements.push(Entitlement::NetworkHost);
            NetworkMode::Host
        }
        "none" => NetworkMode::None,
        _ => NetworkMode::Sandbox,
    };
    let contexts = request
        .named_contexts
        .iter()
        .map(|(name, offer)| Ok((name.clone(), context_source(offer)?)));
    Ok(BuildOptions {
        target: text(&request.target),
        build_args: request.build_args.clone(),
        labels: request.labels.clone(),
        multi_platform: BuilderArgs::of(&request.build_args).is_index(platforms(request)?.len())?,
        no_cache: match (request.no_cache, request.no_cache_filter.is_empty()) {
            (true, _) => NoCache::Everything,
            (false, true) => NoCache::Nothing,
            (false, false) => NoCache::Stages(request.no_cache_filter.clone()),
        },
        contexts: contexts.collect::<Result<_, Failure>>()?,
        network,
        extra_hosts: request
            .add_hosts
            .iter()
            .map(|line| extra_host(line))
            .collect::<Result<_, _>>()?,
        ulimits: request
            .ulimits
            .iter()
            .map(|limit| Ulimit {
                name: limit.name.clone(),
                soft: limit.soft,
                hard: limit.hard,
            })
            .collect(),
        shm_size_bytes: u64::try_from(request.shm_size)
            .map_err(|_| Failure::invalid(format!("invalid shm size {}", request.shm_size)))?,
        cgroup_parent: text(&request.cgroup_parent),
        resources: resources(request)?,
        entitlements,
        ..BuildOptions::default()
    })
}

/// Whether the image is to have its cache in it.
pub(crate) fn inline_cache(request: &BuildRequest) -> bool {
    request.cache_to.contains(&CacheExport::Inline)
        || BuilderArgs::of(&request.build_args).inline_cache
}

/// The platforms to build for; `None` is the machine's, or what the base image is of.
pub(crate) fn platforms(request: &BuildRequest) -> Result<Vec<Option<Platform>>, Failure> {
    if request.platforms.is_empty() {
        return Ok(vec![None]);
    }
    let mut platforms: Vec<Option<Platform>> = Vec::new();
    for text in &request.platforms {
        let platform: Platform = text
            .parse()
            .map_err(|error| Failure::invalid(format!("invalid platform: {error}")))?;
        let platform = Some(platform.normalized());
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    Ok(platforms)
}

/// Who pulls or pushes an image: as the request says it, else as the client says it now, who may have to unlock a store of
/// passwords for it. To be asked when a registry is about to be.
pub(crate) async fn credentials(
    request: &BuildRequest,
    session: Option<&Session>,
    reference: &str,
) -> Option<Credentials> {
    let name = Reference::parse(reference).ok()?;
    let host = match name.domain() {
        "docker.io" => DOCKER_HUB,
        other => other,
    };
    if let Some(given) = given(request, host) {
        return registry_auth::credentials(given);
    }
    let session = session.filter(|_| request.ask_credentials)?;
    let told = session.credentials(host).await?;
    registry_auth::from_json(&told)
}

/// What the request has for a registry.
fn given<'a>(request: &'a BuildRequest, host: &str) -> Option<&'a RegistryCredentials> {
    let plain = |key: &str| {
        let bare = key
            .trim_start_matches("https://")
            .trim_start_matches("http://");
        bare.trim_end_matches('/') == host
    };
    request.auths.get(host).or_else(|| {
        let mut auths = request.auths.iter();
        auths.find(|(key, _)| plain(key)).map(|(_, auth)| auth)
    })
}

fn context_source(offer: &ContextOffer) -> Result<ContextSource, Failure> {
    Ok(match offer {
        ContextOffer::Empty => ContextSource::Scratch,
        ContextOffer::Directory { .. } | ContextOffer::Stream => ContextSource::Local,
        ContextOffer::Image { reference } => ContextSource::Image(reference.clone()),
        ContextOffer::OciLayout { reference } => ContextSource::OciLayout(reference.clone()),
        ContextOffer::Remote { url } => match agent_build::plan::GitAddress::parse(url) {
            Ok(Some(_)) => ContextSource::Git(url.clone()),
            Ok(None) => ContextSource::Http(url.clone()),
            Err(error) => return Err(Failure::invalid(format!("context {url}: {error}"))),
        },
    })
}

/// `name:address` or `name=address`, the address perhaps in brackets.
fn extra_host(line: &str) -> Result<ExtraHost, Failure> {
    let invalid = || Failure::invalid(format!("bad format for add-host: {line:?}"));
    let (host, address) = line
        .split_once('=')
        .or_else(|| line.split_once(':'))
        .ok_or_else(invalid)?;
    let bare = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = bare.unwrap_or(address);
    if host.is_empty()
        || (address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err())
    {
        return Err(invalid());
    }
    Ok(ExtraHost {
        host: host.to_owned(),
        address: address.to_owned(),
    })
}

fn resources(request: &BuildRequest) -> Result<Resources, Failure> {
    let given = &request.resources;
    let positive = |what: &str, value: i64| match u64::try_from(value) {
        Ok(0) => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(Failure::invalid(format!("invalid {what}: {value}"))),
    };
    let signed = |value: i64| Some(value).filter(|value| *value != 0);
    let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    Ok(Resources {
        memory_bytes: signed(given.memory),
        memory_swap_bytes: signed(given.memory_swap),
        cpu_shares: positive("CPU shares", given.cpu_shares)?,
        cpu_period_us: positive("CPU period", given.cpu_period)?,
        cpu_quota_us: signed(given.cpu_quota),
        cpuset_cpus: text(&given.cpuset_cpus),
        cpuset_mems: text(&given.cpuset_mems),
    })
}

#[cfg(test)]
mod tests {
    use super::super::session::Ask;
    use super::*;

    #[test]
    fn hosts_are_read_in_all_their_forms() {
        for (line, host, address) in [
            ("a:10.0.0.1", "a", "10.0.0.1"),
            ("a=10.0.0.1", "a", "10.0.0.1"),
            ("a:::1", "a", "::1"),
            ("a=[::1]", "a", "::1"),
            ("a:host-gateway", "a", "host-gateway"),
        ] {
            let read = extra_host(line).unwrap();
            assert_eq!((&*read.host, &*read.address), (host, address), "{line}");
        }
        for line in ["a", ":10.0.0.1", "a:b", "a:", ""] {
            assert!(extra_host(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_hosts_network_for_a_build_is_granted_by_asking() {
        let request = BuildRequest {
            network: "host".into(),
            ..BuildRequest::default()
        };
        let options = build_options(&request).unwrap();
        assert_eq!(options.network, NetworkMode::Host);
        assert_eq!(options.entitlements, [Entitlement::NetworkHost]);
    }

    #[tokio::test]
    async fn credentials_are_found_by_every_name_of_a_registry() {
        let mut request = BuildRequest::default();
        let of = |user: &str| RegistryCredentials {
            username: user.into(),
            password: "p".into(),
            ..RegistryCredentials::default()
        };
        request.auths.insert(DOCKER_HUB.into(), of("hub"));
        request.auths.insert("registry:5000".into(), of("plain"));
        request
            .auths
            .insert("https://other:5000/".into(), of("url"));
        // A client that is asked for each registry that the request does not name, and for no other.
        let (session, mut asked) = Session::channel();
        let client = tokio::spawn(async move {
            let mut servers = Vec::new();
            while let Some(Ask::Credentials { server, reply }) = asked.recv().await {
                let told = match &*server {
                    "asked:1" => r#"{"Username":"later","password":"p"}"#,
                    _ => "",
                };
                let _ = reply.send(Some(told.as_bytes().to_vec()));
                servers.push(server);
            }
            servers
        });
        for (may_ask, reference, expected) in [
            (true, "alpine", Some("hub")),
            (true, "registry:5000/a/b:c", Some("plain")),
            (true, "other:5000/a", Some("url")),
            (false, "asked:1/a", None),
            (true, "asked:1/a", Some("later")),
            (true, "nobody:1/a", None),
        ] {
            request.ask_credentials = may_ask;
            let found = credentials(&request, Some(&session), reference).await;
            let user = found.map(|found| found.username);
            assert_eq!(user.as_deref(), expected, "{reference}");
            assert!(may_ask || credentials(&request, None, reference).await.is_none());
        }
        drop(session);
        assert_eq!(client.await.unwrap(), ["asked:1", "nobody:1"]);
    }

    #[test]
    fn arguments_set_the_builder() {
        let with = |name: &str, value: &str| BuildRequest {
            build_args: [(name.to_owned(), value.to_owned())].into(),
            ..BuildRequest::default()
        };
        assert!(inline_cache(&with("BUILDKIT_INLINE_CACHE", "1")));
        assert!(!inline_cache(&with("BUILDKIT_INLINE_CACHE", "0")));
        assert!(!inline_cache(&BuildRequest::default()));
        let index = build_options(&with("BUILDKIT_MULTI_PLATFORM", "1"));
        assert!(index.unwrap().multi_platform);
        let refused = build_options(&with("BUILDKIT_MULTI_PLATFORM", "x"));
        assert!(refused.unwrap_err().message().contains("multi-platform: x"));
    }

    #[test]
    fn platforms_are_named_once() {
        let request = BuildRequest {
            platforms: vec![
                "linux/amd64".into(),
                "linux/x86_64".into(),
                "linux/arm64/v8".into(),
            ],
            ..BuildRequest::default()
        };
        assert_eq!(platforms(&request).unwrap().len(), 2);
        let request = BuildRequest {
            platforms: vec!["a/b/c/d".into()],
            ..BuildRequest::default()
        };
        assert!(platforms(&request).is_err());
    }
}
