//! Bearer tokens: a service that signs them (ES256) beside a registry that believes only them.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use e2e::Host;
use serde_json::{Value, json};

use super::depot::{Depot, Pair, certificate};
use super::{id, text};

const ISSUER: &str = "muster's tests";

/// What the service was asked, and what it answers with.
struct Service {
    asked: Mutex<Vec<String>>,
    pair: Pair,
    scratch: PathBuf,
}

impl Service {
    /// On port 5003 of the host.
    fn start(host: &Host, pair: Pair) -> Arc<Self> {
        let listener = host.on_host(|| TcpListener::bind("127.0.0.1:5003").unwrap());
        let service = Arc::new(Self {
            asked: Mutex::default(),
            pair,
            scratch: host.path("token"),
        });
        let serving = Arc::clone(&service);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                serving.serve(connection);
            }
        });
        service
    }

    fn serve(&self, mut connection: TcpStream) {
        let mut reader = BufReader::new(connection.try_clone().unwrap());
        let mut lines = Vec::new();
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            lines.push(line.trim().to_owned());
        }
        let mut body = vec![0; length];
        std::io::Read::read_exact(&mut reader, &mut body).unwrap();
        let Some(first) = lines.first().cloned() else {
            return;
        };
        let body = String::from_utf8(body).unwrap();
        self.asked.lock().unwrap().push(format!("{first} {body}"));
        let path = first.split(' ').nth(1).unwrap();
        let query = path.split_once('?').map_or("", |(_, query)| query);
        let pairs: Vec<(String, String)> = query
            .split('&')
            .chain(body.split('&'))
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), plain(value)))
            .collect();
        let basic = format!("authorization: basic {}", STANDARD.encode("me:secret"));
        let by_password = lines.iter().any(|line| line.eq_ignore_ascii_case(&basic));
        let by_identity = pairs.contains(&("refresh_token".into(), "lasting".into()));
        let reply = if by_password || by_identity {
            let scopes = pairs.iter().filter(|(name, _)| name == "scope");
            let scopes: Vec<&str> = scopes.flat_map(|(_, value)| value.split(' ')).collect();
            let mut reply = json!({ "token": self.token(&scopes), "expires_in": 300 });
            if pairs.iter().any(|(name, _)| name == "offline_token") {
                reply["refresh_token"] = "lasting".into();
            }
            ("200 OK", reply.to_string())
        } else {
            ("401 Unauthorized", "{}".to_owned())
        };
        let (status, body) = reply;
        let _ = write!(
            connection,
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
    }

    /// A JSON web token for scopes `repository:name:actions`.
    fn token(&self, scopes: &[&str]) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let access: Vec<Value> = scopes
            .iter()
            .filter_map(|scope| {
                let (kind, rest) = scope.split_once(':')?;
                let (name, actions) = rest.rsplit_once(':')?;
                let actions: Vec<&str> = actions.split(',').collect();
                Some(json!({ "type": kind, "name": name, "actions": actions }))
            })
            .collect();
        let certificate = std::fs::read_to_string(&self.pair.certificate).unwrap();
        let der: String = certificate
            .lines()
            .filter(|line| !line.starts_with('-'))
            .collect();
        let header = json!({ "typ": "JWT", "alg": "ES256", "x5c": [der] });
        let claims = json!({
            "iss": ISSUER, "sub": "me", "aud": "depot", "exp": now + 300, "nbf": now - 10, "iat": now,
            "jti": now.to_string(), "access": access,
        });
        let encoded = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = encoded.join(".");
        let signature = URL_SAFE_NO_PAD.encode(self.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// The two numbers of an ECDSA signature, 32 bytes each.
    fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        std::fs::write(&self.scratch, bytes).unwrap();
        let signed = Command::new("openssl")
            .args(["dgst", "-sha256", "-sign", text(&self.pair.key)])
            .arg(&self.scratch)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let der = signed.stdout;
        // SEQUENCE { INTEGER r, INTEGER s }
        let mut rest = &der[2..];
        let mut raw = Vec::new();
        for _ in 0..2 {
            let (number, after) = rest[2..].split_at(usize::from(rest[1]));
            rest = after;
            let number = &number[number.len().saturating_sub(32)..];
            raw.extend(vec![0; 32 - number.len()]);
            raw.extend(number);
        }
        raw
    }

    fn count(&self, what: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|line| line.contains(what)).count()
    }
}

/// Percent-encoding undone, as far as scopes need it.
fn plain(text: &str) -> String {
    let known: HashMap<&str, &str> = [
        ("%3A", ":"),
        ("%2F", "/"),
        ("%2C", ","),
        ("+", " "),
        ("%20", " "),
    ]
    .into();
    known.iter().fold(text.to_owned(), |text, (code, plain)| {
        text.replace(code, plain)
    })
}

#[test]
fn tokens_are_got_by_password_and_by_identity_and_cover_mounts() {
    let host = Host::start();
    let pair = certificate(&host, "tokens", "DNS:tokens");
    let bundle = pair.certificate.clone();
    let service = Service::start(&host, pair);
    let Some(depot) = Depot::start(&host, "127.0.0.1:5000", |settings| {
        settings["auth"] = json!({ "token": {
            "realm": "http://127.0.0.1:5003/token", "service": "depot", "issuer": ISSUER,
            "rootcertbundle": bundle,
        }});
    }) else {
        return host.finish();
    };
    let name = "127.0.0.1:5000/a/box:1";
    host.muster(&["tag", "busybox", name]).ok();
    // The service knows nobody without a password.
    host.muster(&["push", name]).fails(1, "unauthorized");
    host.muster(&["login", "-u", "me", "-p", "wrong", "127.0.0.1:5000"])
        .fails(1, "unauthorized");
    host.muster(&["login", "-u", "me", "-p", "secret", "127.0.0.1:5000"])
        .ok();
    // The password was exchanged for a token that lasts.
    let config = std::fs::read_to_string(host.path(".docker/config.json")).unwrap();
    assert!(
        config.contains("\"identitytoken\": \"lasting\""),
        "{config}"
    );
    assert!(!config.contains(&STANDARD.encode("me:secret")), "{config}");
    host.muster(&["push", name]).ok();
    assert_eq!(
        service.count("grant_type=refresh_token"),
        1,
        "one token is enough"
    );

    host.muster(&["tag", "busybox", "127.0.0.1:5000/c/box:1"])
        .ok();
    let told = host.muster(&["push", "127.0.0.1:5000/c/box:1"]).ok();
    assert!(told.contains("Mounted from a/box"), "{told}");
    let known = id(&host, "busybox");
    host.muster(&["rmi", name]).ok();
    host.muster(&["pull", name]).ok();
    assert_eq!(id(&host, name), known);
    drop(depot);
    host.finish();
}
