//! What the file system in `fuse` calls by which number.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use fuser::INodeNo;

/// Paths by the numbers that the kernel knows them by. A number is never used again.
pub struct Tree {
    paths: HashMap<u64, PathBuf>,
    numbers: HashMap<PathBuf, u64>,
    next: u64,
}

impl Tree {
    pub fn new(root: PathBuf) -> Self {
        let number = INodeNo::ROOT.0;
        Self { paths: [(number, root.clone())].into(), numbers: [(root, number)].into(), next: number + 1 }
    }

    pub fn path(&self, node: INodeNo) -> io::Result<PathBuf> {
        self.paths.get(&node.0).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub fn number(&mut self, path: &Path) -> INodeNo {
        if let Some(number) = self.numbers.get(path) {
            return INodeNo(*number);
        }
        let number = self.next;
        self.next += 1;
        self.enter(number, path.to_owned());
        INodeNo(number)
    }

    fn enter(&mut self, number: u64, path: PathBuf) {
        self.numbers.insert(path.clone(), number);
        self.paths.insert(number, path);
    }

    pub fn remove(&mut self, path: &Path) {
        if let Some(number) = self.numbers.remove(path) {
            self.paths.remove(&number);
        }
    }

    /// With all that is below it.
    pub fn rename(&mut self, from: &Path, to: &Path) {
        self.remove(to);
        let moved: Vec<_> = self.numbers.keys().filter(|path| path.starts_with(from)).cloned().collect();
        for path in moved {
            let number = self.numbers.remove(&path).expect("it is there");
            let below = path.strip_prefix(from).expect("it is below");
            // Joined with nothing, a path would end in a slash.
            let new = if below.as_os_str().is_empty() { to.to_owned() } else { to.join(below) };
            self.enter(number, new);
        }
    }
}
