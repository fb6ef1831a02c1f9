//! The device controller of the unified hierarchy: a BPF program made from the rules.
//!
//! The program sees what is asked for (type, access, numbers) and walks the rules from the last to the first; the first
//! one that applies decides. Source: kernel `include/uapi/linux/bpf.h`, `BPF_PROG_TYPE_CGROUP_DEVICE`.

use std::os::fd::AsFd;
use std::path::Path;

use super::files::{failed, open_directory};
use super::{CgroupError, DeviceKind, DeviceRule};
use crate::sys::bpf::{self, Instruction};

const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

/// Attaches the program for these rules to a cgroup in place of the one that is there.
pub(super) fn restrict_devices(directory: &Path, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    let cgroup = open_directory(directory)?;
    let program = bpf::load_device_program(&compile(rules))
        .map_err(|error| failed("load the device rules for", directory, error))?;
    bpf::replace_device_program(cgroup.as_fd(), program.as_fd())
        .map_err(|error| failed("attach the device rules to", directory, error))
}

/// r2 type, r3 access, r4 major, r5 minor.
fn compile(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut program = vec![
        Instruction::load_word(2, 1, 0),
        Instruction::move_register(3, 2),
        Instruction::and(2, 0xffff),
        Instruction::shift_right(3, 16),
        Instruction::load_word(4, 1, 4),
        Instruction::load_word(5, 1, 8),
    ];
    for rule in super::resources::closed(rules).rev() {
        program.extend(compile_rule(&rule));
        if applies_always(&rule) {
            // The kernel refuses a program with instructions that cannot be reached.
            return program;
        }
    }
    program.push(Instruction::move_number(0, 0));
    program.push(Instruction::exit());
    program
}

/// Whether nothing can get past a rule.
fn applies_always(rule: &DeviceRule) -> bool {
    let access = rule.access;
    rule.kind.is_none()
        && rule.major.is_none()
        && rule.minor.is_none()
        && access.mknod
        && access.read
        && access.write
}

fn compile_rule(rule: &DeviceRule) -> Vec<Instruction> {
    let mut tests: Vec<Vec<Instruction>> = Vec::new();
    match rule.kind {
        Some(DeviceKind::Block) => tests.push(vec![Instruction::jump_unless_equal(2, 1)]),
        Some(DeviceKind::Char | DeviceKind::Fifo) => {
            tests.push(vec![Instruction::jump_unless_equal(2, 2)])
        }
        None => {}
    }
    let mut access = 0;
    for (set, bit) in [
        (rule.access.mknod, MKNOD),
        (rule.access.read, READ),
        (rule.access.write, WRITE),
    ] {
        if set {
            access |= bit;
        }
    }
    // Allowed only if everything asked for is covered; denied as soon as anything is.
    if access != MKNOD | READ | WRITE {
        tests.push(match rule.allow {
            true => vec![
                Instruction::move_register(1, 3),
                Instruction::and(1, !access),
                Instruction::jump_unless_equal(1, 0),
            ],
            false => vec![
                Instruction::move_register(1, 3),
                Instruction::and(1, access),
                Instruction::jump_if_equal(1, 0),
            ],
        });
    }
    if let Some(major) = rule.major {
        tests.push(vec![Instruction::jump_unless_equal(4, major as i32)]);
    }
    if let Some(minor) = rule.minor {
        tests.push(vec![Instruction::jump_unless_equal(5, minor as i32)]);
    }
    let mut body: Vec<Instruction> = tests.into_iter().flatten().collect();
    body.push(Instruction::move_number(0, i32::from(rule.allow)));
    body.push(Instruction::exit());
    // Every failed test goes past the verdict.
    let length = body.len();
    for (index, instruction) in body.iter_mut().enumerate() {
        if instruction.is_jump() {
            instruction.set_offset((length - index - 1) as i16);
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tiny interpreter of the instructions used.
    fn allowed(program: &[Instruction], kind: i64, access: i64, major: i64, minor: i64) -> bool {
        bpf::interpret(program, [(access << 16) | kind, major, minor]) != 0
    }

    #[test]
    fn the_program_decides_as_the_rules_say() {
        let program = compile(&crate::spec::default_device_rules());
        let (block, char_device) = (1, 2);
        let rw = i64::from(READ | WRITE);
        assert!(allowed(&program, char_device, rw, 1, 3), "null");
        assert!(allowed(&program, char_device, rw, 136, 7), "a pty");
        assert!(
            allowed(&program, block, i64::from(MKNOD), 8, 0),
            "making a disk node"
        );
        assert!(
            !allowed(&program, block, i64::from(READ), 8, 0),
            "reading a disk"
        );
        assert!(!allowed(&program, char_device, rw, 1, 1), "memory");
        assert!(
            !allowed(&program, char_device, i64::from(MKNOD | READ), 10, 200),
            "making and reading"
        );
    }

    /// The kernel's first check of a program: every instruction can be reached.
    fn reaches_everything(program: &[Instruction]) -> bool {
        let mut seen = vec![false; program.len()];
        let mut ahead = vec![0];
        while let Some(at) = ahead.pop() {
            if std::mem::replace(&mut seen[at], true) {
                continue;
            }
            if program[at] != Instruction::exit() {
                ahead.push(at + 1);
            }
            if program[at].is_jump() {
                ahead.push(at + 1 + program[at].offset());
            }
        }
        seen.into_iter().all(|seen| seen)
    }

    #[test]
    fn no_instruction_is_out_of_reach() {
        let everything = DeviceRule::parse("a *:* rwm").unwrap();
        let one = DeviceRule::parse("c 1:3 r").unwrap();
        let default = crate::spec::default_device_rules();
        for rules in [
            default.clone(),
            vec![everything.clone()],
            vec![one.clone(), everything.clone(), one.clone()],
            [default, vec![everything, one]].concat(),
        ] {
            assert!(reaches_everything(&compile(&rules)), "{rules:?}");
        }
    }

    #[test]
    fn a_later_rule_wins_and_a_list_is_closed() {
        let rules = ["c 10:200 rwm", "c 10:200 w"].map(|text| DeviceRule::parse(text).unwrap());
        let denied = DeviceRule {
            allow: false,
            ..rules[1].clone()
        };
        let program = compile(&[rules[0].clone(), denied]);
        assert!(allowed(&program, 2, i64::from(READ), 10, 200));
        assert!(!allowed(&program, 2, i64::from(READ | WRITE), 10, 200));
        assert!(!allowed(&program, 2, i64::from(READ), 10, 201));
    }
}
