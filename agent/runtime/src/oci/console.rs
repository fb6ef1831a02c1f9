//! Terminals of `muster oci`: handed to whoever listens on a socket, or passed through to the caller's own.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use super::{OciError, failed};

/// Sends a terminal's master over a Unix socket, with its name as text (runc's console protocol).
pub(crate) fn send(socket: &Path, master: BorrowedFd<'_>) -> Result<(), OciError> {
    let attempt = || -> io::Result<()> {
        let stream = connect(socket)?;
        let fds = [master.as_raw_fd()];
        let text = [IoSlice::new(b"/dev/ptmx")];
        sendmsg::<()>(
            stream.as_raw_fd(),
            &text,
            &[ControlMessage::ScmRights(&fds)],
            MsgFlags::empty(),
            None,
        )?;
        Ok(())
    };
    attempt().map_err(failed(format!("send the terminal to {}", socket.display())))
}

/// Connects; a path longer than a socket address holds is reached through its directory.
fn connect(socket: &Path) -> io::Result<UnixStream> {
    if socket.as_os_str().len() < 108 {
        return UnixStream::connect(socket);
    }
    let (Some(parent), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let directory = std::fs::File::open(parent)?;
    UnixStream::connect(Path::new(&format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name))
}

/// The caller's terminal in raw mode until dropped.
struct RawMode(Option<Termios>);

impl RawMode {
    fn enter() -> RawMode {
        let stdin = rustix::stdio::stdin();
        let Ok(before) = tcgetattr(stdin) else {
            return RawMode(None);
        };
        let mut raw = before.clone();
        raw.make_raw();
        let _ = tcsetattr(stdin, OptionalActions::Now, &raw);
        RawMode(Some(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Copies between the caller's streams and a terminal until the terminal's other side is closed.
pub(crate) fn pass_through(master: BorrowedFd<'_>) -> Result<(), OciError> {
    let _raw = RawMode::enter();
    if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdin()) {
        let _ = rustix::termios::tcsetwinsize(master, size);
    }
    let (stdin, stdout) = (rustix::stdio::stdin(), rustix::stdio::stdout());
    let mut input_open = true;
    let mut buffer = [0u8; 16 << 10];
    loop {
        let wanted = if input_open {
            PollFlags::IN
        } else {
            PollFlags::empty()
        };
        let mut fds = [
            PollFd::from_borrowed_fd(master.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(stdin, wanted),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(failed("wait for the terminal")(errno.into())),
        }
        let (output, input) = (fds[0].revents(), fds[1].revents());
        if !output.is_empty() {
            match rustix::io::read(master, &mut buffer) {
                // The end of a terminal is EIO.
                Ok(0) | Err(rustix::io::Errno::IO) => return Ok(()),
                Ok(count) => write_all(stdout, &buffer[..count])?,
                Err(errno) => return Err(failed("read the terminal")(errno.into())),
            }
        }
        if input_open && !input.is_empty() {
            match rustix::io::read(stdin, &mut buffer) {
                Ok(0) | Err(_) => input_open = false,
                Ok(count) => write_all(master, &buffer[..count])?,
            }
        }
    }
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), OciError> {
    while !bytes.is_empty() {
        let written =
            rustix::io::write(to, bytes).map_err(|errno| failed("write")(errno.into()))?;
        bytes = &bytes[written..];
    }
    Ok(())
}
