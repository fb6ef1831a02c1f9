//! Private keys in files: OpenSSH's own format and the PEM forms of RSA, EC and PKCS #8. Ed25519, ECDSA on P-256 and
//! P-384, RSA of 2048 to 4096 bits; SHA-1 is not signed with. The arithmetic is ring's.
//!
//! Must not: ask for passphrases. A key that needs one belongs into an agent. Source: OpenSSH `PROTOCOL.key`, RFC 5656,
//! RFC 5915, RFC 8332.

use std::fmt;
use std::io;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::rsa;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512,
};
use zeroize::Zeroizing;

use super::wire::{Reader, put_string, put_unsigned, without_zeros};

/// A file that is no key for an agent.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error("cannot read the key {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be used.
    #[error("cannot use the key {}: {reason}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// More than an agent takes.
    #[error("{0} keys are more than one agent holds")]
    TooMany(usize),
}

/// `SSH_AGENT_RSA_SHA2_256`, `SSH_AGENT_RSA_SHA2_512`
const RSA_SHA2_256: u32 = 2;
const RSA_SHA2_512: u32 = 4;

const ENCRYPTED: &str =
    "it is protected by a passphrase: add it to an agent (ssh-add) and give the agent's socket";

/// One key.
pub(super) struct Key {
    public: Vec<u8>,
    comment: String,
    secret: Secret,
}

impl fmt::Debug for Key {
    /// Without what is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("comment", &self.comment)
            .finish_non_exhaustive()
    }
}

enum Secret {
    Ed25519(Ed25519KeyPair),
    Ecdsa(&'static Curve, EcdsaKeyPair),
    Rsa(Box<rsa::KeyPair>),
}

/// A curve of ECDSA.
struct Curve {
    algorithm: &'static EcdsaSigningAlgorithm,
    /// In names of keys: `nistp256`.
    name: &'static str,
    /// Of a number, bytes.
    length: usize,
    /// Its object identifier in DER.
    identifier: &'static [u8],
}

static CURVES: [Curve; 2] = [
    Curve {
        algorithm: &ECDSA_P256_SHA256_FIXED_SIGNING,
        name: "nistp256",
        length: 32,
        identifier: &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
    },
    Curve {
        algorithm: &ECDSA_P384_SHA384_FIXED_SIGNING,
        name: "nistp384",
        length: 48,
        identifier: &[0x2b, 0x81, 0x04, 0x00, 0x22],
    },
];

impl Key {
    /// Reads the text of a file; `comment` names a key that does not name itself.
    pub(super) fn parse(text: &str, comment: &str) -> Result<Self, String> {
        let (label, body) = pem(text).ok_or("it is no private key in PEM or OpenSSH's format")?;
        if body.contains("ENCRYPTED") || label == "ENCRYPTED PRIVATE KEY" {
            return Err(ENCRYPTED.to_owned());
        }
        let compact: Zeroizing<String> =
            Zeroizing::new(body.chars().filter(|c| !c.is_whitespace()).collect());
        let bytes = STANDARD
            .decode(&*compact)
            .map(Zeroizing::new)
            .map_err(|error| format!("its base64 is malformed: {error}"))?;
        let malformed = || "it is malformed".to_owned();
        match label {
            "OPENSSH PRIVATE KEY" => openssh(&bytes).ok_or_else(malformed)?,
            "RSA PRIVATE KEY" => rsa::KeyPair::from_der(&bytes)
                .map_err(|error| rsa_rejected(&error))
                .map(|pair| Self::rsa(pair, comment)),
            "EC PRIVATE KEY" => sec1(&bytes, comment).ok_or_else(malformed)?,
            "PRIVATE KEY" => pkcs8(&bytes, comment),
            other => Err(format!("keys of the kind {other:?} are not supported")),
        }
    }

    /// The public key as SSH writes it.
    pub(super) fn public(&self) -> &[u8] {
        &self.public
    }

    /// What the user calls it.
    pub(super) fn comment(&self) -> &str {
        &self.comment
    }

