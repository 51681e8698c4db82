//! Where the store's files lie: a directory of the operating system, or a simulated disk.
//!
//! Everything the store does to files goes through [`Disk`], so that a test can lose, reorder and tear
//! what was not yet synced. File names are relative, with `/` between folder and file.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};
use rustix::buffer::spare_capacity;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// It must not exist yet.
    CreateNew,
    /// It exists, for reading and writing.
    ReadWrite,
    /// It exists, for reading.
    ReadOnly,
}

/// The file operations that the store needs.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Opens a file as the storage of one redb database.
    ///
    /// # Errors
    /// Those of the operating system.
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<FileStorage>;

    /// The names of the files in `folder`, in no particular order.
    ///
    /// # Errors
    /// Those of the operating system.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;

    /// Gives a file another name, replacing what has it.
    ///
    /// # Errors
    /// Those of the operating system.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file's name; whoever has it open may go on reading.
    ///
    /// # Errors
    /// Those of the operating system.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes what was created, renamed and removed in `folder` durable.
    ///
    /// # Errors
    /// Those of the operating system.
    fn sync_folder(&self, folder: &str) -> io::Result<()>;

    /// Bytes of disk that a file takes (its blocks, not its length).
    ///
    /// # Errors
    /// Those of the operating system.
    fn disk_bytes(&self, name: &str) -> io::Result<u64>;
}

/// The storage of one database, whatever disk it comes from. A clone is another handle to the same one.
#[derive(Debug, Clone)]
pub struct FileStorage {
    backend: Arc<dyn StorageBackend>,
    /// The file behind it, where there is one: what is read from it needs no buffer that was filled before.
    file: Option<Arc<File>>,
}

impl FileStorage {
    /// Wraps a backend.
    #[must_use]
    pub fn new(backend: impl StorageBackend) -> Self {
        Self { backend: Arc::new(backend), file: None }
    }

    /// Exactly `length` bytes from `offset` on.
    ///
    /// # Errors
    /// Those of the operating system; `UnexpectedEof` when the file ends before.
    pub fn read_bytes(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let Some(file) = &self.file else {
            let mut bytes = vec![0; length];
            self.read(offset, &mut bytes)?;
            return Ok(bytes);
        };
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let next = offset + bytes.len() as u64;
            match rustix::io::pread(file, spare_capacity(&mut bytes), next) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        bytes.truncate(length);
        Ok(bytes)
    }
}

impl StorageBackend for FileStorage {
    fn len(&self) -> io::Result<u64> {
        self.backend.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.backend.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.backend.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.backend.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.backend.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.backend.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.query_lock_range(start, end)
    }
}

/// A storage whose `sync_data` does nothing: a planted bug for the tests of the tests.
#[derive(Debug)]
pub(super) struct Unsynced(pub FileStorage);

impl StorageBackend for Unsynced {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

/// A data directory of the operating system, held by one process at a time.
#[derive(Debug)]
pub struct DataDirectory {
    root: PathBuf,
    /// Held for as long as the directory is open; the lock goes with it.
    _lock: File,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirectoryError {
    /// Another process has it.
    #[error("another lutine process uses the data directory {}", .0.display())]
    InUse(PathBuf),
    /// The operating system refused.
    #[error("the data directory {} cannot be used: {source}", path.display())]
    Io {
        /// The directory or the file in it.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

/// Folders inside a data directory.
const FOLDERS: [&str; 2] = ["log", "attempts"];

impl DataDirectory {
    /// Makes the directory if it is not there (mode 0700), and takes its lock.
    ///
    /// # Errors
    /// When another process holds the lock, or the operating system refuses.
    pub fn open(root: &Path) -> Result<Self, DataDirectoryError> {
        let refused = |path: &Path| {
            let path = path.to_owned();
            move |source| DataDirectoryError::Io { path, source }
        };
        // A directory that was made here is not on disk before its parent is.
        let made: Vec<&Path> = root.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists()).collect();
        for folder in FOLDERS.iter().map(|folder| root.join(folder)).chain([root.to_owned()]) {
            fs::create_dir_all(&folder).map_err(refused(&folder))?;
            fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700)).map_err(refused(&folder))?;
        }
        for folder in made {
            let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(refused(parent))?;
        }
        let lock_path = root.join("lutine.lock");
        let lock = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&lock_path).map_err(refused(&lock_path))?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(DataDirectoryError::InUse(root.to_owned())),
            Err(errno) => return Err(DataDirectoryError::Io { path: lock_path, source: errno.into() }),
        }
        File::open(root).and_then(|folder| folder.sync_all()).map_err(refused(root))?;
        Ok(Self { root: root.to_owned(), _lock: lock })
    }

    /// Asks the operating system to forget what it holds of the files in memory.
    ///
    /// After a failed sync the page cache may hold what the disk does not; a start that follows
    /// one must read from the disk (fsync failures, USENIX ATC 2020, Rebello et al.).
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn drop_page_cache(&self) -> io::Result<()> {
        let folders = FOLDERS.iter().map(|folder| self.root.join(folder)).chain([self.root.clone()]);
        for folder in folders {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                if entry.path().extension().is_some_and(|extension| extension == "redb") {
                    let file = File::open(entry.path())?;
                    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
                }
            }
        }
        Ok(())
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Disk for DataDirectory {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<FileStorage> {
        let mut options = OpenOptions::new();
        options.read(true).write(mode != OpenMode::ReadOnly).create_new(mode == OpenMode::CreateNew);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(self.root.join(name))?;
        let second = file.try_clone()?;
        let backend = FileBackend::new(file).map_err(io::Error::other)?;
        Ok(FileStorage { file: Some(Arc::new(second)), ..FileStorage::new(backend) })
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.root.join(folder))? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.root.join(from), self.root.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.root.join(name))
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        File::open(self.root.join(folder))?.sync_all()
    }

    fn disk_bytes(&self, name: &str) -> io::Result<u64> {
        let metadata = fs::metadata(self.root.join(name))?;
        Ok(std::os::unix::fs::MetadataExt::blocks(&metadata) * 512)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// redb asks its backend about locks, and takes "unsupported" for an answer only in some places.
    #[test]
    fn a_closed_file_opens_for_reading_and_excludes_a_writer() {
        let folder = tempfile::tempdir().unwrap();
        let disk = DataDirectory::open(folder.path()).unwrap();
        let create = disk.open("log/1.redb", OpenMode::CreateNew).unwrap();
        redb::Builder::new().create_with_backend(create).unwrap().close().unwrap();
        let reading = || redb::Builder::new().open_read_only_with_backend(disk.open("log/1.redb", OpenMode::ReadOnly).unwrap());
        let (first, second) = (reading().unwrap(), reading().unwrap());
        let writing = disk.open("log/1.redb", OpenMode::ReadWrite).unwrap();
        assert!(matches!(redb::Builder::new().create_with_backend(writing), Err(redb::DatabaseError::DatabaseAlreadyOpen)));
        drop((first, second));
    }

    #[test]
    fn a_directory_belongs_to_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDirectory::open(folder.path()).unwrap();
        assert!(matches!(DataDirectory::open(folder.path()), Err(DataDirectoryError::InUse(_))));
        drop(first);
        assert!(DataDirectory::open(folder.path()).is_ok());
    }
}
