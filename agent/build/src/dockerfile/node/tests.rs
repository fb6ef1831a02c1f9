use std::path::{Path, PathBuf};

use super::*;
use crate::quote::quote;

/// The tree as BuildKit's test data prints it.
fn dump(nodes: &[Node]) -> String {
    let lines: Vec<String> = nodes
        .iter()
        .map(|node| format!("({})", dump_node(node)))
        .collect();
    lines.join("\n")
}

fn dump_node(node: &Node) -> String {
    let mut out = node.keyword.to_lowercase();
    if !node.flags.is_empty() {
        let flags: Vec<String> = node.flags.iter().map(|flag| quote(flag)).collect();
        out.push_str(&format!(" [{}]", flags.join(" ")));
    }
    if let Some(trigger) = &node.trigger {
        out.push_str(&format!(" ({})", dump_node(trigger)));
    }
    for value in &node.arguments.values {
        out.push(' ');
        out.push_str(&quote(value));
    }
    out.trim().to_string()
}

/// Directories of test data, when this machine has them.
fn shared(name: &str) -> Vec<PathBuf> {
    let dir = Path::new(crate::SHARED_TABLES).join("parser").join(name);
    match std::fs::read_dir(&dir) {
        Ok(entries) => {
            let paths = entries.map(|entry| entry.expect("readable").path());
            let mut paths: Vec<PathBuf> = paths.collect();
            paths.sort();
            paths
        }
        Err(error) => {
            eprintln!("skipped: {}: {error}", dir.display());
            Vec::new()
        }
    }
}

#[test]
fn trees_are_those_of_the_shared_files() {
    for dir in shared("testfiles") {
        let name = dir.display();
        let text = std::fs::read(dir.join("Dockerfile")).expect("readable");
        let expected = std::fs::read_to_string(dir.join("result")).expect("readable");
        let tree = parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(dump(&tree.nodes), expected.trim_end(), "{name}");
    }
}

#[test]
fn shared_files_that_are_wrong_are_refused() {
    for dir in shared("testfiles-negative") {
        let text = std::fs::read(dir.join("Dockerfile")).expect("readable");
        assert!(parse(&text).is_err(), "{}", dir.display());
    }
}

fn tree(text: &str) -> Tree {
    parse(text.as_bytes()).expect("valid")
}

#[test]
fn lines_span_continuations_and_heredocs() {
    let text = "\n# c\nFROM a\n\nRUN x \\\n  # inside\n  y\nRUN <<A <<B\n1\nA\n2\nB\nCMD z";
    let tree = tree(text);
    let lines: Vec<(u32, u32)> = tree
        .nodes
        .iter()
        .map(|n| (n.lines.first, n.lines.last))
        .collect();
    assert_eq!(lines, [(3, 3), (5, 7), (8, 12), (13, 13)]);
    assert_eq!(tree.nodes[1].original, "RUN x   y");
    assert_eq!(tree.nodes[0].comments, ["c"]);
}

#[test]
fn an_empty_continuation_line_is_noticed() {
    let text = "FROM a\nRUN x \\\n\n  y \\\n\n  z\nRUN v \\\n# comment\n  w\nRUN u \\\n   \n";
    let tree = tree(text);
    let lines: Vec<u32> = tree.empty_continuations.iter().map(|l| l.first).collect();
    assert_eq!(lines, [6, 11]);
    assert_eq!(tree.nodes[1].original, "RUN x   y   z");
}

