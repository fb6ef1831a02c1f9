//! A real package manager inside of RUN: Debian's apt fetches a package over the build's network and installs it.
//!
//! The package comes from a small archive that the test serves on its own host, so that no mirror is needed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;

use e2e::{Host, servers};
use flate2::Compression;
use flate2::write::GzEncoder;

/// A tar of these files, gzip compressed.
fn tar_gz(files: &[(&str, u32, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, mode, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_size(text.len() as u64);
        builder
            .append_data(&mut header, name, text.as_bytes())
            .unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

/// A binary package, deb(5): an `ar` archive of three members.
fn deb(control: &str, files: &[(&str, u32, &str)]) -> Vec<u8> {
    let mut archive = b"!<arch>\n".to_vec();
    let members = [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", tar_gz(&[("./control", 0o644, control)])),
        ("data.tar.gz", tar_gz(files)),
    ];
    for (name, bytes) in members {
        let head = format!(
            "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
            0,
            0,
            0,
            100_644,
            bytes.len()
        );
        archive.extend_from_slice(head.as_bytes());
        archive.extend_from_slice(&bytes);
        if bytes.len() % 2 == 1 {
            archive.push(b'\n');
        }
    }
    archive
}

/// Serves the files below a directory over HTTP, on every address of the host; gives the port.
fn serve(host: &Host, directory: &Path) -> u16 {
    let listener = host.on_host(|| TcpListener::bind("0.0.0.0:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    let directory = directory.to_owned();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let directory = directory.clone();
            std::thread::spawn(move || {
                let mut lines = BufReader::new(connection.try_clone().unwrap()).lines();
                while let Some(Ok(request)) = lines.next() {
                    // The rest of the head says nothing that matters here.
                    while lines
                        .next()
                        .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
                    {
                    }
                    let name = request
                        .split(' ')
                        .nth(1)
                        .unwrap_or("/")
                        .trim_start_matches('/')
                        .to_owned();
                    let (status, body) = match std::fs::read(directory.join(name)) {
                        Ok(body) => ("200 OK", body),
                        Err(_) => ("404 Not Found", Vec::new()),
                    };
                    let head = format!(
                        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
                        body.len()
                    );
                    if connection
                        .write_all(&[head.as_bytes(), &body].concat())
                        .is_err()
                    {
                        break;
                    }
                }
            });
        }
    });
    port
}

#[test]
fn apt_installs_a_package_inside_of_a_build() {
    let host = Host::start();
    host.muster(&["import", servers().to_str().unwrap(), "debian-base"])
        .ok();
    let control = "Package: greeting\nVersion: 1.2\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\nDescription: says hello\n";
    let package = deb(
        control,
        &[(
            "./usr/bin/greeting",
            0o755,
            "#!/bin/sh\necho hello from a package\n",
        )],
    );
    let archive = host.path("archive");
    std::fs::create_dir_all(&archive).unwrap();
    let size = package.len();
    std::fs::write(archive.join("greeting.deb"), &package).unwrap();
    let digest = host
        .tool(
            "sha256sum",
            &[archive.join("greeting.deb").to_str().unwrap()],
        )
        .ok();
    let digest = digest.split(' ').next().unwrap().to_owned();
    let index = format!("{control}Filename: ./greeting.deb\nSize: {size}\nSHA256: {digest}\n");
    std::fs::write(archive.join("Packages"), index).unwrap();
    let port = serve(&host, &archive);
    // The default bridge exists while something uses it; its gateway is this host.
    let gateway = host
        .muster(&[
            "network",
            "inspect",
            "bridge",
            "--format",
            "{{(index .IPAM.Config 0).Gateway}}",
        ])
        .ok();
    host.write(
        "context/Dockerfile",
        "FROM debian-base AS installed\n\
         ARG ARCHIVE\n\
         RUN echo \"deb [trusted=yes] $ARCHIVE ./\" > /etc/apt/sources.list.d/test.list && rm -f /etc/apt/sources.list\n\
         RUN --mount=type=cache,target=/var/cache/apt --mount=type=tmpfs,target=/var/lib/apt/lists \\\n\
             apt-get update && apt-get install -y --no-install-recommends greeting && greeting > /said\n\
         FROM scratch\n\
         COPY --from=installed /said /usr/bin/greeting /\n",
    );
    let archive_url = format!("ARCHIVE=http://{gateway}:{port}/");
    let build = host.muster(&[
        "build",
        "--progress=plain",
        "-t",
        "greeted",
        "--build-arg",
        &archive_url,
        "context",
    ]);
    assert!(
        build.stderr.contains("Setting up greeting (1.2)"),
        "{build}"
    );
    build.ok();
    host.muster(&["create", "--name", "look", "greeted", "/none"])
        .ok();
    host.muster(&["cp", "look:/said", "."]).ok();
    assert_eq!(
        std::fs::read_to_string(host.path("said")).unwrap(),
        "hello from a package\n"
    );
    host.finish();
}
