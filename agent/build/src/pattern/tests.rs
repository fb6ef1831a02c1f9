use proptest::prelude::*;
use regex::Regex;

use super::*;

/// Cases of Go's `path/filepath/match_test.go`; `None` is an error.
const GO: &[(&str, &str, Option<bool>)] = &[
    ("abc", "abc", Some(true)),
    ("*", "abc", Some(true)),
    ("*c", "abc", Some(true)),
    ("a*", "a", Some(true)),
    ("a*", "abc", Some(true)),
    ("a*", "ab/c", Some(false)),
    ("a*/b", "abc/b", Some(true)),
    ("a*/b", "a/c/b", Some(false)),
    ("a*b*c*d*e*/f", "axbxcxdxe/f", Some(true)),
    ("a*b*c*d*e*/f", "axbxcxdxexxx/f", Some(true)),
    ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", Some(false)),
    ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", Some(false)),
    ("a*b?c*x", "abxbbxdbxebxczzx", Some(true)),
    ("a*b?c*x", "abxbbxdbxebxczzy", Some(false)),
    ("ab[c]", "abc", Some(true)),
    ("ab[b-d]", "abc", Some(true)),
    ("ab[e-g]", "abc", Some(false)),
    ("ab[^c]", "abc", Some(false)),
    ("ab[^b-d]", "abc", Some(false)),
    ("ab[^e-g]", "abc", Some(true)),
    ("a\\*b", "a*b", Some(true)),
    ("a\\*b", "ab", Some(false)),
    ("a?b", "a☺b", Some(true)),
    ("a[^a]b", "a☺b", Some(true)),
    ("a???b", "a☺b", Some(false)),
    ("a[^a][^a][^a]b", "a☺b", Some(false)),
    ("[a-ζ]*", "α", Some(true)),
    ("*[a-ζ]", "A", Some(false)),
    ("a?b", "a/b", Some(false)),
    ("a*b", "a/b", Some(false)),
    ("[\\]a]", "]", Some(true)),
    ("[\\-]", "-", Some(true)),
    ("[x\\-]", "x", Some(true)),
    ("[x\\-]", "-", Some(true)),
    ("[x\\-]", "z", Some(false)),
    ("[\\-x]", "x", Some(true)),
    ("[\\-x]", "a", Some(false)),
    ("[]a]", "]", None),
    ("[-]", "-", None),
    ("[x-]", "x", None),
    ("[-x]", "x", None),
    ("\\", "a", None),
    ("[a-b-c]", "a", None),
    ("[", "a", None),
    ("[^", "a", None),
    ("[^bc", "a", None),
    ("a[", "a", None),
    ("a[", "ab", None),
    ("a[", "x", None),
    ("a/b[", "x", None),
    ("*x", "xxx", Some(true)),
];

#[test]
fn globs_match_as_in_go() {
    for &(pattern, name, expected) in GO {
        assert_eq!(glob(pattern, name).ok(), expected, "{pattern} {name}");
    }
}

/// Cases of moby/patternmatcher: pattern, path, whether it or a parent matches.
const MOBY: &[(&str, &str, bool)] = &[
    ("**", "file", true),
    ("**", "file/", true),
    ("**/", "file", true),
    ("**", "/", true),
    ("**", "dir/file", true),
    ("**/", "dir/file", true),
    ("**/**", "dir/file", true),
    ("dir/**", "dir/file", true),
    ("dir/**", "dir/dir2/file", true),
    ("**/dir", "dir", true),
    ("**/dir", "dir/file", true),
    ("**/dir2/*", "dir/dir2/file", true),
    ("**/dir2/**", "dir/dir2/dir2/file", true),
    ("**file", "file", true),
    ("**file", "dir/file", true),
    ("**/file", "dir/file", true),
    ("**file", "dir/dir/file", true),
    ("**/file*", "dir/dir/file", true),
    ("**/file*", "dir/dir/file.txt", true),
    ("**/file*txt", "dir/dir/file.txt", true),
    ("**/file*.txt", "dir/dir/file.txt", true),
    ("**/file*.txt*", "dir/dir/file.txt", true),
    ("**/**/*.txt", "dir/dir/file.txt", true),
    ("**/**/*.txt2", "dir/dir/file.txt", false),
    ("**/*.txt", "file.txt", true),
    ("**/**/*.txt", "file.txt", true),
    ("a**/*.txt", "a/file.txt", true),
    ("a**/*.txt", "a/dir/file.txt", true),
    ("a**/*.txt", "a/dir/dir/file.txt", true),
    ("a/*.txt", "a/dir/file.txt", false),
    ("a/*.txt", "a/file.txt", true),
    ("a/*.txt**", "a/file.txt", true),
    ("a[b-d]e", "ae", false),
    ("a[b-d]e", "ace", true),
    ("a[b-d]e", "aae", false),
    ("a[^b-d]e", "aze", true),
    (".*", ".foo", true),
    (".*", "foo", false),
    ("abc.def", "abcdef", false),
    ("abc.def", "abc.def", true),
    ("abc.def", "abcZdef", false),
    ("abc?def", "abcZdef", true),
    ("abc?def", "abcdef", false),
    ("a\\\\", "a\\", true),
    ("**/foo/bar", "foo/bar", true),
    ("**/foo/bar", "dir/foo/bar", true),
    ("abc/**", "abc", false),
    ("abc/**", "abc/def", true),
    ("abc/**", "abc/def/ghi", true),
    ("**/.foo", ".foo", true),
    ("**/.foo", "bar.foo", false),
    ("a(b)c/def", "a(b)c/def", true),
    ("a(b)c/def", "a(b)c/xyz", false),
    ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
    (
        "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
        "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
        true,
    ),
    (
        "dist/*.whl",
        "dist/proxy.py-2.4.0rc3.dev36+g08acad9.whl",
        true,
    ),
];

