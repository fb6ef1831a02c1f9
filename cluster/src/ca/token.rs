//! Join tokens: `SWMTKN-1-<sha256 of the root, base 36, 50 characters>-<16 random bytes, base 36, 25 characters>`
//! (SwarmKit `ca/config.go`, `GenerateJoinToken`, `ParseJoinToken`).
//!
//! The hash pins the root, so a joiner needs to trust nothing else; the secret says the role. There is one secret per
//! role, and rotating it makes the old token worthless.

use std::fmt;
use std::str::FromStr;

use agent_api::swarm::NodeRole;
use cluster_api::{IdSource, TokenSecrets};
use zeroize::Zeroize as _;

use super::RootDigest;

const PREFIX: &str = "SWMTKN";
const VERSION: &str = "1";
const DIGEST_CHARACTERS: usize = 50;
const SECRET_CHARACTERS: usize = 25;
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// What is wrong with the text of a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error(
        "a join token has the form SWMTKN-1-<hash>-<secret>; this has {0} parts between dashes, not 4"
    )]
    Parts(usize),
    #[error("a join token begins with SWMTKN, this with {0:?}")]
    Prefix(String),
    #[error(
        "a join token of version {0} is not supported, only version 1 (version 2 asks for FIPS)"
    )]
    Version(String),
    #[error(
        "the {part} of a join token has {want} characters, this has {have}: it was probably not copied whole"
    )]
    Length {
        part: &'static str,
        want: usize,
        have: usize,
    },
    #[error("the {part} of a join token is made of 0-9 and a-z, this has {character:?}")]
    Character { part: &'static str, character: char },
    #[error("the {0} of this join token is too large a number: it was mistyped")]
    Range(&'static str),
}

/// A whole token.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Of the root certificate the cluster's managers show.
    pub root: RootDigest,
    pub secret: TokenSecret,
}

impl fmt::Display for JoinToken {
    /// The text to give to whoever joins.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{PREFIX}-{VERSION}-{}-{}",
            to_base36(&self.root.0, DIGEST_CHARACTERS),
            self.secret.as_str()
        )
    }
}

impl fmt::Debug for JoinToken {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({:?}, …)", self.root)
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let parts: Vec<&str> = text.trim().split('-').collect();
        let &[prefix, version, digest, secret] = parts.as_slice() else {
            return Err(TokenError::Parts(parts.len()));
        };
        if prefix != PREFIX {
            return Err(TokenError::Prefix(prefix.chars().take(16).collect()));
        }
        if version != VERSION {
            return Err(TokenError::Version(version.chars().take(16).collect()));
        }
        let root = from_base36::<32>(digest, "hash", DIGEST_CHARACTERS)?;
        Ok(Self {
            root: RootDigest(root),
            secret: secret.parse()?,
        })
    }
}

/// The half of a token that must stay secret: 25 characters.
#[derive(Clone)]
pub struct TokenSecret(String);

impl TokenSecret {
    /// A new one.
    #[must_use]
    pub fn generate(ids: &mut IdSource) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&ids.bits().to_be_bytes());
        bytes[8..].copy_from_slice(&ids.bits().to_be_bytes());
        Self(to_base36(&bytes, SECRET_CHARACTERS))
    }

    /// As it stands in the token and in the store.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TokenSecret {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        from_base36::<16>(text, "secret", SECRET_CHARACTERS)?;
        Ok(Self(text.to_owned()))
    }
}

impl PartialEq for TokenSecret {
    /// Takes the same time wherever the two differ.
    fn eq(&self, other: &Self) -> bool {
        same(self.0.as_bytes(), other.0.as_bytes())
    }
}

impl Eq for TokenSecret {}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(…)")
    }
}

impl Drop for TokenSecret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The role a secret lets its bearer take, if any. Both are always compared, in constant time.
#[must_use]
pub fn role_of_secret(secrets: &TokenSecrets, presented: &TokenSecret) -> Option<NodeRole> {
    let manager = same(secrets.manager.as_bytes(), presented.0.as_bytes());
    let worker = same(secrets.worker.as_bytes(), presented.0.as_bytes());
    match (manager, worker) {
        (true, _) => Some(NodeRole::Manager),
        (false, true) => Some(NodeRole::Worker),
        (false, false) => None,
    }
}

/// Equality whose time depends on the lengths only. Nothing is equal to an empty secret.
fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() || a.is_empty() {
        return false;
    }
    let difference = a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b));
    std::hint::black_box(difference) == 0
}

/// A big-endian number in base 36, padded with zeros to `width` characters.
fn to_base36(bytes: &[u8], width: usize) -> String {
    let mut number = bytes.to_vec();
    let mut digits = vec![b'0'; width];
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0;
        for byte in &mut number {
            let value = remainder * 256 + usize::from(*byte);
            *byte =
                u8::try_from(value / 36).expect("a remainder is below 36, so this is below 256");
            remainder = value % 36;
        }
        *digit = DIGITS[remainder];
    }
    number.zeroize();
    String::from_utf8(digits).expect("digits are ASCII")
}

