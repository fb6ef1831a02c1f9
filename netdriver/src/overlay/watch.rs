//! Listens to the kernel's news about an overlay's devices and entries, and repairs at once what
//! somebody else changed. Our own changes are what is expected, so they wake nobody.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::Networks;
use crate::netlink::{Seen, Watcher};
use crate::networks::Inner;

/// Least time between two repairs, so that a program that insists on its own view costs little.
const REPAIR_GAP: Duration = Duration::from_millis(200);

/// What an overlay's namespace shall contain.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// Interface indices; 0 while there is none.
    pub(super) bridge: u32,
    pub(super) vxlan: u32,
    pub(super) forwardings: BTreeMap<[u8; 6], IpAddr>,
    pub(super) resolutions: BTreeMap<IpAddr, [u8; 6]>,
}

impl Expected {
    /// Whether this is news of something that is now not as it should be.
    fn contradicts(&self, seen: &Seen) -> bool {
        match *seen {
            Seen::LinkGone { index } => index == self.bridge || index == self.vxlan,
            Seen::Forwarding {
                index,
                entry,
                there,
            } => {
                index == self.vxlan
                    && there != (self.forwardings.get(&entry.mac) == Some(&entry.vtep))
            }
            Seen::Resolution {
                index,
                address,
                mac,
            } => index == self.vxlan && self.resolutions.get(&address) != mac.as_ref(),
        }
    }
}

/// A listener; dropping it ends it.
pub(crate) struct Watch(tokio::task::JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Watch {
    pub(super) fn start(
        inner: &Arc<Inner>,
        network: String,
        socket: UnixDatagram,
        expected: Arc<Mutex<Expected>>,
    ) -> io::Result<Watch> {
        let runtime = inner.config.runtime.clone();
        let _context = runtime.enter();
        let watcher = Watcher::new(socket)?;
        let inner = Arc::downgrade(inner);
        Ok(Watch(
            runtime.spawn(listen(inner, network, watcher, expected)),
        ))
    }
}

async fn listen(
    inner: Weak<Inner>,
    network: String,
    watcher: Watcher,
    expected: Arc<Mutex<Expected>>,
) {
    let mut next_repair = Instant::now();
    loop {
        let differs = match watcher.next().await {
            Ok(seen) => {
                let expected = expected.lock();
                seen.iter().any(|seen| expected.contradicts(seen))
            }
            // News was lost.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => true,
            Err(error) => {
                tracing::warn!(network.id = network, %error, "cannot listen to changes of an overlay");
                return;
            }
        };
        if !differs {
            continue;
        }
        sleep_until(next_repair).await;
        let Some(networks) = inner.upgrade().map(|inner| Networks { inner }) else {
            return;
        };
        let id = network.clone();
        let repaired = tokio::task::spawn_blocking(move || networks.repair_overlay(&id)).await;
        if let Ok(Err(error)) = repaired {
            tracing::warn!(network.id = network, %error, "an overlay could not be repaired");
        }
        next_repair = Instant::now() + REPAIR_GAP;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Forwarding;

    #[test]
    fn only_what_differs_is_news() {
        let (mac, vtep) = ([2, 0x42, 10, 0, 1, 5], IpAddr::from([192, 0, 2, 3]));
        let address = IpAddr::from([10, 0, 1, 5]);
        let expected = Expected {
            bridge: 2,
            vxlan: 3,
            forwardings: BTreeMap::from([(mac, vtep)]),
            resolutions: BTreeMap::from([(address, mac)]),
        };
        let forwarding = |index, vtep, there| {
            let entry = Forwarding { mac, vtep };
            expected.contradicts(&Seen::Forwarding {
                index,
                entry,
                there,
            })
        };
        let other = IpAddr::from([192, 0, 2, 4]);
        assert!(!forwarding(3, vtep, true));
        assert!(forwarding(3, vtep, false));
        assert!(forwarding(3, other, true));
        assert!(!forwarding(3, other, false));
        assert!(!forwarding(9, other, true));
        let resolution = |address, mac| {
            expected.contradicts(&Seen::Resolution {
                index: 3,
                address,
                mac,
            })
        };
        assert!(!resolution(address, Some(mac)));
        assert!(resolution(address, Some([2, 0, 0, 0, 0, 9])));
        assert!(resolution(address, None));
        assert!(resolution(other, Some(mac)));
        assert!(!resolution(other, None));
        assert!(expected.contradicts(&Seen::LinkGone { index: 2 }));
        assert!(!expected.contradicts(&Seen::LinkGone { index: 7 }));
    }
}