/// The same for lists.
const LISTS: &[(&[&str], &str, bool)] = &[
    (&["**", "!util/docker/web"], "util/docker/web/foo", false),
    (
        &["**", "!util/docker/web", "util/docker/web/foo"],
        "util/docker/web/foo",
        true,
    ),
    (
        &[
            "**",
            "!dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
        ],
        "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
        false,
    ),
    (
        &["**", "!dist/*.whl"],
        "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
        false,
    ),
    (&["docs", "!docs/README.md"], "docs/README.md", false),
    (&["docs/", "!docs/README.md"], "docs/x", true),
    (&["!docs", "docs"], "docs/x", true),
    (
        &["*.md", "!README.md", "README-secret.md"],
        "README-secret.md",
        true,
    ),
    (&["*.md", "!README*.md"], "README-secret.md", false),
    (&[], "x", false),
];

#[test]
fn patterns_match_as_in_moby() {
    for &(pattern, path, expected) in MOBY {
        let patterns = Patterns::new([pattern]).expect(pattern);
        assert_eq!(patterns.matches(path), expected, "{pattern} {path}");
    }
    for &(list, path, expected) in LISTS {
        let patterns = Patterns::new(list).expect("valid");
        assert_eq!(patterns.matches(path), expected, "{list:?} {path}");
    }
}

#[test]
fn a_directory_is_skipped_only_when_nothing_below_comes_back() {
    let table: &[(&[&str], &str, bool)] = &[
        (&["docs"], "docs", true),
        (&["docs"], "docs/deep", true),
        (&["docs"], "src", false),
        (&["docs/*"], "docs", false),
        (&["docs", "!docs/README.md"], "docs", false),
        (&["docs", "!docs/README.md"], "docs/img", true),
        (&["docs", "!docs/*/x"], "docs/img", false),
        (&["docs", "!docs/*/x"], "docs/img/big", true),
        (&["docs", "!other"], "docs", true),
        (&["docs", "!**/keep"], "docs", false),
        (&["!docs/README.md", "docs"], "docs", true),
        (&["*", "!src/**"], "target", true),
        (&["*", "!src/**"], "src", false),
        (&["*", "!s**"], "src", false),
        (&["*", "!src**"], "target", true),
        (&["*", "!src/a**"], "src", false),
        (&["*", "!docsx"], "docs", true),
        (&["**", "!a/b/c"], "a/b", false),
        (&["**", "!a/b/c", "a/b"], "a/b", true),
        (&["**"], ".", false),
    ];
    for &(list, dir, expected) in table {
        let patterns = Patterns::new(list).expect("valid");
        assert_eq!(patterns.prunes(dir), expected, "{list:?} {dir}");
    }
}

#[test]
fn a_list_too_long_to_carry_is_asked_about_whole_paths() {
    let lines: Vec<String> = (0..5000).map(|n| format!("dir{n}/*.tmp")).collect();
    let patterns = Patterns::new(lines).expect("valid");
    let below = patterns.descend(&patterns.descent(), "dir4999");
    assert!(patterns.matches_in(&below, "x.tmp"));
    assert!(!patterns.matches_in(&below, "x.rs"));
}

