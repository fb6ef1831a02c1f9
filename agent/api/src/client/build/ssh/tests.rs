//! Keys that `ssh-keygen` and `openssl` made (in `testdata/`, for these tests alone), and the protocol by hand.

use super::*;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};

fn file(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/client/build/ssh/testdata");
    directory.join(name)
}

fn agent(names: &[&str]) -> KeyAgent {
    let paths: Vec<PathBuf> = names.iter().map(|name| file(name)).collect();
    KeyAgent::read(&paths).unwrap()
}

/// What `ssh-keygen` wrote beside the key.
fn public_file(name: &str) -> Vec<u8> {
    use base64::Engine as _;
    let text = std::fs::read_to_string(file(&format!("{name}.pub"))).unwrap();
    let word = text.split(' ').nth(1).unwrap();
    base64::engine::general_purpose::STANDARD
        .decode(word.trim())
        .unwrap()
}

fn request(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut body = vec![kind];
    for part in parts {
        put_string(&mut body, part);
    }
    body
}

fn sign_request(public: &[u8], data: &[u8], flags: u32) -> Vec<u8> {
    let mut body = request(SIGN_REQUEST, &[public, data]);
    body.extend(flags.to_be_bytes());
    body
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    put_string(&mut frame, body);
    frame
}

/// The signature in an answer: its name and its bytes.
fn signature(answer: &[u8]) -> (String, Vec<u8>) {
    assert_eq!(answer[0], SIGN_RESPONSE);
    let whole = Reader(&answer[1..]).string().unwrap();
    let mut parts = Reader(whole);
    let name = String::from_utf8(parts.string().unwrap().to_vec()).unwrap();
    (name, parts.string().unwrap().to_vec())
}

/// Both numbers of an ECDSA signature, padded.
fn fixed(signature: &[u8], length: usize) -> Vec<u8> {
    let mut parts = Reader(signature);
    let mut all = Vec::new();
    for _ in 0..2 {
        let number = parts.unsigned().unwrap();
        all.extend(vec![0; length - number.len()]);
        all.extend(number);
    }
    all
}

fn verify(algorithm: &'static dyn VerificationAlgorithm, public: &[u8], signature: &[u8]) {
    UnparsedPublicKey::new(algorithm, public)
        .verify(b"data", signature)
        .unwrap();
}

#[test]
fn keys_of_every_form_are_read_and_sign() {
    for (name, kind, flags) in [
        ("ed25519-256", "ssh-ed25519", 0),
        ("ecdsa-256", "ecdsa-sha2-nistp256", 0),
        ("ec-pem", "ecdsa-sha2-nistp256", 0),
        ("ecdsa-384", "ecdsa-sha2-nistp384", 0),
        ("ecdsa-384-pkcs8", "ecdsa-sha2-nistp384", 0),
        ("rsa-2048", "rsa-sha2-512", RSA_512),
        ("rsa-pem", "rsa-sha2-256", RSA_256),
        ("rsa-pkcs8", "rsa-sha2-512", RSA_512 | RSA_256),
    ] {
        let agent = agent(&[name]);
        let public = public_file(name);
        assert_eq!(agent.keys[0].public(), public, "{name}");
        let answer = agent
            .message(&sign_request(&public, b"data", flags))
            .unwrap();
        let (signed_as, bytes) = signature(&answer);
        assert_eq!(signed_as, kind, "{name}");
        let mut parts = Reader(&public);
        parts.string().unwrap();
        match kind {
            "ssh-ed25519" => verify(&ED25519, parts.string().unwrap(), &bytes),
            "ecdsa-sha2-nistp256" | "ecdsa-sha2-nistp384" => {
                parts.string().unwrap();
                let point = parts.string().unwrap();
                match kind.ends_with("256") {
                    true => verify(&ECDSA_P256_SHA256_FIXED, point, &fixed(&bytes, 32)),
                    false => verify(&ECDSA_P384_SHA384_FIXED, point, &fixed(&bytes, 48)),
                }
            }
            _ => {
                let (e, n) = (parts.unsigned().unwrap(), parts.unsigned().unwrap());
                let components = ring::rsa::PublicKeyComponents { n, e };
                let algorithm = match kind.ends_with("256") {
                    true => &RSA_PKCS1_2048_8192_SHA256,
                    false => &RSA_PKCS1_2048_8192_SHA512,
                };
                components.verify(algorithm, b"data", &bytes).unwrap();
            }
        }
    }
}

