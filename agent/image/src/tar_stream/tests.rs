//! The reader loses no byte and never panics, whatever it is fed.

use std::cell::RefCell;
use std::rc::Rc;

use proptest::prelude::*;

use super::*;

/// The stream put together again from what the reader hands out.
#[derive(Clone, Default)]
struct Record(Rc<RefCell<Vec<u8>>>);

impl RawSink for Record {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(())
    }
}

/// Reads `stream` to its end; payload of every second file is left to the reader to skip.
fn replay(stream: &[u8], limits: &Limits) -> (Result<Vec<Entry>, TarError>, Vec<u8>) {
    let record = Record::default();
    // A small buffer, so that everything is cut across its end.
    let source = io::BufReader::with_capacity(100, stream);
    let mut tar = TarReader::new(source, record.clone(), limits.clone());
    let mut read = || {
        let mut entries = Vec::new();
        while let Some(entry) = tar.next_entry()? {
            if entries.len() % 2 == 0 {
                loop {
                    let bytes = tar.fill_payload()?;
                    if bytes.is_empty() {
                        break;
                    }
                    let len = bytes.len();
                    record.0.borrow_mut().extend_from_slice(bytes);
                    tar.consume_payload(len);
                }
            }
            entries.push(entry);
        }
        Ok(entries)
    };
    let entries = read();
    let result = entries.and_then(|entries| tar.finish().map(|_| entries));
    (result, record.0.borrow().clone())
}

fn long() -> String {
    format!("{}x", "long/".repeat(60))
}

fn sample() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, size: usize| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(1);
        header.set_gid(2);
        header.set_mtime(3);
        header.set_size(size as u64);
        let content = vec![b'x'; size];
        builder
            .append_data(&mut header, name, &content[..])
            .unwrap();
    };
    add("a", 0);
    add("b", 700);
    add(&long(), 3);
    add("c", 1024);
    let pax = [("SCHILY.xattr.user.a", &b"v"[..]), ("path", b"renamed")];
    builder.append_pax_extensions(pax).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(5);
    header.set_mode(0o600);
    builder
        .append_data(&mut header, "d", &b"12345"[..])
        .unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn what_another_writer_wrote_is_read() {
    let stream = sample();
    let (entries, bytes) = replay(&stream, &Limits::default());
    let entries = entries.unwrap();
    assert!(bytes == stream);
    let names: Vec<_> = entries
        .iter()
        .map(|entry| String::from_utf8_lossy(&entry.path))
        .collect();
    assert_eq!(names, ["a", "b", &*long(), "c", "renamed"]);
    let sizes: Vec<_> = entries.iter().map(|entry| entry.size).collect();
    assert_eq!(sizes, [0, 700, 3, 1024, 5]);
    assert_eq!(entries[4].xattrs, [(b"user.a".to_vec(), b"v".to_vec())]);
}

#[test]
fn numbers_in_all_notations() {
    for (field, value) in [
        (&b"0000644\0"[..], Some(0o644)),
        (b"   644 \0", Some(0o644)),
        (b"\0\0\0\0", Some(0)),
        (b"        ", Some(0)),
        (b"\x80\0\0\0\0\x20\0\0", Some(1 << 21)),
        (b"\xff\xff\xff\xff", Some(-1)),
        (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        (b"12x", None),
        (b"99", None),
    ] {
        assert_eq!(numeric(field), value, "{field:?}");
    }
}

proptest! {
    /// Mutations of a good stream: no panic, and as long as there is no error, every byte comes out again in order.
    #[test]
    fn mutations_lose_nothing(
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
        refresh in any::<bool>(),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let mut stream = sample();
        for (index, value) in edits {
            let at = index.index(stream.len());
            stream[at] = value;
            if refresh {
                // A right checksum lets the damage through to the fields.
                let start = at / BLOCK * BLOCK;
                let block: &mut [u8] = &mut stream[start..start + BLOCK];
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        if let Some(cut) = cut {
            stream.truncate(cut.index(stream.len()));
        }
        let limits = Limits { layer_bytes: 1 << 20, ..Limits::default() };
        let (entries, bytes) = replay(&stream, &limits);
        if entries.is_ok() {
            prop_assert!(bytes == stream);
        } else {
            prop_assert!(stream.starts_with(&bytes));
        }
    }
}
