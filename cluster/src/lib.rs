//! Manager side of a swarm.
