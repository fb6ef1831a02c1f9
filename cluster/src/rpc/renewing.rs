//! Keeps a node's certificate fresh: renews it in time, and at once when the node's role has changed.

use std::sync::Arc;
use std::time::Duration;

use cluster_api::proto::ManagerAddress;
use cluster_api::{IdSource, Timestamp};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::{NodeTls, Peers, Refusal, TlsError};
use crate::ca::{CaError, DiskError, IdentityStore, NodeCertificate, NodeKey, renew_at};

/// Pauses after attempts with no manager that answers.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// How often the clock is looked at.
const LOOK: Duration = Duration::from_secs(3600);

/// Why a certificate was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    #[error("no manager is known")]
    NoManager,
    #[error("manager {address}: {source}")]
    Refused { address: String, source: Refusal },
    #[error("manager {address} sent something that is of no use: {source}")]
    Answer { address: String, source: CaError },
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Renews the certificate behind a node's TLS for as long as it lives.
pub struct Renewal {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    peers: Arc<Peers>,
    store: IdentityStore,
    managers: Mutex<Vec<ManagerAddress>>,
    wanted: Notify,
}

impl Renewal {
    /// What is renewed is saved in `store` first, then used by `peers` and whatever shares its TLS. Must be called
    /// within a Tokio runtime.
    #[must_use]
    pub fn start(peers: Arc<Peers>, store: IdentityStore, managers: Vec<ManagerAddress>) -> Self {
        let shared = Arc::new(Shared {
            peers,
            store,
            managers: Mutex::new(managers),
            wanted: Notify::new(),
        });
        Self {
            task: tokio::spawn(run(shared.clone())),
            shared,
        }
    }

    /// Whom to ask from now on.
    pub fn set_managers(&self, managers: Vec<ManagerAddress>) {
        *self.shared.managers.lock() = managers;
    }

    /// Renews without waiting for its time: the managers say that this node's role is another one now. When it is done
    /// shows in [`super::NodeTls::generation`].
    pub fn renew_now(&self) {
        self.shared.wanted.notify_one();
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(shared: Arc<Shared>) {
    let mut ids = IdSource::random();
    loop {
        let tls = shared.peers.tls();
        let wait = renew_at(&tls.identity().certificate, tls.now(), &mut ids);
        let wait = i64::try_from(wait.as_nanos()).unwrap_or(i64::MAX);
        let due = Timestamp(tls.now().0.saturating_add(wait));
        tokio::select! {
            () = passes(tls, due) => {}
            () = shared.wanted.notified() => {}
        }
        let mut pause = FIRST_PAUSE;
        while let Err(error) = shared.renew().await {
            if tls.identity().expired(tls.now()) {
                tracing::error!(%error, "the node's certificate has expired: leave the swarm and join it again");
            } else {
                tracing::warn!(%error, "cannot renew the node's certificate");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }
}

/// Waits until a moment of the clock certificates are judged by has passed. That one goes on while the host sleeps, and may
/// be set; timers do neither.
async fn passes(tls: &NodeTls, moment: Timestamp) {
    while let Some(left) = moment.0.checked_sub(tls.now().0)
        && let Ok(left @ 1..) = u64::try_from(left)
    {
        tokio::time::sleep(Duration::from_nanos(left).min(LOOK)).await;
    }
}

impl Shared {
    /// Asks one manager after the other.
    async fn renew(&self) -> Result<(), RenewalError> {
        let key = NodeKey::generate()?;
        let request = key.request()?;
        let managers = self.managers.lock().clone();
        let mut last = RenewalError::NoManager;
        for manager in managers {
            match self
                .peers
                .renew_certificate(&manager, request.clone())
                .await
            {
                Ok(answer) => return self.take(&answer.certificate, key, manager.address).await,
                Err(source) => {
                    last = RenewalError::Refused {
                        address: manager.address,
                        source,
                    };
                }
            }
        }
        Err(last)
    }

    async fn take(&self, pem: &[u8], key: NodeKey, address: String) -> Result<(), RenewalError> {
        let tls = self.peers.tls();
        let renewed = NodeCertificate::from_pem(pem)
            .and_then(|certificate| tls.identity().renewed(certificate, key))
            .map_err(|source| RenewalError::Answer { address, source })?;
        let store = self.store.clone();
        let renewed = tokio::task::spawn_blocking(move || store.save(&renewed).map(|()| renewed))
            .await
            .expect("saving does not panic")?;
        let (role, until) = (
            renewed.certificate.subject.role,
            renewed.certificate.not_after,
        );
        tls.replace(renewed)?;
        tracing::info!(
            ?role,
            until = until.rfc3339(),
            "the node's certificate was renewed"
        );
        Ok(())
    }
}
