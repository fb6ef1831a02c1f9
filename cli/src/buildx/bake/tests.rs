//! Bake files against the targets they mean. The first cases are those of buildx' own documentation.

use super::*;
use serde_json::{Value, json};

fn hcl(text: &str) -> Definitions {
    let mut definitions = Definitions::default();
    definitions.add_hcl(text).unwrap();
    definitions
}

fn resolve_with(
    definitions: &Definitions,
    names: &[&str],
    set: &[&str],
    env: &[(&str, &str)],
) -> Result<Resolved, String> {
    let env = |name: &str| {
        let found = env.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let scope = definitions.scope(&env, &[])?;
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let overrides = set
        .iter()
        .map(|flag| Override::parse(flag))
        .collect::<Result<Vec<_>, _>>()?;
    resolve::resolve(definitions, &scope, &names, &overrides)
}

fn printed(definitions: &Definitions, names: &[&str], set: &[&str], env: &[(&str, &str)]) -> Value {
    let resolved = resolve_with(definitions, names, set, env).unwrap();
    serde_json::from_str(&print(&resolved)).unwrap()
}

#[test]
fn variables_functions_and_inheritance() {
    let file = hcl(r#"
        variable "TAG" { default = "latest" }
        variable "RELEASE" { default = false }
        function "named" {
          params = [name]
          variadic_params = extra
          result = ["example/${name}:${TAG}", length(extra) > 0 ? "example/${name}:${extra[0]}" : ""]
        }
        group "default" { targets = ["app", "docs"] }
        target "base" {
          dockerfile = "Dockerfile.${RELEASE ? "release" : "dev"}"
          args = { A = 1, B = "b" }
          tags = ["base"]
        }
        target "app" {
          inherits = ["base"]
          args = { B = "${upper(TAG)}" }
          tags = compact(named("app", "x"))
        }
        target "docs" {
          context = "docs"
          output = [{ type = "local", dest = "out,put" }, "type=cacheonly"]
        }
    "#);
    let all = printed(&file, &[], &[], &[("TAG", "v2"), ("RELEASE", "1")]);
    assert_eq!(
        all,
        json!({
            "group": {"default": {"targets": ["app", "docs"]}},
            "target": {
                "app": {"context": ".", "dockerfile": "Dockerfile.release", "args": {"A": "1", "B": "V2"},
                    "tags": ["example/app:v2", "example/app:x"]},
                "docs": {"context": "docs", "dockerfile": "Dockerfile",
                    "output": [{"dest": "out,put", "type": "local"}, {"type": "cacheonly"}]},
            }
        })
    );
}

#[test]
fn a_matrix_makes_a_target_of_each_combination() {
    let file = hcl(r#"
        target "app" {
          name = "app-${item.tgt}-${replace(v, ".", "-")}"
          matrix = { item = [{ tgt = "lint" }, { tgt = "test" }], v = ["1.0", "2.0"] }
          target = item.tgt
          args = { V = v }
        }
    "#);
    let all = printed(&file, &["app"], &[], &[]);
    let names: Vec<&String> = all["target"].as_object().unwrap().keys().collect();
    assert_eq!(
        names,
        [
            "app-lint-1-0",
            "app-lint-2-0",
            "app-test-1-0",
            "app-test-2-0"
        ]
    );
    assert_eq!(all["target"]["app-test-2-0"]["args"]["V"], "2.0");
    assert_eq!(all["group"]["app"]["targets"].as_array().unwrap().len(), 4);
}

#[test]
fn expressions_are_hcls() {
    let file = hcl(r#"
        list = [for s in ["a", "b", "c"] : upper(s) if s != "b"]
        target "default" {
          args = {
            loop = join(",", list)
            keyed = { for k, v in { x = 1, y = 2 } : v => k }["2"]
            sum = 1 + 2 * 3 - -1
            chosen = 2 >= 2 && !false ? "yes" : "no"
            splat = join("-", [{ n = "a" }, { n = "b" }][*].n)
            text = <<EOT
%{ for s in ["p", "q"] ~}
${s};
%{ endfor ~}
EOT
          }
        }
    "#);
    let args = &printed(&file, &[], &[], &[])["target"]["default"]["args"];
    assert_eq!(args["loop"], "A,C");
    assert_eq!(args["keyed"], "y");
    assert_eq!(
        (&args["sum"], &args["chosen"], &args["splat"]),
        (&json!("8"), &json!("yes"), &json!("a-b"))
    );
    assert_eq!(
        args["text"].as_str().unwrap().replace(['\n', ' '], ""),
        "p;q;"
    );
}

#[test]
fn what_compose_sends_is_read() {
    let text = r#"{"group": {"default": {"targets": ["web"]}}, "target": {
        "web": {"context": "/w", "contexts": {"base": "target:base"}, "dockerfile": "Dockerfile",
            "dockerfile-inline": "FROM base\nRUN echo $${HOME} $$x", "args": {"A": "1", "B": null},
            "labels": {"com.docker.compose.project": "p"}, "tags": ["p-web"], "secret": ["id=s,type=file,src=/s"],
            "ssh": ["default"], "extra-hosts": {"h": "1.2.3.4"}, "ulimits": ["nofile=1:2"], "pull": false,
            "output": ["type=docker"], "entitlements": ["network.host"]},
        "base": {"context": "/b", "dockerfile": "Dockerfile", "tags": ["p-base"]}}}"#;
    let mut file = Definitions::default();
    file.add_json(text).unwrap();
    let resolved = resolve_with(&file, &[], &[], &[]).unwrap();
    assert_eq!(resolved.wanted, ["web"]);
    let inline = resolved.targets["web"].dockerfile_inline.clone().unwrap();
    assert_eq!(inline.0, "FROM base\nRUN echo ${HOME} $$x");
    let jobs = jobs::jobs(&resolved, Path::new("/")).unwrap();
    let names: Vec<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
    assert_eq!(names, ["web", "base"]);
    assert_eq!(jobs[0].from_jobs["base"], "base");
    assert_eq!(jobs[0].spec.request.tags, ["p-web"]);
    assert!(
        jobs[1].spec.request.tags.is_empty(),
        "it is only built for the other"
    );
    assert_eq!(jobs[0].spec.request.add_hosts, ["h:1.2.3.4"]);
}

#[test]
fn overrides_change_targets() {
    let file = hcl(r#"
        target "app" {
          args = { A = "1" }
          tags = ["t"]
        }
        target "api" { output = ["type=image,name=x"] }
        group "default" { targets = ["app", "api"] }
    "#);
    let set = [
        "app.args.A=2",
        "ap*.platform=linux/arm64",
        "app.tags+=u",
        "*.no-cache=true",
        "*.push=true",
    ];
    let all = printed(&file, &[], &set, &[]);
    let app = &all["target"]["app"];
    assert_eq!(
        (&app["args"]["A"], &app["tags"]),
        (&json!("2"), &json!(["t", "u"]))
    );
    assert_eq!(
        (&app["platforms"], &app["no-cache"]),
        (&json!(["linux/arm64"]), &json!(true))
    );
    assert_eq!(app["output"], json!([{"type": "registry"}]));
    assert_eq!(
        all["target"]["api"]["output"],
        json!([{"name": "x", "push": "true", "type": "image"}])
    );
    for bad in [
        "app",
        "app.frob=1",
        "app.args=1",
        "app.tags.x=1",
        "app.no-cache=maybe",
        "app.tags",
    ] {
        assert!(Override::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn mistakes_are_told_with_their_place() {
    let resolve = |text: &str, names: &[&str]| {
        let mut file = Definitions::default();
        file.add_hcl(text)?;
        resolve_with(&file, names, &[], &[]).map(drop)
    };
    for (text, names, words) in [
        ("target \"a\" {}", &["b"][..], "failed to find target b"),
        (
            "target \"a\" { frob = 1 }",
            &["a"],
            "target a: unknown field `frob`",
        ),
        ("target \"a\" { tags = [x] }", &["a"], "no variable \"x\""),
        (
            "target \"a\" { inherits = [\"a\"] }",
            &["a"],
            "inherits from itself",
        ),
        (
            "variable \"A\" { default = B }\nvariable \"B\" { default = A }\ntarget \"a\" { tags = [A] }",
            &["a"],
            "needs itself",
        ),
        (
            "group \"g\" { targets = [\"g\"] }",
            &["g"],
            "group g is in itself",
        ),
        ("target \"a\" { tags = [nope()] }", &["a"], "nope()"),
        (
            "variable \"A\" {\n default = 1\n validation {\n condition = A > 1\n error_message = \"too small\"\n }\n}",
            &["x"],
            "variable A: too small",
        ),
        ("frob \"a\" {}", &["a"], "no blocks of kind \"frob\""),
        ("target \"a\" {", &["a"], ""),
    ] {
        let error = resolve(text, names).unwrap_err();
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn files_outside_are_only_read_when_granted() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path().canonicalize().unwrap();
    let file = hcl(r#"
        target "default" {
          context = "."
          contexts = { up = "../other", git = "https://host/a.git" }
          secret = ["id=s,src=/etc/secret"]
          output = ["type=local,dest=../out"]
          network = "host"
        }
    "#);
    let grant_with = |flags: &[&str]| {
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let resolved = resolve_with(&file, &[], &[], &[]).unwrap();
        grant(&flags, &jobs::jobs(&resolved, &here).unwrap(), &here)
    };
    let above = here.parent().unwrap().display();
    let error = grant_with(&[]).unwrap_err();
    for flag in [
        format!("--allow fs.read={above}/other"),
        "--allow fs.read=/etc/secret".to_owned(),
        format!("--allow fs.write={above}/out"),
        "--allow network.host".to_owned(),
    ] {
        assert!(error.contains(&flag), "{flag} in {error}");
    }
    assert!(!error.contains("host/a.git"), "{error}");
    assert_eq!(grant_with(&["fs=*", "network.host"]), Ok(()));
    assert!(grant_with(&["frob"]).is_err());
}

/// Reads a project and the bake files that go over it.
fn composed(yaml: &str, hcl: &str) -> Definitions {
    let mut definitions = Definitions::default();
    let targets = compose::targets(compose::Files {
        names: vec!["-".into()],
        stdin: Some(yaml.to_owned()),
        here: Path::new("/"),
        environment: [("TOK2", "x"), ("E", "outside"), ("O", "outside")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
    });
    definitions.add_plain(targets.unwrap()).unwrap();
    definitions.add_hcl(hcl).unwrap();
    definitions
}

/// What buildx 0.29.1 prints for this file, but for `ulimits`: it makes `nofile=0:0` of a single number.
#[test]
fn projects_are_printed_as_buildx_prints_them() {
    let yaml = r#"
services:
  web.app:
    image: example/web:1
    depends_on: [db]
    environment: {E: fromenv}
    build:
      context: .
      dockerfile: Dockerfile
      args: {A: "1", B: null, E: null, O: null, L: "$${literal}"}
      tags: [example/web:extra]
      labels: {x: "y"}
      target: t
      no_cache: true
      pull: true
      cache_from: [example/cache, "type=local,src=x"]
      cache_to: ["type=inline"]
      secrets: [tok, {source: tok2, target: t2}]
      ssh: [k=./key]
      platforms: [linux/amd64]
      network: host
      shm_size: 64m
      extra_hosts: ["a=1.2.3.4", "b=::1"]
      additional_contexts: {base: "service:db", other: ./sub}
      entitlements: [network.host]
      ulimits: {nofile: 10, nproc: {soft: 1, hard: 2}}
      privileged: true
      x-bake:
        tags: [ct-addon:foo, "ct-addon:alp"]
        platforms: linux/amd64 linux/arm64
        cache-from: "type=local,src=path/to/cache"
        cache-to: ["type=local,dest=path/to/cache"]
        output: [type=docker]
        secret: ["id=mysecret,src=./secret"]
        ssh: "z=key"
        pull: false
        no-cache: false
        no-cache-filter: [a]
        contexts: {alpine: "docker-image://alpine:3.13", web: "target:db"}
  db: {build: {context: ./sub, dockerfile_inline: "FROM busybox\n"}, profiles: [x]}
  plain: {image: busybox}
  short: {build: "./sub"}
  img: {build: {dockerfile: D2, args: ["X=1", "Y"]}, image: "i:1"}
secrets:
  tok: {file: ./tok}
  tok2: {environment: TOK2}
"#;
    let all = printed(&composed(yaml, ""), &[], &[], &[]);
    assert_eq!(
        all,
        json!({
          "group": {"default": {"targets": ["db", "img", "short", "web_app"]}},
          "target": {
            "db": {
              "context": "sub", "dockerfile": "Dockerfile", "dockerfile-inline": "FROM busybox\n"
            },
            "img": {
              "context": ".", "dockerfile": "D2", "args": {"X": "1"}, "tags": ["i:1"]
            },
            "short": {"context": "sub", "dockerfile": "Dockerfile"},
            "web_app": {
              "context": ".",
              "contexts": {
                "alpine": "docker-image://alpine:3.13", "base": "target:db", "other": "sub",
                "web": "target:db"
              },
              "dockerfile": "Dockerfile",
              "args": {"A": "1", "E": "fromenv", "L": "$${literal}", "O": "outside"},
              "labels": {"x": "y"},
              "tags": ["example/web:extra", "ct-addon:foo", "ct-addon:alp"],
              "cache-from": [
                {"ref": "example/cache", "type": "registry"},
                {"src": "x", "type": "local"},
                {"src": "path/to/cache", "type": "local"}
              ],
              "cache-to": [{"type": "inline"}, {"dest": "path/to/cache", "type": "local"}],
              "target": "t",
              "secret": [
                {"id": "tok", "src": "tok"}, {"id": "tok2", "env": "TOK2"},
                {"id": "mysecret", "src": "./secret"}
              ],
              "ssh": [{"id": "k", "paths": ["key"]}, {"id": "z", "paths": ["key"]}],
              "platforms": ["linux/amd64", "linux/arm64"],
              "output": [{"type": "docker"}],
              "pull": false, "no-cache": false, "network": "host",
              "no-cache-filter": ["a"], "shm-size": "64MiB",
              "ulimits": ["nofile=10:10", "nproc=1:2"],
              "entitlements": ["network.host"],
              "extra-hosts": {"a": "1.2.3.4", "b": "::1"}
            }
          }
        })
    );
}

#[test]
fn bake_files_go_over_projects_and_each_other() {
    let yaml = "
services:
  db: {build: {context: ./sub, args: {A: '1'}, cache_to: ['type=inline'], tags: [one]}}
";
    let hcl = r#"
        target "db" {
          args = { Q = "1" }
          tags = ["two"]
          cache-to = ["type=local,dest=x"]
        }
        target "other" { inherits = ["db"] }
    "#;
    let mut definitions = composed(yaml, hcl);
    definitions
        .add_hcl(r#"target "db" { args = { Q = null, R = "2" } }"#)
        .unwrap();
    let db = &printed(&definitions, &["db"], &[], &[])["target"]["db"];
    assert_eq!(db["args"], json!({"A": "1", "Q": "1", "R": "2"}));
    assert_eq!(db["tags"], json!(["two"]));
    assert_eq!(db["cache-to"], json!([{"dest": "x", "type": "local"}]));
    assert_eq!(db["context"], "sub");
    let other = &printed(&definitions, &["other"], &[], &[])["target"]["other"];
    assert_eq!(other, db);
}

#[test]
fn files_of_any_name_are_told_by_their_text() {
    for (name, text, language) in [
        ("x.yaml", "", Language::Compose),
        ("x.yml", "{}", Language::Compose),
        ("x.json", "services:", Language::Json),
        ("x.hcl", "services:", Language::Hcl),
        ("-", " {\"target\": {}}", Language::Json),
        ("-", "name: x\nservices:\n  a: {}\n", Language::Compose),
        ("-", "target \"a\" {}\n", Language::Hcl),
    ] {
        assert_eq!(Language::of(name, text), language, "{name} {text}");
    }
}

#[test]
fn what_a_project_cannot_mean_is_refused() {
    for (yaml, reason) in [
        ("services:\n  a: {build: {context: ., frob: 1}}\n", "frob"),
        (
            "services:\n  a: {build: {context: ., secrets: [gone]}}\n",
            "secret gone",
        ),
        (
            "services:\n  a: {build: {context: ., x-bake: {pull: 3}}}\n",
            "x-bake: pull",
        ),
        (
            "services:\n  a: {build: {context: ., x-bake: [1]}}\n",
            "no mapping",
        ),
        ("services:\n  a.b: {build: .}\n  a_b: {build: .}\n", "a_b"),
    ] {
        let files = compose::Files {
            names: vec!["-".into()],
            stdin: Some(yaml.to_owned()),
            here: Path::new("/"),
            environment: Default::default(),
        };
        let error = compose::targets(files).unwrap_err();
        assert!(error.contains(reason), "{yaml}: {error}");
    }
}

/// What buildx 0.29.1 makes of these expressions.
#[test]
fn expressions_mean_what_they_mean_to_buildx() {
    let heredoc = "<<EOT\nlist:\n%{ for x in [\"a\",\"b\"] ~}\n  - ${x}\n%{ endfor ~}\n\n  ${~ \"q\" ~}\n\n  end\nEOT";
    let cases = [
        (r###"X == 1 ? "y" : "n""###, r###"n"###),
        (r###"1 == "1" ? "y" : "n""###, r###"n"###),
        (r###"contains(["1"], 1) ? "y" : "n""###, r###"n"###),
        (r###"equal(true, "true") ? "y" : "n""###, r###"n"###),
        (r###"[1,"a"] == [1,"a"] ? "y" : "n""###, r###"y"###),
        (r###"null == null ? "y" : "n""###, r###"y"###),
        (r###"{a=1} == {a=1} ? "y" : "n""###, r###"y"###),
        (r###"equal("a", null) ? "y" : "n""###, r###"n"###),
        (r###"1 == 1.0 ? "y" : "n""###, r###"y"###),
        (r###"notequal("", X) ? "y":"n""###, r###"y"###),
        (r###"join(",", keys({b=1,a=2}))"###, r###"a,b"###),
        (
            r###"join(",", [for k, v in {b="2",a="1"} : "${k}${v}"])"###,
            r###"a1,b2"###,
        ),
        (
            r###"jsonencode({b="<&>", a=[1,null,true]})"###,
            r###"{"a":[1,null,true],"b":"\u003c\u0026\u003e"}"###,
        ),
        (r###"join(",", values({b=1,a=2}))"###, r###"2,1"###),
        (
            r###"jsonencode(merge({z=1},{a=2}))"###,
            r###"{"a":2,"z":1}"###,
        ),
        (
            r###"jsonencode(jsondecode("{\"b\":1,\"a\":{\"d\":1,\"c\":2}}"))"###,
            r###"{"a":{"c":2,"d":1},"b":1}"###,
        ),
        (
            r###"jsonencode(zipmap(["b","a"],[1,2]))"###,
            r###"{"a":2,"b":1}"###,
        ),
        (r###""x ${~ "a" ~} y""###, r###"xay"###),
        (
            r###""%{ for x in ["a","b"] ~} ${x} %{ endfor ~}""###,
            r###"a b "###,
        ),
        (
            r###""x %{ if true ~} yes %{~ else ~} no %{~ endif } z""###,
            r###"x yes z"###,
        ),
        (r###""x\n  ${~ "a" ~}\n\n  y""###, r###"xay"###),
        (r###""x %{~ if false } yes %{ endif ~} z""###, r###"xz"###),
        (r###""${ "a" ~}   ${~ "b" }""###, r###"ab"###),
        (r###"" ${~ "a" ~} ""###, r###"a"###),
        (r###"replace("a+b","/[+]/","$0$0")"###, r###"a+b"###),
        (
            r###"regex_replace("a1b2", "([0-9])", "<$1>")"###,
            r###"a<1>b<2>"###,
        ),
        (
            r###"regex_replace("a1b2", "([a-z])([0-9])", "$2$1x")"###,
            r###"12"###,
        ),
        (r###"0.1+0.2"###, r###"0.3"###),
        (r###"12345678901234567890"###, r###"12345678901234567890"###),
        (r###"1e21"###, r###"1000000000000000000000"###),
        (r###"7/2*2"###, r###"7"###),
        (r###"2.50"###, r###"2.5"###),
        (
            r###"title("a-x b_c d.e 1f 'q")"###,
            r###"A-X B_c D.E 1f 'Q"###,
        ),
        (r###"basename("")"###, r###"."###),
        (r###"dirname("a//b")"###, r###"a"###),
        (r###"basename("/")"###, r###"/"###),
        (r###"dirname("/")"###, r###"/"###),
        (r###"dirname("a/b/")"###, r###"a/b"###),
        (r###"basename("a/b//")"###, r###"b"###),
        (r###"dirname("")"###, r###"."###),
        (r###"dirname("/a")"###, r###"/"###),
        (
            r###"formatdate("YYYY-MM-DD hh:mm:ss ZZZ ZZZZ ZZZZZ Z", "2026-01-02T03:04:05Z")"###,
            r###"2026-01-02 03:04:05 UTC +0000 +00:00 Z"###,
        ),
        (
            r###"formatdate("HH H AA aa m s M D EEE MMM YY h", "2026-01-02T13:04:05Z")"###,
            r###"01 1 PM pm 4 5 1 2 Fri Jan 26 13"###,
        ),
        (
            r###"formatdate("hh:mm Z ZZZ", "2026-01-02T13:04:05+02:00")"###,
            r###"13:04 +02:00 +0200"###,
        ),
        (heredoc, "list:\n  - a\n  - b\n\nq\n  end\n"),
    ];
    for (expression, expected) in cases {
        let text = format!(
            "variable \"X\" {{ default = \"1\" }}\ntarget \"default\" {{\n args = {{\n v = {expression}\n }}\n}}\n"
        );
        let mut definitions = Definitions::default();
        definitions
            .add_hcl(&text)
            .unwrap_or_else(|error| panic!("{expression}: {error}"));
        let args = &printed(&definitions, &[], &[], &[])["target"]["default"]["args"];
        assert_eq!(args["v"], expected, "{expression}");
    }
}

/// What buildx 0.29.1 prints: what a condition left out of a list is not in it, lists of nothing are not shown, and what
/// is printed can be read again.
#[test]
fn what_is_left_out_is_not_there() {
    let file = hcl(r#"
        variable "TAG" { default = "" }
        target "default" {
          context = ""
          tags = ["x:1", notequal("", TAG) ? "x:${TAG}" : "", "x:1"]
          args = { a = "$${x} %%{y}", e = "" }
          dockerfile-inline = "FROM $${x}"
          platforms = [""]
          cache-from = [""]
          cache-to = ["", "type=inline"]
          output = [""]
          secret = [""]
          ssh = [""]
          annotations = ["", "k=$${x}"]
          ulimits = [""]
          attest = [""]
          entitlements = [""]
          no-cache-filter = [""]
          labels = {}
          pull = "true"
        }
    "#);
    let printed_once = printed(&file, &[], &[], &[]);
    assert_eq!(
        printed_once["target"]["default"],
        json!({
            "context": ".", "dockerfile": "Dockerfile", "dockerfile-inline": "FROM $${x}",
            "args": {"a": "$${x} %%{y}", "e": ""}, "tags": ["x:1"], "annotations": ["k=$${x}"],
            "cache-to": [{"type": "inline"}], "pull": true,
        })
    );
    let mut again = Definitions::default();
    again.add_json(&printed_once.to_string()).unwrap();
    assert_eq!(printed(&again, &[], &[], &[]), printed_once);
}

#[test]
fn an_override_is_for_a_target_that_is_there() {
    let file = hcl("target \"web\" { args = { A = \"1\" } }");
    for flag in ["nope.tags=a", "wbe*.platform=linux/arm64"] {
        let error = resolve_with(&file, &["web"], &[flag], &[]).unwrap_err();
        assert!(
            error.contains("could not find any target matching"),
            "{error}"
        );
    }
    // An argument that is not in the environment either keeps its value.
    let set = ["web.args.A_NAME_THAT_IS_NOT_SET", "*.pull=true"];
    let shown = printed(&file, &["web"], &set, &[]);
    assert_eq!(shown["target"]["web"]["args"], json!({"A": "1"}));
}

#[test]
fn addresses_of_definitions_are_refused_with_what_to_do() {
    for url in ["https://github.com/docker/buildx.git", "git@host:a/b.git"] {
        let error = check_local(&[url.to_owned(), "web".to_owned()]).unwrap_err();
        assert!(error.contains(url) && error.contains("fetch"), "{error}");
        assert!(read_file(url).unwrap_err().contains("not supported"));
    }
    assert_eq!(check_local(&["web".to_owned()]), Ok(()));
    assert_eq!(check_local(&[]), Ok(()));
}
