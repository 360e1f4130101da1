//! Files that lie in the system's cache.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Reads every file of this folder once, as a machine with memory to spare has them in its cache.
///
/// Some kernels take back within a minute what nobody reads, and a round then measures the disk.
pub(crate) fn warm(folder: &Path) {
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("the folder can be read").path();
        if path.is_file() {
            let mut file = File::open(path).expect("the file can be read");
            io::copy(&mut file, &mut io::sink()).expect("the file can be read");
        }
    }
}
