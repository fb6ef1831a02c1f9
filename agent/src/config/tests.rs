//! Every option and every refusal, from the command line a person types to the message they read.

use super::*;
use clap::{Args as _, FromArgMatches as _};

fn flags(arguments: &[&str]) -> Flags {
    let command = Flags::augment_args(clap::Command::new("daemon"));
    let matches = command
        .try_get_matches_from(std::iter::once("daemon").chain(arguments.iter().copied()))
        .unwrap();
    Flags::from_arg_matches(&matches).unwrap()
}

/// Loads with a file of this content and these flags.
fn load(file: &str, arguments: &[&str]) -> Result<Config, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("daemon.json");
    std::fs::write(&path, file).unwrap();
    let mut all = vec!["--config-file", path.to_str().unwrap()];
    all.extend_from_slice(arguments);
    Config::load(&flags(&all))
        .map_err(|error| error.to_string().replace(path.to_str().unwrap(), "FILE"))
}

fn refused(file: &str, arguments: &[&str]) -> String {
    load(file, arguments).expect_err("must be refused")
}

#[test]
fn nothing_given_is_the_documented_default() {
    let config = load("", &[]).unwrap();
    assert_eq!(config.data_root, Path::new("/var/lib/muster"));
    assert_eq!(config.exec_root, Path::new("/run/muster"));
    assert_eq!(config.hosts, [Host::Unix("/run/muster/muster.sock".into())]);
    assert_eq!(config.pidfile, Path::new("/run/muster/muster.pid"));
    assert!(config.live_restore);
    assert_eq!(config.shutdown_timeout, Some(Duration::from_secs(15)));
    assert_eq!(config.containers.shm_size_bytes, 64 << 20);
    assert_eq!(config.containers.log_driver, "json-file");
    assert_eq!(config.networks, NetworkDefaults::default());
}

#[test]
fn the_socket_and_pidfile_follow_the_exec_root() {
    let config = load("", &["--exec-root", "/run/other/"]).unwrap();
    assert_eq!(config.hosts, [Host::Unix("/run/other/muster.sock".into())]);
    assert_eq!(config.pidfile, Path::new("/run/other/muster.pid"));
}

