//! A registry in operation on a host, and what it logs.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use e2e::Host;
use serde_json::{Value, json};

use super::{program, text};

/// The password of `me`, and how a registry keeps it (bcrypt).
pub(super) const PASSWORD: &str = "secret";
const HTPASSWD: &str = "me:$2y$05$HIgiBW8mtReQ0FjFpND/BeYL4HgyYy0O4hxkEM7MQCZGg830e6LVK\n";

/// A registry's process. Killed on drop.
pub(super) struct Depot {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Depot {
    /// A registry at `address` of the host, ready; `None` where there is no such program. `change` edits its settings.
    pub(super) fn start(
        host: &Host,
        address: &str,
        change: impl FnOnce(&mut Value),
    ) -> Option<Self> {
        let program = program("DOCKER_REGISTRY", "docker-registry")?;
        let storage = host.path(&format!("registry-{}", address.replace(':', "-")));
        let mut settings = json!({
            "version": "0.1",
            "log": { "accesslog": { "disabled": false } },
            "storage": {
                "filesystem": { "rootdirectory": storage },
                "delete": { "enabled": true },
            },
            "http": { "addr": address },
        });
        change(&mut settings);
        let settings = host.write(&format!("registry-{address}.yml"), &settings.to_string());
        let mut command = Command::new(program);
        command
            .arg("serve")
            .arg(settings)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = host.spawn(command);
        let log = Arc::new(Mutex::new(String::new()));
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            let read = errors.read_line(&mut line).unwrap();
            assert!(read > 0, "the registry ended: {}", log.lock().unwrap());
            log.lock().unwrap().push_str(&line);
        }
        let output = BufReader::new(child.stdout.take().unwrap());
        for lines in [
            Box::new(errors) as Box<dyn std::io::BufRead + Send>,
            Box::new(output),
        ] {
            let log = Arc::clone(&log);
            std::thread::spawn(move || {
                for line in lines.lines().map_while(Result::ok) {
                    let mut log = log.lock().unwrap();
                    log.push_str(&line);
                    log.push('\n');
                }
            });
        }
        Some(Self { child, log })
    }

    /// What it has logged so far.
    pub(super) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Depot {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Settings for TLS.
pub(super) fn with_tls(settings: &mut Value, pair: &Pair) {
    settings["http"]["tls"] = json!({ "certificate": pair.certificate, "key": pair.key });
}

/// Settings for a password.
pub(super) fn with_password(host: &Host, settings: &mut Value) {
    let path = host.write("htpasswd", HTPASSWD);
    settings["auth"] = json!({ "htpasswd": { "realm": "depot", "path": path } });
}

/// A certificate and its key.
pub(super) struct Pair {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// A certificate for `subject` (`DNS:…`, `IP:…`), its own authority.
pub(super) fn certificate(host: &Host, name: &str, subject: &str) -> Pair {
    let pair = Pair {
        certificate: host.path(&format!("{name}.crt")),
        key: host.path(&format!("{name}.key")),
    };
    let (key, certificate) = (text(&pair.key), text(&pair.certificate));
    let alternative = format!("subjectAltName={subject}");
    host.tool(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-keyout",
            key,
            "-out",
            certificate,
            "-subj",
            "/CN=depot",
            "-addext",
            &alternative,
        ],
    )
    .ok();
    pair
}

/// Puts an authority where the daemon looks for that of `registry`.
pub(super) fn trust(certificates: &Path, registry: &str, pair: &Pair) {
    let directory = certificates.join(registry);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::copy(&pair.certificate, directory.join("ca.crt")).unwrap();
}
