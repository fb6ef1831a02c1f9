//! Damaged files: the loader reports errors, it never panics, and its messages can always be rendered.

use std::path::Path;

use compose_model::{LoadOptions, Style, load};

/// A small deterministic generator (xorshift), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}

const SEED_FILE: &str = include_str!("../cases/full-service/compose.yaml");

const SNIPPETS: [&str; 24] = [
    "services:",
    "  ",
    "\t",
    "- ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "&a ",
    "*a",
    "<<: ",
    "!reset ",
    "!override ",
    "${",
    "$$",
    "${A:-",
    "\"",
    "'",
    "|\n",
    "null",
    "\n",
    "extends: web",
    "é\u{feff}",
];

fn mutate(random: &mut Random, text: &str) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..=random.below(4) {
        let at = random.below(chars.len());
        match random.below(5) {
            0 => {
                let end = (at + 1 + random.below(12)).min(chars.len());
                chars.drain(at..end);
            }
            1 => {
                let snippet = SNIPPETS[random.below(SNIPPETS.len())].chars();
                chars.splice(at..at, snippet);
            }
            2 => {
                let end = (at + random.below(80)).min(chars.len());
                let copy: Vec<char> = chars[at..end].to_vec();
                let to = random.below(chars.len());
                chars.splice(to..to, copy);
            }
            3 => {
                let other = random.below(chars.len());
                if at < chars.len() && other < chars.len() {
                    chars.swap(at, other);
                }
            }
            _ => chars.truncate(chars.len() - random.below(chars.len() / 8)),
        }
    }
    chars.into_iter().collect()
}

fn load_text(text: String) -> Result<String, String> {
    let options = LoadOptions {
        files: vec!["-".into()],
        stdin: Some(text),
        current_dir: "/nonexistent".into(),
        ..LoadOptions::default()
    };
    match load(&options) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                let _ = warning.render(&loaded.sources, Style::Coloured);
            }
            Ok(loaded.project.to_yaml())
        }
        Err(errors) => Err(errors.to_string()),
    }
}

#[test]
fn mutated_files_never_panic() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut failed = 0;
    for _ in 0..1500 {
        let text = mutate(&mut random, SEED_FILE);
        if load_text(text).is_err() {
            failed += 1;
        }
    }
    assert!(
        failed > 300,
        "the mutations hardly break anything: {failed}"
    );
}

#[test]
fn a_tree_of_aliases_is_refused_quickly() {
    let mut text = String::from("x0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..12 {
        let below = format!("*a{}", level - 1);
        let items = vec![below; 9].join(", ");
        text.push_str(&format!("x{level}: &a{level} [{items}]\n"));
    }
    let error = load_text(text).expect_err("it would be 9^12 values");
    assert!(
        error.contains("anchors and aliases expand to more than"),
        "{error}"
    );
}

#[test]
fn deep_nesting_is_refused() {
    let error = load_text("a: ".to_owned() + &"[".repeat(100_000)).expect_err("too deep");
    assert!(error.contains("invalid YAML"), "{error}");
    let block: String = (0..2000).map(|depth| " ".repeat(depth) + "a:\n").collect();
    assert!(load_text(block).is_err());
}

#[test]
fn a_directory_or_a_missing_file_is_a_clear_error() {
    for (file, says) in [
        ("/", "it is a directory"),
        ("/nonexistent/compose.yaml", "no such file"),
    ] {
        let options = LoadOptions {
            files: vec![file.into()],
            current_dir: Path::new("/").to_owned(),
            ..LoadOptions::default()
        };
        let error = load(&options).expect_err("cannot be read").to_string();
        assert!(error.contains(says) && error.contains(file), "{error}");
    }
}

#[test]
fn no_compose_file_anywhere_is_a_clear_error() {
    let options = LoadOptions {
        current_dir: "/nonexistent/project".into(),
        ..LoadOptions::default()
    };
    let error = load(&options).expect_err("there is no file").to_string();
    assert!(
        error.contains("no compose file in /nonexistent/project"),
        "{error}"
    );
    assert!(error.contains("name a file with -f"), "{error}");
}

/// Small files whose expansion would fill the memory.
#[test]
fn amplification_is_refused() {
    let ranges: String = (0..40)
        .map(|n| format!("      - \"127.0.0.{n}:1-65535:1-65535\"\n"))
        .collect();
    let ports = format!("services:\n  web:\n    image: x\n    ports:\n{ranges}");
    let base: String = (0..4000).map(|n| format!("      k{n}: v\n")).collect();
    let many: String = (0..1000)
        .map(|n| format!("  s{n}: {{extends: base}}\n"))
        .collect();
    let extends = format!("services:\n  base:\n    image: x\n    environment:\n{base}{many}");
    for (text, says) in [
        (ports, "more than 65536 ports"),
        (extends, "extends copies more than"),
    ] {
        let error = load_text(text).expect_err("too much");
        assert!(error.contains(says), "{error}");
    }
}

/// Twenty files that each include the next one twice would be read a million times.
#[test]
fn exponential_includes_are_refused() {
    let directory = tempfile::tempdir().expect("temporary directory");
    for level in 0..20 {
        let text = format!("include: [f{0}.yaml, f{0}.yaml]\n", level + 1);
        std::fs::write(directory.path().join(format!("f{level}.yaml")), text).expect("written");
    }
    std::fs::write(
        directory.path().join("f20.yaml"),
        "services: {a: {image: x}}\n",
    )
    .expect("written");
    let options = LoadOptions {
        files: vec!["f0.yaml".into()],
        current_dir: directory.path().to_owned(),
        ..LoadOptions::default()
    };
    let error = load(&options).expect_err("too many files").to_string();
    assert!(error.contains("more than 10000 files"), "{error}");
}

#[test]
fn text_that_is_not_utf8_is_a_clear_error() {
    let directory = tempfile::tempdir().expect("temporary directory");
    std::fs::write(directory.path().join("compose.yaml"), b"services: \xff").expect("written");
    let options = LoadOptions {
        current_dir: directory.path().to_owned(),
        ..LoadOptions::default()
    };
    let error = load(&options).expect_err("not UTF-8").to_string();
    assert!(error.contains("it is not UTF-8 (byte 10)"), "{error}");
}
