//! A disk that loses, reorders and tears what was not synced.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use lutine::store::disk::{Disk, FileStorage, OpenMode};
use redb::StorageBackend;

/// A small generator of chance; the same seed gives the same run (xorshift64*, Vigna 2014).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    pub fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Debug, Default)]
struct SimFile {
    /// What a power loss leaves for certain.
    durable: Vec<u8>,
    /// What the process sees.
    live: Vec<u8>,
    /// What was changed since the last sync, in order.
    pending: Vec<Change>,
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Length(length) => content.resize(*length as usize, 0),
        Change::Write(offset, bytes) => {
            let end = *offset as usize + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[*offset as usize..end].copy_from_slice(bytes);
        }
    }
}

#[derive(Debug, Clone)]
enum NameChange {
    Link(String, u64),
    Unlink(String),
    Rename(String, String),
}

impl NameChange {
    fn folder(&self) -> &str {
        let (Self::Link(name, _) | Self::Unlink(name) | Self::Rename(name, _)) = self;
        name.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Link(name, file) => {
                names.insert(name.clone(), *file);
            }
            Self::Unlink(name) => {
                names.remove(name);
            }
            Self::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<u64, SimFile>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    pending_names: Vec<NameChange>,
    next_file: u64,
    /// Operations since the power came.
    operations: u64,
    /// The operation during which the power goes.
    crash_at: u64,
    dead: bool,
    /// Counts the lives; handles of an earlier one are dead.
    life: u64,
    /// How often each file is open.
    open: HashMap<u64, usize>,
    /// What the store is doing, as the test says.
    phase: &'static str,
    target: Option<Target>,
    /// What was under way when the power went: `phase: operation of which file`.
    hit: Option<String>,
}

/// What the power loss is waited for instead of a number of operations.
#[derive(Debug, Clone)]
pub struct Target {
    /// The phase and the operation, as the census names them.
    pub event: String,
    /// How many of these pass before.
    pub passing: u64,
}

/// The disk; a clone is the same one.
#[derive(Debug, Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

/// What kind of file or folder has a name.
fn class_of(name: &str) -> &'static str {
    match name {
        "" => "a file without a name",
        "log" => "log folder",
        "attempts" => "attempts folder",
        "ledger.redb" => "ledger",
        _ if name.starts_with("attempts/") => "attempts",
        _ if name.ends_with(".sealing") => "sealing",
        _ if name.ends_with(".sealed.redb") => "sealed",
        _ => "open",
    }
}

fn power_is_gone() -> io::Error {
    io::Error::other("the power is gone")
}

impl State {
    /// Counts an operation; an error once the power is gone. The last operation may still reach the platter.
    fn tick(&mut self, operation: &str, name: &str) -> io::Result<()> {
        if self.dead {
            return Err(power_is_gone());
        }
        self.operations += 1;
        self.dead = self.operations >= self.crash_at;
        // The first thing that closing a segment does is to note the next one in the ledger.
        if self.phase == "committing" && class_of(name) == "ledger" {
            self.phase = "rotating";
        }
        if self.dead || self.target.is_some() {
            let event = format!("{}: {operation} {}", self.phase, class_of(name));
            if let Some(target) = self.target.as_mut().filter(|target| target.event == event) {
                self.dead |= target.passing == 0;
                target.passing = target.passing.saturating_sub(1);
            }
            if self.dead {
                self.hit = Some(event);
            }
        }
        Ok(())
    }

    fn tick_file(&mut self, operation: &str, file: u64) -> io::Result<()> {
        let name = self.names.iter().find(|(_, named)| **named == file).map_or(String::new(), |(name, _)| name.clone());
        self.tick(operation, &name)
    }

    fn finish(&self) -> io::Result<()> {
        if self.dead { Err(power_is_gone()) } else { Ok(()) }
    }
}

