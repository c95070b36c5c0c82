//! Files and folders of the node.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::Failure;

/// Makes a folder and those above it.
pub fn make_folder(path: &Path, mode: u32) -> Result<(), Failure> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|error| Failure::file(path, error))
}

/// Makes the folder a file is going to be in.
pub fn make_parent(path: &Path, mode: u32) -> Result<(), Failure> {
    path.parent().map_or(Ok(()), |folder| make_folder(folder, mode))
}

/// Reads a file.
pub fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::file(path, error))
}

/// Writes a file whole: a new file of that mode takes the old one's place.
pub fn write(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let written = || {
        if new.exists() {
            std::fs::remove_file(&new)?;
        }
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        // Whatever the umask is.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        std::fs::rename(&new, path)
    };
    written().map_err(|error| Failure::file(path, error))
}

/// Makes a symbolic link, in the place of what is there.
pub fn link(to: &Path, at: &Path) -> Result<(), Failure> {
    let linked = || {
        if at.symlink_metadata().is_ok() {
            std::fs::remove_file(at)?;
        }
        std::os::unix::fs::symlink(to, at)
    };
    linked().map_err(|error| Failure::file(at, error))
}
