//! Where a registry is asked: `docker.io` has another host name and mirrors, registries called insecure fall back to
//! plain http. Source of the rules: moby `daemon/pkg/registry/{config,service_v2}.go`.

use std::fmt;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::PathBuf;

use ipnet::IpNet;

use super::error::RegistryError;
use super::proxy::Proxies;

/// Layers of one image on their way at once, and tries of one exchange, as Docker.
const UPLOADS: usize = 5;
const DOWNLOADS: usize = 3;
const ATTEMPTS: u32 = 5;
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
/// What registries say who give no reason.
const DENIED: &str = "requested access to the resource is denied";
/// How Docker's clients call the hub when they log in.
const DOCKER_HUB_INDEX: &str = "index.docker.io";

/// What the configuration says about registries.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// `host[:port]` or a network in CIDR notation: certificates are not verified there, and plain http will do.
    /// Loopback addresses always are.
    pub insecure: Vec<String>,
    /// Base URLs asked before `docker.io`, for pulling only.
    pub mirrors: Vec<String>,
    /// Directories with one directory `host[:port]` per registry: `*.crt` are certificate authorities, `*.cert` with
    /// `*.key` a client certificate.
    pub certificates: Vec<PathBuf>,
    /// The way out, where there is no direct one.
    pub proxies: Proxies,
    /// Layers uploaded at once.
    pub uploads: usize,
    /// Layers downloaded at once.
    pub downloads: usize,
    /// Tries of one exchange.
    pub attempts: u32,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            insecure: Vec::new(),
            mirrors: Vec::new(),
            certificates: vec![PathBuf::from("/etc/docker/certs.d")],
            proxies: Proxies::default(),
            uploads: UPLOADS,
            downloads: DOWNLOADS,
            attempts: ATTEMPTS,
        }
    }
}

/// What a session is for: whether mirrors are asked, and which rights its tokens have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Read,
    Write,
}

impl Purpose {
    /// As scopes of tokens name it.
    pub(super) fn actions(self) -> &'static str {
        match self {
            Self::Read => "pull",
            Self::Write => "pull,push",
        }
    }

    /// The error for a repository where it is not allowed, for a reason that the registry gives or for none.
    pub(super) fn denied(self, repository: String, reason: Option<String>) -> RegistryError {
        match (self, reason.filter(|reason| reason != DENIED)) {
            (Self::Read, reason) => RegistryError::Denied {
                repository,
                reason: reason.unwrap_or_else(|| DENIED.to_owned()),
            },
            (Self::Write, Some(reason)) => RegistryError::PushRefused { repository, reason },
            (Self::Write, None) => RegistryError::PushDenied(repository),
        }
    }
}

/// A place that speaks the protocol.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Endpoint {
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    /// `host[:port]`.
    pub(super) authority: String,
    /// Path in front of `/v2/`, without a slash at its end.
    pub(super) prefix: String,
    /// Certificates are not verified, and credentials may go over plain http.
    pub(super) insecure: bool,
    mirror: bool,
}

impl Endpoint {
    fn new(scheme: &'static str, authority: &str, insecure: bool) -> Self {
        Self {
            scheme,
            authority: authority.to_owned(),
            prefix: String::new(),
            insecure,
            mirror: false,
        }
    }

    /// A place that is not configured: asked by TLS, or not at all.
    pub(super) fn secure(authority: &str) -> Self {
        Self::new("https", authority, false)
    }

    pub(super) fn is_mirror(&self) -> bool {
        self.mirror
    }

    /// The URL of an absolute path of the protocol.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{self}{path}")
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.prefix)
    }
}

impl RegistryConfig {
    /// The endpoints of a registry, best first.
    pub(super) fn endpoints(&self, domain: &str, purpose: Purpose) -> Vec<Endpoint> {
        if domain == DOCKER_HUB {
            let mut endpoints = Vec::new();
            if purpose == Purpose::Read {
                endpoints.extend(self.mirrors.iter().filter_map(|mirror| self.mirror(mirror)));
            }
            endpoints.push(Endpoint::new("https", DOCKER_HUB_HOST, false));
            return endpoints;
        }
        let insecure = self.is_insecure(domain);
        let mut endpoints = vec![Endpoint::new("https", domain, insecure)];
        if insecure {
            endpoints.push(Endpoint::new("http", domain, true));
        }
        endpoints
    }