impl SimDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Lets the power go after so many more operations.
    pub fn crash_after(&self, operations: u64) {
        let mut state = self.state();
        state.crash_at = state.operations + operations;
    }

    pub fn never_crash(&self) {
        self.state().crash_at = u64::MAX;
    }

    /// Lets the power go at a certain operation of a certain phase.
    pub fn crash_at(&self, target: Target) {
        let mut state = self.state();
        state.crash_at = u64::MAX;
        state.target = Some(target);
    }

    /// Says what the store is about to do.
    pub fn enter(&self, phase: &'static str) {
        self.state().phase = phase;
    }

    /// What the last power loss hit; none when nothing was under way.
    pub fn take_hit(&self) -> Option<String> {
        self.state().hit.take()
    }

    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// Takes the power away now, and brings it back: what was synced is there, of the rest what chance keeps.
    pub fn power_cycle(&self, chance: &mut Chance) {
        let mut state = self.state();
        // Each folder keeps a beginning of its own changes.
        let pending = std::mem::take(&mut state.pending_names);
        for folder in ["", "log", "attempts"] {
            let of_folder: Vec<_> = pending.iter().filter(|change| change.folder() == folder).collect();
            let kept = match chance.below(3) {
                0 => 0,
                1 => of_folder.len(),
                _ => chance.below(of_folder.len() as u64 + 1) as usize,
            };
            for change in of_folder.into_iter().take(kept) {
                change.apply(&mut state.durable_names);
            }
        }
        state.names = state.durable_names.clone();
        let named: Vec<u64> = state.names.values().copied().collect();
        state.files.retain(|file, _| named.contains(file));
        for file in state.files.values_mut() {
            let pending = std::mem::take(&mut file.pending);
            for change in survivors(pending, chance) {
                apply(&mut file.durable, &change);
            }
            file.live = file.durable.clone();
        }
        state.life += 1;
        state.operations = 0;
        state.crash_at = u64::MAX;
        state.target = None;
        state.dead = false;
    }

    /// Changes one bit of a file's durable bytes.
    pub fn flip(&self, name: &str, bit: u64) {
        let mut state = self.state();
        let file = state.names[name];
        let content = state.files.get_mut(&file).unwrap();
        for bytes in [&mut content.durable, &mut content.live] {
            let place = (bit / 8) as usize % bytes.len();
            bytes[place] ^= 1 << (bit % 8);
        }
    }

    /// What the process sees of a file.
    pub fn content(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.files[&state.names[name]].live.clone()
    }

    /// Puts a file with this content in the place of `name`, synced.
    pub fn put(&self, name: &str, content: Vec<u8>) {
        let mut state = self.state();
        state.next_file += 1;
        let file = state.next_file;
        state.files.insert(file, SimFile { durable: content.clone(), live: content, pending: Vec::new() });
        state.names.insert(name.to_owned(), file);
        state.durable_names.insert(name.to_owned(), file);
    }

    /// Every name with its content.
    pub fn everything(&self) -> BTreeMap<String, Vec<u8>> {
        self.names().into_iter().map(|name| (name.clone(), self.content(&name))).collect()
    }

    /// Files that are open although their names are gone: their blocks are not free.
    pub fn open_without_a_name(&self) -> usize {
        let state = self.state();
        state.open.iter().filter(|(file, count)| **count > 0 && !state.names.values().any(|named| named == *file)).count()
    }

    pub fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }
}

/// What reaches the platter of changes that were not synced.
fn survivors(mut pending: Vec<Change>, chance: &mut Chance) -> Vec<Change> {
    match chance.below(5) {
        0 => pending.clear(),
        1 => pending.truncate(chance.below(pending.len() as u64 + 1) as usize),
        2 => pending.retain(|_| chance.one_in(2)),
        3 => {
            pending.retain(|_| chance.one_in(2));
            for last in (1..pending.len()).rev() {
                pending.swap(last, chance.below(last as u64 + 1) as usize);
            }
        }
        _ => {}
    }
    pending.into_iter().flat_map(|change| torn(change, chance)).collect()
}

