//! Networks as a person meets them: names, ports, isolation.

use e2e::Host;

use crate::web;

#[test]
fn containers_find_each_other_by_name_and_alias() {
    let host = Host::start();
    host.muster(&["network", "create", "backend"]).ok();
    host.muster(&[
        "run",
        "-d",
        "--name",
        "db",
        "--network",
        "backend",
        "--network-alias",
        "store",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    for name in ["db", "store"] {
        host.muster(&[
            "run",
            "--rm",
            "--network",
            "backend",
            "busybox",
            "ping",
            "-c",
            "1",
            "-W",
            "5",
            name,
        ])
        .ok();
    }
    let lookup = host
        .muster(&[
            "run",
            "--rm",
            "--network",
            "backend",
            "busybox",
            "nslookup",
            "db",
        ])
        .ok();
    assert!(lookup.contains("127.0.0.11"), "{lookup}");
    host.muster(&[
        "run",
        "--rm",
        "--network",
        "backend",
        "busybox",
        "ping",
        "-c",
        "1",
        "-W",
        "1",
        "unknown",
    ])
    .fails(1, "");
    let other = host.muster(&["run", "--rm", "busybox", "ping", "-c", "1", "-W", "1", "db"]);
    assert_ne!(
        other.code, 0,
        "other networks do not know the name: {other}"
    );
    host.muster(&["network", "rm", "backend"])
        .fails(1, "active endpoints");
    host.finish();
}

#[test]
fn networks_are_apart() {
    let host = Host::start();
    for name in ["one", "two"] {
        host.muster(&["network", "create", name]).ok();
        host.muster(&[
            "run",
            "-d",
            "--name",
            &format!("in-{name}"),
            "--network",
            name,
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    }
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let address = host.muster(&["inspect", "--format", format, "in-two"]).ok();
    host.muster(&["exec", "in-two", "ping", "-c", "1", "-W", "2", &address])
        .ok();
    let across = host.muster(&["exec", "in-one", "ping", "-c", "1", "-W", "1", &address]);
    assert_ne!(across.code, 0, "{across}");
    host.muster(&["network", "connect", "two", "in-one"]).ok();
    host.muster(&["exec", "in-one", "ping", "-c", "1", "-W", "2", "in-two"])
        .ok();
    host.muster(&["network", "disconnect", "two", "in-one"])
        .ok();
    let again = host.muster(&["exec", "in-one", "ping", "-c", "1", "-W", "1", &address]);
    assert_ne!(again.code, 0, "{again}");
    host.finish();
}

#[test]
fn a_published_port_is_reached_from_the_host_and_from_a_neighbour() {
    let host = Host::start();
    let neighbour = Host::bare();
    let (pid, name) = (
        neighbour.on_host(gettid),
        format!("n{}", std::process::id()),
    );
    host.tool(
        "ip",
        &[
            "link", "add", &name, "type", "veth", "peer", "name", "up0", "netns", &pid,
        ],
    )
    .ok();
    host.tool("ip", &["addr", "add", "192.0.2.1/24", "dev", &name])
        .ok();
    host.tool("ip", &["link", "set", &name, "up"]).ok();
    neighbour
        .tool("ip", &["addr", "add", "192.0.2.2/24", "dev", "up0"])
        .ok();
    neighbour.tool("ip", &["link", "set", "up0", "up"]).ok();

    let page = "mkdir /www; echo hello > /www/index.html; exec httpd -f -h /www";
    host.muster(&[
        "run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sh", "-c", page,
    ])
    .ok();
    assert!(web::get_soon(&host, "127.0.0.1:8080").contains("hello"));
    assert!(
        web::get(&host, "192.0.2.1:8080").unwrap().contains("hello"),
        "the host by its own address"
    );
    assert!(
        web::get(&neighbour, "192.0.2.1:8080")
            .unwrap()
            .contains("hello")
    );
    assert_eq!(
        host.muster(&["port", "web"]).ok().lines().next(),
        Some("80/tcp -> 0.0.0.0:8080")
    );
    host.muster(&["run", "--rm", "-p", "8080:80", "busybox", "true"])
        .fails(125, "port is already allocated");
    let inside = "wget -q -O - http://192.0.2.1:8080/";
    assert_eq!(
        host.muster(&["run", "--rm", "busybox", "sh", "-c", inside])
            .ok(),
        "hello",
        "hairpin"
    );
    host.muster(&[
        "run",
        "-d",
        "--name",
        "local",
        "-p",
        "127.0.0.1:8081:80",
        "busybox",
        "sh",
        "-c",
        page,
    ])
    .ok();
    assert!(web::get_soon(&host, "127.0.0.1:8081").contains("hello"));
    assert!(
        web::get(&neighbour, "192.0.2.1:8081").is_err(),
        "bound to the loopback address only"
    );
    host.muster(&["rm", "-f", "web", "local"]).ok();
    assert!(
        web::get(&host, "127.0.0.1:8080").is_err(),
        "closed with the container"
    );
    host.tool("ip", &["link", "delete", &name]).ok();
    host.finish();
}

/// Whoever has learnt a port of the host keeps it.
#[test]
fn ports_stay_when_networks_come_and_go() {
    let host = Host::start();
    let page = "mkdir /www; echo hello > /www/index.html; exec httpd -f -h /www";
    host.muster(&[
        "run", "-d", "--name", "web", "-p", "80", "busybox", "sh", "-c", page,
    ])
    .ok();
    let published = || host.muster(&["port", "web", "80"]).ok();
    let first = published();
    let (_, port) = first.lines().next().unwrap().rsplit_once(':').unwrap();
    let address = format!("127.0.0.1:{port}");
    assert!(web::get_soon(&host, &address).contains("hello"));
    host.muster(&["network", "create", "other"]).ok();
    // The last change takes away the network that the port leads into.
    for (change, network) in [
        ("connect", "other"),
        ("disconnect", "other"),
        ("connect", "other"),
        ("disconnect", "bridge"),
    ] {
        host.muster(&["network", change, network, "web"]).ok();
        assert_eq!(published(), first, "{change} {network}");
        assert!(
            web::get_soon(&host, &address).contains("hello"),
            "{change} {network}"
        );
    }
    host.finish();
}

fn gettid() -> String {
    nix::unistd::gettid().to_string()
}

#[test]
fn rules_of_others_stay_untouched() {
    let host = Host::start();
    let rules = host.write("rules", "table inet mine {\n\tchain input {\n\t\ttype filter hook input priority filter; policy accept;\n\t\ttcp dport 9 drop\n\t}\n}\n");
    host.tool("nft", &["-f", rules.to_str().unwrap()]).ok();
    let before = host.tool("nft", &["list", "table", "inet", "mine"]).ok();
    host.muster(&[
        "run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sleep", "1000",
    ])
    .ok();
    host.muster(&["rm", "-f", "web"]).ok();
    assert_eq!(
        host.tool("nft", &["list", "table", "inet", "mine"]).ok(),
        before
    );
    host.tool("nft", &["delete", "table", "inet", "mine"]).ok();
    host.finish();
}

#[test]
fn an_internal_network_has_no_way_out() {
    let host = Host::start();
    host.tool("ip", &["link", "add", "out0", "type", "bridge"])
        .ok();
    host.tool("ip", &["addr", "add", "198.51.100.1/24", "dev", "out0"])
        .ok();
    host.tool("ip", &["link", "set", "out0", "up"]).ok();
    host.muster(&["network", "create", "--internal", "closed"])
        .ok();
    host.muster(&[
        "run",
        "-d",
        "--name",
        "peer",
        "--network",
        "closed",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    let run = |network: &str, target: &str| {
        host.muster(&[
            "run",
            "--rm",
            "--network",
            network,
            "busybox",
            "ping",
            "-c",
            "1",
            "-W",
            "1",
            target,
        ])
        .code
    };
    assert_eq!(run("bridge", "198.51.100.1"), 0);
    assert_eq!(run("closed", "peer"), 0);
    assert_ne!(run("closed", "198.51.100.1"), 0);
    host.tool("ip", &["link", "delete", "out0"]).ok();
    host.finish();
}

#[test]
fn network_modes() {
    let host = Host::start();
    host.tool("ip", &["link", "add", "mark0", "type", "bridge"])
        .ok();
    let links = |mode: &str| {
        host.muster(&[
            "run",
            "--rm",
            "--network",
            mode,
            "busybox",
            "ip",
            "-o",
            "link",
        ])
        .ok()
    };
    assert!(links("host").contains("mark0"));
    let none = links("none");
    assert!(none.lines().count() == 1 && none.contains("lo"), "{none}");
    host.muster(&["run", "-d", "--name", "owner", "busybox", "sleep", "1000"])
        .ok();
    let own = host
        .muster(&["exec", "owner", "ip", "-o", "addr", "show", "eth0"])
        .ok();
    let shared = host
        .muster(&[
            "run",
            "--rm",
            "--network",
            "container:owner",
            "busybox",
            "ip",
            "-o",
            "addr",
            "show",
            "eth0",
        ])
        .ok();
    assert_eq!(own, shared);
    host.tool("ip", &["link", "delete", "mark0"]).ok();
    host.finish();
}
