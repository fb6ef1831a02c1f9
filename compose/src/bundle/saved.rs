//! Blobs out of the archive in which a daemon saves images. Names, documents and whatever else is in it stay behind.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

use super::{BundleError, Writer, name};

/// Copies the blobs that are wanted, by digest, and gives their sizes. Reads the archive to its end.
///
/// # Errors
/// When a blob is missing or is not what it is called, and when reading or writing fails.
pub fn copy(
    input: impl Read,
    wanted: &BTreeSet<String>,
    writer: &mut Writer<impl Write>,
) -> Result<BTreeMap<String, u64>, BundleError> {
    let failed = || BundleError::io("read the images from the daemon");
    let mut archive = tar::Archive::new(input);
    let mut sizes = BTreeMap::new();
    for entry in archive.entries().map_err(failed())? {
        let mut entry = entry.map_err(failed())?;
        let path = entry.path_bytes();
        let blob = String::from_utf8_lossy(&path).into_owned();
        let Some(name::Kind::Blob(hex)) = name::kind(&blob) else {
            continue;
        };
        let digest = format!("sha256:{hex}");
        if !wanted.contains(&digest) || !entry.header().entry_type().is_file() {
            continue;
        }
        let size = entry.size();
        let actual = writer.stream(&blob, 0o644, size, &mut entry, &mut |_| {})?;
        if actual != digest {
            return Err(BundleError::Unsuited(format!(
                "the daemon sent {actual} as blob {digest}: its store is damaged"
            )));
        }
        sizes.insert(digest, size);
    }
    match wanted.iter().find(|digest| !sizes.contains_key(*digest)) {
        None => Ok(sizes),
        Some(digest) => Err(BundleError::Unsuited(format!(
            "the daemon saved its images without {digest}: a bundle needs layers under their diff ids, as muster and Docker's overlay2 store save them"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    fn saved(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mtime(1234);
            header.set_mode(0o600);
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn wanted_blobs_come_out_and_nothing_else() {
        let digest = super::super::digest(b"layer");
        let name = name::of_blob(&digest).unwrap();
        let other = name::of_blob(&super::super::digest(b"other")).unwrap();
        let archive = saved(&[
            (&other, b"other"),
            (&name, b"layer"),
            ("manifest.json", b"[]"),
        ]);
        let wanted = BTreeSet::from([digest.clone()]);
        let mut writer = Writer::new(Vec::new());
        let sizes = copy(&archive[..], &wanted, &mut writer).unwrap();
        assert_eq!(sizes, BTreeMap::from([(digest.clone(), 5)]));
        let bytes = writer.finish().unwrap();
        let index = super::super::Index::read(&mut io::Cursor::new(bytes)).unwrap();
        assert_eq!(index.entries.keys().collect::<Vec<_>>(), [&name]);

        let fails = |archive: &[u8]| {
            let mut writer = Writer::new(io::sink());
            copy(archive, &wanted, &mut writer).unwrap_err().to_string()
        };
        assert!(fails(&saved(&[(&name, b"LAYER")])).contains("its store is damaged"));
        assert!(fails(&saved(&[(&other, b"other")])).contains(&digest));
        assert!(fails(&archive[..700]).contains("read the images"));
    }
}