/// Tears a write at sectors of 512 bytes.
fn torn(change: Change, chance: &mut Chance) -> Vec<Change> {
    match change {
        Change::Write(offset, bytes) if bytes.len() > 512 && chance.one_in(4) => {
            let sectors = bytes.chunks(512).enumerate();
            let kept: Vec<_> = sectors
                .filter(|_| chance.one_in(2))
                .map(|(place, part)| Change::Write(offset + place as u64 * 512, part.to_vec()))
                .collect();
            kept
        }
        other => vec![other],
    }
}

/// One open file.
#[derive(Debug)]
struct Handle {
    disk: SimDisk,
    file: u64,
    life: u64,
}

impl Handle {
    /// The file, if the power has not gone since it was opened.
    fn with<T>(&self, action: impl FnOnce(&mut State, u64) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state();
        if state.life != self.life {
            return Err(power_is_gone());
        }
        action(&mut state, self.file)
    }

    fn change(&self, change: Change) -> io::Result<()> {
        self.with(|state, file| {
            let operation = if matches!(change, Change::Length(_)) { "length of" } else { "write to" };
            state.tick_file(operation, file)?;
            let content = state.files.get_mut(&file).ok_or_else(power_is_gone)?;
            apply(&mut content.live, &change);
            content.pending.push(change);
            state.finish()
        })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(count) = self.disk.state().open.get_mut(&self.file) {
            *count -= 1;
        }
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        self.with(|state, file| state.files.get(&file).map(|content| content.live.len() as u64).ok_or_else(power_is_gone))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|state, file| {
            if state.dead {
                return Err(power_is_gone());
            }
            let content = state.files.get(&file).ok_or_else(power_is_gone)?;
            let from = offset as usize;
            let bytes = content.live.get(from..from + out.len()).ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
            out.copy_from_slice(bytes);
            Ok(())
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(Change::Length(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|state, file| {
            state.tick_file("sync of", file)?;
            state.finish()?;
            let content = state.files.get_mut(&file).ok_or_else(power_is_gone)?;
            for change in std::mem::take(&mut content.pending) {
                apply(&mut content.durable, &change);
            }
            Ok(())
        })
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.change(Change::Write(offset, bytes.to_vec()))
    }
}

impl Disk for SimDisk {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<FileStorage> {
        let mut state = self.state();
        let known = state.names.get(name).copied();
        let file = match (known, mode) {
            (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (None, OpenMode::CreateNew) => {
                state.tick("creation of", name)?;
                state.next_file += 1;
                let file = state.next_file;
                state.files.insert(file, SimFile::default());
                state.names.insert(name.to_owned(), file);
                state.pending_names.push(NameChange::Link(name.to_owned(), file));
                state.finish()?;
                file
            }
            (Some(file), _) => file,
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        let life = state.life;
        *state.open.entry(file).or_default() += 1;
        drop(state);
        Ok(FileStorage::new(Handle { disk: self.clone(), file, life }))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let state = self.state();
        let in_folder = |name: &String| {
            let (parent, file) = name.rsplit_once('/').unwrap_or(("", name));
            (parent == folder).then(|| file.to_owned())
        };
        Ok(state.names.keys().filter_map(in_folder).collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change_names(NameChange::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change_names(NameChange::Unlink(name.to_owned()))
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        let mut state = self.state();
        state.tick("sync of", folder)?;
        state.finish()?;
        let pending = std::mem::take(&mut state.pending_names);
        for change in pending {
            if change.folder() == folder {
                change.apply(&mut state.durable_names);
            } else {
                state.pending_names.push(change);
            }
        }
        Ok(())
    }

    fn disk_bytes(&self, name: &str) -> io::Result<u64> {
        let state = self.state();
        let file = state.names.get(name).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(state.files[file].live.len() as u64)
    }
}

impl SimDisk {
    fn change_names(&self, change: NameChange) -> io::Result<()> {
        let mut state = self.state();
        let (operation, name) = match &change {
            NameChange::Rename(from, _) => ("rename of", from.clone()),
            NameChange::Link(name, _) | NameChange::Unlink(name) => ("removal of", name.clone()),
        };
        state.tick(operation, &name)?;
        change.apply(&mut state.names);
        state.pending_names.push(change);
        state.finish()
    }
}