#[test]
fn heredocs_keep_their_bodies() {
    let table = [
        ("RUN <<EMPTY\nEMPTY\n", "EMPTY|true|false|"),
        ("RUN 3<<EMPTY\nEMPTY\n", "EMPTY|true|false|"),
        ("RUN \"<<NO\"\n", ""),
        ("USER <<INVALID\n", ""),
        ("RUN [\"<<EOF\"]\n", ""),
        (
            "RUN <<IN\n\tfoo\n\tbar\nIN\n",
            "IN|true|false|\tfoo\n\tbar\n",
        ),
        ("RUN <<-IN\n\tfoo\n\t\tIN\n", "IN|true|true|\tfoo\n"),
        (
            "RUN <<-'NO'\n\tdon't $X\nNO\n",
            "NO|false|true|\tdon't $X\n",
        ),
        (
            "RUN <<C\n# not a comment\nx \\\nC\n",
            "C|true|false|# not a comment\nx \\\n",
        ),
        (
            "COPY <<X <<Y /d\nY\nX\nX\nY\n",
            "X|true|false|Y\n;Y|true|false|X\n",
        ),
        (
            "COPY <<file.txt /d\nhi\nfile.txt",
            "file.txt|true|false|hi\n",
        ),
        ("RUN <<eo'f'\nx\neof\n", "eof|false|false|x\n"),
        ("RUN <<eo\\'f\nx\neo'f\n", "eo'f|true|false|x\n"),
        ("RUN <<'e'o\\'f\nx\neo'f\n", "eo'f|false|false|x\n"),
        ("RUN <<'one two'\nx\none two\n", "one two|false|false|x\n"),
        ("RUN <<$EOF\n$EOF\n", "$EOF|true|false|"),
        ("RUN <<  EOF  > foo\nEOF\n", "EOF|true|false|"),
        ("ONBUILD RUN <<EOF\nx\nEOF\n", "EOF|true|false|x\n"),
        ("RUN <<EOF\r\nx\r\nEOF\r\n", "EOF|true|false|x\r\n"),
    ];
    for (text, expected) in table {
        let tree = tree(text);
        let found: Vec<String> = tree.nodes[0]
            .heredocs
            .iter()
            .map(|h| format!("{}|{}|{}|{}", h.name, h.expand, h.chomp, h.content))
            .collect();
        assert_eq!(found.join(";"), expected, "{text}");
        assert_eq!(tree.nodes.len(), 1, "{text}");
    }
}

#[test]
fn escapes_and_their_directive() {
    let tree = tree("# escape=`\nFROM a\nRUN x `\n  y\\\nRUN z ``\nRUN w");
    let originals: Vec<&str> = tree.nodes.iter().map(|n| n.original.as_str()).collect();
    assert_eq!(originals, ["FROM a", "RUN x   y\\", "RUN z ``", "RUN w"]);
    // Not at the top: a comment.
    let tree = parse(b"# x\n# escape=`\nFROM a \\\n b").expect("valid");
    assert_eq!(tree.escape, '\\');
    assert_eq!(tree.nodes[0].comments, ["x", "escape=`"]);
}

#[test]
fn comments_above_end_at_an_empty_one() {
    let tree =
        tree("# syntax=docker/dockerfile:1\n# one\n#\n# two\n\n#three \nFROM a\n# \u{e9}\nRUN b");
    assert_eq!(tree.nodes[0].comments, ["two", "three"]);
    assert_eq!(tree.nodes[1].comments, ["é"]);
}

/// First and last line.
type Place = Option<(u32, u32)>;

#[test]
fn errors_name_the_line() {
    let long = format!("FROM a\nRUN {}\n", "x".repeat(MAX_LINE_BYTES));
    let many = "RUN x\n".repeat(MAX_INSTRUCTIONS + 1);
    let table: [(&[u8], &str, Place); 10] = [
        (b"# only\n", "file with no instructions", None),
        (
            b"# escape=x\nFROM a",
            "invalid escape token 'x' does not match ` or \\",
            Some((1, 1)),
        ),
        (
            b"#escape=`\n#escape=`\nFROM a",
            "only one escape parser directive can be used",
            Some((2, 2)),
        ),
        (
            b"FROM a\nRUN <<E\nx\n",
            "unterminated heredoc",
            Some((2, 3)),
        ),
        (
            b"FROM a\nENV x\n",
            "ENV must have two arguments",
            Some((2, 2)),
        ),
        (
            b"FROM a\nENV a=b \\\n c\n",
            "Syntax error - can't find = in \"c\". Must be of the form: name=value",
            Some((2, 3)),
        ),
        (
            b"FROM a\nCMD [\"a\", 1]\n",
            "when using JSON array syntax, arrays must be comprised of strings only",
            Some((2, 2)),
        ),
        (
            b"FROM a\nRUN \xff\n",
            "line 2 is not valid UTF-8",
            Some((2, 2)),
        ),
        (
            long.as_bytes(),
            "dockerfile line greater than max allowed size of 65535",
            Some((2, 2)),
        ),
        (
            many.as_bytes(),
            "dockerfile has more than 20000 instructions",
            Some((20_001, 20_001)),
        ),
    ];
    for (text, message, lines) in table {
        let error = parse(text).err().expect(message);
        let place = error.lines.map(|l| (l.first, l.last));
        assert_eq!((error.message.as_str(), place), (message, lines));
    }
    // Bytes that are not text may be in comments.
    assert!(parse(b"# \xff\nFROM a\n#\xe9\nRUN b \\\n# \xff\n c\n").is_ok());
}
