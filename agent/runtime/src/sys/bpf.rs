//! `bpf(2)` for one purpose: a device program on a cgroup.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

const PROG_LOAD: i64 = 5;
const PROG_ATTACH: i64 = 8;
const PROG_GET_FD_BY_ID: i64 = 13;
const PROG_QUERY: i64 = 16;
const TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
const REPLACE: u32 = 4;

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    const fn new(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Self {
        Instruction {
            code,
            registers: destination | source << 4,
            offset,
            immediate,
        }
    }

    /// destination = *(u32 *)(source + offset)
    pub(crate) const fn load_word(destination: u8, source: u8, offset: i16) -> Self {
        Self::new(0x61, destination, source, offset, 0)
    }

    /// destination = source (32 bits)
    pub(crate) const fn move_register(destination: u8, source: u8) -> Self {
        Self::new(0xbc, destination, source, 0, 0)
    }

    /// destination = number
    pub(crate) const fn move_number(destination: u8, number: i32) -> Self {
        Self::new(0xb7, destination, 0, 0, number)
    }

    /// destination &= number (32 bits)
    pub(crate) const fn and(destination: u8, number: i32) -> Self {
        Self::new(0x54, destination, 0, 0, number)
    }

    /// destination >>= bits (32 bits, unsigned)
    pub(crate) const fn shift_right(destination: u8, bits: i32) -> Self {
        Self::new(0x74, destination, 0, 0, bits)
    }

    /// Jumps when the 32-bit register differs from the number; the distance is set later.
    pub(crate) const fn jump_unless_equal(register: u8, number: i32) -> Self {
        Self::new(0x56, register, 0, 0, number)
    }

    /// Jumps when the 32-bit register equals the number; the distance is set later.
    pub(crate) const fn jump_if_equal(register: u8, number: i32) -> Self {
        Self::new(0x16, register, 0, 0, number)
    }

    /// Returns r0.
    pub(crate) const fn exit() -> Self {
        Self::new(0x95, 0, 0, 0, 0)
    }

    pub(crate) const fn is_jump(self) -> bool {
        matches!(self.code, 0x56 | 0x16)
    }

    /// How many instructions a jump skips.
    #[cfg(test)]
    pub(crate) const fn offset(self) -> usize {
        self.offset as usize
    }

    pub(crate) const fn set_offset(&mut self, offset: i16) {
        self.offset = offset;
    }
}

/// Room for every variant of `union bpf_attr` used here.
#[repr(C, align(8))]
#[derive(Default)]
struct Attr([u32; 32]);

impl Attr {
    fn pointer(&mut self, index: usize, address: u64) {
        self.0[index] = address as u32;
        self.0[index + 1] = (address >> 32) as u32;
    }
}

fn bpf(command: i64, attr: &mut Attr) -> io::Result<i32> {
    // SAFETY: the attribute block is larger than every variant used; addresses in it are of live buffers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<Attr>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as i32)
    }
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just returned it to us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Loads a device program.
pub(crate) fn load_device_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let mut attr = Attr::default();
    attr.0[0] = TYPE_CGROUP_DEVICE;
    attr.0[1] = program.len() as u32;
    attr.pointer(2, program.as_ptr() as u64);
    attr.pointer(4, license.as_ptr() as u64);
    bpf(PROG_LOAD, &mut attr).map(owned)
}

/// Attaches a program to a cgroup; a single one that is there already is replaced without a gap.
pub(crate) fn replace_device_program(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
) -> io::Result<()> {
    let mut ids = [0u32; 64];
    let mut query = Attr::default();
    query.0[0] = cgroup.as_raw_fd() as u32;
    query.0[1] = CGROUP_DEVICE;
    query.pointer(4, ids.as_mut_ptr() as u64);
    query.0[6] = ids.len() as u32;
    bpf(PROG_QUERY, &mut query)?;
    let old = match (query.0[6], ids[0]) {
        (1, id) => {
            let mut attr = Attr::default();
            attr.0[0] = id;
            Some(owned(bpf(PROG_GET_FD_BY_ID, &mut attr)?))
        }
        _ => None,
    };
    let mut attach = Attr::default();
    attach.0[0] = cgroup.as_raw_fd() as u32;
    attach.0[1] = program.as_raw_fd() as u32;
    attach.0[2] = CGROUP_DEVICE;
    attach.0[3] = ALLOW_MULTI;
    if let Some(old) = &old {
        attach.0[3] |= REPLACE;
        attach.0[4] = old.as_raw_fd() as u32;
    }
    bpf(PROG_ATTACH, &mut attach).map(|_| ())
}

/// Runs a program on a context of three words; for tests of compilers.
#[cfg(test)]
pub(crate) fn interpret(program: &[Instruction], context: [i64; 3]) -> i64 {
    let mut registers = [0i64; 11];
    let mut at = 0usize;
    loop {
        let instruction = program[at];
        let destination = usize::from(instruction.registers & 0xf);
        let source = usize::from(instruction.registers >> 4);
        let number = i64::from(instruction.immediate);
        at += 1;
        let low = |value: i64| i64::from(value as u32);
        match instruction.code {
            0x61 => registers[destination] = low(context[instruction.offset as usize / 4]),
            0xbc => registers[destination] = low(registers[source]),
            0xb7 => registers[destination] = number,
            0x54 => registers[destination] = low(registers[destination] & number),
            0x74 => registers[destination] = low(registers[destination]) >> number,
            0x56 if low(registers[destination]) != low(number) => at += instruction.offset as usize,
            0x16 if low(registers[destination]) == low(number) => at += instruction.offset as usize,
            0x56 | 0x16 => {}
            0x95 => return registers[0],
            code => panic!("instruction {code:#x}"),
        }
    }
}
