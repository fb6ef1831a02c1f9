//! PAX extended header records: `<length> <key>=<value>\n`, the keys that matter to a layer.
//!
//! Rules as in Go's `archive/tar` (`reader.go:mergePAX`, `strconv.go:parsePAXRecord`): a later record wins,
//! an empty value deletes, names may not hold zero bytes. Unknown keys are ignored, as the standard demands.

use indexmap::IndexMap;

use super::Fragment;

/// Extended attributes of one entry. File systems keep them in a block or two.
const XATTRS_MAX: usize = 1024;
const XATTR: &[u8] = b"SCHILY.xattr.";

/// What the records of one entry say.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: IndexMap<Vec<u8>, Vec<u8>>,
    pub(super) sparse: Sparse,
}

/// The `GNU.sparse.*` records.
#[derive(Debug, Default)]
pub(super) struct Sparse {
    pub(super) present: bool,
    /// Major and minor; formats 0.0 and 0.1 do not say.
    pub(super) version: (u32, u32),
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// The map of formats 0.0 and 0.1.
    pub(super) map: Vec<Fragment>,
    pending_offset: Option<u64>,
}

impl Records {
    /// The records of one extended header. The error says what is wrong.
    pub(super) fn parse(mut body: &[u8]) -> Result<Self, &'static str> {
        const BAD: &str = "bad PAX record";
        let mut records = Self::default();
        while !body.is_empty() {
            let space = body.iter().take(20).position(|b| *b == b' ').ok_or(BAD)?;
            let length: usize = text(&body[..space])
                .and_then(|t| t.parse().ok())
                .ok_or(BAD)?;
            if length <= space + 1 || length > body.len() || body[length - 1] != b'\n' {
                return Err(BAD);
            }
            let record = &body[space + 1..length - 1];
            let equals = record.iter().position(|b| *b == b'=').ok_or(BAD)?;
            records.record(&record[..equals], &record[equals + 1..])?;
            body = &body[length..];
        }
        Ok(records)
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let named = || -> Result<Option<Vec<u8>>, &'static str> {
            if value.contains(&0) {
                return Err("a zero byte in a PAX name");
            }
            Ok((!value.is_empty()).then(|| value.to_vec()))
        };
        match key {
            b"path" => self.path = named()?,
            b"linkpath" => self.link = named()?,
            b"size" => self.size = optional(value, "bad PAX size")?,
            b"uid" => self.uid = optional(value, "bad PAX uid")?,
            b"gid" => self.gid = optional(value, "bad PAX gid")?,
            b"mtime" => {
                self.mtime = match value {
                    b"" => None,
                    value => Some(time(value).ok_or("bad PAX mtime")?),
                }
            }
            b"GNU.sparse.major" => {
                self.sparse.present = true;
                self.sparse.version.0 = number(value, "bad sparse version")?;
            }
            b"GNU.sparse.minor" => {
                self.sparse.present = true;
                self.sparse.version.1 = number(value, "bad sparse version")?;
            }
            b"GNU.sparse.name" => self.sparse.name = named()?,
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => {
                self.sparse.present = true;
                self.sparse.real_size = Some(number(value, "bad sparse size")?);
            }
            b"GNU.sparse.offset" => {
                self.sparse.present = true;
                self.sparse.pending_offset = Some(number(value, "bad sparse map")?);
            }
            b"GNU.sparse.numbytes" => {
                let offset = self.sparse.pending_offset.take().ok_or("bad sparse map")?;
                let len = number(value, "bad sparse map")?;
                self.sparse.map.push(Fragment { offset, len });
            }
            b"GNU.sparse.map" => {
                self.sparse.present = true;
                self.sparse.map = map(value).ok_or("bad sparse map")?;
            }
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    if name.is_empty() || name.contains(&0) {
                        return Err("bad name of an extended attribute");
                    }
                    self.xattrs.insert(name.to_vec(), value.to_vec());
                    if self.xattrs.len() > XATTRS_MAX {
                        return Err("too many extended attributes");
                    }
                }
            }
        }
        Ok(())
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn number<T: std::str::FromStr>(value: &[u8], what: &'static str) -> Result<T, &'static str> {
    text(value).and_then(|t| t.parse().ok()).ok_or(what)
}

fn optional<T: std::str::FromStr>(
    value: &[u8],
    what: &'static str,
) -> Result<Option<T>, &'static str> {
    if value.is_empty() {
        return Ok(None);
    }
    number(value, what).map(Some)
}

/// `[-]seconds[.fraction]`; digits beyond nanoseconds are cut.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let value = text(value)?;
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some((seconds, nanoseconds))
}

/// `offset,length,offset,length…`.
fn map(value: &[u8]) -> Option<Vec<Fragment>> {
    let numbers: Vec<u64> = text(value)?
        .split(',')
        .map(|n| n.parse().ok())
        .collect::<Option<_>>()?;
    if !numbers.len().is_multiple_of(2) {
        return None;
    }
    Some(
        numbers
            .chunks_exact(2)
            .map(|pair| Fragment {
                offset: pair[0],
                len: pair[1],
            })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let body = key.len() + value.len() + 3;
        let mut length = body + body.to_string().len();
        if body + length.to_string().len() != length {
            length = body + length.to_string().len();
        }
        let mut out = format!("{length} {key}=").into_bytes();
        out.extend_from_slice(value);
        out.push(b'\n');
        out
    }

    #[test]
    fn records_are_read() {
        let mut body = record("path", b"a\nb=c");
        body.extend(record("mtime", b"-1.25"));
        body.extend(record("uid", b"3000000"));
        body.extend(record("SCHILY.xattr.user.a", b"\0\n\xff"));
        body.extend(record("SCHILY.xattr.user.a", b"last"));
        body.extend(record("comment", b"ignored"));
        let records = Records::parse(&body).unwrap();
        assert_eq!(records.path.as_deref(), Some(&b"a\nb=c"[..]));
        assert_eq!(records.mtime, Some((-2, 750_000_000)));
        assert_eq!(records.uid, Some(3_000_000));
        let xattrs: Vec<_> = records.xattrs.into_iter().collect();
        assert_eq!(xattrs, [(b"user.a".to_vec(), b"last".to_vec())]);
    }

    #[test]
    fn many_attributes_of_one_name_cost_no_more_than_their_bytes() {
        let one: Vec<u8> = (0..60_000)
            .flat_map(|n| record("SCHILY.xattr.a", n.to_string().as_bytes()))
            .collect();
        let records = Records::parse(&one).unwrap();
        assert_eq!(records.xattrs[&b"a"[..]], b"59999");
        let many: Vec<u8> = (0..=XATTRS_MAX)
            .flat_map(|n| record(&format!("SCHILY.xattr.{n}"), b""))
            .collect();
        let error = Records::parse(&many).unwrap_err();
        assert_eq!(error, "too many extended attributes");
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [
            &b"5 a=b"[..],
            b"99 a=b\n",
            b"0 a=b\n",
            b"x a=b\n",
            b"6 abc\n",
            b"-6 a=b\n",
            b"10 uid=-1\n",
            b"12 size=1e9\n",
            b"10 path=\0\n",
        ] {
            assert!(
                Records::parse(bad).is_err(),
                "{:?}",
                String::from_utf8_lossy(bad)
            );
        }
    }
}
