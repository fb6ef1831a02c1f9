//! Bounds on what an archive from outside may make the store do.
//!
//! Every number is far above what real images need (the largest public ones have about a million
//! files and 50 GB) and low enough that hitting it costs seconds, not the machine.

/// Bounds on one `load` or `import`.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Members of the outer archive.
    pub members: u64,
    /// Entries in one layer, extension headers counted.
    pub entries: u64,
    /// Files and directories of one layer that later entries of the same layer replace. Layers written by builders have
    /// none; each is kept for `save`.
    pub replaced: usize,
    /// Bytes of one layer's tar stream after inflating, and the sum of its files' apparent sizes.
    pub layer_bytes: u64,
    /// Inflated bytes per compressed byte, looked at once `ratio_grace_bytes` have been produced.
    /// Deflate cannot exceed 1032; a text-only layer reaches about 20.
    pub ratio: u64,
    /// Inflated bytes of one stream that are never called a bomb.
    pub ratio_grace_bytes: u64,
    /// Bytes of one path or link target inside a tar (Linux itself refuses 4096).
    pub path_bytes: usize,
    /// Directory levels of one path.
    pub path_depth: usize,
    /// Bytes of the PAX records of one entry (long names and extended attributes).
    pub pax_bytes: u64,
    /// Data fragments of one sparse file.
    pub sparse_fragments: usize,
    /// Bytes of one JSON document (manifest, index, image configuration).
    pub json_bytes: u64,
    /// Bytes of all JSON documents of one archive together.
    pub json_total_bytes: u64,
    /// Images in one archive, and layers in one image. Overlayfs stacks up to 500 layers,
    /// Docker 127.
    pub images: usize,
    /// Layers in one image.
    pub layers: usize,
    /// Levels of indexes within indexes.
    pub index_depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            members: 65_536,
            entries: 10_000_000,
            replaced: 65_536,
            layer_bytes: 1 << 40,
            ratio: 200,
            ratio_grace_bytes: 1 << 30,
            path_bytes: 4095,
            path_depth: 256,
            pax_bytes: 1 << 20,
            sparse_fragments: 65_536,
            json_bytes: 8 << 20,
            json_total_bytes: 64 << 20,
            images: 1024,
            layers: 127,
            index_depth: 4,
        }
    }
}
