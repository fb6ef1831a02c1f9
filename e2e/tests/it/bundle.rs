//! A project as one archive: written on one host, brought up on another that has no registry and no image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use e2e::{Host, Output};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PROJECT: &str = "name: shop
services:
  web:
    image: team/web:1
    command: httpd -f -p 8080 -h /www
    env_file: web.env
    depends_on: [store]
    configs:
      - source: page
        target: /www/index.html
    secrets: [token]
  store:
    image: busybox
    command: sh -c 'echo $$GREETING > /data/greeting; exec sleep 1000'
    environment:
      GREETING: ${GREETING}
    volumes:
      - data:/data
      - ./notes:/notes
volumes:
  data: {}
configs:
  page:
    file: ./conf/index.html
secrets:
  token:
    file: ./token
";

/// A host with the project and its two images, one of which is made of the other, and a site with nothing.
struct Pair {
    here: Host,
    site: Host,
}

impl Pair {
    fn start() -> Self {
        let here = Host::start();
        let line = "mkdir /www && echo made > /www/made";
        here.muster(&["run", "--name", "made", "busybox", "sh", "-c", line])
            .ok();
        here.muster(&["commit", "made", "team/web:1"]).ok();
        here.muster(&["rm", "made"]).ok();
        here.write("shop/compose.yaml", PROJECT);
        here.write("shop/.env", "GREETING=hello $$there\n");
        here.write("shop/web.env", "COLOUR=blue\n");
        here.write("shop/conf/index.html", "the page\n");
        here.write("shop/token", "xyzzy-token\n");
        here.write("shop/notes/first", "a note\n");
        let mut site = Host::bare();
        site.start_daemon(&[]);
        Self { here, site }
    }

    fn bundle(&self, arguments: &[&str]) -> PathBuf {
        let mut words = vec!["bundle", "-o", "shop.tar"];
        words.extend(arguments);
        self.here.muster_in("shop", &words).ok();
        self.here.path("shop/shop.tar")
    }

    fn up(&self, bundle: &Path) -> Output {
        self.site.muster(&["up", "-d", bundle.to_str().unwrap()])
    }

    fn finish(self) {
        self.site.finish();
        self.here.finish();
    }
}

fn id(host: &Host, name: &str) -> String {
    host.muster(&["images", "-q", "--no-trunc", name]).ok()
}

/// Where the entry of a name begins in an archive, and how long it is.
fn entry(archive: &[u8], name: &str) -> (usize, usize) {
    let mut tar = tar::Archive::new(archive);
    let mut entries = tar.entries().unwrap().map(Result::unwrap);
    let found = entries.find(|entry| entry.path_bytes().ends_with(name.as_bytes()));
    let found = found.unwrap_or_else(|| panic!("no {name}"));
    (
        usize::try_from(found.raw_file_position()).unwrap(),
        usize::try_from(found.size()).unwrap(),
    )
}

