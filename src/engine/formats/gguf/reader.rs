//! Owns: bounded little-endian reads for the container. Must not know: the layout of a GGUF.
//! Invariant: nothing is allocated for a length before it was compared with what is left of the file.

use std::io;

use super::error::GgufError;
use super::value::TextList;

/// Most bytes of header (all before tensor data). Vocabularies of 256 000 tokens take about 12 MB.
pub const MAX_HEADER_BYTES: u64 = 256 << 20;

/// Bytes fetched at a time.
pub(super) const WINDOW: usize = 64 << 10;

/// Fetches exactly the slice's length of bytes from an absolute offset.
pub type ReadAt<'a> = dyn Fn(u64, &mut [u8]) -> io::Result<()> + 'a;

/// Says what is being read, only when an error needs the words.
pub(super) type What<'a> = &'a dyn Fn() -> String;

/// A number of `N` bytes, little-endian.
pub(super) trait Number<const N: usize>: Copy {
    fn from_le(bytes: [u8; N]) -> Self;
}

macro_rules! numbers {
    ($($ty:ty: $n:literal),*) => {
        $(impl Number<$n> for $ty {
            fn from_le(bytes: [u8; $n]) -> Self {
                Self::from_le_bytes(bytes)
            }
        })*
    };
}
numbers!(u8: 1, i8: 1, u16: 2, i16: 2, u32: 4, i32: 4, f32: 4, u64: 8, i64: 8, f64: 8);

/// A cursor with a read-ahead window, so that a vocabulary does not cost one `read_at` a token.
pub(super) struct Reader<'a> {
    read_at: &'a ReadAt<'a>,
    end: u64,
    /// Absolute byte offset of the next read.
    pub(super) pos: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> Reader<'a> {
    pub(super) fn new(read_at: &'a ReadAt<'a>, file_len: u64) -> Self {
        Self {
            read_at,
            end: file_len,
            pos: 0,
            window: Vec::new(),
            window_at: 0,
        }
    }

    /// Refuses to go on unless `need` more bytes are in the file and within the header limit.
    fn need(&self, need: u64, what: What<'_>) -> Result<(), GgufError> {
        let left = self.end - self.pos;
        if need > left {
            return Err(GgufError::Truncated {
                what: what(),
                need,
                left,
            });
        }
        if self.pos + need > MAX_HEADER_BYTES {
            let what = format!("header size, bytes, at {}", what());
            return Err(GgufError::Limit {
                what,
                got: self.pos + need,
                limit: MAX_HEADER_BYTES,
            });
        }
        Ok(())
    }

    fn fill(&mut self, mut out: &mut [u8], what: What<'_>) -> Result<(), GgufError> {
        self.need(out.len() as u64, what)?;
        while !out.is_empty() {
            let at = (self.pos - self.window_at) as usize;
            if at >= self.window.len() {
                self.refill(what)?;
                continue;
            }
            let n = out.len().min(self.window.len() - at);
            let (now, later) = out.split_at_mut(n);
            now.copy_from_slice(&self.window[at..at + n]);
            self.pos += n as u64;
            out = later;
        }
        Ok(())
    }

    fn refill(&mut self, what: What<'_>) -> Result<(), GgufError> {
        let n = (self.end - self.pos).min(WINDOW as u64) as usize;
        self.window.resize(n, 0);
        self.window_at = self.pos;
        (self.read_at)(self.pos, &mut self.window).map_err(|source| GgufError::Io {
            what: what(),
            offset: self.pos,
            source,
        })
    }

    pub(super) fn array<const N: usize>(&mut self, what: What<'_>) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    pub(super) fn scalar<T: Number<N>, const N: usize>(&mut self, what: What<'_>) -> Result<T, GgufError> {
        Ok(T::from_le(self.array(what)?))
    }

    pub(super) fn u32(&mut self, what: What<'_>) -> Result<u32, GgufError> {
        self.scalar(what)
    }

    pub(super) fn u64(&mut self, what: What<'_>) -> Result<u64, GgufError> {
        self.scalar(what)
    }

    pub(super) fn count(&mut self, what: &str, limit: u64) -> Result<u64, GgufError> {
        let got = self.u64(&|| format!("the {what}"))?;
        if got > limit {
            return Err(GgufError::Limit {
                what: what.into(),
                got,
                limit,
            });
        }
        Ok(got)
    }

    pub(super) fn scalars<T: Number<N>, const N: usize>(
        &mut self,
        n: u64,
        what: What<'_>,
    ) -> Result<Vec<T>, GgufError> {
        self.need(n.saturating_mul(N as u64), what)?;
        let mut out = Vec::with_capacity(n as usize);
        for _ in 0..n {
            out.push(self.scalar(what)?);
        }
        Ok(out)
    }

    pub(super) fn text(&mut self, what: What<'_>) -> Result<Vec<u8>, GgufError> {
        let n = self.u64(what)?;
        self.need(n, what)?;
        let mut out = vec![0; n as usize];
        self.fill(&mut out, what)?;
        Ok(out)
    }

    pub(super) fn texts(&mut self, n: u64, what: What<'_>) -> Result<TextList, GgufError> {
        // each string has at least its length of eight bytes
        self.need(n.saturating_mul(8), what)?;
        let mut list = TextList::default();
        for _ in 0..n {
            list.push(&self.text(what)?);
        }
        Ok(list)
    }

    pub(super) fn name(&mut self, what: What<'_>, limit: u64) -> Result<String, GgufError> {
        let n = self.u64(what)?;
        if n > limit {
            return Err(GgufError::Limit {
                what: format!("length of {}", what()),
                got: n,
                limit,
            });
        }
        self.need(n, what)?;
        let mut bytes = vec![0; n as usize];
        self.fill(&mut bytes, what)?;
        String::from_utf8(bytes).map_err(|error| GgufError::NotUtf8 {
            what: what(),
            got: error.as_bytes().escape_ascii().to_string(),
        })
    }
}
