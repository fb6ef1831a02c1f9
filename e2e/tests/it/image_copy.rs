//! Images from host to host without a registry, over `ssh` (played by a script that `MUSTER_SSH` names) and over TLS.

use std::path::PathBuf;
use std::process::Command;

use e2e::{Host, Output, muster_executable};

/// Two hosts, the first of which reaches the second by `ssh`.
struct Pair {
    here: Host,
    there: Host,
    ssh: PathBuf,
}

impl Pair {
    fn start() -> Self {
        let here = Host::start();
        let mut there = Host::bare();
        there.start_daemon(&[]);
        let pair = Self {
            ssh: here.path("ssh"),
            here,
            there,
        };
        pair.ssh_is("exec \"$MUSTER\" system dial-stdio");
        pair
    }

    /// What `ssh` does on the other side.
    fn ssh_is(&self, script: &str) {
        let text = format!(
            "#!/bin/sh\necho \"$@\" >> {}\nexport MUSTER={} MUSTER_HOST={}\n{script}\n",
            self.here.path("ssh.log").display(),
            muster_executable().display(),
            self.there.socket(),
        );
        self.here.write("ssh", &text);
        self.here
            .tool("chmod", &["+x", self.ssh.to_str().unwrap()])
            .ok();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.here.muster_command(arguments);
        command.env("MUSTER_SSH", &self.ssh);
        command
    }

    fn muster(&self, arguments: &[&str]) -> Output {
        self.here.run(self.command(arguments))
    }

    fn finish(self) {
        self.there.finish();
        self.here.finish();
    }
}

fn id(host: &Host, name: &str) -> String {
    host.muster(&["images", "-q", "--no-trunc", name]).ok()
}

#[test]
fn only_layers_that_the_other_host_lacks_are_sent() {
    let pair = Pair::start();
    let told = pair
        .muster(&["image", "copy", "busybox", "ssh://me@there:2222"])
        .ok();
    // A manifest, a configuration, a layer.
    assert_eq!(told.matches(": Copied").count(), 3, "{told}");
    assert_eq!(id(&pair.there, "busybox"), id(&pair.here, "busybox"));
    assert_eq!(
        pair.there
            .muster(&["run", "--rm", "busybox", "echo", "here"])
            .ok(),
        "here"
    );
    let called = std::fs::read_to_string(pair.here.path("ssh.log")).unwrap();
    assert!(
        called.starts_with(
            "-o ConnectTimeout=30 -T -l me -p 2222 -- there muster system dial-stdio\n"
        ),
        "{called}"
    );

    pair.here
        .muster(&[
            "run",
            "--name",
            "made",
            "busybox",
            "sh",
            "-c",
            "echo new > /new",
        ])
        .ok();
    pair.here.muster(&["commit", "made", "team/made:2"]).ok();
    let told = pair
        .muster(&["image", "copy", "team/made:2", "busybox", "ssh://there"])
        .ok();
    assert_eq!(told.matches(": Copied").count(), 3 + 2, "{told}");
    let said = pair
        .there
        .muster(&["run", "--rm", "team/made:2", "cat", "/new"])
        .ok();
    assert_eq!(said, "new");

    // Other verbs go the same way.
    let listed = pair
        .muster(&["-H", "ssh://there", "images", "-q", "--no-trunc", "busybox"])
        .ok();
    assert_eq!(listed, id(&pair.there, "busybox"));
    pair.muster(&["image", "copy", "no-such-image", "ssh://there"])
        .fails(1, "No such image: no-such-image");
    pair.muster(&["image", "copy", "busybox", "there"])
        .fails(1, "is no host");
    pair.ssh_is("echo 'there: Permission denied (publickey).' >&2; exit 255");
    pair.muster(&["image", "copy", "busybox", "ssh://there"])
        .fails(1, "Permission denied (publickey)");
    pair.finish();
}

