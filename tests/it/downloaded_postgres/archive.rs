//! Archives for the tests: this machine's server programs, and archives that rosterd must refuse.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use flate2::Compression;
use flate2::write::GzEncoder;
use ring::digest::{SHA256, digest};
use tar::{Builder, EntryType, Header};

pub fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

/// An archive of the server programs that the tests of this machine use.
pub fn this_machines_programs() -> &'static Vec<u8> {
    static ARCHIVE: OnceLock<Vec<u8>> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        let script = ". .ci/postgres.sh && postgres_programs";
        let found = Command::new("bash")
            .args(["-c", script])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let bin = String::from_utf8_lossy(&found.stdout);
        let bin = Path::new(bin.trim());
        assert!(bin.join("postgres").is_file(), "no server programs for an archive: {found:?}");
        let root = bin.parent().unwrap();
        let mut archive = builder();
        if root.join("share/postgres.bki").exists() || root.join("share/postgresql/postgres.bki").exists() {
            // The programs find their other files relative to their own directory.
            archive.follow_symlinks(false);
            archive.append_dir_all("postgresql", root).unwrap();
        } else {
            // Debian's packages find most of them in a fixed directory.
            let files =
                ["bin/postgres", "bin/initdb", "bin/pg_ctl", "lib/dict_snowball.so", "lib/plpgsql.so"];
            for file in files {
                archive.append_path_with_name(root.join(file), format!("postgresql/{file}")).unwrap();
            }
        }
        finish(archive)
    })
}

/// An archive of executable files.
pub fn tar_gz(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = builder();
    for (path, content) in files {
        archive.append_data(&mut header(EntryType::Regular, content.len()), path, *content).unwrap();
    }
    finish(archive)
}

/// An archive with a file at this path, which the crate's own methods would refuse.
pub fn with_path(path: &str) -> Vec<u8> {
    let mut archive = builder();
    let mut header = header(EntryType::Regular, 4);
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_cksum();
    archive.append(&header, b"evil".as_slice()).unwrap();
    finish(archive)
}

/// An archive with a symbolic link to `target` and a file that would be written through the link.
pub fn with_link_and_file_behind_it(target: &str) -> Vec<u8> {
    let mut archive = builder();
    archive.append_link(&mut header(EntryType::Symlink, 0), "pg/link", target).unwrap();
    archive.append_data(&mut header(EntryType::Regular, 4), "pg/link/escaped", b"evil".as_slice()).unwrap();
    finish(archive)
}

fn builder() -> Builder<GzEncoder<Vec<u8>>> {
    Builder::new(GzEncoder::new(Vec::new(), Compression::fast()))
}

fn header(kind: EntryType, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size.try_into().unwrap());
    header.set_mode(0o4755);
    header.set_cksum();
    header
}

fn finish(archive: Builder<GzEncoder<Vec<u8>>>) -> Vec<u8> {
    archive.into_inner().unwrap().finish().unwrap()
}
