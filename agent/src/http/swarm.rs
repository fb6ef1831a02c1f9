//! `/swarm`: making, joining and leaving a swarm, its settings and tokens. Managers never start locked, so there is
//! nothing to unlock.

use agent_api::swarm::{SwarmInitRequest, SwarmJoinRequest, SwarmSpec, UnlockKey};
use cluster::control::{Request, TokenRotation, view};
use http::StatusCode;

use super::error::HttpError;
use super::router::{Route, get, post};
use super::{Call, Outcome, body, to_the_end};
use crate::error::Error;

pub(super) const ROUTES: &[Route] = &[
    post("/swarm/init", |call| Box::pin(init(call))),
    post("/swarm/join", |call| Box::pin(join(call))),
    post("/swarm/leave", |call| Box::pin(leave(call))),
    get("/swarm", |call| Box::pin(inspect(call))),
    get("/swarm/unlockkey", |call| Box::pin(unlock_key(call))),
    post("/swarm/update", |call| Box::pin(update(call))),
    post("/swarm/unlock", |call| Box::pin(unlock(call))),
];

async fn init(mut call: Call) -> Outcome {
    let mut request: SwarmInitRequest = call.json().await?;
    if call.version.before(39) {
        request.default_addr_pool.clear();
        request.subnet_size = 0;
    }
    if call.version.before(40) {
        request.data_path_port = 0;
    }
    if request.auto_lock_managers {
        request.spec.encryption_config.auto_lock_managers = true;
    }
    let swarm = call.swarm;
    let node_id = to_the_end(async move { swarm.init(request).await }).await?;
    Ok(body::ok(&node_id))
}

async fn join(mut call: Call) -> Outcome {
    let request: SwarmJoinRequest = call.json().await?;
    let swarm = call.swarm;
    to_the_end(async move { swarm.join(request).await }).await?;
    Ok(body::empty(StatusCode::OK))
}

async fn leave(call: Call) -> Outcome {
    let (swarm, force) = (call.swarm, call.query.flag("force"));
    to_the_end(async move { swarm.leave(force).await }).await?;
    Ok(body::empty(StatusCode::OK))
}

async fn inspect(call: Call) -> Outcome {
    let swarm = call
        .swarm
        .read(|store, _| view::swarm(store))
        .await?
        .map_err(Error::from)?;
    Ok(body::ok(&swarm))
}

async fn update(mut call: Call) -> Outcome {
    let spec: SwarmSpec = call.json().await?;
    let version = call.object_version("swarm")?;
    if call.boolean("rotateManagerUnlockKey")? {
        return Err(Error::unsupported("autolock").into());
    }
    let request = Request::SwarmUpdate {
        version,
        spec: Box::new(spec),
        rotate: TokenRotation {
            worker: call.boolean("rotateWorkerToken")?,
            manager: call.boolean("rotateManagerToken")?,
        },
    };
    call.change(request).await?;
    Ok(body::empty(StatusCode::OK))
}

async fn unlock_key(call: Call) -> Outcome {
    call.swarm.is_manager()?;
    Ok(body::ok(&UnlockKey::default()))
}

async fn unlock(mut call: Call) -> Outcome {
    // No key opens what is not locked.
    let _: serde_json::Value = call.json().await?;
    let inactive =
        call.swarm.info().await.local_node_state == agent_api::swarm::LocalNodeState::Inactive;
    Err(if inactive {
        HttpError::unavailable("This node is not part of a swarm")
    } else {
        Error::conflict("swarm is not locked").into()
    })
}