#[test]
fn a_copy_goes_on_where_the_connection_broke() {
    const SIZE: usize = 30 << 20;
    let pair = Pair::start();
    let noise: Vec<u8> = (0..SIZE as u64 / 8)
        .flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .collect();
    let path = pair.here.path("noise.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&path).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_size(noise.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "noise", &noise[..]).unwrap();
    tar.finish().unwrap();
    pair.here
        .muster(&["import", path.to_str().unwrap(), "noise"])
        .ok();
    // The first connection ends in the middle, the second one counts what comes.
    let [first, begun, count] = ["first", "begun", "count"].map(|name| pair.here.path(name));
    let (first, count) = (first.display(), count.display());
    let begun_at = begun.clone();
    let begun = begun.display();
    pair.ssh_is(&format!(
        "if [ ! -e {first} ]; then touch {first}; dd bs=64k count=300 2>/dev/null | tee {begun} | \"$MUSTER\" system dial-stdio; else tee {count} | \"$MUSTER\" system dial-stdio; fi"
    ));
    let told = pair.muster(&["image", "copy", "noise", "ssh://there"]);
    assert!(told.stderr.contains("trying again"), "{told:?}");
    told.ok();
    assert_eq!(id(&pair.there, "noise"), id(&pair.here, "noise"));
    let sent = std::fs::metadata(pair.here.path("count")).unwrap().len() as usize;
    let before = std::fs::metadata(begun_at).unwrap().len() as usize;
    assert!(before > 4 << 20, "{before} bytes were sent at first");
    assert!(
        sent + before < SIZE + (4 << 20),
        "{sent} bytes were sent again after {before}"
    );
    // Nothing stays of the interrupted copy.
    let kept = std::fs::read_dir(pair.there.path("data/content/partial"));
    assert_eq!(kept.into_iter().flatten().count(), 0);
    pair.finish();
}

/// A certificate that the authority `ca` of the host has signed; `name` is its subject's alternative name.
fn certify(host: &Host, file: &str, name: &str) {
    let path = |end: &str| host.path(&format!("tls/{file}{end}"));
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    let extension = host.write(
        &format!("tls/{file}.ext"),
        &format!("subjectAltName={name}\n"),
    );
    let (key, request, certificate) = (
        text(path("key.pem")),
        text(path(".csr")),
        text(path("cert.pem")),
    );
    let (ca, ca_key) = (
        text(host.path("tls/ca.pem")),
        text(host.path("tls/ca-key.pem")),
    );
    host.tool(
        "openssl",
        &[
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            &key,
            "-out",
            &request,
            "-subj",
            "/CN=x",
        ],
    )
    .ok();
    host.tool(
        "openssl",
        &[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            &text(extension),
            "-out",
            &certificate,
        ],
    )
    .ok();
}

#[test]
fn an_address_is_for_clients_with_a_certificate() {
    let mut host = Host::bare();
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    host.write("tls/x", "");
    let (ca, ca_key) = (
        text(host.path("tls/ca.pem")),
        text(host.path("tls/ca-key.pem")),
    );
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
            &ca_key,
            "-out",
            &ca,
            "-subj",
            "/CN=authority",
        ],
    )
    .ok();
    certify(&host, "", "DNS:client");
    certify(&host, "server-", "IP:127.0.0.1");
    host.start_daemon(&[
        "--host",
        "tcp://127.0.0.1:2376",
        "--tlsverify",
        "--tlscacert",
        &ca,
        "--tlscert",
        &text(host.path("tls/server-cert.pem")),
        "--tlskey",
        &text(host.path("tls/server-key.pem")),
    ]);
    host.muster(&["import", e2e::busybox().to_str().unwrap(), "busybox"])
        .ok();
    let muster = |arguments: &[&str]| {
        let mut command = host.muster_command(arguments);
        command.env("DOCKER_CERT_PATH", host.path("tls"));
        host.run(command)
    };
    let there = "muster://127.0.0.1";
    assert_eq!(
        muster(&["-H", there, "run", "--rm", "busybox", "echo", "by TLS"]).ok(),
        "by TLS"
    );
    let told = muster(&["image", "copy", "busybox", there]).ok();
    // The layer is there: a manifest and a configuration are all.
    assert_eq!(told.matches(": Copied").count(), 2, "{told}");

    // Nobody gets in without a certificate, or with another's.
    host.muster(&["-H", there, "ps"])
        .fails(1, "TLS: cannot use");
    host.muster(&["-H", "tcp://127.0.0.1:2376", "ps"])
        .fails(1, "");
    host.tool("curl", &["-ks", "https://127.0.0.1:2376/_ping"])
        .fails(56, "");
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
            &text(host.path("tls/key.pem")),
            "-out",
            &text(host.path("tls/cert.pem")),
            "-subj",
            "/CN=stranger",
        ],
    )
    .ok();
    muster(&["-H", there, "ps"]).fails(1, "");
    host.finish();
}
