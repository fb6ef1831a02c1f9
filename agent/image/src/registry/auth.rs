//! Who is asking: Basic, and Bearer tokens that a registry's token service gives out per scope
//! (distribution `docs/spec/auth/{token,oauth}.md`).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde::Deserialize;

/// Tokens kept; all are forgotten beyond.
const TOKENS_MAX: usize = 1024;
/// A token that says nothing lives this long.
const LIFE_DEFAULT: u64 = 60;
/// How long a registry is taken to want the password.
const BASIC_LIFE: Duration = Duration::from_secs(600);
/// Not used any more this long before it ends, because clocks and networks are slow.
const LIFE_MARGIN: Duration = Duration::from_secs(5);

/// A user of a registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Name; empty with an identity token.
    pub username: String,
    /// Password or access token.
    pub password: String,
    /// Stands for both, at the token service alone.
    pub identity_token: String,
    /// A token for the registry itself, got elsewhere.
    pub registry_token: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({})", self.username)
    }
}

impl Credentials {
    /// The value of an `Authorization` header.
    pub(super) fn basic(&self) -> String {
        let pair = format!("{}:{}", self.username, self.password);
        format!("Basic {}", STANDARD.encode(pair))
    }
}

/// What a registry wants, out of `WWW-Authenticate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: String },
}

impl Challenge {
    /// Reads one header; `None` when it names no scheme known here.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let parameters = parameters(rest);
        let get = |name: &str| parameters.get(name).cloned();
        Some(Self::Bearer {
            realm: get("realm")?,
            service: get("service").unwrap_or_default(),
        })
    }
}

/// `name="value", name=value`, values with commas and escapes inside quotes.
fn parameters(text: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([' ', ',', '\t']).to_ascii_lowercase();
        let mut value = String::new();
        let mut chars = after.char_indices();
        let mut quoted = false;
        let mut end = after.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => quoted = !quoted,
                '\\' if quoted => value.extend(chars.next().map(|(_, c)| c)),
                ',' if !quoted => {
                    end = at + 1;
                    break;
                }
                c => value.push(c),
            }
        }
        found.insert(name, value.trim().to_owned());
        rest = &after[end..];
    }
    found
}

/// What a token service answers.
#[derive(Deserialize)]
pub(super) struct TokenReply {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    expires_in: Option<u64>,
    /// An identity token, where one was asked for.
    #[serde(default)]
    pub(super) refresh_token: String,
}

impl TokenReply {
    /// The token under either of its names; empty: the reply holds none.
    pub(super) fn token(&self) -> &str {
        match self.token.is_empty() {
            true => &self.access_token,
            false => &self.token,
        }
    }
}

/// For whom and for what a token is good.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct TokenKey {
    pub(super) origin: String,
    pub(super) scope: String,
    pub(super) user: String,
}

/// Authorisations that were good lately.
#[derive(Default)]
pub(super) struct Tokens(Mutex<HashMap<TokenKey, (String, Instant)>>);

impl Tokens {
    /// The header to send, if there is one that is still good.
    pub(super) fn get(&self, key: &TokenKey) -> Option<String> {
        let tokens = self.0.lock();
        let (header, until) = tokens.get(key)?;
        (*until > Instant::now()).then(|| header.clone())
    }

    pub(super) fn forget(&self, key: &TokenKey) {
        self.0.lock().remove(key);
    }

    /// Keeps a token, and returns the header to send. `None`: the reply holds none.
    pub(super) fn keep(&self, key: TokenKey, reply: TokenReply) -> Option<String> {
        let token = reply.token();
        if token.is_empty() {
            return None;
        }
        let header = format!("Bearer {token}");
        let life = Duration::from_secs(reply.expires_in.unwrap_or(LIFE_DEFAULT).min(86_400));
        self.insert(key, &header, life.saturating_sub(LIFE_MARGIN));
        Some(header)
    }

    /// Keeps the header of a registry that wants the password itself, so that it is not asked without first.
    pub(super) fn keep_basic(&self, key: TokenKey, header: String) -> String {
        self.insert(key, &header, BASIC_LIFE);
        header
    }

    fn insert(&self, key: TokenKey, header: &str, life: Duration) {
        let mut tokens = self.0.lock();
        if tokens.len() >= TOKENS_MAX {
            tokens.clear();
        }
        tokens.insert(key, (header.to_owned(), Instant::now() + life));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        assert_eq!(
            Challenge::parse(
                r#"Bearer realm="https://auth.test/t?a=b,c",service="reg \"x\"",scope="repository:a:pull,push""#
            ),
            Some(Challenge::Bearer {
                realm: "https://auth.test/t?a=b,c".into(),
                service: "reg \"x\"".into(),
            })
        );
        assert_eq!(Challenge::parse("basic realm=x"), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Bearer service=x"), None);
        assert_eq!(Challenge::parse("Negotiate"), None);
        assert_eq!(
            Challenge::parse("Bearer realm=\"\\"),
            Some(Challenge::Bearer {
                realm: String::new(),
                service: String::new(),
            })
        );
    }

    #[test]
    fn tokens_end() {
        let key = || TokenKey {
            origin: "o".into(),
            scope: "s".into(),
            user: "u".into(),
        };
        let reply = |expires_in| TokenReply {
            token: String::new(),
            access_token: "t".into(),
            expires_in,
            refresh_token: String::new(),
        };
        let tokens = Tokens::default();
        assert_eq!(tokens.keep(key(), reply(None)).as_deref(), Some("Bearer t"));
        assert_eq!(tokens.get(&key()).as_deref(), Some("Bearer t"));
        tokens.keep(key(), reply(Some(0)));
        assert_eq!(tokens.get(&key()), None);
    }

    #[test]
    fn a_password_is_not_printed() {
        let credentials = Credentials {
            username: "me".into(),
            password: "secret".into(),
            ..Credentials::default()
        };
        assert_eq!(format!("{credentials:?}"), "Credentials(me)");
        assert_eq!(credentials.basic(), "Basic bWU6c2VjcmV0");
    }
}