    /// A signature as SSH writes it; none when this key is not used so.
    pub(super) fn sign(&self, data: &[u8], flags: u32) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        let mut signature = Vec::new();
        match &self.secret {
            Secret::Ed25519(pair) => {
                put_string(&mut signature, b"ssh-ed25519");
                put_string(&mut signature, pair.sign(data).as_ref());
            }
            Secret::Ecdsa(curve, pair) => {
                let fixed = pair.sign(&random, data).ok()?;
                let (r, s) = fixed.as_ref().split_at(curve.length);
                let mut both = Vec::new();
                put_unsigned(&mut both, r);
                put_unsigned(&mut both, s);
                put_string(&mut signature, ecdsa_name(curve).as_bytes());
                put_string(&mut signature, &both);
            }
            Secret::Rsa(pair) => {
                let (name, padding) = match flags {
                    flags if flags & RSA_SHA2_512 != 0 => ("rsa-sha2-512", &RSA_PKCS1_SHA512),
                    flags if flags & RSA_SHA2_256 != 0 => ("rsa-sha2-256", &RSA_PKCS1_SHA256),
                    // SHA-1
                    _ => return None,
                };
                let mut raw = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &random, data, &mut raw).ok()?;
                put_string(&mut signature, name.as_bytes());
                put_string(&mut signature, &raw);
            }
        }
        Some(signature)
    }

    fn ed25519(pair: Ed25519KeyPair, comment: &str) -> Self {
        let mut public = Vec::new();
        put_string(&mut public, b"ssh-ed25519");
        put_string(&mut public, pair.public_key().as_ref());
        Self {
            public,
            comment: comment.to_owned(),
            secret: Secret::Ed25519(pair),
        }
    }

    fn ecdsa(curve: &'static Curve, pair: EcdsaKeyPair, comment: &str) -> Self {
        let mut public = Vec::new();
        put_string(&mut public, ecdsa_name(curve).as_bytes());
        put_string(&mut public, curve.name.as_bytes());
        put_string(&mut public, pair.public_key().as_ref());
        Self {
            public,
            comment: comment.to_owned(),
            secret: Secret::Ecdsa(curve, pair),
        }
    }

    fn rsa(pair: rsa::KeyPair, comment: &str) -> Self {
        let parts: rsa::PublicKeyComponents<Vec<u8>> = pair.public().into();
        let mut public = Vec::new();
        put_string(&mut public, b"ssh-rsa");
        put_unsigned(&mut public, &parts.e);
        put_unsigned(&mut public, &parts.n);
        Self {
            public,
            comment: comment.to_owned(),
            secret: Secret::Rsa(Box::new(pair)),
        }
    }
}

fn ecdsa_name(curve: &Curve) -> String {
    format!("ecdsa-sha2-{}", curve.name)
}

fn rsa_rejected(error: &ring::error::KeyRejected) -> String {
    format!("its RSA key cannot be used ({error}): it must have 2048 to 4096 bits")
}

/// Label and content of the first block that is a private key; parameters of curves may come before it.
fn pem(text: &str) -> Option<(&str, &str)> {
    let mut rest = text;
    loop {
        let (_, begun) = rest.split_once("-----BEGIN ")?;
        let (label, content) = begun.split_once("-----")?;
        let (body, after) = content.split_once("-----END ")?;
        if label.ends_with("PRIVATE KEY") {
            return Some((label, body));
        }
        rest = after;
    }
}

type Parsed = Result<Key, String>;

/// OpenSSH's format. None when it is malformed.
fn openssh(bytes: &[u8]) -> Option<Parsed> {
    let mut outer = Reader(bytes.strip_prefix(b"openssh-key-v1\0")?);
    let cipher = outer.string()?;
    let (_function, _options) = (outer.string()?, outer.string()?);
    if cipher != b"none" {
        return Some(Err(ENCRYPTED.to_owned()));
    }
    if outer.number()? != 1 {
        return Some(Err("it holds several keys".to_owned()));
    }
    let _public = outer.string()?;
    let mut inner = Reader(outer.string()?);
    if inner.number()? != inner.number()? {
        return None;
    }
    let kind = inner.string()?;
    let key = match kind {
        b"ssh-ed25519" => {
            let (public, secret) = (inner.string()?, inner.string()?);
            let pair = Ed25519KeyPair::from_seed_and_public_key(secret.get(..32)?, public).ok()?;
            Key::ed25519(pair, "")
        }
        b"ssh-rsa" => match openssh_rsa(&mut inner)? {
            Ok(pair) => Key::rsa(pair, ""),
            Err(error) => return Some(Err(rsa_rejected(&error))),
        },
        kind => {
            let name = kind.strip_prefix(b"ecdsa-sha2-");
            let curve = CURVES
                .iter()
                .find(|curve| name == Some(curve.name.as_bytes()));
            let Some(curve) = curve else {
                let kind = String::from_utf8_lossy(kind);
                return Some(Err(format!("keys of the kind {kind:?} are not supported")));
            };
            let (_name, public, number) = (inner.string()?, inner.string()?, inner.unsigned()?);
            Key::ecdsa(curve, ecdsa_pair(curve, number, public)?, "")
        }
    };
    let comment = String::from_utf8_lossy(inner.string()?).into_owned();
    Some(Ok(Key { comment, ..key }))
}

