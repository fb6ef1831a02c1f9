//! Connections that break and daemons that are killed: what is on its way goes on afterwards, or leaves nothing.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex};

use e2e::Host;

use super::depot::Depot;
use super::{id, import_noise, partial_bytes, unfinished};

/// Where the registry is, and where the daemon finds it: behind a cable that can be cut.
const REGISTRY: &str = "127.0.0.1:5001";
const CABLE: &str = "127.0.0.1:5000";

/// What happens once so many bytes have gone through in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Cut,
    /// Silence, until it is mended.
    Stall,
}

#[derive(Default)]
struct Cable {
    up: AtomicU64,
    down: AtomicU64,
    /// For bytes to the registry (true) or from it, beginning with the next.
    fault: Mutex<Option<(bool, u64, Fault)>>,
    mended: Condvar,
    /// Told when a fault has come to pass.
    happened: Mutex<Option<std::sync::mpsc::Sender<()>>>,
}

impl Cable {
    fn lay(host: &Host) -> Arc<Self> {
        let cable = Arc::new(Self::default());
        let listener = host.on_host(|| TcpListener::bind(CABLE).unwrap());
        let (requests, dials) = channel::<TcpStream>();
        let laid = Arc::clone(&cable);
        // Sockets belong to the namespace they were made in.
        let connect = host.on_host(|| {
            let (ask, asked) = channel::<std::sync::mpsc::Sender<TcpStream>>();
            std::thread::spawn(move || {
                for reply in asked {
                    if let Ok(there) = TcpStream::connect(REGISTRY) {
                        let _ = reply.send(there);
                    }
                }
            });
            ask
        });
        std::thread::spawn(move || {
            for here in listener.incoming().flatten() {
                let _ = requests.send(here);
            }
        });
        std::thread::spawn(move || {
            for here in dials {
                let (reply, connected) = channel();
                if connect.send(reply).is_err() {
                    return;
                }
                let Ok(there) = connected.recv() else {
                    continue;
                };
                for (from, to, up) in [
                    (here.try_clone().unwrap(), there.try_clone().unwrap(), true),
                    (there, here, false),
                ] {
                    let cable = Arc::clone(&laid);
                    std::thread::spawn(move || cable.carry(from, to, up));
                }
            }
        });
        cable
    }

    fn carry(&self, mut from: TcpStream, mut to: TcpStream, up: bool) {
        let mut buffer = vec![0; 64 << 10];
        let counter = if up { &self.up } else { &self.down };
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            let now = counter.fetch_add(len as u64, Ordering::SeqCst) + len as u64;
            let mut fault = self.fault.lock().unwrap();
            if let Some((of, at, kind)) = *fault
                && of == up
                && now > at
            {
                if let Some(happened) = self.happened.lock().unwrap().take() {
                    let _ = happened.send(());
                }
                match kind {
                    Fault::Cut => {
                        *fault = None;
                        break;
                    }
                    Fault::Stall => {
                        while fault.is_some() {
                            fault = self.mended.wait(fault).unwrap();
                        }
                    }
                }
            }
            drop(fault);
            if to.write_all(&buffer[..len]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    /// Counts from here on, and breaks in the way given after `bytes`.
    fn break_after(&self, up: bool, bytes: u64, fault: Fault) -> Receiver<()> {
        let (sender, receiver) = channel();
        *self.happened.lock().unwrap() = Some(sender);
        self.up.store(0, Ordering::SeqCst);
        self.down.store(0, Ordering::SeqCst);
        *self.fault.lock().unwrap() = Some((up, bytes, fault));
        receiver
    }

    fn mend(&self) {
        *self.fault.lock().unwrap() = None;
        self.mended.notify_all();
    }
}

const SIZE: u64 = 30 << 20;
const NAME: &str = "127.0.0.1:5000/a/noise:1";

fn start() -> (Host, Option<(Depot, Arc<Cable>)>) {
    let host = Host::start();
    let Some(depot) = Depot::start(&host, REGISTRY, |_| {}) else {
        return (host, None);
    };
    let cable = Cable::lay(&host);
    import_noise(&host, NAME, 30);
    (host, Some((depot, cable)))
}

#[test]
fn a_push_survives_a_broken_connection() {
    let (host, running) = start();
    let Some((depot, cable)) = running else {
        return host.finish();
    };
    let happened = cable.break_after(true, 17 << 20, Fault::Cut);
    let told = host.muster(&["push", NAME]).ok();
    happened.recv().unwrap();
    assert!(told.contains(": Pushed"), "{told}");
    let log = depot.log();
    assert!(
        log.contains("GET /v2/a/noise/blobs/uploads/"),
        "it was not asked how far it got: {log}"
    );
    // Distribution 2 gives an upload up whose connection broke in the middle of a request; others go on with it.
    let sent = cable.up.load(Ordering::SeqCst);
    assert!(
        sent < SIZE + (8 << 20)
            || log.contains("upload resumed at wrong offest")
            || log.contains("upload resumed at wrong offset"),
        "{sent} bytes were sent for a layer of {SIZE}: {log}"
    );
    let known = id(&host, NAME);
    host.muster(&["rmi", NAME]).ok();
    host.muster(&["pull", NAME]).ok();
    assert_eq!(id(&host, NAME), known);
    drop(depot);
    host.finish();
}

#[test]
fn a_killed_daemon_goes_on_with_a_pull() {
    let (mut host, running) = start();
    let Some((depot, cable)) = running else {
        return host.finish();
    };
    host.muster(&["push", NAME]).ok();
    let known = id(&host, NAME);
    host.muster(&["rmi", NAME]).ok();
    let happened = cable.break_after(false, 20 << 20, Fault::Stall);
    let mut client = host.spawn(host.muster_command(&["pull", "-q", NAME]));
    happened.recv().unwrap();
    host.kill_daemon();
    client.wait().unwrap();
    cable.mend();
    host.start_daemon(&[]);
    // What the cable carried may have been in the kernel's buffers still, some megabytes.
    let kept = partial_bytes(&host);
    assert!(kept > 8 << 20, "{kept}");
    cable.down.store(0, Ordering::SeqCst);
    host.muster(&["pull", NAME]).ok();
    let fetched = cable.down.load(Ordering::SeqCst);
    assert!(
        fetched < SIZE - kept + (1 << 20),
        "{fetched} bytes were fetched again"
    );
    assert_eq!(id(&host, NAME), known);
    assert_eq!(partial_bytes(&host), 0);
    drop(depot);
    host.finish();
}

#[test]
fn a_cancelled_pull_leaves_no_image_and_the_next_one_goes_on() {
    let (host, running) = start();
    let Some((depot, cable)) = running else {
        return host.finish();
    };
    host.muster(&["push", NAME]).ok();
    host.muster(&["rmi", NAME]).ok();
    let happened = cable.break_after(false, 20 << 20, Fault::Stall);
    let mut client = host.spawn(host.muster_command(&["pull", "-q", NAME]));
    happened.recv().unwrap();
    client.kill().unwrap();
    client.wait().unwrap();
    // The next pull waits for nothing of the cancelled one, which ends at once.
    cable.mend();
    cable.down.store(0, Ordering::SeqCst);
    host.muster(&["pull", NAME]).ok();
    assert!(cable.down.load(Ordering::SeqCst) < SIZE);
    assert_eq!(unfinished(&host), Vec::<String>::new());
    assert_eq!(partial_bytes(&host), 0);
    drop(depot);
    host.finish();
}
