//! Every expected text was checked against Go's text/template or docker's CLI.

use super::*;

fn data() -> Value {
    let json = serde_json::json!({
        "Id": "abc", "Name": "/web", "Count": 3, "Ratio": 0.5, "Big": 1e21, "On": true, "Off": false, "None": null,
        "Labels": {"b": "2", "a": "1", "com.x": "y"},
        "List": ["x", "y", "z"],
        "Empty": [],
        "Absent": {"Cmd": null, "Volumes": null},
        "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "81/tcp": null},
        "State": {"Running": true, "Health": {"Status": "healthy"}},
        "Html": "<a & b>"
    });
    Value::from(&json)
}

fn render(template: &str) -> Result<String, String> {
    Template::parse(template)
        .and_then(|t| t.render(&data()))
        .map_err(|error| error.to_string())
}

#[test]
fn templates_render_as_in_go() {
    for (template, expected) in [
        ("plain", "plain"),
        ("{{.Name}}", "/web"),
        ("{{.ID}}", "abc"),
        (
            "{{.State.Health.Status}} {{ .State.Running }}",
            "healthy true",
        ),
        ("{{.None}}", "<nil>"),
        (
            "{{.Absent.Health}} {{if .Absent.Health}}y{{else}}n{{end}} {{.Absent.Tmpfs}} {{.Absent.StopSignal}}|",
            "<nil> n map[] |",
        ),
        (
            "{{.Absent.Cmd}} {{.Absent.Volumes}} {{len .Absent.Cmd}} {{json .Absent.Cmd}}",
            "[] map[] 0 null",
        ),
        ("{{.Labels}} {{.List}}", "map[a:1 b:2 com.x:y] [x y z]"),
        (
            "{{.Ports}}",
            "map[80/tcp:[map[HostIp:0.0.0.0 HostPort:8080]] 81/tcp:<nil>]",
        ),
        ("{{.Ratio}} {{.Big}}", "0.5 1e+21"),
        ("{{json .Labels}}", r#"{"b":"2","a":"1","com.x":"y"}"#),
        ("{{json .Html}}", r#""<a & b>""#),
        ("{{.Name | upper | json}}", r#""/WEB""#),
        (
            r#"{{index .Labels "com.x"}}{{index .Labels "none"}}|{{index .List 1}}"#,
            "y|y",
        ),
        (r#"{{(index (index .Ports "80/tcp") 0).HostPort}}"#, "8080"),
        (
            r#"{{join .List ", "}} {{len .List}} {{slice .Name 1 3}} {{slice .List 1}}"#,
            "x, y, z 3 we [y z]",
        ),
        (
            r#"{{range $i, $e := .List}}{{if $i}},{{end}}{{$i}}={{$e}}{{end}}"#,
            "0=x,1=y,2=z",
        ),
        (
            "{{range $k, $v := .Labels}}{{$k}}:{{$v}} {{end}}",
            "a:1 b:2 com.x:y ",
        ),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        (
            r#"{{range .List}}{{if eq . "y"}}{{continue}}{{end}}{{.}}{{end}}"#,
            "xz",
        ),
        (
            r#"{{range .List}}{{if eq . "y"}}{{break}}{{end}}{{.}}{{end}}"#,
            "x",
        ),
        ("{{if .Off}}a{{else if .On}}b{{else}}c{{end}}", "b"),
        (
            "{{with .State.Health}}{{.Status}}{{$.Name}}{{end}}{{with .None}}x{{else}}y{{end}}",
            "healthy/weby",
        ),
        (
            r#"{{define "T"}}[{{.}}]{{end}}{{range .List}}{{template "T" .}}{{end}}"#,
            "[x][y][z]",
        ),
        (r#"{{block "B" .Count}}<{{.}}>{{end}}"#, "<3>"),
        ("{{$x := .Count}}{{$x = 5}}{{$x}}", "5"),
        ("{{if and .On (gt .Count 2) (not .Off)}}yes{{end}}", "yes"),
        ("{{or .None .Name}} {{and .On .Name}}", "/web /web"),
        (
            r#"{{eq .Name "a" "/web"}} {{ne 1 2}} {{lt 1 2}} {{ge 1.5 1}} {{le "a" "b"}}"#,
            "true true true true true",
        ),
        ("a {{- /* comment */ -}} b", "ab"),
        ("a\n  {{- .Name -}}\n  b", "a/webb"),
        (
            "{{`raw \"string\"`}} {{\"tab\\t\"}}|{{'a'}}",
            "raw \"string\" tab\t|97",
        ),
        (
            r#"{{printf "%s=%d|%5s|%-5s|%05d|%q|%.2f|%v|%t|%x|%%" .Name .Count "ab" "cd" 42 "q" .Ratio .List .On 255}}"#,
            "/web=3|   ab|cd   |00042|\"q\"|0.50|[x y z]|true|ff|%",
        ),
        (r#"{{printf "%d %s" "x"}}"#, "%!d(string=x) %!s(MISSING)"),
        (
            "{{print 1 2}}{{print \"a\" \"b\"}}{{println .Name 1}}",
            "1 2ab/web 1\n",
        ),
        (
            r#"{{title "hello world"}} {{lower "ABC"}} {{split "a,b" ","}} {{truncate "abcdef" 3}}|{{pad "x" 1 2}}|"#,
            "Hello World abc [a b] abc| x  |",
        ),
    ] {
        assert_eq!(render(template).as_deref(), Ok(expected), "{template}");
    }
}

#[test]
fn errors_say_where_and_what() {
    for (template, expected) in [
        (
            "{{.Nope}}",
            "character 1: map has no entry for key \"Nope\"",
        ),
        (
            "ab{{.Name.X}}",
            "character 3: can't evaluate field X in type string",
        ),
        ("{{", "character 1: unclosed action"),
        ("{{if .On}}", "no {{end}} for this action"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{nofunc 1}}", "error calling nofunc: function not defined"),
        ("{{upper 1}}", "error calling upper: wrong arguments (int)"),
        ("{{index .List 9}}", "index out of range: 9"),
        ("{{$y}}", "undefined variable $y"),
        ("{{\"abc}}", "unclosed action"),
        (
            "{{lt 1 \"a\"}}",
            "incompatible types for comparison: int and string",
        ),
        ("{{template \"none\"}}", "template \"none\" not defined"),
        (
            "{{define \"T\"}}{{template \"T\"}}{{end}}{{template \"T\"}}",
            "too deeply",
        ),
        ("{{range .Name}}{{end}}", "range can't iterate over string"),
    ] {
        let message = render(template).unwrap_err();
        assert!(message.contains(expected), "{template}: {message}");
    }
    let deep = format!("{{{{{}1{}}}}}", "(".repeat(500), ")".repeat(500));
    assert!(render(&deep).unwrap_err().contains("too deeply"));
}

#[test]
fn rows_have_fields_labels_and_sorted_json() {
    let labels = [("a".to_owned(), "1".to_owned())].into_iter().collect();
    let row = Value::from(
        Row::new()
            .with("Names", "web")
            .with("ID", "abc")
            .labels(labels),
    );
    let render = |text: &str| {
        Template::parse(text)
            .unwrap()
            .render(&row)
            .map_err(|error| error.to_string())
    };
    assert_eq!(
        render(r#"{{.Names}} {{.Label "a"}}{{.Label "b"}}"#).unwrap(),
        "web 1"
    );
    assert_eq!(
        render("{{json .}}").unwrap(),
        r#"{"ID":"abc","Names":"web"}"#
    );
    assert_eq!(
        render("{{.Foo}}").unwrap_err(),
        "template error at character 1: can't evaluate field Foo: there are ID, Names"
    );
}

#[test]
fn headers_are_not_changed_by_functions_of_values() {
    let row = Value::from(Row::new().with("ID", "CONTAINER ID"));
    let template =
        Template::parse(r#"{{.ID | lower}}{{json .ID}}{{if .ID}}{{upper .ID}}{{end}}"#).unwrap();
    assert_eq!(
        template.render_header(&row).unwrap(),
        "CONTAINER IDCONTAINER IDCONTAINER ID"
    );
}
