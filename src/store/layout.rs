//! How the file of a sealed segment is laid out: a header, the chunks, and a database of indexes.
//!
//! ```text
//! header    4,096 bytes: magic 8 bytes, offset of the database u64, XXH3-64 of these 16 bytes u64; the rest is zero
//! chunks    company by company, in the order of their events, without gaps
//! database  a redb file, from a multiple of 4,096 on
//! ```
//! Chunks that follow each other are read at once, straight into the memory that they are served from. A file of format 1
//! is a database alone, which holds the chunks too.

use std::io;
use std::ops::Bound;

use redb::{BackendError, StorageBackend};
use twox_hash::XxHash3_64;

use super::disk::FileStorage;

const MAGIC: [u8; 8] = *b"lutine\x1a\x02";
/// Bytes of the header; the database starts at a multiple of it.
const PAGE_BYTES: u64 = 4096;
/// Bytes of chunks that are collected before they are written.
const WRITE_BYTES: usize = 512 * 1024;

/// A database that lies behind other bytes of the same file.
#[derive(Debug)]
struct Behind {
    storage: FileStorage,
    offset: u64,
}

impl StorageBackend for Behind {
    fn len(&self) -> io::Result<u64> {
        Ok(self.storage.len()?.saturating_sub(self.offset))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.storage.read(self.offset + offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.storage.set_len(self.offset + len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.storage.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.storage.write(self.offset + offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.storage.close()
    }

    // The ranges are names that redb agrees on with itself, not places of the content.
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.storage.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.storage.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.storage.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.storage.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.storage.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.storage.query_lock_range(start, end)
    }
}

fn header_sum(start: &[u8]) -> u64 {
    XxHash3_64::oneshot(start)
}

/// Where the database starts in the file of a sealed segment; 0 in one of format 1.
pub(super) fn database_offset(storage: &FileStorage) -> io::Result<u64> {
    if storage.len()? < PAGE_BYTES {
        return Ok(0);
    }
    let mut header = [0; 24];
    storage.read(0, &mut header)?;
    let (start, sum) = header.split_at(16);
    let Some(offset) = start.strip_prefix(&MAGIC) else { return Ok(0) };
    let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
    if number(sum) != header_sum(start) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the header of a sealed segment is damaged"));
    }
    Ok(number(offset))
}

/// The database in the file of a sealed segment, of any format.
///
/// # Errors
/// Those of the operating system; `InvalidData` when the header is damaged.
pub fn sealed_database(storage: FileStorage) -> io::Result<FileStorage> {
    match database_offset(&storage)? {
        0 => Ok(storage),
        offset => Ok(FileStorage::new(Behind { storage, offset })),
    }
}

/// Writes the chunks of a sealed file, one behind the other.
#[derive(Debug)]
pub(super) struct ChunkArea {
    storage: FileStorage,
    collected: Vec<u8>,
    /// Where the collected bytes will lie.
    offset: u64,
}

impl ChunkArea {
    /// In a file that is empty.
    pub fn new(storage: FileStorage) -> Self {
        Self { storage, collected: Vec::with_capacity(WRITE_BYTES), offset: PAGE_BYTES }
    }

    /// Appends a chunk, and tells where it lies.
    pub fn push(&mut self, chunk: &[u8]) -> io::Result<u64> {
        if self.collected.len() + chunk.len() > WRITE_BYTES {
            self.flush()?;
        }
        let place = self.offset + self.collected.len() as u64;
        self.collected.extend_from_slice(chunk);
        Ok(place)
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.collected.is_empty() {
            self.storage.write(self.offset, &self.collected)?;
            self.offset += self.collected.len() as u64;
            self.collected.clear();
        }
        Ok(())
    }

    /// Writes what is left and the header; nothing is synced yet. Gives the storage of the database that follows.
    pub fn finish(mut self) -> io::Result<FileStorage> {
        self.flush()?;
        let offset = self.offset.next_multiple_of(PAGE_BYTES);
        let mut header = Vec::with_capacity(24);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&offset.to_le_bytes());
        let sum = header_sum(&header);
        header.extend_from_slice(&sum.to_le_bytes());
        self.storage.write(0, &header)?;
        self.storage.set_len(offset)?;
        Ok(FileStorage::new(Behind { storage: self.storage, offset }))
    }
}
