//! The Dockerfile parser and what works on its result without values.

use agent_build::dockerfile::{Dockerfile, Instruction, Kind, Lines, Mount, parse_trigger};
use agent_build::excerpt::excerpt;
use agent_build::lint::{Config, Linter};

/// Places are inside of the text, and everything that was parsed can be printed.
pub fn dockerfile(data: &[u8]) {
    let count = 1 + data.iter().filter(|&&byte| byte == b'\n').count() as u32;
    let inside = |lines: Lines| {
        assert!(lines.first >= 1 && lines.first <= lines.last && lines.last <= count);
    };
    let parsed = match Dockerfile::parse(data, "Dockerfile") {
        Ok(parsed) => parsed,
        Err(error) => {
            if let Some(lines) = error.lines {
                inside(lines);
                excerpt("Dockerfile", &String::from_utf8_lossy(data), &[lines]);
            }
            return;
        }
    };
    assert!(!parsed.stages.is_empty());
    for stage in &parsed.stages {
        inside(stage.lines);
        for instruction in &stage.instructions {
            inside(instruction.lines);
            details(instruction);
        }
    }
    let mut linter = Linter::new(Config::of(&parsed).unwrap_or_default());
    linter.check(&parsed);
    for lint in linter.found() {
        inside(lint.lines);
        excerpt("Dockerfile", &parsed.source, &[lint.lines]);
    }
}

fn details(instruction: &Instruction) {
    match &instruction.kind {
        Kind::Run(run) => {
            for mount in &run.mounts {
                let same = Mount::parse(mount, &mut |word| Ok(word.to_string()));
                let from = Mount::from_of(mount);
                if let (Ok(mount), Ok(from)) = (same, from) {
                    assert_eq!(mount.from, from);
                }
            }
        }
        Kind::Onbuild(text) => {
            let _ = parse_trigger(text, instruction.lines);
        }
        _ => {}
    }
}