#[test]
fn paths_are_cleaned_as_in_go() {
    for (path, expected) in [
        ("", "."),
        ("/", "/"),
        ("//a//b/", "/a/b"),
        ("./a/./b", "a/b"),
        ("a/../..", ".."),
        ("../../a", "../../a"),
        ("/../a", "/a"),
        ("a/b/../../c", "c"),
        ("a/..", "."),
    ] {
        assert_eq!(clean(path), expected, "{path}");
    }
}

/// moby's translation to a regular expression, written down naively: the oracle.
fn as_regex(pattern: &str) -> Regex {
    let mut out = String::from("^");
    let mut chars = pattern.chars().peekable();
    let mut first = true;
    let mut literal_since_stars = false;
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                if chars.peek().is_none() {
                    out.push_str(".*");
                } else {
                    out.push_str("(.*/)?");
                }
                literal_since_stars |= first;
            }
            '*' => out.push_str("[^/]*"),
            '?' => out.push_str("[^/]"),
            c => out.push_str(&regex::escape(&c.to_string())),
        }
        first = false;
    }
    // "**text" is compared from the end, so that "**b" takes "ab".
    let rest = pattern.strip_prefix("**").unwrap_or_default();
    if literal_since_stars && !rest.contains(['*', '?']) && !rest.starts_with('/') {
        out = format!("{}$", regex::escape(rest));
    } else {
        out.push('$');
    }
    Regex::new(&out).expect("valid")
}

fn naive(patterns: &[String], path: &str) -> bool {
    let names: Vec<&str> = path.split('/').collect();
    let mut matched = false;
    for pattern in patterns {
        let cleaned = clean(pattern);
        let (exclusion, text) = match cleaned.strip_prefix('!') {
            Some(text) => (true, text),
            None => (false, cleaned.as_str()),
        };
        let regex = as_regex(text);
        if (1..=names.len()).any(|n| regex.is_match(&names[..n].join("/"))) {
            matched = !exclusion;
        }
    }
    matched
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn lists_agree_with_the_naive_oracle(
        patterns in prop::collection::vec("!?[ab]?(\\*\\*|\\*|\\?|a|b|/){1,6}", 0..5),
        path in "[ab]{1,2}(/[ab]{1,2}){0,3}",
    ) {
        let patterns: Vec<String> = patterns.into_iter().filter(|p| clean(p) != "!").collect();
        // Three stars in a row have no meaning that both sides need to share.
        prop_assume!(!patterns.iter().any(|p| p.contains("***")));
        let compiled = Patterns::new(&patterns).expect("valid");
        prop_assert_eq!(compiled.matches(&path), naive(&patterns, &path));
    }

    #[test]
    fn nothing_below_a_skipped_directory_comes_back(
        patterns in prop::collection::vec("!?[ab]?(\\*\\*|\\*|\\?|a|b|/){1,6}", 1..5),
        dir in "[ab]{1,2}(/[ab]{1,2}){0,1}",
        below in "[ab]{1,2}(/[ab]{1,2}){0,2}",
    ) {
        let patterns: Vec<String> = patterns.into_iter().filter(|p| clean(p) != "!").collect();
        let compiled = Patterns::new(&patterns).expect("valid");
        if compiled.prunes(&dir) {
            let inner = format!("{dir}/{below}");
            prop_assert!(compiled.matches(&dir), "{dir}");
            prop_assert!(compiled.matches(&inner), "{inner}");
        }
    }

    #[test]
    fn a_walk_down_finds_what_whole_paths_find(
        patterns in prop::collection::vec("!?[ab]?(\\*\\*|\\*|\\?|a|b|/|\\[ab\\]){1,40}", 0..8),
        names in prop::collection::vec("[ab]{1,3}|☺", 1..5),
    ) {
        let patterns = patterns.iter().filter(|p| clean(p) != "!");
        let compiled = Patterns::new(patterns).expect("valid");
        let mut above = compiled.descent();
        let mut path = String::new();
        for name in &names {
            path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            prop_assert_eq!(compiled.matches_in(&above, name), compiled.matches(&path), "{}", path);
            if compiled.matches(&path) {
                prop_assert_eq!(compiled.prunes_in(&above, name), compiled.prunes(&path), "{}", path);
            }
            above = compiled.descend(&above, name);
        }
    }

    #[test]
    fn any_text_is_a_pattern_or_refused(pattern in "\\PC*|[a\\[\\]^*?\\\\/!-]*", path in "\\PC*") {
        let _ = glob(&pattern, &path);
        if let Ok(patterns) = Patterns::new([&pattern]) {
            let _ = (patterns.matches(&path), patterns.prunes(&path));
        }
    }
}
