//! The directory's files in the system's cache.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Reads the directory's files in this folder once, as a machine with memory to spare has them in its
/// cache.
///
/// Some kernels take back within a minute what nobody reads, and a round then measures the disk.
pub(crate) fn warm(folder: &Path) {
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let entry = entry.expect("the folder can be read");
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with("directory.sqlite")
        {
            let mut file = File::open(entry.path()).expect("the file can be read");
            io::copy(&mut file, &mut io::sink()).expect("the file can be read");
        }
    }
}