#[test]
fn a_project_comes_up_where_there_is_nothing() {
    let pair = Pair::start();
    let said = pair
        .here
        .muster_in("shop", &["bundle", "-o", "shop.tar", "--with-binds"]);
    assert!(
        said.stderr.contains("not in the bundle: secret token"),
        "{said}"
    );
    assert!(said.stderr.contains("in the bundle: config page"), "{said}");
    said.ok();
    let bundle = pair.here.path("shop/shop.tar");
    let bytes = fs::read(&bundle).unwrap();
    assert!(!bytes.windows(11).any(|window| window == b"xyzzy-token"));
    // The layer that both images have is there once.
    let mut tar = tar::Archive::new(&bytes[..]);
    let names = tar.entries().unwrap().map(|entry| {
        let path = entry.unwrap().path().unwrap().into_owned();
        path.display().to_string()
    });
    let names: Vec<String> = names.collect();
    let blobs = names.iter().filter(|name| name.starts_with("blobs/"));
    assert_eq!(blobs.count(), 2 + 2 + 2, "{names:?}");
    assert!(
        names.contains(&"muster/original/web.env".to_owned()),
        "{names:?}"
    );
    // The same again is the same.
    let again = pair.bundle(&["--with-binds"]);
    assert!(fs::read(&again).unwrap() == bytes);

    // A plan changes nothing; the secret is missing, and it is said where it goes.
    let word = bundle.to_str().unwrap();
    pair.site
        .muster(&["plan", word])
        .fails(1, ".local/share/muster/bundles/shop/project/token");
    assert!(!pair.site.path(".local").exists());
    assert_eq!(pair.site.muster(&["images", "-q"]).ok(), "");
    pair.site.write(
        ".local/share/muster/bundles/shop/project/token",
        "site's own\n",
    );
    pair.site
        .tool(
            "chmod",
            &[
                "700",
                pair.site
                    .path(".local/share/muster/bundles/shop")
                    .to_str()
                    .unwrap(),
            ],
        )
        .ok();
    let planned = pair.site.muster(&["plan", word]);
    assert_eq!(planned.code, 2, "{planned}");
    assert_eq!(pair.site.muster(&["images", "-q"]).ok(), "");

    pair.up(&bundle).ok();
    for name in ["busybox", "team/web:1"] {
        assert_eq!(id(&pair.site, name), id(&pair.here, name), "{name}");
    }
    let exec = |container: &str, line: &str| {
        let words = ["exec", container, "sh", "-c", line];
        pair.site.muster(&words).ok()
    };
    assert_eq!(
        exec(
            "shop-store-1",
            "until wget -qO- http://web:8080/; do :; done"
        ),
        "the page"
    );
    assert_eq!(exec("shop-store-1", "cat /data/greeting"), "hello $there");
    assert_eq!(exec("shop-store-1", "cat /notes/first"), "a note");
    assert_eq!(
        exec("shop-web-1", "cat /www/made; echo $COLOUR"),
        "made\nblue"
    );
    assert_eq!(exec("shop-web-1", "cat /run/secrets/token"), "site's own");

    // The second time there is nothing to do.
    let ids = pair.site.muster(&["ps", "-aq", "--no-trunc"]).ok();
    let second = pair.up(&bundle);
    assert!(!second.stderr.contains("Loading"), "{second}");
    second.ok();
    assert_eq!(pair.site.muster(&["ps", "-aq", "--no-trunc"]).ok(), ids);
    assert_eq!(pair.site.muster(&["plan", word]).code, 0);
    let shown = pair
        .site
        .muster(&["compose", "-f", word, "config", "--services"]);
    assert_eq!(shown.ok(), "store\nweb");

    pair.site
        .muster(&["down", "-p", "shop", "-v", "-t", "0"])
        .ok();
    assert_eq!(pair.site.muster(&["ps", "-aq"]).ok(), "");
    // Under another name it is another project.
    let other = ".local/share/muster/bundles/other/project/token";
    pair.site.write(other, "x");
    pair.site
        .tool(
            "chmod",
            &[
                "700",
                pair.site
                    .path(".local/share/muster/bundles/other")
                    .to_str()
                    .unwrap(),
            ],
        )
        .ok();
    pair.site.muster(&["up", "-d", "-p", "other", word]).ok();
    let named = pair
        .site
        .muster(&["network", "ls", "--format", "{{.Name}}"])
        .ok();
    assert!(named.contains("other_default"), "{named}");
    pair.site
        .muster(&["down", "-p", "other", "-v", "-t", "0"])
        .ok();
    pair.finish();
}

#[test]
fn only_what_the_site_lacks_is_sent() {
    let pair = Pair::start();
    let bundle = pair.bundle(&["--with-secrets"]);
    assert_eq!(fs::metadata(&bundle).unwrap().permissions(), {
        use std::os::unix::fs::PermissionsExt as _;
        fs::Permissions::from_mode(0o100_600)
    });
    // The site has one of the images, by another way.
    let saved = pair.here.path("busybox-saved.tar");
    let saved = saved.to_str().unwrap();
    pair.here.muster(&["save", "-o", saved, "busybox"]).ok();
    pair.site.muster(&["load", "-i", saved]).ok();
    let up = pair.up(&bundle);
    let said = up.stderr.clone();
    up.ok();
    // The layers of the other one above what is there: kilobytes, where the whole has megabytes.
    let line = said
        .lines()
        .find(|line| line.starts_with("images: Loading"));
    let line = line.unwrap_or_else(|| panic!("nothing was loaded: {said}"));
    assert!(line.ends_with("kB"), "{line}");
    assert_eq!(id(&pair.site, "team/web:1"), id(&pair.here, "team/web:1"));
    let token = ["exec", "shop-web-1", "cat", "/run/secrets/token"];
    assert_eq!(pair.site.muster(&token).ok(), "xyzzy-token");
    pair.site
        .muster(&["down", "-p", "shop", "-v", "-t", "0"])
        .ok();

    // A name that is another image here stays with it; the project runs its own.
    let id_of_web = id(&pair.here, "team/web:1");
    pair.site.muster(&["tag", "busybox", "team/web:1"]).ok();
    pair.up(&bundle).ok();
    assert_eq!(id(&pair.site, "team/web:1"), id(&pair.site, "busybox"));
    let runs = ["inspect", "--format", "{{.Image}}", "shop-web-1"];
    assert_eq!(pair.site.muster(&runs).ok(), id_of_web);
    pair.site
        .muster(&["down", "-p", "shop", "-v", "-t", "0"])
        .ok();

    // Without images it comes up only where they are.
    let bare = pair.bundle(&["--with-secrets", "--no-images"]);
    assert!(fs::metadata(&bare).unwrap().len() < 100 << 10);
    pair.up(&bare).ok();
    pair.site
        .muster(&["down", "-p", "shop", "-v", "-t", "0"])
        .ok();
    pair.site.muster(&["rmi", "-f", &id_of_web]).ok();
    pair.up(&bare).fails(1, "is neither here nor in the bundle");
    pair.finish();
}

