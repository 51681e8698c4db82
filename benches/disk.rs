//! The disk limit: an append-only file, one write and one fdatasync per batch.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of one event in the append-only file.
const EVENT_BYTES: usize = 1024;

/// Appends batches of events for the given time; returns events per second.
pub fn append_rate(directory: &Path, batch_events: usize, duration: Duration) -> f64 {
    let batch = vec![b'x'; batch_events * EVENT_BYTES];
    with_scratch_file(directory, |file| {
        let started = Instant::now();
        let mut events = 0;
        while started.elapsed() < duration {
            file.write_all(&batch).expect("the disk takes a batch");
            file.sync_data().expect("the disk syncs a batch");
            events += batch_events;
        }
        events as f64 / started.elapsed().as_secs_f64()
    })
}

/// Writes so many bytes in order with one fdatasync at the end; returns bytes per second.
pub fn sequential_rate(directory: &Path, bytes: u64) -> f64 {
    let block = vec![b'x'; 1024 * 1024];
    with_scratch_file(directory, |file| {
        let started = Instant::now();
        let blocks = bytes.div_ceil(block.len() as u64).max(1);
        for _ in 0..blocks {
            file.write_all(&block).expect("the disk takes a block");
        }
        file.sync_data().expect("the disk syncs the file");
        (blocks * block.len() as u64) as f64 / started.elapsed().as_secs_f64()
    })
}

/// The bytes of the blocks that a file, or everything below a directory, takes from the disk.
pub fn allocated(path: &Path) -> u64 {
    // A file that is renamed or unlinked meanwhile counts as nothing.
    let Ok(metadata) = path.symlink_metadata() else { return 0 };
    let own = metadata.blocks() * 512;
    if !metadata.is_dir() {
        return own;
    }
    let Ok(entries) = path.read_dir() else { return own };
    own + entries.filter_map(Result::ok).map(|entry| allocated(&entry.path())).sum::<u64>()
}

fn with_scratch_file(directory: &Path, measure: impl FnOnce(&mut File) -> f64) -> f64 {
    let path = directory.join("append-only");
    let rate = measure(&mut File::create(&path).expect("a scratch file"));
    std::fs::remove_file(&path).expect("the scratch file goes away");
    rate
}
