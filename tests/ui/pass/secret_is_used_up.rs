//! A secret is made, and given away.
use vram_residency::{VramManager, WorkerId, WorkerSecret};

fn main() {
    let secret = WorkerSecret::random().unwrap();
    assert_eq!(format!("{secret:?}"), "WorkerSecret(..)");
    let _builder = VramManager::builder(WorkerId::new("ui").unwrap(), secret);
}
