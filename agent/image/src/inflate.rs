//! Recognises and undoes the compression of a stream, with a bound on how much may come out of how little.
//!
//! gzip (all members), zstd (all frames, skippable ones skipped, as `zstd:chunked` needs), bzip2 and xz (all streams):
//! what `docker load` and `docker import` read, and `ADD` unpacks. All decoders are Rust.

use std::io::{self, BufRead, BufReader, Read};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::limits::Limits;

/// Largest zstd window accepted (`--long=27`, what the reference decoder accepts too).
const ZSTD_WINDOW_MAX: u64 = 128 << 20;
/// Memory that an xz stream may ask for, in KiB: twice what `xz -9` does.
const XZ_MEMORY_MAX_KIB: u32 = 130 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

impl Compression {
    /// Judges by the first bytes of a stream.
    pub(crate) fn detect(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }
}

/// Reads `source` inflated; fails beyond `limits.layer_bytes` or `limits.ratio`.
pub(crate) struct Inflate<R: Read> {
    decoder: Decoder<R>,
    produced: u64,
    limits: Limits,
}

enum Decoder<R: Read> {
    None(Counter<R>),
    Gzip(Box<MultiGzDecoder<BufReader<Counter<R>>>>),
    Zstd(Box<Zstd<BufReader<Counter<R>>>>),
    Bzip2(Box<MultiBzDecoder<BufReader<Counter<R>>>>),
    Xz(Box<XzReader<BufReader<Counter<R>>>>),
}

impl<R: Read> Inflate<R> {
    pub(crate) fn new(source: R, compression: Compression, limits: &Limits) -> Self {
        let source = Counter { source, count: 0 };
        let buffered = |source| BufReader::with_capacity(128 << 10, source);
        Self {
            decoder: match compression {
                Compression::None => Decoder::None(source),
                Compression::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(buffered(source)))),
                Compression::Zstd => Decoder::Zstd(Box::new(Zstd::new(buffered(source)))),
                Compression::Bzip2 => {
                    Decoder::Bzip2(Box::new(MultiBzDecoder::new(buffered(source))))
                }
                Compression::Xz => Decoder::Xz(Box::new(XzReader::new_mem_limit(
                    buffered(source),
                    true,
                    XZ_MEMORY_MAX_KIB,
                ))),
            },
            produced: 0,
            limits: limits.clone(),
        }
    }

    /// The compressed source, which may not have been read to its end.
    pub(crate) fn into_source(self) -> R {
        match self.decoder {
            Decoder::None(source) => source.source,
            Decoder::Gzip(decoder) => decoder.into_inner().into_inner().source,
            Decoder::Zstd(decoder) => decoder.source.into_inner().source,
            Decoder::Bzip2(decoder) => decoder.into_inner().into_inner().source,
            Decoder::Xz(decoder) => decoder.into_inner().into_inner().source,
        }
    }
}

impl<R: Read> Read for Inflate<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (len, consumed) = match &mut self.decoder {
            Decoder::None(source) => (source.read(buffer)?, source.count),
            Decoder::Gzip(decoder) => {
                let len = decoder.read(buffer).map_err(|e| broken("gzip", e))?;
                (len, decoder.get_ref().get_ref().count)
            }
            Decoder::Zstd(decoder) => {
                let len = decoder.read(buffer).map_err(|e| broken("zstd", e))?;
                (len, decoder.source.get_ref().count)
            }
            Decoder::Bzip2(decoder) => {
                let len = decoder.read(buffer).map_err(|e| broken("bzip2", e))?;
                (len, decoder.get_ref().get_ref().count)
            }
            Decoder::Xz(decoder) => {
                let len = decoder.read(buffer).map_err(|e| broken("xz", e))?;
                (len, decoder.inner().get_ref().count)
            }
        };
        self.produced += len as u64;
        let limits = &self.limits;
        if self.produced > limits.layer_bytes {
            return Err(io::Error::other(format!(
                "the stream is longer than {} bytes",
                limits.layer_bytes
            )));
        }
        if self.produced > limits.ratio_grace_bytes
            && self.produced / consumed.max(1) > limits.ratio
        {
            return Err(io::Error::other(format!(
                "decompression bomb: {consumed} bytes inflate to more than {} times as much",
                limits.ratio
            )));
        }
        Ok(len)
    }
}

fn broken(format: &str, error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::Interrupted {
        return error;
    }
    io::Error::new(error.kind(), format!("{format}: {error}"))
}

struct Counter<R> {
    source: R,
    count: u64,
}

impl<R: Read> Read for Counter<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.source.read(buffer)?;
        self.count += len as u64;
        Ok(len)
    }
}