    fn mirror(&self, url: &str) -> Option<Endpoint> {
        let (scheme, rest) = match url.split_once("://")? {
            ("https", rest) => ("https", rest),
            ("http", rest) => ("http", rest),
            _ => return None,
        };
        let rest = rest.trim_end_matches('/');
        let (authority, prefix) = match rest.split_once('/') {
            Some((authority, prefix)) => (authority, format!("/{prefix}")),
            None => (rest, String::new()),
        };
        Some(Endpoint {
            prefix,
            mirror: true,
            ..Endpoint::new(
                scheme,
                authority,
                scheme == "http" || self.is_insecure(authority),
            )
        })
    }

    fn is_insecure(&self, domain: &str) -> bool {
        if self.insecure.iter().any(|name| name == domain) {
            return true;
        }
        let networks: Vec<IpNet> = self
            .insecure
            .iter()
            .filter_map(|network| network.parse().ok())
            .collect();
        let inside = |address: IpAddr| {
            address.is_loopback() || networks.iter().any(|network| network.contains(&address))
        };
        let host = match domain.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
            _ => domain,
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = host.parse() {
            return inside(address);
        }
        // As Docker: a name counts as what it resolves to; one that does not resolve is no exception.
        (host, 443)
            .to_socket_addrs()
            .is_ok_and(|mut found| found.any(|address| inside(address.ip())))
    }
}

/// The registry that an address of a login means: a URL, a host, or nothing for `docker.io`.
#[must_use]
pub fn registry_of(address: &str) -> String {
    let (rest, port) = match address.split_once("://") {
        Some(("https", rest)) => (rest, ":443"),
        Some(("http", rest)) => (rest, ":80"),
        _ => (address, ""),
    };
    let host = rest.split('/').next().unwrap_or_default();
    // The port that a URL means anyway.
    let host = match host.strip_suffix(port) {
        Some(bare) if !port.is_empty() => bare,
        _ => host,
    };
    match host {
        "" | DOCKER_HUB_INDEX | DOCKER_HUB_HOST => DOCKER_HUB.to_owned(),
        host => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(config: &RegistryConfig, domain: &str, purpose: Purpose) -> Vec<String> {
        let endpoints = config.endpoints(domain, purpose);
        endpoints.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn docker_hub_has_another_name_and_mirrors_for_reading() {
        let config = RegistryConfig {
            mirrors: vec![
                "http://192.0.2.1:5000/".into(),
                "https://m.test/cache".into(),
            ],
            ..RegistryConfig::default()
        };
        let hub = "https://registry-1.docker.io";
        assert_eq!(
            of(&config, "docker.io", Purpose::Read),
            ["http://192.0.2.1:5000", "https://m.test/cache", hub]
        );
        assert_eq!(of(&config, "docker.io", Purpose::Write), [hub]);
        assert_eq!(
            of(&config, "192.0.2.9", Purpose::Read),
            ["https://192.0.2.9"]
        );
    }

    #[test]
    fn plain_http_only_where_allowed() {
        let config = RegistryConfig {
            insecure: vec!["192.0.2.7:80".into(), "198.51.100.0/24".into()],
            ..RegistryConfig::default()
        };
        for (domain, insecure) in [
            ("192.0.2.7:80", true),
            ("192.0.2.7:81", false),
            ("198.51.100.9", true),
            ("198.51.101.9", false),
            ("127.0.0.1:5000", true),
            ("[::1]:5000", true),
            ("localhost:5000", true),
        ] {
            let found = of(&config, domain, Purpose::Read);
            assert_eq!(found[0], format!("https://{domain}"));
            assert_eq!(found.len() == 2, insecure, "{domain}");
        }
    }

    #[test]
    fn login_addresses() {
        for (address, domain) in [
            ("", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("http://host:5000/v2/", "host:5000"),
            ("ghcr.io", "ghcr.io"),
            ("https://ghcr.io:443/v2/", "ghcr.io"),
            ("http://host:443", "host:443"),
        ] {
            assert_eq!(registry_of(address), domain);
        }
    }
}
