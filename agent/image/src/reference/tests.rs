//! The cases of `distribution/reference` (`reference_test.go`, `normalize_test.go`) and properties.

use proptest::prelude::*;

use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn familiar_names_are_normalised() {
    for (typed, full, familiar) in [
        ("busybox", "docker.io/library/busybox", "busybox"),
        (
            "busybox:1.36",
            "docker.io/library/busybox:1.36",
            "busybox:1.36",
        ),
        ("library/busybox", "docker.io/library/busybox", "busybox"),
        ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
        (
            "index.docker.io/busybox",
            "docker.io/library/busybox",
            "busybox",
        ),
        (
            "index.docker.io/library/busybox:x",
            "docker.io/library/busybox:x",
            "busybox:x",
        ),
        ("me/app", "docker.io/me/app", "me/app"),
        (
            "me/library/app",
            "docker.io/me/library/app",
            "me/library/app",
        ),
        ("library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("localhost/app", "localhost/app", "localhost/app"),
        (
            "localhost:5000/app:v1",
            "localhost:5000/app:v1",
            "localhost:5000/app:v1",
        ),
        (
            "localhost:5000",
            "docker.io/library/localhost:5000",
            "localhost:5000",
        ),
        (
            "example.com/a/b_c/d--e.f",
            "example.com/a/b_c/d--e.f",
            "example.com/a/b_c/d--e.f",
        ),
        (
            "[2001:db8::1]:5000/repo",
            "[2001:db8::1]:5000/repo",
            "[2001:db8::1]:5000/repo",
        ),
        ("Foo/bar", "Foo/bar", "Foo/bar"),
        ("a__b", "docker.io/library/a__b", "a__b"),
    ] {
        let reference = Reference::parse(typed).unwrap_or_else(|e| panic!("{typed}: {e}"));
        assert_eq!(reference.to_string(), full, "{typed}");
        assert_eq!(reference.familiar(), familiar, "{typed}");
        assert_eq!(Reference::parse(full).as_ref(), Ok(&reference), "{full}");
        assert_eq!(
            Reference::parse(familiar).as_ref(),
            Ok(&reference),
            "{familiar}"
        );
    }
}

#[test]
fn malformed_names_get_the_texts_docker_prints() {
    let long = "a/".repeat(128) + "a";
    let long_tag = format!("a:{}", "t".repeat(129));
    for (typed, message) in [
        ("", "invalid reference format"),
        (":tag", "invalid reference format"),
        ("a:", "invalid reference format"),
        ("a:b:c", "invalid reference format"),
        ("a@", "invalid reference format"),
        ("a@sha256:abc", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a-", "invalid reference format"),
        ("a..b", "invalid reference format"),
        ("a._b", "invalid reference format"),
        ("a___b", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("/a", "invalid reference format"),
        ("a/", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("../../etc/passwd", "invalid reference format"),
        ("exa_mple.com/a", "invalid reference format"),
        ("example.com:/a", "invalid reference format"),
        ("[::1/a", "invalid reference format"),
        ("[fe80::1%eth0]:5000/a", "invalid reference format"),
        ("caf\u{e9}", "invalid reference format"),
        (&long_tag, "invalid reference format"),
        (
            "Busybox",
            "invalid reference format: repository name (library/Busybox) must be lowercase",
        ),
        (
            "me/App:1",
            "invalid reference format: repository name (me/App) must be lowercase",
        ),
        (
            &long,
            "repository name must not be more than 255 characters",
        ),
    ] {
        let error = Reference::parse(typed).expect_err(typed);
        assert_eq!(error.to_string(), message, "{typed}");
    }
    assert_eq!(
        Reference::parse(HEX).expect_err("an id").to_string(),
        format!("invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings")
    );
    assert_eq!(
        Reference::parse(&format!("a@sha512:{HEX}"))
            .expect_err("sha512")
            .to_string(),
        "unsupported digest algorithm"
    );
    assert_eq!(
        Reference::parse(&format!("a@sha256:{HEX}00"))
            .expect_err("66 digits")
            .to_string(),
        "invalid checksum digest format"
    );
}

#[test]
fn tag_and_digest_are_told_apart() {
    let reference = Reference::parse(&format!("me/app:1.0@sha256:{HEX}")).unwrap();
    assert_eq!(reference.tag(), Some("1.0"));
    assert_eq!(reference.digest().map(Digest::hex).as_deref(), Some(HEX));
    assert_eq!(reference.clone().with_default_tag(), reference);
    assert_eq!(reference.name_only().to_string(), "docker.io/me/app");
    assert_eq!(
        reference.name_only().with_default_tag().familiar(),
        "me/app:latest"
    );
    assert_eq!(reference.with_tag("2").unwrap().familiar(), "me/app:2");
    assert_eq!(reference.with_tag("a/b"), Err(ReferenceError::Tag));
}

proptest! {
    /// Whatever is accepted prints in two forms that both parse back to the same value.
    #[test]
    fn accepted_text_round_trips(text in "[a-zA-Z0-9._:/@\\[\\]-]{0,40}") {
        if let Ok(reference) = Reference::parse(&text) {
            prop_assert_eq!(Reference::parse(&reference.to_string()), Ok(reference.clone()));
            if reference.domain() == DEFAULT_DOMAIN {
                prop_assert_eq!(Reference::parse(&reference.familiar()), Ok(reference));
            }
        }
    }

    /// Built from the grammar, it is accepted.
    #[test]
    fn the_grammar_is_accepted(
        domain in "([a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?\\.){1,3}[a-z]{2,5}(:[0-9]{1,5})?",
        path in "[a-z0-9]{1,5}((\\.|_|__|-{1,3})[a-z0-9]{1,5}){0,3}(/[a-z0-9]{1,5}){0,3}",
        tag in proptest::option::of("[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,20}"),
    ) {
        let mut text = format!("{domain}/{path}");
        if let Some(tag) = &tag {
            text.push(':');
            text.push_str(tag);
        }
        prop_assume!(domain != DEFAULT_DOMAIN && domain != LEGACY_DEFAULT_DOMAIN);
        let reference = Reference::parse(&text).unwrap();
        prop_assert_eq!(reference.domain(), domain);
        prop_assert_eq!(reference.path(), path);
        prop_assert_eq!(reference.tag(), tag.as_deref());
        prop_assert_eq!(reference.to_string(), text);
    }

    /// No text makes the parser panic, and nothing accepted can name a path outside a folder.
    #[test]
    fn no_text_is_dangerous(text in "\\PC{0,60}") {
        if let Ok(reference) = Reference::parse(&text) {
            prop_assert!(!reference.path().split('/').any(|c| c.is_empty() || c == "." || c == ".."));
        }
    }
}