/// A sequence of zstd frames.
struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(ZSTD_WINDOW_MAX);
        Self {
            source,
            decoder,
            in_frame: false,
        }
    }

    /// Starts the next frame; false at the end of the stream.
    fn next_frame(&mut self) -> io::Result<bool> {
        loop {
            if self.source.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.reset(&mut self.source) {
                Ok(()) => {
                    self.in_frame = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let skipped = io::copy(
                        &mut Read::by_ref(&mut self.source).take(u64::from(length)),
                        &mut io::sink(),
                    )?;
                    if skipped < u64::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.in_frame && !self.next_frame()? {
                return Ok(0);
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let more = BlockDecodingStrategy::UptoBytes(buffer.len());
                self.decoder
                    .decode_blocks(&mut self.source, more)
                    .map_err(io::Error::other)?;
            }
            let len = self.decoder.read(buffer)?;
            if len > 0 {
                return Ok(len);
            }
            let stated = self.decoder.get_checksum_from_data();
            if stated.is_some() && stated != self.decoder.get_calculated_checksum() {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "what comes out does not have the frame's checksum",
                ));
            }
            self.in_frame = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn inflate(bytes: &[u8], limits: &Limits) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let compression = Compression::detect(bytes);
        Inflate::new(bytes, compression, limits).read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn all_members_and_frames_are_read() {
        let limits = Limits::default();
        let text: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        assert_eq!(inflate(&text, &limits).unwrap(), text);
        let gz = [gzip(&text[..1000]), gzip(&text[1000..])].concat();
        assert_eq!(inflate(&gz, &limits).unwrap(), text);
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let zst = [
            skippable.clone(),
            zstd(&text[..1000]),
            skippable,
            zstd(&text[1000..]),
        ]
        .concat();
        assert_eq!(inflate(&zst, &limits).unwrap(), text);
    }

    #[test]
    fn truncated_streams_are_errors() {
        let text = vec![7u8; 100_000];
        for whole in [gzip(&text), zstd(&text)] {
            assert!(inflate(&whole[..whole.len() - 1], &Limits::default()).is_err());
            assert!(inflate(&whole[..whole.len() / 2], &Limits::default()).is_err());
        }
    }

    #[test]
    fn flipped_bytes_are_errors() {
        let mut state = 1u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .take(5000)
        .collect();
        // What does not shrink is stored as it is: no decoder notices by the codes.
        for mut whole in [gzip(&noise), zstd(&noise)] {
            let middle = whole.len() / 2;
            whole[middle] ^= 4;
            let error = inflate(&whole, &Limits::default()).unwrap_err();
            assert!(error.to_string().contains("checksum"), "{error}");
        }
    }

    #[test]
    fn bombs_are_stopped() {
        let limits = Limits {
            ratio_grace_bytes: 1 << 20,
            ..Limits::default()
        };
        let bomb = gzip(&vec![0u8; 8 << 20]);
        let error = inflate(&bomb, &limits).unwrap_err().to_string();
        assert!(error.contains("decompression bomb"), "{error}");
        let short = Limits {
            layer_bytes: 1000,
            ..Limits::default()
        };
        assert!(inflate(&gzip(&[1; 1001]), &short).is_err());
    }

    /// "content\n", twice, as the tools of these formats write it.
    const BZIP2: &[u8] = &[
        0x42, 0x5a, 0x68, 0x39, 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, 0x06, 0xd7, 0xfb, 0xa4, 0x00,
        0x00, 0x00, 0xc1, 0x80, 0x00, 0x10, 0x0a, 0x01, 0x84, 0x00, 0x20, 0x00, 0x22, 0x18, 0x68,
        0x30, 0x01, 0x28, 0x53, 0xb0, 0xbb, 0x92, 0x29, 0xc2, 0x84, 0x80, 0x36, 0xbf, 0xdd, 0x20,
        0x42, 0x5a, 0x68, 0x39, 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, 0x06, 0xd7, 0xfb, 0xa4, 0x00,
        0x00, 0x00, 0xc1, 0x80, 0x00, 0x10, 0x0a, 0x01, 0x84, 0x00, 0x20, 0x00, 0x22, 0x18, 0x68,
        0x30, 0x01, 0x28, 0x53, 0xb0, 0xbb, 0x92, 0x29, 0xc2, 0x84, 0x80, 0x36, 0xbf, 0xdd, 0x20,
    ];
    const XZ: &[u8] = &[
        0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x04, 0xe6, 0xd6, 0xb4, 0x46, 0x02, 0x00, 0x21,
        0x01, 0x16, 0x00, 0x00, 0x00, 0x74, 0x2f, 0xe5, 0xa3, 0x01, 0x00, 0x07, 0x63, 0x6f, 0x6e,
        0x74, 0x65, 0x6e, 0x74, 0x0a, 0x00, 0x16, 0x1a, 0xfd, 0xa1, 0x06, 0xce, 0xc3, 0x40, 0x00,
        0x01, 0x20, 0x08, 0xbb, 0x19, 0xd9, 0xbb, 0x1f, 0xb6, 0xf3, 0x7d, 0x01, 0x00, 0x00, 0x00,
        0x00, 0x04, 0x59, 0x5a, 0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x04, 0xe6, 0xd6, 0xb4,
        0x46, 0x02, 0x00, 0x21, 0x01, 0x16, 0x00, 0x00, 0x00, 0x74, 0x2f, 0xe5, 0xa3, 0x01, 0x00,
        0x07, 0x63, 0x6f, 0x6e, 0x74, 0x65, 0x6e, 0x74, 0x0a, 0x00, 0x16, 0x1a, 0xfd, 0xa1, 0x06,
        0xce, 0xc3, 0x40, 0x00, 0x01, 0x20, 0x08, 0xbb, 0x19, 0xd9, 0xbb, 0x1f, 0xb6, 0xf3, 0x7d,
        0x01, 0x00, 0x00, 0x00, 0x00, 0x04, 0x59, 0x5a,
    ];

    #[test]
    fn bzip2_and_xz_are_read_to_their_last_stream() {
        for whole in [BZIP2, XZ] {
            let read = inflate(whole, &Limits::default()).unwrap();
            assert_eq!(read, b"content\ncontent\n");
            assert!(inflate(&whole[..whole.len() - 1], &Limits::default()).is_err());
            assert!(inflate(&whole[..whole.len() / 2 + 5], &Limits::default()).is_err());
        }
    }
}
