//! How registries are reached: mirrors, those without TLS, certificates, proxies, and how much goes on at once.

use std::path::PathBuf;

use agent_image::{Proxies, RegistryConfig};
use serde_json::Value;

use super::{ConfigError, Reader};

/// Which registries are special.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registries {
    /// `--insecure-registry`: `host[:port]` or a network.
    pub insecure: Vec<String>,
    /// `--registry-mirror`: base URLs asked before `docker.io`.
    pub mirrors: Vec<String>,
    /// `--registry-certificates`: a directory laid out as `/etc/docker/certs.d`, besides that one.
    pub certificates: Option<PathBuf>,
    /// `--http-proxy`; `None` is what the environment says.
    pub http_proxy: Option<String>,
    /// `--https-proxy`; `None` is what the environment says.
    pub https_proxy: Option<String>,
    /// `--no-proxy`; `None` is what the environment says.
    pub no_proxy: Option<String>,
    /// `--max-concurrent-downloads`: layers of one image.
    pub downloads: Option<usize>,
    /// `--max-concurrent-uploads`: layers of one image.
    pub uploads: Option<usize>,
    /// `--max-download-attempts`: tries of one exchange.
    pub attempts: Option<u32>,
}

impl Registries {
    /// Source: moby `daemon/pkg/registry/config.go` (`ValidateMirror`, `loadInsecureRegistries`).
    pub(super) fn validate(read: &Reader<'_>) -> Result<Self, ConfigError> {
        let mut registries = Self::default();
        for name in read.list("insecure-registries") {
            let host = name
                .strip_prefix("http://")
                .or_else(|| name.strip_prefix("https://"))
                .unwrap_or(name);
            let network = host.parse::<ipnet::IpNet>().is_ok();
            if host.is_empty() || host.starts_with('-') || (host.contains('/') && !network) {
                return Err(read.invalid(
                    "insecure-registries",
                    format!("{name:?} is neither host[:port] nor a network such as 10.0.0.0/8"),
                ));
            }
            registries.insecure.push(host.to_owned());
        }
        for mirror in read.list("registry-mirrors") {
            let fine = url::Url::parse(mirror).is_ok_and(|url| {
                matches!(url.scheme(), "http" | "https")
                    && url.has_host()
                    && url.query().is_none()
                    && url.fragment().is_none()
                    && url.username().is_empty()
                    && url.password().is_none()
            });
            if !fine {
                return Err(read.invalid(
                    "registry-mirrors",
                    format!("{mirror:?} is not a URL such as https://mirror.example.com"),
                ));
            }
            registries.mirrors.push(mirror.to_owned());
        }
        registries.certificates = read.absolute("registry-certificates")?;
        let proxy = |key: &str| {
            // In the file Docker has them in an object of their own.
            let nested = read
                .given
                .get("proxies")
                .and_then(|proxies| proxies.get(key));
            let text = nested.and_then(Value::as_str).or_else(|| read.text(key))?;
            Some(text.to_owned())
        };
        if let Some(proxies) = read.given.get("proxies") {
            let known = |key: &str| matches!(key, "http-proxy" | "https-proxy" | "no-proxy");
            let fine = proxies.as_object().is_some_and(|object| {
                object
                    .iter()
                    .all(|(key, value)| known(key) && value.is_string())
            });
            if !fine {
                return Err(read.invalid(
                    "proxies",
                    "it must be an object of texts http-proxy, https-proxy and no-proxy".to_owned(),
                ));
            }
        }
        registries.http_proxy = proxy("http-proxy");
        registries.https_proxy = proxy("https-proxy");
        registries.no_proxy = proxy("no-proxy");
        for (key, proxy) in [
            ("http-proxy", &registries.http_proxy),
            ("https-proxy", &registries.https_proxy),
        ] {
            if let Err(reason) = Proxies::new(proxy.as_deref().unwrap_or_default(), "", "") {
                return Err(read.invalid(key, reason));
            }
        }
        let positive = |key: &str| match read.number(key) {
            None => Ok(None),
            Some(number @ 1..=100) => Ok(Some(number)),
            Some(number) => Err(read.invalid(key, format!("{number} is not between 1 and 100"))),
        };
        let count = |number: Option<i64>| number.and_then(|number| usize::try_from(number).ok());
        registries.downloads = count(positive("max-concurrent-downloads")?);
        registries.uploads = count(positive("max-concurrent-uploads")?);
        registries.attempts =
            positive("max-download-attempts")?.and_then(|number| u32::try_from(number).ok());
        Ok(registries)
    }

    /// For the registry client. `environment` gives the value of a variable.
    ///
    /// # Errors
    /// The environment names a proxy that cannot be used; the text says which.
    pub(crate) fn client_config(
        &self,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<RegistryConfig, String> {
        let proxy = |own: &Option<String>, name: &str| {
            let named = || environment(&name.to_uppercase()).or_else(|| environment(name));
            own.clone().or_else(named).unwrap_or_default()
        };
        let proxies = Proxies::new(
            &proxy(&self.http_proxy, "http_proxy"),
            &proxy(&self.https_proxy, "https_proxy"),
            &proxy(&self.no_proxy, "no_proxy"),
        )?;
        let mut config = RegistryConfig {
            insecure: self.insecure.clone(),
            mirrors: self.mirrors.clone(),
            proxies,
            ..RegistryConfig::default()
        };
        config.certificates.extend(self.certificates.clone());
        config.uploads = self.uploads.unwrap_or(config.uploads);
        config.downloads = self.downloads.unwrap_or(config.downloads);
        config.attempts = self.attempts.unwrap_or(config.attempts);
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_goes_before_the_environment() {
        let registries = Registries {
            https_proxy: Some("http://own:1".to_owned()),
            uploads: Some(2),
            ..Registries::default()
        };
        let environment = |name: &str| match name {
            "HTTP_PROXY" => Some("http://env:2".to_owned()),
            "https_proxy" => Some("socks4://env:3".to_owned()),
            "no_proxy" => Some("*".to_owned()),
            _ => None,
        };
        let config = registries.client_config(environment).unwrap();
        let expected = Proxies::new("http://env:2", "http://own:1", "*").unwrap();
        assert_eq!(config.proxies, expected);
        assert_eq!((config.uploads, config.downloads), (2, 3));
        let refused = Registries::default().client_config(environment);
        assert!(refused.unwrap_err().contains("socks4"));
    }
}
