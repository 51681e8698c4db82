//! Where the master key comes from: a systemd credential, or a file in the data directory.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::config::Environment;
use crate::store::{MasterKey, SecretError, random};

/// Name of the file, and of the credential.
const NAME: &str = "master.key";

/// Why there is no master key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// There is none, and outside development none is made.
    #[error(
        "there is no master key: pass one as the systemd credential `{NAME}`, or make the file {path}: (umask 277; openssl rand -hex 32 > {path})",
        path = .0.display()
    )]
    Missing(PathBuf),
    /// There is none, but a store that needs one.
    #[error("the store's secrets lie under a master key that is not there: put {} back", .0.display())]
    Lost(PathBuf),
    /// It is not a key.
    #[error("{} is not a master key: it must be 32 bytes, or 64 hexadecimal digits", .0.display())]
    Malformed(PathBuf),
    /// It cannot be read or written.
    #[error("the master key {} cannot be read or made: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// No randomness to make one from.
    #[error(transparent)]
    Random(#[from] SecretError),
}

/// The key for the store in `data_dir`; `credentials` is systemd's directory of credentials, if there is one. In
/// development a key is made for a store that is made.
pub(super) fn load(data_dir: &Path, credentials: Option<&Path>, environment: Environment) -> Result<MasterKey, MasterKeyError> {
    let own = data_dir.join(NAME);
    for path in credentials.map(|folder| folder.join(NAME)).into_iter().chain([own.clone()]) {
        match fs::read(&path) {
            Ok(content) => return parse(&Zeroizing::new(content)).ok_or(MasterKeyError::Malformed(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(MasterKeyError::Io { path, source }),
        }
    }
    if data_dir.join("ledger.redb").exists() {
        return Err(MasterKeyError::Lost(own));
    }
    if environment != Environment::Development {
        return Err(MasterKeyError::Missing(own));
    }
    let key: Zeroizing<[u8; 32]> = Zeroizing::new(random()?);
    write(&own, &key).map_err(|source| MasterKeyError::Io { path: own, source })?;
    Ok(MasterKey::new(*key))
}

fn parse(content: &[u8]) -> Option<MasterKey> {
    if let Ok(bytes) = <[u8; 32]>::try_from(content) {
        return Some(MasterKey::new(bytes));
    }
    let text = std::str::from_utf8(content).ok()?.trim();
    let mut bytes = Zeroizing::new([0_u8; 32]);
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(place * 2..place * 2 + 2)?, 16).ok()?;
    }
    Some(MasterKey::new(*bytes))
}

/// Written under another name first, so that a crash leaves a whole key or none.
fn write(path: &Path, key: &[u8; 32]) -> io::Result<()> {
    let unfinished = path.with_extension("key.new");
    let mut text = Zeroizing::new(String::with_capacity(65));
    for byte in key {
        text.push_str(&format!("{byte:02x}"));
    }
    text.push('\n');
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    match path.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn development_makes_a_key_once_and_others_are_told_how() {
        let folder = tempfile::tempdir().unwrap();
        let missing = load(folder.path(), None, Environment::Production).unwrap_err();
        assert!(matches!(missing, MasterKeyError::Missing(_)), "{missing}");
        load(folder.path(), None, Environment::Development).unwrap();
        let path = folder.path().join(NAME);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o400);
        let text = fs::read_to_string(&path).unwrap();
        load(folder.path(), None, Environment::Production).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn a_store_without_its_key_gets_no_new_one() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ledger.redb"), "").unwrap();
        assert!(matches!(load(folder.path(), None, Environment::Development).unwrap_err(), MasterKeyError::Lost(_)));
    }

    #[test]
    fn a_credential_comes_first_and_must_be_a_key() {
        let (folder, credentials) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(credentials.path().join(NAME), [7; 32]).unwrap();
        load(folder.path(), Some(credentials.path()), Environment::Production).unwrap();
        for wrong in ["short", &"g".repeat(64), &"a".repeat(63)] {
            fs::write(credentials.path().join(NAME), wrong).unwrap();
            let refused = load(folder.path(), Some(credentials.path()), Environment::Production).unwrap_err();
            assert!(matches!(refused, MasterKeyError::Malformed(_)), "{wrong}");
        }
    }
}
