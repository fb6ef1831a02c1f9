//! Keeps one network of the cluster as the managers want it on this node. Only the newest wish counts; one that cannot
//! be fulfilled is tried again.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use cluster::dispatcher::Endpoints;
use cluster_api::Network;
use tokio::sync::{mpsc, watch};

use super::container::Place;
use super::networks;
use crate::engine::Engine;
use crate::error::{Error, Result};

/// Pause before what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How packets get to other nodes. The port is the cluster's and comes with the endpoints.
pub(crate) struct DataPath {
    address: IpAddr,
    port: AtomicU16,
}

impl DataPath {
    pub(crate) fn new(address: IpAddr) -> Self {
        Self {
            address,
            port: AtomicU16::new(netdriver::VXLAN_PORT),
        }
    }

    pub(crate) fn set_port(&self, port: u16) {
        if port != 0 {
            self.port.store(port, Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self) -> netdriver::DataPath {
        netdriver::DataPath {
            address: self.address,
            port: self.port.load(Ordering::Relaxed),
        }
    }
}

#[derive(Clone)]
enum Wish {
    Nothing,
    /// To be there, with whatever is programmed.
    Present(Arc<Network>),
    Programmed(Arc<Network>, Arc<Endpoints>),
    Removed(String),
}

/// The way to the task that does it. Dropping it leaves the network as it is.
pub(super) struct Programmer {
    wishes: watch::Sender<Wish>,
    present: watch::Receiver<bool>,
}

impl Programmer {
    pub(super) fn start(
        engine: Engine,
        node_id: String,
        data_path: Arc<DataPath>,
        done: mpsc::Sender<(String, u64)>,
    ) -> Self {
        let (wishes, wished) = watch::channel(Wish::Nothing);
        let (is_present, present) = watch::channel(false);
        let work = Work {
            engine,
            node_id,
            data_path,
            done,
            ingress: false,
            present: is_present,
        };
        tokio::spawn(work.run(wished));
        Self { wishes, present }
    }

    /// Makes it so, in place of what was asked for before.
    pub(super) fn program(&self, network: Arc<Network>, endpoints: Arc<Endpoints>) {
        self.wishes
            .send_replace(Wish::Programmed(network, endpoints));
    }

    /// A task is about to be on the network: it must be there, even if it was about to go. The answer says whether it is.
    pub(super) fn require(&self, network: &Arc<Network>) -> watch::Receiver<bool> {
        self.wishes.send_if_modified(|wish| {
            let going = matches!(wish, Wish::Nothing | Wish::Removed(_));
            if going {
                *wish = Wish::Present(Arc::clone(network));
            }
            going
        });
        self.present.clone()
    }

    /// Takes the network away; tried until it works or the network is wanted again.
    pub(super) fn remove(&self, network_id: String) {
        self.wishes.send_replace(Wish::Removed(network_id));
    }
}

struct Work {
    engine: Engine,
    node_id: String,
    data_path: Arc<DataPath>,
    done: mpsc::Sender<(String, u64)>,
    /// Ports are published over it.
    ingress: bool,
    /// Whether the network is on this node and stays.
    present: watch::Sender<bool>,
}

impl Work {
    async fn run(mut self, mut wishes: watch::Receiver<Wish>) {
        loop {
            let wish = wishes.borrow_and_update().clone();
            let fulfilled = self.fulfil(&wish).await;
            if let Err(error) = &fulfilled {
                tracing::warn!(%error, "a network of the swarm is not as it should be yet");
            }
            let waits = match (wish, fulfilled) {
                (_, Err(_)) => Some(RETRY),
                (Wish::Programmed(_, endpoints), Ok(())) => {
                    let told = (endpoints.network_id.clone(), endpoints.version);
                    if self.done.send(told).await.is_err() {
                        return;
                    }
                    None
                }
                (_, Ok(())) => None,
            };
            let newer = async {
                match waits {
                    Some(limit) => tokio::time::timeout(limit, wishes.changed())
                        .await
                        .unwrap_or(Ok(())),
                    None => wishes.changed().await,
                }
            };
            if newer.await.is_err() {
                return;
            }
        }
    }

    async fn fulfil(&mut self, wish: &Wish) -> Result<()> {
        match wish {
            Wish::Nothing => Ok(()),
            Wish::Present(network) => self.make(network).await.map(drop),
            Wish::Removed(id) => {
                self.present.send_replace(false);
                if self.ingress {
                    self.engine.set_ingress(None).await?;
                }
                self.engine.remove_overlay(id).await
            }
            Wish::Programmed(network, endpoints) => self.program(network, endpoints).await,
        }
    }

    /// Makes the network on this node; `false` when it is none that is made.
    async fn make(&self, network: &Network) -> Result<bool> {
        let invalid = |error: networks::NetworkError| Error::invalid(error.to_string());
        let overlays = networks::place(network).map_err(invalid)? == Place::Overlay;
        if overlays {
            let overlay = networks::overlay(network, self.data_path.get()).map_err(invalid)?;
            self.engine.ensure_overlay(overlay).await?;
        }
        self.present.send_replace(true);
        Ok(overlays)
    }

    async fn program(&mut self, network: &Network, endpoints: &Endpoints) -> Result<()> {
        if !self.make(network).await? {
            return Ok(());
        }
        let (id, version) = (&network.id, endpoints.version);
        let peers = networks::peers(endpoints);
        self.engine.set_overlay_peers(id, version, peers).await?;
        let balanced = networks::balanced(endpoints);
        self.engine.set_overlay_balanced(id, balanced).await?;
        if network.spec.ingress {
            self.ingress = true;
            let ingress = networks::ingress(endpoints, &self.node_id);
            for error in self.engine.set_ingress(ingress).await? {
                tracing::error!(%error, "a port of the swarm cannot be published on this node");
            }
        }
        Ok(())
    }
}
