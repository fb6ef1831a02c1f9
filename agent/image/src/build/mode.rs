//! `--chmod` in words: `u=rwX,go-w`, as chmod(1) and BuildKit's `dchapes/mode` (BSD's setmode(3)) understand it, without
//! a umask.

/// Set-id, sticky and permission bits.
const ALL: u32 = 0o7777;
const SET_ID: u32 = 0o6000;
const STICKY: u32 = 0o1000;

/// A change of permission bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    /// The bits of those it is for, set-id included; all when nobody was named.
    who: u32,
    /// Whether anybody was named.
    named: bool,
    operation: Operation,
    /// Bits for everybody.
    bits: u32,
    /// `X`: execute if it is a directory, or somebody may execute it before the change.
    execute: bool,
    /// Copy the bits of a class: how far they are shifted.
    copies: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Add,
    Remove,
    Set,
}

impl Change {
    /// `None`: malformed.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut steps = Vec::new();
        for clause in text.split(',') {
            let operators = clause.find(['+', '-', '='])?;
            let (named, mut rest) = clause.split_at(operators);
            let mut who = 0;
            for class in named.chars() {
                who |= match class {
                    'u' => 0o4700,
                    'g' => 0o2070,
                    'o' => 0o0007,
                    'a' => 0o6777,
                    _ => return None,
                };
            }
            while let Some(operator) = rest.chars().next() {
                let operation = match operator {
                    '+' => Operation::Add,
                    '-' => Operation::Remove,
                    '=' => Operation::Set,
                    _ => return None,
                };
                let after = &rest[1..];
                let end = after.find(['+', '-', '=']).unwrap_or(after.len());
                steps.push(Step::parse(who, operation, &after[..end])?);
                rest = &after[end..];
            }
        }
        Some(Self(steps))
    }

    /// The bits after the change.
    pub(super) fn apply(&self, mode: u32, directory: bool) -> u32 {
        let executable = directory || mode & 0o111 != 0;
        self.0
            .iter()
            .fold(mode & ALL, |mode, step| step.apply(mode, executable))
    }
}

impl Step {
    fn parse(who: u32, operation: Operation, permissions: &str) -> Option<Self> {
        let mut step = Self {
            who: if who == 0 { 0o6777 } else { who },
            named: who != 0,
            operation,
            bits: 0,
            execute: false,
            copies: Vec::new(),
        };
        // Set-id and sticky bits mean nothing for others alone.
        let others_only = who == 0o0007;
        for permission in permissions.chars() {
            match permission {
                'r' => step.bits |= 0o444,
                'w' => step.bits |= 0o222,
                'x' => step.bits |= 0o111,
                'X' if operation == Operation::Remove => step.bits |= 0o111,
                'X' => step.execute = true,
                's' if !others_only => step.bits |= SET_ID,
                't' if !others_only => {
                    step.bits |= STICKY;
                    step.who |= STICKY;
                }
                's' | 't' => {}
                'u' => step.copies.push(6),
                'g' => step.copies.push(3),
                'o' => step.copies.push(0),
                _ => return None,
            }
        }
        Some(step)
    }

    fn apply(&self, mode: u32, executable: bool) -> u32 {
        let mut bits = self.bits;
        if self.execute && executable {
            bits |= 0o111;
        }
        for shift in &self.copies {
            bits |= (mode >> shift & 7) * 0o111;
        }
        let who = match self.named {
            true => self.who,
            false => self.who | STICKY & self.bits,
        };
        match self.operation {
            Operation::Add => mode | bits & who,
            Operation::Remove => mode & !(bits & who),
            Operation::Set => mode & !who | bits & who,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_as_chmod_makes_them() {
        for (change, before, file, directory) in [
            ("u+x", 0o644, 0o744, 0o744),
            ("a=rX", 0o600, 0o444, 0o555),
            ("a=rX", 0o700, 0o555, 0o555),
            ("u=rwX,go=rX", 0o666, 0o644, 0o755),
            ("u=rwX,go=rX", 0o777, 0o755, 0o755),
            ("go-w", 0o777, 0o755, 0o755),
            ("+x", 0o640, 0o751, 0o751),
            ("=", 0o777, 0, 0),
            ("o=u", 0o750, 0o757, 0o757),
            ("g=u-w", 0o700, 0o750, 0o750),
            ("u+s", 0o755, 0o4755, 0o4755),
            ("g+s,o+t", 0o755, 0o2755, 0o2755),
            ("+t", 0o777, 0o1777, 0o1777),
            ("a+s", 0o755, 0o6755, 0o6755),
            ("u-s", 0o4755, 0o755, 0o755),
            ("u=rw,u-w+x", 0o000, 0o500, 0o500),
            ("ugo-X", 0o755, 0o644, 0o644),
        ] {
            let parsed = Change::parse(change).unwrap_or_else(|| panic!("{change}"));
            assert_eq!(
                parsed.apply(before, false),
                file,
                "{change} of a file {before:o}"
            );
            assert_eq!(
                parsed.apply(before, true),
                directory,
                "{change} of a directory"
            );
        }
    }

    #[test]
    fn what_is_no_change() {
        for text in ["", "u", "x", "u+z", "u+x,", "+x,,", "b+x", "u*x"] {
            assert_eq!(Change::parse(text), None, "{text:?}");
        }
    }
}
