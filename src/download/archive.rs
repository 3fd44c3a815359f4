//! Unpacks an archive whose entries all stay in the directory.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use tar::{Archive, Entry, EntryType};

use super::error::DownloadError;

/// In bytes. A small archive could otherwise fill the disk.
const MAX_UNPACKED_BYTES: u64 = 2_000_000_000;
/// Removes the rights to write from group and others; the set-user-id bit is never set.
const MASK: u32 = 0o022;

/// Unpacks `file` into the new directory `into`, and returns the only directory in it, or `into` if it has several entries.
pub(super) fn unpack(file: &Path, into: &Path) -> Result<PathBuf, DownloadError> {
    let opened = File::open(file).map_err(|error| DownloadError::files("read", file, error))?;
    fs::create_dir(into).map_err(|error| DownloadError::files("create", into, error))?;
    let bytes = MultiGzDecoder::new(BufReader::new(opened)).take(MAX_UNPACKED_BYTES);
    let mut archive = Archive::new(bytes);
    archive.set_preserve_mtime(false);
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        if entry.header().entry_type().is_pax_global_extensions() {
            continue;
        }
        check(&entry)?;
        entry.set_mask(MASK);
        let path = into.join(entry.path().map_err(damaged)?);
        // The crate checks again that no link leads out of the directory.
        let is_unpacked = entry.unpack_in(into).map_err(|error| written(&path, error))?;
        if !is_unpacked {
            return Err(unsafe_entry(&entry));
        }
    }
    // The rest after the last entry has the checksum of gzip.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(damaged)?;
    only_directory(into).map_err(|error| DownloadError::files("read", into, error))
}

fn only_directory(dir: &Path) -> io::Result<PathBuf> {
    let mut entries = fs::read_dir(dir)?;
    match (entries.next(), entries.next()) {
        (Some(entry), None) if entry.as_ref().is_ok_and(|entry| entry.path().is_dir()) => Ok(entry?.path()),
        _ => Ok(dir.to_owned()),
    }
}

/// Only files, directories and links that stay in the archive's own directory.
fn check(entry: &Entry<'_, impl Read>) -> Result<(), DownloadError> {
    let path = entry.path().map_err(damaged)?;
    let link = entry.link_name().map_err(damaged)?;
    let is_inside = match (entry.header().entry_type(), &link) {
        (EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse | EntryType::Directory, _) => {
            stays_inside(&path)
        }
        (EntryType::Symlink, Some(target)) => {
            let target = path.parent().unwrap_or(Path::new("")).join(target);
            stays_inside(&path) && stays_inside(&target)
        }
        (EntryType::Link, Some(target)) => stays_inside(&path) && stays_inside(target),
        _ => false,
    };
    if is_inside { Ok(()) } else { Err(unsafe_entry(entry)) }
}

/// Whether a relative path never leaves the directory in which it begins.
fn stays_inside(path: &Path) -> bool {
    let depth = path.components().try_fold(0_i32, |depth, component| match component {
        Component::Normal(_) => Some(depth + 1),
        Component::CurDir => Some(depth),
        Component::ParentDir => Some(depth - 1).filter(|depth| *depth >= 0),
        Component::RootDir | Component::Prefix(_) => None,
    });
    depth.is_some()
}

fn unsafe_entry(entry: &Entry<'_, impl Read>) -> DownloadError {
    let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    DownloadError::Archive {
        reason: format!("its entry {path:?} would be outside of the directory, or is no file"),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn damaged(error: io::Error) -> DownloadError {
    DownloadError::Archive { reason: format!("it is damaged ({error})") }
}

/// The crate wraps errors of the file system and of the archive in the same way. Those of the file system have a code.
fn written(path: &Path, error: io::Error) -> DownloadError {
    let cause =
        error.get_ref().and_then(|inner| inner.source()).and_then(|inner| inner.downcast_ref::<io::Error>());
    if error.raw_os_error().is_some() || cause.is_some_and(|cause| cause.raw_os_error().is_some()) {
        DownloadError::files("write", path, error)
    } else {
        damaged(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_the_directory_do_not_stay_inside() {
        for inside in ["bin/postgres", "./lib/libpq.so", "lib/../lib/libpq.so.5", "a/b/../../c"] {
            assert!(stays_inside(Path::new(inside)), "{inside}");
        }
        for outside in ["/etc/passwd", "../pgpass", "bin/../../pgpass", "a/../../a"] {
            assert!(!stays_inside(Path::new(outside)), "{outside}");
        }
    }
}
