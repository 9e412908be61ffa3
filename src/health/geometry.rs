//! How WAL positions lie in pages, so that positions at a page's start compare.
//!
//! After a segment switch an idle primary's insert position stands behind the
//! page header, while the replica's replay position stands at the page's start
//! until the next record. Both mean the same place.

use crate::types::Lsn;

/// Sizes of WAL pages and segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    block_bytes: u64,
    segment_bytes: u64,
}

impl Geometry {
    /// `wal_block_size` and `wal_segment_size`, in bytes; `None` if either
    /// can't be: not a power of two, or pages larger than segments.
    pub fn new(block_bytes: u64, segment_bytes: u64) -> Option<Self> {
        let fits = block_bytes.is_power_of_two()
            && segment_bytes.is_power_of_two()
            && block_bytes > LONG_HEADER_BYTES
            && block_bytes <= segment_bytes;
        fits.then_some(Self { block_bytes, segment_bytes })
    }

    /// `lsn`, or the start of its page if only the page's header lies between.
    pub fn normalise(self, lsn: Lsn) -> Lsn {
        let bytes = lsn.bytes();
        let in_page = bytes & (self.block_bytes - 1);
        let first_page = bytes & (self.segment_bytes - 1) < self.block_bytes;
        let header = if first_page { LONG_HEADER_BYTES } else { SHORT_HEADER_BYTES };
        if in_page <= header { Lsn::new(bytes - in_page) } else { lsn }
    }
}

impl Default for Geometry {
    /// What servers are built with unless told otherwise.
    fn default() -> Self {
        Self { block_bytes: 8192, segment_bytes: 16 * 1024 * 1024 }
    }
}

/// Header of a segment's first page.
const LONG_HEADER_BYTES: u64 = 40;
/// Header of every other page.
const SHORT_HEADER_BYTES: u64 = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_behind_a_page_header_is_the_page_start() {
        let geometry = Geometry::default();
        let normal = |text: &str| geometry.normalise(text.parse().unwrap()).to_string();
        assert_eq!(normal("0/3000028"), "0/3000000", "a segment's first page has 40 bytes");
        assert_eq!(normal("0/3000029"), "0/3000029");
        assert_eq!(normal("0/3002018"), "0/3002000", "other pages have 24");
        assert_eq!(normal("0/3002028"), "0/3002028");
        assert_eq!(normal("0/3002000"), "0/3002000");
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert!(Geometry::new(8192, 16 << 20).is_some());
        assert!(Geometry::new(0, 16 << 20).is_none());
        assert!(Geometry::new(8192, 4096).is_none());
        assert!(Geometry::new(8191, 16 << 20).is_none());
    }
}