#[test]
fn a_damaged_bundle_changes_nothing() {
    let pair = Pair::start();
    let bundle = pair.bundle(&["--with-secrets"]);
    let whole = fs::read(&bundle).unwrap();
    let layer = id_of_largest_blob(&whole);
    let damaged = pair.here.path("damaged.tar");
    let refused = |bytes: &[u8], words: &str| {
        fs::write(&damaged, bytes).unwrap();
        pair.up(&damaged).fails(1, words);
        assert_eq!(pair.site.muster(&["images", "-aq"]).ok(), "", "{words}");
        assert_eq!(pair.site.muster(&["ps", "-aq"]).ok(), "", "{words}");
        let networks = ["network", "ls", "-q", "--filter", "name=shop"];
        assert_eq!(pair.site.muster(&networks).ok(), "", "{words}");
        assert!(!pair.site.path(".local").exists(), "{words}");
    };
    let flipped = |name: &str| {
        let (at, size) = entry(&whole, name);
        let mut bytes = whole.clone();
        bytes[at + size / 2] ^= 1;
        bytes
    };
    refused(&flipped(&layer), &layer);
    refused(
        &flipped("muster/project/conf/index.html"),
        "muster/project/conf/index.html",
    );
    refused(&flipped("muster/compose.yaml"), "muster/compose.yaml");
    refused(&whole[..whole.len() / 2], &layer);
    refused(&whole[..whole.len() - 512], "end of the archive");
    // Another digest in the lock.
    let (at, size) = entry(&whole, "muster/lock.json");
    let lock = String::from_utf8(whole[at..at + size].to_vec()).unwrap();
    let hex = &layer["blobs/sha256/".len()..];
    let other = format!("{}{}", &hex[1..], &hex[..1]);
    let mut bytes = whole.clone();
    bytes[at..at + size].copy_from_slice(lock.replace(hex, &other).as_bytes());
    refused(&bytes, &other);
    let mut bytes = whole.clone();
    bytes[at..at + size]
        .copy_from_slice(lock.replace("\"version\": 1", "\"version\": 9").as_bytes());
    refused(&bytes, "has version 9");
    // An entry that leads elsewhere.
    let mut bytes = whole.clone();
    let (at, _) = entry(&whole, "muster/project/conf/index.html");
    let name = b"muster/project/../../../../../escape";
    let header = &mut bytes[at - 512..at];
    header[..100].fill(0);
    header[..name.len()].copy_from_slice(name);
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    refused(&bytes, "muster/project/../../../../../escape");
    refused(b"not an archive", "too short");

    // What was refused is fine once it is whole.
    pair.up(&bundle).ok();
    pair.site
        .muster(&["down", "-p", "shop", "-v", "-t", "0"])
        .ok();
    // An image that is not there is named before anything is written.
    pair.here.muster(&["rmi", "-f", "team/web:1"]).ok();
    fs::remove_file(&bundle).unwrap();
    let output = pair.here.muster_in("shop", &["bundle", "-o", "shop.tar"]);
    assert_eq!(output.code, 1, "{output}");
    let left = fs::read_dir(pair.here.path("shop")).unwrap();
    let left = left.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().contains(".tar")
    });
    assert_eq!(left.count(), 0);
    pair.finish();
}

#[test]
fn an_interrupted_bundle_leaves_no_file() {
    let pair = Pair::start();
    let mut command = pair.here.muster_command(&["bundle", "-o", "shop.tar"]);
    command
        .current_dir(pair.here.path("shop"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let files = || -> Vec<String> {
        let entries = fs::read_dir(pair.here.path("shop")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains(".tar")).collect()
    };
    let mut child = pair.here.spawn(command);
    while files().is_empty() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let _ = kill(pid, Signal::SIGINT);
    let status = child.wait().unwrap();
    // It may have been quicker than the signal; then all of it is there.
    match status.code() {
        Some(130) => assert_eq!(files(), Vec::<String>::new()),
        Some(0) => assert_eq!(files(), ["shop.tar"]),
        _ => panic!("{status}: {:?}", files()),
    }
    pair.here.muster_in("shop", &["bundle"]).ok();
    let up = ["up", "-d", "--pull", "always", "shop/shop.tar"];
    pair.here.muster(&up).fails(1, "are not for bundles");
    pair.finish();
}

/// Name of the entry that is the largest layer.
fn id_of_largest_blob(archive: &[u8]) -> String {
    let mut tar = tar::Archive::new(archive);
    let entries = tar.entries().unwrap().map(Result::unwrap);
    let blobs = entries.filter(|entry| entry.path_bytes().starts_with(b"blobs/"));
    let largest = blobs.max_by_key(tar::Entry::size).unwrap();
    largest.path().unwrap().display().to_string()
}