fn from_base36<const BYTES: usize>(
    text: &str,
    part: &'static str,
    width: usize,
) -> Result<[u8; BYTES], TokenError> {
    let have = text.chars().count();
    if have != width {
        return Err(TokenError::Length {
            part,
            want: width,
            have,
        });
    }
    let mut number = [0; BYTES];
    for character in text.chars() {
        let digit = match character {
            '0'..='9' | 'a'..='z' => character.to_digit(36),
            _ => None,
        };
        let mut carry = digit.ok_or(TokenError::Character { part, character })?;
        for byte in number.iter_mut().rev() {
            let value = u32::from(*byte) * 36 + carry;
            *byte = value.to_le_bytes()[0];
            carry = value >> 8;
        }
        if carry != 0 {
            return Err(TokenError::Range(part));
        }
    }
    Ok(number)
}

/// A node's id, made from the key it first joined with: asking twice with one key is one node.
pub(super) fn id_of_digest(digest: &[u8]) -> String {
    to_base36(&digest[..16], SECRET_CHARACTERS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str =
        "SWMTKN-1-3pu6hszjas19xyp7ghgosyx9k8atbfcr8p2is99znpy26u2lkl-1awxwuwd3z9j1z3puu7rcgdbx";

    fn secrets(worker: &str, manager: &str) -> TokenSecrets {
        TokenSecrets {
            worker: worker.to_owned(),
            manager: manager.to_owned(),
        }
    }

    #[test]
    fn the_token_of_dockers_manual_reads_and_writes_the_same() {
        let token: JoinToken = TEXT.parse().unwrap();
        assert_eq!(token.to_string(), TEXT);
        assert_eq!(token.secret.as_str(), "1awxwuwd3z9j1z3puu7rcgdbx");
        assert_eq!(format!(" {TEXT}\n").parse::<JoinToken>(), Ok(token));
    }

    #[test]
    fn what_is_wrong_with_a_token_is_said() {
        let cases = [
            ("", TokenError::Parts(1)),
            ("SWMTKN-1-abc", TokenError::Parts(3)),
            (
                &TEXT.replace("SWMTKN", "SWMTKM"),
                TokenError::Prefix("SWMTKM".into()),
            ),
            (
                &TEXT.replace("-1-3", "-2-3"),
                TokenError::Version("2".into()),
            ),
            (
                &TEXT[..TEXT.len() - 1],
                TokenError::Length {
                    part: "secret",
                    want: 25,
                    have: 24,
                },
            ),
            (
                &TEXT.replace("3pu6", "3pU6"),
                TokenError::Character {
                    part: "hash",
                    character: 'U',
                },
            ),
            (&TEXT.replace("-1awx", "-zawx"), TokenError::Range("secret")),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<JoinToken>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_secret_says_the_role_until_it_is_rotated() {
        let ids = &mut IdSource::seeded(1);
        let (worker, manager, new) = (
            TokenSecret::generate(ids),
            TokenSecret::generate(ids),
            TokenSecret::generate(ids),
        );
        let before = secrets(worker.as_str(), manager.as_str());
        assert_eq!(role_of_secret(&before, &worker), Some(NodeRole::Worker));
        assert_eq!(role_of_secret(&before, &manager), Some(NodeRole::Manager));
        assert_eq!(role_of_secret(&before, &new), None);

        let after = secrets(worker.as_str(), new.as_str());
        assert_eq!(role_of_secret(&after, &manager), None);
        assert_eq!(role_of_secret(&after, &new), Some(NodeRole::Manager));
        assert_eq!(role_of_secret(&TokenSecrets::default(), &worker), None);
    }

    #[test]
    fn nothing_secret_is_printed() {
        let token: JoinToken = TEXT.parse().unwrap();
        assert!(!format!("{token:?}").contains("1awxwuwd3z9j1z3puu7rcgdbx"));
    }

    proptest! {
        #[test]
        fn every_token_survives_its_text(root: [u8; 32], seed: u64) {
            let token = JoinToken {
                root: RootDigest(root),
                secret: TokenSecret::generate(&mut IdSource::seeded(seed)),
            };
            let text = token.to_string();
            prop_assert_eq!(text.len(), 9 + 50 + 1 + 25);
            prop_assert_eq!(text.parse::<JoinToken>().unwrap(), token);
        }

        #[test]
        fn any_text_is_read_or_refused_but_never_changed(text in "(SWMTKN-1-)?[0-9a-z-]{0,90}") {
            if let Ok(token) = text.parse::<JoinToken>() {
                prop_assert_eq!(token.to_string(), text);
            }
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(text: String) {
            let _ = text.parse::<JoinToken>();
        }
    }
}