const RSA_256: u32 = 2;
const RSA_512: u32 = 4;

#[test]
fn what_cannot_be_used_is_refused_with_what_to_do() {
    for (name, reason) in [
        ("encrypted", "ssh-add"),
        ("rsa-pem-encrypted", "ssh-add"),
        ("pkcs8-encrypted", "ssh-add"),
        ("ecdsa-521", "ecdsa-sha2-nistp521"),
        ("rsa-1024", "2048 to 4096 bits"),
        ("ed25519-256.pub", "no private key"),
        ("not-there", "No such file"),
    ] {
        let error = KeyAgent::read(&[file(name)]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(reason) && text.contains(name),
            "{name}: {text}"
        );
    }
    // Damaged in every place: never a panic, and a key only where nothing that counts was hit.
    let text = std::fs::read_to_string(file("ed25519-256")).unwrap();
    for cut in 0..text.len() {
        let _ = Key::parse(&text[..cut], "");
        let mut damaged = text.clone().into_bytes();
        damaged[cut] = b'A';
        let _ = Key::parse(&String::from_utf8(damaged).unwrap(), "");
    }
}

#[test]
fn keys_are_listed_in_order_with_their_comments() {
    let agent = agent(&["ed25519-256", "rsa-2048"]);
    let answer = agent.message(&request(REQUEST_IDENTITIES, &[])).unwrap();
    assert_eq!(answer[0], IDENTITIES_ANSWER);
    let mut parts = Reader(&answer[1..]);
    assert_eq!(parts.number(), Some(2));
    for name in ["ed25519-256", "rsa-2048"] {
        assert_eq!(parts.string().unwrap(), public_file(name));
        let comment = format!("{name}@test");
        assert_eq!(parts.string().unwrap(), comment.as_bytes());
    }
}

#[test]
fn nothing_but_listing_and_signing_is_done() {
    let agent = agent(&["rsa-2048"]);
    let public = public_file("rsa-2048");
    // SHA-1, another key, removing all, locking, adding, an extension, nothing.
    for refused in [
        sign_request(&public, b"data", 0),
        sign_request(&public_file("ed25519-256"), b"data", 0),
        request(19, &[]),
        request(22, &[b"secret"]),
        request(17, &[b"ssh-ed25519"]),
        request(27, &[b"query"]),
        request(SIGN_REQUEST, &[&public]),
        Vec::new(),
    ] {
        let mut received = BytesMut::from(&framed(&refused)[..]);
        let answer = agent.answer(&mut received).unwrap();
        assert_eq!(answer, framed(&[FAILURE]), "{refused:?}");
        assert!(received.is_empty());
    }
}

#[test]
fn messages_are_answered_however_they_are_cut_and_bounded() {
    let agent = agent(&["ed25519-256"]);
    let one = framed(&request(REQUEST_IDENTITIES, &[]));
    let two = [one.clone(), one.clone()].concat();
    let whole = agent.answer(&mut BytesMut::from(&two[..])).unwrap();
    let mut received = BytesMut::new();
    let mut pieces = Vec::new();
    for byte in &two {
        received.extend([*byte]);
        pieces.extend(agent.answer(&mut received).unwrap());
    }
    assert_eq!(pieces, whole);
    let mut endless = BytesMut::from(&[0xff, 0xff, 0xff, 0xff, 0][..]);
    assert!(agent.answer(&mut endless).is_err());
}