/// Each pair of spellings must mean the same.
#[test]
fn flags_and_file_say_the_same() {
    let cases: &[(&[&str], &str)] = &[
        (&["--data-root=/d"], r#"{"data-root":"/d"}"#),
        (&["--exec-root=/e"], r#"{"exec-root":"/e"}"#),
        (
            &["-H", "unix:///a", "--host=fd://"],
            r#"{"hosts":["unix:///a","fd://"]}"#,
        ),
        (&["-p", "/p"], r#"{"pidfile":"/p"}"#),
        (&["-G", "staff"], r#"{"group":"staff"}"#),
        (&["-D"], r#"{"debug":true}"#),
        (&["--debug=false"], r#"{"debug":false}"#),
        (&["-l", "warn"], r#"{"log-level":"warn"}"#),
        (&["--log-format", "json"], r#"{"log-format":"json"}"#),
        (
            &["--label", "a=b", "--label=c=d"],
            r#"{"labels":["a=b","c=d"]}"#,
        ),
        (&["--live-restore=false"], r#"{"live-restore":false}"#),
        (&["--shutdown-timeout", "-1"], r#"{"shutdown-timeout":-1}"#),
        (&["--cgroup-parent=/x"], r#"{"cgroup-parent":"/x"}"#),
        (
            &["--default-shm-size", "1.5g"],
            r#"{"default-shm-size":"1.5g"}"#,
        ),
        (
            &["--default-shm-size", "128k"],
            r#"{"default-shm-size":131072}"#,
        ),
        (
            &[
                "--default-ulimit",
                "nofile=64:128",
                "--default-ulimit",
                "nproc=9",
            ],
            r#"{"default-ulimits":{"nofile":{"Name":"nofile","Hard":128,"Soft":64},"nproc":{"Name":"nproc","Hard":9,"Soft":9}}}"#,
        ),
        (&["--init"], r#"{"init":true}"#),
        (&["--log-driver", "none"], r#"{"log-driver":"none"}"#),
        (
            &["--log-opt", "max-size=10m", "--log-opt", "max-file=3"],
            r#"{"log-opts":{"max-size":"10m","max-file":"3"}}"#,
        ),
        (
            &["--dns", "1.1.1.1", "--dns", "::1"],
            r#"{"dns":["1.1.1.1","::1"]}"#,
        ),
        (&["--dns-opt", "ndots:1"], r#"{"dns-opts":["ndots:1"]}"#),
        (
            &["--dns-search", "example.org"],
            r#"{"dns-search":["example.org"]}"#,
        ),
        (
            &["--host-gateway-ip", "10.0.0.1"],
            r#"{"host-gateway-ips":["10.0.0.1"]}"#,
        ),
        (
            &["--default-address-pool", "base=10.10.0.0/16,size=24"],
            r#"{"default-address-pools":[{"base":"10.10.0.0/16","size":24}]}"#,
        ),
        (&["--bip", "10.9.0.1/24"], r#"{"bip":"10.9.0.1/24"}"#),
        (&["--mtu", "1400"], r#"{"mtu":1400}"#),
        (&["--ip", "127.0.0.1"], r#"{"ip":"127.0.0.1"}"#),
        (
            &["--storage-driver=overlay2"],
            r#"{"storage-driver":"overlay2"}"#,
        ),
        (
            &["--https-proxy", "http://p:2", "--no-proxy=a.test"],
            r#"{"proxies":{"https-proxy":"http://p:2","no-proxy":"a.test"}}"#,
        ),
        (
            &["--exec-opt", "native.cgroupdriver=cgroupfs"],
            r#"{"exec-opts":["native.cgroupdriver=cgroupfs"]}"#,
        ),
    ];
    for (arguments, file) in cases {
        let by_flags =
            load("{}", arguments).unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
        let by_file = load(file, &[]).unwrap_or_else(|error| panic!("{file}: {error}"));
        let path = by_flags.file.clone();
        assert_eq!(
            by_flags,
            Config {
                file: path,
                ..by_file
            },
            "{arguments:?} and {file}"
        );
    }
}

#[test]
fn every_supported_option_changes_the_configuration() {
    let samples: &[(&str, &str)] = &[
        ("bip", "10.9.0.1/24"),
        ("cgroup-parent", "/x"),
        ("data-root", "/d"),
        ("debug", "true"),
        ("default-address-pool", "base=10.10.0.0/16,size=24"),
        ("default-shm-size", "1m"),
        ("default-ulimit", "nofile=1:2"),
        ("dns", "1.1.1.1"),
        ("dns-opt", "ndots:1"),
        ("dns-search", "example.org"),
        ("exec-root", "/e"),
        ("group", "staff"),
        ("host", "unix:///h"),
        ("host-gateway-ip", "10.0.0.1"),
        ("http-proxy", "http://p:1"),
        ("https-proxy", "http://p:2"),
        ("image-gc-budget", "20GB"),
        ("image-gc-grace", "2h"),
        ("image-gc-keep", "label=keep"),
        ("init", "true"),
        ("insecure-registry", "10.0.0.0/8"),
        ("ip", "127.0.0.1"),
        ("label", "a=b"),
        ("live-restore", "false"),
        ("log-driver", "none"),
        ("log-format", "json"),
        ("log-level", "error"),
        ("log-opt", "max-file=2"),
        ("max-concurrent-downloads", "7"),
        ("max-concurrent-uploads", "7"),
        ("max-download-attempts", "7"),
        ("mtu", "1400"),
        ("no-proxy", "*"),
        ("pidfile", "/p"),
        ("registry-certificates", "/c"),
        ("registry-mirror", "https://mirror.example.com"),
        ("shutdown-timeout", "3"),
        ("tlscacert", "/c"),
        ("tlscert", "/c"),
        ("tlskey", "/c"),
        ("tlsverify", "true"),
    ];
    let default = load("", &[]).unwrap();
    for option in options::OPTIONS
        .iter()
        .filter(|option| matches!(option.support, options::Support::Done))
        // Keys of the file alone are tested where they are read.
        .filter(|option| !option.flag.is_empty())
    {
        let (_, value) = samples
            .iter()
            .find(|(flag, _)| *flag == option.flag)
            .unwrap_or_else(|| panic!("no sample for {}", option.flag));
        let config = load("", &[&format!("--{}={value}", option.flag)]).unwrap();
        assert_ne!(
            Config {
                file: default.file.clone(),
                ..config
            },
            default,
            "--{} is ignored",
            option.flag
        );
    }
}

#[test]
fn options_of_dockerd_that_are_missing_are_refused_by_name() {
    for option in options::OPTIONS {
        let options::Support::No(reason) = option.support else {
            continue;
        };
        if !option.flag.is_empty() {
            let value = if option.shape == options::Shape::Number {
                "1"
            } else {
                "x"
            };
            let message = refused("", &[&format!("--{}={value}", option.flag)]);
            assert_eq!(
                message,
                format!("--{} is not supported: {reason}", option.flag)
            );
        }
        let value = match option.shape {
            options::Shape::Number => "1",
            options::Shape::List => r#"["x"]"#,
            _ => r#""x""#,
        };
        let message = refused(&format!(r#"{{"{}":{value}}}"#, option.key), &[]);
        assert_eq!(
            message,
            format!("{} in FILE is not supported: {reason}", option.key)
        );
    }
}

#[test]
fn options_with_one_meaning_accept_it_and_nothing_else() {
    for option in options::OPTIONS {
        let options::Support::Only(accepted, reason) = option.support else {
            continue;
        };
        for value in accepted {
            load("", &[&format!("--{}={value}", option.flag)])
                .unwrap_or_else(|error| panic!("{}: {error}", option.flag));
        }
        let other = match (option.shape, accepted[0]) {
            (options::Shape::Switch, "true") => "false",
            (options::Shape::Switch, _) => "true",
            _ => "other",
        };
        assert_eq!(
            refused("", &[&format!("--{}={other}", option.flag)]),
            format!("--{} is not supported: {reason}", option.flag)
        );
    }
}

#[test]
fn errors_name_the_option_and_say_what_to_do() {
    let cases: &[(&str, &[&str], &str)] = &[
        (
            "{",
            &[],
            "configuration file FILE is not valid JSON: EOF while parsing an object at line 1 column 1",
        ),
        ("[]", &[], "configuration file FILE must hold a JSON object"),
        (
            r#"{"foo":1,"bar":2}"#,
            &[],
            "the following directives in FILE don't match any configuration option: foo, bar",
        ),
        (
            r#"{"debug":true,"labels":["a=b"]}"#,
            &["-D", "--label", "c=d"],
            r#"the following directives are specified both as a flag and in the configuration file FILE: debug: (from flag: true, from file: true), labels: (from flag: ["c=d"], from file: ["a=b"])"#,
        ),
        (
            r#"{"debug":"yes"}"#,
            &[],
            r#"debug in FILE: must be true or false, not "yes""#,
        ),
        (
            r#"{"hosts":"unix:///x"}"#,
            &[],
            r#"hosts in FILE: must be an array of strings, not "unix:///x""#,
        ),
        (
            r#"{"log-opts":{"max-file":3}}"#,
            &[],
            r#"log-opts in FILE: must be an object with string values, not {"max-file":3}"#,
        ),
        (
            "",
            &["--data-root", "x"],
            r#"--data-root: "x" is not an absolute path without "..""#,
        ),
        (
            "",
            &["--data-root", "/x", "--exec-root", "/x"],
            "--exec-root: must not be the same directory as data-root",
        ),
        (
            "",
            &["-H", "unix://x"],
            "--host: unix://x: the path must be absolute",
        ),
        (
            "",
            &["-H", "unix:///x", "-H", "unix:///x"],
            "--host: unix:///x is given twice",
        ),
        (
            "",
            &["-H", "npipe:///x"],
            r#"--host: "npipe:///x" is not a host (unix://<path>, fd:// or tcp://<address>:<port>)"#,
        ),
        (
            "",
            &["-H", "tcp://0.0.0.0:2375"],
            "--host: tcp://0.0.0.0:2375: whoever reaches the API owns this host, so it is served on addresses to verified clients only: give --tlsverify, --tlscacert, --tlscert and --tlskey, or use ssh (-H ssh://…)",
        ),
        (
            "",
            &["-H", "tcp://there:2376", "--tlsverify"],
            "--host: tcp://there:2376: write an address and a port, such as tcp://0.0.0.0:2376",
        ),
        (
            "",
            &["-l", "loud"],
            "--log-level: invalid logging level: loud (debug, info, warn, error or fatal)",
        ),
        (
            "",
            &["--log-format", "xml"],
            "--log-format: invalid log format: xml (text or json)",
        ),
        (
            "",
            &["--label", "a"],
            "--label: bad attribute format: a (must be key=value)",
        ),
        (
            "",
            &["--label", "a=1", "--label", "a=2"],
            "--label: conflict labels for a=2 and a=1",
        ),
        (
            "",
            &["--mtu", "12"],
            "--mtu: invalid default MTU: 12 (68 to 65535)",
        ),
        (
            "",
            &["--mtu", "big"],
            r#"--mtu: invalid value "big": must be a whole number"#,
        ),
        (
            "",
            &["--bip", "10.0.0.0/24"],
            "--bip: 10.0.0.0/24 is not the address of a host in its subnet",
        ),
        (
            "",
            &["--dns", "example.org"],
            r#"--dns: "example.org" is not an IP address"#,
        ),
        (
            "",
            &["--dns-search", "a b"],
            "--dns-search: a b is not a valid domain",
        ),
        (
            "",
            &["--default-ulimit", "nofile=2:1"],
            "--default-ulimit: nofile=2:1: the soft limit must not be higher than the hard limit",
        ),
        (
            "",
            &["--default-ulimit", "files=1"],
            "--default-ulimit: invalid ulimit type: files",
        ),
        (
            "",
            &["--default-ulimit", "nofile"],
            r#"--default-ulimit: invalid value "nofile": must be name=soft[:hard], for example nofile=1024:2048"#,
        ),
        (
            "",
            &["--default-shm-size", "lots"],
            r#"--default-shm-size: "lots" is not a size such as 64m"#,
        ),
        (
            "",
            &["--log-driver", "syslog"],
            r#"--log-driver: log driver "syslog" is not supported (json-file, local or none)"#,
        ),
        (
            "",
            &["--log-opt", "labels=x"],
            "--log-opt: log option labels is not supported (max-size, max-file)",
        ),
        (
            "",
            &["--log-opt", "max-file=0"],
            "--log-opt: max-file=0: invalid value",
        ),
        (
            "",
            &["--default-address-pool", "base=10.0.0.0/8,size=4"],
            "--default-address-pool: size 4 of 10.0.0.0/8 must be between 8 and 30",
        ),
        (
            "",
            &[
                "--default-address-pool",
                "base=10.0.0.0/8,size=16",
                "--default-address-pool",
                "base=10.1.0.0/16,size=24",
            ],
            "--default-address-pool: 10.1.0.0/16 overlaps with 10.0.0.0/8",
        ),
        (
            "",
            &["--cgroup-parent", "x.slice"],
            r#"--cgroup-parent: "x.slice" is a unit of systemd; cgroups are managed through the cgroup file system only"#,
        ),
    ];
    for (file, arguments, expected) in cases {
        assert_eq!(refused(file, arguments), *expected, "{file} {arguments:?}");
    }
}

#[test]
fn a_file_that_was_named_must_exist() {
    let error = Config::load(&flags(&["--config-file", "/nonexistent/daemon.json"])).unwrap_err();
    assert!(
        matches!(&error, ConfigError::File { path, .. } if path == Path::new("/nonexistent/daemon.json")),
        "{error}"
    );
}

#[test]
fn an_unknown_flag_is_refused_with_its_name() {
    let command = Flags::augment_args(clap::Command::new("daemon"));
    let error = command
        .try_get_matches_from(["daemon", "--frobnicate"])
        .unwrap_err()
        .to_string();
    assert!(error.contains("--frobnicate"), "{error}");
}

#[test]
fn the_table_has_no_flag_twice() {
    for (index, option) in options::OPTIONS.iter().enumerate() {
        for other in &options::OPTIONS[index + 1..] {
            assert!(option.key != other.key, "key {} is there twice", option.key);
            assert!(
                option.flag.is_empty() || option.flag != other.flag,
                "flag {} is there twice",
                option.flag
            );
            assert!(
                option.short.is_none() || option.short != other.short,
                "-{:?} is there twice",
                option.short
            );
        }
    }
}