fn openssh_rsa(inner: &mut Reader<'_>) -> Option<Result<rsa::KeyPair, ring::error::KeyRejected>> {
    let (n, e, d) = (inner.unsigned()?, inner.unsigned()?, inner.unsigned()?);
    let (inverse, p, q) = (inner.unsigned()?, inner.unsigned()?, inner.unsigned()?);
    // Odd, or they are no primes.
    let below = |prime: &[u8]| {
        let mut even = Zeroizing::new(prime.to_vec());
        *even.last_mut().filter(|last| **last & 1 == 1)? -= 1;
        Some(even)
    };
    let exponent = |prime: &[u8]| Some(remainder(d, &below(prime)?));
    let (exponent_p, exponent_q) = (exponent(p)?, exponent(q)?);
    Some(rsa::KeyPair::from_components(&rsa::KeyPairComponents {
        public_key: rsa::PublicKeyComponents { n, e },
        d,
        p,
        q,
        dP: without_zeros(&exponent_p),
        dQ: without_zeros(&exponent_q),
        qInv: inverse,
    }))
}

/// `number mod modulus`, which is not zero: long division, bit by bit. A key is read once; time tells nobody anything.
fn remainder(number: &[u8], modulus: &[u8]) -> Zeroizing<Vec<u8>> {
    // One byte more than the modulus: twice what is left, and one, fits.
    let wide: Zeroizing<Vec<u8>> = Zeroizing::new([&[0], modulus].concat());
    let mut left = Zeroizing::new(vec![0; wide.len()]);
    for byte in number {
        for bit in (0..8).rev() {
            let mut carry = byte >> bit & 1;
            for digit in left.iter_mut().rev() {
                let next = *digit >> 7;
                *digit = *digit << 1 | carry;
                carry = next;
            }
            if *left >= *wide {
                let mut borrow = false;
                for (digit, minus) in left.iter_mut().zip(wide.iter()).rev() {
                    let (first, under) = digit.overflowing_sub(*minus);
                    let (second, under_again) = first.overflowing_sub(u8::from(borrow));
                    *digit = second;
                    borrow = under || under_again;
                }
            }
        }
    }
    left
}

fn ecdsa_pair(curve: &Curve, number: &[u8], public: &[u8]) -> Option<EcdsaKeyPair> {
    let mut padded = Zeroizing::new(vec![0; curve.length]);
    let start = curve.length.checked_sub(number.len())?;
    padded[start..].copy_from_slice(number);
    let random = SystemRandom::new();
    EcdsaKeyPair::from_private_key_and_public_key(curve.algorithm, &padded, public, &random).ok()
}

/// RFC 5915: `SEQUENCE { 1, OCTET STRING number, [0] { OID curve }, [1] { BIT STRING public } }`.
fn sec1(bytes: &[u8], comment: &str) -> Option<Parsed> {
    let mut whole = Reader(der(&mut Reader(bytes), 0x30)?);
    let _version = der(&mut whole, 0x02)?;
    let number = der(&mut whole, 0x04)?;
    let identifier = der(&mut Reader(der(&mut whole, 0xa0)?), 0x06)?;
    let public = der(&mut Reader(der(&mut whole, 0xa1)?), 0x03)?;
    let curve = CURVES.iter().find(|curve| curve.identifier == identifier);
    let Some(curve) = curve else {
        return Some(Err(
            "its curve is not supported: use P-256 or P-384".to_owned()
        ));
    };
    // Before the bits of a string stands how many of the last byte do not count.
    let pair = ecdsa_pair(curve, without_zeros(number), public.strip_prefix(&[0])?)?;
    Some(Ok(Key::ecdsa(curve, pair, comment)))
}

/// The content of the next element, which must have this tag.
fn der<'a>(from: &mut Reader<'a>, tag: u8) -> Option<&'a [u8]> {
    if from.take(1)? != [tag] {
        return None;
    }
    let length = match from.take(1)? {
        [short @ 0..=0x7f] => usize::from(*short),
        [0x81] => usize::from(from.take(1)?[0]),
        [0x82] => {
            let bytes = from.take(2)?;
            usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))
        }
        _ => return None,
    };
    from.take(length)
}

/// PKCS #8, which says itself what it holds.
fn pkcs8(bytes: &[u8], comment: &str) -> Parsed {
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes) {
        return Ok(Key::ed25519(pair, comment));
    }
    let random = SystemRandom::new();
    for curve in &CURVES {
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(curve.algorithm, bytes, &random) {
            return Ok(Key::ecdsa(curve, pair, comment));
        }
    }
    rsa::KeyPair::from_pkcs8(bytes)
        .map(|pair| Key::rsa(pair, comment))
        .map_err(|error| {
            format!("it is no Ed25519, P-256, P-384 or RSA key that can be used ({error})")
        })
}
