//! What a person asks of a deployment.

/// How a stack is deployed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeployOptions {
    /// What of the stack is not in the file any more.
    pub leftovers: Leftovers,
    /// When images are looked up.
    pub resolve: ResolveImage,
}

/// What happens with services, networks, secrets and configs that are not in the file any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leftovers {
    /// They stay.
    #[default]
    Keep,
    /// They are removed.
    Prune,
}

/// When the name of an image is looked up, so that all nodes run the same one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResolveImage {
    /// At every deployment.
    #[default]
    Always,
    /// When the file names another image than before.
    Changed,
    /// Never: every node takes what the name means to it.
    Never,
}
