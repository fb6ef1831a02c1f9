//! The labels that make an object of a cluster part of a stack. Names and meaning are Docker's (docker/cli
//! `cli/compose/convert`), so that `docker stack ls`, `ps`, `services` and `rm` understand stacks made here, and the
//! other way round; the two of our own only add to them.

/// Name of the stack: on services, their containers, networks, volumes, secrets and configs.
pub const NAMESPACE: &str = "com.docker.stack.namespace";
/// Image of a service as the file names it, while the service itself may hold it with a digest.
pub const IMAGE: &str = "com.docker.stack.image";
/// Key of a secret or config in the file, ours: its name carries a digest too.
pub const KEY: &str = "dev.muster.stack.key";
